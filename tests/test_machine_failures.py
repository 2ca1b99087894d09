"""What the machine refuses to a command as a whole is one message with a next step, and never hides what was published."""

from __future__ import annotations

import contextlib
import errno
import signal
import sqlite3
import sys
import time

import pytest
from doit.cmd_base import ModuleTaskLoader

import provisioning.cli
import rules
from provisioning.base.disk.files import wrap_machine_errors
from provisioning.base.errors import Error, FilesystemError, StoppedError, TrustError
from provisioning.base.process import signals
from provisioning.base.process.signals import Stopped, stops_in_order
from provisioning.build import steps
from provisioning.flight.trust.rotation import read_trust
from rules import commands, plugin


def of_a(mistake):
    """Return the error that Python itself raises: an import that fails half-way ends in one of these."""
    try:
        return mistake()
    except (AttributeError, LookupError) as error:
        return error


@pytest.mark.parametrize(
    ("error", "what", "step"),
    [
        (MemoryError(), "memory does not suffice", "ulimit -v"),
        (ImportError("x.so: failed to map segment"), "failed to map segment", "dmesg"),
        (RuntimeError("can't start new thread"), "no thread", "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "ulimit -n"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "temporarily unavailable", "ulimit -u"),
        (of_a(lambda: plugin.no_such_name), "cannot be loaded: module 'rules.plugin' has no attribute", "dmesg"),
        (of_a(lambda: "".encode("no-codec")), "cannot be loaded: unknown encoding", "dmesg"),
        (SystemError("error return without exception set"), "memory does not suffice", "ulimit -v"),
    ],
)
def test_what_the_machine_refuses_is_an_error_with_a_next_step(error, what, step):
    with pytest.raises(Error, match=what) as caught, wrap_machine_errors("build here"):
        raise error
    assert step in caught.value.next_step


def test_what_the_system_refused_has_a_next_step_where_nobody_wrote_one(tmp_path):
    with pytest.raises(TrustError, match="No such file") as caught:
        read_trust(tmp_path / "trust.json")
    assert "check the path" in caught.value.next_step
    assert Error("no mistake of the system").next_step is None


def test_a_mistake_of_the_program_stays_one():
    for error in (
        RuntimeError("dictionary changed size during iteration"),
        of_a(lambda: object().nothing),
        KeyError(1),
    ):
        with pytest.raises(type(error)), wrap_machine_errors("build here"):
            raise error


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no part"), OSError(errno.EIO, "Input/output error")])
def test_a_task_that_meets_it_fails_without_a_traceback(built_cache, monkeypatch, capsys, error):
    def fails(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(steps, "walk", fails)
    command, report = rules.run(built_cache)
    assert report.outcome == "FAILURE"
    assert "unexpectedly" not in str(command.collector.failure)
    assert command.collector.failure.next_step
    assert "Traceback" not in capsys.readouterr().err


def test_what_nobody_foresaw_is_shown_in_full_and_the_outcome_is_said_and_written(built_cache, monkeypatch, capsys):
    def fails(*_args, **_kwargs):
        raise AttributeError("module 'numpy' has no attribute 'matrix'")

    monkeypatch.setattr(steps, "survey", fails)
    command, report = rules.run(built_cache)
    assert report.outcome == "FAILURE"
    assert "report the traceback" in command.collector.failure.next_step
    assert "Traceback" in capsys.readouterr().err
    assert "no attribute 'matrix'" in (built_cache / ".build" / "build-report.json").read_text()


def test_what_fails_after_publishing_only_warns(built_cache, monkeypatch, caplog):
    """Giving the lock back fails."""
    real = commands.in_hand

    @contextlib.contextmanager
    def fails(flight):
        with real(flight):
            yield
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(commands, "in_hand", fails)
    _, report = rules.run(built_cache)
    assert report.outcome == "IDEMPOTENT_NO_OP"
    assert any("Input/output error" in str(record.kv) for record in caplog.records if hasattr(record, "kv"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("no part"),
        OSError(errno.EIO, "Input/output error"),
        of_a(lambda: plugin.no_such_name),
        SystemError("error return without exception set"),
    ],
)
def test_a_program_that_cannot_be_loaded_says_so_without_doit_s_traceback(built_cache, monkeypatch, capsys, error):
    def fails(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(commands, "Run", type("Run", (), {"__new__": fails}))
    monkeypatch.setattr(plugin, "cache_of", lambda *_: built_cache)
    assert plugin.Run(task_loader=ModuleTaskLoader({})).execute({}, []) == plugin.NOT_STARTED
    said = capsys.readouterr().err
    assert "next step" in said
    assert "Traceback" not in said


def test_the_end_of_a_command_needs_no_part_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "provisioning.base.process.leaving", None)  # importing it is an ImportError
    plugin._leave(3)


def test_a_command_that_cannot_be_loaded_does_not_end_like_an_answer_of_plan(monkeypatch, capsys):
    monkeypatch.delattr(provisioning.cli, "running", raising=False)
    monkeypatch.setitem(sys.modules, "provisioning.cli.running", None)
    assert provisioning.cli.main(["plan"]) == Error.exit_code
    said = capsys.readouterr().err
    assert "cannot be loaded" in said
    assert "next step" in said


def test_no_memory_for_the_error_that_says_so_is_said_all_the_same(monkeypatch, capsys):
    def fails(*_args, **_given):
        raise MemoryError

    monkeypatch.setattr("provisioning.cli.running._run", fails)
    monkeypatch.setattr("provisioning.base.errors.printable_lines", fails)
    assert provisioning.cli.main(["plan"]) == Error.exit_code
    said = capsys.readouterr().err
    assert "memory does not suffice" in said
    assert "next step" in said


@pytest.mark.parametrize("part", ["_key_apart", "stops_in_order"])
def test_what_fails_before_the_build_begins_is_an_outcome(built_cache, monkeypatch, capsys, part):
    """As where the process that signs cannot be started: there is no descriptor left for the pipe to it."""

    def fails(*_args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(commands, part, fails)
    monkeypatch.setattr(plugin, "cache_of", lambda *_: built_cache)
    monkeypatch.setattr(commands, "cache_of", lambda *_: built_cache)
    params = {"log": "human", "num_process": 0, "reporter": "console", "deep": False}
    assert plugin.Run(task_loader=ModuleTaskLoader({})).execute(params, []) == plugin.NOT_STARTED
    out, err = capsys.readouterr()
    assert "FAILURE" in out
    assert "Too many open files" in err
    assert "next step" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_build_in_order_and_the_second_acts_as_before(number):
    inherited = signal.signal(number, signal.default_int_handler)  # nohup has the tests ignore SIGHUP
    try:
        with pytest.raises(Stopped) as caught, stops_in_order():
            signal.raise_signal(number)
        assert caught.value.exit_code == 128 + number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, inherited)


@pytest.mark.parametrize(("most_wait_s", "is_whole"), [(60, True), (0, False)])
def test_a_signal_waits_for_an_import_to_end(tmp_path, monkeypatch, most_wait_s, is_whole):
    """pybind11 calls abort() where an exception comes out of an import that it has begun."""
    (tmp_path / "met_by_a_signal.py").write_text(
        "import signal\nfor _ in range(2):\n    signal.raise_signal(signal.SIGINT)\nis_whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signals, "MOST_WAIT_S", most_wait_s)
    before, alarm = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    seen = []

    def build():
        import met_by_a_signal

        seen.append(met_by_a_signal.is_whole)
        time.sleep(60)

    with pytest.raises(Stopped) as caught, stops_in_order():
        build()
    assert caught.value.exit_code == 130
    assert seen == [True] * is_whole
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == (before, alarm)
    sys.modules.pop("met_by_a_signal", None)


def an_error_made_of_a_signal(number=signal.SIGINT):
    """SQLite tells of an exception in its callback as an error of its own."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.create_function("stop", 0, lambda: signal.raise_signal(number))
        db.execute("SELECT stop()")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_error_that_a_library_made_of_a_signal_is_the_stop(number):
    with pytest.raises(Stopped) as caught, stops_in_order():
        an_error_made_of_a_signal(number)
    assert caught.value.exit_code == 128 + number
    with pytest.raises(sqlite3.Error), signals.stop_goes_first():  # an error of its own, and the signal forgotten
        sqlite3.connect(":memory:").execute("no SQL")


@pytest.mark.parametrize(
    "part",
    [
        "provisioning.build.steps.survey",
        "rules.tasks.task_rows",  # of an Error there doit makes one of its own, and we the exit code 3
        "provisioning.build.reasons.Due.unchecked",
        "provisioning.build.steps.walk",
    ],
)
def test_a_build_of_whose_stop_a_library_made_an_error_is_stopped(built_cache, monkeypatch, capsys, part):
    def fails(*_args, **_given):
        try:
            an_error_made_of_a_signal()
        except sqlite3.Error as error:
            raise FilesystemError("cannot read this") from error

    monkeypatch.setattr(part, fails)
    with stops_in_order():
        command, report = rules.run(built_cache)
    assert isinstance(command.collector.failure, StoppedError)
    assert report.outcome == "FAILURE"
    assert "Traceback" not in capsys.readouterr().err


def test_nohup_lets_the_terminal_go_and_the_build_go_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_in_order():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
