"""What doit may tell us beside success: unmet dependencies, tasks set aside, mistakes of its own, a thread that calls."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from provisioning.base.disk.artifacts import Target
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import BuildLockHeldError, ConfigError
from provisioning.base.process.signals import stops_in_order
from provisioning.build.tasks import TaskRow
from rules import commands
from rules.reporter import Collector
from rules.rule import Failed, UpToDate, _remove, rule

TASK = SimpleNamespace(name="engine:net", actions=["a"], values={})


@pytest.fixture
def collector():
    return Collector(lambda: 0.0)


def failure(name: str) -> SimpleNamespace:
    return SimpleNamespace(get_name=lambda: name, get_msg=lambda: "Traceback of a mistake of ours")


def test_the_first_failure_is_the_one_that_is_reported(collector, capsys):
    collector.add_failure(TASK, Failed(ConfigError("first")))
    collector.add_failure(TASK, Failed(ConfigError("second")))
    assert collector.failure.what == "first"


def test_a_task_whose_dependency_failed_adds_nothing(collector, capsys):
    collector.add_failure(TASK, failure("UnmetDependency"))
    assert collector.failure is None
    assert capsys.readouterr().err == ""


def test_a_failure_that_nobody_foresaw_shows_its_traceback(collector, capsys):
    collector.add_failure(TASK, failure("TaskError"))
    assert "failed unexpectedly" in collector.failure.what
    assert "report the traceback" in collector.failure.next_step
    assert "Traceback of a mistake of ours" in capsys.readouterr().err


def test_mistakes_of_doit_itself_are_the_failure_if_there_is_no_other(collector):
    collector.runtime_error("cycle")
    collector.cleanup_error(SimpleNamespace(get_msg=lambda: "teardown"))
    assert collector.failure.what == "cycle"
    alone = Collector(lambda: 0.0)
    alone.cleanup_error(SimpleNamespace(get_msg=lambda: "teardown"))
    assert alone.failure.what == "teardown"


def test_a_task_that_the_user_set_aside_is_a_warning(collector, caplog):
    collector.skip_ignore(TASK)
    assert [getattr(record, "kv", {}) for record in caplog.records] == [{"task": "engine:net"}]


def test_a_group_is_neither_shown_nor_counted_as_reused(collector):
    group = SimpleNamespace(name="engine", actions=[], values={})
    collector.execute_task(group)
    collector.add_success(group)
    collector.skip_uptodate(group)
    assert collector.ran == []
    assert collector.report(None).engines_reused == 0


def test_a_given_that_does_not_fit_its_action_fails_when_the_rules_load(tmp_path):
    def action(*, onnx):
        """Take one thing."""

    with pytest.raises(TypeError):
        rule(TaskRow(name="t", summary="", step=action, given={"onxn": 1}, due=None), tmp_path)


def test_cleaning_names_only_what_is_there(tmp_path, capsys):
    made = Target(store=tmp_path, kind="engine", name="net.engine", facts={})
    _remove(tmp_path, (made,), dryrun=True)
    assert capsys.readouterr().out == ""
    made.path.parent.mkdir(parents=True)
    made.path.write_bytes(b"engine")
    _remove(tmp_path, (made,), dryrun=True)
    assert made.path.exists()
    with pytest.raises(BuildLockHeldError):
        _remove(tmp_path, (made,), dryrun=False)
    with build_lock(tmp_path):
        _remove(tmp_path, (made,), dryrun=False)
    assert not made.path.exists()
    assert capsys.readouterr().out == f"removing {made.path}\n" * 3


def test_what_cannot_be_checked_is_done_again():
    def why():
        raise OSError("gone")

    assert UpToDate(why).reasons() == ("it cannot be checked: gone",)
    assert UpToDate(None).reasons() == ("it runs every time",)
    assert UpToDate(lambda: ()).reasons() == ()


def test_a_build_in_a_thread_leaves_signals_to_its_caller():
    import signal

    before, seen = signal.getsignal(signal.SIGTERM), []

    def build():
        with stops_in_order():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_build_says_how_long_it_took_to_the_millisecond():
    times = iter([100.0, 108.2504])
    assert Collector(lambda: next(times)).report(None).elapsed_s == 8.25


def test_what_fails_once_every_task_is_done_is_a_warning_with_its_reason(caplog):
    run = object.__new__(commands.Run)
    run.collector = Collector(lambda: 0.0)
    run.collector.is_complete = True
    assert run._after(ConfigError("the disk is full")) == 0
    (warned,) = [record.kv for record in caplog.records if record.kind == "c10.provision.record.failed"]
    assert warned["reason"].startswith("the disk is full")


def test_an_error_of_no_known_kind_is_named_and_kept_as_the_cause():
    found = commands._unexpected(KeyError("x"))
    assert found.what == "the build failed unexpectedly: KeyError: 'x'"
    assert "report the traceback" in found.next_step
    assert isinstance(found.__cause__, KeyError)
