"""Keys and signatures: made, kept private, used through a file or a command, and refused when they are no good."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519

from provisioning.base.errors import SigningError
from provisioning.cli import main
from provisioning.config import Signing
from provisioning.flight.signing import (
    PublicKey,
    ask_password,
    generate_key,
    load_public_key,
    public_key_of,
    public_key_path,
    sign,
)
from tests.caches import KEY, OTHER_KEY, public

PASSWORD = b"correct horse"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "operator.pem", password=None)
    return tmp_path / "operator.pem"


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    generate_key(tmp_path / "locked.pem", password=PASSWORD)
    return tmp_path / "locked.pem"


# --- making keys ------------------------------------------------------------------------------------------------------


def test_new_private_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate_key(tmp_path / "operator.pem", password=None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "operator.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["operator.pem", "operator.pub.pem"])
def test_no_key_file_is_ever_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(SigningError, match="never overwritten"):
        generate_key(tmp_path / "operator.pem", password=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_public_half_is_written_beside_and_is_the_half_of_what_signs(key: Path) -> None:
    public_key = load_public_key(public_key_path(key))
    assert public_key_path(key).name == "operator.pub.pem"
    assert public_key.verifies(sign(Signing(key=key), b"bytes"), b"bytes")
    assert not public_key.verifies(sign(Signing(key=key), b"bytes"), b"other")


def test_openssl_reads_our_keys(key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    derived = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True).stdout
    assert derived == public_key_path(key).read_bytes()


def test_key_made_by_openssl_signs_here(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    private = tmp_path / "ossl.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    private.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public_key_path(private)], check=True)
    assert len(sign(Signing(key=private), b"bytes")) == 64


# --- passwords --------------------------------------------------------------------------------------------------------


def test_encrypted_key_holds_no_clear_private_key(locked: Path) -> None:
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in locked.read_bytes()


def test_password_comes_from_the_environment(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", PASSWORD.decode())
    assert len(sign(Signing(key=locked, password_env="MY_PASSWORD"), b"bytes")) == 64


def test_password_comes_from_a_file_descriptor(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, PASSWORD + b"\n")
    os.close(writing)
    monkeypatch.setenv("MY_PASSWORD_FD", str(reading))
    signing = Signing(key=locked, password_env="MY_PASSWORD")
    try:
        assert len(sign(signing, b"bytes")) == 64
        assert len(sign(signing, b"a build may sign twice")) == 64
    finally:
        os.close(reading)


def test_password_comes_from_a_person(locked: Path) -> None:
    assert len(sign(Signing(key=locked), b"bytes", password=lambda: PASSWORD)) == 64


def test_prompt_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        with pytest.raises(SigningError, match="no terminal"):
            ask_password("Password: ")


def test_prompt_at_a_real_terminal_does_not_echo() -> None:
    """A pseudo-terminal stands for the person's; what it shows must not hold the password."""
    root = Path(__file__).resolve().parents[1]
    code = "from provisioning.flight.signing import ask_password as a; p = a('Password: '); print('got', len(p))"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(root)
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = b""
    while b"Password: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, PASSWORD + b"\n")
    try:
        while b"got" not in shown or not shown.endswith(b"\n"):
            shown += os.read(terminal, 1000)
    except OSError:
        pass  # how the end of a pseudo-terminal reads
    os.waitpid(child, 0)
    os.close(terminal)
    assert b"got 13" in shown
    assert PASSWORD not in shown


def test_encrypted_key_without_password_names_the_ways_to_give_one(locked: Path) -> None:
    with pytest.raises(SigningError, match="there is no password") as caught:
        sign(Signing(key=locked, password_env="NOT_SET"), b"bytes")
    assert "NOT_SET" in str(caught.value.next_step)


def test_wrong_password_is_reported_as_such(locked: Path) -> None:
    with pytest.raises(SigningError, match="does not open"):
        sign(Signing(key=locked), b"bytes", password=lambda: b"wrong")


def test_no_error_and_no_event_holds_a_password(locked: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SigningError) as caught:
        sign(Signing(key=locked), b"bytes", password=lambda: b"s3cret-wrong")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in caplog.text


def test_no_command_takes_a_password_from_its_arguments() -> None:
    """Arguments are readable by every user of the machine (/proc/PID/cmdline)."""
    from argparse import ArgumentParser

    from provisioning.cli.begin import keygen

    parser = ArgumentParser()
    keygen.arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert {option for option in options if "password" in option} == {"--password-env", "--password-fd"}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o010, 0o602])
def test_private_key_open_to_others_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(SigningError, match="open to others") as caught:
        sign(Signing(key=key), b"bytes")
    assert caught.value.next_step == f"chmod 600 {shlex.quote(str(key))}"


def test_missing_key_names_keygen(tmp_path: Path, key: Path) -> None:
    key.unlink()
    with pytest.raises(SigningError, match="cannot be read") as caught:
        sign(Signing(key=key), b"bytes")
    assert "keygen" in str(caught.value.next_step)


def test_key_that_is_a_fifo_does_not_hang(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)
    with pytest.raises(SigningError, match="not a regular file"):
        sign(Signing(key=key), b"bytes")


OTHER_KINDS = {
    "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_key_of_another_kind_is_refused_in_both_halves(tmp_path: Path, key: Path, kind: str) -> None:
    other = OTHER_KINDS[kind]()
    key.write_bytes(other.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()))
    with pytest.raises(SigningError, match="not an Ed25519 key"):
        sign(Signing(key=key), b"bytes")
    half = tmp_path / "half.pem"
    half.write_bytes(other.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(SigningError, match="not an Ed25519 key"):
        load_public_key(half)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_file_that_is_no_key_is_refused_in_both_halves(tmp_path: Path, key: Path, content: bytes) -> None:
    (tmp_path / "bad.pub.pem").write_bytes(content)
    with pytest.raises(SigningError, match="not a PEM"):
        load_public_key(tmp_path / "bad.pub.pem")
    key.write_bytes(content)
    with pytest.raises(SigningError, match="not a PEM"):
        sign(Signing(key=key), b"bytes")


def test_private_key_given_as_public_key_is_refused(key: Path) -> None:
    with pytest.raises(SigningError, match="not a PEM public key"):
        load_public_key(key)


def test_public_half_of_another_key_is_found_out_before_anything_is_signed(key: Path) -> None:
    der = OTHER_KEY.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    public_key_path(key).write_bytes(der)
    with pytest.raises(SigningError, match="not by the public key"):
        sign(Signing(key=key), b"bytes")


def test_no_key_configured_says_what_to_set() -> None:
    with pytest.raises(SigningError) as caught:
        public_key_of(Signing())
    assert caught.value.key == "signing.public_key"


# --- weak keys --------------------------------------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """The group law of edwards25519, affine (RFC 8032, section 5.1.4)."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def decompress(y: int) -> Point | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if (x * x - square) % P == 0 else None


def small_order_points() -> set[Point]:
    """The torsion subgroup: [L]Q for points Q of the curve, found without any list."""
    order, found, y = 2**252 + 27742317777372353535851937790883648493, set(), 2
    while len(found) < 8:
        point, total, factor = decompress(y), (0, 1), order
        y += 1
        if point is None:
            continue
        while factor:
            total = add(total, point) if factor & 1 else total
            point, factor = add(point, point), factor >> 1
        multiple: Point = (0, 1)
        for _ in range(8):
            multiple = add(multiple, total)
            found.add(multiple)
    return found


def test_every_point_of_small_order_is_a_weak_key() -> None:
    points = small_order_points()
    assert len(points) == 8
    for x, y in points:
        for sign_bit in (x & 1, 1 - (x & 1)):
            assert PublicKey((y | sign_bit << 255).to_bytes(32, "little")).is_weak


def test_keys_that_are_no_canonical_form_are_weak() -> None:
    for y in range(P, 2**255):
        assert PublicKey(y.to_bytes(32, "little")).is_weak
    assert PublicKey(bytes(31)).is_weak
    assert PublicKey(b"").is_weak


def test_ordinary_keys_are_not_weak() -> None:
    assert not any(public(key).is_weak for key in (KEY, OTHER_KEY))


def test_weak_key_verifies_nothing_even_what_the_library_would_accept() -> None:
    weak = bytes([1] + [0] * 31)
    assert not PublicKey(weak).verifies(weak + bytes(32), b"any message")


def test_weak_public_key_file_is_refused(tmp_path: Path) -> None:
    good = KEY.public_key().public_bytes(pem.Encoding.DER, pem.PublicFormat.SubjectPublicKeyInfo)
    import base64

    der = base64.b64encode(good[:-32] + bytes([1] + [0] * 31)).decode()
    (tmp_path / "weak.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
    with pytest.raises(SigningError, match="weak"):
        load_public_key(tmp_path / "weak.pem")


# --- signing by a command ---------------------------------------------------------------------------------------------


def by_command(key: Path, script: str) -> Signing:
    return Signing(public_key=public_key_path(key), command=(sys.executable, "-c", script, str(key)))


SIGNER = """
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))
"""


def test_command_gets_the_bytes_and_gives_the_signature(key: Path) -> None:
    data = os.urandom(300_000)  # more than a pipe holds
    assert load_public_key(public_key_path(key)).verifies(sign(by_command(key, SIGNER), data), data)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('token: wrong PIN')", "exit code 1"),
        ("print('x' * 63, end='')", "not by the public key"),
        ("import sys; sys.stdout.write('0' * 64)", "not by the public key"),
        ("pass", "not by the public key"),
    ],
)
def test_command_that_does_not_sign_is_reported(key: Path, script: str, said: str) -> None:
    with pytest.raises(SigningError, match=said):
        sign(by_command(key, script), b"bytes")


def test_last_words_of_a_failed_command_are_reported(key: Path) -> None:
    with pytest.raises(SigningError) as caught:
        sign(by_command(key, "import sys; sys.exit('token: wrong PIN')"), b"bytes")
    assert caught.value.facts == {"it said": "token: wrong PIN"}


def test_command_that_is_not_there_is_reported(key: Path) -> None:
    signing = Signing(public_key=public_key_path(key), command=("/no/such/signer",))
    with pytest.raises(SigningError, match="cannot be run"):
        sign(signing, b"bytes")


def test_command_that_hangs_is_stopped(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.flight.signing.command.COMMAND_TIMEOUT_S", 0.2)
    with pytest.raises(SigningError, match="gave no answer"):
        sign(by_command(key, "import time; time.sleep(60)"), b"bytes")


SOFTHSM_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
                   "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")  # fmt: skip


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signing:
    """A SoftHSM token with an Ed25519 key that never leaves it, and the [signing] that uses it."""
    module = next((path for path in SOFTHSM_MODULES if Path(path).exists()), None)
    if module is None or shutil.which("pkcs11-tool") is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM and pkcs11-tool are not installed (apt-get install softhsm2 opensc)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (extra [hsm])")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    monkeypatch.setenv("TOKEN_PIN", "1234")

    def run(*command: str) -> bytes:
        return subprocess.run(command, check=True, capture_output=True).stdout

    run("softhsm2-util", "--init-token", "--free", "--label", "flight", "--pin", "1234", "--so-pin", "5678")
    tool = ("pkcs11-tool", "--module", module, "--token-label", "flight", "--login", "--pin", "env:TOKEN_PIN")
    run(*tool, "--keypairgen", "--key-type", "EC:edwards25519", "--id", "01", "--label", "operator")
    half = run(*tool, "--read-object", "--type", "pubkey", "--id", "01")  # PEM or DER, as its release likes
    form = "PEM" if half.startswith(b"-----") else "DER"
    written = subprocess.run(
        ["openssl", "pkey", "-pubin", "-inform", form], input=half, check=True, capture_output=True
    ).stdout
    (tmp_path / "token.pub.pem").write_bytes(written)
    signer = Path(__file__).resolve().parents[1] / "examples" / "sign_pkcs11.py"
    command = (sys.executable, str(signer), "--module", module, "--token", "flight", "--key", "operator")
    return Signing(public_key=tmp_path / "token.pub.pem", command=command)


def test_pkcs11_token_signs_what_openssl_and_we_verify(token: Signing, tmp_path: Path) -> None:
    data = b"the bytes of a Manifest\n" * 400
    signature = sign(token, data)
    assert public_key_of(token).verifies(signature, data)
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "sig").write_bytes(signature)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", token.public_key, "-rawin"]
    subprocess.run([*command, "-in", tmp_path / "data", "-sigfile", tmp_path / "sig"], check=True, capture_output=True)


def test_pkcs11_token_with_a_wrong_pin_signs_nothing(token: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIN", "9999")
    with pytest.raises(SigningError, match="failed with exit code"):
        sign(token, b"bytes")


# --- the commands -----------------------------------------------------------------------------------------------------


def test_keygen_names_both_files_and_the_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(tmp_path / "keys" / "operator.pem")]) == 0
    said = capsys.readouterr().out
    fingerprint = load_public_key(tmp_path / "keys" / "operator.pub.pem").fingerprint
    assert str(tmp_path / "keys" / "operator.pub.pem") in said
    assert fingerprint in said
    assert main(["key", "fingerprint", str(tmp_path / "keys" / "operator.pub.pem")]) == 0
    assert capsys.readouterr().out.split()[0] == fingerprint


def test_keygen_encrypts_with_a_password_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEW_PASSWORD", PASSWORD.decode())
    assert main(["keygen", str(tmp_path / "k.pem"), "--password-env", "NEW_PASSWORD"]) == 0
    assert len(sign(Signing(key=tmp_path / "k.pem"), b"bytes", password=lambda: PASSWORD)) == 64


def test_keygen_encrypts_with_a_password_from_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(PASSWORD + b"\n")
    with open(tmp_path / "password", "rb") as file:
        fd = os.dup(file.fileno())  # a number not used by another test
        try:
            assert main(["keygen", str(tmp_path / "k.pem"), "--password-fd", str(fd)]) == 0
        finally:
            os.close(fd)
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    assert len(sign(Signing(key=tmp_path / "k.pem"), b"bytes", password=lambda: PASSWORD)) == 64


def test_keygen_with_an_empty_password_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    assert main(["keygen", str(tmp_path / "k.pem"), "--password-env", "EMPTY"]) == 25
    assert list(tmp_path.iterdir()) == []


def test_keygen_does_not_overwrite_and_exits_25(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = key.read_bytes()
    assert main(["keygen", str(key)]) == 25
    assert key.read_bytes() == before
    assert "never overwritten" in capsys.readouterr().err
