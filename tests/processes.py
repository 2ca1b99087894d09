"""Asking about processes that are not ours, and starting some that may less than root."""

import os
import shutil
import time
from pathlib import Path

import pytest

NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Begins a command that may not write everywhere, though it is root's."""
needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which(NO_CAPABILITIES[0]), reason="root may write everywhere"
)


def with_permissions(*command):
    """Return `command` such that permissions hold for it, whoever runs it."""
    return [*(NO_CAPABILITIES if os.geteuid() == 0 else ()), *command]


def gone(pid, *, within_s=120.0):
    """Tell whether process `pid` has ended before `within_s` seconds are over; a zombie has."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
