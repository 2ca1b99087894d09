"""Private keys: made, kept from others, read. What the library offers for this is imported where it is used."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import SigningError
from provisioning.base.words import typed
from provisioning.flight.signing.public import PublicKey, public_key_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


_ONE_PEM = re.compile(rb"\s*-----BEGIN ([A-Z ]*PRIVATE KEY)-----(?:(?!-----).)+-----END \1-----\s*", re.DOTALL)


def keys_directory() -> Path:
    """Return where `flightcache init` keeps the key pairs that it makes for this user.

    By XDG's rules a relative XDG_CONFIG_HOME does not count. Relative (`~/…`) where this user has no home.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.config")) / "flightcache"


def generate_key(path: Path, *, password: bytes | None) -> PublicKey:
    """Write a new private key to `path` (PEM, 0600, encrypted if there is a password) and its public half beside it.

    SigningError if either file exists: a key is never overwritten.
    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    seal = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, seal)
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    if path.suffix != ".pem":
        raise SigningError("a key file must end in .pem", file=path)
    for file in (path, public_key_path(path)):
        if os.path.lexists(file):
            raise SigningError(
                "the file exists; a key is never overwritten", file=file, next_step="choose another name"
            )
    _write_new(path, private, mode=0o600)
    _write_new(public_key_path(path), public, mode=0o644)
    return PublicKey(key.public_key().public_bytes_raw())


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise SigningError(f"the key cannot be written: {error.strerror}", file=path) from error


def read_private(path: Path) -> bytes:
    """Return the bytes of a private key file; SigningError if it is no regular file or others can read it (& 077)."""
    try:
        opened = open_regular(path)
    except OSError as error:
        raise SigningError(
            f"the private key cannot be read: {error.strerror}", file=path, next_step="make one with flightcache keygen"
        ) from error
    with opened as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise SigningError(
                f"the private key is open to others (mode {mode:04o})", file=path, next_step=typed("chmod", "600", path)
            )
        return file.read(1 << 16)


def load_private_key(path: Path, password: Callable[[], bytes]) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a PEM file; `password` is called only if it is encrypted. SigningError otherwise."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_private(path)
    encrypted = b"ENCRYPTED" in data[:64]
    if not _ONE_PEM.fullmatch(data):  # a library would skip what comes before and behind
        raise SigningError("not a PEM private key", file=path, facts={"expected": "one PEM block and nothing else"})
    try:
        key = load_pem_private_key(data, password() if encrypted else None)
    except UnsupportedAlgorithm as error:
        raise SigningError("the private key is of an unknown kind", file=path) from error
    except (TypeError, ValueError) as error:
        what = "the password does not open the private key" if encrypted else "not a PEM private key"
        raise SigningError(what, file=path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError("not an Ed25519 key", file=path, next_step="make one with flightcache keygen")
    return key
