"""Public keys: read, checked, used to verify. All that the verifier needs of this package."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provisioning.base.disk.files import read_input
from provisioning.base.errors import SigningError
from provisioning.base.named import NamedTuple

SIGNATURE_BYTES = 64
MAX_FILE_BYTES = 1 << 20
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_SPACE = b" \t\n\r\f\v"
_DER = bytes.fromhex("302a300506032b6570032100")
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
    def digests(self) -> frozenset[str]:
        """All 64 hex digits that people take for a fingerprint: that, the raw key, SHA-256 of its DER and PEM form.

        A revocation by any of them means this key; each is nobody else's.
        """
        der = _DER + self.raw
        pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"
        sums = (hashlib.sha256(form).hexdigest() for form in (self.raw, der, pem))
        return frozenset((self.raw.hex(), *sums))

    @property
    def is_weak(self) -> bool:
        """Whether the point has small order or no canonical form: such a "key" verifies messages nobody signed."""
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        return len(self.raw) != 32 or y >= _P or y in _SMALL_ORDER_Y

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` (64 bytes) is this key's over `data`; a weak key verifies nothing."""
        if self.is_weak:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


def read_fingerprints(text: str) -> frozenset[str]:
    """Return the fingerprints in `text`, as 64 lower-case digits each: one, or several with commas between them.

    Capitals, colons or spaces between the digits and `sha256:` before them mean the same key. SigningError for anything
    else: a revocation that nobody can read must not pass for one that names nobody.
    """
    return frozenset(_fingerprint(part) for part in text.split(","))


def _fingerprint(text: str) -> str:
    digits = re.sub(r"[:\s]", "", text.strip(" \t\n\r\f\v").lower().removeprefix("sha256:"), flags=re.ASCII)
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise SigningError(
            f"not a fingerprint: {text[:100]!r}",
            facts={"expected": "64 hex digits, the SHA-256 of the raw public key"},
            next_step="flightcache key fingerprint KEY.pub.pem prints it",
        )
    return digits


def read_fingerprint_file(path: Path) -> frozenset[str]:
    """Return the fingerprints in a text file: one a line, as `flightcache key fingerprint` prints them.

    Empty lines and what follows a `#` are ignored; a file that names no key is an error, as are more than 1 MiB.
    SigningError names file and line.
    """
    found: set[str] = set()
    for number, line in enumerate(_lines(path), 1):
        text = line.partition("#")[0].strip()
        printed = re.fullmatch(r"([0-9A-Fa-f]{64})  \S.*", text)
        try:
            found |= read_fingerprints(printed[1] if printed else text) if text else frozenset()
        except SigningError as error:
            error.file, error.key = str(path), f"line {number}"
            raise
    if not found:
        raise SigningError("the file names no key", file=path, next_step="write one fingerprint a line into it")
    return frozenset(found)


def _lines(path: Path) -> list[str]:
    try:
        data = read_input(path, limit=MAX_FILE_BYTES)
        if len(data) > MAX_FILE_BYTES:
            raise SigningError(f"larger than {MAX_FILE_BYTES} bytes", file=path)
        return data.decode().splitlines()
    except OSError as error:
        raise SigningError(f"the fingerprints cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        raise SigningError("not a text file", file=path, next_step="write one fingerprint a line into it") from error


def load_public_key(path: Path) -> PublicKey:
    """Return the Ed25519 public key in a PEM file; SigningError for any other content and for weak keys."""
    try:
        pem = _one_pem(path)
        public = _usual(pem) or _by_library(pem, path)
    except OSError as error:
        raise SigningError(f"the public key cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:
        raise SigningError(
            "not a PEM public key", file=path, next_step="give the .pub.pem that flightcache keygen wrote"
        ) from error
    if public.is_weak:
        raise SigningError("a weak key: anyone can make signatures that it accepts", file=path)
    return public


def _usual(pem: bytes) -> PublicKey | None:
    """Return the key in the one DER form of an Ed25519 key (RFC 8410); None for any other content.

    Reading it with the library would load ten times the code: keys of all kinds, for a tenth of a verifier's start.
    """
    try:
        der = base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]), validate=True)
    except ValueError:
        return None
    return PublicKey(der[len(_DER) :]) if der.startswith(_DER) and len(der) == len(_DER) + 32 else None


def _by_library(pem: bytes, path: Path) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningError("not an Ed25519 key", file=path, next_step="make one with flightcache keygen")
    return PublicKey(key.public_bytes_raw())


def _one_pem(path: Path) -> bytes:
    """Return the bytes of a file that is one PEM block: what a library would skip could be somebody's second key."""
    data = read_input(path, limit=MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES or not _is_one_pem(data):
        raise ValueError("not one PEM block")
    return data


def _is_one_pem(data: bytes) -> bool:
    block = data.strip(_SPACE)
    body = block.removeprefix(_BEGIN).removesuffix(_END)
    return len(block) - len(body) == len(_BEGIN + _END) and body != b"" and not body.translate(None, _BASE64 + _SPACE)


def public_key_path(private: Path) -> Path:
    """Return where the public half of the key file `private` is kept."""
    return private.with_suffix(".pub.pem")
