"""Every parser of foreign input on its seeds, its kept inputs and a few mutations: a value or a typed Error, in time."""

from __future__ import annotations

import random
import zlib

import pytest

from tests.fuzz.run import CORPUS, pool, tried
from tests.fuzz.targets import TARGETS, run
from tests.fuzzing import mutate

MUTATIONS = 25


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_gives_a_value_or_a_typed_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, inputs = random.Random(zlib.crc32(name.encode())), pool(name)
    for data in inputs:
        tried(name, data)
    for _ in range(MUTATIONS):
        tried(name, mutate(rng.choice(inputs), rng))


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_seed_is_a_good_input(name):
    """A fuzzer whose seeds are refused at the door looks at nothing else."""
    (seed, *_) = TARGETS[name].seeds()
    said = run(name, seed)
    assert said == "accepted" or name == "floor"


def test_every_folder_of_the_corpus_is_that_of_a_target():
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


def test_what_breaks_a_parser_is_kept_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TARGETS, "broken", TARGETS["floor"]._replace(read=lambda data, _: data[7]))
    with pytest.raises(IndexError):
        tried("broken", b"short")
    (kept,) = (tmp_path / "fuzz-found").iterdir()
    assert kept.read_bytes() == b"short"
