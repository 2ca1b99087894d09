"""Running a model that came from elsewhere in a process of its own.

`python -m provisioning.engines.vehicle.apart < request`.

That process has no key, no password and no cache in its environment, and limits of memory and time: a model that loops
for ever, eats memory or breaks its parser ends it and nothing else.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from provisioning.base.errors import EngineError
from provisioning.base.process import landlock
from provisioning.base.process.capture import ask
from provisioning.base.process.confined import bare_environment
from provisioning.engines.ort.onnx_network import OnnxNetwork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Floats = NDArray[np.float32]

TIME_S = 300
MEMORY_BYTES = 4 << 30
"""Address space beside ten times the model: interpreter, libraries and the tiles of a small batch."""
_LARGEST_DESCRIPTOR = 1 << 20


def describe_apart(model: bytes, images: Images, *, within_s: float = TIME_S) -> Floats:
    """Return the descriptors float32 [n, d] that the ONNX `model` gives `images` uint8 [n, H, W, 3].

    EngineError: it is no such model, or went over the limits.
    """
    import numpy as np

    head = {"model": len(model), "shape": list(images.shape)}
    request = json.dumps(head).encode() + b"\n" + model + np.ascontiguousarray(images).tobytes()
    command = [sys.executable, "-m", __name__, str(MEMORY_BYTES + 10 * len(model)), str(round(within_s))]
    most = 4 * _LARGEST_DESCRIPTOR * max(1, len(images))
    try:
        done = ask(command, request, most_bytes=most, within_s=within_s, environment=bare_environment(), cwd="/")
    except subprocess.TimeoutExpired:
        raise EngineError(f"the model had not finished after {within_s:g} s") from None
    except subprocess.SubprocessError as error:
        raise EngineError(f"the model answers without end: {error}") from error
    if done.returncode != 0:
        why = done.err.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise EngineError("the model does not run", facts={"reason": why[-1][:500], "exit code": done.returncode})
    return np.frombuffer(done.out, np.float32).reshape(len(images), -1)


def main(memory_bytes: int, time_s: int) -> None:
    """Be that process: read the request, write the descriptors."""
    import numpy as np

    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, time_s), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (limit, limit))
    landlock.confine(landlock.libraries(offline=True), offline=True)
    head = json.loads(sys.stdin.buffer.readline())
    model = sys.stdin.buffer.read(head["model"])
    images = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(head["shape"])
    try:
        described = OnnxNetwork.load(model)(images)
    except EngineError as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.buffer.write(described.astype(np.float32).tobytes())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
