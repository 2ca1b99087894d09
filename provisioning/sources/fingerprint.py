"""How a folder looks: 16 bytes that differ when any name or stat in it does.

Imports nothing of ours: `ahead` below runs this file in processes of its own, for looking at a million files takes as
long as the kernel calls, and threads do not make it faster (measured).
"""

from __future__ import annotations

import errno
import marshal
import os
import sys
from hashlib import blake2b

TYPE_CHECKING = False  # typing itself would be a third of the start of such a process
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator, Iterable, Sequence
    from typing import BinaryIO

DIGEST_BYTES = 16
NUMBER_BYTES = 4
UNSEEN = bytes(DIGEST_BYTES)
MOST_PROCESSES = 4

Listing = list[tuple[str, int, int, int, int, int]]
"""Name, mode, size, mtime_ns, ctime_ns, inode of each file."""


def read_listing(path: str, names: Iterable[str] | None = None) -> Listing:
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
    running: list[subprocess.Popen[bytes]] = []
    try:
        width = NUMBER_BYTES + max((len(os.fsencode(path)) for path in paths), default=0)
        read_fd, write_fd = os.pipe()
        with open(read_fd, "rb") as news:
            with open(write_fd, "wb") as voice, _dealt(paths, width) as folders:
                for _ in range(min(MOST_PROCESSES, len(os.sched_getaffinity(0)), len(paths))):
                    running.append(_listing_process(folders, voice, width))  # noqa: PERF401 - those begun are ended
            yield from _in_order(news, len(paths))
    except OSError:
        return
    finally:
        for process in running:
            process.kill()
            process.wait()


def _dealt(paths: Sequence[str], width: int) -> BinaryIO:
    """Return a file of records of `width` bytes, each a folder's number and path.

    Processes that inherit it share its position: each `read` of one record takes the next folder, so that none has
    nothing to do while another still has many.
    """
    stream = open(os.memfd_create("folders", os.MFD_CLOEXEC), "r+b")  # noqa: SIM115 - the caller closes it
    records = (n.to_bytes(NUMBER_BYTES, "big") + os.fsencode(path) for n, path in enumerate(paths))
    stream.writelines(record.ljust(width, b"\0") for record in records)
    stream.seek(0)
    return stream


def _listing_process(folders: BinaryIO, voice: BinaryIO, width: int) -> subprocess.Popen[bytes]:
    """Return a process that looks at `folders`, records of `width` bytes, and writes what it sees to `voice`."""
    import subprocess

    command = [sys.executable, "-I", "-S", __file__, str(width)]
    return subprocess.Popen(
        command, stdin=folders, stdout=voice, stderr=subprocess.DEVNULL
    )  # a folder unseen says it all


def _in_order(news: BinaryIO, count: int) -> Generator[bytes | None, None, None]:
    """Yield the answer for each folder; None for those without one, a process having died."""
    seen: dict[int, bytes] = {}
    for n in range(count):
        while n not in seen and (record := news.read(NUMBER_BYTES + DIGEST_BYTES)):
            seen[int.from_bytes(record[:NUMBER_BYTES], "big")] = record[NUMBER_BYTES:]
        found = seen.pop(n, UNSEEN)
        yield None if found == UNSEEN else found


def main() -> None:
    """Take folders from standard input and write the number and digest of each, as soon as it is known, at once."""
    width = int(sys.argv[1])
    while record := os.read(0, width):
        number, path = record[:NUMBER_BYTES], record[NUMBER_BYTES:].rstrip(b"\0")
        try:
            seen = digest(read_listing(os.fsdecode(path)))
        except OSError:
            seen = UNSEEN
        os.write(1, number + seen)  # fewer bytes than a pipe keeps together


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):  # whoever ends flightcache need not read of this process
        sys.exit(130)
