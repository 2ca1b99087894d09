"""A trust file as frozen values: the versions of who is trusted, each with the signatures of root keys."""

from __future__ import annotations

from provisioning.base.hashing import Sha256
from provisioning.base.named import NamedTuple
from provisioning.flight.signing import PublicKey

ROOT = "root"
"""Role of the keys that sign trust files. They are kept offline."""

SIGNING = "signing"
"""Role of the keys that sign Manifests."""


class TrustedKey(NamedTuple):
    """A key in its role. not_after: the last second, UTC (YYYY-MM-DDTHH:MM:SSZ), at which a signing key counts."""

    role: str
    key: PublicKey
    name: str | None = None
    not_after: str | None = None


class Thresholds(NamedTuple):
    """How many different keys must sign: a trust file, a Manifest."""

    root: int
    signing: int


class Recovery(NamedTuple):
    """A statement of the root about counter floors: one that is lost, or greater than `above`, becomes `counter`."""

    above: int
    counter: int


class Version(NamedTuple):
    """What the root keys sign. not_after: the last second at which anything is accepted by it; None: no end."""

    version: int
    keys: tuple[TrustedKey, ...]
    thresholds: Thresholds
    revoked: tuple[Sha256, ...] = ()
    not_after: str | None = None
    recovery: Recovery | None = None

    def keys_of(self, role: str) -> tuple[TrustedKey, ...]:
        """Return the keys of one role."""
        return tuple(key for key in self.keys if key.role == role)

    @property
    def signing_keys(self) -> tuple[TrustedKey, ...]:
        """The keys that sign Manifests."""
        return self.keys_of(SIGNING)


class Signature(NamedTuple):
    """64 bytes by the key with this fingerprint."""

    fingerprint: Sha256
    signature: bytes


class SignedVersion(NamedTuple):
    """A version with the signatures over it, which nobody has checked yet."""

    signed: Version
    signatures: tuple[Signature, ...]


class Trust(NamedTuple):
    """A trust file: consecutive versions, the newest last. Only the newest says who is trusted."""

    versions: tuple[SignedVersion, ...]

    @property
    def newest(self) -> Version:
        """The version that counts."""
        return self.versions[-1].signed
