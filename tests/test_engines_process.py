"""A compile is a process of its own: why it died is reported, it ends when it is asked to, and reports how long it takes."""

import io
import logging
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from provisioning.base.errors import EngineError
from provisioning.base.process.signals import Stopped, stops_in_order
from provisioning.config import Backbone, Engine
from provisioning.console.human import HumanListener
from provisioning.engines import HostTuple, OnnxRuntime, compile, engine_spec  # noqa: A004 - the module
from provisioning.engines.compile import Compiled, compile_engine, compiled_path, read_compiled
from provisioning.engines.tensorrt.layers import layers_note
from tests import networks
from tests.processes import gone

ORIN = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    """Return a function that compiles with a `tensorrt` whose import runs the given code."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def compile_with(code, *, last_s=0, **settings):
        (site / "tensorrt.py").write_text(textwrap.dedent(code))
        onnx = networks.save(networks.network(), tmp_path / "m.onnx")
        spec = engine_spec(onnx, ORIN, Backbone(name="net"), Engine(**settings), state=tmp_path / "state")
        return compile_engine(spec, tmp_path / "engine", log=tmp_path / "log" / "net.log", last_s=last_s)

    return compile_with


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"crashed \(SIGSEGV\)"),
        ("import os; os.kill(os.getpid(), 6)", r"crashed \(SIGABRT\)"),
        ("import os; os.kill(os.getpid(), 9)", r"was killed \(SIGKILL\)"),
        ("import os; os._exit(3)", "exit code 3 and no answer"),
        ("raise MemoryError", "ran out of memory"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "cannot be imported"),
    ],
)
def test_what_a_compile_dies_of_is_reported(vendor, code, what):
    with pytest.raises(EngineError, match=what):
        vendor(code)


def test_killed_compile_points_to_memory(vendor):
    with pytest.raises(EngineError) as caught:
        vendor("import os; os.kill(os.getpid(), 9)")
    assert "workspace_mb" in caught.value.next_step


def test_last_words_of_a_crashed_compile_are_in_the_error_and_in_its_log(vendor, tmp_path):
    with pytest.raises(EngineError) as caught:
        vendor("import os; print('[TRT] about to fall over', flush=True); os.kill(os.getpid(), 11)")
    assert "about to fall over" in caught.value.facts["last lines"]
    assert "about to fall over" in (tmp_path / "log/net.log").read_text()


def test_failed_compile_leaves_no_answer_behind(vendor, tmp_path):
    with pytest.raises(EngineError):
        vendor("import os; os._exit(3)")
    assert not list(tmp_path.glob("*.answer"))


def test_compile_over_its_time_limit_is_ended(vendor):
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"engine.timeout_s"):
        vendor("import time; time.sleep(60)", timeout_s=1)
    assert time.monotonic() - started < 50  # the compile takes 60


def test_compile_that_ignores_the_order_to_stop_is_killed(vendor):
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"engine.timeout_s"):
        vendor("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)", timeout_s=1)
    assert time.monotonic() - started < 50


def test_children_of_a_compile_end_with_it(vendor, tmp_path):
    pid_file = tmp_path / "pid"
    with pytest.raises(EngineError):
        vendor(
            f"""
            import subprocess, time
            child = subprocess.Popen(["sleep", "600"])
            open({str(pid_file)!r}, "w").write(str(child.pid))
            time.sleep(60)
            """,
            timeout_s=1,
        )
    assert gone(int(pid_file.read_text()))


PARENT = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from provisioning.config import Backbone, Engine
from provisioning.engines import HostTuple, engine_spec
from provisioning.engines.compile import compile_engine
root = Path({root!r})
spec = engine_spec(root / "m.onnx", HostTuple(*{host!r}), Backbone(name="net"), Engine(), state=root / "state")
compile_engine(spec, root / "engine", log=root / "log")
"""


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_compile_ends_with_the_process_that_asked_for_it(tmp_path, order):
    (tmp_path / "site").mkdir()
    pid_file = tmp_path / "pid"
    (tmp_path / "site/tensorrt.py").write_text(
        f"import os, time\nopen({str(pid_file) + '.new'!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(pid_file) + '.new'!r}, {str(pid_file)!r})\ntime.sleep(600)\n"
    )
    networks.save(networks.network(), tmp_path / "m.onnx")
    code = PARENT.format(path=[str(tmp_path / "site"), *sys.path], root=str(tmp_path), host=tuple(ORIN))
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not pid_file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        child = int(pid_file.read_text())
        parent.send_signal(order)
        parent.wait(120)
        assert gone(child)
    finally:
        parent.kill()
        parent.wait()


def test_a_stop_that_meets_a_compile_as_it_starts_ends_it(vendor, monkeypatch):
    """One that was not ended would keep the build lock that it was given."""
    started = []

    def start(*args, **options):
        started.append(subprocess.Popen(*args, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(compile, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    with pytest.raises(Stopped), stops_in_order():
        vendor("import time; time.sleep(600)")
    assert started[0].returncode is not None


def test_compile_shows_elapsed_time_against_last_time(vendor, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "c10.provision"), pytest.raises(EngineError):
        vendor("import time; time.sleep(60)", timeout_s=2, last_s=41.6)
    beats = [record.kv for record in caplog.records if record.kv["task"] == "engine:net"]
    assert beats
    assert {(beat["total"], beat["unit"]) for beat in beats} == {(42, "s")}
    assert beats[-1]["done"] >= 1


def test_log_without_a_terminal_hears_now_and_then(vendor, caplog, monkeypatch):
    monkeypatch.setattr("provisioning.engines.compile.LINE_EVERY_S", 1.0)
    with caplog.at_level(logging.INFO, "c10.provision"), pytest.raises(EngineError):
        vendor("import time; time.sleep(60)", timeout_s=3)
    reported = [record.kv for record in caplog.records if record.kind == "c10.provision.engine.compiling"]
    assert [fields["elapsed_s"] for fields in reported] == [1, 2]
    stream = io.StringIO()
    HumanListener(stream).show(caplog.records[0])
    assert stream.getvalue().split() == ["engine:net", "still", "compiling", "after", "1", "s"]


def test_files_in_the_cache_directory_are_never_imported_by_a_compile(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the cache directory')")
    monkeypatch.chdir(tmp_path)
    onnx = networks.save(networks.network(), tmp_path / "m.onnx")
    spec = engine_spec(onnx, OnnxRuntime().probe(), Backbone(name="net"), Engine(), state=tmp_path / "state")
    compile_engine(spec, tmp_path / "engine", log=tmp_path / "log")
    assert (tmp_path / "engine").is_file()


def test_what_a_compile_reports_is_read_back_beside_its_engine(tmp_path):
    engine = tmp_path / "net.engine"
    compiled = Compiled(1.25, {"layers": {"count": 2, "types": {"Conv": 2}, "outputs": {"Half": 1}}, "bytes": 7})
    compiled_path(engine).write_text(compiled.to_json())
    assert read_compiled(engine) == compiled
    assert layers_note("net", compiled.facts) == "net: 2 layers (2 Conv, 1 Half)"


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"elapsed_s": "x", "facts": {}}', b'{"facts": 1}'])
def test_record_of_a_compile_that_cannot_be_read_is_none(tmp_path, content):
    if content is not None:
        compiled_path(tmp_path / "e").write_bytes(content)
    assert read_compiled(tmp_path / "e") is None


def test_compile_that_reports_no_layers_has_no_note():
    assert layers_note("net", {"level": "extended"}) is None
