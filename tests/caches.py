"""Small signed caches for tests: real files, real signatures, built without any engine or index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provisioning.flight.manifest import (
    AreaPart,
    BBox,
    Build,
    CalibrationEntry,
    EngineEntry,
    FileEntry,
    FlightPart,
    GateEntry,
    Host,
    ImageInput,
    IndexEntry,
    Manifest,
    Origin,
    TilesPart,
    ZoomCount,
    to_bytes,
    with_hash,
)
from provisioning.flight.signing import PublicKey
from provisioning.flight.verify import Expectations

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
HOST = Host("onnxruntime", "1.32.0", "x86_64", "AVX2", "linux", "fp32")
ENGINE = "gist_x86_64_linux_ort1.32.0_fp32.engine"
FILES = {
    ENGINE: b"engine " * 1000,
    "corpus.index": b"index " * 1500,
    "calibration/camera.yml": b"fx: 1234\n",
    "report.html": b"<html></html>\n",
    "coverage.geojson": b"{}\n",
}


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(key.public_key().public_bytes_raw())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_of(files: dict[str, bytes] | None = None, *, counter: int = 7) -> Manifest:
    """A Manifest that describes `files`, of which one is the engine and one the index."""
    files = FILES if files is None else files

    def entry(path: str) -> tuple[str, int, str]:
        return path, len(files[path]), sha(files[path])

    engine = EngineEntry(
        *entry(ENGINE), "gist", "descriptor", "b" * 64, "c" * 64, "fp32", ImageInput(128, 128, "resize")
    )
    index = IndexEntry(*entry("corpus.index"), "flat", "ip", 544, 12, ENGINE, "d" * 64, "none", 1)
    rest = sorted(set(files) - {ENGINE, "corpus.index"})
    return with_hash(
        Manifest(
            build=Build("0" * 64, counter, "flightcache", "0.1.0"),
            flight=FlightPart("F-118", "AC-7", Origin(-338400000, 1512500000, 58000), "default"),
            area=AreaPart(BBox(1512093000, -338688000, 1513000001, -338000000), (16, 17)),
            host=HOST,
            engines=(engine,),
            descriptor_index=index,
            calibration=tuple(CalibrationEntry(*entry(p), "camera") for p in rest if p.startswith("calibration/")),
            other=tuple(FileEntry(*entry(p)) for p in rest if not p.startswith("calibration/")),
            tiles=TilesPart(
                "e" * 64, 12, {16: ZoomCount(4, 4, 0), 17: ZoomCount(8, 9, 305_000)}, ("base",), 0, "2024-05-01"
            ),
            gates={"fidelity": GateEntry("0.9999", "0.999", "pass", "")},
            waivers=(),
        )
    )


@dataclass(frozen=True)
class Cache:
    """A published cache in `root`; `signer` is the key that signed it."""

    root: Path
    generation: Path
    expect: Expectations

    def write(self, path: str, data: bytes) -> None:
        (self.generation / path).write_bytes(data)

    def sign(self, data: bytes, *, key: Ed25519PrivateKey = KEY) -> None:
        """Write `data` as the Manifest with matching sidecar and signature: an attacker who holds a key."""
        self.write("Manifest.json", data)
        self.write("Manifest.json.sha256", f"{sha(data)}\n".encode())
        self.write("Manifest.json.sig", key.sign(data))


def publish(root: Path, *, manifest: Manifest | None = None, files: dict[str, bytes] | None = None) -> Cache:
    """Write a complete cache below `root`."""
    manifest = manifest_of(files) if manifest is None else manifest
    generation = root / "generations" / f"{manifest.build.counter:06}"
    for path, data in (FILES if files is None else files).items():
        (generation / path).parent.mkdir(parents=True, exist_ok=True)
        (generation / path).write_bytes(data)
        (generation / (path + ".sha256")).write_text(sha(data) + "\n")
    expect = Expectations(
        keys=(public(KEY),), flight_id="F-118", aircraft_id="AC-7", host=HOST, counter_floor=manifest.build.counter
    )
    cache = Cache(root, generation, expect)
    cache.sign(to_bytes(manifest))
    (root / "current").symlink_to(f"generations/{generation.name}")
    return cache
