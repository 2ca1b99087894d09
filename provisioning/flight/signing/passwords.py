"""Where the password of an encrypted key comes from: never from an argument, which every user of a machine can read."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from provisioning.base.errors import SigningError

if TYPE_CHECKING:
    from provisioning.config import Signing


def hand_over_password(signing: Signing) -> None:
    """Move the password from the environment into a pipe, where it stays until something is signed.

    For before models and tiles are parsed: no process that is started later inherits it, and neither this one's
    memory nor its /proc/PID/environ holds it.
    """
    name = os.fsencode(signing.password_env)
    password = os.environb.get(name)
    if not password or len(password) > 4095:  # what `read_password_fd` reads, and a pipe holds
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(writer, "wb") as pipe:
        pipe.write(password + b"\n")
    _wipe(name, len(password))
    del os.environb[name]
    os.environb[name + b"_FD"] = str(reader).encode()
    read_password_fd.cache_clear()  # an earlier descriptor may have had this number


def forget_password(signing: Signing) -> None:
    """Wipe the password from this process, and close the descriptor that it would be read from."""
    name = os.fsencode(signing.password_env)
    if password := os.environb.get(name):
        _wipe(name, len(password))
        del os.environb[name]
    descriptor = os.environ.pop(signing.password_env + "_FD", "")
    if descriptor.isdecimal():
        with contextlib.suppress(OSError):
            os.close(int(descriptor))


def _wipe(name: bytes, length: int) -> None:
    """Write zeros over a value where the C library keeps it: what /proc shows of a process is its first environment."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    if where := library.getenv(name):
        ctypes.memset(where, 0, length)


def find_password(signing: Signing, ask: Callable[[], bytes] | None) -> bytes:
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


def asker() -> Callable[[], bytes] | None:
    """Return what asks a person for the password of the signing key; None where there is no person."""
    return functools.partial(ask_password, "password of the signing key: ") if _person_is_there() else None


def _person_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def ask_password(prompt: str) -> bytes:
    """Ask a person at the terminal; SigningError where there is none."""
    import getpass

    if not _person_is_there():
        raise SigningError("a password is needed and there is no terminal to ask at")
    return getpass.getpass(prompt).encode()
