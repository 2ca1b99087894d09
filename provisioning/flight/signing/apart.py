"""The signing key in a process of its own, started before a build parses anything foreign.

That process reads the key and its password, signs, and does nothing else. The build keeps a socket to it: code that
gets to run in a parser of the build can ask for a signature while the build lasts, and cannot take the key away.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from provisioning.base.errors import Error, SigningError
from provisioning.base.named import NamedTuple
from provisioning.base.process import landlock
from provisioning.flight.signing.passwords import asker, forget_password, hand_over_password
from provisioning.flight.signing.public import PublicKey
from provisioning.flight.signing.signer import public_key_of, sign, use_process

if TYPE_CHECKING:
    from provisioning.config import Signing

MOST_BYTES = 64 << 20
"""Of one message: a statement of provenance lists every file, a Manifest has its own limit."""
MOST_SIGNATURES = 4
"""A build signs a Manifest and a statement of provenance."""
STATEMENT = b"DSSEv1 28 application/vnd.in-toto+json "
"""How the bytes begin that are signed for provenance: https://github.com/secure-systems-lab/dsse, protocol.md."""
_SIGN, _PUBLIC, _GIVEN, _REFUSED = b"s", b"p", b"+", b"-"
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class SigningProcess(NamedTuple):
    """The other process, as the build sees it."""

    connection: socket.socket
    pid: int

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`; SigningError as `signing.sign`, or if the process has ended."""
        return self._ask(_SIGN + data)

    def public_key(self) -> PublicKey:
        """Return the public half of the key; SigningError as `signing.public_key_of`."""
        return PublicKey(self._ask(_PUBLIC))

    def _ask(self, request: bytes) -> bytes:
        try:
            _send(self.connection, request)
            answer = _receive(self.connection)
        except OSError as error:
            raise _ended() from error
        if answer[:1] == _REFUSED:
            raise SigningError(**json.loads(answer[1:]))
        if answer[:1] != _GIVEN:
            raise _ended()
        return answer[1:]


def _ended() -> SigningError:
    return SigningError("the process that holds the signing key has ended", next_step="see `dmesg`, run `doit` again")


@contextlib.contextmanager
def key_apart(signing: Signing, *, working: Iterable[Path]) -> Iterator[None]:
    """Let another process sign for this one, which then has no password and, with Landlock, cannot open the key file.

    `working` are the directories that files will be made in (see `landlock.hide`). For the main thread of a program of
    its own, before it starts threads: giving up the key file is for ever.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_the_process(theirs, signing)
    theirs.close()
    forget_password(signing)
    if signing.key is not None:
        landlock.hide(signing.key, working=working)
    use_process(SigningProcess(ours, pid))
    try:
        yield
    finally:
        use_process(None)
        ours.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _be_the_process(connection: socket.socket, signing: Signing) -> NoReturn:
    """Serve until the build closes its end, then exit: nothing of the caller's runs in this process."""
    try:
        parent = os.getppid()
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody of this user reads its memory
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hand_over_password(signing)  # root reads the environment of every process, Landlock or not
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, _leave)
        for number in (signal.SIGINT, signal.SIGHUP):  # for the build, which then closes its end
            signal.signal(number, signal.SIG_IGN)
        if os.getppid() == parent:
            serve(connection, signing)
    except BaseException:  # noqa: BLE001, S110 - the build sees that the connection is closed
        pass
    finally:
        os._exit(0)


def _leave(*_: object) -> NoReturn:
    raise SystemExit


def serve(connection: socket.socket, signing: Signing) -> None:
    """Answer what comes over `connection` until it is closed; what is asked for is bytes, and no word of it is run."""
    left = MOST_SIGNATURES
    while request := _receive(connection):
        if request[:1] == _SIGN:
            left -= 1
        try:
            _send(connection, _GIVEN + _answer(request, signing, left))
        except Error as error:
            said = {"what": error.what, "file": error.file, "key": error.key, "next_step": error.next_step,
                    "facts": {name: str(fact) for name, fact in error.facts.items()}}  # fmt: skip
            _send(connection, _REFUSED + json.dumps(said).encode())


def _answer(request: bytes, signing: Signing, left: int) -> bytes:
    if request[:1] == _PUBLIC:
        return public_key_of(signing).raw
    data = request[1:]
    if left < 0 or not (data.startswith(STATEMENT) or _is_manifest(data)):
        raise SigningError("a build signs its Manifest and its statement of provenance, and nothing else")
    with _interruptible():
        return sign(signing, data, password=asker())


def _is_manifest(data: bytes) -> bool:
    from provisioning.flight.manifest import parse

    try:
        parse(data)
    except Error:
        return False
    return True


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end this process while a person is asked for the password: the terminal is put right again."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(len(data).to_bytes(4, "big") + data)


def _receive(connection: socket.socket) -> bytes:
    """Return one message, empty at the end of the connection or if it is too long."""
    length = int.from_bytes(_exactly(connection.recv, 4), "big")
    return _exactly(connection.recv, length) if length <= MOST_BYTES else b""


def _exactly(receive: Callable[[int], bytes], length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = receive(min(length - len(data), 1 << 16))
        if not piece:
            return b""
        data += piece
    return bytes(data)
