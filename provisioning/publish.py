"""Generations: staged whole, verified by the caller, committed by one rename of `current`, pruned afterwards.

The order is the promise: files → fsync → directories → fsync → (the caller verifies) → `generations/NNNNNN` → fsync →
rename of `current` → fsync → counter → prune. Whatever is cut off in between, `current` names a whole generation.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from provisioning import events
from provisioning import manifest as manifests
from provisioning.errors import FilesystemError
from provisioning.files import (
    TEMPORARY,
    discard,
    fsync_dir,
    make_dirs,
    remove_tree,
    reported,
    require_free_bytes,
    temporary_beside,
    without_write_permission,
    write_all,
    write_durably,
    write_new,
)
from provisioning.hashing import CHUNK_BYTES, Sha256, sha256_bytes, sha256_file
from provisioning.store import Birth

CURRENT = "current"
GENERATIONS = "generations"
MANIFEST = "Manifest.json"
SIDECAR = ".sha256"
SIGNATURE = ".sig"
_NUMBER = re.compile(r"\d{6,}")
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


def current_generation(cache: Path) -> Path | None:
    """Return the directory that `current` names, or None if it names none."""
    number = _current_number(cache)
    path = cache / GENERATIONS / _name(number or 0)
    return path if number is not None and os.path.isdir(path) else None


def next_counter(cache: Path) -> int:
    """Return 1 + the highest counter that was ever published here, as far as anything here remembers it."""
    numbers = _numbers(cache / GENERATIONS)
    return 1 + max(_remembered(cache), _current_number(cache) or 0, *numbers, 0)


def staged_generation(cache: Path) -> Path | None:
    """Return the complete staged generation that waits for its commit, or None."""
    numbers = _numbers(_stage_dir(cache))
    return _stage_dir(cache) / _name(numbers[-1]) if numbers else None


def stage(
    cache: Path, *, manifest: bytes, signature: bytes, files: Mapping[str, Path], births: Mapping[str, Birth]
) -> Path:
    """Make a complete generation below `.build/stage` and return it; `files` maps its relative names to sources.

    Files of `.build` are hard-linked where the file system allows, all others copied. A source that is no longer what
    its record in `births` (by name) says raises FilesystemError. An older stage is removed.
    """
    counter = manifests.parse(manifest).build.counter
    final = _stage_dir(cache) / _name(counter)
    temporary = temporary_beside(final)
    with reported("stage a generation", temporary):
        _clear(_stage_dir(cache))
        os.makedirs(temporary)
        require_free_bytes(temporary, _bytes_to_copy(cache, files), what="the staged generation")
        for name, source in sorted(files.items()):
            sha256 = _place(cache, source, temporary / name, births.get(name))
            write_new(temporary / (name + SIDECAR), _line(sha256), mode=0o444)
        write_new(temporary / MANIFEST, manifest, mode=0o444)
        write_new(temporary / (MANIFEST + SIDECAR), _line(sha256_bytes(manifest)), mode=0o444)
        write_new(temporary / (MANIFEST + SIGNATURE), signature, mode=0o444)
        _fsync_tree(temporary)
        os.rename(temporary, final)
    return final


def commit(cache: Path, staged: Path, *, keep: int) -> Path:
    """Publish `staged`, which the caller has verified, and return its generation; at most `keep` remain.

    Raises FilesystemError; `current` then still names what it named.
    """
    number = int(staged.name)
    generation = cache / GENERATIONS / staged.name
    with reported("publish a generation", generation):
        make_dirs(generation.parent)
        os.rename(staged, generation)
        _make_read_only(generation)
        fsync_dir(generation.parent)
        _switch(cache, number)
        _remember(cache, number)
        _prune(cache, keep)
    events.event("published", generation=str(generation), counter=number)
    return generation


def recover(cache: Path, *, keep: int) -> None:
    """Remove what a killed build left: temporary files, unfinished stages, generations not switched to or too many.

    Idempotent; to be called under the lock. Never touches what `current` needs, nor finished work in `.build`.
    """
    with reported("clean up after an interrupted build", cache):
        current = _current_number(cache)
        if current is not None and current > _remembered(cache):
            _remember(cache, current)
        _remove_temporaries(cache)
        published = max(_remembered(cache), current or 0)
        for number in _numbers(cache / GENERATIONS):
            if number > published:
                _remove_generation(cache, number)
        if (newest := current_generation(cache)) is not None:
            _make_read_only(newest)
        _prune(cache, keep)


def rollback(cache: Path, *, resign: Callable[[bytes], bytes], to: int | None = None) -> Path:
    """Stage the files of the generation before the current one (or of `to`) under a new counter; return the stage.

    `resign` signs the new Manifest: a vehicle's floor accepts only a higher counter. The caller verifies the generation
    before and the stage after, then commits. Raises FilesystemError if there is none.
    """
    source = earlier_generation(cache, to=to)
    with reported("read the generation to return to", source):
        with open(source / MANIFEST, "rb") as file:
            old = manifests.parse(file.read(manifests.MAX_BYTES))
        births = {entry.path: _as_listed(source / entry.path, entry.sha256) for entry in old.files}
    new = manifests.to_bytes(old._replace(build=old.build._replace(counter=next_counter(cache))))
    files = {name: source / name for name in births}
    return stage(cache, manifest=new, signature=resign(new), files=files, births=births)


def _as_listed(path: Path, sha256: Sha256) -> Birth:
    """Return the present stat of `path` with the digest that a Manifest lists; other bytes are refused."""
    status = os.lstat(path)
    _require_digest(path, expected=sha256, found=sha256_file(path))
    return Birth(sha256, status.st_size, status.st_mtime_ns, status.st_ino, {})


def earlier_generation(cache: Path, *, to: int | None = None) -> Path:
    """Return generation `to`, or the newest kept one that is older than the current; FilesystemError if it is gone."""
    current = _current_number(cache) or 0
    kept = [number for number in _numbers(cache / GENERATIONS) if number != current]
    wanted = [number for number in kept if (number < current if to is None else number == to)]
    if not wanted:
        raise FilesystemError(
            "there is no earlier generation to return to" if to is None else f"generation {to} is not kept",
            file=cache / GENERATIONS,
            key="publish.keep_generations",
            facts={"current": current, "kept besides": ", ".join(map(str, kept)) or "none"},
            next_step="restore in flight.toml and its inputs what the earlier flight had, then run doit",
        )
    return cache / GENERATIONS / _name(wanted[-1])


def _stage_dir(cache: Path) -> Path:
    return cache / ".build" / "stage"


def _name(number: int) -> str:
    return f"{number:06d}"


def _line(sha256: Sha256) -> bytes:
    return sha256.encode() + b"\n"


def _numbers(directory: Path) -> list[int]:
    """Return the numbers of the generations in `directory`, ascending."""
    return sorted(int(name) for name in _listed(directory) if _NUMBER.fullmatch(name))


def _current_number(cache: Path) -> int | None:
    try:
        directory, _, name = os.readlink(cache / CURRENT).rstrip("/").partition("/")
    except FileNotFoundError:
        return None
    except OSError as error:
        # Only "not a link" means that nothing is current; taking an I/O error for it would prune what is flown.
        if error.errno != errno.EINVAL:
            raise
        return None
    return int(name) if directory == GENERATIONS and _NUMBER.fullmatch(name) else None


def _remembered(cache: Path) -> int:
    """Return the highest counter written down outside the generations; 0 if none. What cannot be read is an error."""
    try:
        with open(cache / ".build" / "counter", encoding="ascii") as file:
            return int(file.read(20))
    except (FileNotFoundError, ValueError):
        return 0


def _remember(cache: Path, number: int) -> None:
    if number > _remembered(cache):
        make_dirs(cache / ".build")
        write_durably(cache / ".build" / "counter", f"{number}\n".encode())


def _is_ours(cache: Path, source: Path) -> bool:
    """Tell whether only this package writes `source`; a file of the user must not share an inode with a generation."""
    real = Path(os.path.realpath(source))
    return any(real.is_relative_to(os.path.realpath(cache / place)) for place in (".build", GENERATIONS))


def _bytes_to_copy(cache: Path, files: Mapping[str, Path]) -> int:
    return sum(os.stat(source).st_size for source in files.values() if not _is_ours(cache, source))


def _place(cache: Path, source: Path, dest: Path, born: Birth | None) -> Sha256:
    """Link or copy `source` to `dest`, durably, and return its digest; a source that is not as recorded is refused."""
    os.makedirs(dest.parent, exist_ok=True)
    if born is not None and _is_ours(cache, source) and born.is_stat_of(source) and _link(source, dest):
        return born.sha256
    sha256 = _copy(source, dest)
    if born is not None:
        _require_digest(source, expected=born.sha256, found=sha256)
    return sha256


def _require_digest(path: Path, *, expected: Sha256, found: Sha256) -> None:
    if found != expected:
        raise FilesystemError(
            "a file changed after it was made",
            file=path,
            facts={"expected SHA-256": expected, "found": found},
            next_step="run doit again: what is damaged is made anew",
        )


def _link(source: Path, dest: Path) -> bool:
    try:
        os.link(source, dest, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return False
    return True


def _copy(source: Path, dest: Path) -> Sha256:
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        try:
            while data := os.read(reader, CHUNK_BYTES):
                write_all(writer, data)
            os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return sha256_file(dest)


def _directories(root: Path) -> list[Path]:
    """Return `root` and every directory below it, the deepest first."""
    below: list[Path] = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.extend(_directories(Path(entry.path)))
    return [*below, root]


def _fsync_tree(root: Path) -> None:
    for directory in _directories(root):
        fsync_dir(directory)


def _make_read_only(generation: Path) -> None:
    for directory in _directories(generation):
        without_write_permission(directory)


def _switch(cache: Path, number: int) -> None:
    temporary = temporary_beside(cache / CURRENT)
    try:
        os.symlink(f"{GENERATIONS}/{_name(number)}", temporary)
        os.rename(temporary, cache / CURRENT)
    except BaseException:
        discard(temporary)
        raise
    fsync_dir(cache)


def _prune(cache: Path, keep: int) -> None:
    """Remove published generations until `keep` are left, the oldest first, never the current one."""
    current = _current_number(cache)
    others = [number for number in _numbers(cache / GENERATIONS) if number != current]
    for number in others[: max(0, len(others) - (keep - 1))]:
        _remove_generation(cache, number)


def _remove_generation(cache: Path, number: int) -> None:
    """Take a generation out of sight in one step, then remove it."""
    generation = cache / GENERATIONS / _name(number)
    os.makedirs(_stage_dir(cache), exist_ok=True)
    doomed = temporary_beside(_stage_dir(cache) / generation.name)
    os.chmod(generation, 0o700)
    os.rename(generation, doomed)
    remove_tree(doomed)


def _clear(directory: Path) -> None:
    for name in _listed(directory):
        _remove(directory / name)


def _remove_temporaries(cache: Path) -> None:
    """Remove what unfinished writers left beside `current` and in `.build`."""
    for name in os.listdir(cache):
        if name.startswith(TEMPORARY):
            _remove(cache / name)
    for name in _listed(cache / ".build"):
        _remove_below(cache / ".build" / name, shared=name == "descriptors")


def _remove_below(path: Path, *, shared: bool) -> None:
    """Remove temporary names at and below `path`; in a store that another cache may use, only those of dead writers."""
    if path.name.startswith(TEMPORARY):
        if not (shared and _writer_lives(path.name)):
            _remove(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        for name in _listed(path):
            _remove_below(path / name, shared=shared)


def _writer_lives(temporary: str) -> bool:
    """Tell whether the process that made this temporary name is another one that still runs."""
    pid = temporary.removeprefix(TEMPORARY).partition("-")[0]
    return pid.isdigit() and int(pid) != os.getpid() and os.path.exists(f"/proc/{pid}")


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _remove(path: Path) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)
