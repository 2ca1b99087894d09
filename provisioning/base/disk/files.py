"""Files that survive a power cut, and a typed error with a next step for every call that the system refuses.

Every call goes through `os.*` by attribute, so that a test can interrupt, fail or drop each of them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TextIO

from provisioning.base.errors import AGAIN, NEXT_STEP, Error, FilesystemError
from provisioning.base.named import NamedTuple

_TEMPORARY = r"\.tmp-(?P<pid>[0-9]+)-[0-9]+-"

_serial = itertools.count()

_WITH_OURS = f"with `flightcache clean --old` (lists what .build can do without), {AGAIN}; finished work is kept"
_FEWER = "remove files there (`df -i` counts them, however small they are)"
_FEW_INODES, _FEW_BYTES = 8, 1 << 20
"""What may be free again by the time a full disk is looked at: the writer has discarded its temporary file."""

_MORE_MEMORY = "close programs, or raise the limits (`ulimit -v`, `ulimit -u`), then run this again"
_LOAD_AGAIN = "run this again; if it fails again, see `dmesg` and `ulimit -a`, then install flightcache anew"

_SQLITE_SAYS = {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "readonly database": errno.EACCES,
    "unable to open": errno.EACCES,
    "is locked": errno.EBUSY,
}

_REFUSED = {
    "nfs": "NFS", "nfs4": "NFS", "cifs": "SMB/CIFS", "smb3": "SMB/CIFS", "smbfs": "SMB/CIFS",
    "fuse.sshfs": "sshfs", "ceph": "CephFS", "afs": "AFS",
    "vfat": "FAT", "msdos": "FAT", "exfat": "exFAT", "fuse.exfat": "exFAT", "fuse.exfat-fuse": "exFAT",
    "ntfs": "NTFS", "ntfs3": "NTFS", "fuseblk": "NTFS or exFAT (fuse)",
}  # fmt: skip


@contextlib.contextmanager
def wrap_os_errors(what: str, path: Path | str | None = None) -> Iterator[None]:
    """Turn an OSError in the block into a FilesystemError that says `what` failed, where, why and what to do next.

    An error of SQLite about its file is one too. Without `path` the file that the system refused is named.
    """
    try:
        yield
    except OSError as error:
        name = None if isinstance(error.filename, int) else error.filename  # a handle says nothing to a person
        raise _refusal(what, path, name, error.strerror or str(error), error.errno) from error
    except Exception as error:
        if type(error).__module__ != "sqlite3" or type(error).__name__ not in ("OperationalError", "DatabaseError"):
            raise
        code = next((code for text, code in _SQLITE_SAYS.items() if text in str(error)), None)
        if code == errno.EACCES and path is not None:  # what SQLite says of each refusal
            code = _refused_to_open(path) or code
        raise _refusal(what, path, None, f"SQLite: {error}", code) from error


def _refused_to_open(path: Path | str) -> int | None:
    """Return why the system does not open a file for writing; None where it does, or where there is none."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def wrap_machine_errors(what: str) -> Iterator[None]:
    """Do as `wrap_os_errors` for a command or a step as a whole: a lack of memory or threads is an Error too.

    So is a part of the program that cannot be loaded, which an unreadable disk shows as a missing module, or as one
    that lacks what it should have: without its `__init__.py` a package is empty.
    """
    try:
        with wrap_os_errors(what):
            yield
    except Exception as error:
        if (why := machine_failure(error)) is None:
            raise
        raise Error(f"cannot {what}: {why[0]}", next_step=why[1]) from error


def machine_failure(error: BaseException) -> tuple[str, str] | None:
    """Return what this computer refused, and the next step, if that is what `error` is about, else None."""
    if isinstance(error, OSError):
        return str(error), NEXT_STEP.get(error.errno or 0, "see the reason above, then run this again")
    if isinstance(error, ImportError) or _is_half_loaded(error):
        return f"a part of the program cannot be loaded: {error}", _LOAD_AGAIN
    if isinstance(error, MemoryError) or (isinstance(error, SystemError) and "exception set" in str(error)):
        return "memory does not suffice", _MORE_MEMORY
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no thread can be started", _MORE_MEMORY
    return None


def _is_half_loaded(error: BaseException) -> bool:
    """Return whether a module or a codec is not all there: the import system passes over what it cannot read."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, ModuleType)
    return isinstance(error, LookupError) and "unknown encoding" in str(error)


def _refusal(what: str, path: Path | str | None, refused: str | None, why: str, code: int | None) -> FilesystemError:
    elsewhere = path is not None and refused is not None and str(refused) != str(path)
    where = path or refused
    room = room_at(Path(where)) if code in (errno.ENOSPC, errno.EDQUOT) and where is not None else None
    step = NEXT_STEP.get(code or 0, "see the reason above; the previous generation is untouched")
    return FilesystemError(
        f"cannot {what}: {why}",
        file=where,
        facts={**({"refused": refused} if elsewhere else {}), **(room.facts if room else {})},
        next_step=step if room is None else _room_made(_FEWER if room.lacks_inodes else step, Path(where or "")),
    )


class Room(NamedTuple):
    """What this user may still write on the file system of `directory`; `inodes` is None where there is no limit."""

    directory: Path
    bytes: int
    inodes: int | None

    @property
    def lacks_inodes(self) -> bool:
        """Whether it is the number of files, not their bytes, that is used up."""
        return self.inodes is not None and self.inodes < _FEW_INODES

    @property
    def facts(self) -> dict[str, object]:
        """What is full, what is free, and where, for an error message."""
        full = [
            *(["inodes (files)"] if self.lacks_inodes else []),
            *(["bytes"] if self.bytes < _FEW_BYTES else []),
        ]
        inodes = "" if self.inodes is None else f", {self.inodes:,} inodes"
        return {
            "full": " and ".join(full) or "a quota or limit",
            "free": f"{self.bytes:,} bytes{inodes}",
            "on": self.directory,
        }


def room_at(path: Path) -> Room | None:
    """Return the room where `path` is or will be; None where the system does not say."""
    try:
        while not os.path.exists(path):
            path = path.parent
        status = os.statvfs(path)
    except OSError:
        return None
    return Room(path, status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)


def temporary_beside(path: Path) -> Path:
    """Return a name in the directory of `path` that no one else uses; not created."""
    return path.parent / f".tmp-{os.getpid()}-{next(_serial)}-{path.name}"


def temporary_writer(name: str) -> int | None:
    """Return the process that made a temporary `name`, which recovery removes; None for any other name."""
    found = re.match(_TEMPORARY, name) if name.startswith(".tmp-") else None
    return int(found["pid"]) if found else None


def fsync_dir(path: Path) -> None:
    """Make the names in directory `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the bytes of file `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path) -> None:
    """Create directory `path` and its parents; each new name is durable before the next is made below it."""
    if os.path.isdir(path):
        return
    make_dirs(path.parent)
    with wrap_os_errors("create a directory", path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        fsync_dir(path.parent)


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BinaryIO:
    """Open the regular file at `path`, or where a link there leads if `follow`, for reading.

    OSError, at once, for anything else: opening a pipe would wait, reading a device never end.
    """
    links = 0 if follow else os.O_NOFOLLOW
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | links)
    try:
        _require_regular(fd, path)
        os.set_blocking(fd, True)
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _require_regular(fd: int, path: str | os.PathLike[str]) -> None:
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"not a regular file but {kind}", str(path))


_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_text(path: str | os.PathLike[str], *, encoding: str = "utf-8", errors: str = "strict") -> TextIO:
    """Open the regular file at `path` as text with its line ends as they are; OSError as `open_regular`."""
    return io.TextIOWrapper(open_regular(path), encoding=encoding, errors=errors, newline="")


def read_input(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """Return the bytes, at most `limit` + 1, of a file that a user names, which may be a link; OSError as there."""
    with open_regular(path) as file:
        return file.read(-1 if limit is None else limit + 1)


def read_regular(path: Path, *, limit: int) -> bytes:
    """Return at most `limit` + 1 bytes of a file that somebody else may have put there; OSError for a link, too."""
    with open_regular(path, follow=False) as file:
        return file.read(limit + 1)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write the whole of `data`, however little the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that does not exist yet and make its bytes durable; its name is not (see `fsync_dir`)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at `path` in one step with durable bytes; durable under this name only after `fsync_dir`."""
    temporary = temporary_beside(path)
    with wrap_os_errors("write a file", path):
        try:
            write_new(temporary, data, mode=mode)
            os.rename(temporary, path)
        except BaseException:
            discard(temporary)
            raise


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at `path` in one step: temporary file → fsync → rename → fsync of the directory.

    Raises FilesystemError; the old file is then still there, whole.
    """
    replace(path, data, mode=mode)
    with wrap_os_errors("write a file", path):
        fsync_dir(path.parent)


def discard(path: Path) -> None:
    """Remove a file if it is there; what cannot be removed is left for recovery."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def without_write_permission(path: Path) -> None:
    """Drop the write bits of a file or directory that has any."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    if mode & 0o222:
        os.chmod(path, mode & ~0o222)


def filesystem_type(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that holds absolute `path`, from the text of /proc/self/mountinfo.

    The longest mount point above `path` counts; of two on one point, the later, which hides the earlier.
    """
    found, longest, below = "", -1, f"{path}/"
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4]
        if "\\" in mount:
            mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), mount)
        if below.startswith(mount.rstrip("/") + "/") and len(mount) >= longest:
            found, longest = right.split()[0], len(mount)
    return found


def require_local_filesystem(path: Path) -> None:
    """Refuse a file system that cannot keep the promises of a cache: no reliable lock, or no links and atomic rename.

    Raises FilesystemError that names it.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            kind = filesystem_type(Path(os.path.realpath(path)), file.read())
    except OSError:
        return
    if kind in _REFUSED:
        raise FilesystemError(
            f"a cache cannot be built on {_REFUSED[kind]}",
            file=path,
            facts={"file system": kind, "needed": "a local POSIX file system: ext4, xfs, btrfs, f2fs or tmpfs"},
            next_step="build on a local disk; to carry the result on a USB stick or share, use `flightcache bundle`",
        )


def _room_made(how: str, path: Path) -> str:
    """Return a next step that begins with `how` room is made at `path`: a cache that doit builds has more to remove.

    A vehicle, or where a bundle is written, has no flight.toml above it, and nothing of that kind.
    """
    here = path.absolute()
    is_built = any((up / "flight.toml").exists() for up in (here, *here.parents))
    return f"{how.removesuffix(f', {AGAIN}')}, {_WITH_OURS if is_built else AGAIN}"


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write where `path` is or will be."""
    while not os.path.exists(path):
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def require_free_bytes(path: Path, needed: int, *, what: str) -> None:
    """Refuse to begin `what` where `needed` bytes cannot fit; FilesystemError gives both figures."""
    with wrap_os_errors("ask for free space", path):
        free = free_bytes(path)
    if free < needed:
        raise FilesystemError(
            f"not enough space for {what}",
            file=path,
            facts={"needed": f"{needed:,} bytes", "free": f"{free:,} bytes"},
            next_step=_room_made(f"free {needed - free:,} bytes there", path),
        )


def require_free_inodes(path: Path, needed: int, *, what: str) -> None:
    """Refuse to begin `what` where `needed` files and directories cannot be made; FilesystemError gives the figures."""
    room = room_at(path)
    if room is not None and room.inodes is not None and room.inodes < needed:
        raise FilesystemError(
            f"not enough inodes for {what}",
            file=path,
            facts={"needed": f"{needed:,} inodes", "free": f"{room.inodes:,} inodes"},
            next_step=_room_made(_FEWER, path),
        )
