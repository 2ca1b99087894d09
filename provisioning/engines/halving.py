"""A batch that does not fit into memory is halved and tried again."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from provisioning.base.errors import EngineError
from provisioning.base.events import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAYINGS = re.compile(
    r"out of memory|failed to allocate memory|bad allocation|bad_alloc"
    r"|CU(DA|BLAS|DNN)_\w*(OUT_OF_MEMORY|ALLOC_FAILED)|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
"""What ONNX Runtime passes on from its arena, CUDA, cuBLAS and cuDNN."""


class MemoryShortError(EngineError):
    """Memory of the processor or the GPU does not suffice for a call."""


def means_out_of_memory(text: object) -> bool:
    """Return whether a library's error `text` says that memory ran out, and nothing about the model."""
    return bool(_SAYINGS.search(str(text)))


class Batches:
    """How many images a network takes at a time, `most` or any number; fewer once memory did not suffice.

    One object for all threads and clones of a network. The limit is forgotten with the process.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._said: int | None = None
        self._lock = threading.Lock()

    def run(
        self, call: Callable[[NDArray[np.uint8]], NDArray[np.float32]], images: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Return the rows that `call` gives for all of `images`, in their order.

        A call that raises MemoryShortError is tried again with half as many; the error of one image passes through.
        """
        import numpy as np

        parts: list[NDArray[np.float32]] = []
        start, asked = 0, 0
        while start < len(images) or not parts:
            part = images[start : start + self.most] if self.most else images
            try:
                parts.append(call(part))
            except MemoryShortError:
                if len(part) <= 1:
                    raise
                asked = max(asked, len(part))
                self._halve(len(part))
                continue
            start += len(part)
            if asked:
                self._say(asked)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _halve(self, count: int) -> None:
        with self._lock:  # another thread may have found less
            self.most = min(self.most or count, count // 2)

    def _say(self, asked: int) -> None:
        """Warn of a limit, once."""
        with self._lock:
            if self.most == self._said:
                return
            self._said = self.most
            say_halved(asked, self.most or 1)


def say_halved(asked: int, fits: int) -> None:
    """Warn that `fits` tiles at a time are what memory suffices for, instead of the `asked`."""
    advice = f"set engine.batch = {fits}, or free memory"
    warn("engine.batch_halved", asked=asked, fits=fits, reason="memory did not suffice", next_step=advice)
