"""One line of progress as text: share, rate, remaining time. Pure functions of numbers."""

from __future__ import annotations

NAME_WIDTH = 24
BAR_WIDTH = 16
BLOCKS = "▏▎▍▌▋▊▉█"


def progress_line(task: str, *, done: int, total: int, unit: str, rate: float = 0, fancy: bool = True) -> str:
    """Return the line for `done` of `total` at `rate` a second (0: not known yet).

    A `total` of 0 is not known. Unit "s" means a duration, with `total` that of the last time.
    """
    name, bar = f"{task:<{NAME_WIDTH}}", _share_bar(done, total, fancy=fancy)
    if unit == "s":
        last = f", {duration(total)} last time" if total > 0 else ""
        return f"{name} {bar}{duration(done)}{last}"
    if total <= 0:
        return f"{name} {done} {unit}".rstrip() + (f"  {_rate(rate)} {unit or 'items'}/s" if rate > 0 else "")
    if rate <= 0:
        return f"{name} {bar}{done} of {total} {unit}".rstrip()
    return f"{name} {bar}{done} of {total}  {duration((total - done) / rate)} left  {_rate(rate)} {unit or 'items'}/s"


def _share_bar(done: int, total: int, *, fancy: bool) -> str:
    if total <= 0:
        return ""
    eighths = 8 * BAR_WIDTH * min(done, total) // total
    if not fancy:
        return "[" + ("#" * (eighths // 8)).ljust(BAR_WIDTH, ".") + "]  "
    full, rest = divmod(eighths, 8)
    return "█" * full + (BLOCKS[rest - 1] if rest else "") + " " * (BAR_WIDTH - full - (rest > 0)) + "  "


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def duration(seconds: float) -> str:
    """Return a length of time for reading: `12 s`, `3:07 min`, `2:05 h`."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02} h"
