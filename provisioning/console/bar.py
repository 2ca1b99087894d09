"""One line of progress as text: share, rate, remaining time. Pure functions of numbers."""

from __future__ import annotations

NAME_WIDTH = 24
BAR_WIDTH = 16
BLOCKS = "▏▎▍▌▋▊▉█"


def progress_line(
    task: str, *, done: int, total: int, unit: str, rate: float = 0, fancy: bool = True, width: int = 1000
) -> str:
    """Return the line for `done` of `total` at `rate` a second (0: not known yet), in at most `width` columns.

    A `total` of 0 is not known. Unit "s" means a duration, with `total` that of the last time; "bytes" are written with
    their prefix. What the line has no room for is left out: the bar first, then the rate, then the end of the name; how
    much is done and how long it still takes stay.
    """
    count, speed = _count(done, total, unit), _speed(rate, unit)
    left = f"  {duration((total - done) / rate)} left" if rate > 0 and total > 0 and unit != "s" else ""
    bar, name = _share_bar(done, total, fancy=fancy), f"{task:<{NAME_WIDTH}} "
    for form in (name + bar + count + left + speed, name + count + left + speed, name + count + left):
        if len(form) <= width:
            return form
    room = max(4, width - len(count + left) - 1)
    return (f"{task[:room]} {count}{left}")[:width]


def _count(done: int, total: int, unit: str) -> str:
    if unit == "s":
        return duration(done) + (f", {duration(total)} last time" if total > 0 else "")
    if unit == "bytes":
        return f"{size(done)} of {size(total)}" if total > 0 else size(done)
    return f"{done} of {total}" if total > 0 else f"{done} {unit}".rstrip()


def _speed(rate: float, unit: str) -> str:
    if rate <= 0 or unit == "s":
        return ""
    return f"  {size(round(rate))}/s" if unit == "bytes" else f"  {_rate(rate)} {unit or 'items'}/s"


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


def size(count: int) -> str:
    """Return a number of bytes for reading: `512 B`, `1.4 MB`, `23 GB`."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while value >= 1000 and unit != "PB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
