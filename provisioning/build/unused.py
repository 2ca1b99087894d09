"""What `.build` holds that neither flight.toml, nor the last build, nor a published generation uses any more.

The time of a directory is that of its last use: a build that ends well sets it (`note_use`). All of this can be made
again, at the price of its work; so each request removes by itself only what is old, or many (`tidy`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from provisioning.base.disk import directories
from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.frozen import dataclass
from provisioning.build.request import Request
from provisioning.flight import publish
from provisioning.network.shape import shape_target

STORE, MEMOS, LOGS = "store", "gates", "log"
MOST_OF_A_KIND = 16
"""Unused artefacts of one kind that stay however new they are: many edits in one day must not fill the disk."""
_REMOVED = ".removed"
_DAY_S = 86_400
_BLOCK = 512


@dataclass(frozen=True)
class Unused:
    """A file or directory at `path` below `.build`: its `kind`, what it holds, bytes on the disk, time of last use."""

    path: str
    kind: str
    holds: str
    bytes: int
    used_s: float


def find_unused(request: Request) -> tuple[Unused, ...]:
    """Return what is no longer used, the least recently used first. FilesystemError; EmptyCorpusError before a scan.

    A descriptor store outside `.build` serves other caches too: it is left out.
    """
    _ = request.tiles  # before a scan it is not known which keys are used
    with wrap_os_errors("look for what is no longer used", request.flight.build_dir):
        found = [_described(request.flight.build_dir, path) for path in _unused_paths(request)]
    return tuple(sorted(found, key=lambda each: (each.used_s, each.path)))


def remove(request: Request, unused: Iterable[Unused]) -> tuple[Unused, ...]:
    """Remove `unused`; return what was removed. The caller holds the build lock. Raises FilesystemError.

    Descriptors that another process has open stay.
    """
    return tuple(each for each in unused if _remove(request.flight.build_dir, each))


def tidy(request: Request) -> tuple[Unused, ...]:
    """Remove what was not used for `publish.keep_build_days`, and of each kind all but the newest few; return it.

    With 0 days everything stays. The caller holds the build lock. Raises FilesystemError.
    """
    days = request.flight.publish.keep_build_days
    return remove(request, _superfluous(find_unused(request), time.time() - days * _DAY_S)) if days else ()


def note_use(request: Request) -> None:
    """Give what `request` uses the present time; where that fails it may be made again earlier than need be."""
    build_dir, store = request.flight.build_dir, request.flight.descriptor_store
    used = [build_dir / STORE / key for key in _targets(request)]
    used += [folder / key for key in request.descriptor_keys for folder in (store, build_dir / MEMOS)]
    for path in used:
        with contextlib.suppress(OSError):
            os.utime(path)


def published_inodes(cache: Path) -> frozenset[tuple[int, int]]:
    """Return device and inode of every file of every generation: what is linked from there costs nothing to keep."""
    files = (status for _, status in _walk(cache / publish.GENERATIONS))
    return frozenset((status.st_dev, status.st_ino) for status in files)


def _superfluous(unused: Iterable[Unused], before_s: float) -> Iterator[Unused]:
    seen: Counter[str] = Counter()
    for each in sorted(unused, key=lambda each: each.used_s, reverse=True):
        seen[each.kind] += 1
        if each.used_s < before_s or seen[each.kind] > MOST_OF_A_KIND:
            yield each


def _unused_paths(request: Request) -> Iterator[str]:
    build_dir = request.flight.build_dir
    published, targets = published_inodes(request.cache), _targets(request)
    for key in directories.names_in(build_dir, STORE):
        files = list(_walk(build_dir / STORE / key))
        if key not in targets and not any((status.st_dev, status.st_ino) in published for _, status in files):
            yield f"{STORE}/{key}"
    keys = {*request.descriptor_keys, *_last_keys(build_dir)}
    for folder in filter(None, (_own_store(request), MEMOS)):
        yield from (f"{folder}/{name}" for name in directories.names_in(build_dir, folder) if name[:64] not in keys)
    logs = {f"engine-{network.name}.log" for network in request.networks}
    yield from (f"{LOGS}/{name}" for name in directories.names_in(build_dir, LOGS) if name not in logs)


def _targets(request: Request) -> frozenset[str]:
    """Return the keys of every artefact that `request` makes or reads."""
    of_networks = (
        target
        for network in request.networks
        for target in (
            network.typed,
            network.engine,
            network.checked,
            shape_target(request.flight.build_dir / "store", network.backbone, network.source),
        )
        if target is not None
    )
    targets = (*of_networks, request.index, request.index_info, request.gates, *request.extras)
    return frozenset(target.key for target in targets)


def _last_keys(build_dir: Path) -> tuple[str, ...]:
    """Return the descriptor keys of the last build, which is what `current` was made of."""
    from provisioning.build.history import read_history

    keys = read_history(build_dir).facts.get("descriptors", {}).get("keys", ())
    return tuple(map(str, keys)) if isinstance(keys, list) else ()


def _own_store(request: Request) -> str | None:
    """Return the descriptor store relative to `.build`, None where it lies elsewhere."""
    store, build_dir = Path(os.path.realpath(request.flight.descriptor_store)), request.flight.build_dir
    own = Path(os.path.realpath(build_dir))
    return store.relative_to(own).as_posix() if own in store.parents else None


def _described(build_dir: Path, path: str) -> Unused:
    status = os.lstat(build_dir / path)
    files = list(_walk(build_dir / path))
    folder, _, name = path.rpartition("/")
    names = sorted(Path(file).name for file, _ in files if not file.endswith((".record", ".born")))
    holds = ", ".join(names) if folder == STORE else name
    kind = f"{folder}{Path(names[0]).suffix if folder == STORE and names else ''}"
    size = sum(file.st_blocks * _BLOCK for _, file in files)
    return Unused(path, kind, holds or name, size, status.st_mtime)


def _walk(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and lstat of `path` if it is a file, or of every file below it; links are not followed."""
    if not os.path.isdir(path) or os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            yield str(path), os.lstat(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.path.join(folder, name), os.lstat(os.path.join(folder, name))


def _remove(build_dir: Path, unused: Unused) -> bool:
    """Remove one thing; False where it is in use. It loses its name first, so that nobody meets the half of it."""
    with wrap_os_errors("remove what is no longer used", build_dir / unused.path), contextlib.ExitStack() as held:
        users = build_dir / unused.path / ".users"
        if users.exists():
            from provisioning.descriptors.store.guard import lock_file

            try:
                held.callback(os.close, lock_file(users, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                return False
        doomed = unused.path.removesuffix(_REMOVED) + _REMOVED
        if doomed != unused.path:
            with contextlib.suppress(FileNotFoundError):
                directories.remove(build_dir, doomed)
            directories.rename(build_dir, unused.path, doomed)
        directories.remove(build_dir, doomed)
    return True
