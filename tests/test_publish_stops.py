"""A build that is stopped at any step between its stage and its tidying up: the next publishes exactly what is asked.

The child that is stopped is a fork that runs the build as `doit` does, signal handlers included; the real process is the
slow form.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.base.disk import directories
from provisioning.base.process.signals import Stopped, stops_in_order
from provisioning.build.reasons import expectations
from provisioning.build.request import read_request
from provisioning.build.steps import generation
from provisioning.flight import publish
from provisioning.flight.publish import committing, staging
from provisioning.flight.signing import signer
from provisioning.flight.verify import verify
from tests import crashing
from tests.building import build, edit

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def is_first(*args: Any) -> bool:
    return True


def places(suffix: str) -> Callable[..., bool]:
    """Tell whether a call is about a file whose name ends so."""
    return lambda path, *_: str(path).endswith(suffix)


STEPS: dict[str, tuple[Any, str, str, Callable[..., bool]]] = {
    "signed": (signer, "sign", "after", is_first),
    "stage begun": (directories, "make", "after", lambda _cache, relative: relative.startswith(".build/stage/")),
    "first file linked": (staging, "_place", "after", is_first),
    "last file linked": (staging, "_place", "after", lambda _cache, _source, to, _record: to.name == "report.html"),
    "Manifest written": (staging, "write_new", "after", places("/Manifest.json")),
    "Manifest's digest written": (staging, "write_new", "after", places("/Manifest.json.sha256")),
    "signature written": (staging, "write_new", "after", places("/Manifest.json.sig")),
    "staged": (publish, "stage", "after", is_first),
    "verified": (publish, "commit", "before", is_first),
    "before it is named": (directories, "rename", "before", lambda _c, _old, new: new.startswith("generations/")),
    "named": (directories, "rename", "after", lambda _c, _old, new: new.startswith("generations/")),
    "made read-only": (committing, "make_read_only", "after", is_first),
    "before the switch": (committing, "_switch", "before", is_first),
    "switched": (committing, "_switch", "after", is_first),
    "counter written": (committing, "remember", "after", is_first),
    "pruned": (committing, "prune", "after", is_first),
    "superseded files removed": (generation, "forget_superseded", "after", is_first),
}
SWITCHED = tuple(STEPS)[tuple(STEPS).index("switched") :]


@pytest.fixture
def cache(built_cache: Path) -> Path:
    """A cache that has published the flight F-1 and is asked for F-2."""
    edit(built_cache, 'id = "F-1"', 'id = "F-2"')
    return built_cache


@contextlib.contextmanager
def stopping(step: str, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` once, at a step of the publisher."""
    module, name, when, matches = STEPS[step]
    real, due = getattr(module, name), [True]

    def call(*args: Any, **kwargs: Any) -> Any:
        hit = due[0] and matches(*args)
        if hit and when == "before":
            due.clear(), due.append(False), stop()
        result = real(*args, **kwargs)
        if hit and when == "after":
            due.clear(), due.append(False), stop()
        return result

    setattr(module, name, call)
    try:
        yield
    finally:
        setattr(module, name, real)


def build_and_stop(cache: Path, step: str, number: signal.Signals) -> int:
    """Build in a fork that gets the signal at the step; return its wait status."""
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(Stopped), stops_in_order(), stopping(step, lambda: os.kill(os.getpid(), number)):
            code = {"FAILURE": 1, "SUCCESS": 0}.get(build(cache).outcome, 98)
        os._exit(code)
    return os.waitpid(child, 0)[1]


def flight_of(cache: Path) -> str:
    """The flight id of what is published, which verifies for the request as it is."""
    with verify(cache, expectations(read_request(cache))) as verdict:
        return verdict.require().flight.flight_id


def ask_for(cache: Path, flight: str) -> None:
    file = cache / "flight.toml"
    lines = file.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith('id = "'))
    lines[at] = f'id = "{flight}"'
    file.write_text("\n".join(lines) + "\n")


def publishes_what_is_asked(cache: Path, flight: str, outcome: str) -> None:
    ask_for(cache, flight)
    assert crashing.whole(cache) == []
    done = build(cache)
    assert (done.outcome, flight_of(cache)) == (outcome, flight), done.failure
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    assert crashing.leftovers(cache) == []


USUAL = ("last file linked", "Manifest written", "staged", "named", "switched")
"""What differs on disk; each other step leaves what the one before it does, or less than the next."""


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param(
            step,
            number,
            marks=() if step in USUAL and number == signal.SIGKILL else pytest.mark.slow,
            id=f"{step}-{number.name}",
        )
        for step in STEPS
        for number in SIGNALS
    ],
)
def test_stopped_at_a_step_what_flight_toml_then_says_is_published(cache: Path, step: str, number: Any) -> None:
    """Back to what was published before: nothing to do before the switch, published anew after it; then another."""
    status = build_and_stop(cache, step, number)
    if number == signal.SIGKILL:
        assert os.WIFSIGNALED(status), step
    else:
        assert os.WIFEXITED(status), step
    was_switched = step in SWITCHED or not os.path.samefile(cache / "current", cache / "generations" / "000001")
    assert was_switched == (step in SWITCHED)
    publishes_what_is_asked(cache, "F-1", "SUCCESS" if was_switched else "IDEMPOTENT_NO_OP")
    publishes_what_is_asked(cache, "F-4", "SUCCESS")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda n: n.name
)
@pytest.mark.parametrize("step", ["Manifest written", "switched"])
def test_a_stop_in_order_leaves_neither_stage_nor_doubt(cache: Path, step: str, number: Any) -> None:
    build_and_stop(cache, step, number)
    publishes_what_is_asked(cache, "F-3", "SUCCESS")


@pytest.mark.parametrize("step", ["named", "switched"])
def test_the_same_request_is_published_after_a_kill(cache: Path, step: str) -> None:
    build_and_stop(cache, step, signal.SIGKILL)
    publishes_what_is_asked(cache, "F-2", "IDEMPOTENT_NO_OP" if step in SWITCHED else "SUCCESS")


REAL = """
import os, signal, sys
from tests.test_publish_stops import stopping
from doit.doit_cmd import DoitMain
with stopping(sys.argv[1], lambda: os.kill(os.getpid(), int(sys.argv[2]))):
    sys.exit(DoitMain().run(["manifest"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("step", STEPS)
def test_a_real_doit_manifest_that_is_stopped_leaves_no_stale_request(cache: Path, step: str, number: Any) -> None:
    """Both endings that were wrong: the stale request under IDEMPOTENT_NO_OP, and failing for ever."""
    words = [sys.executable, "-c", REAL, step, str(int(number))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=cache, env=environment, capture_output=True, text=True, check=False)
    wanted = {-signal.SIGKILL} if number == signal.SIGKILL else {128 + number, 0}
    assert done.returncode in wanted, done.stderr
    publishes_what_is_asked(cache, "F-1", "SUCCESS" if step in SWITCHED else "IDEMPOTENT_NO_OP")
    publishes_what_is_asked(cache, "F-4", "SUCCESS")
