"""What can go wrong between two ends of a delivery, each reported at the end where it is noticed."""

from __future__ import annotations

import importlib
import io
import json
import shutil

import pytest

from provisioning.base.errors import DeliveryError, VerificationError
from provisioning.base.events import Bytes
from provisioning.delivery.bundle.archive import Member, header, parse_header
from provisioning.delivery.bundle.check import check_bundle
from provisioning.delivery.bundle.compression import compressing
from provisioning.delivery.bundle.pack import _copy, documents_of, pack
from provisioning.delivery.stream import receive_documents
from provisioning.delivery.sync import copy_bundle, sync_over
from provisioning.delivery.target import installed
from provisioning.delivery.trust import trusting
from provisioning.flight.publish import current_generation
from provisioning.flight.signing import sign
from provisioning.flight.verify import verify
from tests.delivery import FILES, make_keys, noise, publish_cache, trust_anything_by


@pytest.fixture
def made(tmp_path):
    """A published cache, its keys and what trusts them."""
    keys = make_keys(tmp_path)
    return publish_cache(tmp_path / "cache", keys), keys, trust_anything_by(keys.public)


def test_a_long_path_is_parted_at_a_slash_and_comes_back():
    name = "calibration/" + "a" * 80 + "/" + "b" * 90 + ".yaml"
    assert parse_header(header(Member(name, 5))) == Member(name, 5)


@pytest.mark.parametrize("name", ["a" * 101, "calibration/" + "b" * 101])
def test_a_name_that_no_archive_can_hold_is_named_with_the_next_step(name):
    with pytest.raises(DeliveryError, match="too long for a bundle") as caught:
        header(Member(name, 5))
    assert (caught.value.file, caught.value.next_step) == (name, "give the file a shorter name")


def test_a_header_that_ends_early_is_a_truncated_bundle():
    with pytest.raises(DeliveryError, match="truncated inside a header"):
        parse_header(b"calibration")


def test_without_a_zstd_module_a_bundle_is_not_compressed_and_says_how_else(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DeliveryError, match="no zstd module") as caught, compressing(io.BytesIO()):
        pass
    assert ".tar" in caught.value.next_step


def test_a_file_that_shrinks_while_it_is_bundled_is_named():
    with pytest.raises(DeliveryError, match="shrank") as caught:
        _copy(io.BytesIO(), Member("corpus.index", 10), io.BytesIO(b"short"), Bytes("wrote", 10))
    assert caught.value.file == "corpus.index"


def test_a_cache_that_is_rebuilt_between_verifying_and_bundling_leaves_as_it_was_verified(made):
    cache, keys, expect = made
    before = (cache / "current/Manifest.json").read_bytes()
    with verify(cache, expect) as verdict:
        publish_cache(cache, keys, counter=2, files={**FILES, "new.bin": noise(10, "new")})
        assert documents_of(verdict).manifest == before


def test_another_protocol_is_told_as_one():
    with pytest.raises(DeliveryError, match="does not speak"):
        receive_documents(io.BytesIO(b"SSH-2.0-OpenSSH_9.6 and more of it\n"))


def test_a_manifest_that_is_signed_and_still_none_is_refused(made, tmp_path):
    """A key that signs anything must not make this end believe anything."""
    cache, keys, expect = made
    with verify(cache, expect) as verdict:
        documents = documents_of(verdict)
    nonsense = json.dumps({"schema": "another"}).encode()
    forged = documents._replace(manifest=nonsense, signature=sign(keys.signing, nonsense))
    with pytest.raises(VerificationError, match="refused"):
        trusting(expect, tmp_path / "vehicle")(forged)


def test_a_receiver_that_confirms_something_else_is_not_believed(made):
    cache, _, expect = made
    other = 'head -c 1 > /dev/null; printf \'{"need": []}\\n{"done": {"counter": 99}}\\n\'; cat > /dev/null'
    with verify(cache, expect) as verdict, pytest.raises(DeliveryError, match="cut"):
        sync_over(["sh", "-c", other], verdict, documents_of(verdict))


def test_a_medium_that_gives_back_other_bytes_is_not_to_be_used(made, tmp_path, monkeypatch):
    cache, _, expect = made

    def spoiled(verdict, documents, output):
        bundle = pack(verdict, documents, output)
        data = bytearray(output.read_bytes())
        data[-2000] ^= 1
        output.write_bytes(data)
        return bundle

    monkeypatch.setattr("provisioning.delivery.sync.pack", spoiled)
    with verify(cache, expect) as verdict, pytest.raises(DeliveryError, match="other bytes than were written"):
        copy_bundle(verdict, documents_of(verdict), tmp_path / "a.tar", trust=trusting(expect, tmp_path))


def test_a_medium_that_keeps_its_bytes_has_the_bundle(made, tmp_path):
    cache, _, expect = made
    with verify(cache, expect) as verdict:
        documents = documents_of(verdict)
        assert copy_bundle(verdict, documents, tmp_path / "a.tar", trust=trusting(expect, tmp_path)) is not None
        assert copy_bundle(verdict, documents, tmp_path / "a.tar", trust=trusting(expect, tmp_path)) is None
    assert check_bundle(tmp_path / "a.tar", trusting(expect, tmp_path)).documents == documents


def test_a_current_generation_without_a_manifest_is_not_the_one_delivered(made, tmp_path):
    cache, _, expect = made
    with verify(cache, expect) as verdict:
        documents = documents_of(verdict)
    assert installed(cache, documents) == current_generation(cache)
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy, symlinks=True)
    (copy / "current").resolve().chmod(0o700)
    (copy / "current" / "Manifest.json").unlink()
    assert installed(copy, documents) is None
