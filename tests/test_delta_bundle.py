"""`bundle --since N` carries what changed since generation N; it is installed only where the files of N are."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import DeliveryError
from provisioning.base.hashing import sha256_bytes
from provisioning.cli import main
from provisioning.delivery.bundle.archive import END, Member, header, padding
from provisioning.delivery.bundle.check import check_bundle
from provisioning.delivery.bundle.earlier import generation_since
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.bundle.since import NAME, Changed, Since, parse, to_bytes
from provisioning.delivery.install import install_bundle
from provisioning.delivery.sync import _holds
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.signing import public_key_path
from provisioning.flight.verify import verify
from tests.delivery import FILES, make_keys, manifest_of, noise, publish_cache, tree, trust_anything_by
from tests.test_delta import NEW, NEW_INDEX, OLD, OLD_INDEX, delta_of

MANIFEST = manifest_of(NEW, counter=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache with two generations, and the bundles of the first, of the second, and of what changed."""
    root = tmp_path_factory.mktemp("since")
    keys = make_keys(root)
    expect = trust_anything_by(keys.public)
    publish_cache(root / "cache", keys, counter=1, files=OLD)
    bundled(root, expect, "first.tar")
    publish_cache(root / "cache", keys, counter=2, files=NEW)
    bundled(root, expect, "whole.tar")
    bundled(root, expect, "since.tar", since=1)
    bundled(root, expect, "since.tar.zst", since=1)
    return root, keys, expect


def bundled(root: Path, expect, name: str, *, since: int | None = None):
    earlier = None if since is None else generation_since(root / "cache", since)
    with verify(root / "cache", expect) as verdict:
        return pack(verdict, documents_of(verdict), root / name, since=earlier)


def install(made, bundle: Path, target: Path):
    return install_bundle(bundle, target, trust=trusting(made[2], target), verify=verifying(made[2]))


def with_members(data: bytes, change) -> bytes:
    """Return the archive with its list of (name, bytes) changed."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]
    change(members)
    return b"".join(header(Member(n, len(d))) + d + bytes(padding(len(d))) for n, d in members) + END


@pytest.mark.parametrize("name", ["since.tar", "since.tar.zst"])
def test_a_vehicle_that_holds_the_generation_installs_what_changed(made, tmp_path, name):
    install(made, made[0] / "first.tar", tmp_path / "v")
    assert (made[0] / name).stat().st_size < 0.015 * len(NEW_INDEX) + 12_000
    done = install(made, made[0] / name, tmp_path / "v")
    assert (done.counter, done.received_files) == (2, 1)
    assert tree(tmp_path / "v/current") == tree(made[0] / "cache/current")


def test_only_what_changed_is_in_it(made):
    with tarfile.open(made[0] / "since.tar") as archive:
        assert archive.getnames()[3:] == [NAME, "delta/corpus.index"]


def test_the_same_bytes_every_time(made):
    before = (made[0] / "since.tar.zst").read_bytes()
    bundled(made[0], made[2], "again.tar.zst", since=1)
    assert (made[0] / "again.tar.zst").read_bytes() == before


def test_without_the_generation_it_is_refused_with_its_hash_and_the_next_step(made, tmp_path):
    with pytest.raises(DeliveryError, match="since generation 1") as caught:
        install(made, made[0] / "since.tar", tmp_path / "v")
    hash_of_1 = generation_since(made[0] / "cache", 1).manifest.build.manifest_hash
    assert caught.value.facts["needs manifest_hash"] == hash_of_1
    assert "--since" in caught.value.next_step
    assert not list((tmp_path / "v").rglob("corpus.index"))


def test_a_file_that_rotted_on_the_vehicle_is_named_with_the_digest_that_is_missing(made, tmp_path):
    install(made, made[0] / "first.tar", tmp_path / "v")
    rotten = tmp_path / "v/current/corpus.index"
    rotten.chmod(0o644)
    rotten.write_bytes(OLD_INDEX[:-1] + b"?")
    with pytest.raises(DeliveryError) as caught:
        install(made, made[0] / "since.tar", tmp_path / "v")
    assert caught.value.facts["not here"] == f"corpus.index, SHA-256 {sha256_bytes(OLD_INDEX)}"
    install(made, made[0] / "whole.tar", tmp_path / "v")


def test_a_vehicle_that_reads_no_zstd_is_told_what_it_lacks(made, tmp_path, monkeypatch):
    install(made, made[0] / "first.tar", tmp_path / "v")
    monkeypatch.setattr("provisioning.delivery.install.zstd_module", lambda: None)
    with pytest.raises(DeliveryError, match="nothing here applies"):
        install(made, made[0] / "since.tar", tmp_path / "v")


def test_new_and_removed_files_and_small_ones(made, tmp_path):
    """A new file goes whole, a small changed one too, one that shares nothing too, and one that is gone not at all."""
    _, keys, expect = made
    files = {path: data for path, data in OLD.items() if path != "report.html"}
    files |= {"new.bin": noise(9000, "new"), "calibration/camera.yaml": b"fx: 2\n", "tiles.bin": noise(50_000, "x")}
    publish_cache(tmp_path / "cache", keys, counter=1, files=OLD)
    bundled(tmp_path, expect, "1.tar")
    publish_cache(tmp_path / "cache", keys, counter=2, files=files)
    bundled(tmp_path, expect, "2.tar", since=1)
    with tarfile.open(tmp_path / "2.tar") as archive:
        carried = {name for name in archive.getnames()[4:] if not name.endswith(".sha256")}
    assert carried == {"new.bin", "calibration/camera.yaml", "tiles.bin"}
    install(made, tmp_path / "1.tar", tmp_path / "v")
    install(made, tmp_path / "2.tar", tmp_path / "v")
    assert tree(tmp_path / "v/current") == tree(tmp_path / "cache/current")


HOSTILE = {
    "delta of other bytes": ("not the one", lambda m: m.__setitem__(4, (m[4][0], m[4][1][:-1] + b"?"))),
    "delta missing": ("before all files", lambda m: m.pop(4)),
    "delta twice": ("more files", lambda m: m.append(m[4])),
    "file whole besides": ("more files", lambda m: m.append(("corpus.index", NEW_INDEX))),
    "no list": ("differs from its Manifest", lambda m: m.pop(3)),
    "list in another form": ("own form", lambda m: m.__setitem__(3, (NAME, m[3][1].replace(b":", b": ", 1)))),
    "no JSON": ("own form", lambda m: m.__setitem__(3, (NAME, b"[" * 100_000))),
    "list too large": ("larger than", lambda m: m.__setitem__(3, (NAME, bytes(5 << 20)))),
    "unlisted path": ("own form", lambda m: relisted(m, {"../x": Changed("a" * 64, 5, "b" * 64)})),
    "delta of a gibibyte": ("own form", lambda m: relisted(m, {"corpus.index": Changed("a" * 64, 1 << 30, "b" * 64)})),
}  # fmt: skip


def relisted(members, files) -> None:
    members[3] = (NAME, to_bytes(Since(1, "a" * 64, files)))


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_bundle_of_changes_is_refused_before_anything_is_written(made, tmp_path, attack):
    reason, change = HOSTILE[attack]
    (tmp_path / "h.tar").write_bytes(with_members((made[0] / "since.tar").read_bytes(), change))
    with pytest.raises(DeliveryError) as caught:
        install(made, tmp_path / "h.tar", tmp_path / "v")
    assert reason in str(caught.value)
    assert not (tmp_path / "v").exists()


def test_a_delta_that_gives_another_file_leaves_the_old_generation(made, tmp_path):
    """Whoever carries the bundle can write any delta, with its digest: the signed digest of the file decides."""
    install(made, made[0] / "first.tar", tmp_path / "v")
    before = tree(tmp_path / "v/current")
    with tarfile.open(made[0] / "since.tar") as archive:
        good = archive.extractfile("delta/corpus.index").read()
    for data in (forged(), b"nonsense" * 100, good + b"more"):
        changed = Changed(sha256_bytes(OLD_INDEX), len(data), sha256_bytes(data))

        def change(members, data=data, changed=changed) -> None:
            files = {**parse(members[3][1], MANIFEST).files, "corpus.index": changed}
            members[3] = (NAME, to_bytes(Since(1, "a" * 64, files)))
            members[4] = (members[4][0], data)

        (tmp_path / "h.tar").write_bytes(with_members((made[0] / "since.tar").read_bytes(), change))
        with pytest.raises(DeliveryError):
            install(made, tmp_path / "h.tar", tmp_path / "v")
        assert tree(tmp_path / "v/current") == before
    install(made, made[0] / "since.tar", tmp_path / "v")


def forged() -> bytes:
    return delta_of(NEW_INDEX[:-1] + b"?", OLD_INDEX)


@given(
    st.dictionaries(
        st.sampled_from(sorted(NEW)),
        st.tuples(st.integers(0, 3), st.integers(-1, 1 << 22), st.sampled_from(["", "c" * 64, "C" * 64, 7])),
    ),
    st.integers(-1, 1 << 40),
)
def test_the_list_is_refused_or_comes_back_as_it_was(files, counter):
    digests = ["a" * 64, "A" * 64, "", sha256_bytes(NEW_INDEX)]
    since = Since(counter, "d" * 64, {path: Changed(digests[base], *rest) for path, (base, *rest) in files.items()})
    with suppress(DeliveryError):
        assert parse(to_bytes(since), MANIFEST) == since


# the commands


def test_the_commands_say_what_the_bundle_needs(made, tmp_path, capsys):
    root, keys, _ = made
    key = ["--public-key", str(public_key_path(keys.signing.key))]
    assert main(["bundle", str(root / "cache"), "-o", str(tmp_path), "--since", "1", *key]) == 0
    said = capsys.readouterr().out
    hash_of_1 = generation_since(root / "cache", 1).manifest.build.manifest_hash
    assert f"only for a vehicle that holds generation 1, manifest_hash {hash_of_1}" in said
    (bundle,) = tmp_path.glob("*-since-000001.tar.zst")
    assert main(["info", str(bundle), "--json", *key]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["needs manifest_hash"].startswith(hash_of_1)
    assert said["holds"] == "only what changed since generation 1"
    assert main(["info", str(root / "whole.tar"), *key]) == 0
    assert "manifest_hash" in (said := capsys.readouterr().out)
    assert "since generation" not in said


@pytest.mark.parametrize(("since", "why"), [("2", "not earlier"), ("9", "not earlier"), ("0", "is not kept")])
def test_a_generation_that_cannot_be_compared_with_is_named(made, tmp_path, capsys, since, why):
    key = ["--public-key", str(public_key_path(made[1].signing.key))]
    assert (
        main(["bundle", str(made[0] / "cache"), "-o", str(tmp_path), "--since", since, *key]) == DeliveryError.exit_code
    )
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_since_is_what_it_was(made):
    """No member is added: earlier installers read it."""
    with tarfile.open(made[0] / "whole.tar") as archive:
        assert sorted(archive.getnames()[3::2]) == sorted(FILES | {"tiles.bin": b""})


def test_a_medium_with_a_bundle_of_changes_has_no_whole_one(made, tmp_path):
    with verify(made[0] / "cache", made[2]) as verdict:
        documents = documents_of(verdict)
    trust = trusting(made[2], tmp_path)
    assert _holds(made[0] / "whole.tar", documents, trust)
    assert not _holds(made[0] / "since.tar", documents, trust)


def test_the_whole_bundle_is_checked_without_the_vehicle(made, tmp_path):
    checked = check_bundle(made[0] / "since.tar.zst", trusting(made[2], tmp_path))
    assert checked.since is not None
    assert checked.since.files["corpus.index"].base == sha256_bytes(OLD_INDEX)
