"""Computers that are not here: the text of their /proc/cpuinfo, their machine name and their number of cores.

`python -m tests.hosts [words of pytest]` runs tests (by default the golden ones) once for each of them, with that text
mounted over /proc/cpuinfo, so that the processes which a test starts see it too. It needs `unshare` of util-linux, and
user namespaces or root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.engines import THIS_MACHINE

_SSE = "fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt"
_AVX2 = f"{_SSE} avx f16c fma avx2 bmi2"
_AVX512 = f"{_AVX2} avx512f avx512bw avx512dq avx512vl avx512cd"
_NEON = "fp asimd evtstrm aes crc32 atomics fphp asimdhp"


class Host(NamedTuple):
    """A computer as a build sees it."""

    model: str
    flags: str
    cores: int
    machine: str = "x86_64"

    @property
    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo."""
        x86 = self.machine == "x86_64"
        names = ("model name", "flags") if x86 else ("CPU part", "Features")
        return "".join(
            f"processor\t: {core}\n{names[0]}\t: {self.model}\n{names[1]}\t\t: {self.flags}\n\n"
            for core in range(self.cores)
        )


HOSTS = {
    "generic": Host("virtual machine without vector extensions", "fpu sse sse2", 1),
    "sse4.1": Host("Intel Atom", _SSE, 2),
    "avx": Host("Intel Core i7-3770", f"{_SSE} avx", 4),
    "avx2": Host("AMD EPYC 7763 (Zen 3)", _AVX2, 64),
    "avx2-vnni": Host("Intel Core i7-12700", f"{_AVX2} avx_vnni", 20),
    "avx512": Host("Intel Xeon Gold 6154", _AVX512, 36),
    "avx512-vnni": Host("Intel Xeon Platinum 8280", f"{_AVX512} avx512_vnni", 56),
    "zen4": Host("AMD EPYC 9354 (Zen 4)", f"{_AVX512} avx512_bf16 avx512_vnni avx512_vpopcntdq", 32),
    "zen5": Host("AMD EPYC 9575F (Zen 5)", f"{_AVX512} avx_vnni avx512_bf16 avx512_vnni avx512_vp2intersect", 2),
    "amx": Host("Intel Xeon 8481C", f"{_AVX512} avx_vnni avx512_vnni amx_bf16 amx_tile amx_int8", 8),
    "neon": Host("0xd08", _NEON, 4, "aarch64"),
    "neon-orin": Host("0xd42", f"{_NEON} asimddp", 8, "aarch64"),
    "neon-sve": Host("0xd4f", f"{_NEON} asimddp i8mm bf16 sve sve2", 64, "aarch64"),
    "neon-sme": Host("0xd8a", f"{_NEON} asimddp i8mm bf16 sve sme", 10, "aarch64"),
}
LOOKING = (
    "golden",
    "golden_forms",
    "host",
    "engines",
    "fleet",
    "vehicle_package",
    "trust_delivery",
    "self_test",
    "doctor",
)
"""The tests that look at the processor, or take some name for another one's."""


def pretend(host: Host, proc: Path, patch: pytest.MonkeyPatch) -> None:
    """Make this process believe that it runs on `host`; `proc` is a new folder that stands for /proc."""
    proc.mkdir()
    (proc / "cpuinfo").write_text(host.cpuinfo)
    for name, value in {"proc": proc, "machine": host.machine}.items():
        patch.setitem(vars(THIS_MACHINE), name, value)  # it is frozen, and already bound as a default everywhere
    patch.setattr(os, "cpu_count", lambda: host.cores)
    patch.setattr(os, "sched_getaffinity", lambda _pid: set(range(host.cores)))


def main(words: list[str]) -> int:
    """Run the tests on every host of this processor's kind; return 1 if they failed on one."""
    failed = [
        name for name, host in HOSTS.items() if host.machine == THIS_MACHINE.machine and not _passes(name, host, words)
    ]
    print(f"failed on: {', '.join(failed)}" if failed else "passed on all")
    return int(bool(failed))


def _passes(name: str, host: Host, words: list[str]) -> bool:
    print(f"{name}: {host.model}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cpuinfo = Path(folder, "cpuinfo")
        cpuinfo.write_text(host.cpuinfo)
        script = 'mount --bind "$1" /proc/cpuinfo && shift && exec "$@"'
        pytest_words = [sys.executable, "-m", "pytest", *(words or [f"tests/test_{name}.py" for name in LOOKING])]
        namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        done = subprocess.run([*namespace, "sh", "-c", script, "sh", str(cpuinfo), *pytest_words], check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
