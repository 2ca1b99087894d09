"""Compile one engine in a process of its own, with a log, a time limit, an order to stop that works, and a heartbeat.

A vendor's compiler may crash, eat the memory or hang; a build that failed inside one has been seen to change the bytes
of the next one in that process. So every compile gets a fresh process, which dies with this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioning.base import events
from provisioning.base.disk import lock
from provisioning.base.errors import EngineError
from provisioning.base.process.confined import bare_environment
from provisioning.base.process.signals import stop_waits
from provisioning.engines.ort.ort import OnnxRuntime
from provisioning.engines.spec import EngineSpec

HEARTBEAT_S = 1.0
_OURS = str(Path(__file__).resolve().parents[2])
"""Where this package is imported from, which need not be on sys.path by name."""
LINE_EVERY_S = 60.0
"""How often a log that is no terminal hears that the compile goes on."""
OF_COMPILERS = ("CUDA_", "NVIDIA_", "OMP_", "ORT_", "TENSORRT_", "TRT_", "LD_")
"""How the names of variables begin that a vendor's compiler reads."""
GRACE_S = 2.0
"""How long a compile asked to stop may take before it is killed."""


@dataclass(frozen=True)
class Compiled:
    """What a compile reports besides its engine: digests of the timing cache, layers, the version in the plan."""

    elapsed_s: float
    facts: Mapping[str, object]

    def to_json(self) -> str:
        """Return the text that `read_compiled` reads."""
        return json.dumps({"elapsed_s": round(self.elapsed_s, 3), "facts": self.facts}, indent=1, sort_keys=True)


def compiled_path(engine: Path) -> Path:
    """Return where the record of the compile of `engine` is kept: beside it."""
    return engine.with_name(engine.name + ".compiled.json")


def read_compiled(engine: Path) -> Compiled | None:
    """Return the record of the compile of `engine`, or None where there is none that can be read."""
    try:
        kept = json.loads(compiled_path(engine).read_bytes())
        return Compiled(float(kept["elapsed_s"]), dict(kept["facts"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def golden_agreement(engine: Path) -> tuple[int, str] | None:
    """Return how many golden tiles the target's own engine was tried on and their least cosine; None if on none."""
    compiled = read_compiled(engine)
    golden = compiled.facts.get("golden") if compiled else None
    return (golden["tiles"], golden["cosine_min"]) if isinstance(golden, dict) and golden.get("tiles") else None


def compile_engine(spec: EngineSpec, output: Path, *, log: Path, last_s: float = 0) -> Compiled:
    """Compile `spec` into the file `output` and return how long it took and what the builder reported.

    last_s: what it took last time, second, shown beside the time that has passed; 0: not known.
    EngineError: refused by the backend, crashed, killed, or over `spec.timeout_s`; the log's last lines are in it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    spec.state.mkdir(parents=True, exist_ok=True)
    answer = output.with_name(output.name + ".answer")
    started, child = time.monotonic(), None
    try:
        with stop_waits(), open(log, "wb") as out:
            child = _start(spec, output, answer, out.fileno())
        _wait(child, spec, started, round(last_s))
        facts = _answer(child.returncode, answer, spec, log)
        if spec.host.backend == OnnxRuntime.name:
            OnnxRuntime().inspect(output.read_bytes())  # here: the build has loaded onnx, which costs more than that
    finally:
        if child is not None:
            _stop(child)
        answer.unlink(missing_ok=True)
    return Compiled(time.monotonic() - started, facts)


def _environment() -> dict[str, str]:
    """Return what a compiler may know of the environment: where things are and how to use the GPU, no secret."""
    return {
        **bare_environment(),
        **{name: value for name, value in os.environ.items() if name.startswith(OF_COMPILERS)},
        "PYTHONPATH": os.pathsep.join([_OURS, *map(os.path.abspath, filter(None, sys.path))]),
        "PYTHONUNBUFFERED": "1",
    }


def _start(spec: EngineSpec, output: Path, answer: Path, log: int) -> subprocess.Popen[bytes]:
    files = [os.path.abspath(path) for path in (output, answer)]
    command = [sys.executable, "-m", "provisioning.engines.worker", *files, str(os.getpid())]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=_environment(),
        cwd="/",  # Python imports from the directory it starts in: never from a cache directory
        pass_fds=lock.descriptors(),  # should it outlive us for a moment, the next build waits for it
        start_new_session=True,  # Ctrl-C reaches us alone; we stop the compile in order
    )
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:  # it may be dead already: its exit code says so
        pipe.write(spec.to_json().encode())
    return child


def _wait(child: subprocess.Popen[bytes], spec: EngineSpec, started: float, last: int) -> None:
    """Wait for the compile, with a heartbeat."""
    next_line = LINE_EVERY_S
    while child.poll() is None:
        elapsed = time.monotonic() - started
        if elapsed > spec.timeout_s:
            raise EngineError(
                f"compiling {spec.model} took longer than engine.timeout_s",
                key="engine.timeout_s",
                facts={"limit": f"{spec.timeout_s} s", "last time": f"{last} s" if last else "-"},
            )
        events.progress(f"engine:{spec.model}", round(elapsed), last, unit="s")
        if elapsed >= next_line:
            next_line += LINE_EVERY_S
            events.event("engine.compiling", model=spec.model, elapsed_s=round(elapsed), last_s=last)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(min(HEARTBEAT_S, spec.timeout_s - elapsed + 0.01))


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the compile and everything it started."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # its session is its own: nothing of ours is in that group
    child.wait()


def _answer(returncode: int, answer: Path, spec: EngineSpec, log: Path) -> Mapping[str, object]:
    try:
        answered = json.loads(answer.read_bytes())
    except (OSError, ValueError):
        raise _died(returncode, spec, log) from None
    if "error" in answered:
        error = answered["error"]
        raise EngineError(
            error["what"],
            file=error["file"],
            key=error["key"],
            facts={**error["facts"], "log": log},
            next_step=error["next_step"],
        )
    facts: Mapping[str, object] = answered["facts"]
    return facts


def _died(returncode: int, spec: EngineSpec, log: Path) -> EngineError:
    """Return the error for a compile that ended without an answer."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        how = "was killed" if -returncode == signal.SIGKILL else "crashed"
        step = "it may have run out of memory: see `dmesg`, lower engine.workspace_mb" if how == "was killed" else None
        what = f"compiling {spec.model} {how} ({name})"
    else:
        what, step = f"compiling {spec.model} ended with exit code {returncode} and no answer", None
    facts = {"backend": spec.host.backend, "last lines": _tail(log), "log": log}
    return EngineError(what, file=spec.onnx, facts=facts, next_step=step or "read the log")


def _tail(log: Path, lines: int = 5) -> str:
    text = log.read_bytes()[-4096:].decode("utf-8", "replace")
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip()) or "nothing"
