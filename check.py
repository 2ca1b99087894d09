"""Every check, in one command: format, lint, types, layers, tests. `python check.py` is what CI runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

CHECKS = {
    "format": ["ruff", "format", "--check", "-q", "."],
    "lint": ["ruff", "check", "-q", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
    "tests": ["pytest", "-n", str(min(4, os.cpu_count() or 1)), "--durations=10"],
}


def main() -> int:
    """Run every check, the quick ones first; return 1 if any failed."""
    here = os.path.dirname(sys.executable)
    failed = []
    for name, (program, *words) in CHECKS.items():
        started = time.monotonic()
        code = subprocess.run(
            [os.path.join(here, program), *words, *sys.argv[1:][: name == "tests"]], check=False
        ).returncode
        print(f"{name}: {'ok' if code == 0 else f'FAILED ({code})'} in {time.monotonic() - started:.0f} s", flush=True)
        failed += [name] if code else []
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
