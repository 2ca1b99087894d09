"""The descriptor store loses nothing that a killed writer had written, and never returns what was not written."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import DescriptorError, FilesystemError
from provisioning.descriptors import is_described
from provisioning.descriptors.store import generations, guard, keymap, lookup, shards, store
from provisioning.descriptors.store.receipts import write_receipt
from tests.descriptor_rows import DIMENSION, KEY, fill, opened, shas, vectors
from tests.properties import examples


def shard_files(path):
    return sorted((path / KEY).glob("g*/*.rows"))


def test_descriptors_come_back_in_the_order_asked(tmp_path):
    fill(tmp_path, *range(20))
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(7, 3, 19, 7)), vectors(7, 3, 19, 7))
        assert (len(kept), kept.dimension) == (20, DIMENSION)


def test_a_key_that_begins_as_another_does_has_its_own_row(tmp_path):
    keys = [b"8 bytes " + sha[8:] for sha in shas(0, 1, 2)]
    with opened(tmp_path) as kept:
        kept.append(keys[:2], vectors(0, 1))
        np.testing.assert_array_equal(kept.gather(keys[1::-1]), vectors(1, 0))
        with pytest.raises(DescriptorError, match="1 tiles have no descriptor"):
            kept.gather(keys)


@pytest.mark.parametrize("most_in_memory", [0, 39, 1000])
def test_a_map_in_memory_follows_what_other_processes_write(tmp_path, monkeypatch, most_in_memory):
    monkeypatch.setattr(keymap, "MOST_IN_MEMORY", most_in_memory)
    fill(tmp_path, *range(40))
    with opened(tmp_path) as kept, opened(tmp_path) as other:
        assert kept._map.rows(shas(3, 99, *range(40)))[:2].tolist() == [3, -1]
        other.append(shas(99), vectors(99))
        other.flush()
        other._map.forget(shas(3))
        assert kept._map.rows(shas(3, 99)).tolist() == [-1, 40]
        kept._map.forget(shas(99))
        assert kept._map.rows(shas(3, 99)).tolist() == [-1, -1]


@pytest.mark.parametrize("extra", [0, 1])
def test_shards_that_stay_in_memory_are_those_on_the_disk(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(shards, "SHARD_BYTES", 400)
    fill(tmp_path, *range(10))
    with opened(tmp_path) as kept:
        kept.gather(shas(*range(10)))
        first, *_, last = shard_files(tmp_path)
        other = first.with_suffix(".new")
        other.write_bytes(last.read_bytes()[:64] + first.read_bytes()[64:])
        data = bytearray(other.read_bytes())
        data[64 + 88 + 50] ^= 4
        other.write_bytes(data + bytes(88 * extra))
        os.replace(other, first)
        os.truncate(last, 64 + 88)
        with pytest.raises(DescriptorError, match="1 descriptors in the store are damaged"):
            kept.gather(shas(0, 1, 2, 8))
        with pytest.raises(DescriptorError, match="too short"):
            kept.gather(shas(9))


def test_missing_names_each_tile_once_in_order(tmp_path):
    fill(tmp_path, 1, 2)
    with opened(tmp_path) as kept:
        assert kept.missing(shas(9, 1, 5, 9)) == shas(9, 5)


def test_missing_is_exact_beyond_one_lookup(tmp_path):
    digests = [hashlib.sha256(b"%d" % n).digest() for n in range(10_000)]
    with opened(tmp_path) as kept:
        kept.append(digests[::2], np.zeros((5000, 2), np.float32))
        kept.flush()
        assert kept.missing(digests) == digests[1::2]


def test_keys_do_not_share_descriptors(tmp_path):
    fill(tmp_path, 1)
    with opened(tmp_path, key="other") as kept:
        assert kept.missing(shas(1)) == shas(1)


def test_an_unflushed_descriptor_is_not_missing(tmp_path):
    with opened(tmp_path) as kept:
        kept.append(shas(1), vectors(1))
        assert kept.missing(shas(1)) == []
        np.testing.assert_array_equal(kept.gather(shas(1)), vectors(1))


def test_the_first_descriptor_of_a_tile_stays(tmp_path):
    fill(tmp_path, 1)
    with opened(tmp_path) as kept:
        kept.append(shas(1), vectors(2))
        kept.flush()
        np.testing.assert_array_equal(kept.gather(shas(1)), vectors(1))


def test_float16_keeps_similarities_and_unit_length(tmp_path):
    fill(tmp_path, *range(50), dtype="float16")
    with opened(tmp_path, "float16") as kept:
        found = kept.gather(shas(*range(50)))
    exact = vectors(*range(50))
    assert np.abs(found @ found.T - exact @ exact.T).max() < 5e-4
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_float16_leaves_vectors_of_another_length_alone(tmp_path):
    with opened(tmp_path, "float16") as kept:
        kept.append(shas(1), 3 * vectors(1))
        np.testing.assert_allclose(kept.gather(shas(1)), 3 * vectors(1), rtol=1e-3)


def test_another_precision_is_refused(tmp_path):
    fill(tmp_path, 1)
    with pytest.raises(DescriptorError, match="holds float32"):
        opened(tmp_path, "float16")


def test_another_dimension_is_refused(tmp_path):
    fill(tmp_path, 1)
    with opened(tmp_path) as kept, pytest.raises(DescriptorError, match="another shape"):
        kept.append(shas(2), vectors(2, dimension=DIMENSION + 1))


def test_shards_fill_and_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 400)
    for n in range(0, 30, 3):
        fill(tmp_path, n, n + 1, n + 2)
    assert len(shard_files(tmp_path)) == 8
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(30))), vectors(*range(30)))


def test_absent_descriptors_are_an_error(tmp_path):
    fill(tmp_path, 1)
    with opened(tmp_path) as kept, pytest.raises(DescriptorError, match="2 tiles have no descriptor") as wrong:
        kept.gather(shas(1, 2, 3))
    assert wrong.value.file == str(tmp_path / KEY)


# Death and damage

KILLED = """
import os, sys, signal
sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.descriptor_rows import opened, shas, vectors
kept = opened(Path(sys.argv[1]))
for n in range(0, 40, 4):
    kept.append(shas(*range(n, n + 4)), vectors(*range(n, n + 4)))
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_nothing_it_appended(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("done\n", -9), done.stderr
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(40))), vectors(*range(40)))


@pytest.mark.parametrize("cut", [1, 8, 39, 40, 60, 87])
def test_half_a_record_at_the_end_is_cut_off(tmp_path, cut):
    fill(tmp_path, 0, 1)
    killed = opened(tmp_path)
    killed.append(shas(2), vectors(2))
    killed.close()
    os.truncate(shard_files(tmp_path)[0], shard_files(tmp_path)[0].stat().st_size - cut)
    with opened(tmp_path) as again:
        assert again.missing(shas(0, 1, 2)) == shas(2)
        again.append(shas(2, 3), vectors(2, 3))
        np.testing.assert_array_equal(again.gather(shas(0, 1, 2, 3)), vectors(0, 1, 2, 3))


def test_rows_that_a_power_cut_left_as_zeros_are_not_believed(tmp_path):
    fill(tmp_path, 0, 1)
    path = shard_files(tmp_path)[0]
    os.truncate(path, path.stat().st_size + 3 * 88)
    with opened(tmp_path) as kept:
        assert len(kept) == 2
        kept.append(shas(5), vectors(5))
        np.testing.assert_array_equal(kept.gather(shas(0, 1, 5)), vectors(0, 1, 5))


def test_data_is_durable_before_the_map_names_it(tmp_path, monkeypatch):
    order = []
    real_sync, real_adopt = shards.sync, store.KeyMap.adopt
    monkeypatch.setattr(shards, "sync", lambda *a: (order.append("sync"), real_sync(*a)))
    monkeypatch.setattr(store.KeyMap, "adopt", lambda *a: (order.append("map"), real_adopt(*a)))
    fill(tmp_path, 1, 2, 3)
    assert order == ["sync", "map"]


def test_a_failed_fsync_leaves_the_map_as_it_was(tmp_path, monkeypatch):
    fill(tmp_path, 1)

    def failing(*_):
        raise OSError(5, "Input/output error")

    kept = opened(tmp_path)
    kept.append(shas(2), vectors(2))
    with monkeypatch.context() as patched:
        patched.setattr(shards, "sync", failing)
        with pytest.raises(FilesystemError):
            kept.flush()
        assert kept._map.rows(shas(2)).tolist() == [-1]
    kept.close()
    with opened(tmp_path) as again:
        assert again.missing(shas(1, 2)) == []


def test_a_flipped_bit_is_found_dropped_and_reported(tmp_path):
    fill(tmp_path, 0, 1, 2)
    write_receipt(tmp_path, KEY, "c" * 64)
    path = shard_files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[64 + 88 + 50] ^= 4
    path.write_bytes(data)
    with opened(tmp_path) as kept:
        with pytest.raises(DescriptorError, match="1 descriptors in the store are damaged") as caught:
            kept.gather(shas(0, 1, 2))
        assert "run doit again" in caught.value.next_step
        assert kept.missing(shas(0, 1, 2)) == shas(1)
        kept.append(shas(1), vectors(1))
        np.testing.assert_array_equal(kept.gather(shas(0, 1, 2)), vectors(0, 1, 2))
    assert not is_described(tmp_path, [KEY], "c" * 64)


def test_a_lost_shard_costs_its_rows_only(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 400)
    fill(tmp_path, *range(12))
    write_receipt(tmp_path, KEY, "c" * 64)
    shard_files(tmp_path)[1].unlink()
    with opened(tmp_path) as kept:
        assert kept.missing(shas(*range(12))) == shas(4, 5, 6, 7)
        kept.append(shas(4, 5, 6, 7), vectors(4, 5, 6, 7))
        np.testing.assert_array_equal(kept.gather(shas(*range(12))), vectors(*range(12)))
    assert not is_described(tmp_path, [KEY], "c" * 64)


def test_a_store_without_any_shard_is_an_empty_one(tmp_path):
    fill(tmp_path, *range(5))
    write_receipt(tmp_path, KEY, "c" * 64)
    shard_files(tmp_path)[0].unlink()
    with opened(tmp_path) as kept:
        assert kept.missing(shas(*range(5))) == shas(*range(5))
        assert not is_described(tmp_path, [KEY], "c" * 64)
        kept.append(shas(3), vectors(3))
        np.testing.assert_array_equal(kept.gather(shas(3)), vectors(3))


def test_a_shortened_last_shard_costs_its_rows_only(tmp_path):
    fill(tmp_path, *range(6))
    os.truncate(shard_files(tmp_path)[0], 64 + 3 * 88)
    with opened(tmp_path) as kept:
        assert kept.missing(shas(*range(6))) == shas(3, 4, 5)
        kept.append(shas(3, 9), vectors(3, 9))
        np.testing.assert_array_equal(kept.gather(shas(0, 1, 2, 3, 9)), vectors(0, 1, 2, 3, 9))


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_a_lost_map_is_made_anew_from_the_shards(tmp_path, damage):
    fill(tmp_path, *range(8))
    for path in (tmp_path / KEY).glob("g*/map.sqlite*"):
        path.unlink() if damage == "gone" else path.write_bytes(b"garbage" * 1000)
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(8))), vectors(*range(8)))


# Several users


WRITER = """
import os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.descriptor_rows import opened, shas, vectors
first = int(sys.argv[2])
with opened(Path(sys.argv[1])) as kept:
    for n in range(first, first + 120, 3):
        kept.append(shas(n, n + 1, n + 2), vectors(n, n + 1, n + 2))
        if n % 9 == 0:
            kept.flush()
"""


def test_caches_that_share_a_store_do_not_damage_it(tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(n)]) for n in (0, 60, 200)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    everything = [*range(180), *range(200, 320)]
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*everything)), vectors(*everything))


def test_another_caches_descriptors_are_seen(tmp_path):
    with opened(tmp_path) as ours, opened(tmp_path) as theirs:
        theirs.append(shas(1), vectors(1))
        theirs.flush()
        assert ours.missing(shas(1, 2)) == shas(2)
        np.testing.assert_array_equal(ours.gather(shas(1)), vectors(1))


def test_what_another_writer_did_to_the_shard_between_two_appends_is_seen(tmp_path, monkeypatch):
    """It appended rows, died in the middle of one, filled the shard and began the next."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * shards.Layout("float32", DIMENSION).record.itemsize)
    with opened(tmp_path) as ours, opened(tmp_path) as theirs:
        ours.append(shas(0), vectors(0))
        theirs.append(shas(1), vectors(1))
        with open(shard_files(tmp_path)[0], "ab") as file:
            file.write(b"half a record")
        ours.append(shas(2), vectors(2))
        theirs.append(shas(3, 4), vectors(3, 4))
        ours.append(shas(5), vectors(5))
        np.testing.assert_array_equal(ours.gather(shas(*range(6))), vectors(*range(6)))
    assert len(shard_files(tmp_path)) == 2


def test_rows_are_not_written_to_a_shard_that_was_removed(tmp_path):
    with opened(tmp_path) as kept:
        kept.append(shas(1), vectors(1))
        shard_files(tmp_path)[0].unlink()
        kept.append(shas(2), vectors(2))
        np.testing.assert_array_equal(kept.gather(shas(2)), vectors(2))


def test_threads_may_append_together(tmp_path):
    with opened(tmp_path) as kept:
        threads = [
            threading.Thread(target=lambda t=t: [kept.append(shas(n), vectors(n)) for n in range(t, 80, 4)])
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(kept.gather(shas(*range(80))), vectors(*range(80)))


# Compaction


def test_compaction_drops_doubled_and_damaged_rows(tmp_path):
    fill(tmp_path, *range(8))
    fill(tmp_path, *range(8))
    before = shard_files(tmp_path)[0].stat().st_size
    with opened(tmp_path) as kept:
        assert kept.compact()
        np.testing.assert_array_equal(kept.gather(shas(*range(8))), vectors(*range(8)))
        kept.append(shas(8), vectors(8))
    assert shard_files(tmp_path)[0].parent.name == "g000002"
    assert shard_files(tmp_path)[0].stat().st_size < before
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(9))), vectors(*range(9)))


def test_compaction_that_drops_damaged_rows_drops_the_receipts(tmp_path):
    fill(tmp_path, 0, 1, 2)
    path = shard_files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[64 + 88 + 50] ^= 4
    with opened(tmp_path) as kept:
        write_receipt(tmp_path, KEY, "c" * 64)
        assert kept.compact()
        assert is_described(tmp_path, [KEY], "c" * 64)
        shard_files(tmp_path)[0].write_bytes(data)
        assert kept.compact()
        assert kept.missing(shas(0, 1, 2)) == shas(1)
    assert not is_described(tmp_path, [KEY], "c" * 64)


def test_a_store_is_tidied_once_a_quarter_of_it_is_dead(tmp_path):
    fill(tmp_path, *range(8))
    fill(tmp_path, 0, 1)
    with opened(tmp_path) as kept:
        assert not kept.tidy()
        kept.append(shas(2, 3), vectors(2, 3))
        kept.flush()
        assert kept.tidy()
        np.testing.assert_array_equal(kept.gather(shas(*range(8))), vectors(*range(8)))


def test_compaction_waits_for_nobody(tmp_path):
    fill(tmp_path, 1)
    with opened(tmp_path) as ours, opened(tmp_path) as theirs:
        assert not ours.compact()
        theirs.append(shas(2), vectors(2))
        theirs.flush()
        np.testing.assert_array_equal(ours.gather(shas(1, 2)), vectors(1, 2))


def test_an_interrupted_compaction_changes_nothing(tmp_path, monkeypatch):
    fill(tmp_path, *range(5))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt), opened(tmp_path) as kept:
            kept.compact()
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(5))), vectors(*range(5)))
        assert kept.compact()
    assert [p.name for p in (tmp_path / KEY).glob("tmp-*")] == []


def test_what_a_damaged_map_cannot_tell_counts_as_missing(tmp_path, monkeypatch):
    fill(tmp_path, *range(6))
    monkeypatch.setattr(lookup, "LOOKUP", 2)
    assert lookup.count_missing(tmp_path, KEY, shas(*range(8))) == 2
    asked = iter([False, True, False, False])

    class Damaged(sqlite3.Connection):
        def execute(self, *args):
            if next(asked):
                raise sqlite3.DatabaseError("database disk image is malformed")
            return super().execute(*args)

    connect = sqlite3.connect
    monkeypatch.setattr(lookup.sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Damaged))
    assert lookup.count_missing(tmp_path, KEY, shas(*range(8))) == 4


def test_where_there_is_no_store_everything_is_missing(tmp_path):
    assert lookup.count_missing(tmp_path, KEY, shas(*range(8))) == 8


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True)),
        st.tuples(st.sampled_from(["flush", "die", "compact", "reopen"]), st.none()),
    ),
    max_size=14,
)


@examples(0.4)
@given(steps=steps)
def test_any_history_keeps_every_descriptor(tmp_path_factory, steps):
    path, expected = tmp_path_factory.mktemp("history"), set()
    kept = opened(path)
    for step, numbers in steps:
        if step == "append":
            kept.append(shas(*numbers), vectors(*numbers))
            expected.update(numbers)
        elif step in ("flush", "compact"):
            getattr(kept, step)()
        else:
            if step == "reopen":
                kept.flush()
            kept.close()  # without a flush: what a kill leaves
            kept = opened(path)
    held = sorted(expected)
    if held:
        np.testing.assert_array_equal(kept.gather(shas(*held)), vectors(*held))
    assert kept.missing(shas(*range(31))) == shas(*(n for n in range(31) if n not in expected))
    kept.close()


@pytest.mark.parametrize("place", ["is here", "has a space and ?mark#"])
def test_counting_what_is_missing_reads_the_map_as_it_lies_and_writes_nothing(tmp_path, monkeypatch, place):
    home, elsewhere = tmp_path / place, tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert lookup.count_missing(home, KEY, shas(1, 2)) == 2  # no store: nothing is known, and nothing is made
    assert not home.exists()
    with opened(home) as kept:
        kept.append(shas(1), vectors(1))
        kept.flush()
        before = sorted(home.rglob("*"))
        assert lookup.count_missing(home, KEY, shas(1, 2)) == 1  # what lies in the write-ahead log counts
        assert sorted(home.rglob("*")) == before
    before = sorted(home.rglob("*"))
    assert lookup.count_missing(home, KEY, shas(1, 2)) == 1
    assert sorted(home.rglob("*")) == before
    assert not any(elsewhere.iterdir())


def test_a_look_up_reads_the_map_and_leaves_nothing_behind(tmp_path, monkeypatch):
    fill(tmp_path / "store", 1, 2, 3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert lookup.count_missing(tmp_path / "store", KEY, shas(1, 2, 9)) == 1
    assert not list((tmp_path / "here").iterdir())


def test_a_map_that_cannot_be_opened_counts_all_as_missing(tmp_path):
    fill(tmp_path, 1, 2, 3)
    (path,) = (tmp_path / KEY).glob("g*/map.sqlite")
    path.unlink()
    path.mkdir()
    assert lookup.count_missing(tmp_path, KEY, shas(1, 2, 9)) == 3


def test_a_receipt_for_tiles_is_none_for_their_cuts(tmp_path):
    coverage = "c" * 64
    write_receipt(tmp_path, KEY, coverage)
    assert is_described(tmp_path, [KEY], coverage)
    assert not is_described(tmp_path, [KEY], coverage, overlap=2)
    write_receipt(tmp_path, KEY, coverage, overlap=2)
    assert is_described(tmp_path, [KEY], coverage, overlap=2)


def test_a_map_that_is_discarded_takes_its_logs_along(tmp_path):
    for suffix in ("", "-wal", "-shm", "-journal"):
        (tmp_path / f"map.sqlite{suffix}").touch()
    (tmp_path / "000000.rows").touch()
    guard.discard_map(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["000000.rows"]


def test_the_first_generation_is_number_one_and_an_unfinished_one_is_begun_anew(tmp_path):
    first = generations.begin(tmp_path)
    (first / "left").touch()
    assert generations.begin(tmp_path) == first
    assert not list(first.iterdir())
    generations.finish(tmp_path, first)
    assert generations.newest(tmp_path).name == "g000001"


def test_a_shard_is_no_program(tmp_path):
    fill(tmp_path, 1)
    (shard,) = shard_files(tmp_path)
    assert shard.stat().st_mode & 0o111 == 0


def test_descriptors_of_another_shape_and_a_full_disk_name_the_store(tmp_path, monkeypatch):
    fill(tmp_path, 1)
    with opened(tmp_path) as kept:
        with pytest.raises(DescriptorError, match="of another shape") as wrong:
            kept.append(shas(2, 3), vectors(2))
        assert wrong.value.file == str(tmp_path / KEY)
        assert wrong.value.facts == {"got": [1, DIMENSION], "expected": [2, DIMENSION]}

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shards, "write_all", full)
        with pytest.raises(FilesystemError, match="write descriptors") as refused:
            kept.append(shas(2), vectors(2))
        assert refused.value.file == str(tmp_path / KEY)


def test_a_store_of_which_a_quarter_is_dead_is_left_as_it_is(tmp_path):
    with opened(tmp_path) as kept:
        kept.append(shas(1, 2, 3), vectors(1, 2, 3))
        kept.flush()
        kept.append(shas(3), vectors(3))
        kept.flush()
        assert not kept.tidy()


def test_what_another_writer_began_after_this_one_opened_is_found(tmp_path):
    with opened(tmp_path) as first:
        fill(tmp_path, 1, 2)
        first.flush()
        assert (len(first), first.missing(shas(1, 2, 3))) == (2, shas(3))


def test_a_map_that_is_no_database_is_made_anew_and_said(tmp_path, caplog):
    fill(tmp_path, 1, 2)
    (path,) = (tmp_path / KEY).glob("g*/map.sqlite")
    path.write_bytes(b"no database" * 100)
    with opened(tmp_path) as kept:
        kept.flush()
        assert len(kept) == 2
    (event,) = [record for record in caplog.records if record.kind == "c10.provision.descriptor.failure"]
    assert event.kv["file"] == str(path)
    assert event.kv["reason"].startswith("key map made anew: ")


def test_a_closed_store_has_closed_its_map(tmp_path):
    with opened(tmp_path) as kept:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        len(kept._map)


def test_each_row_is_read_once_however_many_are_asked_for(tmp_path, monkeypatch):
    fill(tmp_path, *range(7))
    read, counts = shards.read_rows, []
    monkeypatch.setattr(shards, "BLOCK_BYTES", 2 * shards.Layout("float32", DIMENSION).record.itemsize)
    monkeypatch.setattr(shards, "read_rows", lambda *given: counts.append(len(given[2])) or read(*given))
    with opened(tmp_path) as kept:
        np.testing.assert_array_equal(kept.gather(shas(*range(7))), vectors(*range(7)))
    assert counts == [2, 2, 2, 1]
