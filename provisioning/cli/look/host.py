"""`flightcache host`: what this computer is to an engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from provisioning.base.errors import EngineError
from provisioning.base.words import columns
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
    found = describe(engine, args.directory)
    print(json.dumps(found, indent=2) if args.json else as_text(found))
    return 0


def describe(engine: Engine, directory: Path | None, machine: Machine = THIS_MACHINE) -> dict[str, Any]:
    """Return what is known of `machine`, as the JSON of docs/reference/json.md; keys are stable, null is unknown.

    Raises EngineError where the backend that `engine` asks for cannot be used.
    """
    host = select(engine, machine).probe()
    return {
        "engine_host": host._asdict(),
        "computer": _computer(machine),
        "backends": {name: _backend(name, machine) for name in BACKENDS},
        "engines": None if directory is None else _stored(directory, host),
    }


def _computer(machine: Machine) -> dict[str, Any]:
    gpu, release = machine.gpu(), l4t_release(machine)
    return {
        "machine": machine.machine,
        "instruction_set": instruction_class(machine),
        "gpu": {"name": gpu.name, "sm": gpu.sm} if gpu else None,
        "nvidia_driver": driver_version(machine) or None,
        "cuda_driver": f"{gpu.cuda_driver // 1000}.{gpu.cuda_driver % 1000 // 10}" if gpu else None,
        "l4t_release": release or None,
        "jetpack": (jetpack(release) or None) if release else None,
    }


def _backend(backend: str, machine: Machine) -> dict[str, Any]:
    """Return the backend's version, and whether it compiles here, for other computers only, or why not at all."""
    engine = replace(Engine(), backend=backend)  # type: ignore[arg-type]
    try:
        return {"usable": "here", "version": select(engine, machine).probe().runtime, "reason": None}
    except EngineError as error:
        if backend == "tensorrt_rtx" and (version := machine.installed(*DISTRIBUTIONS[backend])):
            return {"usable": "for other computers", "version": version, "reason": error.what}
        return {"usable": "no", "version": None, "reason": error.what}


def _stored(directory: Path, host: HostTuple) -> list[dict[str, Any]]:
    found = stored_engines(directory / ".build" / "store")
    return [{"name": e.path.name, "bytes": e.bytes, "for_this_host": e.is_for(host)} for e in found]


def as_text(found: Mapping[str, Any]) -> str:
    """Return the same for a person: titled rows."""
    tables = {
        "engines are built for": found["engine_host"],
        "this computer": _computer_rows(found["computer"]),
        "backends": {name: _backend_row(backend) for name, backend in found["backends"].items()},
    }
    if found["engines"] is not None:
        tables["engines in .build"] = {
            engine["name"]: f"{engine['bytes']} bytes, "
            + ("this host" if engine["for_this_host"] else "another host: kept, not published")
            for engine in found["engines"]
        }
    blocks = ("\n  ".join([f"{title}:", *columns(rows.items(), left=2)]) for title, rows in tables.items())
    return "\n".join(blocks)


def _computer_rows(computer: Mapping[str, Any]) -> dict[str, str]:
    gpu, release = computer["gpu"], computer["l4t_release"]
    rows = {
        "machine": computer["machine"],
        "instruction sets": computer["instruction_set"],
        "GPU": f"{gpu['name']}, SM {gpu['sm']}" if gpu else "none that answers",
        "NVIDIA driver": computer["nvidia_driver"],
        "CUDA of the driver": computer["cuda_driver"],
        "Linux for Tegra": release,
        "JetPack": (computer["jetpack"] or "unknown to this table") if release else None,
    }
    return {name: value for name, value in rows.items() if value}


def _backend_row(backend: Mapping[str, Any]) -> str:
    if backend["usable"] == "for other computers":
        return f"{backend['version']}, for other computers only: engine.host"
    return backend["version"] or f"no: {backend['reason']}"
