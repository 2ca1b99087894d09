"""A dask fleet gives the same bytes as this computer alone, whatever happens to its workers."""

import os
import signal
import threading
import time

import numpy as np
import onnx
import pytest

from provisioning.base.errors import DescriptorError
from provisioning.catalogue import last_corpus, scan
from provisioning.descriptors import is_described
from provisioning.descriptors.pipeline.results import Results
from provisioning.engines import OnnxRuntime
from tests import networks
from tests.describing import describe
from tests.test_descriptors import KEYS, changed, flight, gathered, paths, write_tile

distributed = pytest.importorskip("distributed")
__all__ = ["flight"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "m.onnx"
    onnx.save(networks.network(), str(path))
    return path.read_bytes()


@pytest.fixture(scope="module")
def workers_of_all():
    """Two workers, each a process of its own with a nanny that starts it again; they check themselves for every run."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(workers_of_all):
    """The workers of all tests, as they were before whatever a test replaced in them."""
    yield workers_of_all
    with distributed.Client(workers_of_all) as client:
        client.run(undo)


def replaced(place, name, value):
    """Let `name` of a class or module be `value(what it was)` in this worker until `undo`."""
    import provisioning

    real = getattr(place, name)
    provisioning.undo = [*getattr(provisioning, "undo", ()), (place, name, real)]
    setattr(place, name, value(real))


def undo():
    import provisioning

    for place, name, real in getattr(provisioning, "undo", ()):
        setattr(place, name, real)
    provisioning.undo = []


def on(cluster, flight, **index):
    """Return `flight` with the fleet as its executor."""
    settings = {"executor": "dask", "scheduler": cluster.scheduler_address, "task_tiles": 5}
    return changed(flight, descriptors=settings, index=index)


def alone(flight, network):
    describe(flight, engine=network, backend=OnnxRuntime(), keys=KEYS[1:2])
    return gathered(flight, KEYS[1])


def in_fleet(cluster, flight, network, keys=KEYS[:1], **index):
    return describe(on(cluster, flight, **index), engine=network, backend=OnnxRuntime(), keys=keys)


def workers(cluster):
    with distributed.Client(cluster) as client:
        return client.run(os.getpid)


def on_first_worker(cluster, work):
    with distributed.Client(cluster) as client:
        first = min(client.scheduler_info()["workers"])
        client.run(work, workers=[first])
        return first


def offering(cluster):
    """The addresses of workers that offer some engine."""
    workers = list(cluster.scheduler.workers.values())
    return {w.address for w in workers if any(name.startswith("flightcache-") and n for name, n in w.resources.items())}


def wait_for_new(cluster, known):
    """Wait for a worker at another address than those `known` that offers the engine; False if none comes."""
    until = time.monotonic() + 300
    while offering(cluster) <= known and time.monotonic() < until:
        time.sleep(0.1)
    return not offering(cluster) <= known


def test_two_caches_that_use_one_fleet_at_a_time_get_the_bytes_of_this_computer(flight, network, cluster):
    ends = []

    def other():
        ends.append(in_fleet(cluster, flight, network, keys=KEYS[7:8]).computed)

    thread = threading.Thread(target=other)
    thread.start()
    done = in_fleet(cluster, flight, network)
    thread.join()
    assert (done.computed, done.total, ends) == (40, 40, [40])
    here = alone(flight, network)
    np.testing.assert_array_equal(gathered(flight), here)
    np.testing.assert_array_equal(gathered(flight, KEYS[7]), here)
    assert is_described(
        flight.descriptor_store, KEYS[:1], last_corpus(flight.selection, flight.build_dir).coverage_sha256
    )
    assert in_fleet(cluster, flight, network).computed == 0
    write_tile(flight.root, 41)
    scan(flight.selection, flight.build_dir)
    assert in_fleet(cluster, flight, network, keys=(KEYS[0], *KEYS[2:5]), rotations=4).computed == 1 + 3 * 41


@pytest.mark.slow  # the next test for what one refusal costs, the one after it for the reason
def test_a_worker_on_another_host_gets_no_task(flight, network, cluster, caplog):
    def be_another():
        from provisioning.engines import OnnxRuntime

        replaced(OnnxRuntime, "probe", lambda real: lambda self: real(self)._replace(device="another-cpu"))

    other = on_first_worker(cluster, be_another)
    in_fleet(cluster, flight, network)
    refusals = [r.kv for r in caplog.records if "worker" in getattr(r, "kv", {})]
    assert [r["worker"] for r in refusals] == [other]
    assert "compiled for another host" in refusals[0]["reason"]
    np.testing.assert_array_equal(gathered(flight), alone(flight, network))


def test_a_worker_that_computes_something_else_gets_no_task(flight, network, cluster, caplog):
    def see_badly():
        import provisioning.descriptors.pipeline.loader as loader

        replaced(loader, "fit", lambda real: lambda *a: real(*a) // 2)

    on_first_worker(cluster, see_badly)
    in_fleet(cluster, flight, network)
    assert "golden tile has another descriptor" in str([getattr(r, "kv", "") for r in caplog.records])
    np.testing.assert_array_equal(gathered(flight), alone(flight, network))


def test_no_worker_that_fits_is_an_error_with_each_reason(flight, network, cluster):
    def be_another():
        from provisioning.engines import OnnxRuntime

        replaced(OnnxRuntime, "probe", lambda real: lambda self: real(self)._replace(runtime="0.0"))

    with distributed.Client(cluster) as client:
        client.run(be_another)
    with pytest.raises(DescriptorError, match="no worker of the dask cluster can run this engine") as caught:
        in_fleet(cluster, flight, network)
    assert len(caught.value.facts) == 2
    assert all("compiled for another host" in reason for reason in caught.value.facts.values())
    assert not is_described(
        flight.descriptor_store, KEYS[:1], last_corpus(flight.selection, flight.build_dir).coverage_sha256
    )


def test_a_tile_that_cannot_be_read_costs_itself_only(flight, network, cluster):
    path = paths(flight)[0]
    path.write_bytes(b"damaged")
    with pytest.raises(DescriptorError, match="1 tile has no descriptor") as caught:
        in_fleet(cluster, flight, network)
    assert any(path.stem in name for name in caught.value.facts)
    scan_again = write_tile(flight.root, 0)
    assert scan_again.exists()


@pytest.mark.slow
def test_no_scheduler_is_a_clear_error(flight, network):
    settings = {"executor": "dask", "scheduler": "tcp://127.0.0.1:9"}
    with pytest.raises(DescriptorError, match="no dask scheduler answers at tcp"):
        describe(changed(flight, descriptors=settings), engine=network, backend=OnnxRuntime(), keys=KEYS[:1])


@pytest.mark.slow  # a killed worker's successor joins later, too
def test_a_worker_that_joins_later_is_checked_and_used(flight, network, cluster, monkeypatch):
    for n in range(40, 120):
        write_tile(flight.root, n)
    scan(flight.selection, flight.build_dir)
    put, grown = Results.put, []

    def put_and_grow(self, units, vectors):
        put(self, units, vectors)
        if not grown:
            grown.append(True)
            known = offering(cluster)
            cluster.scale(3)
            assert wait_for_new(cluster, known)

    monkeypatch.setattr(Results, "put", put_and_grow)
    in_fleet(cluster, flight, network)
    assert grown
    np.testing.assert_array_equal(gathered(flight), alone(flight, network))


def test_a_killed_worker_costs_its_tasks_only_and_its_successor_is_checked(flight, network, cluster, monkeypatch):
    victims = list(workers(cluster).values())[:1]
    put = Results.put

    def put_and_kill(self, units, vectors):
        put(self, units, vectors)
        if victims:
            known = offering(cluster)
            os.kill(victims.pop(), signal.SIGKILL)
            assert wait_for_new(cluster, known)

    monkeypatch.setattr(Results, "put", put_and_kill)
    done = in_fleet(cluster, flight, network)
    monkeypatch.undo()
    assert victims == []
    assert done.computed == 40
    np.testing.assert_array_equal(gathered(flight), alone(flight, network))
