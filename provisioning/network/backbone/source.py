"""The ONNX file of a backbone: where it is, what belongs to it, and one digest over all of it.

A memo keeps digests by stat, so that a no-op neither reads half a gigabyte of weights nor imports onnx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from provisioning.base.disk import memo as memos
from provisioning.base.disk.files import open_regular
from provisioning.base.distributions import installed_version
from provisioning.base.errors import BackboneError
from provisioning.base.frozen import dataclass
from provisioning.base.hashing import Fact, Sha256, digest_of, sha256_bytes, sha256_file
from provisioning.config import Backbone
from provisioning.network.backbone.presets import BUILTINS

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LARGEST_FILE_BYTES = (1 << 31) - (1 << 20)
"""A protobuf message, which an ONNX file is, is smaller than 2 GiB; the rest is for nodes and names."""
BUILTIN_FORMULA = 3
"""Raised whenever the built-in graphs change."""


@dataclass(frozen=True)
class OnnxSource:
    """A backbone's model. `path` is None for a built-in one; `files` are the model and its external data."""

    path: Path | None
    sha256: Sha256
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What an error calls it."""
        return "the built-in backbone" if self.path is None else str(self.path)

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of the model and its external data."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def weights(self) -> Path | None:
        """The directory in which the weights stay while the network is prepared, where one file cannot hold them."""
        return self.path.parent if self.path and self.size_bytes > LARGEST_FILE_BYTES else None


def model_file(root: Path, backbone: Backbone) -> str:
    """Return the path of the model, or the name of a built-in one: what an error calls it."""
    if backbone.onnx in BUILTINS:
        return backbone.onnx
    return os.path.abspath(root / Path(backbone.onnx).expanduser())


def onnx_source(backbone: Backbone, root: Path, memo: Path | None) -> OnnxSource:
    """Return where the ONNX of `backbone` is and the SHA-256 of it and its external data together.

    Without external data that is the SHA-256 of the file. `memo` is a JSON file of digests by stat, kept up to date
    while this process holds the build lock above it.
    BackboneError: missing or unreadable file, git-LFS pointer, not ONNX, missing or escaping external data.
    """
    if backbone.onnx in BUILTINS:
        return OnnxSource(None, _builtin_digest(backbone.onnx, memo), ())
    path = Path(model_file(root, backbone))
    known = memos.get(memo, str(path), {}) if memo else None
    if (source := _from_memo(path, known)) is not None:
        return source
    source = _read(path)
    if memo and (stats := _stats(source.files)) is not None:
        memos.put(memo, str(path), {}, {"sha256": source.sha256, "stats": stats})
    return source


def _stats(files: Sequence[Path]) -> dict[str, list[int]] | None:
    try:
        return {str(f): [s.st_size, s.st_mtime_ns, s.st_ino] for f in files for s in (f.stat(),)}
    except OSError:
        return None


def _from_memo(path: Path, known: dict[str, Any] | None) -> OnnxSource | None:
    if not known or not known["stats"]:
        return None
    files = tuple(Path(name) for name in known["stats"])
    return OnnxSource(path, Sha256(known["sha256"]), files) if _stats(files) == known["stats"] else None


def _read(path: Path) -> OnnxSource:
    digest = _digest(path)
    from provisioning.network import apart
    from provisioning.network.backbone import external

    locations = apart.locations(path)
    if not locations:
        return OnnxSource(path, digest, (path,))
    data = {name: _digest(external.inside(path, name)) for name in locations}
    together = digest_of({"onnx": digest, "external": data})
    return OnnxSource(path, together, (path, *(external.inside(path, name) for name in locations)))


def trees(path: Path) -> Iterator[Path]:
    """Yield the directories in which external data may lie: the model's, that of its file, its Hugging Face cache."""
    yield Path(os.path.realpath(path.parent))
    yield Path(os.path.realpath(path)).parent
    for above in path.absolute().parents:
        if above.name == "snapshots" and (above.parent / "blobs").is_dir():
            yield Path(os.path.realpath(above.parent))


def _digest(path: Path) -> Sha256:
    """Hash one file of a model after a look at its first bytes."""
    try:
        with open_regular(path) as file:
            start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise BackboneError(
                "this is a git-LFS pointer, not the model", file=path, next_step=f"git lfs pull --include {path.name}"
            )
        if not start:
            raise BackboneError("the model file is empty", file=path, next_step="export or download it again")
        return sha256_file(path)
    except FileNotFoundError as error:
        raise BackboneError("the model file is not there", file=path, next_step="correct backbone.onnx") from error
    except OSError as error:
        raise BackboneError(f"the model cannot be read: {error.strerror}", file=path) from error


def _builtin_digest(name: str, memo: Path | None) -> Sha256:
    """Hash the built-in graph, once for each version of what writes it."""
    found = {name: installed_version(name) or "unknown" for name in ("onnx", "numpy")}
    writers: dict[str, Fact] = {"formula": BUILTIN_FORMULA, **found}
    if memo and (known := memos.get(memo, name, writers)):
        return Sha256(known)
    from provisioning.network.builtin.making import onnx_bytes

    digest = sha256_bytes(onnx_bytes(name))
    if memo:
        memos.put(memo, name, writers, digest)
    return digest
