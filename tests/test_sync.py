"""Sync sends what the other end lacks, the other end decides, and a cut costs nothing that had arrived."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provisioning.base.disk import files as provisioning_files
from provisioning.base.errors import DeliveryError, FilesystemError
from provisioning.base.hashing import sha256_bytes
from provisioning.cli import main
from provisioning.cli.deliver import sync as sync_command
from provisioning.delivery.bundle.contents import Listed
from provisioning.delivery.bundle.pack import documents_of
from provisioning.delivery.stream import GREETING, read_line, receive_documents, send_needed
from provisioning.delivery.sync import parse_destination, remote_command, sync_here, sync_over
from provisioning.delivery.target import Target
from provisioning.delivery.trust import verifying
from provisioning.flight.signing import public_key_path
from provisioning.flight.verify import verify
from tests.delivery import FILES, make_keys, noise, tree, two_caches

REPOSITORY = Path(__file__).parents[1]
HERE = f"{shlex.quote(sys.executable)} -m provisioning.cli"
OLD = {**FILES, "tiles.bin": noise(700_000, "tiles"), "corpus.index": noise(200_000, "old")}
NEW = {**OLD, "corpus.index": noise(202_000, "new")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two caches with the generations before and after a few new tiles, and the key that signed both."""
    return two_caches(tmp_path_factory.mktemp("sync"), OLD, NEW)


@pytest.fixture(autouse=True)
def _repository_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY", raising=False)


def over(made, name: str, target: Path, *, shell=("sh", "-c"), key: Path | None = None):
    """Sync cache `name` to `target` through a second process."""
    root, keys, expect = made
    options = {"--public-key": str(key or public_key_path(keys.signing.key))}
    command = remote_command(parse_destination(str(target)), shell=shell, program=HERE, options=options)
    with verify(root / name, expect) as verdict:
        return sync_over(command, verdict, documents_of(verdict))


@pytest.fixture(scope="module")
def had_new(made, tmp_path_factory):
    """A vehicle that took one generation after the other, and what was sent of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        target = tmp_path_factory.mktemp("vehicle") / "v"
        sent = over(made, "old", target)
        first = tree(target / "current"), current(target, made[2])
        return target, sent, first, over(made, "new", target)


@pytest.fixture
def vehicle(had_new, tmp_path):
    return shutil.copytree(had_new[0], tmp_path / "v", symlinks=True)


def current(target: Path, expect) -> int:
    with verify(target, expect) as verdict:
        return verdict.require().build.counter


def test_an_empty_vehicle_gets_everything(made, had_new):
    _, sent, first, _ = had_new
    assert first == (tree(made[0] / "old/current"), 1)
    assert sent.files == len(OLD)
    assert sent.generation_bytes <= sent.sent_bytes < sent.generation_bytes + 200


def test_new_tiles_send_the_index_and_the_manifest_and_nothing_else(made, had_new):
    target, _, _, sent = had_new
    assert current(target, made[2]) == 2
    assert sent.files == 1
    manifest = len((made[0] / "new/current/Manifest.json").read_bytes())
    assert sent.sent_bytes - len(NEW["corpus.index"]) < manifest + 300


def test_the_same_again_sends_the_manifest_only(made, vehicle, tmp_path):
    sent = over(made, "new", tmp_path / "v")
    assert (sent.files, sent.counter) == (0, 2)
    assert sent.sent_bytes < 5000


def test_an_older_generation_is_refused_there(made, vehicle, tmp_path):
    with pytest.raises(DeliveryError, match="older or equal"):
        over(made, "old", tmp_path / "v")
    assert current(tmp_path / "v", made[2]) == 2


def test_the_key_of_the_vehicle_decides_not_that_of_the_sender(made, tmp_path):
    make_keys(tmp_path)
    with pytest.raises(DeliveryError, match="signature"):
        over(made, "old", tmp_path / "v", key=tmp_path / "operator.pub.pem")
    assert not (tmp_path / "v").exists()


def test_a_command_that_fails_is_named_with_its_exit_code(made, tmp_path):
    with pytest.raises(DeliveryError, match="cut") as caught:
        over(made, "old", tmp_path / "v", shell=("sh", "-c", "exit 7"))
    assert caught.value.facts["exit code"] == 7


CUT = """
import os, sys
left = int(sys.argv[1])
while left and (data := os.read(0, min(left, 65536))):
    left -= os.write(1, data)
"""
"""Passes the first bytes on as they come."""


@pytest.mark.parametrize(
    "cut", [100, 250_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (3000, 100_000, 600_000))]
)
def test_a_cut_line_is_continued_where_it_was_cut(made, tmp_path, cut):
    passes = f'{sys.executable} -ISc "$CUT" {cut} | sh -c "$1"'  # dd takes a second for each byte to be a block
    line = ("env", f"CUT={CUT}", "sh", "-c", passes, "cut-line")
    with pytest.raises(DeliveryError):
        over(made, "old", tmp_path / "v", shell=line)
    assert not os.path.lexists(tmp_path / "v/current")
    arrived = sum(
        path.stat().st_size for path in (tmp_path / "v").rglob("*") if "incoming" in path.parts and path.is_file()
    )
    assert arrived >= cut - 4000
    sent = over(made, "old", tmp_path / "v")
    assert current(tmp_path / "v", made[2]) == 1
    assert sent.sent_bytes <= sent.generation_bytes - arrived + 200


def test_a_part_that_went_bad_is_dropped_and_sent_again(made, tmp_path):
    index = Listed("corpus.index", len(OLD["corpus.index"]), sha256_bytes(OLD["corpus.index"]))
    incoming = tmp_path / "v/.build/incoming"
    incoming.mkdir(parents=True)
    (incoming / f"{index.sha256}.part").write_bytes(bytes(1000))
    with pytest.raises(DeliveryError, match="arrived damaged"):
        over(made, "old", tmp_path / "v")
    over(made, "old", tmp_path / "v")
    assert current(tmp_path / "v", made[2]) == 1


def test_a_file_that_arrived_but_rotted_is_not_believed(made, tmp_path):
    index = sha256_bytes(OLD["corpus.index"])
    incoming = tmp_path / "v/.build/incoming"
    incoming.mkdir(parents=True)
    (incoming / index).write_bytes(bytes(len(OLD["corpus.index"])))
    over(made, "old", tmp_path / "v")
    assert current(tmp_path / "v", made[2]) == 1


def test_a_drive_mounted_here_gets_only_what_it_lacks(made, tmp_path):
    root, _, expect = made
    for name, files in (("old", len(OLD)), ("new", 1)):
        with verify(root / name, expect) as verdict:
            sent = sync_here(tmp_path, verdict, documents_of(verdict), verify=verifying(expect))
        assert sent.files == files
    assert current(tmp_path, expect) == 2


def test_a_drive_without_hard_links_gets_copies(made, tmp_path, monkeypatch):
    root, _, expect = made

    def refuse(*_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for name in ("old", "new"):
        with verify(root / name, expect) as verdict:
            sync_here(tmp_path, verdict, documents_of(verdict), verify=verifying(expect))
    assert current(tmp_path, expect) == 2


@pytest.fixture
def stick(tmp_path, monkeypatch):
    """A directory that passes for a FAT stick: no links at all, and named as FAT."""
    path = tmp_path / "stick"
    path.mkdir()
    real = provisioning_files.require_local_filesystem

    def fat(where: Path) -> None:
        if Path(where).is_relative_to(path):
            raise FilesystemError("a cache cannot be built on FAT", file=where)
        real(where)

    def refuse(*_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sync_command, "require_local_filesystem", fat)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    return path


def test_a_fat_stick_carries_one_bundle_that_installs(made, stick, tmp_path, monkeypatch, capsys):
    root, keys, expect = made
    key = str(public_key_path(keys.signing.key))
    assert main(["sync", str(stick), str(root / "new"), "--public-key", key]) == 0
    assert "written and read back" in capsys.readouterr().out
    (bundle,) = stick.iterdir()
    monkeypatch.undo()
    assert main(["install", str(bundle), str(tmp_path / "v"), "--public-key", key]) == 0
    assert current(tmp_path / "v", expect) == 2


def test_the_bundle_on_a_stick_is_not_written_twice(made, stick, capsys):
    root, keys, _ = made
    words = ["sync", str(stick), str(root / "new"), "--public-key", str(public_key_path(keys.signing.key))]
    assert main(words) == 0
    (bundle,) = stick.iterdir()
    before = bundle.stat().st_mtime_ns
    assert main(words) == 0
    assert bundle.stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().out


def test_a_rotten_bundle_on_a_stick_is_written_again(made, stick):
    root, keys, _ = made
    words = ["sync", str(stick), str(root / "new"), "--public-key", str(public_key_path(keys.signing.key))]
    assert main(words) == 0
    (bundle,) = stick.iterdir()
    good = bundle.read_bytes()
    bundle.write_bytes(good[:-1] + b"\0")
    assert main(words) == 0
    assert bundle.read_bytes() == good


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("pilot@heron-1:/var/lib/cache", "pilot@heron-1", "/var/lib/cache"),
        ("heron:cache", "heron", "cache"),
        ("/mnt/drive", "", "/mnt/drive"),
        ("./odd:name", "", "./odd:name"),
        ("relative", "", "relative"),
    ],
)
def test_a_target_is_read_as_rsync_reads_it(text, host, path):
    assert parse_destination(text) == (host, path)


@pytest.mark.parametrize("text", ["-oProxyCommand=evil:/x", ":/x", "host:"])
def test_a_target_that_ssh_could_misread_is_refused(text):
    with pytest.raises(DeliveryError):
        parse_destination(text)


def test_what_goes_to_the_other_shell_is_quoted():
    command = remote_command(parse_destination("h:/a b/$(c)"), shell=None, program="flightcache", options={})
    assert command[-2] == "h"
    assert shlex.split(command[-1]) == ["flightcache", "install", "--stream", "-", "/a b/$(c)"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        GREETING + b'{"sizes": [1, 2]}\n',
        GREETING + b'{"sizes": [1048577, 65, 64]}\n' + bytes(2 << 20),
        GREETING + b'{"sizes": [-1, 65, 64]}\n',
        GREETING + b'{"sizes": [true, 65, 64]}\n' + bytes(200),
        GREETING + b'{"sizes": [100, 65, 64]}\n' + bytes(20),
        GREETING + b"[]\n",
        GREETING + b"[" * 100_000 + b"\n",
        GREETING + b"x" * (3 << 20),
    ],
)
def test_a_sender_that_talks_nonsense_is_refused(said, tmp_path):
    (tmp_path / "said").write_bytes(said)
    with (tmp_path / "said").open("rb") as stream, pytest.raises(DeliveryError):
        receive_documents(stream)


@pytest.mark.parametrize(
    "need",
    [
        None,
        [["0" * 64, 0]],
        [["KNOWN", -1]],
        [["KNOWN", 1 << 40]],
        [["KNOWN"]],
        [["KNOWN", True]],
        ["KNOWN"],
        [[[], 0]],
    ],
)
def test_a_receiver_that_asks_for_what_is_not_offered_gets_nothing(made, tmp_path, need):
    root, _, expect = made
    with verify(root / "old", expect) as verdict:
        manifest = verdict.require()
        asked = json.loads(json.dumps(need).replace("KNOWN", manifest.descriptor_index.sha256))
        with (tmp_path / "out").open("wb") as out, pytest.raises(DeliveryError):
            send_needed(out, {"need": asked}, manifest, lambda file: verdict.open(file.path))
    assert (tmp_path / "out").read_bytes() == b""


def test_a_line_without_end_is_refused(tmp_path):
    (tmp_path / "said").write_bytes(b'{"need": []')
    with (tmp_path / "said").open("rb") as stream, pytest.raises(DeliveryError, match="went away"):
        read_line(stream)


def test_a_receiver_never_follows_a_link_laid_in_its_way(tmp_path):
    target = Target(tmp_path)
    target.incoming.mkdir(parents=True)
    data = b"payload"
    file = Listed("a.bin", len(data), sha256_bytes(data))
    (tmp_path / "victim").write_bytes(b"precious")
    (target.incoming / f"{file.sha256}.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FilesystemError):
        target.receive(file, [data])
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.fixture
def ssh_server(tmp_path):
    """A real sshd on the loopback with a key of its own; yields the ssh command that reaches it."""
    sshd, keygen = shutil.which("sshd") or "/usr/sbin/sshd", shutil.which("ssh-keygen")
    if not (os.path.exists(sshd) and keygen and shutil.which("ssh")):
        pytest.skip("no openssh server and client here")
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"PidFile {tmp_path}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"SetEnv PYTHONPATH={REPOSITORY}\n"
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-e", "-f", tmp_path / "config"], stderr=subprocess.DEVNULL)
    try:
        if not answers(port):
            pytest.skip("sshd did not start here")
        yield shlex.join([
            "ssh", "-p", str(port), "-i", str(tmp_path / "user"), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "LogLevel=ERROR",
            f"{getpass.getuser()}@127.0.0.1",
        ])  # fmt: skip
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    for _ in range(50):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False


def test_sync_over_a_real_ssh_server_switches_the_vehicle(made, tmp_path, ssh_server, capsys):
    root, keys, expect = made
    key = str(public_key_path(keys.signing.key))
    for name, counter in (("old", 1), ("new", 2)):
        words = ["sync", str(tmp_path / "vehicle"), str(root / name), "--public-key", key, "--via", ssh_server]
        assert main([*words, "--remote", HERE, "--remote-key", key]) == 0
        assert current(tmp_path / "vehicle", expect) == counter
    lines = capsys.readouterr().out.splitlines()
    assert "sent 1 file," in lines[-1]
