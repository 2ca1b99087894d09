"""Ed25519 keys and signatures: public keys, new key pairs, signing by a key file or by an external command.

What signs is imported where it signs: the verifier needs a public key only, and must start fast.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provisioning.errors import SigningError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from provisioning.config import Signing

SIGNATURE_BYTES = 64
COMMAND_TIMEOUT_S = 120
"""Longest time for an external signer, second: a person may have to touch a token."""

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


def public_key_of(signing: Signing) -> PublicKey:
    """Return the public half of the signing key, without its password.

    [signing] public_key, else the file beside `key`, else from `key` itself if it is not encrypted.
    """
    if signing.public_key is not None:
        return load_public_key(signing.public_key)
    if signing.key is None:
        raise SigningError(
            "nothing says which key signs",
            key="signing.public_key",
            next_step="set signing.key, or signing.public_key with signing.command",
        )
    beside = public_key_path(signing.key)
    return load_public_key(beside) if beside.exists() else _derived(signing.key)


def _derived(path: Path) -> PublicKey:
    def locked() -> bytes:
        raise SigningError(
            "the key is encrypted and its public half is not beside it",
            file=path,
            key="signing.public_key",
            next_step=f"openssl pkey -in {path} -pubout -out {public_key_path(path)}",
        )

    return PublicKey(_load_private_key(path, locked).public_key().public_bytes_raw())


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


def sign(signing: Signing, data: bytes, *, password: Callable[[], bytes] | None = None) -> bytes:
    """Return the 64-byte Ed25519 signature of `data` by the key file or the command of [signing].

    An encrypted key's password comes from the environment variable `signing.password_env`, else from `password()`.
    The signature is checked against `public_key_of(signing)` first; SigningError if anything is wrong.
    """
    public = public_key_of(signing)
    if signing.command:
        signature = _sign_by_command(signing.command, data)
    elif signing.key is not None:
        signature = _load_private_key(signing.key, lambda: _password(signing, password)).sign(data)
    else:
        raise SigningError("no key to sign with", key="signing.key", next_step="make one with flightcache keygen")
    if len(signature) != SIGNATURE_BYTES or not public.verifies(signature, data):
        raise SigningError(
            "the signature is not by the public key of this cache",
            key="signing.command" if signing.command else "signing.key",
            facts={"public key": public.fingerprint, "signature bytes": len(signature)},
            next_step="let signing.public_key be the public half of what signs",
        )
    return signature


def _password(signing: Signing, ask: Callable[[], bytes] | None) -> bytes:
    """Return the password: `password_env`, else the descriptor that `<password_env>_FD` names, else what `ask` says."""
    name = signing.password_env
    if password := os.environb.get(os.fsencode(name)):
        return password
    descriptor = os.environ.get(name + "_FD", "")
    if descriptor.isdecimal():
        return read_password_fd(int(descriptor))
    if ask is None:
        raise SigningError(
            "the key is encrypted and there is no password",
            file=signing.key,
            next_step=f"set the environment variable {name} (or {name}_FD), or sign where a person can be asked",
        )
    return ask()


@functools.cache  # a pipe gives its password once, and a build may sign twice
def read_password_fd(fd: int) -> bytes:
    """Return the first line of descriptor `fd`, without its newline."""
    try:
        with open(fd, "rb", closefd=False) as file:
            return file.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise SigningError(f"no password can be read from descriptor {fd}: {error.strerror}") from error


def ask_password(prompt: str) -> bytes:
    """Ask a person at the terminal; SigningError where there is none."""
    import getpass
    import sys

    if not sys.stdin.isatty():
        raise SigningError("a password is needed and there is no terminal to ask at")
    return getpass.getpass(prompt).encode()


def read_private(path: Path) -> bytes:
    """Return the bytes of a private key file; SigningError if it is no regular file or others can read it (& 077)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SigningError(
            f"the private key cannot be read: {error.strerror}", file=path, next_step="make one with flightcache keygen"
        ) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SigningError("the private key is not a regular file", file=path)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise SigningError(
                f"the private key is open to others (mode {mode:04o})", file=path, next_step=f"chmod 600 {path}"
            )
        return file.read(1 << 16)


def _load_private_key(path: Path, password: Callable[[], bytes]) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_private(path)
    encrypted = b"ENCRYPTED" in data[:64]
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


def _sign_by_command(command: tuple[str, ...], data: bytes) -> bytes:
    import subprocess

    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except OSError as error:
        raise SigningError(f"the signing command cannot be run: {error}", key="signing.command") from error
    except subprocess.TimeoutExpired as error:
        raise SigningError(
            f"the signing command gave no answer in {COMMAND_TIMEOUT_S} s", key="signing.command"
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SigningError(
            f"the signing command failed with exit code {done.returncode}",
            key="signing.command",
            facts={"it said": said[-1]} if said else None,
        )
    return done.stdout
