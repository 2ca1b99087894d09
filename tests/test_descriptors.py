"""Only what is new goes through the network, the same bits whatever the circumstances, and nothing bad gets by."""

import io
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from provisioning.base.errors import DescriptorError, EngineError
from provisioning.base.hashing import digest_of, sha256_bytes
from provisioning.catalogue import decode, iter_tiles, last_corpus, scan
from provisioning.config import Area, Backbone, BBox, Engine, Flight, Index, Tiles, TileSource
from provisioning.config.schema import Descriptors
from provisioning.descriptors import descriptor_facts, heading_names, is_described, sample_images
from provisioning.descriptors.pipeline import layouts
from provisioning.descriptors.pipeline.decoders import Decoder
from provisioning.descriptors.pipeline.update import return_large_blocks
from provisioning.descriptors.store.receipts import write_receipt
from provisioning.descriptors.store.store import DescriptorStore
from provisioning.engines import OnnxRuntime
from provisioning.network.backbone import onnx_source, prepare
from provisioning.sources.pixels.fitting import fit, headings, turn
from tests import networks
from tests.describing import describe

ZOOM, COLUMN, ROW = 14, 8580, 5736
KEYS = tuple(sha256_bytes(b"%d" % n) for n in range(8))
AREA = BBox(80_000_000, 465_000_000, 90_000_000, 480_000_000)
AFRICA_TO_ASIA = BBox(320_000_000, 0, 860_000_000, 280_000_000)


@dataclass
class Fake:
    """A backend whose network is a function of numpy arrays: counted, slowed or broken as a test needs it."""

    function: object
    name: str = "onnxruntime"

    def load(self, data, *, custom_ops=None):
        return FakeNetwork(self.function)


@dataclass
class FakeNetwork:
    function: object
    size: tuple = (16, 16)
    dimension: int = 6

    def __call__(self, images):
        return self.function(images)

    def clone(self):
        return self


def by_colour(images):
    """A descriptor that is a function of the pixels: mean and deviation of each channel."""
    flat = images.reshape(len(images), -1, 3).astype(np.float64) / 255
    return np.concatenate([flat.mean(1), flat.std(1)], axis=1).astype(np.float32)


@cache
def picture(seed, suffix):
    coarse, out = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8), io.BytesIO()
    Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(out, suffix)
    return out.getvalue()


def write_tile(root, n, seed=None, suffix="png"):
    """Write tile number `n` with content of its own (or of `seed`)."""
    path = root / "tiles" / str(ZOOM) / str(COLUMN + n % 10) / f"{ROW + n // 10}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(n if seed is None else seed, suffix))
    return path


@pytest.fixture
def flight(tmp_path):
    """Forty tiles, described by whatever backend the test brings."""
    for n in range(40):
        write_tile(tmp_path, n)
    flight = Flight(
        root=tmp_path,
        area=Area(bbox=AREA, zooms=(ZOOM,)),
        tiles=Tiles(source=(TileSource(path=tmp_path / "tiles", name="test"),)),
        backbone=(Backbone(name="m"),),
        engine=Engine(batch=4),
        descriptors=Descriptors(threads=2),
    )
    flight.build_dir.mkdir()
    scan(flight.selection, flight.build_dir)
    return flight


def run(flight, function=by_colour, *, name="onnxruntime", keys=KEYS[:1]):
    return describe(flight, engine=b"", backend=Fake(function, name), keys=keys)


def gathered(flight, key=KEYS[0]):
    with DescriptorStore(flight.descriptor_store, key, flight.descriptors.dtype) as kept:
        return kept.gather([bytes.fromhex(tile.sha256) for tile in iter_tiles(flight.build_dir)])


def changed(flight, **sections):
    """Return `flight` with keys of its sections replaced: changed(flight, engine={"batch": 1})."""
    return replace(flight, **{name: replace(getattr(flight, name), **keys) for name, keys in sections.items()})


def events_of(caplog, kind):
    return [r.kv for r in caplog.records if getattr(r, "kind", "") == f"c10.provision.{kind}"]


# Nothing twice


def test_every_tile_is_described_once(flight):
    done = run(flight)
    assert (done.computed, done.total, done.dimension) == (40, 40, 6)
    expected = [
        by_colour(fit(decode(p.read_bytes(), max_pixels=1 << 20), (16, 16), "resize")[None])[0] for p in paths(flight)
    ]
    np.testing.assert_array_equal(gathered(flight), expected)


def paths(flight):
    return [flight.root / "tiles" / str(t.z) / str(t.x) / f"{t.y}.png" for t in iter_tiles(flight.build_dir)]


def test_nothing_new_runs_no_network(flight):
    run(flight)

    def never(_images):
        raise AssertionError("the network ran")

    assert run(flight, never).computed == 0


def test_one_new_tile_is_one_inference(flight):
    run(flight)
    write_tile(flight.root, 40)
    scan(flight.selection, flight.build_dir)
    seen = []
    assert run(flight, lambda images: (seen.append(len(images)), by_colour(images))[1]).computed == 1
    assert seen == [1]


def test_a_tile_that_comes_back_is_not_computed_again(flight):
    run(flight)
    path = write_tile(flight.root, 3)
    data = path.read_bytes()
    path.unlink()
    scan(flight.selection, flight.build_dir)
    assert run(flight).computed == 0
    path.write_bytes(data)
    scan(flight.selection, flight.build_dir)
    assert run(flight).computed == 0


def test_tiles_of_the_same_bytes_share_one_inference(flight):
    for n in range(40, 60):
        write_tile(flight.root, n, seed=7)
    flight = changed(flight, tiles={"blank": "keep"})  # one picture in twenty places is else "no imagery"
    scan(flight.selection, flight.build_dir)
    assert run(flight).computed == 40
    assert len(gathered(flight)) == 60


def test_another_cache_with_the_same_store_computes_nothing(flight, tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared") / "descriptors"
    first = changed(flight, descriptors={"store": shared})
    run(first)
    other_root = tmp_path_factory.mktemp("other")
    shutil.copytree(flight.root / "tiles", other_root / "tiles")
    source = TileSource(path=other_root / "tiles", name="test")
    other = replace(first, root=other_root, build_dir=other_root / ".build", tiles=Tiles(source=(source,)))
    other.build_dir.mkdir()
    scan(other.selection, other.build_dir)
    assert run(other).computed == 0
    np.testing.assert_array_equal(gathered(other), gathered(first))


# The same bits


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An engine of the onnxruntime backend: a small network with a convolution and a matrix product."""
    path = tmp_path_factory.mktemp("engine") / "m.onnx"
    onnx.save(networks.network(), str(path))
    return path.read_bytes()


BATCHED = [(1, 8), (2, 3), (4, 1)]
ALSO_BATCHED = [pair for pair in itertools.product([1, 2, 4], [1, 3, 8]) if pair not in BATCHED]


@pytest.mark.parametrize(
    ("threads", "batch"), [*BATCHED, *(pytest.param(*each, marks=pytest.mark.slow) for each in ALSO_BATCHED)]
)
def test_threads_and_batch_do_not_change_a_bit(flight, network, threads, batch):
    varied = changed(flight, descriptors={"threads": threads}, engine={"batch": batch})
    describe(varied, engine=network, backend=OnnxRuntime(), keys=KEYS[:1])
    alone = OnnxRuntime().load(network)
    images = [fit(decode(p.read_bytes(), max_pixels=1 << 20), alone.size, "resize") for p in paths(flight)]
    np.testing.assert_array_equal(gathered(varied), np.concatenate([alone(image[None]) for image in images]))


def test_a_restart_in_the_middle_does_not_change_a_bit(flight, network):
    whole = describe(flight, engine=network, backend=OnnxRuntime(), keys=KEYS[:1])
    expected = gathered(flight)
    for half in (flight.root / "tiles" / str(ZOOM)).glob("*[13579]"):
        half.rename(half.with_name("away-" + half.name))
    scan(flight.selection, flight.build_dir)
    first = describe(flight, engine=network, backend=OnnxRuntime(), keys=KEYS[1:2])
    for half in (flight.root / "tiles" / str(ZOOM)).glob("away-*"):
        half.rename(half.with_name(half.name.removeprefix("away-")))
    scan(flight.selection, flight.build_dir)
    second = describe(flight, engine=network, backend=OnnxRuntime(), keys=KEYS[1:2])
    assert first.computed + second.computed == whole.computed
    np.testing.assert_array_equal(gathered(flight, KEYS[1]), expected)


def test_the_gpu_layout_gives_the_same_descriptors(flight):
    run(flight)
    run(flight, name="tensorrt", keys=KEYS[1:2])
    np.testing.assert_array_equal(gathered(flight), gathered(flight, KEYS[1]))


# Headings


def test_headings_are_fractions_of_a_turn():
    assert headings(4) == (0, Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
    for count in range(1, 37):
        assert heading_names(count) == tuple(map(str, headings(count)))


def test_each_heading_describes_the_turned_tile(flight):
    turned = changed(flight, index={"rotations": 8})

    def top_half(images):
        return by_colour(images[:, :8])

    assert run(turned, top_half, keys=KEYS).computed == 8 * 40
    images = [decode(p.read_bytes(), max_pixels=1 << 20) for p in paths(flight)]
    for heading, key in zip(headings(8), KEYS, strict=True):
        seen = np.stack([fit(turn(image, heading), (16, 16), "resize") for image in images])
        np.testing.assert_array_equal(gathered(turned, key), top_half(seen))


def test_headings_of_equal_angle_have_one_key():
    """Going from 4 to 8 headings computes four new ones."""
    facts = [
        digest_of(descriptor_facts(KEYS[0], Backbone(name="m"), {}, "float32", heading))
        for heading in (*heading_names(4), *heading_names(8))
    ]
    assert len(set(facts)) == 8


def test_more_headings_compute_only_the_new_ones(flight):
    run(flight, keys=KEYS[:1])
    assert run(changed(flight, index={"rotations": 4}), keys=KEYS[:4]).computed == 3 * 40


@pytest.mark.parametrize(
    "other",
    [
        (KEYS[1], Backbone(name="m"), {"pillow": "1"}, "float32", "0"),
        (KEYS[0], Backbone(name="m", fit="crop"), {"pillow": "1"}, "float32", "0"),
        (KEYS[0], Backbone(name="m"), {"pillow": "2"}, "float32", "0"),
        (KEYS[0], Backbone(name="m"), {"pillow": "1"}, "float16", "0"),
        (KEYS[0], Backbone(name="m"), {"pillow": "1"}, "float32", "1/4"),
    ],
    ids=["engine", "fit", "decoder", "dtype", "heading"],
)
def test_everything_that_decides_a_descriptor_is_in_its_key(other):
    plain = descriptor_facts(KEYS[0], Backbone(name="m"), {"pillow": "1"}, "float32", "0")
    assert list(plain) == ["descriptor_format", "engine", "fit", "decoder", "dtype", "heading"]  # descriptors of before
    assert digest_of(descriptor_facts(*other)) != digest_of(plain)


# Bad input


def test_a_non_finite_descriptor_names_its_tile_and_keeps_the_others(flight, caplog):
    caplog.set_level(logging.WARNING, "c10.provision")
    bright = max(paths(flight), key=lambda p: by_colour(decode(p.read_bytes(), max_pixels=1 << 20)[None])[0, 0])

    def broken(images):
        found = by_colour(images)
        found[found[:, 0] >= LIMIT, 2] = np.nan
        return found

    pixels = fit(decode(bright.read_bytes(), max_pixels=1 << 20), (16, 16), "resize")
    LIMIT = by_colour(pixels[None])[0, 0]
    with pytest.raises(DescriptorError, match="no descriptor") as caught:
        run(flight, broken)
    name = f"test {ZOOM}/{bright.parent.name}/{bright.stem}"
    assert name in caught.value.facts
    assert caught.value.file == flight.descriptor_backbone.onnx
    assert any(
        (e["x"], e["y"]) == (int(bright.parent.name), int(bright.stem)) for e in events_of(caplog, "descriptor.failure")
    )
    failed = len(events_of(caplog, "descriptor.failure"))
    assert run(flight).computed == failed < 40


def test_a_constant_descriptor_is_refused_every_time(flight):
    coverage = last_corpus(flight.selection, flight.build_dir).coverage_sha256
    for _ in range(2):
        with pytest.raises(DescriptorError, match="constant") as caught:
            run(flight, lambda images: np.ones((len(images), 6), np.float32))
        assert caught.value.file == flight.descriptor_backbone.onnx
        assert not is_described(flight.descriptor_store, KEYS[:1], coverage)


def test_a_tile_that_changed_after_the_scan_is_named(flight):
    path = paths(flight)[5]
    path.write_bytes(paths(flight)[6].read_bytes())
    with pytest.raises(DescriptorError, match="the source changed while it was read: 1 tile has no") as caught:
        run(flight)
    assert "skip" not in caught.value.next_step, "nothing is wrong with the tile"
    assert f"test {ZOOM}/{path.parent.name}/{path.stem}" in caught.value.facts
    scan(flight.selection, flight.build_dir)
    assert run(flight).computed == 0


def test_many_bad_tiles_are_counted_and_some_named(flight):
    with pytest.raises(DescriptorError, match="40 tiles have no descriptor") as caught:
        run(flight, lambda images: np.full((len(images), 6), np.inf, np.float32))
    assert caught.value.facts["and more"] == 20


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
def test_an_engine_that_fails_stops_the_run(flight, name):
    before = threading.active_count()

    def failing(_images):
        raise EngineError("the device is gone")

    with pytest.raises(EngineError, match="the device is gone"):
        run(flight, failing, name=name)
    assert threading.active_count() <= before


# Receipts


def test_a_receipt_says_that_a_corpus_is_described(flight):
    coverage = last_corpus(flight.selection, flight.build_dir).coverage_sha256
    assert not is_described(flight.descriptor_store, KEYS[:1], coverage)
    run(flight)
    assert is_described(flight.descriptor_store, KEYS[:1], coverage)
    assert not is_described(flight.descriptor_store, KEYS[:2], coverage)
    assert not is_described(flight.descriptor_store, KEYS[:1], sha256_bytes(b"other tiles"))


@pytest.fixture
def asked_of(monkeypatch):
    """Count the tiles that are looked up in a store."""
    seen, missing = [], DescriptorStore.missing
    monkeypatch.setattr(DescriptorStore, "missing", lambda s, shas: missing(s, seen.append(len(set(shas))) or shas))
    return seen


def test_only_columns_that_changed_since_the_last_receipt_are_looked_up(flight, asked_of):
    run(flight)
    assert sum(asked_of) == 40
    asked_of.clear()
    write_tile(flight.root, 43)
    scan(flight.selection, flight.build_dir)
    assert run(flight).computed == 1
    assert sum(asked_of) == 5  # the four of its column, and it


def test_an_interrupted_run_leaves_no_receipt_to_skip_by(flight, asked_of):
    run(flight)
    write_tile(flight.root, 43)
    scan(flight.selection, flight.build_dir)
    with pytest.raises(DescriptorError):
        run(flight, lambda images: np.full((len(images), 6), np.nan, np.float32))
    write_tile(flight.root, 44)
    scan(flight.selection, flight.build_dir)
    asked_of.clear()
    assert run(flight).computed == 2
    assert sum(asked_of) == 10


def test_rows_that_were_lost_are_looked_for_in_the_whole_corpus(flight, asked_of):
    run(flight)
    next((flight.descriptor_store / KEYS[0]).rglob("*.rows")).unlink()
    write_tile(flight.root, 43)
    scan(flight.selection, flight.build_dir)
    asked_of.clear()
    assert run(flight).computed == 41
    assert sum(asked_of) == 41


def test_two_copies_of_a_cache_that_share_a_store_do_not_believe_each_others_receipts(flight, tmp_path):
    """Both count their states alike, but of other corpora."""
    shared = changed(flight, descriptors={"store": tmp_path / "shared"})
    run(shared)
    shutil.copytree(flight.root, flight.root / "copy", ignore=shutil.ignore_patterns("copy", "shared"))
    twin = replace(shared, root=flight.root / "copy")
    twin = changed(twin, tiles={"source": (replace(flight.tiles.source[0], path=twin.root / "tiles"),)})
    scan(twin.selection, twin.build_dir)
    for each, number in ((shared, 43), (twin, 44)):
        write_tile(each.root, number)
        scan(each.selection, each.build_dir)
        assert run(each).computed == 1
        assert len(gathered(each)) == 41


def test_old_receipts_do_not_pile_up(flight):
    for n in range(80):
        write_receipt(flight.descriptor_store, KEYS[0], sha256_bytes(b"corpus %d" % n))
    run(flight)
    assert len(list((flight.descriptor_store / KEYS[0] / "receipts").iterdir())) <= 64
    assert is_described(
        flight.descriptor_store, KEYS[:1], last_corpus(flight.selection, flight.build_dir).coverage_sha256
    )


def test_a_deleted_store_takes_its_receipts_along(flight):
    run(flight)
    shutil.rmtree(flight.descriptor_store)
    assert not is_described(
        flight.descriptor_store, KEYS[:1], last_corpus(flight.selection, flight.build_dir).coverage_sha256
    )
    assert run(flight).computed == 40


# Stopping, dying, and memory


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
def test_a_signal_stops_in_order_and_keeps_what_is_finished(flight, name):
    before, sent = threading.active_count(), []
    calls = itertools.count(1)

    def slow(images):
        if next(calls) == 5:  # once: another that comes while the first is answered cuts the answer off
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return by_colour(images)

    with pytest.raises(KeyboardInterrupt):
        run(changed(flight, engine={"batch": 1}), slow, name=name)
    assert time.monotonic() - sent[0] < 5
    assert threading.active_count() <= before
    assert 0 < run(flight).computed < 40


KILLED = """
import os, sys, time, signal
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests import test_descriptors as t
done = 0
def counted(images):
    global done
    done += len(images)
    if done > 24:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return t.by_colour(images)
t.run(t.at(Path(sys.argv[1])), counted)
"""


def at(root):
    return Flight(
        root=root,
        area=Area(bbox=AREA, zooms=(ZOOM,)),
        tiles=Tiles(source=(TileSource(path=root / "tiles", name="test"),)),
        backbone=(Backbone(name="m"),),
        engine=Engine(batch=4),
        descriptors=Descriptors(threads=2),
    )


def test_a_kill_loses_at_most_a_batch_per_worker(flight):
    done = subprocess.run([sys.executable, "-c", KILLED, str(flight.root)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    computed = run(flight).computed
    assert computed <= 40 - (24 - 4 - 4)
    np.testing.assert_array_equal(gathered(flight), by_colour(np.stack([small(p) for p in paths(flight)])))


def small(path):
    return fit(decode(path.read_bytes(), max_pixels=1 << 20), (16, 16), "resize")


RETURNING = """
from provisioning.descriptors.pipeline.update import return_large_blocks
assert return_large_blocks()
"""


@pytest.mark.parametrize(("begin", "kept"), [("", "True"), (RETURNING, "False")])
def test_large_blocks_go_back_to_the_system_when_they_are_freed(begin, kept):
    """A block of 3 MiB after one of 16, from which malloc learns to keep both."""
    program = f"""
import ctypes
{begin}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def pages(): return int(open("/proc/self/statm").read().split()[0])
libc.free(libc.malloc(16 << 20))
large, small = libc.malloc(3 << 20), libc.malloc(1 << 10)
before = pages()
libc.free(large)
print(pages() == before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [kept]


def test_where_malloc_is_not_glibcs_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not return_large_blocks()


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt"])
def test_work_in_flight_is_bounded_by_the_queue(flight, name, monkeypatch):
    """With a network that hardly moves, only as many tiles are read as queues and buffers hold."""
    for n in range(40, 120):
        write_tile(flight.root, n)
    scan(flight.selection, flight.build_dir)
    read, most = [], []
    done = threading.Lock()
    real = Decoder.load_batch

    def counted(self, units, slot=0):
        read.extend(units)
        return real(self, units, slot)

    monkeypatch.setattr(Decoder, "load_batch", counted)
    finished = []

    def slow(images):
        time.sleep(0.005)
        with done:
            most.append(len(read) - len(finished))
            finished.extend(images)
        return by_colour(images)

    run(flight, slow, name=name)
    threads, batch = flight.descriptors.threads, flight.engine.batch
    assert max(most) <= (threads + 2 * layouts.QUEUE + 2) * batch
    assert len(read) == 120


# Samples for calibration


def test_samples_are_spread_over_the_corpus_and_fit_the_model(flight):
    backbone = Backbone(name="g", onnx=str(networks.save(networks.cells_model(), flight.root / "g.onnx")))
    source = onnx_source(backbone, flight.root, None)
    few = list(sample_images(flight.tiles, flight.build_dir, backbone, source, 8))
    assert [image.shape for image in few] == [(32, 32, 3)] * 8
    assert len(list(sample_images(flight.tiles, flight.build_dir, backbone, source, 100))) == 40
    again = list(sample_images(flight.tiles, flight.build_dir, backbone, source, 8))
    np.testing.assert_array_equal(few, again)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_real_model_on_real_tiles(tmp_path, shared_data, every):
    """SqueezeNet, fp16, batch 1, over drone tiles of two formats: every tile has a unit descriptor of its own."""
    names = ("oam_banepa", "oam_kampala")
    for name in names:
        for path in sorted((shared_data / "tiles" / name).glob("*/*/*.*"))[::every]:
            copy = tmp_path / path.relative_to(shared_data)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    backbone = Backbone(
        name="squeezenet",
        onnx=str(shared_data / "models" / "squeezenet_gap512.onnx"),
        channels="bgr",
        scale=Decimal(1),
        mean=(Decimal(104), Decimal(117), Decimal(123)),
    )
    prepare(backbone, onnx_source(backbone, tmp_path, None), tmp_path / "m.onnx")
    sources = tuple(TileSource(path=tmp_path / "tiles" / name, name=name) for name in names)
    flight = Flight(
        root=tmp_path,
        area=Area(bbox=AFRICA_TO_ASIA, zooms=(19,)),
        tiles=Tiles(source=sources, on_error="skip", max_empty=Decimal(1)),
        backbone=(backbone,),
        index=Index(),
        descriptors=Descriptors(threads=2, dtype="float16"),
    )
    flight.build_dir.mkdir()
    corpus = scan(flight.selection, flight.build_dir)
    done = describe(flight, engine=(tmp_path / "m.onnx").read_bytes(), backend=OnnxRuntime(), keys=KEYS[:1])
    found = gathered(flight)
    assert done.dimension == 512
    assert len(found) == corpus.count >= 64 // every
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == done.computed


def test_the_package_is_light_to_import():
    script = "import sys, provisioning.descriptors; print([m for m in ('numpy', 'onnx', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout == "[]\n"
