"""What the last build was made of and how long each task took: what `plan` compares with. Losing it loses only that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from provisioning.base.files import write_durably
from provisioning.base.hashing import Fact, plain
from provisioning.build.request import Request

FILE = "history.json"

Facts = Mapping[str, object]


@dataclass(frozen=True)
class History:
    """Facts and seconds by task; `seconds["descriptors"]` is that of one descriptor."""

    facts: Mapping[str, Facts] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def facts_of(request: Request) -> dict[str, Mapping[str, Fact]]:
    """Return the facts behind each task of `request`."""
    made = {f"onnx:{network.name}": network.typed for network in request.networks}
    made |= {f"engine:{network.name}": network.engine for network in request.networks}
    made |= {"corpus": request.index, "gates": request.gates, "report": request.report}
    return {task: target.facts for task, target in made.items()}


def read_history(build_dir: Path) -> History:
    """Return what is remembered; nothing where that cannot be read."""
    try:
        raw = json.loads((build_dir / FILE).read_bytes())
        return History(dict(raw["facts"]), {task: float(s) for task, s in raw["seconds"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return History()


def remember(request: Request, seconds: Mapping[str, float]) -> None:
    """Remember a finished build; the caller holds the build lock. Raises FilesystemError."""
    build_dir = request.flight.build_dir
    known = {**read_history(build_dir).seconds, **seconds}
    document = {"facts": {task: plain(facts) for task, facts in facts_of(request).items()}, "seconds": known}
    write_durably(build_dir / FILE, (json.dumps(document, sort_keys=True, indent=1) + "\n").encode())


def differences(before: Facts, after: Facts, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield (dotted name, before, after) of every fact that differs; None where there is none."""
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from differences(was, now, f"{prefix}{name}.")
        elif was != now:
            yield f"{prefix}{name}", was, now
