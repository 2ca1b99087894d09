"""Foreign input is read in a process with limits, without secrets; what goes wrong there is one Error about the input."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from provisioning.base import events
from provisioning.base.errors import BackboneError, TileError
from provisioning.base.process import confined, landlock
from tests import confining
from tests.processes import gone

SUBJECT = confined.Subject("the model", "m.onnx", BackboneError)
needs_landlock = pytest.mark.skipif(landlock.version() < 4, reason="this kernel's Landlock is absent or too old")


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """One process for the tests that leave it alive."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLIGHTCACHE_KEY_PASSWORD", "hush")
        with confined.apart(tmp_path_factory.mktemp("beside")):
            yield


def call(function, *arguments, **given):
    return confined.call(function, *arguments, subject=SUBJECT, **given)


def test_a_call_gives_the_same_here_and_there(scope):
    assert call(confining.add, 2, 3) == 5
    value, array = call(confining.picture, 7)
    assert value == {"side": 7}
    assert (array == confining.picture(7)[1]).all()
    assert call(confining.process) == call(confining.process) != os.getpid()


def test_outside_of_a_block_it_is_a_plain_call(monkeypatch):
    monkeypatch.setattr(confined, "_scope", None)
    assert call(confining.process) == os.getpid()


def test_an_error_passes_through_as_it_was_raised(scope):
    with pytest.raises(BackboneError, match="not this one") as caught:
        call(confining.refuses, "x.onnx")
    error = caught.value
    assert (error.file, error.key, error.next_step) == ("x.onnx", "backbone.onnx", "export it again")
    assert error.facts == {"opset": "99"}
    assert call(confining.add, 1, 1) == 2


def test_images_are_given_as_they_are_asked_for(scope):
    given = [np.full((4, 4, 3), n, np.uint8) for n in range(5)]
    assert call(confining.sums, 3, images=lambda count: iter(given[:count])) == [0, 48, 96]
    with pytest.raises(BackboneError, match="the first was bad"):
        call(confining.takes_one_and_refuses, images=lambda count: [np.zeros((99, 99, 3), np.uint8)] * count)
    assert call(confining.add, 1, 1) == 2  # what nobody took is not mistaken for the next call


def test_what_gives_the_images_may_call_too(scope):
    """As calibration does: the size that its tiles must have is read from the model."""

    def given(count):
        for n in range(count):
            side = call(confining.add, 2, 2)
            yield np.full((side, side, 3), n, np.uint8)

    busy = call(confining.process)
    assert call(confining.sums, 3, images=given) == [0, 48, 96]
    assert call(confining.process) == busy


def test_an_error_of_the_images_is_the_callers(scope):
    def images(_count):
        yield np.zeros((4, 4, 3), np.uint8)
        raise TileError("this tile is gone")

    with pytest.raises(TileError, match="this tile is gone"):
        call(confining.sums, 3, images=images)
    assert call(confining.add, 1, 1) == 2


def test_events_are_logged_here_and_steer_no_terminal(scope, caplog):
    with caplog.at_level("INFO", logger=events.LOGGER.name):
        assert call(confining.warns) == 1
    (record,) = [record for record in caplog.records if record.kind.endswith("backbone.batch")]
    assert record.levelname == "WARNING"
    assert "\x1b" not in record.kv["model"]


def test_what_a_library_prints_is_no_answer(scope, capfd):
    assert call(confining.prints) == "answer"
    assert capfd.readouterr() == ("", "")
    with pytest.raises(BackboneError, match="ZeroDivisionError: a bug"):  # nor the last words of what ends after it
        call(confining.fails)


@pytest.mark.parametrize(
    ("function", "limits", "said"),
    [
        (confining.loops, confined.Limits(time_s=0.5), "had not been read in time"),
        (confining.grows, confined.Limits(memory_bytes=2 << 30), "takes more memory than it may"),
        (confining.breaks, confined.DEFAULT_LIMITS, "SIGABRT"),
        (confining.fails, confined.DEFAULT_LIMITS, "ZeroDivisionError: a bug"),
    ],
)
def test_going_over_a_limit_or_breaking_is_one_error_with_file_and_next_step(scope, function, limits, said, capfd):
    with pytest.raises(BackboneError) as caught:
        call(function, limits=limits)
    assert said in str(caught.value)
    assert caught.value.file == "m.onnx"
    assert caught.value.next_step
    assert capfd.readouterr().err == ""
    assert call(confining.add, 1, 1) == 2  # the next call has a process again


def frame(kind, body, length=None):
    return kind + (len(body) if length is None else length).to_bytes(8, "big") + body


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"v",
        frame(b"v", b"", 1 << 60),
        frame(b"v", b"{not json"),
        frame(b"?", b""),
        frame(b"x", b"[1]"),
        frame(b"e", b'{"kind": 1}'),
        frame(b"i", b"1"),
        frame(b"a", b"[9, 9]") + frame(b"a", b"12"),
        frame(b"a", b"[1e99]"),
        frame(b"v", b"[" * 100_000),
        frame(b"e", b'{"kind": "x", "level": 20, "fields": {}}') * 1001,
    ],
    ids=range(12),
)
def test_an_answer_that_is_none_is_refused(scope, forged):
    with pytest.raises(BackboneError, match="broke the process"):
        call(confining.forges, forged)


def test_an_error_may_not_choose_any_class(scope):
    with pytest.raises(BackboneError, match="x"):
        call(confining.forges, frame(b"x", b'{"kind": "Path", "what": "x"}'))
    with pytest.raises(BackboneError, match="x"):
        call(confining.forges, frame(b"x", b'{"kind": "__builtins__", "what": "x", "facts": 3}'))


@needs_landlock
def test_the_process_has_its_input_and_nothing_else(scope, tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    assert call(confining.may, "read", tmp_path / "in/f", reads=[tmp_path / "in"]) == "in"
    assert call(confining.may, "read", tmp_path / "out/f") == "PermissionError"
    assert call(confining.may, "write", tmp_path / "in/f") == "PermissionError"
    assert call(confining.may, "write", tmp_path / "out/new") == "PermissionError"
    assert call(confining.may, "scratch", "") == "done"
    assert "hush" not in call(confining.may, "environment", "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert call(confining.may, "connect", server.getsockname()[1]) == "PermissionError"


def test_the_process_and_its_directory_are_gone_when_the_block_ends(tmp_path):
    (tmp_path / "apart-left").mkdir()
    with confined.apart(tmp_path):
        pid = call(confining.process)
        (left,) = tmp_path.iterdir()
        assert left.name != "apart-left"  # what a killed command left is removed
    assert gone(pid)
    assert list(tmp_path.iterdir()) == []
