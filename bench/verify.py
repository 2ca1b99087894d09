"""What verifying a cache costs, beside tools that hash the same files, in one run.

    python bench/verify.py --gb 4 --scratch /var/tmp/verify --model-signing VENV/bin/model_signing

Makes a signed cache of random bytes (four large files, which hold nine tenths, and 400 small ones), then takes turns:
`flightcache verify`, openssl's SHA-256 on one core and on all (its files dealt out by size, so that the cores end
together), and OpenSSF `model_signing verify` on the same directory. Every measurement is a fresh process with a warm
page cache; seconds are the best of the rounds; RSS is the sum over the tool's processes of their peaks.
`--results FILE` replaces that file's section. On a busy machine compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, ratio, replace_section, say_goal  # noqa: E402
from provisioning.flight.manifest import to_bytes, with_hash  # noqa: E402
from tests.caches import ENGINE, KEY, manifest_of, publish  # noqa: E402

LARGE = {ENGINE: 0.15, "corpus.index": 0.30, "tiles.pmtiles": 0.30, "other/satellite.bin": 0.15}
SMALL = 400


def make_cache(root: Path, total_bytes: int) -> Path:
    """Write the cache, a block at a time; return its generation."""
    small = int(total_bytes * 0.1 / SMALL)
    sizes = {path: int(total_bytes * share) for path, share in LARGE.items()}
    sizes |= {f"other/{number:03}.bin": small for number in range(SMALL)}
    cache = publish(root, files=dict.fromkeys(sizes, b""))
    found = {}
    for path, size in sizes.items():
        found[path] = {"bytes": size, "sha256": write_random(cache.generation / path, size)}
        cache.write(path + ".sha256", f"{found[path]['sha256']}\n".encode())
    m = manifest_of(dict.fromkeys(sizes, b""))
    m = m._replace(
        engines=tuple(entry._replace(**found[entry.path]) for entry in m.engines),
        descriptor_index=m.descriptor_index._replace(**found["corpus.index"]),
        other=tuple(entry._replace(**found[entry.path]) for entry in m.other),
    )
    cache.sign(to_bytes(with_hash(m)))
    return cache.generation


def write_random(path: Path, size: int) -> str:
    """Write `size` random bytes; return their SHA-256."""
    digest, left = hashlib.sha256(), size
    with open(path, "wb") as file:
        while left:
            block = os.urandom(min(left, 1 << 24))
            digest.update(block)
            file.write(block)
            left -= len(block)
    return digest.hexdigest()


class Tool:
    """A command, or several that run at once, and the best that was seen of it."""

    def __init__(self, name: str, *commands: list[str]) -> None:
        self.name, self.commands = name, commands
        self.rounds_s: list[float] = []
        self.cpu_s, self.peak_mib = float("inf"), 0.0

    @property
    def best_s(self) -> float:
        return min(self.rounds_s)

    def measure(self) -> None:
        start, before = time.perf_counter(), os.times()
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) for command in self.commands]
        peaks = [0.0] * len(running)
        left = set(range(len(running)))
        while left:
            for number in list(left):
                peaks[number] = max(peaks[number], peak_mib(running[number].pid))
                if running[number].poll() is not None:
                    left.discard(number)
            time.sleep(0.005)
        seconds, after = time.perf_counter() - start, os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        self.cpu_s = min(self.cpu_s, cpu_s)
        if any(process.returncode for process in running):
            raise SystemExit(f"{self.name} failed")
        self.rounds_s.append(seconds)
        if seconds == self.best_s:
            self.peak_mib = sum(peaks)


def peak_mib(pid: int) -> float:
    """The peak RSS of a running process; not getrusage, whose peak includes the process that started it."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), 0.0)
    except OSError:
        return 0.0


def dealt(files: list[Path], hands: int) -> list[list[str]]:
    """Deal the files out, the largest first, always to the hand that holds least."""
    held: list[tuple[int, list[str]]] = [(0, []) for _ in range(hands)]
    for file in sorted(files, key=lambda path: -path.stat().st_size):
        held.sort(key=lambda hand: hand[0])
        size, names = held[0]
        held[0] = (size + file.stat().st_size, [*names, str(file)])
    return [names for _, names in held if names]


def model_signing(program: str, generation: Path, scratch: Path) -> Tool:
    """Sign the same directory with model_signing (P-256, the only kind it has) and return its verification."""
    key, half, signature = (str(scratch / name) for name in ("ms.pem", "ms.pub.pem", "ms.sig"))
    subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key], check=True)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", half], check=True, capture_output=True)
    sign = [program, "sign", "key", "--private_key", key, "--signature", signature, str(generation)]
    subprocess.run(sign, check=True, capture_output=True)
    verify = [program, "verify", "key", "--public_key", half, "--signature", signature, str(generation)]
    return Tool("model_signing verify", verify)


def tools(generation: Path, scratch: Path, args: argparse.Namespace) -> list[Tool]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = scratch / "operator.pub.pem"
    pem.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    files = [path for path in generation.rglob("*") if path.is_file()]
    hash_them = ["openssl", "dgst", "-sha256"]
    cores = len(os.sched_getaffinity(0))
    verify = [
        sys.executable,
        "-m",
        "provisioning.cli",
        "verify",
        str(generation.parent.parent),
        "--public-key",
        str(pem),
        "--ground",
    ]
    found = [
        Tool("flightcache verify", verify),
        Tool("openssl dgst -sha256, 1 core", [*hash_them, *map(str, files)]),
        Tool(f"openssl dgst -sha256, {cores} cores", *([*hash_them, *hand] for hand in dealt(files, cores))),
    ]
    return [*found, model_signing(args.model_signing, generation, scratch)] if args.model_signing else found


def table(measured: list[Tool], total_bytes: int, rounds: int) -> str:
    """Return the results as Markdown, with the ratios that matter."""
    ours, openssl = measured[0], measured[2]
    how = f"best of {rounds} rounds taken in turns, warm page cache"
    lines = [
        f"{total_bytes / 1e9:.1f} GB in {len(LARGE) + SMALL} files, {how}.",
        "",
        machine(),
        "",
        "| tool | s | GB/s | CPU, s | peak RSS, MiB |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {t.name} | {t.best_s:.2f} | {total_bytes / t.best_s / 1e9:.2f} | {t.cpu_s:.2f} | {t.peak_mib:.0f} |"
            for t in measured
        ),
        "",
        f"flightcache verify takes {ratio(ours.rounds_s, openssl.rounds_s)} times as long as openssl on all cores"
        + (f" and {ratio(ours.rounds_s, measured[3].rounds_s)} times as long as model_signing" if measured[3:] else "")
        + ": median and range of the rounds.",
        *([] if measured[3:] else ["model_signing was not measured: give --model-signing."]),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, required=True, help="directory for the cache; made and removed")
    parser.add_argument(
        "--model-signing", metavar="PROGRAM", help="model_signing (pip install model-signing pyopenssl)"
    )
    parser.add_argument("--results", type=Path, help="Markdown file whose section is replaced")
    args = parser.parse_args()
    args.scratch.mkdir(parents=True)
    try:
        total_bytes = int(args.gb * 1e9)
        measured = tools(make_cache(args.scratch / "cache", total_bytes), args.scratch, args)
        for _ in range(args.rounds):
            for tool in measured:
                tool.measure()
        text = table(measured, total_bytes, args.rounds)
    finally:
        shutil.rmtree(args.scratch)
    print(text)
    ours, openssl = measured[0].rounds_s, measured[2].rounds_s
    against = median(mine / peer for mine, peer in zip(ours, openssl, strict=True))
    say_goal(f"verifying {args.gb:g} GB, against openssl's SHA-256 on all cores", against, most=1.15)
    if args.results:
        replace_section(args.results, "Verifying a cache", f"`python bench/verify.py`\n\n{text}")


if __name__ == "__main__":
    main()
