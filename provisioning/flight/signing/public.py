"""Public keys: read, checked, used to verify. All that the verifier needs of this package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provisioning.base.errors import SigningError

SIGNATURE_BYTES = 64
_P = 2**255 - 19
_SMALL_ORDER_Y = frozenset({
    0,
    1,
    _P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
})  # fmt: skip
"""The y of the eight points of small order on edwards25519 (RFC 8032); test_signing.py derives them again."""


class PublicKey(NamedTuple):
    """A raw Ed25519 public key, 32 bytes."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, 64 hex digits."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def is_weak(self) -> bool:
        """Whether the point has small order or no canonical form: such a "key" verifies messages nobody signed."""
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        return len(self.raw) != 32 or y >= _P or y in _SMALL_ORDER_Y

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Tell whether `signature` (64 bytes) is this key's over `data`; a weak key verifies nothing."""
        if self.is_weak:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


def load_public_key(path: Path) -> PublicKey:
    """Return the Ed25519 public key in a PEM file; SigningError for any other content and for weak keys."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SigningError(f"the public key cannot be read: {error.strerror}", file=path) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningError(
            "not a PEM public key", file=path, next_step="give the .pub.pem that flightcache keygen wrote"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningError("not an Ed25519 key", file=path, next_step="make one with flightcache keygen")
    public = PublicKey(key.public_bytes_raw())
    if public.is_weak:
        raise SigningError("a weak key: anyone can make signatures that it accepts", file=path)
    return public


def public_key_path(private: Path) -> Path:
    """Return where the public half of the key file `private` is kept."""
    return private.with_suffix(".pub.pem")
