"""Promises of what a build shows: calm lines, one live line, JSON lines, warnings twice, the outcome last."""

import io
import json
import subprocess
import sys

import pytest

from provisioning import console
from provisioning.base import events
from provisioning.base.hashing import on_hashed
from provisioning.base.outcome import BuildReport
from provisioning.console.bar import duration, progress_line
from provisioning.console.human import CLEAR_LINE, HumanListener
from provisioning.console.style import may_colour

REPORT = BuildReport(outcome="SUCCESS", engines_built=1, manifest_hash="ab" * 32, elapsed_s=1.5)


class Terminal(io.StringIO):
    """A stream that says it is a terminal of 80 columns."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


def _listening(listener):
    listener.open()
    return listener


def test_without_a_terminal_each_task_is_one_line_and_progress_is_silent():
    stream = io.StringIO()
    listener = console.listen("human", stream)
    console.task_started("engine:gist")
    for second in range(20):
        events.progress("engine:gist", second, 20, unit="s")
    console.task_ended("engine:gist")
    listener.close()
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["engine:gist"]
    assert "\x1b" not in stream.getvalue()


def test_live_line_shows_share_rate_and_remaining_time_and_leaves_no_trace(clock):
    stream = Terminal()
    listener = _listening(HumanListener(stream, clock=clock))
    console.task_started("descriptors")
    events.progress("descriptors", 100, 500, unit="tiles")
    clock.now = 2.0
    events.progress("descriptors", 300, 500, unit="tiles")
    console.task_ended("descriptors")
    listener.close()
    shown = stream.getvalue().split(CLEAR_LINE)
    assert "300 of 500  2 s left  100 tiles/s" in shown[-2]
    assert shown[-1] == "descriptors              2.00 s, 100 a second\n"
    assert all("\n" not in line for line in shown[:-1])


def test_live_line_is_redrawn_ten_times_a_second_at_most(clock):
    stream = Terminal()
    listener = _listening(HumanListener(stream, clock=clock))
    for done in range(1000):
        clock.now += 0.001
        events.progress("corpus", done, 10_000)
    listener.close()
    assert 8 <= stream.getvalue().count(CLEAR_LINE) <= 12


def test_live_line_is_never_wider_than_the_terminal(clock):
    stream = Terminal()
    listener = _listening(HumanListener(stream, clock=clock))
    console.task_started("x" * 300)
    listener.close()
    assert len(stream.getvalue().replace(CLEAR_LINE, "")) < 80


def test_warnings_are_shown_at_once_and_once_counted_and_repeated_at_the_end(capsys):
    stream = io.StringIO()
    listener = console.listen("human", stream)
    for _ in range(3):
        events.warn("coverage.orphans.lenient", paths=["a", "b"])
    events.warn("task.ignored", task="report")
    listener.close()
    before_end = stream.getvalue()
    listener.finish(REPORT)
    assert before_end.count("warning: coverage.orphans.lenient: paths a b") == 1
    assert stream.getvalue()[len(before_end) :] == (
        "4 warnings:\n  coverage.orphans.lenient: paths a b (3 times)\n  task.ignored: task report\n"
    )


def test_a_flood_of_warnings_is_cut_short_but_counted(capsys):
    stream = io.StringIO()
    listener = console.listen("human", stream)
    for tile in range(5000):
        events.warn("descriptor.failure", x=tile)
    listener.close()
    listener.finish(REPORT)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 20 + 1 + 20 + 1
    assert lines[20] == "5,000 warnings:"
    assert lines[-1] == "  and 4980 more (`doit --log json` writes every one)"


def test_outcome_is_the_last_line_of_standard_output(capsys):
    listener = console.listen("human", io.StringIO())
    listener.close()
    listener.finish(REPORT)
    assert capsys.readouterr().out == REPORT.line() + "\n"


def test_what_the_cache_is_worth_ends_the_line_of_the_outcome(capsys):
    listener = console.listen("human", io.StringIO())
    listener.close()
    listener.finish(REPORT, [("PASS", "good"), ("1 gate waived", "warn")])
    assert capsys.readouterr().out == REPORT.line() + "; PASS, 1 gate waived\n"


def test_failure_says_what_where_and_the_next_step_before_the_outcome(capsys):
    stream = io.StringIO()
    listener = console.listen("human", stream)
    console.task_started("descriptors")
    console.task_failed("descriptors")
    listener.close()
    listener.finish(BuildReport(outcome="FAILURE", failure_reason="no tiles\n  next step: add tiles"))
    assert stream.getvalue().splitlines()[0].startswith("descriptors              failed after")
    said = ["ERROR: no tiles", "  next step: add tiles", "  then type `doit` again; what is finished is kept"]
    assert stream.getvalue().splitlines()[1:] == said
    assert capsys.readouterr().out.startswith("FAILURE ")


def test_a_failure_without_a_next_step_still_says_what_to_type(capsys):
    stream = io.StringIO()
    listener = console.listen("human", stream)
    listener.close()
    listener.finish(BuildReport(outcome="FAILURE", failure_reason="no tiles"))
    assert "type `doit` again" in stream.getvalue().splitlines()[-1]


def test_a_next_step_that_says_what_to_type_is_not_said_twice(capsys):
    stream = io.StringIO()
    listener = console.listen("human", stream)
    listener.close()
    reason = "the records differ\n  next step: run `doit --deep`"
    listener.finish(BuildReport(outcome="FAILURE", failure_reason=reason))
    assert stream.getvalue() == f"ERROR: {reason}\n"


def test_a_stopped_build_says_in_which_task_it_was(capsys):
    stream = Terminal()
    listener = console.listen("human", stream)
    console.task_started("onnx:x")
    console.task_ended("onnx:x")
    console.task_started("descriptors")
    listener.close()
    listener.finish(BuildReport(outcome="FAILURE", failure_reason="stopped by SIGINT"))
    shown = [line for line in stream.getvalue().splitlines() if "stopped" in line]
    assert "descriptors" in shown[0]
    assert "stopped by SIGINT" in shown[1]
    assert len(shown) == 2


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch, variable, value):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert may_colour(Terminal())
    monkeypatch.setenv(variable, value)
    assert not may_colour(Terminal())


def test_no_color_still_shows_the_live_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    listener = console.listen("human", stream)
    events.warn("task.ignored", task="x")
    listener.close()
    assert "\x1b[3" not in stream.getvalue()


def test_json_lines_carry_the_names_of_opentelemetry():
    stream = io.StringIO()
    listener = console.listen("json", stream)
    events.event("published", generation="generations/000007", counter=7)
    events.warn("coverage.orphans.lenient", paths=["a"])
    listener.close()
    published, orphan = map(json.loads, stream.getvalue().splitlines())
    assert published["event_name"] == "c10.provision.published"
    assert published["attributes"] == {"generation": "generations/000007", "counter": 7}
    assert (published["severity_text"], published["severity_number"]) == ("INFO", 9)
    assert (orphan["severity_text"], orphan["severity_number"]) == ("WARN", 13)
    assert published["timestamp"].endswith("Z")
    assert published["resource"]["service.name"] == "flightcache"


def test_json_outcome_has_the_eight_fields_and_the_warnings():
    stream = io.StringIO()
    listener = console.listen("json", stream)
    events.warn("task.ignored", task="x")
    listener.close()
    listener.finish(REPORT)
    outcome = json.loads(stream.getvalue().splitlines()[-1])
    assert outcome["event_name"] == "c10.provision.outcome"
    assert outcome["attributes"]["warnings"] == 1
    assert set(outcome["attributes"]) == {
        "outcome", "engines_built", "engines_reused", "descriptors_generated", "manifest_hash", "manifest_path",
        "failure_reason", "elapsed_s", "warnings", "summary",
    }  # fmt: skip


def test_json_progress_is_rare():
    stream = io.StringIO()
    listener = console.listen("json", stream)
    for done in range(1000):
        events.progress("corpus", done, 1000)
    listener.close()
    assert len(stream.getvalue().splitlines()) == 1


def test_json_survives_fields_that_json_does_not_know():
    stream = io.StringIO()
    listener = console.listen("json", stream)
    events.event("published", generation=io)
    listener.close()
    assert "module" in json.loads(stream.getvalue())["attributes"]["generation"]


def test_closing_leaves_the_log_as_it_was():
    before = events.LOGGER.level, list(events.LOGGER.handlers)
    console.listen("json", io.StringIO()).close()
    assert (events.LOGGER.level, list(events.LOGGER.handlers)) == before


def test_console_imports_nothing_heavy():
    program = "import sys, provisioning.console; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "numpy", "doit", "onnx", "faiss", "PIL", "asyncio"} & set(modules)


@pytest.mark.parametrize(
    ("done", "total", "unit", "rate", "line"),
    [
        (0, 0, "s", 0, "engine:x                 0 s"),
        (0, 0, "", 0, "engine:x                 0"),
        (12, 0, "tiles", 0, "engine:x                 12 tiles"),
        (12, 0, "tiles", 300.4, "engine:x                 12 tiles  300 tiles/s"),
        (5, 10, "", 2.5, "engine:x                 [########........]  5 of 10  2 s left  2.5 items/s"),
        (130, 60, "s", 0, "engine:x                 [################]  2:10 min, 60 s last time"),
    ],
)
def test_progress_line(done, total, unit, rate, line):
    assert progress_line("engine:x", done=done, total=total, unit=unit, rate=rate, fancy=False) == line


def test_fancy_bar_always_takes_the_same_width():
    widths = {len(progress_line("x", done=done, total=1000, unit="")) - len(str(done)) for done in range(1001)}
    assert len(widths) == 1


@pytest.mark.parametrize(("seconds", "expected"), [(0.2, "0 s"), (89, "89 s"), (187, "3:07 min"), (7500, "2:05 h")])
def test_durations_for_reading(seconds, expected):
    assert duration(seconds) == expected


def test_published_generation_is_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    listener = console.listen("human", stream)
    events.event("published", generation=str(tmp_path / "generations" / "000007"), counter=7)
    events.event("published", generation="/elsewhere/000007", counter=7)
    listener.close()
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["generations/000007", "/elsewhere/000007"]


def test_what_a_task_reads_is_shown_as_its_own_progress(clock):
    stream = io.StringIO()
    listener = _listening(HumanListener(stream, clock=clock))
    assert on_hashed.get() is not None
    console.task_started("coverage")
    on_hashed.get()(0, 4_000_000_000)
    clock.now = 31.0
    on_hashed.get()(1_000_000_000, 4_000_000_000)
    listener.beat()
    console.task_ended("coverage")
    listener.close()
    beat, end = stream.getvalue().splitlines()
    assert beat.startswith("coverage ")
    assert "1.0 GB of 4.0 GB  93 s left" in beat.replace("1:33 min", "93 s")
    assert end.split() == ["coverage", "31.00", "s"]  # not so many million a second


def test_a_listener_that_is_closed_hears_nothing_more_and_may_be_closed_again():
    before = on_hashed.get()
    listener = _listening(HumanListener(io.StringIO()))
    for _ in range(2):  # the interpreter closes every handler once more when it ends
        listener.close()
        assert on_hashed.get() is before
