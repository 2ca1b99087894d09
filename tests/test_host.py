"""Host tuples of computers that are not here: their files, packages and driver answers put in place of ours."""

import ctypes
import json
import logging
import shutil
import subprocess
import sys

import pytest

from provisioning.base.errors import EngineError
from provisioning.cli import main
from provisioning.cli.look.host import as_text, describe
from provisioning.config import Engine
from provisioning.engines import HostTuple, Machine, TensorRT, select
from provisioning.engines.host import driver_version, gpu_platform, instruction_class, jetpack, l4t_release
from provisioning.engines.tensorrt.cuda import Gpu, query_gpu

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
R39 = "# R39 (release), REVISION: 2.0, GCID: 44123456, BOARD: generic, EABI: aarch64\n"
DISCRETE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n"
ORIN, THOR = Gpu("Orin", "87", 12060), Gpu("NVIDIA Thor", "110", 13000)
RTX, H100 = Gpu("NVIDIA GeForce RTX 4090", "89", 13000), Gpu("NVIDIA H100 80GB HBM3", "90", 12080)
AVX512 = "processor\t: 0\nflags\t\t: fpu sse4_1 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni\n"
CORTEX = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp i8mm bf16\n"


def machine(root, *, release="", driver="", cpuinfo="", packages=None, gpu=None, arch="aarch64", versions=None):
    """Return a computer whose /etc and /proc are below `root`."""
    (root / "etc").mkdir()
    (root / "proc/driver/nvidia").mkdir(parents=True)
    for path, text in (
        ("etc/nv_tegra_release", release),
        ("proc/driver/nvidia/version", driver),
        ("proc/cpuinfo", cpuinfo),
    ):
        if text:
            (root / path).write_text(text)
    return Machine(
        etc=root / "etc",
        proc=root / "proc",
        machine=arch,
        gpu=lambda: gpu,
        dpkg=(packages or {}).get,
        installed=lambda *names: next((versions[n] for n in names if n in (versions or {})), None),
    )


@pytest.fixture(autouse=True)
def tensorrt_not_imported():
    """What a test imported under this name is no other test's: which one comes first is not said."""
    sys.modules.pop("tensorrt", None)
    yield
    sys.modules.pop("tensorrt", None)


@pytest.fixture
def tensorrt_is_importable(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())


def host_of(backend, this):
    return TensorRT(backend, this).probe()


@pytest.mark.usefixtures("tensorrt_is_importable")
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            {"release": R36, "gpu": ORIN, "versions": {"tensorrt": "10.3.0.30"}},
            HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3"),
            id="orin-jetpack-6.2",
        ),
        pytest.param(
            {
                "packages": {"nvidia-l4t-core": "39.2.0-20260801120000"},
                "gpu": ORIN,
                "versions": {"tensorrt": "10.16.1.11"},
            },
            HostTuple("tensorrt", "10.16.1.11", "sm87", "Orin", "l4t39.2.0"),
            id="orin-jetpack-7.2-release-file-gone",
        ),
        pytest.param(
            {"release": R39, "gpu": THOR, "versions": {"tensorrt": "10.16.1.11"}},
            HostTuple("tensorrt", "10.16.1.11", "sm110", "NVIDIA-Thor", "l4t39.2.0"),
            id="thor",
        ),
        pytest.param(
            {"driver": DISCRETE, "gpu": RTX, "arch": "x86_64", "versions": {"tensorrt-cu13": "11.4.0.106"}},
            HostTuple("tensorrt", "11.4.0.106", "sm89", "NVIDIA-GeForce-RTX-4090", "linux-580.95.05"),
            id="desktop-rtx",
        ),
        pytest.param(
            {"gpu": H100, "arch": "x86_64", "versions": {"tensorrt": "10.16.1.11"}},
            HostTuple("tensorrt", "10.16.1.11", "sm90", "NVIDIA-H100-80GB-HBM3", "linux-cuda12.8"),
            id="h100-driver-version-not-readable",
        ),
    ],
)
def test_gpu_host_is_identified_by_its_driver_and_release(tmp_path, facts, expected):
    assert host_of("tensorrt", machine(tmp_path, **facts)) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "arch", "expected"),
    [(AVX512, "x86_64", "avx512-vnni"), (CORTEX, "aarch64", "neon+dotprod+i8mm+bf16"), ("", "x86_64", "generic")],
)
def test_cpu_host_is_identified_by_machine_and_instruction_sets(tmp_path, cpuinfo, arch, expected):
    this = machine(tmp_path, cpuinfo=cpuinfo, arch=arch, versions={"onnxruntime": "1.23.2"})
    assert select(Engine(), this).probe() == HostTuple("onnxruntime", "1.23.2", arch, expected, "linux")


def test_every_field_of_a_host_can_stand_in_a_preimage(tmp_path, tensorrt_is_importable):
    odd = Gpu("NVIDIA  Jetson_AGX Orin™ (64 GB)", "87", 12060)
    found = host_of("tensorrt", machine(tmp_path, release=R36, gpu=odd, versions={"tensorrt": "10.3.0.30"}))
    assert all(
        0x21 <= ord(letter) <= 0x7E and letter != "_" for value in found for letter in value if value != "tensorrt"
    )


def test_jetpack_is_shown_and_never_keyed_on(tmp_path):
    assert (jetpack("36.4.3"), jetpack("39.2.0"), jetpack("99.1")) == ("6.2", "7.2", None)
    assert l4t_release(machine(tmp_path, release="# R99 (release), REVISION: 1.0, GCID: 1\n")) == "99.1.0"


def test_dpkg_is_not_asked_on_a_computer_that_cannot_be_a_jetson(tmp_path):
    assert l4t_release(machine(tmp_path, arch="x86_64", packages={"nvidia-l4t-core": "36.4.3-1"})) is None


@pytest.mark.parametrize(("text", "expected"), [(DISCRETE, "580.95.05"), (OPEN, "540.4.0"), ("", None)])
def test_driver_version_is_read_from_both_kernel_modules(tmp_path, text, expected):
    assert driver_version(machine(tmp_path, driver=text)) == expected


def test_jetson_is_keyed_on_its_release_and_not_on_its_driver(tmp_path):
    assert gpu_platform(ORIN, machine(tmp_path, release=R36, driver=OPEN)) == "l4t36.4.3"


def test_amx_is_a_class_of_its_own(tmp_path):
    flags = AVX512.replace("avx512_vnni", "avx512_vnni amx_tile amx_int8")
    assert instruction_class(machine(tmp_path, cpuinfo=flags, arch="x86_64")) == "amx"


FAKE_DRIVER = """
#include <stdlib.h>
#include <unistd.h>
int asked;
int cuInit(unsigned f) { return INIT; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = 7; return 0; }
int cuDeviceGetName(char *s, int n, int d) { const char *m = "Orin"; for (int i = 0; i < 5; i++) s[i] = m[i]; return d != 7; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : -1; return d != 7; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
"""


@pytest.fixture
def fake_driver(tmp_path):
    """Return a function that compiles a libcuda with these answers."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make a CUDA driver of")

    def compiled(**answers):
        library = tmp_path / f"libcuda{len(list(tmp_path.iterdir()))}.so"
        defines = [f"-D{name}={value}" for name, value in answers.items()]
        command = ["gcc", "-shared", "-fPIC", *defines, "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=FAKE_DRIVER, text=True, check=True)
        return str(library)

    return compiled


def test_driver_is_asked_for_name_and_capability_without_nvml(fake_driver):
    assert query_gpu(fake_driver(INIT=0, COUNT=1)) == ORIN


@pytest.mark.parametrize(("init", "count"), [(35, 1), (100, 0), (0, 0)])
def test_driver_that_cannot_be_used_is_no_gpu(fake_driver, init, count):
    assert query_gpu(fake_driver(INIT=init, COUNT=count)) is None


def test_asking_leaves_this_process_able_to_fork(fake_driver):
    """A process that has initialised CUDA hands its forked children a driver that refuses them."""
    library = fake_driver(INIT="(asked++, 0)", COUNT=1)
    assert query_gpu(library) == ORIN
    assert ctypes.c_int.in_dll(ctypes.CDLL(library), "asked").value == 0


@pytest.mark.parametrize("accident", ["(*(volatile int *)0)", "(abort(), 0)", "(exit(0), 0)"])
def test_driver_that_falls_over_is_no_gpu(fake_driver, accident):
    assert query_gpu(fake_driver(INIT=accident, COUNT=1)) is None


def test_driver_that_does_not_answer_is_no_gpu(fake_driver, monkeypatch):
    monkeypatch.setattr("provisioning.engines.tensorrt.cuda.ANSWER_S", 0.5)
    assert query_gpu(fake_driver(INIT="(sleep(60), 0)", COUNT=1)) is None


def test_absent_driver_is_no_gpu():
    assert query_gpu("libcuda-which-is-not-there.so.1") is None


def test_auto_is_onnxruntime_where_no_gpu_answers(tmp_path, tensorrt_is_importable):
    assert select(Engine(), machine(tmp_path, gpu=None)).name == "onnxruntime"


def test_auto_is_onnxruntime_where_tensorrt_has_bindings_but_no_library(tmp_path, monkeypatch, caplog):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/tensorrt.py").write_text(
        "raise ImportError('libnvonnxparser.so.11: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    with caplog.at_level(logging.WARNING, "c10.provision"):
        assert select(Engine(), machine(tmp_path, gpu=RTX)).name == "onnxruntime"
    assert "libnvonnxparser.so.11" in caplog.records[0].kv["reason"]


def test_jetson_without_tensorrt_is_warned_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with caplog.at_level(logging.WARNING, "c10.provision"):
        assert select(Engine(), machine(tmp_path, release=R36, gpu=ORIN)).name == "onnxruntime"
    assert "--system-site-packages" in caplog.records[0].kv["reason"]


def test_workstation_without_tensorrt_is_not_nagged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with caplog.at_level(logging.WARNING, "c10.provision"):
        select(Engine(), machine(tmp_path, gpu=RTX, arch="x86_64"))
    assert not caplog.records


def test_auto_is_tensorrt_where_it_imports_and_a_gpu_answers(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/tensorrt.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert select(Engine(), machine(tmp_path, gpu=RTX)).name == "tensorrt"


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_engine_host_is_refused_by_backends_that_cannot_cross_compile(tmp_path, backend):
    with pytest.raises(EngineError, match="for no other") as caught:
        select(Engine(backend=backend, host={"sm": "87"}), machine(tmp_path))
    assert caught.value.key == "engine.host"
    assert caught.value.facts["why"]


def test_engine_host_names_the_target_of_rtx(tmp_path, tensorrt_is_importable):
    this = machine(tmp_path, versions={"tensorrt_rtx": "1.7.1.116"})
    engine = Engine(backend="tensorrt_rtx", host={"sm": "86", "device": "RTX A2000"})
    assert select(engine, this).probe() == HostTuple("tensorrt_rtx", "1.7.1.116", "sm86", "RTX-A2000", "linux")


def test_engine_for_a_gpu_like_ours_runs_here_however_it_is_written(tmp_path):
    this = machine(tmp_path, gpu=RTX)
    assert [TensorRT("tensorrt_rtx", this, {"sm": sm}).runs_here for sm in ("89", "sm89", "86")] == [True, True, False]


@pytest.mark.parametrize("target", [{"sm": "8.6x"}, {"gpu": "86"}, {"sm": "86", "os": "linux"}])
def test_engine_host_that_names_no_target_is_refused(tmp_path, tensorrt_is_importable, target):
    this = machine(tmp_path, versions={"tensorrt_rtx": "1.7.1.116"})
    with pytest.raises(EngineError, match="names no target"):
        select(Engine(backend="tensorrt_rtx", host=target), this).probe()


def test_tensorrt_without_a_gpu_says_what_to_do(tmp_path, tensorrt_is_importable):
    with pytest.raises(EngineError, match="no NVIDIA GPU that answers") as caught:
        select(Engine(backend="tensorrt"), machine(tmp_path, versions={"tensorrt": "10.3.0.30"})).probe()
    assert "onnxruntime" in caught.value.next_step


def test_missing_module_names_the_extra_that_brings_it(tmp_path):
    with pytest.raises(EngineError, match="tensorrt_rtx is not installed") as caught:
        select(Engine(backend="tensorrt_rtx"), machine(tmp_path, versions={})).probe()
    assert "flightcache[rtx]" in caught.value.next_step


def test_host_command_prints_tuple_and_jetpack(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    this = machine(tmp_path, release=R36, cpuinfo=CORTEX, gpu=ORIN, versions={"onnxruntime": "1.23.2"})
    found = describe(Engine(), None, this)
    assert found["engine_host"]["runtime"] == "1.23.2"
    assert found["computer"]["jetpack"] == "6.2"
    assert found["computer"]["gpu"] == {"name": "Orin", "sm": "87"}
    assert found["backends"]["tensorrt"]["usable"] == "no"
    text = as_text(found)
    assert "  GPU                 Orin, SM 87\n" in text
    assert "  tensorrt      no: " in text


def test_host_command_runs_here(capsys):
    assert main(["host"]) == 0
    assert "engines are built for" in capsys.readouterr().out


def test_engines_of_other_hosts_are_listed(tmp_path):
    this = machine(tmp_path, cpuinfo=CORTEX, versions={"onnxruntime": "1.23.2"})
    for key, name in (
        ("aa", "m_aarch64_linux_ort1.23.2_fp32.engine"),
        ("bb", "m_sm87_l4t36.4.3_trt10.3.0.30_fp16.engine"),
    ):
        (tmp_path / ".build/store" / key).mkdir(parents=True)
        (tmp_path / ".build/store" / key / name).write_bytes(b"engine")
    (tmp_path / ".build/store/bb/unnamed.engine").write_bytes(b"?")
    found = describe(Engine(), tmp_path, this)
    assert found["engines"] == [
        {"name": "m_aarch64_linux_ort1.23.2_fp32.engine", "bytes": 6, "for_this_host": True},
        {"name": "m_sm87_l4t36.4.3_trt10.3.0.30_fp16.engine", "bytes": 6, "for_this_host": False},
    ]
    assert "6 bytes, another host: kept, not published" in as_text(found)


def test_host_command_gives_json_to_programs(capsys):
    assert main(["host", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["engine_host"]) == set(HostTuple._fields)
