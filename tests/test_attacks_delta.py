"""A delta is anybody's: what it asks for is bounded, the earlier file is read by handle, the signed digest decides."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys

import pytest

from provisioning.base.errors import DeliveryError, FilesystemError
from provisioning.base.hashing import sha256_bytes
from provisioning.delivery.bundle import compression
from provisioning.delivery.bundle.contents import Listed
from provisioning.delivery.bundle.delta import MOST_GROWTH, SEGMENT_BYTES, WINDOW_BYTES, Base, opened_base, rebuilt
from provisioning.delivery.bundle.earlier import no_bases
from provisioning.delivery.install import receive
from provisioning.delivery.stream import send_needed
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.verify import verify
from tests.delivery import manifest_of, noise, publish_cache, tree, two_caches
from tests.test_delta import NEW, NEW_INDEX, OLD, OLD_INDEX, delta_of, whole_generation

zstd = compression.zstd_module()
SIZE = 100_000
FILE = Listed("corpus.index", SIZE, sha256_bytes(b"?"))
OLD_FILE = noise(20_000, "base")


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").write_bytes(OLD_FILE)
    with opened_base(tmp_path, "base") as opened:
        yield opened


def segment(frame: bytes, *, at: int = 0, length: int = 0, packed: int | None = None) -> bytes:
    return struct.pack("<QII", at, length, len(frame) if packed is None else packed) + frame


ROWS = (100, 30, 16, 8, 100, 150, 128)
"""Blocks of 512 bytes, and codes of 128 bytes, within the base and the file."""


def by_rows(
    ours: tuple[int, ...] = (), theirs: tuple[int, ...] = (), *, columns: tuple[int, ...] = (3, 127), size: int = 0
) -> bytes:
    """What says where the rows of the file and of the base are, ROWS where no other numbers begin it."""
    both = (*ours, *ROWS[len(ours) :], *theirs, *ROWS[len(theirs) :])
    body = struct.pack(f"<QQIIQQIQQIIQQI{len(columns)}I", *both, *columns)
    return struct.pack("<QII", 0, 0xFFFFFFFF, size or len(body)) + body


def unbounded(data: bytes, window_log: int) -> bytes:
    """A frame that does not say how much it holds, so that its reader needs the whole window."""
    options = {zstd.CompressionParameter.window_log: window_log, zstd.CompressionParameter.compression_level: 1}
    options[zstd.CompressionParameter.content_size_flag] = 0
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(data) + compressor.flush()


GOOD = zstd.compress(bytes(SIZE))
HOSTILE = {
    "a part of the base longer than any": segment(GOOD, length=WINDOW_BYTES + 1),
    "a part of 4 GiB": segment(GOOD, length=0xFFFFFFFF),
    "a part behind the end of the base": segment(GOOD, at=19_000, length=2_000),
    "a part far behind the end": segment(GOOD, at=(1 << 64) - 1, length=8),
    "a part too short to be one": segment(GOOD, length=7),
    "a frame longer than the file": segment(GOOD, packed=SIZE + MOST_GROWTH + 1),
    "a frame of 4 GiB": segment(GOOD, packed=0xFFFFFFFF),
    "a frame that ends early": segment(zstd.compress(bytes(SIZE - 1))),
    "a frame that gives one byte more": segment(zstd.compress(bytes(SIZE + 1))),
    "a frame that goes on": segment(GOOD + b"more"),
    "two frames": segment(GOOD[:0] + zstd.compress(bytes(SIZE // 2)) * 2),
    "a frame of 64 MiB": segment(zstd.compress(bytes(64 << 20))),
    "a window of 64 MiB": segment(unbounded(bytes(SIZE), 26)),
    "empty blocks without end": segment(unbounded(b"", 20)[:-3] + b"\0\0\0" * 30_000),
    "no frame": segment(b"this is no frame at all, but as long as one"),
    "nothing": segment(b""),
    "half a head": b"\0" * 7,
}
HOSTILE_ROWS = {
    "rows behind the end of the file": by_rows((100, 196)),
    "rows far behind it": by_rows(((1 << 64) - 1, 1)),
    "blocks without end": by_rows((100, (1 << 64) - 1)),
    "a block of 64 GiB": by_rows((0, 1, 0xFFFFFFFE, 0xFFFFFFFF)),
    "rows of a byte": by_rows((0, 100, 2, 0)),
    "half a byte of a row": by_rows((0, 1, 17, 8)),
    "blocks of nothing": by_rows((0, 1 << 40, 0, 0)),
    "rows behind the end of the base": by_rows((), (100, 39)),
    "codes behind the end of the file": by_rows((*ROWS[:4], 0, 1 << 14)),
    "codes behind the end of the base": by_rows((), (*ROWS[:4], 0, 1 << 14)),
    "codes of no bytes": by_rows((*ROWS[:4], 0, 1 << 62, 0)),
    "codes of two bytes": by_rows((*ROWS[:4], 0, 1, 2), columns=(1,)),
    "codes of 64 KiB and more": by_rows((*ROWS[:4], 0, 1, (1 << 16) + 1)),
    "a column behind the row": by_rows(columns=(128,)),
    "a column twice": by_rows(columns=(3, 3)),
    "columns descending": by_rows(columns=(4, 3)),
    "more columns than may be": by_rows(columns=tuple(range(9))),
    "columns without end": by_rows(columns=tuple(range(65))),
    "rows in a later form": by_rows(size=93),
    "rows half said": by_rows(size=80),
    "4 GiB of what is said of rows": by_rows(size=0xFFFFFFFF),
    "rows twice": by_rows() + by_rows(),
}
HOSTILE |= {name: rows + segment(GOOD) for name, rows in HOSTILE_ROWS.items()}
HOSTILE["rows that are cut"] = by_rows()[:40]


def test_rows_that_fit_are_taken(base):
    """The hostile ones differ from this in one thing each."""
    assert b"".join(rebuilt(io.BytesIO(by_rows() + segment(GOOD)), base, FILE)) == bytes(SIZE)


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_delta_is_refused_within_the_size_that_was_signed(base, attack):
    given = []
    with pytest.raises(DeliveryError):
        given.extend(rebuilt(io.BytesIO(HOSTILE[attack]), base, FILE))
    assert sum(map(len, given)) <= SIZE


def test_the_segment_of_these_attacks_is_itself_accepted(base):
    assert b"".join(rebuilt(io.BytesIO(segment(GOOD)), base, FILE)) == bytes(SIZE)
    assert b"".join(rebuilt(io.BytesIO(segment(unbounded(bytes(SIZE), 20))), base, FILE)) == bytes(SIZE)


def test_a_bomb_takes_no_memory(tmp_path):
    """With 400 MB of address space a frame of 512 MiB of zeros is refused, and not by the system."""
    (tmp_path / "base").write_bytes(bytes(100))
    compressor = zstd.ZstdCompressor()
    frame = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(32)) + compressor.flush()
    assert len(frame) < SEGMENT_BYTES
    (tmp_path / "bomb").write_bytes(segment(frame))
    code = (
        "import resource,sys;resource.setrlimit(resource.RLIMIT_AS,(400<<20,)*2)\n"
        "from pathlib import Path;from provisioning.base.errors import DeliveryError\n"
        "from provisioning.delivery.bundle.contents import Listed;from provisioning.delivery.bundle.delta import opened_base,rebuilt\n"
        "with opened_base(Path(sys.argv[1]),'base') as base:\n"
        "  try: [None for _ in rebuilt(open(sys.argv[1]+'/bomb','rb'),base,Listed('x',1<<29,'0'*64))]\n"
        "  except DeliveryError as error: print(error.facts['detail'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "more than it may" in done.stdout


@pytest.mark.parametrize("what", ["a link", "a link on the way", "a FIFO", "a directory"])
def test_what_stands_in_place_of_the_earlier_file_is_not_read(tmp_path, what):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_bytes(b"secret")
    cache = tmp_path / "cache"
    cache.mkdir()
    if what == "a link on the way":
        (cache / "folder").symlink_to(tmp_path / "secret")
    else:
        (cache / "folder").mkdir()
        {
            "a link": lambda: (cache / "folder/file").symlink_to(tmp_path / "secret/file"),
            "a FIFO": lambda: os.mkfifo(cache / "folder/file"),
            "a directory": (cache / "folder/file").mkdir,
        }[what]()
    with pytest.raises((OSError, FilesystemError, DeliveryError)), opened_base(cache, "folder/file"):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Caches of two generations, and their key."""
    return two_caches(tmp_path_factory.mktemp("attacks"), OLD, NEW)


@pytest.mark.parametrize(
    ("line", "body", "why"),
    [
        ({"from": sha256_bytes(OLD_INDEX)}, delta_of(NEW_INDEX[:-1] + b"?", OLD_INDEX), "arrived damaged"),
        ({"from": sha256_bytes(NEW_INDEX)}, delta_of(NEW_INDEX, OLD_INDEX), "not held here"),
        ({"from": "/etc/passwd"}, b"", "not held here"),
        ({"from": sha256_bytes(OLD_INDEX)}, b"\xff" * 1000, "cannot be applied"),
        ({"from": sha256_bytes(OLD_INDEX)}, delta_of(NEW_INDEX, OLD_INDEX)[:-1], "cut"),
        ({"from": None}, delta_of(NEW_INDEX, OLD_INDEX), "cut"),
    ],
    ids=["other bytes", "another base", "a path", "nonsense", "cut", "whole, but it is a delta"],
)
def test_a_hostile_sender_changes_nothing(made, tmp_path, line, body, why):
    target, expect = tmp_path / "v", made[2]
    publish_cache(target, made[1], counter=1, files=OLD)
    before = tree(target / "current")
    head = whole_generation(made, deltas=True)[: -len(NEW_INDEX)]
    answers = io.BytesIO()
    with pytest.raises(DeliveryError, match=why):
        receive(
            io.BytesIO(head + json.dumps(line).encode() + b"\n" + body),
            answers,
            target,
            trust=trusting(expect, target),
            verify=verifying(expect),
        )
    assert "error" in json.loads(answers.getvalue().splitlines()[-1])
    assert tree(target / "current") == before
    with verify(target, expect) as verdict:
        assert verdict.require().build.counter == 1


@pytest.mark.parametrize(
    "bases", [[], "x", {"a" * 64: "b" * 64}, {sha256_bytes(NEW_INDEX): 7}, {sha256_bytes(NEW_INDEX): None}]
)
def test_a_vehicle_that_names_nonsense_gets_nothing(made, bases):
    stream, reply = io.BytesIO(), {"need": [[sha256_bytes(NEW_INDEX), 0]], "bases": bases}
    with pytest.raises(DeliveryError, match="receiver"):
        send_needed(stream, reply, manifest_of(NEW, counter=2), lambda file: io.BytesIO(NEW[file.path]), bases=no_bases)
    assert stream.getvalue() == b""


def test_a_base_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    (tmp_path / "base").write_bytes(OLD_FILE)
    with opened_base(tmp_path, "base") as opened:
        os.truncate(tmp_path / "base", 100)
        with pytest.raises(DeliveryError, match="shrank"):
            list(rebuilt(io.BytesIO(segment(GOOD, length=1000)), Base(opened.fd, opened.size), FILE))
