"""What several tests share: where real imagery is, if it is, and how many examples a property is tried on."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

from provisioning.base.geometry.angles import Origin
from tests.sharing import made_once

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, database=None)  # a red run is red again
settings.register_profile("thorough", deadline=None, max_examples=1000)


def pytest_configure(config: pytest.Config) -> None:
    """Load the profile that HYPOTHESIS_PROFILE names (`--hypothesis-profile` goes before it); hear SIGINT.

    A shell that starts a job in the background has it ignore SIGINT, and all its children: some tests are about that.
    Processes that tests start keep what they compile: each would compile 180 modules anew.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--hypothesis-profile"):
        usual = "thorough" if _is_slow_run(config) else "ci" if os.environ.get("CI") else "dev"
        settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or usual)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count properties among the slow tests of `-m slow`: tried on many examples they are their own long form."""
    for item in items:
        if _is_slow_run(config) and is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for garbage not while tests are collected, and later as seldom as `doit` does: each takes a tenth of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        gc.enable()


def _is_slow_run(config: pytest.Config) -> bool:
    return config.getoption("markexpr") == "slow"


@pytest.fixture(scope="session", autouse=True)
def _bare_machine() -> Iterator[None]:
    """Let `init` take GIST whether or not the extra [builtin] is installed: it is ten times as fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("provisioning.network.builtin.known.file_of", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_here() -> Iterator[Callable[..., object]]:
    """Compile small networks in this process: to start another takes half of a small build.

    `tests/test_engines_process.py` and each `doit` that is a process of its own compile as they do for a user.
    """
    from provisioning.engines import compile as compiling
    from provisioning.engines.ort.ort import OnnxRuntime

    apart = compiling.compile_engine

    def compile_engine(spec, output, *, log, last_s=0):
        if spec.host.backend != OnnxRuntime.name or spec.custom_ops:
            return apart(spec, output, log=log, last_s=last_s)
        for folder in (log.parent, spec.state):
            folder.mkdir(parents=True, exist_ok=True)
        log.touch()
        facts = OnnxRuntime().build(spec, output)
        OnnxRuntime().inspect(output.read_bytes())
        return compiling.Compiled(0.1, facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "compile_engine", compile_engine)
        yield apart


@pytest.fixture
def compiled_apart(_compiled_here: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile networks in a process of their own, as for a user."""
    monkeypatch.setattr("provisioning.engines.compile.compile_engine", _compiled_here)


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real imagery beside the checkout, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real imagery is not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def demo_imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo's tiles, 60 of them, drawn once for all workers; read them, do not change them."""
    from provisioning.cli.begin import demo_imagery as demo

    return made_once(tmp_path_factory, "imagery", demo.write_demo_tiles)


@pytest.fixture(scope="session", autouse=True)
def _small_landscape() -> Iterator[None]:
    """Let the demo's landscape be 60 tiles: its 660 take 20 s of processor time. `tests/test_demo.py` draws all, nightly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("provisioning.cli.begin.demo_imagery.COLUMNS", 4)
        patch.setattr("provisioning.cli.begin.demo_imagery.ROWS", 3)
        yield


@pytest.fixture(scope="session")
def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with four tiles, key, network, calibration and a cache that has published F-1; tests work on copies."""
    from tests import building, crashing

    def make(site: Path) -> None:
        first = building.build(crashing.new_world(site))
        assert first.outcome == "SUCCESS", first.failure

    return made_once(tmp_path_factory, "built", make)


@pytest.fixture(scope="session")
def flown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Origin]:
    """Return a cache whose imagery is on board, and where the photo beside it was taken; do not change them."""
    from tests.photographing import flown_from, flown_site

    return made_once(tmp_path_factory, "flown", flown_site) / "cache", flown_from()


@pytest.fixture
def built_cache(built_site: Path, tmp_path: Path) -> Path:
    """Return the cache directory of a copy of `built_site`, as `cp -a` makes it."""
    from tests.building import copy_site

    return copy_site(built_site, tmp_path / "site")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the processes that a test starts without coverage, which takes time and memory, imports and writes files."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _no_geoid() -> Iterator[None]:
    """Keep heights as files have them, whether or not this computer has a geoid model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("provisioning.area.geoid.folders", tuple)
        yield
