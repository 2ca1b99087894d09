r"""Compiling on the computer that will fly the engine, over a command that reaches it, and trying the engine there.

    here    flightcache-compile/2 {"spec": …, "onnx_bytes": n, "onnx_sha256": …, "tiles": [n, h, w, 3]}\n
            then the typed ONNX, then the golden tiles, uint8
    there   {"bytes": n, "sha256": …, "elapsed_s": …, "facts": …, "descriptors": [n, d]}\n
            then the engine, then its descriptors of the golden tiles, float32 little-endian;  or  {"error": …}\n

The other end is `flightcache fleet --compile`. It has no tiles of its own, no key and no cache, and refuses a host
tuple other than its own. What comes back is looked at before it is kept: what the bytes are, and what the
engine computes.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from provisioning.base.errors import EngineError, Error
from provisioning.base.hashing import Fact, sha256_bytes
from provisioning.base.process.capture import ask
from provisioning.base.words import typed
from provisioning.config import Backbone, Engine
from provisioning.engines.compile import Compiled, compile_engine
from provisioning.engines.host import HostTuple
from provisioning.engines.ort.ort import OnnxRuntime
from provisioning.engines.spec import Backend, EngineInfo, EngineSpec, Network
from provisioning.engines.tensorrt.trt import TensorRT
from provisioning.engines.vehicle.returned import compare_returned, describe, golden_tiles, inspect_returned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Floats = NDArray[np.float32]

GREETING = "flightcache-compile/2 "
SERVE = ("fleet", "--compile")
LINE_BYTES = 1 << 20
SPARE_S = 60
"""What sending and starting may take beyond the compile's own time limit."""
GROWTH, SPARE_BYTES = 4, 512 << 20
"""An answer is at most so many times the ONNX, and so much more: a plan may hold several kernels for each layer."""


def local_backend(name: str) -> Backend:
    """Return the backend `name` of this computer."""
    return OnnxRuntime() if name == "onnxruntime" else TensorRT(name)


@dataclass(frozen=True)
class There:
    """The backend of another computer, whose host tuple is known; `engine.command` reaches it when it must compile."""

    host: HostTuple

    @property
    def name(self) -> str:
        """The backend's name there."""
        return self.host.backend

    @property
    def runs_here(self) -> bool:
        """True where this computer has the same host tuple: then the very engine is run and measured here."""
        try:
            return local_backend(self.name).probe() == self.host
        except EngineError:
            return False

    def probe(self) -> HostTuple:
        """Return the host tuple of the other computer."""
        return self.host

    def options(self, backbone: Backbone, engine: Engine) -> Mapping[str, Fact]:
        """Return the settings that decide the engine's bytes."""
        return local_backend(self.name).options(backbone, engine)

    def build(self, spec: EngineSpec, output: Path) -> Mapping[str, object]:
        """Refuse: what is compiled there goes through `compile_there`."""
        raise EngineError(f"{spec.model} is compiled on its target, not here", file=output, key="engine.command")

    def inspect(self, data: bytes) -> EngineInfo:
        """Return what the bytes say."""
        return local_backend(self.name).inspect(data)

    def load(self, data: bytes, *, custom_ops: Path | None = None) -> Network:
        """Return the network in `data`, where it can run here."""
        return local_backend(self.name).load(data, custom_ops=custom_ops)


def compile_there(
    command: Sequence[str], spec: EngineSpec, output: Path, *, tiles: Images | None = None, log: Path
) -> Compiled:
    """Have `spec` compiled through `command`, write the engine to `output`; what it says on stderr goes to `log`.

    tiles: golden tiles uint8 [n, H, W, 3]; noise and a ramp where there are none. The engine computes them there, and
    the result is compared with that of the ONNX here; how well they agree is in the facts under `golden`.
    EngineError: not reached, refused or failed there, other bytes came than were announced, no engine of this network.
    """
    if spec.custom_ops is not None:
        raise EngineError("custom operators are not carried to another computer", key="backbone.custom_ops")
    log.parent.mkdir(parents=True, exist_ok=True)
    onnx = spec.onnx.read_bytes()
    golden = golden_tiles(onnx, tiles)
    try:
        done = ask(
            command,
            _request(spec, onnx, golden),
            most_bytes=GROWTH * len(onnx) + SPARE_BYTES,
            within_s=spec.timeout_s + SPARE_S,
            log=log,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{spec.model} cannot be compiled there: {error}", key="engine.command") from error
    head, _, body = done.out.partition(b"\n")
    answer = _answer(head, spec, command, done.returncode, log)
    engine, described = body[: answer.size], body[answer.size :]
    if len(engine) != answer.size or sha256_bytes(engine) != answer.sha256:
        raise EngineError("another engine arrived than was compiled there", file=log, next_step="run again")
    inspect_returned(engine, onnx, spec)
    agreement = compare_returned(engine, onnx, golden, answer.vectors(described), spec)
    output.write_bytes(engine)
    return Compiled(answer.elapsed_s, {**answer.facts, "golden": agreement})


def _request(spec: EngineSpec, onnx: bytes, golden: Images) -> bytes:
    asked = {
        "spec": json.loads(spec.to_json()),
        "onnx_bytes": len(onnx),
        "onnx_sha256": sha256_bytes(onnx),
        "tiles": list(golden.shape),
    }
    return (GREETING + json.dumps(asked) + "\n").encode() + onnx + golden.tobytes()


class _Head(NamedTuple):
    """The first line of an answer."""

    size: int
    sha256: str
    elapsed_s: float
    facts: Mapping[str, object]
    descriptors: tuple[int, int]

    @classmethod
    def read(cls, fields: Any) -> _Head:
        """Return what the parsed line says; ValueError, KeyError or TypeError if it is none."""
        shape = tuple(fields["descriptors"])
        if len(shape) != 2 or not all(type(n) is int and 0 <= n < LINE_BYTES for n in (*shape, fields["bytes"] >> 20)):
            raise ValueError("no sizes")
        return cls(
            int(fields["bytes"]), str(fields["sha256"]), float(fields["elapsed_s"]), dict(fields["facts"]), shape
        )

    def vectors(self, data: bytes) -> Floats:
        """Return the descriptors in `data`, float32 [n, d]; EngineError if it has another length."""
        import numpy as np

        if len(data) != 4 * self.descriptors[0] * self.descriptors[1]:
            raise EngineError("other descriptors arrived than were announced", next_step="run again")
        return np.frombuffer(data, "<f4").reshape(self.descriptors)


def _answer(head: bytes, spec: EngineSpec, command: Sequence[str], returncode: int, log: Path) -> _Head:
    try:
        answer = json.loads(head[:LINE_BYTES])
        if "error" in answer:
            reason = str(answer["error"])
            raise EngineError(f"the target could not compile {spec.model}: {reason}", key="engine.command")
        return _Head.read(answer)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EngineError(
            f"no engine of {spec.model} came from the target",
            key="engine.command",
            facts={"command": typed(*command), "exit code": returncode, "log": log},
            next_step="run that command by hand: flightcache, as new as this one, must be installed there",
        ) from error


def serve(source: IO[bytes], answers: IO[bytes]) -> None:
    """Be the other end: compile what comes on `source` for this computer, try it, and answer.

    An error is answered, then raised.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="flightcache-") as scratch:
            spec, golden = _received(source, Path(scratch))
            output = Path(scratch) / "engine"
            compiled = compile_engine(spec, output, log=Path(scratch) / "log")
            engine = output.read_bytes()
            described = describe(local_backend(spec.host.backend), engine, golden)
    except Error as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()
        raise
    head = {
        "bytes": len(engine),
        "sha256": sha256_bytes(engine),
        "descriptors": list(described.shape),
        **json.loads(compiled.to_json()),
    }
    answers.write(json.dumps(head).encode() + b"\n" + engine + described.astype("<f4").tobytes())
    answers.flush()


def _received(source: IO[bytes], scratch: Path) -> tuple[EngineSpec, Images]:
    """Return the spec that arrived, its ONNX written to `scratch`, and the golden tiles.

    EngineError if it is not for this computer.
    """
    import numpy as np

    line = source.readline(LINE_BYTES).decode("utf-8", "replace")
    try:
        asked = json.loads(line.partition(GREETING)[2])
        spec = EngineSpec.from_json(json.dumps(asked["spec"]))
        onnx = source.read(int(asked["onnx_bytes"]))
        digest, shape = str(asked["onnx_sha256"]), tuple(map(int, asked["tiles"]))
        golden = np.frombuffer(source.read(math.prod(shape)), np.uint8).reshape(shape)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EngineError(f"the other end does not speak {GREETING.strip()}", facts={"said": line[:80]}) from error
    if sha256_bytes(onnx) != digest:
        raise EngineError("the network arrived damaged", next_step="run again")
    here = local_backend(spec.host.backend).probe()
    if here != spec.host:
        raise EngineError(
            "this computer is another host than the engine is for",
            facts={"here": " ".join(here), "asked for": " ".join(spec.host)},
            next_step="run `flightcache fleet` again: it asks every vehicle what it is",
        )
    (scratch / "typed.onnx").write_bytes(onnx)
    return replace(spec, onnx=scratch / "typed.onnx", state=scratch / "state", custom_ops=None), golden
