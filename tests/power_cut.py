"""What a disk may hold after a power cut: a model of a file system that keeps only what was fsynced, and any of the rest.

The model replays recorded calls. Bytes of a file are certain after fsync of the file, a name after fsync of its directory,
whatever the order of the calls. Until then each name may be in any state that it had since, and each file may hold nothing,
half of its bytes, zeros, or all. Only a rename within one directory is one step; across directories the new name comes
first. This is weaker than any real file system: what holds here holds there. (After Pillai et al., OSDI 2014.)
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Tree = dict[str, bytes | str]
"""Files (bytes) and symbolic links (target) by path relative to the cache directory."""

IGNORED = ".c10.lock"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_UNMODELLED = ("pwrite", "writev", "replace", "remove", "truncate", "copy_file_range", "sendfile", "posix_fallocate")


class Op(NamedTuple):
    """One recorded call: its name, the paths (relative) and the data that it was about."""

    name: str
    path: str
    other: str = ""
    data: bytes = b""
    inode: int = 0


@contextmanager
def recorded(root: Path, ops: list[Op]) -> Iterator[None]:  # noqa: C901 - one tap a call
    """Record into `ops` every change below `root` made through `os`; refuse those that the model does not know."""
    base, fds, real = os.path.realpath(root), {}, {}

    def below(path: Any, handle: int | None = None) -> str | None:
        above = "" if handle is None else os.path.join(base, fds.get(handle, "../elsewhere"))
        path = os.path.abspath(os.path.join(above, os.fsdecode(path)))
        name = os.path.relpath(path, base)
        return None if name.startswith("..") or name == IGNORED else name

    def tap(name: str) -> Callable[[Callable[..., Any]], None]:
        def put(call: Callable[..., Any]) -> None:
            real[name] = getattr(os, name)
            setattr(os, name, call)

        return put

    @tap("open")
    def _(path, flags, mode=0o777, **kwargs):
        name = below(path, kwargs.get("dir_fd"))
        new = name is not None and flags & os.O_CREAT and not os.path.lexists(os.path.join(base, name))
        fd = real["open"](path, flags, mode, **kwargs)
        if name is not None:
            fds[fd] = name
            assert new or not flags & os.O_TRUNC, f"in-place truncation of {name}"
        if new:
            ops.append(Op("create", name, inode=os.fstat(fd).st_ino))
        return fd

    @tap("close")
    def _(fd):
        fds.pop(fd, None)
        return real["close"](fd)

    @tap("write")
    def _(fd, data):
        count = real["write"](fd, data)
        if fd in fds:
            ops.append(Op("write", fds[fd], data=bytes(data)[:count]))
        return count

    @tap("fsync")
    def _(fd):
        real["fsync"](fd)
        if fd in fds:
            ops.append(Op("fsync", fds[fd]))

    @tap("mkdir")
    def _(path, *args, **kwargs):
        real["mkdir"](path, *args, **kwargs)
        if (name := below(path, kwargs.get("dir_fd"))) is not None:
            ops.append(Op("mkdir", name))

    def of_one(call: str) -> None:
        @tap(call)
        def _(path, *args, **kwargs):
            real[call](path, *args, **kwargs)
            if (name := below(path, kwargs.get("dir_fd"))) is not None:
                ops.append(Op("remove", name))

    def of_two(call: str) -> None:
        @tap(call)
        def _(source, dest, *args, **kwargs):
            real[call](source, dest, *args, **kwargs)
            if (name := below(dest, kwargs.get("dir_fd", kwargs.get("dst_dir_fd")))) is not None:
                old = os.fsdecode(source) if call == "symlink" else below(source, kwargs.get("src_dir_fd"))
                ops.append(Op(call, name, old))

    for call in ("unlink", "rmdir"):
        of_one(call)
    for call in ("rename", "link", "symlink"):
        of_two(call)
    for call in _UNMODELLED:

        @tap(call)
        def _(*args, call=call, **kwargs):
            raise AssertionError(f"os.{call} is not modelled")

    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


@dataclass(eq=False)
class File:
    """A file: what is certain, and what was written since."""

    inode: int
    certain: bytes | None = None
    written: bytes = b""

    def contents(self) -> list[bytes]:
        """Every content that it may have after a power cut, the oldest first."""
        if self.certain == self.written:
            return [self.written]
        new = self.written
        return list(dict.fromkeys([self.certain or b"", new[: len(new) // 2], bytes(len(new)), new]))


@dataclass(eq=False)
class Link:
    """A symbolic link."""

    target: str


@dataclass(eq=False)
class Name:
    """A name in a directory: all that it ever named, and the first of it that is still possible."""

    bound: list[Any] = field(default_factory=lambda: [None])
    certain: int = 0

    def bind(self, node: Any) -> int:
        self.bound.append(node)
        return len(self.bound) - 1


@dataclass(eq=False)
class Directory:
    """A directory: its names."""

    names: dict[str, Name] = field(default_factory=dict)

    def name(self, word: str) -> Name:
        return self.names.setdefault(word, Name())


class Model:
    """A file system that has seen some calls."""

    def __init__(self, tree: Tree, inodes: dict[str, int], directories: Iterable[str] = ()) -> None:
        self.root, self.made = Directory(), set[str]()
        for path in directories:
            self._directory(path, create=True)
        self.together: list[tuple[Name, int, Name, int]] = []
        """(a, i, b, j): if `a` is at state i or later, then `b` is at j or later."""
        for path, content in tree.items():
            node = Link(content) if isinstance(content, str) else File(inodes[path], content, content)
            self._slot(path, create=True).bind(node)
        self._settle(self.root)

    def _settle(self, directory: Directory) -> None:
        for name in directory.names.values():
            name.certain = len(name.bound) - 1
            if isinstance(name.bound[-1], Directory):
                self._settle(name.bound[-1])

    def _directory(self, path: str, *, create: bool = False) -> Directory:
        here = self.root
        for word in [] if path in ("", ".") else path.split("/"):
            slot = here.name(word)
            if slot.bound[-1] is None and create:
                slot.bind(Directory())
            here = slot.bound[-1]
            assert isinstance(here, Directory), path
        return here

    def _slot(self, path: str, *, create: bool = False) -> Name:
        parent, _, word = path.rpartition("/")
        return self._directory(parent, create=create).name(word)

    def apply(self, op: Op) -> None:
        """Carry out one recorded call."""
        getattr(self, "_" + op.name)(op)

    def _create(self, op: Op) -> None:
        self._slot(op.path).bind(File(op.inode))

    def _mkdir(self, op: Op) -> None:
        self._slot(op.path).bind(Directory())

    def _symlink(self, op: Op) -> None:
        self._slot(op.path).bind(Link(op.other))

    def _link(self, op: Op) -> None:
        self._slot(op.path).bind(self._slot(op.other).bound[-1])

    def _remove(self, op: Op) -> None:
        self._slot(op.path).bind(None)

    def _write(self, op: Op) -> None:
        self._slot(op.path).bound[-1].written += op.data

    def _rename(self, op: Op) -> None:
        source, dest = self._slot(op.other), self._slot(op.path)
        arrived = dest.bind(source.bound[-1])
        left = source.bind(None)
        self.together.append((source, left, dest, arrived))
        if op.path.rpartition("/")[0] == op.other.rpartition("/")[0]:
            self.together.append((dest, arrived, source, left))

    def _made(self, op: Op) -> None:
        """No call: from here on the artefact at `op.path` is reported as made."""
        self.made.add(op.path)

    def _fsync(self, op: Op) -> None:
        node = self.root if op.path == "." else self._slot(op.path).bound[-1]
        if isinstance(node, File):
            node.certain = node.written
        else:
            for name in node.names.values():
                name.certain = len(name.bound) - 1

    def states(self, *, most: int = 128, seed: int = 0) -> Iterator[tuple[Tree, dict[str, int]]]:
        """Yield trees (and the inode of each file) that may be found after a power cut now: all, or a bounded choice."""
        slots, files = self._open_questions()
        options = [range(slot.certain, len(slot.bound)) for slot in slots] + [range(len(f.contents())) for f in files]
        for choice in _choices([list(option) for option in options], most, random.Random(seed)):
            at = dict(zip([*map(id, slots), *map(id, files)], choice, strict=True))
            if self._is_possible(at):
                yield self._tree(at)

    def _open_questions(self) -> tuple[list[Name], list[File]]:
        slots, files, todo = [], {}, [self.root]
        seen = {id(self.root)}
        while todo:
            for slot in todo.pop().names.values():
                possible = slot.bound[slot.certain :]
                if len(possible) > 1:
                    slots.append(slot)
                for node in possible:
                    if isinstance(node, File) and node.certain != node.written:
                        files[id(node)] = node
                    if isinstance(node, Directory) and id(node) not in seen:
                        seen.add(id(node))
                        todo.append(node)
        return slots, list(files.values())

    def _is_possible(self, at: dict[int, int]) -> bool:
        def state(slot: Name) -> int:
            return at.get(id(slot), slot.certain)

        return all(state(b) >= j for a, i, b, j in self.together if state(a) >= i)

    def _tree(self, at: dict[int, int]) -> tuple[Tree, dict[str, int]]:
        tree: Tree = {}
        inodes: dict[str, int] = {}

        def walk(directory: Directory, prefix: str) -> None:
            for word, slot in directory.names.items():
                node = slot.bound[at.get(id(slot), slot.certain)]
                if isinstance(node, Directory):
                    walk(node, f"{prefix}{word}/")
                elif isinstance(node, Link):
                    tree[prefix + word] = node.target
                elif isinstance(node, File):
                    tree[prefix + word] = node.contents()[at.get(id(node), -1)]
                    inodes[prefix + word] = node.inode

        walk(self.root, "")
        return tree, inodes


def _choices(options: list[list[int]], most: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield every combination if there are at most `most`, else the telling ones and a random sample, `most` in all."""
    total = 1
    for option in options:
        total *= len(option)
    if total <= most:
        yield from itertools.product(*options)
        return
    oldest, newest = tuple(o[0] for o in options), tuple(o[-1] for o in options)
    seen = dict.fromkeys([oldest, newest])
    for base in (newest, oldest):
        for i, option in enumerate(options):
            seen.update(dict.fromkeys((*base[:i], value, *base[i + 1 :]) for value in option))
    while len(seen) < most:
        seen[tuple(rng.choice(option) for option in options)] = None
    yield from itertools.islice(seen, max(most, 2 + 2 * sum(map(len, options))))
