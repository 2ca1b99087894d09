"""Bytes and seconds of delivery: a cache of TILES tiles is sent, one tile in a hundred changes, it is sent again.

    python bench/sync.py [TILES]

Writes its section of bench/RESULTS.md. Both ends are this machine, joined by a pipe as over ssh.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, replace_section  # noqa: E402
from provisioning.delivery import (  # noqa: E402
    documents_of,
    install_bundle,
    pack,
    parse_destination,
    remote_command,
    sync_over,
    trusting,
    verifying,
)
from provisioning.flight.signing import load_public_key  # noqa: E402
from provisioning.flight.verify import verify  # noqa: E402
from tests import building  # noqa: E402
from tests.delivery import trust_anything_by  # noqa: E402


def main(tiles: int) -> None:
    """Build, send, add, send, bundle, install; print the table."""
    side = round(tiles**0.5)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        cache = building.new_cache(root, side=side)
        key = root / "key.pub.pem"
        expect = trust_anything_by(load_public_key(key))
        rows = [("build", *timed(lambda: building.build(cache)))]
        assert rows[0][2].outcome == "SUCCESS", rows[0][2].failure
        rows.append((f"first sync, {side * side} tiles", *timed(lambda: sent(cache, root / "vehicle", key, expect))))
        more = max(1, side * side // 100)
        for number in range(more):
            path = cache.parent / "tiles" / str(building.ZOOM) / str(building.WEST + number)
            (path / f"{building.NORTH}.jpg").write_bytes(building.tile_image(100_000 + number))
        building.build(cache)
        rows.append((f"sync of {more} changed tiles", *timed(lambda: sent(cache, root / "vehicle", key, expect))))
        rows.append(("sync again", *timed(lambda: sent(cache, root / "vehicle", key, expect))))
        with verify(cache, expect) as verdict:
            documents = documents_of(verdict)
            index = verdict.require().descriptor_index.bytes
            rows += [
                (f"bundle {name}", *timed(lambda name=name: pack(verdict, documents, root / name)))
                for name in ("b.tar", "b.tar.zst")
            ]
        done = timed(
            lambda: install_bundle(
                root / "b.tar.zst", root / "v2", trust=trusting(expect, root / "v2"), verify=verifying(expect)
            )
        )
        rows.append(("install of b.tar.zst", *done))
    lines = ["`python bench/sync.py`", "", machine(), "", "| step | seconds | bytes |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.2f} | {told(value)} |" for name, seconds, value in rows]
    lines += ["", f"`corpus.index` is {index:,} bytes. Both ends are this machine, joined by a pipe as over ssh."]
    replace_section(ROOT / "bench" / "RESULTS.md", "Delivery", "\n".join(lines))
    print("\n".join(lines))


def sent(cache: Path, vehicle: Path, key: Path, expect):
    program = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m provisioning.cli"
    command = remote_command(
        parse_destination(str(vehicle)), shell=("sh", "-c"), program=program, options={"--public-key": str(key)}
    )
    with verify(cache, expect) as verdict:
        return sync_over(command, verdict, documents_of(verdict))


def timed(action):
    begun = time.perf_counter()
    value = action()
    return time.perf_counter() - begun, value


def told(value) -> str:
    if hasattr(value, "sent_bytes"):
        return f"{value.sent_bytes:,} sent in {value.files} files, of {value.generation_bytes:,}"
    return f"{value.bytes:,}" if hasattr(value, "bytes") else ""


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
