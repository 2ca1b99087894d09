"""A whole build in miniature over store, publish and lock alone: two artefacts, a Manifest, a generation."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from provisioning.base.disk import artifacts, files, lock
from provisioning.base.errors import VerificationError
from provisioning.base.hashing import Sha256, sha256_bytes, sha256_file
from provisioning.flight import manifest, publish
from tests.faults import snapshot

ENGINE, INDEX, CAMERA = "toy_x86_64_linux_1.0_fp32.engine", "corpus.index", "calibration/camera.json"
HOST = manifest.Host("onnxruntime", "1.0", "x86_64", "AVX2", "linux", "fp32")
DIGEST = Sha256("ab" * 32)
made: list[str] = []
"""Names of the artefacts whose making began in this process, in order."""
on_finished: list[Callable[[Path], None]] = []
"""Called with the path of each artefact as soon as it is reported as made."""


def a_manifest(counter: int, files: dict[str, Path]) -> manifest.Manifest:
    """A small but whole Manifest over `files` (ENGINE, INDEX and CAMERA)."""
    size = {name: os.path.getsize(path) for name, path in files.items()}
    sha = {name: sha256_file(path) for name, path in files.items()}
    engine = manifest.EngineEntry(ENGINE, size[ENGINE], sha[ENGINE], "toy", "descriptor", DIGEST, DIGEST, "fp32")
    index = manifest.IndexEntry(
        INDEX, size[INDEX], sha[INDEX], "flat", "ip", 4, 3, ENGINE, DIGEST, "none", 1
    )  # fmt: skip
    return manifest.with_hash(
        manifest.Manifest(
            build=manifest.Build(DIGEST, counter, "flightcache", "0.1.0"),
            flight=manifest.FlightPart("F1", None, None, "default"),
            area=manifest.AreaPart(manifest.BBox(0, 0, 10_000_000, 10_000_000), (16,)),
            host=HOST,
            engines=(engine,),
            descriptor_index=index,
            calibration=(manifest.CalibrationEntry(CAMERA, size[CAMERA], sha[CAMERA], "camera"),),
            other=(),
            tiles=manifest.TilesPart(DIGEST, 3, {16: manifest.ZoomCount(3, 3, 0)}, ("a",), 0, None),
            gates={},
            waivers=(),
        )
    )


def signature_of(data: bytes) -> bytes:
    """64 bytes that depend on `data`: enough to tell a mixed-up generation."""
    return bytes.fromhex(sha256_bytes(data)) * 2


def targets(cache: Path, revision: int) -> dict[str, artifacts.Target]:
    """The two artefacts of `revision`; the engine stays the same in all of them."""
    shelf = cache / ".build" / "store"
    return {
        ENGINE: artifacts.Target(shelf, "engine", ENGINE, {"precision": "fp32"}),
        INDEX: artifacts.Target(shelf, "index", INDEX, {"revision": revision}),
    }


def content(target: artifacts.Target) -> bytes:
    """What the artefact of `target` must be: several writes long."""
    return (target.key.encode() + b"\n") * 50


def make(target: artifacts.Target) -> None:
    """Make one artefact in two writes unless it is there."""
    if artifacts.is_intact(target):
        return
    made.append(target.name)
    data = content(target)
    with artifacts.atomic_output(target) as path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(fd, data[:1000])
            os.write(fd, data[1000:])
        finally:
            os.close(fd)
    for tell in on_finished:
        tell(target.path)


def build(cache: Path, revision: int, *, keep: int = 2) -> Path:
    """Bring `cache` to `revision` as a real build would: lock, recover, make what is missing, stage, verify, commit."""
    with files.wrap_os_errors("build", cache), lock.build_lock(cache):
        publish.recover(cache, keep=keep)
        wanted = targets(cache, revision)
        for target in wanted.values():
            make(target)
        sources = {name: target.path for name, target in wanted.items()} | {CAMERA: cache / "camera.json"}
        current = publish.current_generation(cache)
        if (
            current is not None
            and read_manifest(current).build.manifest_hash == a_manifest(1, sources).build.manifest_hash
        ):
            return current
        data = manifest.to_bytes(a_manifest(publish.next_counter(cache), sources))
        records = {name: record for name, target in wanted.items() if (record := artifacts.read_record(target))}
        staged = publish.stage(cache, manifest=data, signature=signature_of(data), files=sources, records=records)
        if wrong := faults_in(staged):
            raise VerificationError("the staged generation does not verify", facts={"wrong": wrong}, next_step="again")
        return publish.commit(cache, staged, keep=keep)


def read_manifest(generation: Path) -> manifest.Manifest:
    """The Manifest of a generation."""
    return manifest.parse((generation / publish.MANIFEST).read_bytes())


parsed = functools.lru_cache(manifest.parse)


def faults_in(generation: Path) -> list[str]:
    """What is wrong with a generation on disk: [] for a good one."""
    return faults_among(snapshot(generation))


def faults_among(files: Mapping[str, bytes | str]) -> list[str]:
    """What is wrong with a generation of these files, by walk, digests, sidecars and signature."""
    data = files.get(publish.MANIFEST)
    if not isinstance(data, bytes):
        return ["no Manifest"]
    if files.get("Manifest.json.sig") != signature_of(data):
        return ["signature"]
    listed = {entry.path: entry.sha256 for entry in parsed(data).files} | {publish.MANIFEST: sha256_bytes(data)}
    expected = {*listed, *(name + ".sha256" for name in listed), "Manifest.json.sig"}
    wrong = [f"listed or found alone: {name}" for name in expected ^ files.keys()]
    for name, sha256 in listed.items():
        body = files.get(name)
        if not isinstance(body, bytes) or sha256_bytes(body) != sha256:
            wrong.append(f"other bytes: {name}")
        if files.get(name + ".sha256") != sha256.encode() + b"\n":
            wrong.append(f"sidecar: {name}")
    return wrong


def new_cache(path: Path) -> Path:
    """An empty cache directory with its one input file."""
    path.mkdir(parents=True)
    (path / "camera.json").write_bytes(b'{"fx": 1}\n')
    return path


def rolled_back(cache: Path, *, to: int | None = None) -> Path:
    """Stage the files of an earlier generation under the next counter, as `flightcache rollback` does."""
    source = publish.earlier_generation(cache, to=to)
    manifest = read_manifest(source)
    records = {}
    for entry in manifest.files:
        status = (source / entry.path).lstat()
        records[entry.path] = artifacts.ArtifactRecord(entry.sha256, entry.bytes, status.st_mtime_ns, status.st_ino, {})
    return publish.rollback(cache, source, manifest=manifest, records=records, resign=signature_of)
