"""A revocation that is given takes effect, in whatever spelling it is clear in, or is refused: never passed over."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from provisioning.base.errors import SigningError
from provisioning.cli import main
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.flight.signing import load_public_key, public_key_path, read_fingerprint_file, read_fingerprints
from provisioning.flight.trust import parse
from provisioning.flight.verify import Code, verify
from tests.delivery import make_keys, publish_cache, trust_anything_by

ALL = ["verify", "doctor", "bundle", "install", "sync"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    keys = make_keys(root)
    publish_cache(root / "cache", keys, counter=1)
    expect = trust_anything_by(keys.public)
    with verify(root / "cache", expect) as verdict:
        pack(verdict, documents_of(verdict), root / "1.tar")
    return root, str(public_key_path(keys.signing.key)), keys.public.fingerprint


def spelled(fingerprint: str) -> list[str]:
    return [
        fingerprint,
        fingerprint.upper(),
        f" {fingerprint}\n",
        "sha256:" + fingerprint,
        "SHA256:" + fingerprint.upper(),
        ":".join(re.findall("..", fingerprint)),
        " ".join(re.findall("....", fingerprint)).upper(),
        "0" * 64 + "," + fingerprint,
        fingerprint + ", " + "f" * 64,
    ]


def other_digests(path: str) -> list[str]:
    """What `sha256sum`, `openssl` and a trust file show of a key that looks like its fingerprint."""
    key = load_pem_public_key(Path(path).read_bytes())
    return [
        hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest(),
        key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
    ]


def garbled(fingerprint: str, key: str) -> list[str]:
    return ["", " ", ",", fingerprint[:16], fingerprint + "0", fingerprint[:-1] + "g", key, fingerprint + ",", "SHA256:" + "A" * 43,
            fingerprint.replace("0", "O", 1) if "0" in fingerprint else "O" * 64, "sha512:" + fingerprint, "\x1b[2J"]  # fmt: skip


def command(name: str, made, tmp_path: Path) -> list[str]:
    root, key, _ = made
    words = {
        "verify": [str(root / "cache"), "--ground"],
        "doctor": [str(root / "cache")],
        "bundle": [str(root / "cache"), "-o", str(tmp_path / "out.tar")],
        "install": [str(root / "1.tar"), str(tmp_path / "vehicle")],
        "sync": [str(tmp_path / "vehicle"), str(root / "cache")],
    }
    return [name, *words[name], "--public-key", key]


def refuses_each(revoked, name, made, tmp_path, capsys):
    """Run the command with each of `revoked`: the key's cache is refused by it, and nothing is written."""
    for text in revoked:
        assert main([*command(name, made, tmp_path), "--revoked", text]) == 22, text
        said = capsys.readouterr()
        assert "key-revoked" in said.out + said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ALL)
def test_every_command_revokes_in_every_clear_spelling(made, tmp_path, name, capsys):
    refuses_each(spelled(made[2]), name, made, tmp_path, capsys)


@pytest.mark.parametrize("name", ALL)
def test_every_command_revokes_by_each_digest_that_is_taken_for_a_fingerprint(made, tmp_path, name, capsys):
    refuses_each(other_digests(made[1]), name, made, tmp_path, capsys)


def test_a_trust_file_takes_out_the_key_whatever_digest_of_it_was_given(made, tmp_path):
    (tmp_path / "new").mkdir()
    root, other = (str(public_key_path(make_keys(each).signing.key)) for each in (tmp_path, tmp_path / "new"))
    file = tmp_path / "trust.json"
    assert not main(["trust", "init", str(file), "--root", root, "--signing", made[1], "--not-after", "never"])
    assert not main(["trust", "sign", str(file), "--key", root.replace(".pub", "")])
    first = file.read_bytes()
    for text in other_digests(made[1]):
        file.write_bytes(first)
        assert not main(["trust", "next", str(file), "--signing", other, "--revoke", text])
        newest = parse(file.read_bytes()).versions[-1].signed
        assert newest.revoked == (made[2],)
        assert made[2] not in {key.key.fingerprint for key in newest.keys}


@pytest.mark.parametrize("option", ["--revoked", "--fingerprint"])
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_fingerprint_is_wrong_usage(made, tmp_path, name, option, capsys):
    for text in garbled(made[2], made[1]):
        with pytest.raises(SystemExit) as ended:
            main([*command(name, made, tmp_path), f"{option}={text}"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "fingerprint" in said
        assert "\x1b" not in said
    assert not list(tmp_path.iterdir())


def test_the_library_reads_the_same_spellings_and_refuses_what_it_cannot_read(made):
    root, key, fingerprint = made
    expect = trust_anything_by(load_public_key(Path(key)))
    for text in spelled(fingerprint):
        with verify(root / "cache", expect._replace(revoked=frozenset({text}))) as verdict:
            assert [reason.code for reason in verdict.reasons] == [Code.KEY_REVOKED]
        with verify(root / "cache", expect._replace(fingerprints=frozenset({text}))) as verdict:
            assert verdict.passed
    for text in garbled(fingerprint, key):
        for part, code in (("revoked", Code.KEY_REVOKED), ("fingerprints", Code.KEY_NOT_ALLOWED)):
            with verify(root / "cache", expect._replace(**{part: frozenset({text})})) as verdict:
                assert [reason.code for reason in verdict.reasons] == [code]


def test_a_file_of_revoked_keys(made, tmp_path, capsys):
    listed = tmp_path / "revoked"
    capsys.readouterr()
    main(["key", "fingerprint", made[1]])
    listed.write_text(f"# lost with heron-3\n\n{capsys.readouterr().out}{'0' * 64}  # never used\n")
    assert read_fingerprint_file(listed) == {made[2], "0" * 64}
    assert main([*command("verify", made, tmp_path), "--revoked-file", str(listed)]) == 22
    both = [*command("verify", made, tmp_path), "--revoked", "1" * 64, "--revoked-file", str(listed)]
    assert main(both) == 22


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"abc\n", b"\xff\xfe", b"\0" * (2 << 20), "FIFO"])
def test_a_file_that_names_nobody_is_wrong_usage(made, tmp_path, content, capsys):
    import os

    if content == "FIFO":
        os.mkfifo(tmp_path / "revoked")
    elif content is not None:
        (tmp_path / "revoked").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main([*command("verify", made, tmp_path), "--revoked-file", str(tmp_path / "revoked")])
    assert ended.value.code == 2
    assert str(tmp_path / "revoked") in capsys.readouterr().err


def test_reading_is_the_same_for_every_spelling():
    key = "0123456789abcdef" * 4
    assert {read_fingerprints(text) for text in spelled(key)[:7]} == {frozenset({key})}
    with pytest.raises(SigningError, match="not a fingerprint"):
        read_fingerprints("\N{KELVIN SIGN}" * 64)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--remote", "/opt/flightcache"], "--remote has no effect"),
        (["--remote-key", "/etc/key.pem"], "--remote-key has no effect"),
    ],
)
def test_an_option_of_sync_without_effect_is_refused(made, tmp_path, words, said, capsys):
    assert main([*command("sync", made, tmp_path), *words]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "vehicle").exists()


@pytest.mark.parametrize("words", [["--json", "-v"], ["--counter-floor=-1"], ["--counter-floor", "1e3"]])
def test_an_option_of_verify_without_effect_is_refused(made, tmp_path, words):
    with pytest.raises(SystemExit) as ended:
        main([*command("verify", made, tmp_path), *words])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "data",
    [b"x", b"\0", "again", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"],
)
def test_a_key_file_with_anything_behind_the_key_is_refused(made, tmp_path, data):
    whole = Path(made[1]).read_bytes()
    (tmp_path / "key.pem").write_bytes(whole + (whole if data == "again" else data))
    with pytest.raises(SigningError, match="not a PEM public key"):
        load_public_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").write_bytes(b"\n" + whole.replace(b"\n", b"\r\n") + b"\n\n")
    assert load_public_key(tmp_path / "key.pem").fingerprint == made[2]
