"""Provenance that other people's tools read: CycloneDX's own schema, securesystemslib's own verifier."""

from __future__ import annotations

import base64
import json

import pytest
from cyclonedx.schema import SchemaVersion
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as DsseError
from securesystemslib.signer import SSlibKey

from provisioning.build.generation.provenance import envelope, ml_bom, statement
from provisioning.flight.manifest import Manifest, parse
from provisioning.flight.signing import load_public_key, sign
from tests import building
from tests.caches import manifest_of
from tests.delivery import make_keys


@pytest.fixture
def keys(tmp_path):
    return make_keys(tmp_path)


def dsse(manifest: Manifest, keys) -> bytes:
    return envelope(statement(manifest), sign=lambda data: sign(keys.signing, data), keyid=keys.public.fingerprint)


def their_key(keys) -> SSlibKey:
    return SSlibKey(keys.public.fingerprint, "ed25519", "ed25519", {"public": keys.public.raw.hex()})


def test_the_bill_of_materials_is_valid_cyclonedx():
    from cyclonedx.validation.json import JsonStrictValidator  # a second: builds a grammar of all URIs

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(ml_bom(manifest_of()).decode()) is None


def test_every_file_of_the_generation_is_in_both_documents():
    manifest = manifest_of()
    digests = {file.path: file.sha256 for file in manifest.files}
    bom = json.loads(ml_bom(manifest))
    listed = {c["bom-ref"]: c["hashes"][0]["content"] for c in bom["components"]}
    assert {path: listed[path] for path in digests} == digests
    subjects = json.loads(statement(manifest))["subject"]
    assert {s["name"]: s["digest"]["sha256"] for s in subjects} == digests


def test_the_network_is_a_model_with_its_source_and_host():
    (model,) = [c for c in json.loads(ml_bom(manifest_of()))["components"] if c["type"] == "machine-learning-model"]
    properties = {p["name"]: p["value"] for p in model["properties"]}
    assert properties["flightcache:onnx_sha256"] == "b" * 64
    assert properties["flightcache:runtime"] == "1.32.0"


def test_every_reference_of_the_bill_leads_to_a_component():
    bom = json.loads(ml_bom(manifest_of()))
    known = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    refs = {d["ref"] for d in bom["dependencies"]}
    assert refs | {ref for d in bom["dependencies"] for ref in d.get("dependsOn", ())} <= known


def test_securesystemslib_accepts_the_envelope(keys):
    read = Envelope.from_dict(json.loads(dsse(manifest_of(), keys)))
    assert read.verify([their_key(keys)], threshold=1)
    predicate = json.loads(read.payload)["predicate"]
    assert predicate["runDetails"]["metadata"]["invocationId"] == manifest_of().build.manifest_hash


def test_securesystemslib_refuses_a_changed_statement(keys):
    document = json.loads(dsse(manifest_of(), keys))
    payload = base64.b64decode(document["payload"]).replace(b"corpus.index", b"corpus.indeX")
    document["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(DsseError):
        Envelope.from_dict(document).verify([their_key(keys)], threshold=1)


def test_securesystemslib_refuses_another_key(keys, tmp_path):
    (tmp_path / "other").mkdir()
    other = make_keys(tmp_path / "other")
    document = json.loads(dsse(manifest_of(), keys))
    stranger = SSlibKey(keys.public.fingerprint, "ed25519", "ed25519", {"public": other.public.raw.hex()})
    with pytest.raises(DsseError):
        Envelope.from_dict(document).verify([stranger], threshold=1)


def test_the_same_manifest_gives_the_same_bytes(keys):
    assert ml_bom(manifest_of()) == ml_bom(manifest_of())
    assert dsse(manifest_of(), keys) == dsse(manifest_of(), keys)


def test_the_counter_decides_nothing(keys):
    assert ml_bom(manifest_of(counter=1)) == ml_bom(manifest_of(counter=2))
    assert dsse(manifest_of(counter=1), keys) == dsse(manifest_of(counter=2), keys)


def test_a_build_that_asks_for_provenance_publishes_it_and_then_does_nothing(built_cache):
    cache = built_cache
    without = parse((cache / "current/Manifest.json").read_bytes()).build.manifest_hash
    building.edit(cache, "# provenance = false", "provenance = true")
    built = building.build(cache)
    assert (built.outcome, built.report.engines_built, built.report.descriptors_generated) == ("SUCCESS", 0, 0)
    assert built.report.manifest_hash == without
    manifest = parse((cache / "current/Manifest.json").read_bytes())
    assert {"provenance.cdx.json", "provenance.dsse.json"} < {file.path for file in manifest.other}
    document = json.loads((cache / "current/provenance.dsse.json").read_bytes())
    public = load_public_key(cache.parent / "key.pub.pem")
    key = SSlibKey(public.fingerprint, "ed25519", "ed25519", {"public": public.raw.hex()})
    assert Envelope.from_dict(document).verify([key], threshold=1)
    subjects = {s["name"] for s in json.loads(base64.b64decode(document["payload"]))["subject"]}
    assert subjects == {f.path for f in manifest.files} - {"provenance.cdx.json", "provenance.dsse.json"}
    assert building.build(cache).outcome == "IDEMPOTENT_NO_OP"
