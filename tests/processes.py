"""Asking about processes that are not ours."""

import time
from pathlib import Path


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
