"""What a caller expects of a cache. Nothing has a silent default: not to check a thing is to write ANY."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from provisioning.base.hashing import Sha256
from provisioning.base.named import NamedTuple
from provisioning.flight.manifest import Host
from provisioning.flight.signing import PublicKey

if TYPE_CHECKING:  # a caller with keys alone starts without it
    from provisioning.flight.trust import Version


class Anything(Enum):
    """The type of ANY."""

    ANY = "any"


ANY: Literal[Anything.ANY] = Anything.ANY
"""Passed where the caller knowingly does not check."""


class ExpectedHost(NamedTuple):
    """A host tuple in which some parts may be ANY, such as the precision, which no probe can tell."""

    backend: str | Anything
    runtime: str | Anything
    arch: str | Anything
    device: str | Anything
    platform: str | Anything
    precision: str | Anything


class CounterFloor(NamedTuple):
    """The least counter accepted: one decimal number in a file outside the cache.

    With `raise_on_pass` a PASS raises the number to the counter that passed, and writes into `<path>.manifest` which
    Manifest that was: another set with the same counter is refused from then on. Nothing else ever writes them. A file
    that is missing or unreadable refuses the cache: an attacker who can delete it must not gain a rollback.
    """

    path: Path
    raise_on_pass: bool


LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z: a later year has five digits and, as text, would come before every `not_after`."""


class Expectations(NamedTuple):
    """What the caller expects.

    keys: public keys trusted, at least one; several while keys rotate. They never come from the cache.
    trust: the newest version of an installed trust file, in place of keys: it names keys, threshold and revoked keys.
    flight_id, aircraft_id: the text expected; None where the Manifest must have none.
    host: the host tuple here.
    counter_floor: a number, or the file that keeps it.
    fingerprints: if given, only keys of these fingerprints count.
    revoked: fingerprints of keys that no longer count, whoever trusts them.
    now_s: seconds since 1970-01-01 UTC, compared with every `not_after`; None: the clock of this computer; ANY: it has
    none, and nothing expires.
    Fingerprints may be spelled as `read_fingerprints` reads them; one that it cannot read refuses every cache.
    """

    keys: tuple[PublicKey, ...]
    flight_id: str | Anything | None
    aircraft_id: str | Anything | None
    host: Host | ExpectedHost | Anything
    counter_floor: int | CounterFloor | Anything
    fingerprints: frozenset[str] | Anything = ANY
    revoked: frozenset[str] = frozenset()
    now_s: int | Anything | None = None
    trust: Version | None = None

    @property
    def now(self) -> str | None:
        """The time to compare with, as `not_after` is written; None if it is not to be compared."""
        if self.now_s is ANY:
            return None
        now_s = time.time() if self.now_s is None else self.now_s
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(now_s, LAST_SECOND)))


class KnownFile(NamedTuple):
    """What a builder knows of a file that it wrote or hashed before."""

    bytes: int
    mtime_ns: int
    inode: int
    sha256: Sha256


KnownGood = Mapping[str, KnownFile]
"""By path in the generation. For a builder's no-op only: at take-off every byte is hashed."""
