"""Fuzz one parser: `python -m tests.fuzz.run TARGET --seconds 60`; without a target, one after the other.

Guided by coverage where atheris is installed, else by what the parser says of an input. What raises anything but a
typed Error, or takes longer than targets.SECONDS, is written to `fuzz-found/` and ends the run with exit code 1.
Copy it to `tests/corpus/TARGET/` with the repair: the tests replay what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"
FOUND = Path("fuzz-found")
MEMORY_BYTES = 6 << 30


def pool(name: str) -> list[bytes]:
    """Return the seeds of a target and its kept inputs."""
    from tests.fuzz.targets import TARGETS

    kept = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    return [*TARGETS[name].seeds(), *(path.read_bytes() for path in kept)]


def keep(name: str, data: bytes) -> Path:
    """Write an input that broke its parser to a file."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def tried(name: str, data: bytes) -> str:
    """Read one input; what breaks or takes too long is kept, and raised."""
    from tests.fuzz.targets import SECONDS, run

    started = time.monotonic()
    try:
        said = run(name, data)
        if time.monotonic() - started > SECONDS:
            raise TimeoutError(f"{time.monotonic() - started:.1f} s")  # noqa: TRY301 - kept as a bug is
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            print(f"{name}: {keep(name, data)}: {error!r}", file=sys.stderr)
        raise
    return re.sub(r"[0-9]+|'.*?'", "0", said)[:60]


def by_answers(name: str, seconds: float, seed: int) -> None:
    """Mutate what drew a new answer."""
    from tests.fuzzing import mutate

    rng, inputs, count, bugs = random.Random(seed), pool(name), 0, set()
    seen = {tried(name, data) for data in inputs}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(inputs), rng)
        count += 1
        try:
            said = tried(name, data)
        except Exception as error:  # noqa: BLE001 - the same bug once
            bugs.add(traceback.format_exception(error)[-2])
            continue
        if said not in seen:
            seen.add(said)
            inputs.append(data)
    print(f"{name}: {count} inputs, {len(seen)} answers, {len(bugs)} bugs")
    sys.exit(1 if bugs else 0)


def by_coverage(name: str, seconds: float, seed: int) -> None:
    """Let atheris (libFuzzer) choose the inputs."""
    import tempfile

    import atheris

    with atheris.instrument_imports(include=["provisioning"]):
        from tests.fuzz import targets  # noqa: F401 - imported here to be instrumented
    corpus = tempfile.mkdtemp(prefix="corpus-")
    for number, data in enumerate(pool(name)):
        (Path(corpus) / str(number)).write_bytes(data)
    options = [f"-max_total_time={round(seconds)}", f"-seed={seed or 1}", "-timeout=30", "-rss_limit_mb=4096",
               "-max_len=20000", "-verbosity=0", "-print_final_stats=1", "-artifact_prefix=fuzz-found/", corpus]  # fmt: skip
    FOUND.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *options], lambda data: tried(name, bytes(data)) and None)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by", choices=("coverage", "answers"), default=None)
    args = parser.parse_args()
    if args.target is None:
        from tests.fuzz.targets import TARGETS

        command = [sys.executable, "-m", "tests.fuzz.run", "--seconds", str(args.seconds), "--seed", str(args.seed)]
        return max(subprocess.run([*command, name], check=False).returncode for name in TARGETS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.environ.setdefault("PYTHONHASHSEED", "0")
    guided = args.by == "coverage" or (args.by is None and importlib.util.find_spec("atheris") is not None)
    (by_coverage if guided else by_answers)(args.target, args.seconds, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
