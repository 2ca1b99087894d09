"""What a fleet answers, without a fleet: lost tasks, tasks that failed for good, workers that all went away."""

from __future__ import annotations

import io
import queue
import sys
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from provisioning.base.errors import DescriptorError, FilesystemError, TileError
from provisioning.base.hashing import sha256_bytes
from provisioning.catalogue import Tile
from provisioning.descriptors.dask import cluster as fleet
from provisioning.descriptors.dask import remote
from provisioning.descriptors.dask.link import Cluster, Task, submit
from provisioning.descriptors.dask.remote import Golden, Held, Job, hold, let_go, refusal, require_golden
from provisioning.descriptors.pipeline.loader import TileLoader, Unit
from provisioning.descriptors.pipeline.results import Results
from provisioning.descriptors.store import guard
from provisioning.descriptors.store.lookup import count_missing
from provisioning.engines import HostTuple, OnnxRuntime
from tests.test_descriptors import FakeNetwork
from tests.tilesets import image

ENGINE = b"engine"
NORTH_UP = Unit(Tile(14, 1, 2, "sat", sha256_bytes(b"tile")), 0)


def by_mean(images):
    return images.reshape(len(images), -1).mean(1, keepdims=True).astype(np.float32)


def job(backend="onnxruntime", engine=ENGINE):
    host = HostTuple(backend, "1", "x86_64", "avx2", "linux")
    return Job("run", sha256_bytes(engine), host, None, (Fraction(0),), "resize", 1 << 20, 4)


def seeing(data):
    def read(_tile):
        if data is None:
            raise TileError("the tile is gone")
        return data

    return TileLoader(read, (Fraction(0),), (16, 16), "resize", 1 << 20)


def results():
    return Results(stores=())


TASK = Task(1, [NORTH_UP], {})


def future(status, answer=None):
    return SimpleNamespace(status=status, exception=lambda: RuntimeError("out of memory"), result=lambda: answer)


# the coordinator


def test_nothing_to_compute_asks_no_fleet():
    submit([], None, seeing(None), results(), job=job(), engine=ENGINE, cluster=Cluster("tcp://nowhere:1"))


def test_tiles_that_cannot_be_seen_ask_no_fleet_and_are_faults():
    found = results()
    batches = [[NORTH_UP], [NORTH_UP._replace(heading=0)]]
    submit(batches, None, seeing(None), found, job=job(), engine=ENGINE, cluster=Cluster("tcp://nowhere:1"))
    assert [fault.reason for fault in found.faults] == ["the tile is gone"] * 2


def test_a_fleet_without_dask_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    network = FakeNetwork(by_mean)
    with pytest.raises(DescriptorError, match="dask is not installed") as caught:
        submit(
            [[NORTH_UP]], network, seeing(image(1)), results(), job=job(), engine=ENGINE, cluster=Cluster("tcp://x:1")
        )
    assert "flightcache[dask]" in caught.value.next_step


@pytest.mark.parametrize("status", ["pending", "lost"])
def test_a_task_that_went_with_its_worker_is_still_under_way(status):
    assert fleet._answered(future(status), TASK, io.BytesIO()) is False


@pytest.mark.parametrize(("status", "reason"), [("error", "out of memory"), ("cancelled", "cancelled")])
def test_a_task_that_failed_for_good_ends_the_run_with_its_reason(status, reason):
    with pytest.raises(DescriptorError, match="so did its retries") as caught:
        fleet._answered(future(status), TASK, io.BytesIO())
    assert reason in caught.value.facts["reason"]


def test_a_fleet_whose_workers_all_went_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(fleet, "PATIENCE_S", 0.5)
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": {}})
    started = time.monotonic()
    with pytest.raises(DescriptorError, match="every worker that could run this engine has gone"):
        fleet._run(client, job(), queue.Queue(), io.BytesIO())
    assert time.monotonic() - started > 0.4


# a worker


@pytest.fixture
def here(monkeypatch):
    """A worker of the very host that the job is for."""
    monkeypatch.setattr(OnnxRuntime, "probe", lambda _self: job().host)
    yield
    let_go(job())


def test_an_engine_that_changed_on_its_way_is_not_held(here):
    with pytest.raises(DescriptorError, match="did not arrive as it was sent"):
        hold(job(), b"engima")


def holding(monkeypatch, work, of, *, dimension=1):
    network = FakeNetwork(work)
    network.dimension = dimension
    monkeypatch.setitem(remote._HELD, of.resource, Held(network))


def test_a_golden_tile_that_cannot_be_seen_refuses_the_worker(monkeypatch):
    holding(monkeypatch, by_mean, job())
    with pytest.raises(DescriptorError, match="golden tile cannot be seen"):
        require_golden(job(), Golden(NORTH_UP, {NORTH_UP.tile: b"no image"}, np.zeros(1, np.float32)))


@pytest.mark.parametrize(
    ("backend", "off", "passes"), [("tensorrt", 1e-3, True), ("tensorrt", 1, False), ("onnxruntime", 1e-3, False)]
)
def test_only_engines_that_differ_between_runs_may_differ_a_little(monkeypatch, backend, off, passes):
    golden = Golden(NORTH_UP, {NORTH_UP.tile: image(1)}, np.array([1, 1], np.float32))
    holding(monkeypatch, lambda images: np.array([[1, 1 + off]], np.float32), job(backend), dimension=2)
    if passes:
        require_golden(job(backend), golden)
    else:
        with pytest.raises(DescriptorError, match="another descriptor here"):
            require_golden(job(backend), golden)


def test_a_worker_that_was_let_go_refuses_nothing():
    let_go(job())
    assert refusal(job()) == ""


# the store around it


def test_a_disk_that_refuses_the_database_is_reported_as_such(tmp_path):
    import sqlite3

    with pytest.raises(FilesystemError, match="disk I/O error"), guard.wrap_errors("write descriptors", tmp_path):
        raise sqlite3.OperationalError("disk I/O error")


def test_a_lock_that_cannot_be_had_leaves_no_descriptor_open(tmp_path):
    import fcntl
    import os

    with guard.locked(tmp_path / "lock"):
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(BlockingIOError):
            guard.lock_file(tmp_path / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_damaged_key_map_counts_everything_as_missing(tmp_path):
    key = sha256_bytes(b"key")
    (tmp_path / key / "g1").mkdir(parents=True)
    (tmp_path / key / "g1" / "map.sqlite").write_bytes(b"no database " * 1000)
    assert count_missing(tmp_path, key, [b"a" * 32, b"b" * 32]) == 2
