r"""Compiling on the computer that will fly the engine, over a command that reaches it.

    here    flightcache-compile/1 {"spec": …, "onnx_bytes": n, "onnx_sha256": …}\n  and the typed ONNX
    there   {"bytes": n, "sha256": …, "elapsed_s": …, "facts": …}\n  and the engine,  or  {"error": …}\n

The other end is `flightcache fleet --compile`. It has no tiles, no key and no cache, and refuses a host tuple other
than its own.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from provisioning.base.errors import EngineError, Error
from provisioning.base.hashing import Fact, sha256_bytes
from provisioning.config import Backbone, Engine
from provisioning.engines.compile import Compiled, compile_engine
from provisioning.engines.host import HostTuple
from provisioning.engines.ort.ort import OnnxRuntime
from provisioning.engines.spec import Backend, EngineInfo, EngineSpec, Network
from provisioning.engines.tensorrt.trt import TensorRT

GREETING = "flightcache-compile/1 "
SERVE = ("fleet", "--compile")
LINE_BYTES = 1 << 20
SPARE_S = 60
"""What sending and starting may take beyond the compile's own time limit."""


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


def compile_there(command: Sequence[str], spec: EngineSpec, output: Path, *, log: Path) -> Compiled:
    """Have `spec` compiled through `command`, write the engine to `output`; what it says on stderr goes to `log`.

    EngineError: not reached, refused or failed there, or other bytes came than were announced.
    """
    if spec.custom_ops is not None:
        raise EngineError("custom operators are not carried to another computer", key="backbone.custom_ops")
    log.parent.mkdir(parents=True, exist_ok=True)
    onnx = spec.onnx.read_bytes()
    asked = {"spec": json.loads(spec.to_json()), "onnx_bytes": len(onnx), "onnx_sha256": sha256_bytes(onnx)}
    request = (GREETING + json.dumps(asked) + "\n").encode() + onnx
    try:
        with open(log, "wb") as told:
            done = subprocess.run(
                command,
                input=request,
                stdout=subprocess.PIPE,
                stderr=told,
                timeout=spec.timeout_s + SPARE_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{spec.model} cannot be compiled there: {error}", key="engine.command") from error
    head, _, engine = done.stdout.partition(b"\n")
    answer = _answer(head, spec, command, done.returncode, log)
    if len(engine) != answer["bytes"] or sha256_bytes(engine) != answer["sha256"]:
        raise EngineError("another engine arrived than was compiled there", file=log, next_step="run again")
    output.write_bytes(engine)
    return Compiled(float(answer["elapsed_s"]), dict(answer["facts"]))


def _answer(head: bytes, spec: EngineSpec, command: Sequence[str], returncode: int, log: Path) -> dict[str, Any]:
    try:
        answer = json.loads(head)
        if "error" in answer:
            raise EngineError(f"the target could not compile {spec.model}: {answer['error']}", key="engine.command")
        return {name: answer[name] for name in ("bytes", "sha256", "elapsed_s", "facts")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(
            f"no engine of {spec.model} came from the target",
            key="engine.command",
            facts={"command": " ".join(command), "exit code": returncode, "log": log},
            next_step="run that command by hand: flightcache must be installed there",
        ) from error


def serve(source: IO[bytes], answers: IO[bytes]) -> None:
    """Be the other end: compile what comes on `source` for this computer, and answer. An error is told, then raised."""
    try:
        with tempfile.TemporaryDirectory(prefix="flightcache-") as scratch:
            spec = _received(source, Path(scratch))
            output = Path(scratch) / "engine"
            compiled = compile_engine(spec, output, log=Path(scratch) / "log")
            engine = output.read_bytes()
    except Error as error:
        answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
        answers.flush()
        raise
    head = {"bytes": len(engine), "sha256": sha256_bytes(engine), **json.loads(compiled.to_json())}
    answers.write(json.dumps(head).encode() + b"\n" + engine)
    answers.flush()


def _received(source: IO[bytes], scratch: Path) -> EngineSpec:
    """Return the spec that arrived, its ONNX written to `scratch`; EngineError if it is not for this computer."""
    line = source.readline(LINE_BYTES).decode("utf-8", "replace")
    try:
        asked = json.loads(line.partition(GREETING)[2])
        spec = EngineSpec.from_json(json.dumps(asked["spec"]))
        onnx = source.read(int(asked["onnx_bytes"]))
        digest = str(asked["onnx_sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
    return replace(spec, onnx=scratch / "typed.onnx", state=scratch / "state", custom_ops=None)
