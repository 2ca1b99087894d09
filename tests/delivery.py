"""Small signed caches made of plain bytes, for the tests of delivery: nothing in them is compiled or indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from provisioning.base.hashing import Sha256, sha256_bytes
from provisioning.config import BBox, Signing
from provisioning.flight import manifest as m
from provisioning.flight.publish import commit, stage
from provisioning.flight.signing import PublicKey, generate_key, sign
from provisioning.flight.verify import ANY, Expectations

FILES = {
    "gist_x86_64_linux_ort1.32.0_fp32.engine": b"engine" * 3000,
    "corpus.index": b"index" * 5000,
    "calibration/camera.yaml": b"fx: 1\n",
    "report.html": b"<html></html>\n",
}
KEY = Sha256("0" * 64)


class Keys(NamedTuple):
    signing: Signing
    public: PublicKey


def make_keys(directory: Path) -> Keys:
    public = generate_key(directory / "operator.pem", password=None)
    return Keys(Signing(key=directory / "operator.pem"), public)


def noise(size: int, seed: str) -> bytes:
    """Bytes that do not compress and are the same every time."""
    return hashlib.shake_256(seed.encode()).digest(size)


def manifest_of(files: Mapping[str, bytes], *, counter: int, flight_id: str | None = None) -> m.Manifest:
    (engine,) = [path for path in files if path.endswith(".engine")]

    def entry(path: str) -> tuple[str, int, Sha256]:
        return path, len(files[path]), sha256_bytes(files[path])

    listed = {engine, "corpus.index"}
    return m.with_hash(
        m.Manifest(
            build=m.Build(KEY, counter, "flightcache", "0.1.0"),
            flight=m.FlightPart(flight_id, None, m.Origin(5_000_000, 5_000_000), "default"),
            area=m.AreaPart(BBox(0, 0, 10_000_000, 10_000_000), (16,)),
            host=m.Host("onnxruntime", "1.32.0", "x86_64", "another", "linux", "fp32"),
            engines=(m.EngineEntry(*entry(engine), "gist", "descriptor", KEY, KEY, "fp32", None),),
            descriptor_index=m.IndexEntry(
                *entry("corpus.index"), "flat", "inner_product", 544, 10, engine, KEY, "none", 1
            ),
            calibration=tuple(
                m.CalibrationEntry(*entry(path), "camera") for path in sorted(files) if path.startswith("calibration/")
            ),
            other=tuple(
                m.FileEntry(*entry(path))
                for path in sorted(files)
                if path not in listed and not path.startswith("calibration/")
            ),
            tiles=m.TilesPart(KEY, 10, {16: m.ZoomCount(10, 10, 0)}, ("xyz",), 0, None),
            gates={},
            waivers=(),
        )
    )


def publish_cache(
    cache: Path,
    keys: Keys,
    *,
    counter: int = 1,
    files: Mapping[str, bytes] = FILES,
    flight_id: str | None = None,
    keep: int = 2,
) -> Path:
    """Publish a generation with these files in `cache` and return `cache`."""
    sources = cache / ".build" / "made" / str(counter)
    for path, data in files.items():
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        (sources / path).write_bytes(data)
    document = m.to_bytes(manifest_of(files, counter=counter, flight_id=flight_id))
    staged = stage(
        cache,
        manifest=document,
        signature=sign(keys.signing, document),
        files={path: sources / path for path in files},
        records={},
    )
    commit(cache, staged, keep=keep)
    return cache


def two_caches(root: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[Path, Keys, Expectations]:
    """Publish `root`/old and `root`/new, counters 1 and 2; return `root`, the keys of both, and trust in them."""
    keys = make_keys(root)
    publish_cache(root / "old", keys, counter=1, files=old)
    publish_cache(root / "new", keys, counter=2, files=new)
    return root, keys, trust_anything_by(keys.public)


def trust_anything_by(*publics: PublicKey) -> Expectations:
    return Expectations(keys=publics, flight_id=ANY, aircraft_id=ANY, host=ANY, counter_floor=ANY)


def tree(root: Path) -> dict[str, bytes | str]:
    """Everything below `root`: bytes of files, targets of links, '' for directories."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
    return found
