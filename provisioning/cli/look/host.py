"""`flightcache host`: what this computer is to an engine."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from provisioning.base.errors import EngineError
from provisioning.config import Engine
from provisioning.config.parse import read_flight
from provisioning.engines import THIS_MACHINE, HostTuple, Machine, select
from provisioning.engines.host import driver_version, instruction_class, jetpack, l4t_release
from provisioning.engines.stored import stored_engines
from provisioning.engines.tensorrt.trt import DISTRIBUTIONS

BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("directory", nargs="?", type=Path, help="cache directory: its flight.toml chooses the backend")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = "example: flightcache host mycache"


def run(args: argparse.Namespace) -> int:
    """Print the host tuple, what it was read from, which backends there are, and the engines kept for other hosts."""
    engine = read_flight(args.directory).engine if args.directory else Engine()
    told = describe(engine, args.directory)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    for title, rows in told.items():
        print(f"{title}:")
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            print(f"  {name:<{width}}  {value}")
    return 0


def describe(engine: Engine, directory: Path | None, machine: Machine = THIS_MACHINE) -> dict[str, dict[str, str]]:
    """Return titled rows about `machine`; EngineError where the backend that `engine` asks for cannot be used."""
    host = select(engine, machine).probe()
    told = {
        "engines are built for": dict(host._asdict()),
        "this computer": _computer(machine),
        "backends": _backends(machine),
    }
    if directory is not None:
        told["engines in .build"] = _stored(directory, host)
    return told


def _computer(machine: Machine) -> dict[str, str]:
    gpu, release = machine.gpu(), l4t_release(machine)
    rows = {
        "machine": machine.machine,
        "instruction sets": instruction_class(machine),
        "GPU": f"{gpu.name}, SM {gpu.sm}" if gpu else "none that answers",
        "NVIDIA driver": driver_version(machine) or "-",
        "CUDA of the driver": f"{gpu.cuda_driver // 1000}.{gpu.cuda_driver % 1000 // 10}" if gpu else "-",
        "Linux for Tegra": release or "-",
        "JetPack": (jetpack(release) or "unknown to this table") if release else "-",
    }
    return {name: value for name, value in rows.items() if value != "-"}


def _backends(machine: Machine) -> dict[str, str]:
    return {name: _runtime(name, machine) for name in BACKENDS}


def _runtime(backend: str, machine: Machine) -> str:
    """Return the backend's version, or why it cannot be used."""
    engine = replace(Engine(), backend=backend)  # type: ignore[arg-type]
    try:
        return select(engine, machine).probe().runtime
    except EngineError as error:
        if backend == "tensorrt_rtx" and (version := machine.installed(*DISTRIBUTIONS[backend])):
            return f"{version}, for other computers only: engine.host"
        return f"no: {error.what}"


def _stored(directory: Path, host: HostTuple) -> dict[str, str]:
    found = stored_engines(directory / ".build" / "store")
    return {
        engine.path.name: f"{engine.bytes} bytes, "
        + ("this host" if engine.is_for(host) else "another host: kept, not published")
        for engine in found
    }
