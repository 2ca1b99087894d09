"""When a trust file may take the place of another: the rules of root rotation of The Update Framework (5.3).

A new version has the next number and is signed by enough root keys of the version before it and by enough of its own.
A vehicle that was away follows the versions one by one. An end date is looked at when a cache is verified, and only
that of the newest version: an expired one still names those who may sign the next.
"""

from __future__ import annotations

from pathlib import Path

from provisioning.base.disk.files import read_regular
from provisioning.base.errors import TrustError
from provisioning.flight.trust.document import MAX_BYTES, MAX_VERSIONS, parse, payload
from provisioning.flight.trust.types import ROOT, SignedVersion, Trust, Version


def missing_signatures(signed: SignedVersion, by: Version) -> int:
    """Return how many more root keys of the version `by` must sign; each key counts once, however often it signed."""
    data = payload(signed.signed)
    keys = {key.key.fingerprint: key.key for key in by.keys_of(ROOT)}
    good = {
        one.fingerprint
        for one in signed.signatures
        if one.fingerprint in keys and keys[one.fingerprint].verifies(one.signature, data)
    }
    return max(0, by.thresholds.root - len(good))


def signed_by_own_roots(trust: Trust) -> frozenset[str]:
    """Return the fingerprints of the keys that signed a version of which they are root keys: who vouches for it."""
    return frozenset(
        one.fingerprint
        for each in trust.versions
        for one in each.signatures
        for key in each.signed.keys_of(ROOT)
        if key.key.fingerprint == one.fingerprint and key.key.verifies(one.signature, payload(each.signed))
    )


def check_chain(trust: Trust) -> Trust:
    """Return `trust` if its first version is signed by itself and every other by the one before and by itself."""
    _require(trust.versions[0], by=trust.versions[0].signed)
    for old, new in zip(trust.versions, trust.versions[1:], strict=False):
        _require_next(old.signed, new)
    return trust


def _require_next(old: Version, new: SignedVersion) -> None:
    if new.signed.version != old.version + 1:
        raise TrustError(
            "versions of the trust file are missing",
            facts={"here": old.version, "next offered": new.signed.version},
            next_step="send the whole trust.json, from version 1 on",
        )
    _require(new, by=old)
    _require(new, by=new.signed)


def _require(new: SignedVersion, *, by: Version) -> None:
    if missing := missing_signatures(new, by):
        raise TrustError(
            f"version {new.signed.version} of the trust file is not signed by enough root keys",
            facts={"root keys of version": by.version, "must sign": by.thresholds.root, "missing": missing},
            next_step="flightcache trust sign FILE --key ROOT.pem, with each root key that is missing",
        )


def read_trust(path: Path) -> Trust:
    """Return the trust file at `path`, its chain checked; TrustError otherwise."""
    try:
        data = read_regular(path, limit=MAX_BYTES)
    except OSError as error:
        raise TrustError(f"the trust file cannot be read: {error.strerror or error}", file=path) from error
    trust = parse(data, file=path)
    try:
        return check_chain(trust)
    except TrustError as error:
        error.file = str(path)
        raise


def update(installed: Trust, offered: Trust) -> Trust:
    """Return what is to be installed in place of `installed` after `offered` arrived; the same if it is nothing new.

    TrustError, and nothing may change then: an older version, another one with the same number, a gap, a version not
    signed by enough root keys of the one installed before it.
    """
    check_chain(offered)
    last = installed.newest
    if offered.newest.version < last.version:
        raise TrustError(
            "an older trust file never replaces a newer one",
            facts={"version here": last.version, "version offered": offered.newest.version},
            next_step="send the newest trust.json",
        )
    known = {each.signed.version: each.signed for each in installed.versions}
    for each in offered.versions:
        if known.get(each.signed.version, each.signed) != each.signed:
            raise TrustError(
                f"two trust files say different things as version {each.signed.version}",
                next_step="find out who signed the other one; the vehicle keeps the one that it has",
            )
    newer = tuple(each for each in offered.versions if each.signed.version > last.version)
    for old, new in zip((last, *(each.signed for each in newer)), newer, strict=False):
        _require_next(old, new)
    return Trust((*installed.versions, *newer)[-MAX_VERSIONS:])


def recovered(floor: int | None, newer: tuple[SignedVersion, ...]) -> int | None:
    """Return a counter floor (None: lost) after the recovery statements of versions that were just installed."""
    for statement in (each.signed.recovery for each in newer):
        if statement is not None and (floor is None or floor > statement.above):
            floor = statement.counter
    return floor
