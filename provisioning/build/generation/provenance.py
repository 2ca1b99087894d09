"""What a generation was made from, for those who keep inventories: an ML-BOM, and a signed statement of provenance.

`ml_bom` is CycloneDX 1.6 (ECMA-424). `statement` is an in-toto Statement v1 with SLSA provenance v1; `envelope` wraps
it as DSSE (https://github.com/secure-systems-lab/dsse), signed by the key that signs the Manifest. All are pure
and hold no clock, no counter and no machine's name: the same Manifest gives the same bytes.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from provisioning.base.disk.jsonfile import to_json
from provisioning.flight.manifest import EngineEntry, Manifest

BOM_FILE = "provenance.cdx.json"
STATEMENT_FILE = "provenance.dsse.json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:flightcache:build:1"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, BUILD_TYPE)

Json = dict[str, Any]


def ml_bom(manifest: Manifest) -> bytes:
    """Return the CycloneDX 1.6 bill of materials of a generation: its networks, its index, its imagery."""
    build, index = manifest.build, manifest.descriptor_index
    tool = {"type": "application", "name": build.tool_name, "version": build.tool_version}
    whole = {
        "type": "data",
        "bom-ref": "generation",
        "name": manifest.flight.flight_id or "flight cache",
        "version": build.manifest_hash,
    }
    refs = ["tiles", *(engine.path for engine in manifest.engines)]
    return _text(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, build.manifest_hash)}",
            "version": 1,
            "metadata": {"tools": {"components": [tool]}, "component": whole},
            "components": list(_components(manifest)),
            "dependencies": [
                {"ref": "generation", "dependsOn": sorted(file.path for file in manifest.files)},
                {"ref": index.path, "dependsOn": sorted({"tiles", index.engine})},
                *({"ref": ref} for ref in sorted(refs)),
            ],
        }
    )


def _components(manifest: Manifest) -> Iterator[Json]:
    for engine in manifest.engines:
        yield _network(manifest, engine)
    index = manifest.descriptor_index
    described = f"{index.vectors} descriptors of {index.dimension} components, {index.kind}, {index.metric}"
    yield {**_file(index.path, index.sha256), "description": described}
    for calibration in manifest.calibration:
        yield {**_file(calibration.path, calibration.sha256), "description": f"calibration: {calibration.purpose}"}
    for other in manifest.other:
        yield _file(other.path, other.sha256)
    tiles = manifest.tiles
    yield {
        "type": "data",
        "bom-ref": "tiles",
        "name": "tiles",
        "hashes": [_sha256(tiles.coverage_sha256)],
        "description": f"{tiles.count} map tiles from {', '.join(tiles.sources)}",
        "properties": _properties(oldest_capture=tiles.oldest_capture, skipped=str(tiles.skipped)),
    }


def _file(path: str, sha256: str) -> Json:
    return {"type": "data", "bom-ref": path, "name": path, "hashes": [_sha256(sha256)]}


def _network(manifest: Manifest, engine: EngineEntry) -> Json:
    host = manifest.host
    size = engine.input and f"RGB image, {engine.input.height} x {engine.input.width} pixels, {engine.input.fit}"
    card: Json = {"modelParameters": {"task": "image description" if engine.role == "descriptor" else engine.role}}
    if size:
        card["modelParameters"]["inputs"] = [{"format": size}]
    return {
        "type": "machine-learning-model",
        "bom-ref": engine.path,
        "name": engine.model,
        "version": engine.onnx_sha256,
        "hashes": [_sha256(engine.sha256)],
        "modelCard": card,
        "properties": _properties(
            file=engine.path,
            precision=engine.precision,
            onnx_sha256=engine.onnx_sha256,
            backend=host.backend,
            runtime=host.runtime,
            arch=host.arch,
            device=host.device,
            platform=host.platform,
        ),
    }


def _sha256(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}


def _properties(**values: str | None) -> list[Json]:
    return [{"name": f"flightcache:{name}", "value": value} for name, value in sorted(values.items()) if value]


def statement(manifest: Manifest) -> bytes:
    """Return the in-toto Statement: every file of the generation, and what it was made from."""
    return _text(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": f.path, "digest": {"sha256": f.sha256}} for f in sorted(manifest.files)],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": _asked(manifest),
                    "resolvedDependencies": list(_dependencies(manifest)),
                },
                "runDetails": {
                    "builder": {
                        "id": "urn:flightcache:builder",
                        "version": {"flightcache": manifest.build.tool_version},
                    },
                    "metadata": {"invocationId": manifest.build.manifest_hash},
                },
            },
        }
    )


def _asked(manifest: Manifest) -> Json:
    flight, index = manifest.flight, manifest.descriptor_index
    return {
        "flight": {
            "flight_id": flight.flight_id,
            "aircraft_id": flight.aircraft_id,
            "sector_class": flight.sector_class,
        },
        "area": {"bbox_e7": manifest.area.bbox_e7._asdict(), "zoom_levels": list(manifest.area.zoom_levels)},
        "host": manifest.host._asdict(),
        "index": {
            "kind": index.kind,
            "transform": index.transform,
            "rotations": index.rotations,
            "overlap": index.overlap or 1,
        },
    }


def _dependencies(manifest: Manifest) -> Iterator[Json]:
    for engine in manifest.engines:
        yield {"name": f"{engine.model}.onnx", "digest": {"sha256": engine.onnx_sha256}}
    for calibration in manifest.calibration:
        yield {"name": calibration.path, "digest": {"sha256": calibration.sha256}}
    tiles = manifest.tiles
    yield {
        "name": "tiles",
        "digest": {"sha256": tiles.coverage_sha256},
        "annotations": {"count": tiles.count, "sources": list(tiles.sources)},
    }


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature is over (PAE of the DSSE protocol, version 1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, *, sign: Callable[[bytes], bytes], keyid: str) -> bytes:
    """Return the DSSE envelope of an in-toto statement; `keyid` is the fingerprint of the key that `sign` uses."""
    signature = sign(pre_authentication_encoding(STATEMENT_TYPE, payload))
    return _text(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": STATEMENT_TYPE,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )


def _text(value: Json) -> bytes:
    return to_json(value, indent=True, ascii_only=True) + b"\n"
