"""Opening directories and files so that no name can lead anywhere else.

Everything goes through a directory handle, component by component, without following symbolic links; only regular
files on the mount of the generation are opened. Python 3.10 has no openat2, and this needs none.
"""

from __future__ import annotations

import os
import stat

from provisioning.flight.verify.reasons import Code, Refusal

MANIFEST = "Manifest.json"
SIGNATURE = "Manifest.json.sig"
MORE_SIGNATURES = "Manifest.json.sigs"
"""The signatures of further keys, one behind the other; there if a trust file asks for more than one."""

MOST_SIGNATURES = 16
SIDECAR = ".sha256"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that never comes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_generation(cache: str | os.PathLike[str]) -> int:
    """Return a handle on `cache` if it is a generation itself (it holds a Manifest.json), else on what `current` names.

    `current` is read once: whatever happens to it later, the caller stays in one generation.
    """
    try:
        root = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError, TypeError) as error:
        raise Refusal(Code.CACHE_UNREADABLE, "", f"not a directory that can be read: {error}") from error
    try:
        return _follow_current(root)
    finally:
        os.close(root)


def _follow_current(root: int) -> int:
    # First: in a generation `current` is an unlisted file, which must not lead to files other than the ones here.
    if _holds_manifest(root):
        return os.dup(root)
    try:
        target = os.readlink("current", dir_fd=root)
    except FileNotFoundError:
        raise Refusal(Code.CACHE_UNREADABLE, "", "neither `current` nor Manifest.json is here") from None
    except OSError as error:
        raise Refusal(Code.CURRENT_INVALID, "current", "not a symbolic link") from error
    number = target.removeprefix("generations/")
    if number == target or not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise Refusal(Code.CURRENT_INVALID, "current", f"points to {target!r}, not to generations/NUMBER")
    try:
        return open_directory(root, target)
    except OSError as error:
        raise Refusal(Code.CURRENT_INVALID, "current", f"{target}: {error.strerror}") from error


def _holds_manifest(directory: int) -> bool:
    try:
        os.stat(MANIFEST, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refusal(Code.CACHE_UNREADABLE, "", f"cannot be searched: {error.strerror}") from error
    return True


def open_directory(root: int, path: str) -> int:
    """Open the directory at relative `path` below the handle `root`; OSError if a component is not a directory."""
    fd = os.dup(root)
    for name in path.split("/") if path else ():
        try:
            below = os.open(name, _DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_file(root: int, path: str) -> int:
    """Open the regular file at relative `path` below the handle `root`; Refusal names what is there instead."""
    parent, _, name = path.rpartition("/")
    try:
        directory = open_directory(root, parent)
    except FileNotFoundError:
        raise Refusal(Code.MISSING, path, "there is no such file") from None
    except OSError as error:
        raise Refusal(Code.NOT_A_FILE, path, "below something that is not a plain directory") from error
    try:
        return _open_regular(root, directory, name, path)
    except FileNotFoundError:
        raise Refusal(Code.MISSING, path, "there is no such file") from None
    except OSError as error:
        raise Refusal(Code.UNREADABLE, path, str(error.strerror)) from error
    finally:
        os.close(directory)


def _open_regular(root: int, directory: int, name: str, path: str) -> int:
    # Looked at before it is opened: merely opening a device can have an effect.
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    refuse_special(status, path, here=is_here(root, directory, name, status))
    fd = os.open(name, _FILE, dir_fd=directory)
    try:
        status = os.fstat(fd)
        refuse_special(status, path, here=status.st_dev == os.fstat(root).st_dev or _mount(fd) == _mount(root))
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_here(root: int, directory: int, name: str, status: os.stat_result) -> bool:
    """Return whether entry `name` of the handle `directory`, with its `lstat`, is on the mount of the handle `root`.

    An overlay over several file systems gives files other device numbers than directories. There the number of the
    mount decides, of a handle that opens nothing (O_PATH).
    """
    if status.st_dev == os.fstat(root).st_dev:
        return True
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        return _mount(fd) == _mount(root)
    finally:
        os.close(fd)


def _mount(fd: int) -> str:
    """Return the kernel's number of the mount that a handle is on; where it does not say, what equals no other."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as lines:
            return next(line for line in lines if line.startswith("mnt_id:"))
    except (OSError, StopIteration):
        return f"unknown, {fd}"


def refuse_special(status: os.stat_result, path: str, *, here: bool) -> None:
    """Refuse anything but a regular file that is `here`, on the mount of the generation."""
    if stat.S_ISLNK(status.st_mode):
        raise Refusal(Code.SYMLINK, path, "a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(Code.NOT_A_FILE, path, f"a {_kind(status.st_mode)}, not a regular file")
    if not here:
        raise Refusal(Code.OTHER_FILE_SYSTEM, path, "on another file system than the generation")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def read_small(root: int, path: str, *, most: int) -> bytes:
    """Return the bytes of a file of at most `most` bytes; a larger one is refused before it is read."""
    fd = open_file(root, path)
    try:
        size = os.fstat(fd).st_size
        if size > most:
            raise Refusal(Code.SIZE, path, f"{size} bytes, at most {most} allowed")
        data = os.pread(fd, most + 1, 0)
    except OSError as error:
        raise Refusal(Code.UNREADABLE, path, str(error.strerror)) from error
    finally:
        os.close(fd)
    if len(data) != size:
        raise Refusal(Code.CHANGED, path, "changed while it was read")
    return data
