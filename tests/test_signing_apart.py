"""The key is in another process: what runs in a build can ask it to sign a Manifest, and cannot take it away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provisioning.base.errors import SigningError
from provisioning.base.process import landlock
from provisioning.config import Signing
from provisioning.flight.manifest import to_bytes
from provisioning.flight.signing import apart, generate_key, load_public_key, public_key_path
from tests.caches import manifest_of
from tests.processes import gone

needs_landlock = pytest.mark.skipif(landlock.version() < 2, reason="this kernel's Landlock is absent or too old")
MANIFEST = to_bytes(manifest_of())


def in_a_process(code: str, *arguments: object, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


BUILD = """
import os, sys
from pathlib import Path
from provisioning.config import Signing
from provisioning.flight import signing
key, data = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
keys = Signing(key=key, password_env="PW")
def tries(path):
    try:
        found = open(path, "rb").read(1 << 16)
        return "a secret" if b"hush" in found or b"PRIVATE" in found else "no secret"
    except OSError as error:
        return error.strerror
with signing.key_apart(keys, working=()):
    print("PW" in os.environ, b"hush" in open("/proc/self/environ", "rb").read())
    signing.sign(keys, data)
    print(tries(key), tries(f"/proc/{signing.signer._process.pid}/environ"), tries(f"/proc/{signing.signer._process.pid}/mem"))
    print(signing.sign(keys, data).hex())
    print(signing.public_key_of(keys).raw.hex())
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("gone")
"""


@pytest.fixture
def key(tmp_path):
    generate_key(tmp_path / "keys" / "k.pem", password=b"hush")
    (tmp_path / "m").write_bytes(MANIFEST)
    return tmp_path / "keys" / "k.pem"


@needs_landlock
def test_a_build_signs_without_password_key_file_or_a_way_into_the_other_process(key, tmp_path):
    seen = in_a_process(BUILD, key, tmp_path / "m", PW="hush")
    assert seen[0] == "False False"
    assert seen[1] in (
        "Permission denied Permission denied Permission denied",
        "Permission denied no secret Permission denied",  # root
    )
    public = load_public_key(public_key_path(key))
    assert public.verifies(bytes.fromhex(seen[2]), MANIFEST)
    assert seen[3:] == [public.raw.hex(), "gone"]


def test_without_landlock_the_password_is_gone_all_the_same(key, tmp_path):
    code = "from provisioning.base.process import landlock\nlandlock.version = lambda: 0\n" + BUILD
    seen = in_a_process(code, key, tmp_path / "m", PW="hush")
    assert seen[0] == "False False"
    assert load_public_key(public_key_path(key)).verifies(bytes.fromhex(seen[2]), MANIFEST)


def test_a_build_that_is_killed_leaves_no_process_with_the_key(key, tmp_path):
    killed = "    print(signing.signer._process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    code = BUILD.partition('    print("PW"')[0] + killed
    build = subprocess.Popen(
        [sys.executable, "-c", code, str(key), str(tmp_path / "m")],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = build.communicate(timeout=120)  # ends when nobody holds the pipe any more
    assert build.returncode == -9
    assert gone(int(out))


@pytest.fixture
def process(tmp_path):
    """What serves, in a thread of this process, and the build's end of its socket."""
    generate_key(tmp_path / "open.pem", password=None)
    signing = Signing(key=tmp_path / "open.pem")
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def serves_and_ends():
        with theirs:
            apart.serve(theirs, signing)

    thread = threading.Thread(target=serves_and_ends)
    # Ctrl-C is for the main thread, which a process of its own would be
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apart.signal, "signal", lambda *_: None)
        thread.start()
        yield apart.SigningProcess(ours, 0)
        ours.close()
        thread.join()


@pytest.mark.parametrize(
    "data", [b"", b"anything", b"DSSEv1 9 text/html 1 a", MANIFEST + b" ", b'{"trust": 1}', b"\x00" * 1000]
)
def test_nothing_but_a_manifest_or_a_statement_is_signed(process, data):
    with pytest.raises(SigningError, match="and nothing else"):
        process.sign(data)
    assert len(process.sign(apart.STATEMENT + b"2 {}")) == 64


def test_a_build_gets_few_signatures(process):
    for _ in range(apart.MOST_SIGNATURES):
        assert process.public_key().verifies(process.sign(MANIFEST), MANIFEST)
    with pytest.raises(SigningError, match="and nothing else"):
        process.sign(MANIFEST)


def test_what_is_wrong_with_the_key_is_said_as_if_it_were_here(process, tmp_path):
    (tmp_path / "open.pem").chmod(0o644)
    with pytest.raises(SigningError, match="open to others") as caught:
        process.sign(MANIFEST)
    assert caught.value.file == str(tmp_path / "open.pem")
    assert caught.value.next_step.startswith("chmod 600")


def test_a_request_without_end_closes_the_connection(process):
    process.connection.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(SigningError, match="has ended"):
        process.sign(MANIFEST)


HIDE = """
import os, sys
from pathlib import Path
from provisioning.base.process import landlock
root = Path(sys.argv[1])
assert landlock.hide(root / "keys/k.pem", working=[root / "cache"])
(root / "cache/new").write_text("new")
assert (root / "cache/new").read_text() == "new"
os.link(root / "cache/new", root / "other/linked")
os.rename(root / "other/linked", root / "cache/renamed")
assert (root / "cache/renamed").read_text() == "new"
assert (root / "keys/beside").read_text() == "beside"
import tempfile
with tempfile.TemporaryFile() as file:
    file.write(b"1")
for get in (lambda: open(root / "keys/k.pem"), lambda: open(root / "alias"),
            lambda: os.link(root / "keys/k.pem", root / "cache/k"), lambda: os.rename(root / "keys", root / "cache/keys"),
            lambda: os.rename(root / "keys/k.pem", root / "cache/k"), lambda: open("/proc/self/root" + sys.argv[1] + "/keys/k.pem")):
    try:
        get()
    except OSError:
        continue
    raise SystemExit("was read")
print("held")
"""


@needs_landlock
@pytest.mark.parametrize("tmpdir", ["elsewhere", "keys"])
def test_a_hidden_file_stays_hidden_and_everything_beside_it_works(key, tmp_path, tmpdir):
    for name in ("cache", "other", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "keys/beside").write_text("beside")
    (tmp_path / "alias").symlink_to(key)
    assert in_a_process(HIDE, tmp_path, TMPDIR=str(tmp_path / tmpdir)) == ["held"]
    assert not list((tmp_path / tmpdir).glob("flightcache-*"))


@needs_landlock
@pytest.mark.parametrize("working", ["keys", "", "keys/not/there/yet"])
def test_nothing_is_hidden_where_the_work_could_not_be_done(key, tmp_path, working):
    code = (
        "import sys; from pathlib import Path; from provisioning.base.process import landlock;"
        "print(landlock.hide(Path(sys.argv[1]), working=[Path(sys.argv[2])])); open(sys.argv[1])"
    )
    assert in_a_process(code, key, tmp_path / working) == ["False"]
