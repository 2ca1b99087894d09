"""What the last build was made of and how long each task took: what `plan` compares with. Losing it loses only that."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from provisioning.base.disk.files import read_regular, write_durably
from provisioning.base.frozen import dataclass

FILE = "history.json"
LIMIT_BYTES = 64 << 20

Facts = Mapping[str, object]


@dataclass(frozen=True)
class History:
    """Facts and seconds by task, and the seconds of the time before; for `descriptors` those of one descriptor."""

    facts: Mapping[str, Facts] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    seconds_before: Mapping[str, float] = field(default_factory=dict)


def read_history(build_dir: Path) -> History:
    """Return what is remembered; nothing where that cannot be read."""
    try:
        raw = json.loads(read_regular(build_dir / FILE, limit=LIMIT_BYTES))
        return History(dict(raw["facts"]), _durations(raw["seconds"]), _durations(raw.get("seconds_before", {})))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return History()


def _durations(raw: Mapping[str, float]) -> dict[str, float]:
    seconds = {str(task): float(s) for task, s in raw.items()}
    return {task: s for task, s in seconds.items() if 0 <= s < math.inf}


def remember(build_dir: Path, facts: Mapping[str, Facts], seconds: Mapping[str, float]) -> None:
    """Remember a finished build; the caller holds the build lock. Raises FilesystemError.

    facts: those of every task that there is. Times of other tasks, of a model that was taken away, are forgotten.
    """
    last = read_history(build_dir)
    replaced = {task: s for task, s in last.seconds.items() if task in seconds}
    document = {
        "facts": facts,
        "seconds": _of(facts, {**last.seconds, **seconds}),
        "seconds_before": _of(facts, {**last.seconds_before, **replaced}),
    }
    write_durably(build_dir / FILE, (json.dumps(document, sort_keys=True, indent=1) + "\n").encode())


def _of(facts: Mapping[str, Facts], seconds: Mapping[str, float]) -> Mapping[str, float]:
    return {task: s for task, s in seconds.items() if task in facts}


def differences(before: Facts, after: Facts, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield (dotted name, before, after) of every fact that differs; None where there is none."""
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if isinstance(now, Mapping) and (was is None or isinstance(was, Mapping)):
            yield from differences(was or {}, now, f"{prefix}{name}.")
        elif was != now:
            yield f"{prefix}{name}", was, now


def short(value: object) -> str | None:
    """Return a value for reading: a digest as its first digits, a long list by its length."""
    if value is None:
        return None
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > 4 else ", ".join(str(short(item)) for item in value)
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 and text.isalnum() else text
