"""An ONNX model called as a network, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base.errors import EngineError
from provisioning.engines.halving import Batches, MemoryShortError, means_out_of_memory
from provisioning.engines.ort.onnx_info import read_onnx
from provisioning.network.session import open_session, translated
from provisioning.network.typing.graph import is_quantised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OnnxNetwork:
    """An ONNX model that takes tiles, run on the CPU. See `spec.Network`."""

    def __init__(self, session: Any) -> None:
        """Wrap an open `session`; use `load`."""
        (source,), target = session.get_inputs(), session.get_outputs()[0]
        self._session = session
        self._names = (source.name, target.name)
        self._batch = source.shape[0] if isinstance(source.shape[0], int) else None
        self._batches = Batches()
        self.size: tuple[int, int] = (source.shape[1], source.shape[2])
        self.dimension: int = target.shape[-1]

    @classmethod
    def load(
        cls, data: bytes, *, custom_ops: Path | None = None, reference: bool = False, weights: Path | None = None
    ) -> OnnxNetwork:
        """Open `data`. With `reference`, fused kernels stay off: the arithmetic of the graph as written.

        `weights`: the directory of external data, which an engine never has.
        """
        # onnxruntime's layout pass has given wrong results with Conv between Q/DQ (#24711), so quantised models stay
        # at EXTENDED.
        model, info = read_onnx(data, backend="onnxruntime", weights=weights)
        level = "ORT_ENABLE_BASIC" if reference else "ORT_ENABLE_EXTENDED" if is_quantised(model) else "ORT_ENABLE_ALL"
        del model  # it may be large, and the session has its own
        if (
            len(info.inputs) != 1
            or info.input_type != "uint8"
            or len(info.input_shape) != 4
            or info.input_shape[3] != 3
        ):
            facts = {"input": f"{info.input_type} {list(info.input_shape)}", "expected": "uint8 [N, H, W, 3]"}
            raise EngineError("this engine does not take tiles", facts=facts)
        if None in info.input_shape[1:3] or info.dimension is None:
            raise EngineError(
                "this engine does not say the size of its tiles or the length of its descriptors",
                facts={"input": list(info.input_shape), "dimension": info.dimension},
                next_step="give [[backbone]] size = [height, width]",
            )
        return cls(open_session(data, custom_ops, level=level, weights=weights))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return descriptors float32 [n, dimension] of tiles uint8 [n, height, width, 3]; EngineError if it fails."""
        with translated("engine"):
            if self._batch is None:
                return self._batches.run(self._run, images)
            return in_batches(self._run, images, self._batch, self.dimension)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        source, target = self._names
        try:
            result: NDArray[np.float32] = self._session.run([target], {source: images})[0]
        except Exception as error:  # its classes come straight from C++; `translated` is for the others
            if not means_out_of_memory(error):
                raise
            raise _short(len(images), error) from error
        return result

    def limited(self, most: int) -> OnnxNetwork:
        """Return this network, which from now on takes at most `most` tiles at a time, as a build describes them."""
        self._batches = Batches(most)
        return self

    @property
    def most(self) -> int | None:
        """Most tiles at a time that memory sufficed for, once it did not for more; else what it is limited to."""
        return self._batches.most

    def clone(self) -> OnnxNetwork:
        """Return this: a session may be called by several threads at once, each call on its caller's thread."""
        return self


def _short(count: int, error: Exception) -> MemoryShortError:
    return MemoryShortError(
        "memory does not suffice to run the network",
        facts={"tiles at once": count, "onnxruntime says": " ".join(str(error).split())},
        next_step="free memory, or set a smaller [[backbone]] size",
    )


def in_batches(run: Any, images: NDArray[np.uint8], batch: int, dimension: int) -> NDArray[np.float32]:
    """Call `run` with exactly `batch` images at a time, the last batch padded with black ones, and join the results."""
    import numpy as np

    result = np.empty((len(images), dimension), np.float32)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padding = np.zeros((batch - len(part), *images.shape[1:]), np.uint8)
        result[start : start + len(part)] = run(np.concatenate([part, padding]))[: len(part)]
    return result
