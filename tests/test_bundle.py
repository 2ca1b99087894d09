"""A bundle has one form: the same generation gives the same bytes, and nothing else is read as one."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.errors import DeliveryError, Error, VerificationError
from provisioning.delivery.bundle import compression
from provisioning.delivery.bundle.archive import END, Member, header, parse_header
from provisioning.delivery.bundle.check import check_bundle
from provisioning.delivery.bundle.pack import archive_bytes, documents_of, pack
from provisioning.delivery.install import install_bundle
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.verify import verify
from tests.delivery import FILES, make_keys, noise, publish_cache, tree, trust_anything_by


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A published cache with its key and its plain and compressed bundles."""
    root = tmp_path_factory.mktemp("bundle")
    keys = make_keys(root)
    publish_cache(root / "cache", keys, files={**FILES, "noise.bin": noise(9000, "n")})
    expect = trust_anything_by(keys.public)
    with verify(root / "cache", expect) as verdict:
        documents = documents_of(verdict)
        pack(verdict, documents, root / "good.tar")
        pack(verdict, documents, root / "good.tar.zst")
        size = archive_bytes(documents, verdict.require())
    return root, keys, expect, size


def attempt(made, bundle: Path, target: Path) -> Error:
    """Install `bundle`, which must be refused with nothing written; return the refusal."""
    expect = made[2]
    with pytest.raises((DeliveryError, VerificationError)) as caught:
        install_bundle(bundle, target, trust=trusting(expect, target), verify=verifying(expect))
    assert not target.exists(), "something was written before the bundle was checked"
    return caught.value


def test_bundles_of_one_generation_are_byte_identical(made, tmp_path):
    root, _, expect, _ = made
    shutil.copytree(root / "cache", tmp_path / "moved", symlinks=True)
    os.utime(tmp_path / "moved/current/corpus.index", (1, 1))
    with verify(tmp_path / "moved", expect) as verdict:
        documents = documents_of(verdict)
        for name in ("good.tar", "good.tar.zst"):
            pack(verdict, documents, tmp_path / name)
            assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_the_size_foretold_is_the_size_written(made):
    root, _, _, size = made
    assert (root / "good.tar").stat().st_size == size


def test_tar_itself_unpacks_a_bundle_into_a_generation_that_verifies(made, tmp_path):
    root, _, expect, _ = made
    subprocess.run(["tar", "-xf", root / "good.tar", "-C", tmp_path], check=True)
    with verify(tmp_path, expect) as verdict:
        assert verdict.passed, verdict.reasons


def test_the_zstd_command_unpacks_the_same_archive(made):
    root = made[0]
    zstd = shutil.which("zstd")
    if zstd is None:
        pytest.skip("no zstd command here")
    plain = subprocess.run([zstd, "-dc", root / "good.tar.zst"], check=True, capture_output=True).stdout
    assert plain == (root / "good.tar").read_bytes()


@pytest.mark.parametrize("name", ["good.tar", "good.tar.zst"])
def test_a_bundle_installs_the_generation_that_was_bundled(made, tmp_path, name):
    root, _, expect, _ = made
    install_bundle(root / name, tmp_path / "t", trust=trusting(expect, tmp_path), verify=verifying(expect))
    assert tree(tmp_path / "t/current") == tree(root / "cache/current")


def test_without_a_zstd_module_the_command_reads_the_bundle(made, tmp_path, monkeypatch):
    if shutil.which("zstd") is None:
        pytest.skip("no zstd command here")
    root, _, expect, _ = made
    monkeypatch.setattr(compression, "zstd_module", lambda: None)
    assert check_bundle(root / "good.tar.zst", trusting(expect, tmp_path)).manifest.build.counter == 1
    (tmp_path / "cut.tar.zst").write_bytes((root / "good.tar.zst").read_bytes()[:-9])
    assert "truncated" in str(attempt(made, tmp_path / "cut.tar.zst", tmp_path / "t"))


def test_where_nothing_reads_zstd_the_error_says_what_to_do(made, tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "zstd_module", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert ".tar" in str(attempt(made, made[0] / "good.tar.zst", tmp_path / "t").next_step)


NAMES = st.from_regex(
    r"[A-Za-z0-9_][A-Za-z0-9_.+=,@-]{0,80}(/[A-Za-z0-9_][A-Za-z0-9_.+=,@-]{0,60}){0,2}", fullmatch=True
)


@given(NAMES, st.integers(0, 1 << 50))
def test_a_header_says_what_was_put_into_it(name, size):
    member = Member(name, size)
    block = header(member)
    assert parse_header(block) == member
    info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    assert (info.name, info.size, info.isreg(), info.mode, info.mtime) == (name, size, True, 0o644, 0)


@given(st.binary(min_size=512, max_size=512))
def test_a_block_is_refused_or_is_the_one_header_of_its_member(block):
    try:
        member = parse_header(block)
    except DeliveryError:
        return
    assert header(member) == block


def test_every_changed_bit_of_a_header_is_refused():
    block = header(Member("calibration/camera.yaml", 4711))
    refused = 0
    for byte, bit in itertools.product(range(512), range(8)):
        changed = bytearray(block)
        changed[byte] ^= 1 << bit
        with pytest.raises(DeliveryError):
            parse_header(bytes(changed))
        refused += 1
    assert refused == 4096


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]


def rebuilt(good: Path, change: Change) -> bytes:
    """The members of a good bundle after `change`, written by Python's tarfile with ustar headers."""
    with tarfile.open(good) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive.getmembers()]
    change(members)
    output = io.BytesIO()
    for info, data in members:
        output.write(info.tobuf(tarfile.USTAR_FORMAT))
        output.write(data + bytes(-len(data) % 512))
    return output.getvalue() + END


def special(kind: bytes, name: str = "extra", link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def named(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def renamed(members, at: int, name: str) -> None:
    members[at][0].name = name


HOSTILE: dict[str, tuple[str, Change]] = {
    "parent directory": ("unsafe name", lambda m: renamed(m, 5, "../corpus.index")),
    "parent inside": ("unsafe name", lambda m: renamed(m, 5, "a/../../corpus.index")),
    "absolute": ("unsafe name", lambda m: renamed(m, 5, "/etc/passwd")),
    "dot": ("unsafe name", lambda m: renamed(m, 5, "./corpus.index")),
    "backslash": ("unsafe name", lambda m: renamed(m, 5, "..\\corpus.index")),
    "newline": ("unsafe name", lambda m: renamed(m, 5, "corpus\n.index")),
    "parent directory first": ("unsafe name", lambda m: m.insert(0, named("../x"))),
    "symbolic link": ("symbolic link", lambda m: m.insert(5, special(tarfile.SYMTYPE, link="/etc"))),
    "symbolic link for a file": ("symbolic link", lambda m: m.__setitem__(5, special(tarfile.SYMTYPE, "corpus.index", "/etc/passwd"))),
    "hard link": ("hard link", lambda m: m.insert(5, special(tarfile.LNKTYPE, link="Manifest.json"))),
    "character device": ("character device", lambda m: m.insert(5, special(tarfile.CHRTYPE))),
    "block device": ("block device", lambda m: m.insert(5, special(tarfile.BLKTYPE))),
    "FIFO": ("FIFO", lambda m: m.insert(5, special(tarfile.FIFOTYPE))),
    "directory": ("directory", lambda m: m.insert(3, special(tarfile.DIRTYPE, "calibration"))),
    "extended header": ("does not write", lambda m: m.insert(5, special(tarfile.XHDTYPE))),
    "long name": ("does not write", lambda m: m.insert(5, special(tarfile.GNUTYPE_LONGNAME))),
    "sparse": ("does not write", lambda m: m.insert(5, special(tarfile.GNUTYPE_SPARSE))),
    "contiguous": ("does not write", lambda m: m.insert(5, special(tarfile.CONTTYPE))),
    "name twice": ("twice", lambda m: m.insert(6, m[5])),
    "Manifest twice": ("twice", lambda m: m.insert(5, m[0])),
    "unlisted file": ("differs from its Manifest", lambda m: m.insert(5, named("extra.bin"))),
    "unlisted file at the end": ("more files", lambda m: m.append(named("extra.bin"))),
    "file missing": ("differs from its Manifest", lambda m: m.__delitem__(slice(5, 7))),
    "files missing at the end": ("before all files", lambda m: m.__delitem__(slice(-2, None))),
    "order": ("differs from its Manifest", lambda m: m.__setitem__(slice(3, 7), [*m[5:7], *m[3:5]])),
    "other bytes": ("not the one its Manifest lists", lambda m: m.__setitem__(5, (m[5][0], b"X" + m[5][1][1:]))),
    "other sidecar": ("not the digest", lambda m: m.__setitem__(6, (m[6][0], b"0" * 64 + b"\n"))),
    "executable": ("does not write", lambda m: setattr(m[5][0], "mode", 0o755)),
    "owner": ("does not write", lambda m: setattr(m[5][0], "uid", 1000)),
    "time": ("does not write", lambda m: setattr(m[5][0], "mtime", 1)),
    "owner's name": ("does not write", lambda m: setattr(m[5][0], "uname", "root")),
    "huge member": ("differs from its Manifest", lambda m: setattr(m[5][0], "size", 1 << 32)),
    "huge Manifest": ("larger than", lambda m: setattr(m[0][0], "size", 1 << 32)),
    "no Manifest": ("not a bundle", lambda m: m.pop(0)),
    "signature of another": ("signature", lambda m: m.__setitem__(2, (m[2][0], bytes(64)))),
    "Manifest changed": ("signature", lambda m: m.__setitem__(0, (m[0][0], m[0][1].replace(b'"counter": 1', b'"counter": 9')))),
    "Manifest's sidecar": ("sidecar", lambda m: m.__setitem__(1, (m[1][0], b"0" * 64 + b"\n"))),
}  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_bundle_is_refused_before_anything_is_written(made, tmp_path, attack):
    reason, change = HOSTILE[attack]
    (tmp_path / "hostile.tar").write_bytes(rebuilt(made[0] / "good.tar", change))
    assert reason in str(attempt(made, tmp_path / "hostile.tar", tmp_path / "t"))


def test_the_rebuilding_of_these_attacks_is_itself_accepted(made):
    assert rebuilt(made[0] / "good.tar", lambda m: None) == (made[0] / "good.tar").read_bytes()


def test_a_bundle_truncated_anywhere_is_refused(made, tmp_path):
    data = (made[0] / "good.tar").read_bytes()
    for size in [*range(0, len(data), 256), len(data) - 1]:
        (tmp_path / "cut.tar").write_bytes(data[:size])
        attempt(made, tmp_path / "cut.tar", tmp_path / "t")


def test_a_compressed_bundle_truncated_anywhere_is_refused(made, tmp_path):
    data = (made[0] / "good.tar.zst").read_bytes()
    for size in [*range(0, len(data), 101), len(data) - 1]:
        (tmp_path / "cut.tar.zst").write_bytes(data[:size])
        attempt(made, tmp_path / "cut.tar.zst", tmp_path / "t")


@pytest.mark.parametrize("tail", [b"x", bytes(512), b"x" * 100_000])
def test_bytes_behind_the_end_are_refused(made, tmp_path, tail):
    (tmp_path / "tail.tar").write_bytes((made[0] / "good.tar").read_bytes() + tail)
    assert "behind its end" in str(attempt(made, tmp_path / "tail.tar", tmp_path / "t"))


def test_every_sampled_bit_flip_is_refused(made, tmp_path):
    data = bytearray((made[0] / "good.tar").read_bytes())
    for byte in range(0, len(data), 97):
        data[byte] ^= 1 << byte % 8
        (tmp_path / "flipped.tar").write_bytes(data)
        attempt(made, tmp_path / "flipped.tar", tmp_path / "t")
        data[byte] ^= 1 << byte % 8


def test_a_bomb_is_refused_at_the_size_that_was_signed(made, tmp_path):
    zstd = compression.zstd_module()
    if zstd is None:
        pytest.skip("no zstd module here")
    with (tmp_path / "bomb.tar.zst").open("wb") as file, zstd.ZstdFile(file, "w") as bomb:
        bomb.write((made[0] / "good.tar").read_bytes())
        for _ in range(1024):
            bomb.write(bytes(1 << 20))
    assert (tmp_path / "bomb.tar.zst").stat().st_size < 200_000
    assert "behind its end" in str(attempt(made, tmp_path / "bomb.tar.zst", tmp_path / "t"))


def test_a_window_larger_than_we_ever_ask_for_is_refused(made, tmp_path):
    zstd = compression.zstd_module()
    if zstd is None:
        pytest.skip("no zstd module here")
    options = {zstd.CompressionParameter.window_log: 29, zstd.CompressionParameter.enable_long_distance_matching: 1}
    with (tmp_path / "wide.tar.zst").open("wb") as file, zstd.ZstdFile(file, "w", options=options) as wide:
        wide.write((made[0] / "good.tar").read_bytes())
    assert "compression" in str(attempt(made, tmp_path / "wide.tar.zst", tmp_path / "t"))


def test_a_cache_that_does_not_verify_is_not_bundled(made, tmp_path):
    root, _, expect, _ = made
    shutil.copytree(root / "cache", tmp_path / "bad", symlinks=True)
    os.chmod(tmp_path / "bad/generations/000001", 0o755)
    (tmp_path / "bad/generations/000001/corpus.index").unlink()
    with verify(tmp_path / "bad", expect) as verdict, pytest.raises(VerificationError):
        pack(verdict, documents_of(verdict), tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_a_bundle_that_cannot_be_finished_leaves_nothing(made, tmp_path, monkeypatch):
    root, _, expect, _ = made
    monkeypatch.setattr(os, "replace", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with verify(root / "cache", expect) as verdict, pytest.raises(Error, match="cannot write the bundle"):
        pack(verdict, documents_of(verdict), tmp_path / "b.tar")
    assert list(tmp_path.iterdir()) == []
