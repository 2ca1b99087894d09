"""How a folder looks: 16 bytes that differ when any name or stat in it does.

Imports nothing of ours: `ahead` below runs this file in processes of its own, for looking at a million files takes as
long as the kernel calls, and threads do not make it faster (measured).
"""

from __future__ import annotations

import errno
import marshal
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from hashlib import blake2b

TYPE_CHECKING = False  # typing itself would be a third of the start of such a process
if TYPE_CHECKING:
    import subprocess

DIGEST_BYTES = 16
UNSEEN = bytes(DIGEST_BYTES)
MOST_PROCESSES = 4

Listing = list[tuple[str, int, int, int, int, int]]
"""Name, mode, size, mtime_ns, ctime_ns, inode of each file."""


def look(path: str, names: Iterable[str] | None = None) -> Listing:
    """Return name and stat of `names`, or of every file, in directory `path`; links are followed.

    A link that leads nowhere is listed with mode 0, so that it is reported; a file gone meanwhile is not listed.
    """
    found: Listing = []
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stat = os.stat
        for name in os.listdir(fd) if names is None else names:
            try:
                s = stat(name, dir_fd=fd)
            except OSError as error:
                if error.errno != errno.ENOENT or os.path.islink(os.path.join(path, name)):
                    found.append((name, 0, 0, 0, 0, 0))
                continue
            found.append((name, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino))
    finally:
        os.close(fd)
    return found


def digest(listing: Listing) -> bytes:
    """Return the digest of a listing; another order of the directory gives another one, and costs a second look."""
    return blake2b(marshal.dumps(listing, 2), digest_size=DIGEST_BYTES).digest()


def ahead(paths: Sequence[str]) -> Generator[bytes | None, None, None]:
    """Yield the digest of all files of each folder, in order, while processes of its own look at those to come.

    None for a folder that cannot be read; nothing where no process is to be had.
    """
    count = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.extend(_looking(paths[n::count]) for n in range(min(count, len(paths))))
        for n in range(len(paths)):
            yield _next_of(running[n % count])
    except OSError:
        return
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _looking(paths: Sequence[str]) -> subprocess.Popen[bytes]:
    """Return a process that looks at `paths`."""
    import subprocess

    fd = os.memfd_create("folders", os.MFD_CLOEXEC)  # a pipe could fill while both sides write
    with open(fd, "wb") as stream:
        stream.write(b"\0".join(map(os.fsencode, paths)))
        stream.flush()
        os.lseek(fd, 0, os.SEEK_SET)
        return subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=fd, stdout=subprocess.PIPE)


def _next_of(process: subprocess.Popen[bytes]) -> bytes | None:
    assert process.stdout
    seen = process.stdout.read(DIGEST_BYTES)
    return seen if len(seen) == DIGEST_BYTES and seen != UNSEEN else None


def main() -> None:
    """Write the digest of each folder named on standard input, as soon as it is known."""
    for path in filter(None, sys.stdin.buffer.read().split(b"\0")):
        try:
            seen = digest(look(os.fsdecode(path)))
        except OSError:
            seen = UNSEEN
        os.write(sys.stdout.fileno(), seen)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # whoever interrupts flightcache need not read of this process
        sys.exit(130)
