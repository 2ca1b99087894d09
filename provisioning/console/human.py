"""Events for a person: one calm line a task, a live line for long work, warnings twice, the outcome last."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from provisioning.base import events
from provisioning.base.named import NamedTuple
from provisioning.base.words import counted
from provisioning.console.bar import NAME_WIDTH, duration, progress_line
from provisioning.console.listener import WARNINGS_SHOWN, Listener, fields_of, kind_of, words
from provisioning.console.style import painted, sentence

if TYPE_CHECKING:
    from provisioning.base.outcome import BuildReport

NEXT_STEP = "next step:"
REDRAW_EVERY_S = 0.1
BEAT_S = 30.0
"""Longest silence without a terminal, second, while something runs."""
ENDS_A_BUILD = {"empty.corpus", "engine.failure", "manifest.failure", "coverage.orphans", "rollback.done"}
CLEAR_LINE = "\r\x1b[2K"
MARKS = {"SUCCESS": "good", "IDEMPOTENT_NO_OP": "good", "FAILURE": "bad"}


class _Work:
    """Long work as it was first seen: what an earlier build had done does not count as speed."""

    def __init__(self, since: float, first: int, unit: str) -> None:
        self.since, self.first, self.done, self.unit = since, first, first, unit

    def rate(self, now: float) -> float:
        """Return what is done a second; 0 before a second is over."""
        return (self.done - self.first) / (now - self.since) if now - self.since >= 1 else 0.0


class _Latest(NamedTuple):
    """The last that was heard of work that goes on."""

    task: str
    done: int
    total: int
    unit: str


class HumanListener(Listener):
    """Lines on `stream`; on a terminal also a live line, which leaves no trace."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.wanted = logging.DEBUG
        self._fancy = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        self._clock = clock
        self._started: dict[str, float] = {}
        self._work: dict[str, _Work] = {}
        self._shown: dict[str, int] = {}
        self._drawn_at = self._said_at = -1.0
        self._latest: _Latest | None = None
        self._over = threading.Event()
        self._beating: threading.Thread | None = None
        self._place = self._accepted = self._recognition = ""

    def show(self, record: logging.LogRecord) -> None:
        """Show an event, if it says something to a person."""
        kind, fields = kind_of(record), fields_of(record)
        if kind in ENDS_A_BUILD:
            return  # the error itself is shown at the end
        if record.levelno >= logging.WARNING:
            self._warn(kind, words(record))
        elif kind == events.PROGRESS:
            self._progress(
                str(fields["task"]), int(str(fields["done"])), int(str(fields["total"])), str(fields["unit"])
            )
        elif kind == "task.started":
            self._started[str(fields["task"])] = self._clock()
            self._begin_to_beat()
            self._draw(str(fields["task"]))
        elif kind in ("task.ended", "task.failed"):
            self._task_over(str(fields["task"]), "failed after " if kind == "task.failed" else "")
        elif kind == "engine.compiling" and not self.live:
            last = f", last time {fields['last_s']} s" if fields["last_s"] else ""
            self.line(
                f"{'engine:' + str(fields['model']):<{NAME_WIDTH}} still compiling after {fields['elapsed_s']} s{last}"
            )
        elif kind == "corpus":
            self._place, self._accepted = str(fields["place"]), str(fields.get("accepted", ""))
        elif kind == "recognition":
            self._recognition = str(fields["says"])
        elif kind == "lock.waiting":
            self.line(f"waiting for the build of process {fields.get('pid') or 'unknown'} to end")
        elif kind in ("index.choice", "index.transform"):
            self.line(f"{'index':<{NAME_WIDTH}} {fields.get('kind', 'transform')}: {fields['reason']}")
        elif kind == "published":
            self.line(f"{'published':<{NAME_WIDTH}} {near(str(fields.get('generation')))}")

    def working_on(self) -> str:
        """Return the task that runs: what it reads is part of it."""
        return next(reversed(self._started), super().working_on())

    def line(self, text: str) -> None:
        """Write a line that stays, in place of the live one."""
        self._said_at, self._drawn_at = self._clock(), -1.0
        self.stream.write((CLEAR_LINE if self.live else "") + text + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Take the live line away."""
        if self.live and self._drawn_at >= 0:
            self._drawn_at = -1.0
            self.stream.write(CLEAR_LINE)
            self.stream.flush()

    def beat(self) -> None:
        """Say what still runs, where no line has been written for BEAT_S: a log must not look like a hung build."""
        now = self._clock()
        running = self._running(now)
        if running and now - self._said_at >= BEAT_S:
            self.line(f"{running}  (still running)")

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self.clear()
        super().close()

    def _running(self, now: float) -> str:
        latest = self._latest
        if latest is not None and (latest.task in self._started or not self._started):
            rate = 0 if latest.unit == "s" else self._work[latest.task].rate(now)
            return progress_line(
                latest.task, done=latest.done, total=latest.total, unit=latest.unit, rate=rate, fancy=False
            )
        task, since = next(reversed(self._started.items()), ("", now))
        return f"{task:<{NAME_WIDTH}} {duration(now - since)}" if task else ""

    def _begin_to_beat(self) -> None:
        """Start the thread of the heartbeat with the first work: earlier a fork of the signer could inherit it."""
        if self.live or self._beating is not None:
            return
        self._said_at = self._clock()
        self._beating = threading.Thread(target=self._beat_until_over, daemon=True, name="heartbeat")
        with contextlib.suppress(RuntimeError):  # a limit of threads: the build goes on in silence
            self._beating.start()

    def _beat_until_over(self) -> None:
        while not self._over.wait(BEAT_S / 3):
            self.acquire()
            try:
                if not self._over.is_set():
                    self.beat()
            except (OSError, ValueError):  # the reader has left: the build's own lines say so
                return
            finally:
                self.release()

    def finish(self, report: BuildReport, summary: Sequence[tuple[str, str]] = ()) -> None:
        """Repeat the warnings, say why the build failed, and end with summary and outcome on standard output."""
        with contextlib.suppress(OSError):  # messages that cannot be written do not take the outcome with them
            self._last_messages(report)
        outcome = painted(MARKS[report.outcome], report.outcome)
        worth = f"; {sentence(summary)}" if summary else ""
        accepted = "" if summary else self._accepted  # the sentence says it itself
        where = ", ".join(filter(None, (self._place, accepted)))
        print(report.line(where).replace(report.outcome, outcome, 1) + worth, flush=True)

    def _last_messages(self, report: BuildReport) -> None:
        if self.live:
            self.stream.write(CLEAR_LINE)
        for task in list(self._started):
            self._task_over(task, "stopped after ")
        if self.warnings:
            self._repeat_warnings()
        if report.failure_reason:
            self.line(f"{painted('bad', 'ERROR:', self.stream)} {report.failure_reason}")
            self._say_what_to_type(report.failure_reason)
        self.stream.flush()
        if ": " in self._recognition and report.outcome == "SUCCESS":
            self.line(f"{'recognition':<{NAME_WIDTH}} {self._recognition}")

    def _say_what_to_type(self, reason: str) -> None:
        if NEXT_STEP not in reason:
            self.line(f"  {NEXT_STEP} correct this, then type `doit` again; what is finished is kept")
        elif "doit" not in reason.rpartition(NEXT_STEP)[2]:
            self.line("  then type `doit` again; what is finished is kept")

    def _warn(self, kind: str, text: str) -> None:
        """Show a warning as it comes, the same words once; at the end all are there, counted."""
        if self.warnings.get(text, 0) > 1:
            return
        self._shown[kind] = self._shown.get(kind, 0) + 1
        if self._shown[kind] <= WARNINGS_SHOWN:
            self.line(f"{painted('warn', 'warning:', self.stream)} {text}")

    def _repeat_warnings(self) -> None:
        count = self.warning_count
        self.line(painted("warn", f"{counted(count, 'warning')}:", self.stream))
        for text, times in self.warnings.items():
            self.line(f"  {text}" + (f" ({times} times)" if times > 1 else ""))
        rest = count - sum(self.warnings.values())
        if rest:
            self.line(f"  and {rest} more (`doit --log json` writes every one)")

    def _task_over(self, task: str, how: str) -> None:
        elapsed_s = self._clock() - self._started.pop(task, self._clock())
        work = self._work.pop(task, None)
        rate = work.rate(self._clock()) if work and work.unit != "bytes" else 0
        speed = f", {rate:.0f} a second" if rate >= 1 else ""
        state = painted("bad", how, self.stream) if how else ""
        self.line(f"{task:<{NAME_WIDTH}} {state}{elapsed_s:.2f} s{speed}")

    def _progress(self, task: str, done: int, total: int, unit: str) -> None:
        now = self._clock()
        work = self._work.setdefault(task, _Work(now, done, unit))
        if done < work.done or unit != work.unit:  # the same work again, on other files
            work = self._work[task] = _Work(now, done, unit)
        work.done = done
        self._latest = _Latest(task, done, total, unit) if done < total or total == 0 or unit == "s" else None
        self._begin_to_beat()
        if self.live and (now - self._drawn_at >= REDRAW_EVERY_S or done == total):
            rate = 0 if unit == "s" else work.rate(now)
            width = _columns(self.stream) - 1
            self._draw(
                progress_line(task, done=done, total=total, unit=unit, rate=rate, fancy=self._fancy, width=width)
            )

    def _draw(self, text: str) -> None:
        """Replace the live line; never wider than the terminal, for a wrapped line could not be taken back."""
        if self.live:
            self._drawn_at = self._clock()
            self.stream.write(CLEAR_LINE + text[: _columns(self.stream) - 1])
            self.stream.flush()


def near(path: str) -> str:
    """Return `path` relative to the working directory if it is below."""
    shown = os.path.relpath(path)
    return path if shown.startswith("..") else shown


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
