"""The trust file: one form, rules of rotation as python-tuf has them, thresholds, ends, recovery."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provisioning.base.errors import TrustError
from provisioning.flight.signing import PublicKey
from provisioning.flight.trust import (
    ROOT,
    SIGNING,
    Recovery,
    Signature,
    SignedVersion,
    Thresholds,
    Trust,
    TrustedKey,
    Version,
    check_chain,
    parse,
    payload,
    recovered,
    to_bytes,
    update,
)
from provisioning.flight.verify import ANY, Expectations, Verdict, verify
from tests.caches import KEY, OTHER_KEY, Cache, public, publish

ROOTS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 6)]


def version(number: int, roots=(0,), *, root: int = 1, signing=(KEY,), threshold: int = 1, **more) -> Version:
    keys = [TrustedKey(ROOT, public(ROOTS[n])) for n in roots]
    keys += [key if isinstance(key, TrustedKey) else TrustedKey(SIGNING, public(key)) for key in signing]
    return Version(number, tuple(keys), Thresholds(root, threshold), **more)


def signed(content: Version, *by: int) -> SignedVersion:
    data = payload(content)
    signatures = [Signature(public(ROOTS[n]).fingerprint, ROOTS[n].sign(data)) for n in by]
    return SignedVersion(content, tuple(sorted(signatures)))


def chain(*versions: SignedVersion) -> Trust:
    return parse(to_bytes(Trust(versions)))


FIRST = signed(version(1), 0)


# --- form ---------------------------------------------------------------------------------------------------------------


def test_one_trust_file_is_one_sequence_of_bytes() -> None:
    content = version(
        3, (2, 0, 1), root=2, signing=(OTHER_KEY, KEY), threshold=2, revoked=("a" * 64,), not_after="2030-01-01T00:00:00Z",
        recovery=Recovery(57, 12),
    )  # fmt: skip
    data = to_bytes(Trust((signed(content, 0, 1),)))
    assert to_bytes(parse(data)) == data
    assert [key.role for key in parse(data).newest.keys] == [ROOT] * 3 + [SIGNING] * 2
    for other in (data[:-1], data + b"\n", data.replace(b'"version": 3', b'"version": 3.0'), data.replace(b"  ", b" ")):
        with pytest.raises(TrustError, match="not a trust file"):
            parse(other)


@pytest.mark.parametrize(
    ("content", "issue"),
    [
        (version(1, root=2), "2 root keys must sign, 1 are listed"),
        (version(1, threshold=2), "2 signing keys must sign, 1 are listed"),
        (version(1, signing=(ROOTS[0],)), "is there twice"),
        (version(1, revoked=(public(KEY).fingerprint,)), "is trusted and revoked"),
        (version(1, signing=(TrustedKey(SIGNING, PublicKey(b"\1" + bytes(31))),)), "a weak key"),
        (version(1, recovery=Recovery(5, 6)), "recovery.counter is greater"),
        (version(0), "version: a whole number"),
        (version(1, not_after="2030-01-01"), "not_after"),
    ],
)
def test_contradictions_are_refused(content: Version, issue: str) -> None:
    with pytest.raises(TrustError) as refused:
        to_bytes(Trust((SignedVersion(content, ()),)))
    assert issue in str(refused.value)


def test_versions_follow_each_other() -> None:
    with pytest.raises(TrustError, match="not consecutive"):
        chain(FIRST, signed(version(3), 0))


# --- rotation, with python-tuf as oracle ----------------------------------------------------------------------------------


def tuf_accepts(installed: Version, new: Version, by: tuple[int, ...]) -> bool:
    """What python-tuf's client says to the same root rotation."""
    from datetime import datetime, timezone

    from securesystemslib.signer import CryptoSigner
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
    from tuf.ngclient.config import EnvelopeType

    signers = [CryptoSigner(key) for key in ROOTS]
    by_raw = {public(key).raw: signer for key, signer in zip(ROOTS, signers, strict=True)}

    def root(content: Version, signing: tuple[int, ...]) -> bytes:
        value = Root(version=content.version, expires=datetime(2999, 1, 1, tzinfo=timezone.utc))
        for key in content.keys_of(ROOT):
            value.add_key(by_raw[key.key.raw].public_key, "root")
        value.roles["root"].threshold = content.thresholds.root
        metadata = Metadata(value)
        for number in signing:
            metadata.sign(signers[number], append=True)
        return metadata.to_bytes()

    everyone = tuple(n for n in range(len(ROOTS)) if any(k.key == public(ROOTS[n]) for k in installed.keys))
    trusted = TrustedMetadataSet(root(installed, everyone), EnvelopeType.METADATA)
    try:
        trusted.update_root(root(new, by))
    except RepositoryError:
        return False
    return True


def accepts(installed: Version, new: Version, by: tuple[int, ...]) -> bool:
    everyone = tuple(n for n in range(len(ROOTS)) if any(k.key == public(ROOTS[n]) for k in installed.keys))
    here = Trust((signed(installed, *everyone),))
    try:
        return update(here, Trust((signed(new, *by),))).newest == new
    except TrustError:
        return False


@pytest.mark.parametrize("number", [3, 4, 5, 6])
@pytest.mark.parametrize(("new_roots", "new_threshold"), [((0, 1, 2), 2), ((0, 3), 1), ((3, 4), 2), ((0, 1, 3), 3)])
def test_a_root_rotation_is_accepted_exactly_when_python_tuf_accepts_it(number, new_roots, new_threshold) -> None:
    pytest.importorskip("tuf", reason="python-tuf is the oracle: extra [test]")
    installed, new = version(4, (0, 1, 2), root=2), version(number, new_roots, root=new_threshold)
    cases = [by for size in range(6) for by in itertools.combinations(range(5), size)]
    assert {by: accepts(installed, new, by) for by in cases if (number, new) != (4, installed)} == {
        by: tuf_accepts(installed, new, by) for by in cases if (number, new) != (4, installed)
    }
    if number == 5:
        assert any(accepts(installed, new, by) for by in cases)


def test_a_vehicle_that_was_away_follows_every_version() -> None:
    second, third = signed(version(2, (1,)), 0, 1), signed(version(3, (2,)), 1, 2)
    offered = chain(FIRST, second, third)
    assert update(chain(FIRST), offered) == offered
    assert update(offered, offered) == offered
    assert update(chain(FIRST), chain(second, third)) == offered  # the first is known here
    with pytest.raises(TrustError, match="missing"):
        update(chain(FIRST), chain(third))


def test_an_expired_version_still_leads_to_the_next() -> None:
    old = signed(version(2, not_after="2001-01-01T00:00:00Z"), 0)
    assert update(chain(FIRST), chain(FIRST, old, signed(version(3), 0))).newest.version == 3


def test_older_and_forked_files_are_refused() -> None:
    here = chain(FIRST, signed(version(2), 0))
    with pytest.raises(TrustError, match="older"):
        update(here, chain(FIRST))
    with pytest.raises(TrustError, match="different things as version 2"):
        update(here, chain(FIRST, signed(version(2, threshold=1, revoked=("b" * 64,)), 0)))


def test_one_key_that_signs_twice_counts_once() -> None:
    two = version(1, (0, 1), root=2)
    both = signed(two, 0).signatures * 2
    with pytest.raises(TrustError, match="not signed by enough"):
        check_chain(Trust((SignedVersion(two, both),)))


def test_a_signature_of_a_manifest_is_none_of_a_trust_file() -> None:
    assert not payload(version(1)).startswith(b"{")


@pytest.mark.parametrize(("floor", "after"), [(None, 12), (57, 57), (58, 12), (2**53 - 1, 12), (0, 0)])
def test_recovery_touches_only_floors_that_are_lost_or_too_high(floor, after) -> None:
    assert recovered(floor, (signed(version(2, recovery=Recovery(57, 12)), 0),)) == after


# --- a cache verified by a trust file -----------------------------------------------------------------------------------------


def verdict_of(cache: Cache, trust: Version, **more) -> Verdict:
    given = {"now_s": 1_700_000_000, "keys": (), **more}
    expect = Expectations(flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY, trust=trust, **given)
    with verify(cache.root, expect) as verdict:
        return verdict


def codes(verdict: Verdict) -> list[str]:
    return [str(reason.code) for reason in verdict.reasons]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return publish(tmp_path / "cache")


def cosigned(cache: Cache, *keys: Ed25519PrivateKey) -> Cache:
    data = (cache.generation / "Manifest.json").read_bytes()
    (cache.generation / "Manifest.json.sigs").write_bytes(b"".join(key.sign(data) for key in keys))
    return cache


def test_one_of_n(cache: Cache) -> None:
    assert verdict_of(cache, version(1, signing=(KEY, OTHER_KEY))).passed
    assert codes(verdict_of(cache, version(1, signing=(OTHER_KEY,)))) == ["signature"]


def test_two_of_n_needs_two_keys(cache: Cache) -> None:
    two = version(1, signing=(KEY, OTHER_KEY), threshold=2)
    assert codes(verdict_of(cache, two)) == ["threshold"]
    assert codes(verdict_of(cosigned(cache, KEY), two)) == ["threshold"]
    assert codes(verdict_of(cosigned(cache, ROOTS[0]), two)) == ["threshold"]
    verdict = verdict_of(cosigned(cache, ROOTS[0], OTHER_KEY), two)
    assert verdict.passed
    assert verdict.fingerprints == (public(KEY).fingerprint, public(OTHER_KEY).fingerprint)
    assert not verdict_of(cache, two, revoked=frozenset({public(OTHER_KEY).fingerprint})).passed


def test_keys_and_trust_files_end(cache: Cache) -> None:
    at = 1_700_000_000  # 2023-11-14T22:13:20Z
    ends = version(1, signing=(TrustedKey(SIGNING, public(KEY), None, "2023-11-14T22:13:20Z"),))
    assert verdict_of(cache, ends, now_s=at).passed
    assert codes(verdict_of(cache, ends, now_s=at + 1)) == ["key-expired"]
    assert verdict_of(cache, ends, now_s=ANY).passed
    whole = version(1, not_after="2023-11-14T22:13:20Z")
    assert verdict_of(cache, whole, now_s=at).passed
    assert codes(verdict_of(cache, whole, now_s=at + 1)) == ["trust"]
    assert verdict_of(cache, whole, now_s=ANY).passed


def test_keys_beside_a_trust_file_are_refused_not_added(cache: Cache) -> None:
    assert codes(verdict_of(cache, version(1, signing=(OTHER_KEY,)), keys=(public(KEY),))) == ["trust"]


@pytest.mark.parametrize("size", [0, 63, 65, 17 * 64])
def test_signatures_of_another_size_are_refused(cache: Cache, size: int) -> None:
    (cache.generation / "Manifest.json.sigs").write_bytes(bytes(size))
    assert codes(verdict_of(cache, version(1))) == ["size"]


def test_a_link_for_signatures_is_refused(cache: Cache) -> None:
    (cache.generation / "Manifest.json.sigs").symlink_to("Manifest.json.sig")
    assert codes(verdict_of(cache, version(1))) == ["symlink"]
