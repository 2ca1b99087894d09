"""Which computer an engine is for: accelerator, runtime, operating system release. Nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning.base.distributions import installed_version
from provisioning.base.errors import EngineError
from provisioning.base.frozen import dataclass
from provisioning.base.named import NamedTuple

if TYPE_CHECKING:
    from provisioning.engines.tensorrt.cuda import Gpu


class HostTuple(NamedTuple):
    """What an engine is compiled for. Two hosts with the same tuple can exchange engines.

    Every field is printable ASCII without spaces, so that it can stand in a Manifest's preimage.
    """

    backend: str
    """onnxruntime, tensorrt or tensorrt_rtx."""
    runtime: str
    """Full version of the backend, e.g. 10.3.0.30."""
    arch: str
    """`sm87` for a GPU, the machine (`x86_64`, `aarch64`) for a CPU."""
    device: str
    """GPU name, or the class of instruction sets that decides which CPU kernels run."""
    platform: str
    """`l4t36.4.3` on a Jetson, `linux-<driver>` beside a discrete GPU, `linux` on a CPU host."""


def _dpkg_version(package: str) -> str | None:
    """Return the installed version of a Debian package, or None."""
    program = shutil.which("dpkg-query")
    if program is None:
        return None
    found = subprocess.run(
        [program, "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False, timeout=10
    )
    return found.stdout.strip() or None if found.returncode == 0 else None


def _gpu() -> Gpu | None:
    from provisioning.engines.tensorrt.cuda import query_gpu

    return query_gpu()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a probe may look at. Tests put another computer's files and answers in its place."""

    etc: Path = Path("/etc")
    proc: Path = Path("/proc")
    machine: str = os.uname().machine
    gpu: Callable[[], Gpu | None] = _gpu
    dpkg: Callable[[str], str | None] = _dpkg_version
    installed: Callable[..., str | None] = installed_version


THIS_MACHINE = Machine()


def l4t_release(machine: Machine = THIS_MACHINE) -> str | None:
    """Return the raw Linux for Tegra release (`36.4.3`), or None where this is no Jetson.

    `/etc/nv_tegra_release` first (`# R36 (release), REVISION: 4.3, …`), else the package nvidia-l4t-core.
    """
    release = _first_line(machine.etc / "nv_tegra_release")
    if release and (found := re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release)):
        return f"{found[1]}.{found[2]}"
    if not machine.machine.startswith("aarch64"):
        return None
    if found := re.match(r"\d+(?:\.\d+)+", machine.dpkg("nvidia-l4t-core") or ""):
        return found[0]
    return None


JETPACK = {
    "35.1": "5.0.2", "35.2": "5.1", "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3", "35.6": "5.1.4/5.1.5",
    "36.2": "6.0 DP", "36.3": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4": "6.1/6.2", "36.5": "6.2.2",
    "38.2": "7.0", "38.4": "7.1", "39.2": "7.2",
}  # fmt: skip
"""L4T release to JetPack. For display only: such tables go stale, so nothing is keyed on it."""


def jetpack(release: str) -> str | None:
    """Return the JetPack a person would call this L4T release by, or None if the table does not know it."""
    return JETPACK.get(release) or JETPACK.get(".".join(release.split(".")[:2]))


def driver_version(machine: Machine = THIS_MACHINE) -> str | None:
    """Return the NVIDIA kernel driver's version (`580.95.05`), or None."""
    text = _first_line(machine.proc / "driver/nvidia/version")
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(4096)
    except OSError as error:
        _require_absent(error, path)
        return ""


def _require_absent(error: OSError, path: Path) -> None:
    """Raise EngineError unless a file is not there at all.

    A moment without descriptors or memory must not make this another computer: engines are named and signed for it.
    """
    if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        raise EngineError(
            f"this computer cannot say what it is: {error.strerror}", file=path, next_step="run again; see `ulimit -n`"
        ) from error


def gpu_platform(gpu: Gpu, machine: Machine = THIS_MACHINE) -> str:
    """Return the platform field of a host with a GPU."""
    if release := l4t_release(machine):
        return f"l4t{release}"
    major, minor = gpu.cuda_driver // 1000, gpu.cuda_driver % 1000 // 10
    return f"linux-{driver_version(machine) or f'cuda{major}.{minor}'}"


def hardware(machine: Machine = THIS_MACHINE) -> dict[str, str]:
    """Return arch, device and platform of this computer: of its GPU if one answers, else of its CPU."""
    gpu = machine.gpu()
    if gpu is not None:
        return {"arch": f"sm{gpu.sm}", "device": field(gpu.name), "platform": field(gpu_platform(gpu, machine))}
    return cpu(machine)


def cpu(machine: Machine = THIS_MACHINE) -> dict[str, str]:
    """Return arch, device and platform of the CPU."""
    # A machine name keeps its own underscore (x86_64); it is the only field that may.
    arch = "x86_64" if machine.machine == "x86_64" else field(machine.machine)
    return {"arch": arch, "device": field(instruction_class(machine)), "platform": "linux"}


_X86_CLASSES = (
    ("amx", {"amx_int8", "avx512_vnni"}),
    ("avx512-vnni", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}),
    ("avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("avx2-vnni", {"avx2", "fma", "avx_vnni"}),
    ("avx2", {"avx2", "fma"}),
    ("avx", {"avx"}),
    ("sse4.1", {"sse4_1"}),
)
"""Classes of x86 CPUs between which ONNX Runtime's kernels (MLAS) choose, best first."""

_ARM_FEATURES = (("dotprod", "asimddp"), ("i8mm", "i8mm"), ("bf16", "bf16"), ("sve", "sve"), ("sme", "sme"))


def instruction_class(machine: Machine = THIS_MACHINE) -> str:
    """Return the class of instruction sets that decides which kernels run on this CPU."""
    flags = _cpu_flags(machine.proc / "cpuinfo")
    if machine.machine == "aarch64":
        return "+".join(["neon", *(name for name, flag in _ARM_FEATURES if flag in flags)])
    return next((name for name, needed in _X86_CLASSES if needed <= flags), "generic")


def _cpu_flags(cpuinfo: Path) -> set[str]:
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return set(value.split())
    except OSError as error:
        _require_absent(error, cpuinfo)
    return set()


def field(text: str) -> str:
    """Return `text` as one field of a host tuple: printable ASCII, spaces and underscores as dashes."""
    text = text.strip()
    if not text or (text.isascii() and text.isprintable() and " " not in text and "_" not in text):
        return text or "unknown"
    return re.sub(r"[^\x21-\x5e\x60-\x7e]+", "-", text)
