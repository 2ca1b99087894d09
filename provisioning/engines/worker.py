"""The process that compiles one engine: `python -m provisioning.engines.worker OUTPUT ANSWER PARENT < spec`.

It writes the engine and then the answer, a JSON file with either `facts` or `error`. No answer means that it died.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from provisioning.base.errors import EngineError
from provisioning.engines.ort.ort import OnnxRuntime
from provisioning.engines.spec import Backend, EngineSpec, plain
from provisioning.engines.tensorrt.trt import TensorRT

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends; exit if `parent` has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _backend(spec: EngineSpec) -> Backend:
    return OnnxRuntime() if spec.host.backend == "onnxruntime" else TensorRT(spec.host.backend)


def _as_answer(error: EngineError) -> dict[str, object]:
    facts = {name: str(value) for name, value in error.facts.items()}
    return {"what": error.what, "file": error.file, "key": error.key, "facts": facts, "next_step": error.next_step}


def main(output: Path, answer: Path) -> None:
    """Compile the spec on stdin into `output` and write to `answer` how it went."""
    spec = EngineSpec.from_json(sys.stdin.read())
    result: dict[str, object]
    try:
        result = {"facts": dict(_backend(spec).build(spec, output))}
    except EngineError as error:
        result = {"error": _as_answer(error)}
    except MemoryError:
        result = {"error": _as_answer(EngineError(f"compiling {spec.model} ran out of memory", file=spec.onnx))}
    answer.write_text(json.dumps(result, default=plain), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # the engine is written; a vendor library that crashes while it unloads does not change that


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
