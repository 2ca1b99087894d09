"""One section of RESULTS.md for each benchmark, replaced when it runs again; and what it ran on."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

HEAD = """\
# Measured

Each section was made by the command in it, on the machine in it. Compare within a section only: the machines are noisy,
and every benchmark takes subject and peers in turns in one run.
"""


GOAL = "goal: "


def machine() -> str:
    """Return the processor, its cores, Python, the load and the date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{cpu}, {cores} cores, Python {platform.python_version()}, load {load:.1f}, {time.strftime('%Y-%m-%d')}"


def used_s() -> float:
    """Return the processor seconds of this process and of those under it that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def used_by_all_s() -> float:
    """Return the processor seconds of this process and of all under it, whether they have ended or still run."""
    return used_s() + sum(map(_used_by_s, _below(os.getpid())))


def _below(pid: int) -> Iterator[list[str]]:
    """Yield the fields of proc(5) from the state on, of each process under one."""
    found: dict[int, list[tuple[int, list[str]]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            found.setdefault(int(fields[1]), []).append((int(path.parent.name), fields))
    waiting = [pid]
    while waiting:
        for child, fields in found.get(waiting.pop(), ()):
            yield fields
            waiting.append(child)


def _used_by_s(fields: list[str]) -> float:
    """Return the processor seconds of one process and of those that it has waited for."""
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def ratio(subject: Sequence[float], peer: Sequence[float], digits: int = 2) -> str:
    """Return what subject took divided by what its peer took in the same round: median and range."""
    rounds = [mine / other for mine, other in zip(subject, peer, strict=True)]
    least, middle, most = (f"{each:.{digits}f}" for each in (min(rounds), median(rounds), max(rounds)))
    return middle if len(rounds) == 1 else f"{middle} [{least}–{most}]"


def say_goal(
    what: str, figure: float, *, most: float | None = None, least: float | None = None, unit: str = ""
) -> None:
    """Print a figure beside its goal, as `python -m bench` collects it: at most `most`, or at least `least`."""
    is_met = figure <= most if most is not None else least is None or figure >= least
    asked = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
    unit = f" {unit}" if unit else ""
    print(f"{GOAL}{what} | {figure:.2f}{unit} | {asked}{unit} | {'met' if is_met else 'missed'}", flush=True)


def print_section(title: str, head: str, lines: Iterable[str], path: Path | None) -> None:
    """Print each line as it comes; with a `path` replace its section `title` by `head` and the lines."""
    text = [head]
    for line in lines:
        print(line, flush=True)
        text.append(line)
    if path:
        replace_section(path, title, "\n".join(text))


def replace_section(path: Path, title: str, text: str) -> None:
    """Write `text` as the section `title` of the results at `path`, in place of the one that is there."""
    old = path.read_text() if path.exists() else HEAD
    section = f"## {title}\n\n{text.strip()}\n"
    found = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    added = old.rstrip("\n") + "\n\n" + section
    new = found.sub(lambda _: section + "\n", old) if found.search(old) else added
    path.write_text(new.rstrip("\n") + "\n")
