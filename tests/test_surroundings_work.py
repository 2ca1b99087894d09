"""Builds that have work to do, in odd surroundings: what each row promises, tried by the real `doit`.

A row is a line of bash, run in a cache that has published one generation and has a new tile; `"$@"` is the command.
After it the cache is whole, and an undisturbed `doit` ends as one that met nothing.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from provisioning.base.errors import ConfigError
from tests import crashing, processes
from tests.building import copy_site

BIN = Path(sys.executable).parent
DOIT = [str(BIN / "doit")]
NO_CAPABILITIES = " ".join(processes.NO_CAPABILITIES)
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
pytestmark = pytest.mark.usefixtures("unmeasured")


class Row(NamedTuple):
    """What is done, which exit codes are right, and what is said of it; `quick` rows run by default."""

    line: str
    codes: frozenset[int] = frozenset({0})
    says: str = ""
    needs: str = ""
    quick: bool = False


OURS = re.compile(r'File "[^"]*/(rules|provisioning)/')
REFUSED = frozenset({1, 3})
EITHER = frozenset({0, 1, 3})
ROWS = {
    "umask 077": Row('umask 077; "$@"', quick=True),
    "umask 000": Row('umask 000; "$@"'),
    "setgid directories": Row('chgrp -R 1234 . && find . -type d ! -path "*/generations/*" -exec chmod g+s {} +; "$@"'),
    "HOME unset": Row('unset HOME; "$@"'),
    "HOME read-only": Row(f'mkdir -m 555 ../home; HOME=$PWD/../home {NO_CAPABILITIES} "$@"', needs="setpriv"),
    "no environment": Row('exec env -i "$@"'),
    "PYTHONOPTIMIZE=1": Row('PYTHONOPTIMIZE=1 "$@"'),
    "python -OO": Row('PYTHONOPTIMIZE=2 "$@"'),
    "warnings are errors": Row('PYTHONWARNINGS=error "$@"'),
    "development mode": Row('PYTHONDEVMODE=1 "$@"'),
    "Latin-1": Row('PYTHONIOENCODING=latin-1:strict "$@"'),
    "ASCII": Row('LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii:strict "$@"'),
    "TMPDIR missing": Row('TMPDIR=/nonexistent "$@"'),
    "TMPDIR full": Row('mkdir ../t; mount -t tmpfs -o size=4k none ../t; yes > ../t/full; TMPDIR=$PWD/../t "$@"', EITHER),
    "no temporary directory": Row(
        'p=$(realpath ..); mount --bind .. /mnt; cd /mnt/cache; cp flight.toml ../kept; sed -i "s#$p/#/mnt/#" flight.toml; '
        'for d in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o ro none $d; done; "$@"; r=$?; cp ../kept flight.toml; exit $r'),
    "through a link": Row('ln -s cache ../link; cd ../link; "$@"'),
    "bind mount": Row('mkdir ../b; mount --bind . ../b; cd ../b; "$@"'),
    "read-only mount": Row('mount --bind . .; mount -o remount,ro,bind .; cd "$PWD"; "$@"', REFUSED, "next step"),
    "read-only tiles": Row('mount --bind ../tiles ../tiles; mount -o remount,ro,bind ../tiles; "$@"'),
    "another user's cache": Row(f'{NOBODY} "$@"', REFUSED, "next step", needs="setpriv"),
    "another user's tiles": Row('chown -R 1234:1234 ../tiles; "$@"'),
    "tiles that may not be read": Row(f'chmod 000 ../tiles/14/8581; {NO_CAPABILITIES} "$@"', REFUSED, "next step"),
    "clock in 1999": Row('faketime -f "1999-01-01 00:00:00" "$@"', needs="faketime"),
    "clock in 2040": Row('faketime -f "2040-02-03 04:05:06" "$@"', needs="faketime"),
    "clock that runs back": Row('faketime --exclude-monotonic -f "+0 x-1" "$@"', needs="faketime"),
    "few processes": Row('ulimit -u 1; "$@"', EITHER),
    "few open files": Row('ulimit -n 12; "$@"', EITHER),
    "16 open files": Row('ulimit -n 16; "$@"', EITHER),
    "32 open files": Row('ulimit -n 32; "$@"', EITHER),
    "small files": Row('ulimit -f 8; "$@"', REFUSED, "next step"),
    "small stack": Row('ulimit -s 256; "$@"', EITHER),
    **{f"{size} MB of memory": Row(f'ulimit -v $(({size} << 10)); "$@"', EITHER)
       for size in (50, 100, 200, 300, 400, 500, 600, 700, 900, 1200, 2000)},
    "no core, no pipe": Row('ulimit -c 0; "$@" < /dev/null'),
    "input that ends": Row('"$@" <&-'),
    "nohup": Row('nohup "$@" < /dev/null'),
    "dash": Row('dash -c \'"$0" "$@"\' "$@"', needs="dash"),
    "setsid": Row('setsid -w "$@"', needs="setsid"),
    "a reader that leaves": Row('"$@" 2>&1 | head -c 1; exit ${PIPESTATUS[0]}', frozenset({0, 1, 120, 141})),
    "names of 255 bytes": Row('n=$(printf "%0255d" 0); mv ../cache "../$n"; cd "../$n"; "$@"; r=$?; mv "../$n" ../cache; exit $r'),
    "low priority": Row('nice -n 19 "$@"'),
    "one core": Row('taskset -c 0 "$@"', needs="taskset"),
}  # fmt: skip


@pytest.fixture
def cache(built_site, tmp_path):
    made = copy_site(built_site, tmp_path / "site")
    crashing.put_tile(tmp_path / "site" / "tiles", 1, 1, seed=999)
    return made


def run(cache, line, *, command=DOIT, mounts=False):
    bash = ["bash", "-c", line, "bash", *command]
    apart = ["unshare", "-m"] if mounts else []
    return subprocess.run([*apart, *bash], cwd=cache, capture_output=True, check=False, timeout=120)


def text(done):
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def converges(cache):
    """The cache is whole, `doit` ends well, and the new tile is in what is published."""
    subprocess.run(["chmod", "-R", "u+rwX", cache.parent / "tiles"], check=True)
    assert crashing.whole(cache) == []
    done = run(cache, '"$@"')
    assert done.returncode == 0, text(done)
    assert crashing.whole(cache) == []
    assert crashing.leftovers(cache) == []
    assert crashing.decided(crashing.published(cache))["tiles"].count == 4


def is_missing(row):
    if row.needs and shutil.which(row.needs) is None:
        return f"{row.needs} is not installed"
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    if "mount" in row.line and subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "this user may not mount"
    return ""


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if row.quick else [pytest.mark.slow]) for name, row in ROWS.items()
])  # fmt: skip
def test_a_build_in_odd_surroundings(cache, name):
    row = ROWS[name]
    if missing := is_missing(row):
        pytest.skip(missing)
    done = run(cache, row.line, mounts="mount" in row.line)
    said = text(done)
    assert done.returncode in row.codes, said
    assert "Traceback" not in said, said
    assert row.says in said
    assert done.returncode == 0 or "next step" in said, said
    converges(cache)


NAMES = {
    "a newline": b"a\nb",
    "quotes": b'it\'s "so" $HOME `x` \\',
    "255 bytes": b"x" * 255,
    "signs of TOML and URLs": b"[a]#b=c%20d?e&f",
    "escapes of a terminal": b"\x1b[31mred",
    "a name like an option": b"-n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_first_build_in_a_directory_of_odd_name(tmp_path, name):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NAMES[name]))
    place.mkdir()
    cache = crashing.new_world(place)
    done = run(cache, '"$@"')
    assert done.returncode == 0, text(done)
    assert b"\x1b" not in done.stdout + done.stderr
    for command in (["status"], ["plan"], ["tiles"], ["verify", "--any-flight", "--any-aircraft", "--any-host", "--any-counter",
                    "--public-key", place / "key.pub.pem"]):  # fmt: skip
        done = run(cache, '"$@"', command=[BIN / "flightcache", *command])
        assert done.returncode == 0, text(done)
    converges(cache)


def test_a_directory_that_toml_cannot_name_is_refused_before_anything_is_written(tmp_path):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        crashing.new_world(place)
    assert "symbolic link" in caught.value.next_step
    assert list((place / "cache").iterdir()) == []


@pytest.mark.slow
def test_a_directory_beyond_4096_bytes_is_refused_without_a_traceback(cache, tmp_path):
    def go_down():
        os.chdir(tmp_path)
        for _ in range(18):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        for name in ("dodo.py", "flight.toml"):
            shutil.copy(cache / name, name)

    done = subprocess.run(DOIT, preexec_fn=go_down, capture_output=True, check=False, timeout=300)
    assert done.returncode == 3, text(done)
    assert "Traceback" not in text(done), text(done)
    assert "next step" in text(done) or "ERROR" in text(done)
    converges(cache)


def start(cache, *before, **options):
    return subprocess.Popen(
        [*before, *DOIT],
        cwd=cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2, 3])
@pytest.mark.parametrize("step", range(12))
def test_ctrl_c_at_any_time_and_again(cache, step, signals):
    with start(cache) as child:
        time.sleep(0.05 + 0.2 * step)
        for _ in range(signals):
            child.send_signal(signal.SIGINT)
            time.sleep(0.03)
        said = child.communicate(timeout=300)[0].decode()
    while_python_starts = child.returncode == 1 and re.search(r"import_site|<frozen site>|/site\.py", said)
    assert child.returncode in (0, 130, -signal.SIGINT) or while_python_starts, said
    assert not OURS.search(said), said
    converges(cache)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(8))
def test_a_terminal_that_is_killed(cache, step):
    """The controlling terminal of the build goes away, as when an ssh session breaks."""
    master, slave = pty.openpty()
    child = subprocess.Popen(["setsid", "-c", *DOIT], cwd=cache, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    time.sleep(0.1 + 0.3 * step)
    os.close(master)
    assert child.wait(60) in (0, 1, 129, -signal.SIGHUP)
    converges(cache)


@pytest.mark.slow
def test_a_stopped_builder_and_a_second_one(cache):
    """SIGSTOP: a second builder names who holds the lock, or waits as long as it may; then both end well."""
    first = start(cache)
    while not re.search(rf"\b{first.pid}\b", (cache / ".c10.lock").read_text()):  # what it held before is there, too
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    done = run(cache, '"$@"')
    assert done.returncode == 3, text(done)
    assert str(first.pid) in text(done)
    file = cache / "flight.toml"
    before = file.read_text()
    file.write_text(re.sub(r"# timeout_s = 0\b", "timeout_s = 60", before))
    assert file.read_text() != before
    second = start(cache)
    time.sleep(1)
    assert second.poll() is None, "it waits"
    first.send_signal(signal.SIGCONT)
    for builder in (first, second):
        said = builder.communicate(timeout=300)[0]
        assert builder.returncode == 0, said
    converges(cache)
