"""Every check, in one command: format, lint, types, layers, tests. `python check.py` is what CI runs.

`--coverage` also counts the branches that the tests take, which costs a quarter more: a job of its own does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

QUICK = {
    "format": ["ruff", "format", "--check", "-q", "."],
    "lint": ["ruff", "check", "-q", "."],
    "layers": ["lint-imports"],
}
TYPES = ["mypy"]
WORKERS = min(4, len(os.sched_getaffinity(0))) + 1
"""One more than cores: a fifth of the time that a test takes, it waits for a disk or a limit of time (measured)."""
TESTS = ["pytest", "-n", str(WORKERS), "--dist=worksteal", "--durations=10"]
LEAST_BRANCHES = 95.0
"""Per cent of the branches of `provisioning` that the tests must take."""


def main() -> int:
    """Run every check, mypy beside the tests; return 1 if any failed. Other words than `--coverage` are pytest's."""
    counted = "--coverage" in sys.argv
    chosen = [word for word in sys.argv[1:] if word != "--coverage"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ["COVERAGE_FILE"] = os.path.join(scratch, "coverage")
        since, types = time.monotonic(), _start(TYPES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        checks = [_passes(name, _start(words)) for name, words in QUICK.items()]
        tests = [*TESTS, *chosen, *(["--cov", "--cov-report=term"] if counted else [])]
        checks.append(_passes("tests", _start(tests)))
        checks.append(_passes("types", types, since))
        if counted:
            checks.append(_branches_are_taken())
    return not all(checks)


def _passes(name: str, started: subprocess.Popen[str], since: float | None = None) -> bool:
    """Wait for a check and say how it ended, after what it wrote if that was kept back."""
    since = since or time.monotonic()
    written, _ = started.communicate()
    ok = started.returncode == 0
    print(written or "", end="")
    print(f"{name}: {'ok' if ok else f'FAILED ({started.returncode})'} in {time.monotonic() - since:.0f} s", flush=True)
    return ok


def _branches_are_taken() -> bool:
    """Tell whether the tests took enough branches of `provisioning`; a share of lines would hide paths of errors."""
    words = ["coverage", "json", "-q", "--fail-under=0", "--include=provisioning/*", "-o", "-"]
    done = subprocess.run(_command(words), check=False, stdout=subprocess.PIPE)
    taken = float(json.loads(done.stdout)["totals"]["percent_branches_covered"]) if done.returncode == 0 else 0.0
    verdict = "ok" if taken >= LEAST_BRANCHES else f"FAILED (least: {LEAST_BRANCHES:g} %)"
    print(f"branches: {verdict}, the tests take {taken:.1f} % of those of provisioning")
    return taken >= LEAST_BRANCHES


def _start(words: list[str], **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(_command(words), **how)


def _command(words: list[str]) -> list[str]:
    return [os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:]]


if __name__ == "__main__":
    sys.exit(main())
