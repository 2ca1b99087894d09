"""Weights out of a PyTorch checkpoint, without PyTorch and without running what a pickle asks for.

A checkpoint is a pickled index of tensors and, beside it, their raw storages: since PyTorch 1.6 as entries of a zip
archive, before that one after the other in one file. The pickle may name only what makes an index of tensors; anything
else in it is refused. Source of the layout: torch/serialization.py, `_legacy_save` and `_save`.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from provisioning.base.errors import BackboneError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
TYPES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
Array = NDArray[Any]


@dataclass(frozen=True)
class _Storage:
    """Where a tensor's numbers lie: the key of its storage, its type, how many there are."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the index has it: numbers of `storage` from `offset`, `stride` numbers from one to the next."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_checkpoint(data: bytes) -> Mapping[str, Array]:
    """Return the tensors of a checkpoint that holds a state dict, by name, in the file's own types.

    Raises BackboneError where `data` is no such file, is cut short, or names anything but tensors.
    """
    try:
        return _zipped(data) if data[:2] == b"PK" else _legacy(data)
    except BackboneError:
        raise
    except Exception as error:  # pickle and zipfile raise almost anything on bytes that are not theirs
        raise BackboneError(
            "the file is no checkpoint of weights that can be read",
            facts={"reason": f"{type(error).__name__}: {error}"},
            next_step="install the package that it comes in again",
        ) from error


def _zipped(data: bytes) -> Mapping[str, Array]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        index = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = index.removesuffix("data.pkl")
        tensors = _tensors(_Index(io.BytesIO(archive.read(index))).load())
        raw = {t.storage.key: archive.read(f"{folder}data/{t.storage.key}") for t in tensors.values()}
    return {name: _array(tensor, raw[tensor.storage.key]) for name, tensor in tensors.items()}


def _legacy(data: bytes) -> Mapping[str, Array]:
    """Read magic number, protocol, facts of the writer, the index, the order of storages; then the storages."""
    file = io.BytesIO(data)
    if _Index(file).load() != LEGACY_MAGIC:
        raise ValueError("another magic number")
    _Index(file).load()
    _Index(file).load()
    tensors = _tensors(_Index(file).load())
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    raw = {key: _counted(file, storages[key]) for key in _Index(file).load()}
    return {name: _array(tensor, raw[tensor.storage.key]) for name, tensor in tensors.items()}


def _counted(file: io.BytesIO, storage: _Storage) -> bytes:
    """Return the storage that comes next: its length as int64, then its numbers."""
    if int.from_bytes(file.read(8), "little") != storage.count:
        raise ValueError(f"storage {storage.key} has another length than the index says")
    return file.read(storage.count * storage.dtype.itemsize)


def _tensors(index: object) -> Mapping[str, _Tensor]:
    if not isinstance(index, dict) or not all(isinstance(each, _Tensor) for each in index.values()):
        raise TypeError("not a state dict: names and tensors")
    return index


def _array(tensor: _Tensor, raw: bytes) -> Array:
    values = np.frombuffer(raw, tensor.storage.dtype, tensor.storage.count)
    steps = [(side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True)]
    if min([tensor.offset, *tensor.shape, *tensor.stride]) < 0 or tensor.offset + sum(steps) >= len(values):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(step * values.itemsize for step in tensor.stride)
    return np.array(as_strided(values[tensor.offset :], tensor.shape, strides), order="C")


def _rebuilt(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _Tensor:
    """Stand in for torch._utils._rebuild_tensor_v2."""
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: _Tensor, *_: object) -> _Tensor:
    """Stand in for torch._utils._rebuild_parameter."""
    return tensor


_ALLOWED: Mapping[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Index(pickle.Unpickler):
    """An unpickler that knows tensors and nothing else."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in for a name that an index of tensors needs; BackboneError for any other."""
        if module == "torch" and name in TYPES:
            return np.dtype(TYPES[name])
        if (module, name) not in _ALLOWED:
            raise BackboneError(
                f"a checkpoint asks for {module}.{name}, which is no tensor",
                next_step="do not load this file: it may run code of a stranger's",
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        """Return the storage that the index refers to: ("storage", type, key, device, count, view)."""
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"not a storage: {pid!r}")
        return _Storage(str(key), dtype, int(count))
