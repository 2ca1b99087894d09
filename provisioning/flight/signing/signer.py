"""The signature of a cache, by what [signing] in flight.toml names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.errors import SigningError
from provisioning.base.words import typed
from provisioning.flight.signing.passwords import asker, find_password
from provisioning.flight.signing.public import SIGNATURE_BYTES, PublicKey, load_public_key, public_key_path

if TYPE_CHECKING:
    from provisioning.config import Signing
    from provisioning.flight.signing.apart import SigningProcess

_process: SigningProcess | None = None


def use_process(process: SigningProcess | None) -> None:
    """Let `process` sign from now on; None: this process, by itself."""
    global _process  # noqa: PLW0603  a process gives its key away once; passed along it would reach every step
    _process = process


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
    if beside.exists():
        return load_public_key(beside)
    return _derived(signing.key) if _process is None else _process.public_key()


def _derived(path: Path) -> PublicKey:
    def locked() -> bytes:
        raise SigningError(
            "the key is encrypted and its public half is not beside it",
            file=path,
            key="signing.public_key",
            next_step=typed("openssl", "pkey", "-in", path, "-pubout", "-out", public_key_path(path)),
        )

    from provisioning.flight.signing.private import load_private_key

    return PublicKey(load_private_key(path, locked).public_key().public_bytes_raw())


class Signer:
    """Whoever signs a build: its public key and its signatures, without where the key is."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key; SigningError if it cannot be found."""
        return public_key_of(self._signing)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`; a person at a terminal is asked for the password. SigningError."""
        return sign(self._signing, data, password=asker())


def sign(signing: Signing, data: bytes, *, password: Callable[[], bytes] | None = None) -> bytes:
    """Return the 64-byte Ed25519 signature of `data` by the key file or the command of [signing].

    An encrypted key's password comes from the environment variable `signing.password_env`, else from `password()`.
    Where the key is in another process (`key_apart`), that one does all this.
    The signature is checked against `public_key_of(signing)` first; SigningError if anything is wrong.
    """
    if _process is not None:
        return _process.sign(data)
    public = public_key_of(signing)
    if signing.command:
        from provisioning.flight.signing.command import sign_by_command

        signature = sign_by_command(signing.command, data)
    elif signing.key is not None:
        from provisioning.flight.signing.private import load_private_key

        signature = load_private_key(signing.key, lambda: find_password(signing, password)).sign(data)
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
