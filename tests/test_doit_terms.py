"""The build in doit's own terms: what tasks declare, that every way of starting holds the lock, and what doit loses."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from doit.doit_cmd import DoitMain

import rules
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import BuildLockHeldError
from provisioning.build.plan import make_plan
from provisioning.build.reasons import expectations
from provisioning.build.request import read_request
from provisioning.build.steps.corpus import survey
from provisioning.build.tasks import WALK, task_rows
from provisioning.config.parse import read_flight
from provisioning.flight.publish import CURRENT
from provisioning.flight.verify import verify
from tests.building import build, doit_here, edit
from tests.crashing import put_tile

ROOT = Path(__file__).resolve().parents[1]
DOIT = str(Path(sys.executable).with_name("doit"))
WAYS = {
    "doit": ([DOIT], "."),
    "-f": ([DOIT, "-f", "{cache}/dodo.py"], ".."),
    "-k in a subfolder": ([DOIT, "-k"], "sub"),
    "-d": ([DOIT, "-f", "{cache}/dodo.py", "-d", "{cache}/sub"], ".."),
    "python -m doit": ([sys.executable, "-m", "doit"], "."),
    "python -m doit run -f": ([sys.executable, "-m", "doit", "run", "-f", "{cache}/dodo.py"], ".."),
}


@pytest.fixture
def cache(built_cache):
    """A published cache where nothing is left to do, with a subfolder."""
    (built_cache / "sub").mkdir()
    assert build(built_cache).outcome == "IDEMPOTENT_NO_OP"
    return built_cache


def doit(cache: Path, *words: str, at: str = ".") -> subprocess.CompletedProcess[str]:
    command = [word.format(cache=cache) for word in words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cache / at, env=environment, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip().splitlines()[-1].split()[0]


@pytest.mark.parametrize(
    ("way", "real"),
    [pytest.param(way, False, id=f"{way}-here") for way in WAYS if way != "python -m doit"]
    + [pytest.param(way, True, id=f"{way}-process", marks=pytest.mark.slow) for way in WAYS],
)
def test_however_doit_is_started_a_changed_tile_is_published_under_the_lock(cache, way, real, capsys):
    """Nothing changed, a tile changed while another builds, and then when the lock is free."""
    words, at = WAYS[way]

    def start() -> subprocess.CompletedProcess[str]:
        return doit(cache, *words, at=at) if real else doit_here(cache, *words, at=at, capsys=capsys)

    assert last_line(start()) == "IDEMPOTENT_NO_OP"
    put_tile(cache.parent / "tiles", 0, 0, seed=77)
    with build_lock(cache):
        held = start()
    assert (held.returncode, "another build runs" in held.stderr) == (3, True)
    assert os.readlink(cache / CURRENT) == "generations/000001"
    done = start()
    assert (done.returncode, last_line(done)) == (0, "SUCCESS"), done.stderr
    assert os.readlink(cache / CURRENT) == "generations/000002"


def test_a_program_that_builds_meets_the_same_lock(cache):
    """`rules.build`: nothing changed, a tile changed while another builds, and then when the lock is free."""
    assert rules.build(cache).outcome == "IDEMPOTENT_NO_OP"
    put_tile(cache.parent / "tiles", 0, 0, seed=76)
    with build_lock(cache), pytest.raises(BuildLockHeldError):
        rules.build(cache)
    assert rules.build(cache).outcome == "SUCCESS"
    assert os.readlink(cache / CURRENT) == "generations/000002"


@pytest.mark.parametrize("words", [("clean",), ("forget", "--all"), ("ignore", "gates"), ("reset-dep",)])
def test_commands_that_write_hold_the_lock_from_anywhere(cache, words, capsys):
    with build_lock(cache):
        held = doit_here(cache, words[0], "-f", f"{cache}/dodo.py", *words[1:], at="..", capsys=capsys)
    assert (held.returncode, "another build runs" in held.stderr) == (3, True)


def test_a_dodo_of_another_project_is_doits_own(tmp_path, capsys):
    (tmp_path / "dodo.py").write_text(
        "def task_hello():\n    return {'actions': ['echo hello > out'], 'targets': ['out'], 'doc': 'hello'}\n"
    )
    done = doit(tmp_path, DOIT)
    assert (done.returncode, done.stdout, max(os.listdir(tmp_path))) == (0, ".  hello\n", "out")
    assert "status     : run" in doit_here(tmp_path, "info", "hello", capsys=capsys).stdout
    assert doit_here(tmp_path, "clean", capsys=capsys).returncode == 0


def test_a_command_that_does_not_hold_the_lock_writes_nothing(cache):
    """A plugin that runs doit's own `run` meets the refusal in the first task that is due."""
    put_tile(cache.parent / "tiles", 0, 0, seed=78)
    code = (
        "import sys; from doit.cmd_base import ModuleTaskLoader; from doit.cmd_run import Run;"
        "from pathlib import Path; from rules.tasks import Tasks, namespace; root = Path(sys.argv[1]);"
        "command = Run(task_loader=ModuleTaskLoader(namespace(Tasks(root))), config={}, bin_name='doit', cmds={});"
        "sys.exit(command.execute(*command.cmdparser.parse(['coverage'])))"
    )
    done = subprocess.run([sys.executable, "-c", code, cache], cwd=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not hold the build lock" in done.stdout + done.stderr


@pytest.mark.parametrize("how", ["lost", "damaged", "of another version"])
def test_a_lost_doit_database_builds_nothing_again_and_is_filled(cache, how):
    database = cache / ".build" / "doit.sqlite"
    if how == "lost":
        database.unlink()
    elif how == "damaged":
        database.write_bytes(b"SQLite format 3\0" + bytes(1000))
    else:
        with sqlite3.connect(database) as db:
            db.execute('UPDATE doit SET task_data = \'{"deps:": ["/gone"], "checker:": "MD5Checker"}\'')
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    with sqlite3.connect(database) as db:
        known = dict(db.execute("SELECT task_id, task_data FROM doit"))
    assert str(cache / "current" / "Manifest.json") in known[WALK]
    assert json.loads(known["manifest"])["checker:"] == "TimestampChecker"


def test_the_manifest_is_a_target_that_can_be_asked_for(cache, capsys):
    edit(cache, 'id = "F-1"', 'id = "F-2"')
    done = doit_here(cache, "current/Manifest.json", capsys=capsys)
    assert (done.returncode, last_line(done)) == (0, "SUCCESS"), done.stderr
    assert json.loads((cache / "current" / "Manifest.json").read_bytes())["flight"]["flight_id"] == "F-2"


def test_every_file_that_a_task_is_made_from_is_declared(cache):
    rows = {row.name: row for row in task_rows(read_request(cache))}
    made = {path: row.name for row in rows.values() for path in (*(t.path for t in row.makes), *row.publishes)}
    assert {made[path] for path in rows["gates"].needs} == {"engine:net", "corpus"}
    assert {made.get(path, path.name) for path in rows["manifest"].needs} == {
        "engine:net", "corpus", "gates", "report", "camera.yaml",
    }  # fmt: skip
    assert [path.name for path in rows["manifest"].publishes] == [
        "Manifest.json", "Manifest.json.sha256", "Manifest.json.sig",
    ]  # fmt: skip
    assert rows["engine:net"].facts["host"]["backend"] == "onnxruntime"
    assert rows["corpus"].facts["tile count"] == 4
    assert len(rows["descriptors"].needs) == 1  # a million tiles are one digest, never a million file_deps


def test_info_is_one_screen_in_the_words_of_why(cache, capsys):
    assert doit_here(cache, "info", "gates", capsys=capsys).returncode == 0
    put_tile(cache.parent / "tiles", 0, 0, seed=79)
    doit_here(cache, "descriptors", capsys=capsys)
    shown = doit_here(cache, "info", "corpus", capsys=capsys)
    why = next(task for task in make_plan(cache).tasks if task.task == "corpus").why
    assert shown.returncode == 1
    assert f"due because {why[0]}" in shown.stdout
    assert len(shown.stdout.splitlines()) < 40
    assert max(map(len, shown.stdout.splitlines())) < 200
    unknown = doit_here(cache, "info", "corpse", capsys=capsys)
    assert (unknown.returncode, "there is no task 'corpse'" in unknown.stderr) == (3, True)


def in_process(cache: Path, *words: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> tuple[int, str]:
    """Run `doit` in this process; return its exit code and what it printed, with digests and places masked."""
    monkeypatch.chdir(cache)
    monkeypatch.delitem(sys.modules, "dodo", raising=False)  # doit imports it by name
    code = DoitMain().run(list(words))
    said = capsys.readouterr().out
    said = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", said)
    said = re.sub(r"\b[0-9a-f]{8}…", "<digest>", said)
    for place in sorted({str(cache.parent), os.path.relpath(cache.parent, cache)}, key=len, reverse=True):
        said = said.replace(place + "/", "SITE/")
    return code, said


WORDS = {
    "up-to-date": [("info", "corpus"), ("info", "manifest"), ("info", "engine:net"), ("list", "--deps", "--all")],
    "stale": [("info", "corpus"), ("info", "descriptors"), ("info", "manifest")],
}
HOSTLY = re.compile(r"(decided by|^ +)(\S*(host|arch|device|runtime|platform|decoder|faiss)\S*: ).*", re.MULTILINE)


@pytest.mark.parametrize("state", WORDS)
def test_info_and_deps_are_what_a_doit_user_would_call_right(cache, capsys, monkeypatch, state):
    """The texts of tests/golden; FLIGHTCACHE_UPDATE_GOLDEN=1 writes them."""
    if state == "stale":
        put_tile(cache.parent / "tiles", 0, 0, seed=80)
        with build_lock(cache):
            survey(read_flight(cache))
    said = ""
    for words in WORDS[state]:
        code, out = in_process(cache, *words, capsys=capsys, monkeypatch=monkeypatch)
        out = re.sub(r"net_\S+?\.engine", "net_<host>.engine", HOSTLY.sub(r"\1\2<host>", out))
        if "--deps" in words:  # doit keeps them in a set
            out = (
                "\n\n".join(
                    "\n".join(sorted(block.splitlines(), key=lambda line: (line.startswith(" "), line)))
                    for block in out.strip().split("\n\n")
                )
                + "\n"
            )
        said += f"$ doit {' '.join(words)}\n{out}[exit {code}]\n\n"
    golden = ROOT / "tests" / "golden" / f"doit-info-{state}.txt"
    if os.environ.get("FLIGHTCACHE_UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()


def test_status_of_list_agrees_with_plan(cache, capsys):
    for change in (lambda: None, lambda: edit(cache, 'id = "F-1"', 'id = "F-3"')):
        change()
        plan = {task.task: task.will_run for task in make_plan(cache).tasks}
        lines = doit_here(cache, "list", "--all", "--status", "-q", capsys=capsys).stdout.splitlines()
        shown = {words[1]: words[0] == "R" for words in map(str.split, lines)}
        assert {name: due for name, due in shown.items() if name in plan} == plan


def test_a_stage_of_another_request_is_never_published(cache, monkeypatch):
    """A build that is killed between stage and switch leaves no Manifest for the next to publish."""
    edit(cache, 'id = "F-1"', 'id = "F-2"')
    code = (
        "import os, signal, sys, rules; from provisioning.flight import publish;"
        "publish.commit = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL); rules.build(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, cache], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(cache / ".build" / "stage") == ["000002"]
    edit(cache, 'id = "F-2"', 'id = "F-1"')
    assert build(cache).outcome == "IDEMPOTENT_NO_OP"
    edit(cache, 'id = "F-1"', 'id = "F-4"')
    assert build(cache).outcome == "SUCCESS"
    with verify(cache, expectations(read_request(cache))) as verdict:
        assert verdict.require().flight.flight_id == "F-4"


def test_what_was_ignored_is_not_called_done(cache, capsys):
    edit(cache, 'id = "F-1"', 'id = "F-5"')
    assert doit_here(cache, "ignore", "manifest", capsys=capsys).returncode == 0
    done = doit_here(cache, capsys=capsys)
    assert (done.returncode, last_line(done)) == (1, "FAILURE")
    assert "asked to ignore manifest" in done.stderr
    assert doit_here(cache, "forget", "manifest", capsys=capsys).returncode == 0
    assert last_line(doit_here(cache, capsys=capsys)) == "SUCCESS"


def test_a_report_that_cannot_be_written_after_the_switch_is_a_warning(cache):
    edit(cache, 'id = "F-1"', 'id = "F-6"')
    report = cache / ".build" / "build-report.json"
    report.unlink()
    report.mkdir()
    done = build(cache)
    assert done.outcome == "SUCCESS"
    shutil.rmtree(report)


def test_the_report_names_the_manifest_and_a_failure_names_none(cache):
    done = rules.build(cache)
    assert (done.outcome, done.engines_reused) == ("IDEMPOTENT_NO_OP", 0)
    assert json.loads(Path(done.manifest_path).read_bytes())["build"]["manifest_hash"] == done.manifest_hash
    with build_lock(cache), pytest.raises(BuildLockHeldError) as held:
        rules.build(cache)
    assert (held.value.report.manifest_hash, held.value.report.manifest_path) == (None, None)


def test_engines_are_compiled_without_any_tile(cache, capsys):
    shutil.rmtree(cache.parent / "tiles")
    for store in cache.glob(".build/store/*/*.engine"):
        shutil.rmtree(store.parent)
    done = doit_here(cache, "engine", capsys=capsys)
    assert (done.returncode, last_line(done)) == (0, "SUCCESS"), done.stderr
    refused = doit_here(cache, capsys=capsys)
    assert (refused.returncode, "tiles.source[0].path: no such file" in refused.stderr) == (1, True), refused.stderr


def test_clock_and_logger_of_the_caller_are_used(cache):
    ticks, seen = iter(range(1000)), []
    logger = logging.getLogger("mine")
    logger.setLevel(logging.INFO)
    logger.addHandler(type("Seen", (logging.Handler,), {"emit": lambda _self, record: seen.append(record)})())
    edit(cache, 'id = "F-1"', 'id = "F-7"')
    done = rules.build(cache, clock=lambda: float(next(ticks)), logger=logger)
    assert done.elapsed_s == int(done.elapsed_s) > 0
    success = next(record for record in seen if record.kind == "c10.provision.build.success")
    assert success.kv["manifest_hash"] == done.manifest_hash
    assert {"engines_built", "engines_reused", "descriptors_generated", "elapsed_s"} < success.kv.keys()
