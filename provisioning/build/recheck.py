"""When the bytes of what is published were last read in full, and when they are to be read again.

`.build/rechecked` bears the time; where it is missing, they are due. A no-op otherwise goes by each file's stat, which
does not show a bit that rots.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from provisioning.base.disk.files import discard

FILE = "rechecked"
_DAY_S = 86_400


def is_due(build_dir: Path, days: int) -> bool:
    """Return whether `days` have passed since the last full read; 0 days: never, unless the file is missing.

    A time in the future, as after a clock that was wrong, counts as long ago.
    """
    try:
        age_s = time.time() - os.stat(build_dir / FILE).st_mtime
    except OSError:
        return True
    return days > 0 and not -_DAY_S < age_s < days * _DAY_S


def ask(build_dir: Path) -> None:
    """Make the next check a full one, also where the one that was asked for is cut off."""
    discard(build_dir / FILE)


def note(build_dir: Path) -> None:
    """Write down that everything was read now; where that fails, or is lost, it is read again next time."""
    with contextlib.suppress(OSError):
        (build_dir / FILE).write_bytes(b"")
