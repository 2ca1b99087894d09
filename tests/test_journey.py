"""From tiles and a mission to a fleet, as a person types it: tests/journey.sh, whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_vehicle_package import bare

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "journey.sh"
STEPS = (
    "init", "plan", "doit", "report.html", "bundle", "info", "install", "verify", "locate", "sync", "rollback",
    "trust next", "fleet", "fleet status",
)  # fmt: skip


def test_every_part_of_the_journey_is_in_the_script():
    text = SCRIPT.read_text()
    assert [step for step in STEPS if not re.search(rf"\b{step}\b", text)] == []
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.slow
def test_the_whole_journey(tmp_path):
    (tmp_path / "desk").mkdir()
    environment = bare(tmp_path)
    small = tmp_path / "flightcache"
    inside = shlex.join(
        ["env", f"PYTHONPATH={environment['PYTHONPATH']}", sys.executable, "-S", "-m", "provisioning.cli"]
    )
    small.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    small.chmod(0o755)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [SCRIPT, tmp_path / "desk", small],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "the whole journey" in done.stdout
