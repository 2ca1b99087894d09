"""Run a TensorRT plan: device memory and copies through libcuda, so that no CUDA package for Python is needed."""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any

from provisioning.base.errors import EngineError
from provisioning.engines.halving import Batches, MemoryShortError, say_halved
from provisioning.engines.tensorrt.cuda import LIBCUDA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY of cuda.h."""


class Device:
    """GPU 0's primary context, the one TensorRT uses, with the few calls a network needs."""

    def __init__(self) -> None:
        """Open the driver; EngineError where it refuses."""
        self._cuda = ctypes.CDLL(LIBCUDA)
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.enter()

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._cuda, function)(*arguments)
        if code == OUT_OF_MEMORY:
            raise MemoryShortError(
                f"the CUDA driver refused {function}: out of GPU memory",
                facts={"error": code},
                next_step="free memory on the GPU, or set a smaller engine.batch",
            )
        if code:
            raise EngineError(f"the CUDA driver refused {function}", facts={"error": code})

    def enter(self) -> None:
        """Make the context current in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of device memory."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(pointer))

    def stream(self) -> int:
        """Return a new stream that does not wait for the default one."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), 1)
        return stream.value or 0

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device."""
        self._call(
            "cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), array.ctypes.data_as(ctypes.c_void_p), _size(array.nbytes)
        )

    def download(self, array: NDArray[Any], pointer: int) -> None:
        """Copy from the device into a contiguous array."""
        self._call(
            "cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(pointer), _size(array.nbytes)
        )

    def wait(self, stream: int) -> None:
        """Return when everything on `stream` is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))


def refusal(trt: Any, runtime: Any, data: bytes) -> dict[str, str]:
    """Return why the plan cannot be loaded here, where the runtime can be asked (TensorRT-RTX can)."""
    if not hasattr(runtime, "get_engine_validity"):
        return {}
    _, bits = runtime.get_engine_validity(data)
    members = trt.EngineInvalidityDiagnostics.__members__.items()
    return {"why": ", ".join(name for name, member in members if int(member) & bits) or "unknown"}


def _size(count: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(count)


class TrtNetwork:
    """A deserialised plan that takes tiles. See `spec.Network`."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, device: Device, *, most: int | None = None) -> None:
        """Wrap an open engine; use `load`. An engine does not keep its runtime alive, so this does.

        most: images for which there is room on the GPU, where the profile of the engine allows more.
        """
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._output = next(name for name in names if name not in inputs)
        least, _, largest = engine.get_tensor_profile_shape(self._input, 0)
        shape = tuple(engine.get_tensor_shape(self._input))
        self._fixed = shape[0] if shape[0] > 0 else None
        self.size: tuple[int, int] = (shape[1], shape[2])
        self.dimension: int = tuple(engine.get_tensor_shape(self._output))[-1]
        self._trt, self._runtime, self._engine, self._device = trt, runtime, engine, device
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT could not make an execution context", next_step="free memory on the GPU")
        self._stream = device.stream()
        self._buffers: list[int] = []
        self._batches = Batches(self._make_room(self._fixed or most or largest[0], self._fixed or least[0]))

    def _make_room(self, asked: int, least: int) -> int:
        """Allocate buffers for `asked` images, or for half as many as often as it takes; return for how many."""
        count = self._room(asked, max(1, least))
        if count < asked:
            say_halved(asked, count)
        return count

    def _room(self, count: int, least: int) -> int:
        try:
            self._allocate(count)
        except MemoryShortError:
            if count // 2 < least:
                raise
            return self._room(count // 2, least)
        return count

    def _allocate(self, count: int) -> None:
        """Make the buffers of input and output for `count` images; on failure there are none."""
        sizes = {self._input: self.size[0] * self.size[1] * 3, self._output: self.dimension * 4}
        try:
            for size in sizes.values():
                self._buffers.append(self._device.allocate(count * size))
        except MemoryShortError:
            self._free()
            raise
        for name, pointer in zip(sizes, self._buffers, strict=True):
            self._context.set_tensor_address(name, pointer)

    def _free(self) -> None:
        while self._buffers:
            self._device.free(self._buffers.pop())

    @classmethod
    def load(cls, module_name: str, data: bytes) -> TrtNetwork:
        """Deserialise `data`, which the caller has verified; EngineError where TensorRT will not."""
        trt = importlib.import_module(module_name)
        device = Device()
        logger = trt.Logger(trt.Logger.WARNING)
        runtime = trt.Runtime(logger)
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{module_name} will not load this plan on this GPU",
                facts={"bytes": len(data), **refusal(trt, runtime, data)},
                next_step="run `doit engine` on this computer",
            )
        return cls(trt, runtime, engine, device)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return descriptors float32 [n, dimension] of tiles uint8 [n, height, width, 3]; EngineError if it fails."""
        self._device.enter()
        return self._batches.run(self._run, images)

    def _run(self, part: NDArray[np.uint8]) -> NDArray[np.float32]:
        import numpy as np

        count, part = len(part), np.ascontiguousarray(part)
        if not count:
            return np.empty((0, self.dimension), np.float32)
        if self._fixed is not None and count < self._fixed:
            part = np.concatenate([part, np.zeros((self._fixed - count, *part.shape[1:]), np.uint8)])
        self._context.set_input_shape(self._input, part.shape)
        self._device.upload(self._buffers[0], part)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT could not run the network")
        self._device.wait(self._stream)
        descriptors = np.empty((len(part), self.dimension), np.float32)
        self._device.download(descriptors, self._buffers[1])
        return descriptors[:count]

    @property
    def most(self) -> int | None:
        """Most tiles at a time that the GPU's memory and the engine's profile allow, as far as is known."""
        return self._batches.most

    def clone(self) -> TrtNetwork:
        """Return a network for another thread: its own context, stream and buffers on the same weights."""
        return TrtNetwork(self._trt, self._runtime, self._engine, self._device, most=self._batches.most)

    def __del__(self) -> None:
        """Give the device memory back."""
        if hasattr(self, "_buffers"):
            self._free()
