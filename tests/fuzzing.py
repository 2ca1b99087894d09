"""A fuzzer for the Manifest parser that keeps what taught it something: `python -m tests.fuzzing --seconds 60`.

An input is worth keeping when the parser says something about it that it has said of no other: each kept input is one
more way to be wrong. The corpus in `tests/data/fuzz_manifest/` is replayed by the tests and grows only when asked.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from provisioning.base.errors import ManifestError
from provisioning.flight.manifest import manifest_hash, parse, to_bytes
from tests.caches import manifest_of, sha

CORPUS = Path(__file__).parent / "data" / "fuzz_manifest"
TOKENS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-1", b"1e9", b"NaN", b"0", b"\\u0000", b"\\ud800",
          b"\xff", b"\x00", b"\xef\xbb\xbf", b"../", b"/", b"9" * 20, b'"schema"', b'"bytes"', b"\n", b" "]  # fmt: skip


def judge(data: bytes) -> frozenset[str]:
    """Return what the parser says of `data`, without names and numbers; any exception but ManifestError is a bug."""
    try:
        manifest = parse(data)
    except ManifestError as error:
        return frozenset(_plain(str(issue)) for issue in error.facts.values())
    if to_bytes(manifest) != data:
        raise AssertionError("accepted bytes are not the canonical ones")
    manifest_hash(manifest)
    return frozenset(["accepted"])


def _plain(issue: str) -> str:
    if issue.endswith((": unknown", "a file and a directory", "listed twice")):
        return issue.rpartition(": ")[2]
    issue = re.sub(r"^(gates|tiles\.per_zoom)\..*(?=: )", r"\1", issue)  # the rest of the place is a free name
    return re.sub(r"[0-9]+|byte 0x..|'.*'", "0", issue)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to four small changes."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(CHANGES)(data, rng)
    return data[:20_000]


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _replace_token(data: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb'"[^"]*"|-?[0-9]+', data))
    if not found:
        return _insert(data, rng)
    one = rng.choice(found)
    other = rng.choice([rng.choice(found).group(), rng.choice(TOKENS)])
    return data[: one.start()] + other + data[one.end() :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randint(1, 200) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.randint(1, 200)]
    return data[:start] + part + data[start:]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [_flip, _insert, _replace_token, _replace_token, _cut, _repeat]


def corpus() -> list[bytes]:
    """The seeds: a good Manifest and every input that was kept."""
    return [to_bytes(manifest_of()), *(path.read_bytes() for path in sorted(CORPUS.glob("*")))]


def fuzz(seconds: float, *, seed: int) -> tuple[int, list[bytes]]:
    """Fuzz for `seconds`; return how many inputs were tried and those that are worth keeping."""
    rng, pool = random.Random(seed), corpus()
    seen = frozenset().union(*map(judge, pool))
    kept: list[bytes] = []
    tried, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(pool), rng)
        tried += 1
        said = judge(data)
        if said - seen:
            seen |= said
            pool.append(data)
            kept.append(data)
    return tried, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="write what is needed for every answer into the corpus")
    args = parser.parse_args()
    tried, new = fuzz(args.seconds, seed=args.seed)
    if args.keep:
        wanted = {sha(data)[:16]: data for data in smallest_cover([*corpus()[1:], *new])}
        for path in CORPUS.glob("*"):
            if path.name not in wanted:
                path.unlink()
        for name, data in wanted.items():
            (CORPUS / name).write_bytes(data)
    print(f"{tried} inputs, {len(new)} with a new answer")


def smallest_cover(pool: list[bytes]) -> list[bytes]:
    """Return few of `pool` that together draw every answer that all of them draw."""
    left = frozenset().union(*map(judge, pool))
    chosen: list[bytes] = []
    while left:
        best = max(pool, key=lambda data: (len(judge(data) & left), -len(data)))
        chosen.append(best)
        left -= judge(best)
    return chosen


if __name__ == "__main__":
    main()
