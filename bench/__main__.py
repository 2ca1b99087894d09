"""Every benchmark by one command: `python -m bench` runs all in a small form, `python -m bench NAME …` some.

Words after `--` go to the benchmark itself: `python -m bench noop -- --tiles 1000000`. Each is a script of its own in
this folder and measures subject and peers in one run, so that its ratios hold on a noisy machine; what it prints says
which peers were not installed. `--results bench/RESULTS.md` replaces the section of each in that file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SMALL = {
    "commands": [],
    "noop": ["--tiles", "10000"],
    "whole": ["--tiles", "10000"],
    "build": [],
    "incremental": ["--tiles", "3000"],
    "pipeline": ["--tiles", "600", "--rss", "5000", "10000"],
    "index": ["--vectors", "10000"],
    "verify": ["--gb", "0.5", "--rounds", "3"],
    "sync": [],
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
    parser.add_argument("--results", type=Path, help="Markdown file whose sections are replaced")
    args = parser.parse_args(words)
    if unknown := set(args.names) - SMALL.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SMALL)}")
    return max([_run(name, own, args.results) for name in args.names or SMALL])


def _run(name: str, own: list[str], results: Path | None) -> int:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:  # on a disk: /tmp may be memory
        command = [sys.executable, str(HERE / f"{name}.py"), *(own or SMALL[name])]
        command += ["--scratch", str(Path(scratch) / name)]
        command += ["--results", str(results)] if results else []
        print(f"\n$ python bench/{name}.py {' '.join(own or SMALL[name])}", flush=True)
        started = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        print(
            f"{name}: {'done' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - started:.0f} s", flush=True
        )
        return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
