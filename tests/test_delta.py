"""What changed inside a file is sent, the whole file comes out, and each end works with one that knows no deltas."""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import DeliveryError
from provisioning.base.hashing import sha256_bytes
from provisioning.delivery.bundle import delta
from provisioning.delivery.bundle.contents import Listed
from provisioning.delivery.bundle.delta import Base, differences, most_bytes, rebuilt
from provisioning.delivery.bundle.earlier import bases_in, cache_of
from provisioning.delivery.bundle.pack import documents_of
from provisioning.delivery.install import receive
from provisioning.delivery.stream import send_documents, send_needed
from provisioning.delivery.sync import parse_destination, remote_command, sync_over
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.signing import public_key_path
from provisioning.flight.verify import verify
from tests.delivery import FILES, noise, publish_cache, tree, two_caches

REPOSITORY = Path(__file__).parents[1]
HERE = f"{shlex.quote(sys.executable)} -m provisioning.cli"
ROW = 1024


def rows(numbers) -> bytes:
    """An index of noise: rows of one length in the order of their numbers."""
    return b"".join(noise(ROW, str(number)) for number in numbers)


OLD_INDEX = rows(range(0, 2000, 2))
NEW_INDEX = rows(sorted([*range(0, 2000, 2), *range(1, 2000, 200)]))
OLD = {**FILES, "tiles.bin": noise(100_000, "tiles"), "corpus.index": OLD_INDEX}
NEW = {**OLD, "corpus.index": NEW_INDEX}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache that keeps two generations, one with the first only, one with the second only, and their key."""
    root, keys, expect = two_caches(tmp_path_factory.mktemp("delta"), OLD, NEW)
    publish_cache(root / "both", keys, counter=1, files=OLD)
    publish_cache(root / "both", keys, counter=2, files=NEW)
    return root, keys, expect


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def over(made, name: str, target: Path, *, shell=("sh", "-c"), deltas: bool = True):
    root, keys, expect = made
    options = {"--public-key": str(public_key_path(keys.signing.key))}
    command = remote_command(parse_destination(str(target)), shell=shell, program=HERE, options=options)
    with verify(root / name, expect) as verdict:
        return sync_over(command, verdict, documents_of(verdict), bases=bases_in(root / name) if deltas else None)


@pytest.fixture(scope="module")
def had_old(made, tmp_path_factory):
    target = tmp_path_factory.mktemp("vehicle") / "v"
    over(made, "old", target)
    return target


@pytest.fixture
def vehicle(had_old, tmp_path):
    """A vehicle that took the old generation from another process, once for all tests."""
    return shutil.copytree(had_old, tmp_path / "v", symlinks=True)


def delta_of(new: bytes, old: bytes, *, offset: int = 0) -> bytes:
    with open_bytes(old) as base:
        pieces = list(differences(io.BytesIO(new), base, named(new), offset=offset))
    assert sum(done for done, _ in pieces) == len(new) - offset
    return b"".join(piece for _, piece in pieces)


def applied(changes: bytes, old: bytes, new: bytes, *, offset: int = 0) -> bytes:
    with open_bytes(old) as base:
        return b"".join(rebuilt(io.BytesIO(changes), base, named(new), offset=offset))


def named(data: bytes) -> Listed:
    return Listed("corpus.index", len(data), sha256_bytes(data))


class open_bytes:
    """A base made of bytes."""

    def __init__(self, data: bytes) -> None:
        self.fd = os.memfd_create("base")
        os.write(self.fd, data)
        self.base = Base(self.fd, len(data))

    def __enter__(self) -> Base:
        return self.base

    def __exit__(self, *_) -> None:
        os.close(self.fd)


# what a delta is


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of 64 KiB, so that a small file has many."""
    monkeypatch.setattr(delta, "SEGMENT_BYTES", 1 << 16)
    monkeypatch.setattr(delta, "MARGIN_BYTES", 1 << 14)
    monkeypatch.setattr(delta, "WINDOW_BYTES", (1 << 16) + (1 << 15))
    monkeypatch.setattr(delta, "MOST_GROWTH", 64 + (1 << 8))


def test_one_per_cent_of_new_rows_costs_one_and_a_half_per_cent_at_most():
    assert len(delta_of(NEW_INDEX, OLD_INDEX)) < 0.015 * len(NEW_INDEX)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize(
    "change",
    [
        lambda old: old,
        lambda old: b"",
        lambda old: old[:100_000] + old[400_000:],
        lambda old: old[:200_000] + noise(150_000, "block") + old[200_000:],
        lambda old: old[500_000:] + old[:500_000],
        lambda old: noise(len(old), "another"),
        lambda old: bytes(len(old)),
    ],
    ids=["same", "empty", "cut out", "put in", "swapped", "other", "zeros"],
)
@pytest.mark.parametrize("offset", [0, 1, 70_000])
def test_a_delta_gives_the_file_from_any_byte_on(change, offset):
    new = change(OLD_INDEX)
    offset = min(offset, len(new))
    changes = delta_of(new, OLD_INDEX, offset=offset)
    assert applied(changes, OLD_INDEX, new, offset=offset) == new[offset:]
    assert len(changes) <= most_bytes(len(new) - offset)


@pytest.mark.usefixtures("small_segments")
def test_what_was_moved_far_is_found_again():
    moved = OLD_INDEX[:200_000] + noise(300_000, "block") + OLD_INDEX[200_000:]
    assert len(delta_of(moved, OLD_INDEX)) < 300_000 + 2 * 65_536 + 50_000


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 50))
def test_small_files_come_out_whatever_the_base(old, new, offset):
    offset = min(offset, len(new))
    assert applied(delta_of(new, old, offset=offset), old, new, offset=offset) == new[offset:]


def test_a_base_that_shrinks_is_an_error():
    with open_bytes(OLD_INDEX) as base:
        os.ftruncate(base.fd, 10)
        with pytest.raises(DeliveryError, match="shrank"):
            list(differences(io.BytesIO(NEW_INDEX), base, named(NEW_INDEX)))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    """A file of 256 MiB costs what one of 64 MiB does, at both ends."""
    code = (
        "import os,sys;from provisioning.delivery.bundle.delta import *;"
        "from provisioning.delivery.bundle.contents import Listed;"
        "n=int(sys.argv[1])<<20;fd=os.open(sys.argv[2],os.O_RDONLY);base=Base(fd,n);f=Listed('x',n,'0'*64);"
        "out=open(sys.argv[3],'wb');\n"
        "for _,p in differences(open(sys.argv[2],'rb'),base,f): out.write(p)\n"
        "out.close();[None for _ in rebuilt(open(sys.argv[3],'rb'),base,f)];"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    used = []
    for size in (64, 256):
        path = tmp_path / str(size)
        rng = random.Random(1)
        with path.open("wb") as file:
            file.writelines(rng.randbytes(1 << 20) for _ in range(size))
        done = subprocess.run(
            [sys.executable, "-c", code, str(size), path, tmp_path / "d"], capture_output=True, check=True, text=True
        )
        used.append(int(done.stdout))
    assert used[1] < 1.1 * used[0]


# over the line


def test_a_vehicle_with_the_old_generation_gets_only_what_changed_inside(made, vehicle, tmp_path):
    sent = over(made, "both", vehicle)
    assert sent.files == 1
    assert sent.sent_bytes < 0.015 * len(NEW_INDEX) + 5_000
    assert tree(vehicle / "current") == tree(made[0] / "new/current")


def test_a_sender_without_the_old_generation_sends_the_whole_file(made, vehicle, tmp_path):
    sent = over(made, "new", vehicle)
    assert sent.sent_bytes > len(NEW_INDEX)
    assert tree(vehicle / "current") == tree(made[0] / "new/current")


def test_a_kept_generation_that_rotted_here_is_compared_with_nothing(made, vehicle, tmp_path):
    root, keys, _ = made
    for counter, files in ((1, OLD), (2, NEW)):
        publish_cache(tmp_path / "cache", keys, counter=counter, files=files)
    rotten = tmp_path / "cache/generations/000001/corpus.index"
    rotten.chmod(0o644)
    rotten.write_bytes(OLD_INDEX[:-1] + b"?")
    sent = over((tmp_path, keys, made[2]), "cache", vehicle)
    assert sent.sent_bytes > len(NEW_INDEX)
    assert tree(vehicle / "current") == tree(root / "new/current")


def test_a_vehicle_whose_old_file_rotted_offers_no_base(made, vehicle):
    rotten = vehicle / "generations/000001/corpus.index"
    rotten.chmod(0o644)
    rotten.write_bytes(OLD_INDEX[:-1] + b"?")
    assert over(made, "both", vehicle).sent_bytes > len(NEW_INDEX)


def test_a_vehicle_that_reads_no_zstd_gets_whole_files(made, vehicle, monkeypatch):
    monkeypatch.setattr("provisioning.delivery.install.zstd_module", lambda: None)
    said, answers = received(made, vehicle, whole_generation(made, deltas=True))
    assert "bases" not in said
    assert answers["done"]["counter"] == 2


@pytest.mark.parametrize("cut", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2_600, 3_000, 5_000)), 9_000])
def test_a_delta_that_was_cut_is_continued(made, vehicle, tmp_path, cut):
    line = ("sh", "-c", f'dd bs=1 count={cut} 2>/dev/null | sh -c "$1"', "cut-line")
    with pytest.raises(DeliveryError):
        over(made, "both", vehicle, shell=line)
    over(made, "both", vehicle)
    assert tree(vehicle / "current") == tree(made[0] / "new/current")


@pytest.mark.usefixtures("small_segments")
def test_what_arrived_of_a_delta_is_not_sent_again(made, vehicle):
    """The part that was rebuilt stays, and the next delta begins behind it."""
    whole = sender(made)
    with pytest.raises(DeliveryError, match="cut"):
        received(made, vehicle, whole[: len(whole) - 3_000])
    (part,) = (vehicle / ".build/incoming").glob("*.part")
    arrived = part.stat().st_size
    assert arrived > len(NEW_INDEX) // 2
    assert part.read_bytes() == NEW_INDEX[:arrived]
    said, answers = received(made, vehicle, sender(made, offset=arrived))
    assert said["need"] == [[sha256_bytes(NEW_INDEX), arrived]]
    assert answers["done"]["counter"] == 2


# an end that knows no deltas


def sender(made, *, offset: int = 0) -> bytes:
    """What a sender with both generations says to a vehicle that lacks the new index from `offset` on."""
    stream = io.BytesIO()
    reply = {
        "need": [[sha256_bytes(NEW_INDEX), offset]],
        "bases": {sha256_bytes(NEW_INDEX): sha256_bytes(OLD_INDEX)},
    }
    with verify(made[0] / "both", made[2]) as verdict:
        send_documents(stream, documents_of(verdict), deltas=True)
        send_needed(
            stream, reply, verdict.require(), lambda file: verdict.open(file.path), bases=bases_in(made[0] / "both")
        )
    return stream.getvalue()


def whole_generation(made, *, deltas: bool) -> bytes:
    """What a sender says to a vehicle that lacks the new index and named no base."""
    stream = io.BytesIO()
    with verify(made[0] / "new", made[2]) as verdict:
        send_documents(stream, documents_of(verdict), deltas=deltas)
    return stream.getvalue() + NEW_INDEX


def received(made, target: Path, data: bytes):
    """Give `data` to a vehicle; return what it asked for and its last answer."""
    answers = io.BytesIO()
    expect = made[2]
    try:
        receive(io.BytesIO(data), answers, target, trust=trusting(expect, target), verify=verifying(expect))
    finally:
        said = [json.loads(line) for line in answers.getvalue().splitlines()]
    return said[0], said[-1]


def test_a_sender_that_knows_no_deltas_is_asked_as_ever(made, vehicle):
    """The words of flightcache 0.1: sizes in the opening line, whole files after it."""
    said, answers = received(made, vehicle, whole_generation(made, deltas=False))
    assert said == {"need": [[sha256_bytes(NEW_INDEX), 0]]}
    assert answers["done"]["counter"] == 2


def test_a_receiver_that_knows_no_deltas_gets_whole_files(made):
    """The answer of flightcache 0.1 names no bases."""
    stream, reply = io.BytesIO(), {"need": [[sha256_bytes(NEW_INDEX), 0]]}
    with verify(made[0] / "both", made[2]) as verdict:
        documents = documents_of(verdict)
        send_documents(stream, documents, deltas=True)
        send_needed(
            stream, reply, verdict.require(), lambda file: verdict.open(file.path), bases=bases_in(made[0] / "both")
        )
    stream.seek(0)
    line = json.loads(stream.readline().partition(b" ")[2])
    assert line["sizes"] == [len(data) for data in documents if data]
    assert stream.read() == b"".join(documents) + NEW_INDEX


def test_a_sender_that_has_no_such_base_says_so(made, vehicle):
    data = whole_generation(made, deltas=True)
    head = data[: -len(NEW_INDEX)]
    said, answers = received(made, vehicle, head + b'{"from": null}\n' + NEW_INDEX)
    assert said["bases"] == {sha256_bytes(NEW_INDEX): sha256_bytes(OLD_INDEX)}
    assert answers["done"]["counter"] == 2


def test_a_path_may_name_the_cache_or_its_generation(made):
    assert cache_of(made[0] / "both/current") == (made[0] / "both").resolve()
    assert cache_of(made[0] / "both") == made[0] / "both"
