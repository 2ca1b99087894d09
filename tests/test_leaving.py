"""A command ends at once: what it promised to do at its end is done, and its exit code stands."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import types
from pathlib import Path

import pytest

from provisioning.base.frozen import dataclass
from provisioning.base.named import NamedTuple
from rules import plugin

ROOT = Path(__file__).resolve().parents[1]


def ended(body: str, **more: object) -> subprocess.CompletedProcess:
    """Run a program whose last call is `leave(7)`; after it stands what only an ordinary end reaches."""
    program = f"import atexit, sys, threading\nfrom provisioning.base.process.leaving import leave\n{body}\nleave(7)\nsys.exit(3)"
    more = {"capture_output": True, "text": True, **more}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, **more)


def test_what_was_written_and_registered_is_done_before_the_end() -> None:
    """Output waits in a buffer when it goes to a pipe; functions registered to run at exit run, the latest first."""
    done = ended("atexit.register(print, 'first'); atexit.register(print, 'second'); print('said')")
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, ["said", "second", "first"], "")


@pytest.mark.parametrize(
    "body",
    [
        "threading.Thread(target=threading.Event().wait, args=(0.05,)).start()",
        "sys.setprofile(lambda *_: None)",
        "sys.settrace(lambda *_: None)",
    ],
)
def test_the_ordinary_end_is_left_to_threads_at_work_and_to_who_watches(body: str) -> None:
    """A thread that still works is waited for; a profiler or a debugger has something to write."""
    assert ended(body).returncode == 3


def test_output_that_cannot_be_written_is_no_success() -> None:
    """The interpreter says it as it always does."""
    with open("/dev/full", "w") as full:
        done = ended("print('lost')", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 7
    assert "No space left" in done.stderr


def test_the_command_ends_without_freeing_what_it_holds(tmp_path: Path) -> None:
    """Of `flightcache`: a finaliser of a module that is still loaded does not run."""
    (tmp_path / "sitecustomize.py").write_text(
        "class Kept:\n    def __del__(self):\n        print('freed')\nkept = Kept()\n"
    )
    words = [sys.executable, "-m", "provisioning.cli", "host"]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "freed" not in done.stdout


@dataclass(frozen=True)
class Place:
    """Two fields by position, one with a default."""

    lat: int
    lon: int
    name: str = "here"


def test_a_frozen_value_is_made_as_a_function_is_called() -> None:
    """By position, by name, with defaults; compared, hashed, copied and refused like the standard library's."""
    import dataclasses
    import pickle

    place = Place(1, lon=2)
    assert place == Place(1, 2, "here") == pickle.loads(pickle.dumps(place))
    assert hash(place) == hash(Place(1, 2))
    assert dataclasses.replace(place, name="there") == Place(1, 2, "there") != place
    assert dataclasses.asdict(place) == {"lat": 1, "lon": 2, "name": "here"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        place.lat = 3  # type: ignore[misc]
    for wrong in (
        lambda: Place(1),
        lambda: Place(1, 2, "a", "b"),
        lambda: Place(1, 2, lat=1),
        lambda: Place(1, 2, x=1),
    ):
        with pytest.raises(TypeError):
            wrong()


class Span(NamedTuple):
    """Two fields, one with a default, and a method."""

    first: int
    last: int | None = None

    def is_open(self) -> bool:
        """Return whether it has no end."""
        return self.last is None


def test_a_named_tuple_is_one_of_the_standard_library() -> None:
    """Made, compared, copied, refused, described and annotated like a class of `typing.NamedTuple`; and a tuple."""
    import pickle
    import typing

    theirs = typing.NamedTuple("Span", [("first", int), ("last", typing.Optional[int])])  # noqa: UP014, UP045
    theirs.__new__.__defaults__ = (None,)
    span = Span(1)
    assert span == (1, None) == theirs(1) == pickle.loads(pickle.dumps(span))
    assert (Span.__mro__[1:], Span._fields, repr(span)) == (theirs.__mro__[1:], theirs._fields, repr(theirs(1)))
    assert typing.get_type_hints(Span) == typing.get_type_hints(theirs)
    assert (Span._field_defaults, span._replace(last=2)._asdict()) == ({"last": None}, {"first": 1, "last": 2})
    assert (span.is_open(), Span(1, 2).is_open(), Span.__doc__) == (
        True,
        False,
        "Two fields, one with a default, and a method.",
    )
    assert (Span.__module__, Span.__qualname__) == (__name__, "Span")
    for wrong in (Span, lambda: Span(1, 2, 3), lambda: Span(x=1)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        span.first = 3  # type: ignore[misc]


def test_versions_are_those_of_the_packaging_library() -> None:
    """The first fields of METADATA are read, not all of it: the same answer for every distribution here."""
    import importlib.metadata

    from provisioning.base.distributions import installed_version

    names = sorted({found.name for found in importlib.metadata.distributions() if found.name})
    assert {name: installed_version(name) for name in names} == {n: importlib.metadata.version(n) for n in names}
    assert installed_version("no-such-distribution", names[0]) == importlib.metadata.version(names[0])
    assert installed_version("no-such-distribution") is None


def test_doit_as_a_module_ends_as_the_command_does_and_another_program_does_not(monkeypatch):
    program = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.delitem(sys.modules, "doit.__main__", raising=False)
    for name, ends in (("doit.__main__", True), ("pytest.__main__", False)):
        program.__spec__ = importlib.machinery.ModuleSpec(name, None)
        assert plugin._ends_here() is ends
    program.__spec__ = None
    assert not plugin._ends_here()
