"""What commands cost that find nothing to do, beside what they are made of: bare doit, bare Python.

    python bench/commands.py --scratch /var/tmp/commands

A cache of ten tiles beside a directory with ten tasks of doit's own, each with a file that it needs and one that it
makes. Every run is a fresh process as a user starts it, with compiled modules at hand; subject and peer take turns, and
what counts is processor time, user and system, of the process and its children: the median of the ratios of the rounds.
Nothing outside --scratch is written, unless --results names a file whose section `Commands` is then replaced.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, ratio, replace_section, say_goal  # noqa: E402

TEN_TASKS = """\
def task_copy():
    for n in range(10):
        yield {"name": str(n), "actions": [f"cp in{n} out{n}"], "file_dep": [f"in{n}"], "targets": [f"out{n}"]}
"""
PYTHON, BARE = "python -c pass", "doit, ten tasks of its own"


class Goal(NamedTuple):
    """What a command may take: so many times its peer, or so many seconds."""

    peer: str = ""
    times: float = 0.0
    seconds: float = 0.0


GOALS = {
    "doit, nothing to do": Goal(BARE, 1.5),
    "flightcache verify": Goal(PYTHON, 2.0),
    "flightcache status": Goal(seconds=0.2),
    "flightcache plan": Goal(seconds=0.2),
}


def processor_s(command: Sequence[str], cwd: Path) -> float:
    """Return the processor seconds of a fresh process and its children."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} in {cwd} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def ten_tasks(folder: Path) -> Path:
    """Return a directory whose dodo.py has ten tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dodo.py").write_text(TEN_TASKS)
    for n in range(10):
        (folder / f"in{n}").write_text(f"{n}\n")
    return folder


def commands(scratch: Path) -> dict[str, tuple[list[str], Path]]:
    """Return each command with the directory where it runs; what it needs is built."""
    from bench.whole import ten_tiles

    cache, bare = ten_tiles(scratch), ten_tasks(scratch / "bare")
    scripts = Path(sys.executable).parent
    doit, flightcache = str(scripts / "doit"), str(scripts / "flightcache")
    key = str(scratch / "key.pub.pem")
    return {
        PYTHON: ([sys.executable, "-c", "pass"], bare),
        BARE: ([doit], bare),
        "doit, nothing to do": ([doit], cache),
        "flightcache verify": ([flightcache, "verify", ".", "--public-key", key, "--ground"], cache),
        "flightcache status": ([flightcache, "status"], cache),
        "flightcache plan": ([flightcache, "plan"], cache),
    }


def measure(scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Return the processor seconds of each command in each round; a round before them is not counted."""
    asked = commands(scratch)
    turns = [{name: processor_s(*each) for name, each in asked.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in asked}


def table(taken: Mapping[str, Sequence[float]]) -> str:
    """Return the rows as a Markdown table, each goal with its verdict."""
    lines = ["| command | processor ms, median | least | against | goal | |", "|---|---:|---:|---|---|---|"]
    for name, seconds in taken.items():
        goal = GOALS.get(name, Goal())
        against, asked, verdict = _held(seconds, goal, taken)
        ms = f"{median(seconds) * 1000:.0f} | {min(seconds) * 1000:.0f}"
        lines.append(f"| {name} | {ms} | {against} | {asked} | {verdict} |")
    return "\n".join(lines)


def _held(seconds: Sequence[float], goal: Goal, taken: Mapping[str, Sequence[float]]) -> tuple[str, str, str]:
    """Return what a command took against its goal, the goal, and whether it is met."""
    if goal.times:
        peer = taken[goal.peer]
        is_met = median(mine / other for mine, other in zip(seconds, peer, strict=True)) <= goal.times
        return f"{ratio(seconds, peer)} × {goal.peer}", f"≤ {goal.times:g} ×", "met" if is_met else "missed"
    if goal.seconds:
        return "", f"≤ {goal.seconds:g} s", "met" if median(seconds) <= goal.seconds else "missed"
    return "", "", ""


def say_goals(taken: Mapping[str, Sequence[float]]) -> None:
    """Print each goal beside its figure."""
    for name, asked in GOALS.items():
        if asked.times:
            against = median(mine / peer for mine, peer in zip(taken[name], taken[asked.peer], strict=True))
            say_goal(f"{name}, against `{asked.peer}`, processor time", against, most=asked.times)
        else:
            say_goal(f"{name}, processor time", median(taken[name]), most=asked.seconds, unit="s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    taken = measure(args.scratch, args.rounds)
    text = table(taken)
    print(text)
    say_goals(taken)
    if args.results:
        head = f"`python bench/commands.py`\n\n{machine()}, {args.rounds} rounds"
        replace_section(args.results, "Commands", f"{head}\n\n{text}")


if __name__ == "__main__":
    main()
