"""`flightcache doctor --self`: whether this computer can build and verify caches, and what to do if not. Offline."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from provisioning.base.disk.files import filesystem_type, free_bytes, require_local_filesystem
from provisioning.base.distributions import installed_version
from provisioning.base.errors import Error, FilesystemError
from provisioning.cli.check.doctor import Finding, as_text
from provisioning.engines.host import THIS_MACHINE, Machine, instruction_class, l4t_release
from provisioning.engines.tensorrt.trt import DISTRIBUTIONS

OLDEST_PYTHON = (3, 10)
MODULES = {"pillow": "PIL", "faiss-cpu": "faiss", "backports-zstd": "backports.zstd"}
"""Distributions whose module has another name."""
TRY_IMPORTS = """\
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, ""]), flush=True)
    except Exception as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""
IMPORT_S = 120.0
"""How long all imports together may take, on a slow card under load."""
FSYNC_TRIES = 7
SLOW_FSYNC_MS = 50.0
"""A small first build waits for 128 of them (counted on the demo): at this cost for six seconds."""
LEAST_FREE_BYTES = 1 << 30
LEAST_MEMORY_BYTES = 1 << 30
SLOW_CLASSES = ("generic", "sse4.1", "avx")
"""Classes of x86 CPUs without AVX2 and FMA: everything runs, at a fraction of the speed."""


BUILDER = ("doit", "numpy", "faiss-cpu", "onnxruntime", "onnxruntime-gpu")
"""Where one of these is, the builder is meant to be: it is what the extra [build] brings."""


def requirements() -> list[str] | None:
    """Return what the installed flightcache asks for, or None where it is not installed."""
    try:
        return importlib.metadata.requires("flightcache")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is looked at. Tests put another computer in its place."""

    folder: Path
    """Where caches are, or will be."""
    machine: Machine = THIS_MACHINE
    python: tuple[int, int, int] = sys.version_info[:3]
    executable: str = sys.executable
    requires: Callable[[], list[str] | None] = requirements
    now_s: Callable[[], float] = time.time
    fsync: Callable[[int], None] = os.fsync


def report(folder: Path, *, as_json: bool) -> int:
    """Print the findings about this computer; exit code 0 if caches can be built and verified in `folder`, else 10."""
    findings = examine_machine(Surroundings(folder=folder))
    if as_json:
        print(json.dumps({"findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        print(as_text(findings, advice="builds will fail here until that is put right"))
    return Error.exit_code if any(finding.state == "bad" for finding in findings) else 0


def examine_machine(here: Surroundings) -> tuple[Finding, ...]:
    """Return every finding; what is written in `here.folder` to measure it is removed again."""
    return (
        _python(here),
        *_packages(here),
        _cpu(here),
        _gpu(here),
        _memory(here),
        *_folder(here),
        _clock(here),
    )


def _python(here: Surroundings) -> Finding:
    said = f"{'.'.join(map(str, here.python))} in {sys.prefix}"
    if here.python[:2] < OLDEST_PYTHON:
        return Finding("python", "bad", said, "install Python 3.10 or later and make the environment with it")
    return Finding("python", "ok", said)


def _packages(here: Surroundings) -> Iterator[Finding]:
    """Compare what is installed with what flightcache asks for, then import each once, in a process of its own."""
    lines = here.requires()
    if lines is None:
        yield Finding("packages", "warn", "flightcache runs from source and is not installed", "pip install -e .")
        return
    if not any(installed_version(name) for name in BUILDER):
        said = f"cryptography {installed_version('cryptography')}: what verifies and installs; the builder is not here"
        yield Finding("packages", "ok", said)
        return
    try:
        wanted = _needed(lines)
    except ImportError:
        yield Finding(
            "packages", "bad", "packaging, which onnxruntime brings, is not installed", "pip install -e . again"
        )
        return
    problems = [*_wrong_versions(wanted), *_unusable(here, wanted)]
    yield from problems
    if not problems:
        said = ", ".join(f"{name} {installed_version(name)}" for name in ("onnxruntime", "faiss-cpu", "numpy"))
        yield Finding("packages", "ok", f"all {len(wanted)} import; {said}")


def _needed(lines: list[str]) -> dict[str, str]:
    """Return the specifier of each distribution that is needed on this Python by the core and the extra [build]."""
    from packaging.requirements import Requirement

    parsed = (Requirement(line) for line in lines)
    needed = [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": "build"})]
    return {one.name.lower().replace(".", "-").replace("_", "-"): str(one.specifier) for one in needed}


def _wrong_versions(wanted: dict[str, str]) -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    for name, specifier in wanted.items():
        version = installed_version(name)
        if version is None and not (name == "onnxruntime" and installed_version("onnxruntime-gpu")):
            yield Finding(f"package {name}", "bad", "not installed", f"pip install '{name}{specifier}'")
        elif version and not SpecifierSet(specifier).contains(version, prereleases=True):
            said = f"{version} is installed, {specifier} is needed"
            yield Finding(f"package {name}", "bad", said, f"pip install '{name}{specifier}'")


def _unusable(here: Surroundings, wanted: dict[str, str]) -> Iterator[Finding]:
    """Name each installed package that does not import; a wheel for another CPU may even kill the process."""
    names = [name for name in wanted if installed_version(name)]
    modules = {MODULES.get(name, name): name for name in names}
    command = [here.executable, "-c", TRY_IMPORTS, *modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("packages", "bad", f"importing them gave: {error}", "make the environment anew")
        return
    answers = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    for module, name in modules.items():
        answer = answers.get(module, "")
        if answer is None:
            yield Finding(f"package {name}", "bad", f"importing it ended Python {_how(done.returncode)}", _other(name))
        elif answer:
            yield Finding(f"package {name}", "bad", f"does not import: {answer}", _other(name))


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"


def _other(name: str) -> str:
    return f"pip install --force-reinstall {name}; if that does not help, its wheels are not for this CPU or libc"


def _cpu(here: Surroundings) -> Finding:
    kind = instruction_class(here.machine)
    said = f"{here.machine.machine}, {kind}, {len(os.sched_getaffinity(0))} cores"
    if here.machine.machine not in ("x86_64", "aarch64"):
        return Finding("cpu", "bad", said, "use x86-64 or aarch64: FAISS and ONNX Runtime have no wheels for others")
    if kind in SLOW_CLASSES:
        return Finding("cpu", "warn", f"{said}: without AVX2 all is slow", "build elsewhere, or let it take its time")
    return Finding("cpu", "ok", said)


def _gpu(here: Surroundings) -> Finding:
    """Say which backend `engine.backend = "auto"` chooses, and what a GPU that lies idle would need."""
    gpu = here.machine.gpu()
    if gpu is None:
        return Finding("gpu", "ok", "none that answers: engines run on the CPU, by ONNX Runtime")
    said = f"{gpu.name}, SM {gpu.sm}, CUDA {gpu.cuda_driver // 1000}.{gpu.cuda_driver % 1000 // 10}"
    for name in DISTRIBUTIONS:
        version = here.machine.installed(*DISTRIBUTIONS[name])
        if version:
            return Finding("gpu", "ok", f"{said}; {name} {version}")
    jetson = l4t_release(here.machine)
    todo = (
        "apt install python3-libnvinfer, and make the environment with --system-site-packages"
        if jetson
        else "pip install 'flightcache[tensorrt]', or leave it: engines then run on the CPU"
    )
    return Finding("gpu", "warn", f"{said}; no TensorRT", todo)


def _memory(here: Surroundings) -> Finding:
    try:
        text = (here.machine.proc / "meminfo").read_text(encoding="utf-8")
        kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return Finding("memory", "ok", "this kernel does not say")
    said = f"{kib / (1 << 20):.1f} GiB available"
    if kib << 10 < LEAST_MEMORY_BYTES:
        return Finding("memory", "warn", said, "end other programs before a build, or set descriptors.threads = 1")
    return Finding("memory", "ok", said)


def _folder(here: Surroundings) -> Iterator[Finding]:
    """Look at the folder of the caches: kind of file system, free space, cost of an fsync."""
    try:
        require_local_filesystem(here.folder)
        kind = filesystem_type(
            Path(os.path.realpath(here.folder)),
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"),
        )
    except FilesystemError as error:
        yield Finding("file system", "bad", error.what, error.next_step or "use a local disk")
        return
    except OSError:
        kind = "unknown"
    yield Finding("file system", "ok", f"{kind or 'unknown'} at {here.folder}")
    yield _space(here.folder)
    yield _fsync(here)


def _space(folder: Path) -> Finding:
    try:
        free = free_bytes(folder)
    except OSError as error:
        return Finding("free space", "bad", f"{folder}: {error.strerror}", "check the path and the medium")
    said = f"{free / 1e9:.1f} GB"
    if free < LEAST_FREE_BYTES:
        return Finding(
            "free space", "warn", said, "free some: a build keeps descriptors, indexes and several sets of files"
        )
    return Finding("free space", "ok", said)


def _fsync(here: Surroundings) -> Finding:
    """Measure what it costs to be sure that a small file is on the medium: the median of a few."""
    path = here.folder / f".flightcache-self-{os.getpid()}"
    try:
        cost_ms = statistics.median(_seconds(here, path) * 1000 for _ in range(FSYNC_TRIES))
    except OSError as error:
        todo = "choose a folder that you may write: flightcache doctor --self FOLDER"
        return Finding("fsync", "bad", f"nothing can be written in {here.folder}: {error.strerror}", todo)
    said = f"{cost_ms:.1f} ms for a small file"
    if cost_ms > SLOW_FSYNC_MS:
        return Finding(
            "fsync", "warn", f"{said}: publishing will be slow", "put caches on an SSD, not on a card or a stick"
        )
    return Finding("fsync", "ok", said)


def _seconds(here: Surroundings, path: Path) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"\0" * 4096)
        begun = time.perf_counter()
        here.fsync(descriptor)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)
        os.unlink(path)


def _clock(here: Surroundings) -> Finding:
    """Compare the clock with the time at which this program was put here: a dead battery shows a year long past."""
    now_s, least_s = here.now_s(), os.stat(__file__).st_mtime
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < least_s:
        todo = "set it: timedatectl set-time, or wait for the network; ages of imagery and caches depend on it"
        return Finding("clock", "bad", f"{said} is before this program was installed", todo)
    return Finding("clock", "ok", said)
