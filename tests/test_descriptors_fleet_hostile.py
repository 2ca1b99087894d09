"""A dask cluster that is not ours: what it sends runs no code in the build, and invented descriptors are found."""

import functools
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from provisioning.base.errors import ConfigError, DescriptorError
from provisioning.base.process import landlock
from provisioning.config.parse import parse
from provisioning.descriptors.dask import frames as frames_module
from provisioning.descriptors.dask import link
from provisioning.descriptors.dask.frames import FrameReader, write_frame
from provisioning.descriptors.pipeline.loader import TileLoader
from provisioning.descriptors.pipeline.results import Results
from provisioning.engines import OnnxRuntime
from tests import building, networks
from tests.describing import describe
from tests.test_descriptors import KEYS, changed, flight, gathered
from tests.test_descriptors_fleet_answers import NORTH_UP, by_mean, seeing
from tests.tilesets import image

distributed = pytest.importorskip("distributed")
__all__ = ["flight"]
landlocked = pytest.mark.skipif(
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from provisioning.base.process import landlock; sys.exit(not landlock.confine([]))",
        ],
        cwd=Path(__file__).parents[1],
        check=False,
    ).returncode
    != 0,
    reason="the kernel has no Landlock",
)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "m.onnx"
    onnx.save(networks.network(), str(path))
    return path.read_bytes()


def certificates(folder: Path) -> None:
    """Run the very commands of the page."""
    page = (Path(__file__).parents[1] / "docs/backbones.md").read_text()
    script = re.search(r"```sh\n(openssl req -x509.*?)```", page, re.DOTALL)[1]
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """The folder with the certificates of the cluster."""
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    return folder


@pytest.fixture(scope="module")
def cluster(pem):
    """One worker, spoken to with TLS: who has its certificate may lie all the same."""
    builder, worker = ([str(pem / f"{name}.{kind}") for kind in ("pem", "key")] for name in ("builder", "worker-1"))
    security = distributed.Security(
        tls_ca_file=str(pem / "ca.pem"), require_encryption=True,
        tls_scheduler_cert=builder[0], tls_scheduler_key=builder[1],
        tls_worker_cert=worker[0], tls_worker_key=worker[1],
        tls_client_cert=builder[0], tls_client_key=builder[1],
    )  # fmt: skip
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, protocol="tls", security=security, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=50,
    ) as cluster:  # fmt: skip
        cluster.files = {"tls_ca": pem / "ca.pem", "tls_certificate": Path(builder[0]), "tls_key": Path(builder[1])}
        yield cluster


def told_to(cluster, work):
    """Have the worker run `work`, which replaces `compute` by a false one made of the worker's own, `honest`."""

    def keep_what_is_honest():
        from provisioning.descriptors.dask import remote

        remote.compute = remote.honest = getattr(remote, "honest", remote.compute)

    with distributed.Client(cluster) as client:
        client.run(keep_what_is_honest)
        client.run(work)


def in_fleet(cluster, flight, network):
    settings = {"executor": "dask", "scheduler": cluster.scheduler_address, "task_tiles": 20, **cluster.files}
    return describe(changed(flight, descriptors=settings), engine=network, backend=OnnxRuntime(), keys=KEYS[:1])


@landlocked
def test_an_answer_that_runs_code_when_unpickled_reaches_neither_the_build_nor_a_file(
    flight, network, cluster, tmp_path
):
    """The worker's answer writes a file and reads the key, if the process that unpickles it can."""
    target, key = tmp_path / "PWNED", tmp_path / "operator.pem"
    key.write_text("private")
    code = f"open({str(target)!r}, 'a').write(open({str(key)!r}).read())"

    def answer_with_code():
        import builtins

        from provisioning.descriptors.dask import remote

        class Evil:
            def __reduce__(self):
                return builtins.exec, (code,)

        remote._golden_seen = 0
        real = remote.compute

        def compute(job, units, data):
            return real(job, units, data) if len(units) == 1 else Evil()

        remote.compute = compute

    told_to(cluster, answer_with_code)
    with pytest.raises(DescriptorError):
        in_fleet(cluster, flight, network)
    assert not target.exists()


@pytest.mark.parametrize(
    "lie",
    ["permuted", "damaged", *(pytest.param(lie, marks=pytest.mark.slow) for lie in ("invented", "fewer", "twice"))],
)  # invented ones are found as permuted ones are; `test_what_is_no_answer…` has the other two as frames
def test_descriptors_that_are_not_of_these_tiles_are_found(flight, network, cluster, lie):
    def answer_falsely(lie):
        import numpy as np

        from provisioning.descriptors.dask import remote

        real = remote.compute

        def compute(job, units, data):
            answer = real(job, units, data)
            if len(units) == 1:
                return answer
            rows = np.frombuffer(answer.described, "<f4").reshape(len(answer.rows), -1)
            lies = {
                "permuted": (answer.rows, np.roll(rows, 1, axis=0).tobytes()),
                "invented": (answer.rows, np.ones_like(rows).tobytes()),
                "damaged": (answer.rows[1:], rows[1:].tobytes()),
                "fewer": (answer.rows, rows[1:].tobytes()),
                "twice": ([0, *answer.rows], np.vstack([rows[:1], rows]).tobytes()),
            }
            return remote.Answer(*lies[lie])

        remote.compute = compute

    told_to(cluster, functools.partial(answer_falsely, lie))
    with pytest.raises(DescriptorError) as caught:
        in_fleet(cluster, flight, network)
    reason = {"permuted": "another descriptor", "invented": "another descriptor", "damaged": "here it can"}
    assert reason.get(lie, "sent") in caught.value.what


# the frames themselves


def exchange(*heads_and_payloads):
    """Let the build serve a process that says exactly this, with one task of one tile under way."""
    with tempfile.TemporaryFile() as stream:
        for head, payload in heads_and_payloads:
            if isinstance(head, bytes):
                stream.write(head)
            else:
                write_frame(stream, {"bytes": len(payload), **head}, payload)
        stream.seek(0)
        process, found = SimpleNamespace(stdin=io.BytesIO(), stdout=stream), Results(stores=())
        link._Exchange(process, FakeNet(), seeing(image(1)), found).run([[NORTH_UP]])
    return found


class FakeNet:
    dimension = 1

    def __call__(self, images):
        return by_mean(images)


@pytest.mark.parametrize(
    "frames",
    [
        [({"task": 1, "rows": [0], "faults": []}, b"\0\0\0\0")],  # before it asked for one
        [({"want": 1}, b""), ({"task": 2, "rows": [0], "faults": []}, b"\0\0\0\0")],
        [({"want": 1}, b""), ({"task": 1, "rows": [0, 0], "faults": []}, bytes(8))],
        [({"want": 1}, b""), ({"task": 1, "rows": [], "faults": []}, b"")],
        [({"want": 1}, b""), ({"task": 1, "rows": [1], "faults": []}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": [-1], "faults": []}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": ["0"], "faults": []}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": [True], "faults": []}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": {"0": 0}, "faults": []}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": [0], "faults": [0]}, bytes(4))],
        [({"want": 1}, b""), ({"task": 1, "rows": [0], "faults": []}, b"")],  # and nothing more
        [({"want": "x"}, b"")],
        [({"want": -1}, b"")],
        [({"want": 1e30}, b"")],
        [(struct.pack(">I", 1 << 31), b"")],
        [(struct.pack(">I", 2) + b"[]", b"")],
        [(struct.pack(">I", 3) + b"{{{", b"")],
        [(struct.pack(">I", 100_000) + b"[" * 100_000, b"")],
        [(b"\0", b"")],
        [({"error": "text"}, b"")],
        [({"error": {"what": 7, "facts": [1], "next_step": {}}}, b"")],
    ],
)
def test_what_is_no_answer_is_one_clear_error(frames):
    with pytest.raises(DescriptorError):
        exchange(*frames)


def test_a_true_answer_is_stored():
    right = by_mean(TileLoader(lambda _t: image(1), (0,), (16, 16), "resize", 1 << 20).image(NORTH_UP)[None])
    answer = {"want": 1, "task": 1, "rows": [0], "faults": []}
    found = exchange(({"want": 1}, b""), (answer, right.tobytes()))
    assert found.computed == 1


def test_texts_of_the_cluster_move_no_cursor():
    with pytest.raises(DescriptorError) as caught:
        exchange(({"error": {"what": "\x1b[2Jall well", "facts": {"\r": "\x07"}, "next_step": "\x9b"}}, b""))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", str(caught.value))


def test_silence_ends_the_run():
    reader, writer = os.pipe()
    with pytest.raises(DescriptorError, match="nothing for too long"):
        FrameReader(reader, 0.05).head()
    os.close(reader)
    os.close(writer)


def test_no_module_of_the_build_unpickles_what_a_cluster_sends():
    """Only modules that are processes of their own load pickles, and only from the process that started them."""
    source = Path(frames_module.__file__).parents[2]
    loads = [path.name for path in source.rglob("*.py") if re.search(r"pickle\.loads?\(", path.read_text())]
    assert set(loads) <= {"cluster.py", "confined.py", "worker.py"}


# the process that talks to the cluster


@landlocked
def test_a_confined_process_reads_its_libraries_and_nothing_else(tmp_path):
    (tmp_path / "key.pem").write_text("private")
    code = f"""
import os, sys
from provisioning.base.process import landlock
assert landlock.confine(landlock.libraries())
import onnx, numpy
for path, mode in (({str(tmp_path / "key.pem")!r}, "r"), ({str(tmp_path / "new")!r}, "w"), ("/etc/passwd", "r"),
                   (f"/proc/{{os.getppid()}}/environ", "rb"), (f"/proc/{{os.getppid()}}/mem", "rb")):
    try:
        open(path, mode)
    except PermissionError:
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["refused"] * 5


def test_where_there_is_no_landlock_it_is_said(monkeypatch):
    monkeypatch.setattr(landlock, "_CREATE", 9999)  # no such call
    assert landlock.confine([]) is False


# TLS


def test_a_cluster_with_tls_computes_the_same_and_refuses_who_has_no_certificate(flight, network, cluster):
    told_to(cluster, lambda: None)
    assert in_fleet(cluster, flight, network).computed == 40
    settings = {"executor": "dask", "scheduler": cluster.scheduler_address}
    with pytest.raises(DescriptorError, match="no dask scheduler answers at tls"):
        describe(changed(flight, descriptors=settings), engine=network, backend=OnnxRuntime(), keys=KEYS[2:3])
    describe(flight, engine=network, backend=OnnxRuntime(), keys=KEYS[1:2])
    np.testing.assert_array_equal(gathered(flight), gathered(flight, KEYS[1]))


@pytest.mark.parametrize(
    ("lines", "issue"),
    [
        ('scheduler = "tls://h:1"\ntls_ca = "ca.pem"', "belong together"),
        ('scheduler = "tcp://h:1"\ntls_ca = "a"\ntls_certificate = "b"\ntls_key = "c"', "tls://host:port"),
    ],
)
def test_half_a_configuration_of_tls_is_refused(tmp_path, lines, issue):
    cache = building.new_cache(tmp_path, side=1)
    text = (cache / "flight.toml").read_text() + f'\n[descriptors]\nexecutor = "dask"\n{lines}\n'
    with pytest.raises(ConfigError, match="mistake") as caught:
        parse(re.sub(r"(?m)^\[descriptors\]\n(?=#)", "", text), root=cache)
    assert issue in str(caught.value)


def test_a_frame_is_json_and_plain_bytes():
    stream = io.BytesIO()
    write_frame(stream, {"task": 1}, b"\1\2")
    assert stream.getvalue() == struct.pack(">I", 11) + json.dumps({"task": 1}).encode() + b"\1\2"
