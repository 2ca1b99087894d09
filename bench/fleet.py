"""How much faster 2 and 4 dask workers describe than one, each with a share of a core and a network namespace.

    python bench/fleet.py --scratch /var/tmp/fleet     as root, about five minutes on two cores

Computers that this machine has not are made of its cores: each worker is a process in a control group (`cpu`, version
1) that gets `--share` of a core and no more, behind a virtual cable. *efficiency*: tiles per second of n workers,
divided by n times those of one, from the n-th answer to the last: starting does not count, waiting for the last worker
does. The builder reads tiles, checks some answers by computing them again, and stores. Nothing outside --scratch is
written, unless --results names a file whose section `Fleet` is then replaced. Namespaces and control groups are
removed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.pipeline import engine_of, flight_of, write_tiles  # noqa: E402
from bench.results import machine, print_section, say_goal  # noqa: E402
from provisioning.base.hashing import sha256_bytes  # noqa: E402
from provisioning.config import Flight  # noqa: E402
from provisioning.config.schema import Descriptors  # noqa: E402
from provisioning.descriptors.pipeline.results import Results  # noqa: E402
from provisioning.engines import OnnxRuntime  # noqa: E402
from tests.describing import describe  # noqa: E402

GROUPS = Path("/sys/fs/cgroup/cpu") / f"fleet-{os.getpid()}"
BRIDGE, HOST, PORT = "fleet0", "10.213.7.1", 18786
PERIOD_US, WEIGHT = 100_000, 1 << 15
WORKERS = (1, 2, 4)


def ip(*words: str, netns: str | None = None) -> None:
    subprocess.run(["ip", *(["-n", netns] if netns else []), *words], check=True)


@contextmanager
def groups(count: int) -> Iterator[list[Path]]:
    """Yield a control group for each worker; ours weighs as much as other work of the machine together."""
    GROUPS.mkdir()
    made = [GROUPS / f"worker-{n}" for n in range(count)]
    try:
        (GROUPS / "cpu.shares").write_text(str(WEIGHT))
        for each in (GROUPS / "builder", *made):
            each.mkdir()
        (GROUPS / "builder" / "cgroup.procs").write_text(str(os.getpid()))
        yield made
    finally:
        (GROUPS.parent / "cgroup.procs").write_text(str(os.getpid()))
        for each in (GROUPS / "builder", *made, GROUPS):
            for _ in range(50):
                with suppress(OSError):
                    each.rmdir()
                    break
                time.sleep(0.1)


@contextmanager
def bridge() -> Iterator[None]:
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield
    finally:
        ip("link", "delete", BRIDGE)


@contextmanager
def namespace(n: int) -> Iterator[str]:
    """Yield the name of a network namespace that reaches the bridge and nothing else."""
    name = f"fleet-{n}"
    ip("netns", "add", name)
    try:
        ip("link", "add", f"fleet0-{n}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"fleet0-{n}", "master", BRIDGE, "up")
        ip("address", "add", f"10.213.7.{10 + n}/24", "dev", "eth0", netns=name)
        for device in ("lo", "eth0"):
            ip("link", "set", device, "up", netns=name)
        yield name
    finally:
        ip("link", "delete", f"fleet0-{n}")  # with the namespace it would go later
        ip("netns", "delete", name)


@contextmanager
def running(*words: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_scheduler() -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection((HOST, PORT), 1):
            return
        time.sleep(0.2)
    raise SystemExit("the scheduler did not start")


def wait_for_workers(count: int) -> None:
    import distributed

    with distributed.Client(f"tcp://{HOST}:{PORT}", timeout="120s") as client:
        client.wait_for_workers(count, timeout=300)


def rate_of(flight: Flight, engine: bytes, count: int, share: float) -> float:
    """Return tiles per second of `count` workers, from when there are as many answers to the last one."""
    stored: list[tuple[float, int]] = []
    put = Results.put

    def noted(results: Results, units: object, vectors: object) -> None:
        put(results, units, vectors)  # type: ignore[arg-type]
        stored.append((time.perf_counter(), results.computed))

    python = [sys.executable, "-m"]
    with ExitStack() as stack:
        own = stack.enter_context(groups(count))
        stack.enter_context(bridge())
        scheduler = [*python, "distributed.cli.dask_scheduler", "--host", HOST, "--port", str(PORT), "--no-dashboard"]
        stack.enter_context(running(*scheduler, folder=flight.root))
        wait_for_scheduler()
        for n, group in enumerate(own):
            name = stack.enter_context(namespace(n))
            worker = [
                *python,
                "distributed.cli.dask_worker",
                f"tcp://{HOST}:{PORT}",
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
            ]
            process = stack.enter_context(running("ip", "netns", "exec", name, *worker, folder=flight.root))
            (group / "cgroup.procs").write_text(str(process.pid))
        wait_for_workers(count)
        for group in own:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        stack.enter_context(mock.patch.object(Results, "put", noted))
        describe(flight, engine=engine, backend=OnnxRuntime(), keys=[sha256_bytes(b"%d" % count)])
    (begin, first), (end, last) = stored[count - 1], stored[-1]
    return (last - first) / (end - begin)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the section of the results, measuring as it goes."""
    scratch = options.scratch
    write_tiles(scratch / "tiles", 0, options.tiles, 256)
    settings = Descriptors(executor="dask", scheduler=f"tcp://{HOST}:{PORT}", task_tiles=16)
    flight = replace(flight_of(scratch, 1), descriptors=settings)
    engine = engine_of(scratch, "resnet18")
    yield f"{options.tiles} tiles of 256 px, ResNet-18-sized, tasks of 16 tiles, {options.share} of a core a worker."
    yield ""
    yield "| workers | tiles/s | efficiency |"
    yield "|---:|---:|---:|"
    one = 0.0
    for count in WORKERS:
        rate = rate_of(flight, engine, count, options.share)
        one = one or rate
        yield f"| {count} | {rate:.2f} | {rate / one / count:.2f} |"
        if count > 1:
            say_goal(f"dask, {count} workers, ResNet-18-sized: efficiency", rate / one / count, least=0.85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    shutil.rmtree(options.scratch, ignore_errors=True)
    options.scratch.mkdir(parents=True)
    head = f"`python bench/fleet.py {' '.join(sys.argv[1:])}`, {machine()}\n"
    print_section("Fleet", head, lines(options), options.results)


if __name__ == "__main__":
    main()
