"""Every benchmark by one command: `python -m bench` runs all in a small form, `python -m bench NAME …` some.

Words after `--` go to the benchmark itself: `python -m bench noop -- --tiles 1000000`. Each is a script of its own in
this folder and measures subject and peers in one run, so that its ratios hold on a noisy machine; what it prints says
which peers were not installed. A figure that has a goal is printed beside it, and all are in one table at the end.

`--quick` writes that table to bench/RESULTS.md, within 20 minutes on two cores; `--results bench/RESULTS.md` replaces
the section of each benchmark in that file, which otherwise has those of longer runs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.results import GOAL, machine, replace_section

HERE = Path(__file__).parent
HEADINGS = ("| benchmark | what | measured | goal | |", "|---|---|---:|---:|---|")
PEERS = ("find", "git", "ninja", "make", "dvc", "openssl", "model_signing", "rsync", "zstd")
SMALL = {
    "commands": ["--rounds", "9"],
    "noop": ["--tiles", "10000", "--runs", "3"],
    "whole": ["--tiles", "10000", "--rounds", "5"],
    "scanning": ["--tiles", "48000"],
    "build": [],
    "incremental": ["--tiles", "100000", "--new", "100", "400", "--rounds", "2"],
    "pipeline": ["--tiles", "2000", "--rounds", "3", "--rss", "5000"],
    "index": ["--vectors", "10000"],
    "verify": ["--gb", "0.5", "--rounds", "3"],
    "sync": ["--tiles", "576"],
    "delta": ["--vectors", "20000", "--tiles", "500"],
}
"""The benchmarks and the arguments of their small form; all together take some minutes."""


def main() -> int:
    """Run the benchmarks named; return 1 if one failed."""
    words, own = sys.argv[1:], []
    if "--" in words:
        at = words.index("--")
        words, own = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SMALL)}; none: all")
    parser.add_argument("--quick", action="store_true", help="write the goals of all to bench/RESULTS.md")
    parser.add_argument("--results", type=Path, help="Markdown file whose sections are replaced")
    args = parser.parse_args(words)
    if unknown := set(args.names) - SMALL.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SMALL)}")
    if args.quick and (args.names or own or args.results):
        parser.error("--quick runs all benchmarks in their small form, and writes one section of bench/RESULTS.md")
    began = time.monotonic()
    done = [_run(name, own, args.results) for name in args.names or SMALL]
    table = "\n".join([*HEADINGS, *(f"| {name} | {line} |" for each in done for name, line in each.goals)])
    took = f"{(time.monotonic() - began) / 60:.0f} minutes"
    print(f"\n{table}\n\n{took}")
    if args.quick:
        failed = "".join(f" {each.name} failed." for each in done if each.is_failed)
        text = f"`python -m bench --quick`\n\n{machine()}, {took}.{failed} {_peers()}\n\n{table}"
        replace_section(HERE / "RESULTS.md", "Goals", text)
    return int(any(each.is_failed for each in done))


class Done(NamedTuple):
    """A benchmark that ran: whether it failed, and each of its goals with its name."""

    name: str
    is_failed: bool
    goals: list[tuple[str, str]]


def _peers() -> str:
    """Say which other tools could be measured beside ours, and which are not installed here."""
    there = [tool for tool in PEERS if shutil.which(tool)]
    return f"Peers: {', '.join(there)}; not installed: {', '.join(sorted(set(PEERS) - set(there)))}."


def _run(name: str, own: list[str], results: Path | None) -> Done:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:  # on a disk: /tmp may be memory
        command = [sys.executable, str(HERE / f"{name}.py"), *(own or SMALL[name])]
        command += ["--scratch", str(Path(scratch) / name)]
        command += ["--results", str(results)] if results else []
        print(f"\n$ python bench/{name}.py {' '.join(own or SMALL[name])}", flush=True)
        started, goals = time.monotonic(), []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                if line.startswith(GOAL):
                    goals.append((name, line.removeprefix(GOAL).strip()))
        ended = f"FAILED ({process.returncode})" if process.returncode else "done"
        print(f"{name}: {ended} in {time.monotonic() - started:.0f} s", flush=True)
        return Done(name, process.returncode != 0, goals)


if __name__ == "__main__":
    sys.exit(main())
