"""The ONNX file of a backbone: where it is, what belongs to it, and one digest over all of it.

A memo remembers digests by stat, so that a no-op neither reads half a gigabyte of weights nor imports onnx.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from provisioning.base import lock
from provisioning.base.errors import BackboneError
from provisioning.base.files import write_durably
from provisioning.base.hashing import Sha256, digest_of, sha256_bytes, sha256_file
from provisioning.config import Backbone
from provisioning.network.backbone.presets import BUILTINS

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BUILTIN_FORMULA = 2
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
    known = _remembered(memo).get(str(path))
    source = _from_memo(path, known) or _read(path)
    if known is None or known.get("sha256") != source.sha256 or known.get("stats") != _stats(source.files):
        _remember(memo, str(path), {"sha256": source.sha256, "stats": _stats(source.files)})
    return source


def _stats(files: Sequence[Path]) -> dict[str, list[int]] | None:
    try:
        return {str(f): [s.st_size, s.st_mtime_ns, s.st_ino] for f in files for s in (f.stat(),)}
    except OSError:
        return None


def _from_memo(path: Path, known: Mapping[str, object] | None) -> OnnxSource | None:
    stats = known.get("stats") if known else None
    if not known or not isinstance(stats, dict) or not stats:
        return None
    files = tuple(Path(name) for name in stats)
    return OnnxSource(path, Sha256(str(known["sha256"])), files) if _stats(files) == stats else None


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
    yield path.parent.resolve()
    yield path.resolve().parent
    for above in path.absolute().parents:
        if above.name == "snapshots" and (above.parent / "blobs").is_dir():
            yield above.parent.resolve()


def _digest(path: Path) -> Sha256:
    """Hash one file of a model after a look at its first bytes."""
    try:
        with path.open("rb") as file:
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
    writers = {"formula": BUILTIN_FORMULA, "onnx": _version("onnx"), "numpy": _version("numpy")}
    known = _remembered(memo).get(name)
    if known and known.get("writers") == writers:
        return Sha256(str(known["sha256"]))
    from provisioning.network.builtin.making import onnx_bytes

    digest = sha256_bytes(onnx_bytes(name))
    _remember(memo, name, {"sha256": digest, "writers": writers})
    return digest


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _remembered(memo: Path | None) -> dict[str, dict[str, object]]:
    """Return the memo; a damaged or absent one is empty, which costs a re-hash."""
    try:
        found = json.loads(memo.read_bytes()) if memo else {}
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _remember(memo: Path | None, name: str, entry: Mapping[str, object]) -> None:
    if memo is not None and lock.is_held_for(memo):
        memo.parent.mkdir(parents=True, exist_ok=True)
        everything = {**_remembered(memo), name: entry}
        write_durably(memo, json.dumps(everything, sort_keys=True, indent=1).encode())
