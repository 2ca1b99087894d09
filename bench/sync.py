"""Bytes and seconds of delivery: a cache of TILES tiles is sent, one tile in a hundred changes, it is sent again.

    python bench/sync.py --scratch /var/tmp/sync --tiles 1024

Both ends are this machine, joined by a pipe as over ssh.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.results import machine, replace_section, say_goal  # noqa: E402
from provisioning.delivery.bundle.earlier import bases_in  # noqa: E402
from provisioning.delivery.bundle.pack import documents_of, pack  # noqa: E402
from provisioning.delivery.install import install_bundle  # noqa: E402
from provisioning.delivery.sync import parse_destination, remote_command, sync_over  # noqa: E402
from provisioning.delivery.trust import trusting, verifying  # noqa: E402
from provisioning.flight.signing import load_public_key  # noqa: E402
from provisioning.flight.verify import verify  # noqa: E402
from tests import building  # noqa: E402
from tests.delivery import trust_anything_by  # noqa: E402


def main() -> None:
    """Build, send, add, send, bundle, install; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    side = round(args.tiles**0.5)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
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
    changed = rows[2][2]
    share = 100 * changed.sent_bytes / changed.generation_bytes
    say_goal(
        f"{more} of {side * side} tiles changed: share of the generation that sync sends", share, most=1.5, unit="%"
    )
    lines = [
        f"`python bench/sync.py --tiles {args.tiles}`",
        "",
        machine(),
        "",
        "| step | seconds | bytes |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {seconds:.2f} | {written(value)} |" for name, seconds, value in rows]
    lines += ["", f"`corpus.index` is {index:,} bytes. Both ends are this machine, joined by a pipe as over ssh."]
    print("\n".join(lines))
    if args.results:
        replace_section(args.results, "Delivery", "\n".join(lines))


def sent(cache: Path, vehicle: Path, key: Path, expect):
    program = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m provisioning.cli"
    command = remote_command(
        parse_destination(str(vehicle)), shell=("sh", "-c"), program=program, options={"--public-key": str(key)}
    )
    with verify(cache, expect) as verdict:
        return sync_over(command, verdict, documents_of(verdict), bases=bases_in(cache))


def timed(action):
    begun = time.perf_counter()
    value = action()
    return time.perf_counter() - begun, value


def written(value) -> str:
    if hasattr(value, "sent_bytes"):
        return f"{value.sent_bytes:,} sent in {value.files} files, of {value.generation_bytes:,}"
    return f"{value.bytes:,}" if hasattr(value, "bytes") else ""


if __name__ == "__main__":
    main()
