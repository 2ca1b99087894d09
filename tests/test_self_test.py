"""`flightcache doctor --self`: what is wrong with a computer is said, with a next step, and nothing else is."""

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from provisioning.cli import main
from provisioning.cli.check import self_test
from provisioning.cli.check.self_test import Surroundings, examine_machine, requirements
from provisioning.engines.host import Machine
from provisioning.engines.tensorrt.cuda import Gpu
from tests.hosts import HOSTS

ORIN = Gpu("Orin", "87", 12060)


@pytest.fixture
def here(tmp_path):
    """A computer on which all is well: an AVX2 host with 8 GiB, whose packages are not looked at."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cpuinfo").write_text(HOSTS["avx2"].cpuinfo)
    (proc / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8388608 kB\n")
    machine = Machine(etc=tmp_path, proc=proc, machine="x86_64", gpu=lambda: None, installed=lambda *_: None)
    return Surroundings(folder=tmp_path, machine=machine, requires=list)


def _found(here, what):
    """The findings about `what`; every one that is not well has a next step."""
    findings = examine_machine(here)
    assert [finding for finding in findings if finding.state != "ok" and not finding.todo] == []
    return [finding for finding in findings if finding.what == what]


def test_this_computer_is_well_and_nothing_is_left_behind(tmp_path, capsys):
    assert main(["doctor", "--self", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "bad" not in said
    assert all(what in said for what in ("python", "packages", "cpu", "gpu", "memory", "fsync", "clock"))
    assert list(tmp_path.iterdir()) == []


def test_programs_get_json_and_the_exit_code(tmp_path, capsys):
    assert main(["doctor", "--self", "--json", str(tmp_path / "missing")]) == 10
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["what"] for finding in findings if finding["state"] == "bad"] == ["fsync"]


def test_all_is_well_on_a_good_computer(here):
    assert {finding.state for finding in examine_machine(here)} == {"ok"}


@pytest.mark.parametrize(("python", "state"), [((3, 9, 19), "bad"), ((3, 10, 0), "ok"), ((3, 14, 0), "ok")])
def test_an_old_python_is_refused(here, python, state):
    assert [finding.state for finding in _found(replace(here, python=python), "python")] == [state]


def test_every_package_that_is_asked_for_is_looked_at():
    wanted = self_test._needed(requirements())
    assert {"onnxruntime", "faiss-cpu", "numpy", "cryptography", "pillow"} <= set(wanted)
    assert "pytest" not in wanted


def test_a_package_that_is_not_there_or_too_old_is_named_with_its_command(here):
    here = replace(here, requires=lambda: ["no-such-package>=2", "numpy>=999", "tomli; python_version < '3'"])
    (missing,) = _found(here, "package no-such-package")
    assert (missing.state, missing.todo) == ("bad", "pip install 'no-such-package>=2'")
    (old,) = _found(here, "package numpy")
    assert "is installed, >=999 is needed" in old.said
    assert _found(here, "package tomli") == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo '[\"numpy\", null]'; kill -ILL $$", "ended Python by SIGILL"),
        ("echo '[\"numpy\", null]'; exit 3", "ended Python with code 3"),
        ('echo \'["numpy", "ImportError: GLIBC_2.39"]\'', "does not import: ImportError: GLIBC_2.39"),
    ],
)
def test_a_wheel_for_another_cpu_or_libc_is_named(here, tmp_path, script, said):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    (found,) = _found(replace(here, requires=lambda: ["numpy"], executable=str(python)), "package numpy")
    assert said in found.said
    assert "force-reinstall" in found.todo


def test_a_python_that_cannot_be_started_is_said(here):
    (found,) = _found(replace(here, requires=lambda: ["numpy"], executable="/nowhere/python"), "packages")
    assert found.state == "bad"


def test_a_checkout_that_is_not_installed_is_said(here):
    (found,) = _found(replace(here, requires=lambda: None), "packages")
    assert (found.state, found.todo) == ("warn", "pip install -e .")


@pytest.mark.parametrize("name", HOSTS)
def test_every_cpu_is_named_and_the_slow_ones_are_warned_of(here, name, tmp_path):
    host = HOSTS[name]
    (tmp_path / "proc/cpuinfo").write_text(host.cpuinfo)
    (found,) = _found(replace(here, machine=replace(here.machine, machine=host.machine)), "cpu")
    assert found.state == ("warn" if name in ("generic", "sse4.1", "avx") else "ok")
    assert found.said.startswith(host.machine)


def test_a_processor_without_wheels_is_refused(here):
    (found,) = _found(replace(here, machine=replace(here.machine, machine="riscv64")), "cpu")
    assert found.state == "bad"


@pytest.mark.parametrize(
    ("jetson", "versions", "state", "todo"),
    [
        (True, {}, "warn", "python3-libnvinfer"),
        (False, {}, "warn", "flightcache[tensorrt]"),
        (False, {"tensorrt_rtx": "1.7.1.116"}, "ok", ""),
    ],
)
def test_an_idle_gpu_is_reported_with_what_it_needs(here, tmp_path, jetson, versions, state, todo):
    if jetson:
        (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3\n")
    installed = lambda *names: next((versions[name] for name in names if name in versions), None)  # noqa: E731
    (found,) = _found(replace(here, machine=replace(here.machine, gpu=lambda: ORIN, installed=installed)), "gpu")
    assert found.state == state
    assert todo in found.todo
    assert found.said.startswith("Orin, SM 87, CUDA 12.6")


@pytest.mark.parametrize(("meminfo", "state"), [("MemAvailable: 300000 kB\n", "warn"), ("nothing\n", "ok"), ("", "ok")])
def test_little_memory_is_warned_of(here, tmp_path, meminfo, state):
    (tmp_path / "proc/meminfo").write_text(meminfo)
    assert [finding.state for finding in _found(here, "memory")] == [state]


def test_a_network_file_system_is_refused_before_anything_is_written(here, monkeypatch):
    monkeypatch.setattr("provisioning.base.disk.files.filesystem_type", lambda *_: "nfs4")
    (found,) = _found(here, "file system")
    assert found.state == "bad"
    assert _found(here, "fsync") == []


def test_little_space_is_warned_of(here, monkeypatch):
    monkeypatch.setattr(self_test, "free_bytes", lambda _: 100_000_000)
    assert [finding.state for finding in _found(here, "free space")] == ["warn"]


def test_a_slow_medium_is_warned_of(here, monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(self_test.time, "perf_counter", lambda: next(seconds) * 0.2)
    (found,) = _found(here, "fsync")
    assert (found.state, found.said.split(" for")[0]) == ("warn", "200.0 ms")


def test_a_medium_that_cannot_sync_is_said_and_nothing_stays(here):
    def fails(_descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (found,) = _found(replace(here, fsync=fails), "fsync")
    assert (found.state, "Input/output error" in found.said) == ("bad", True)
    assert [path for path in here.folder.iterdir() if path.name.startswith(".flightcache")] == []


def test_a_clock_before_the_installation_is_said(here):
    installed_s = os.stat(Path(self_test.__file__))[stat.ST_MTIME]
    assert [finding.state for finding in _found(replace(here, now_s=lambda: installed_s - 86400), "clock")] == ["bad"]
