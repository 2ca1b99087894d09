"""What every command says: its help, its success and its failure, word for word.

`FLIGHTCACHE_UPDATE_GOLDEN=1 pytest tests/test_golden.py` writes what is said now; read the difference before you commit it.
"""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from provisioning.cli import COMMANDS, main
from provisioning.engines.host import instruction_class
from tests import building
from tests.hosts import HOSTS, pretend

GOLDEN = Path(__file__).parent / "golden"
SCENES = {
    "bench-engine": ["bench-engine cache --seconds 0.02 --batch 2", "bench-engine camera.yaml"],
    "bundle": ["bundle cache -o out/cache.tar --public-key key.pub.pem", "bundle cache"],
    "completion": ["completion fish", "completion fsh"],
    "demo": ["demo cache"],
    "doctor": ["doctor cache --public-key key.pub.pem", "doctor tampered --public-key key.pub.pem", "doctor nowhere"],
    "evaluate": [
        "evaluate queries.csv cache --public-key key.pub.pem",
        "evaluate queries.csv cache",
        "evaluate camera.yaml cache",
    ],
    "export": ["export cosplace --weights key.pem -o m.onnx", "export xfeat --weights nowhere.pt -o m.onnx"],
    "fleet": ["fleet FLEET.toml", "fleet nowhere.toml"],
    "trust": [
        "trust init trust.json --root other.pub.pem --signing key.pub.pem --not-after 2199-01-01",
        "trust sign trust.json --key other.pem",
        "trust show trust.json",
        "trust install camera.yaml vehicle",
    ],
    "clean": ["clean --old cache", "clean cache", "clean --old --yes empty"],
    "cosign": ["cosign empty --key key.pem", "cosign cache --key key.pem --public-key key.pub.pem"],
    "fallback": ["fallback cache"],
    "receipt": ["receipt cache"],
    "info": ["info camera.yaml", "info cache.tar --public-key key.pub.pem"],
    "host": ["host cache", "host --json nowhere"],
    "init": [
        "init new --tiles tiles --key key.pem",
        "init new --tiles tiles --key key.pem",
        "init other --tiles empty",
    ],
    "install": [
        "install cache.tar vehicle --public-key key.pub.pem",
        "install cache.tar vehicle --public-key other.pub.pem",
        "install camera.yaml vehicle --public-key key.pub.pem",
    ],
    "key": ["key fingerprint key.pub.pem", "key fingerprint camera.yaml"],
    "keygen": ["keygen fresh.pem", "keygen fresh.pem"],
    "locate": [
        "locate tiles/14/8581/5737.jpg --cache cache --public-key key.pub.pem",
        "locate camera.yaml --cache cache --public-key key.pub.pem",
        "locate tiles/14/8581/5737.jpg --cache cache",
    ],
    "plan": ["plan cache", "plan changed", "plan empty"],
    "rollback": ["rollback cache"],
    "status": ["status cache", "status empty", "status nowhere"],
    "sync": ["sync drive cache --public-key key.pub.pem", "sync drive cache", "sync drive empty"],
    "tiles": ["tiles cache", "tiles empty"],
    "verify": [
        "verify cache --public-key key.pub.pem --flight F-1 --ground",
        "verify cache --public-key key.pub.pem --flight F-1",
        "verify cache --public-key other.pub.pem --ground",
        "verify tampered --public-key key.pub.pem --flight F-2 --ground",
        "verify nowhere --public-key key.pub.pem --ground",
    ],
    "why": ["why corpus cache", "why corpus changed", "why nothing cache"],
}
MASKS = (
    (r"(?m)^.*\(still running\)\n", ""),  # a busy machine takes half a minute for a step
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r"\b[0-9a-f]{8}…", "<key>…"),
    (r"(?<=-)[0-9a-f]{12}\b", "<hash>"),
    (r"manifest_hash [0-9a-f]{16}\b", "manifest_hash <hash>"),
    (r"(?m)^steps .*", "steps       <task> N s"),
    (r"\b(hash|signed by)( +)[0-9a-f]{16}\b", r"\1\2<hash>"),
    (r"\b\d+(\.\d+)? (ms|s|min|h)\b(?!-)", "N s"),
    (r"\b\d+(\.\d+)? (B|kB|MB|GB|TB|MiB)\b", "N MB"),
    (r"(?<=N s), \d+ a second", ""),  # shown of tasks that took more than a second
    (r"(?m)^\S+ +still compiling after .*\n", ""),
    (r"(?<=\")(\w+_(?:s|ms|per_s|bytes))\": [\d.]+", r'\1": N'),
    (r"ort\d+\.\d+\.\d+", "ort<version>"),
    (r"(?<![a-z\d])(x86_64|aarch64)(?![a-z\d])", "<arch>"),
    (r"\b(onnxruntime|runtime:?) +\d+\.\d+\.\d+", r"\1 <version>"),
    (r"\b\d[\d,]+ bytes", "N bytes"),
    (r"(?m)^(  (?:tensorrt|tensorrt_rtx|GPU) +).*", r"\1<as here>"),
    (r"(?<=\"runtime\": \")[^\"]*", "<version>"),
    (r" object at 0x[0-9a-f]+", ""),
    (r"\d+ (seconds?|minutes?) ago", "just now"),
)
NUMBERS = (r"(?<=[:\[ ])-?\d+(\.\d+)*(e-?\d+)?(?=[,}\]])", "N")
"""Every number of a benchmark's JSON."""


ON_EVERY_HOST = ("host", "doctor", "bench-engine", "plan", "status", "verify", "why")
"""Commands that look at the computer, or at engines and figures that differ between computers."""
BY_DEFAULT = ("generic", "neon-sve")
"""One that is known and one that is not; the others with `-m slow`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a built cache, a changed and a tampered copy of it, one never built, and a second key."""
    with pytest.MonkeyPatch.context() as patch:
        return _made(tmp_path_factory.mktemp("golden"), patch)


@pytest.fixture
def work(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That directory, where a command is run, with the keys in it."""
    _enter(made, monkeypatch)
    return made


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.slow) for n in HOSTS]
)
def made_on_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of another computer, and the same directory, made there."""
    with pytest.MonkeyPatch.context() as patch:
        pretend(HOSTS[request.param], tmp_path_factory.mktemp("machine") / "proc", patch)
        return request.param, _made(tmp_path_factory.mktemp("golden"), patch)


@pytest.fixture
def work_on_host(made_on_host: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same directory, looked at on the computer where it was made: for this test alone, `work` is here."""
    name, folder = made_on_host
    pretend(HOSTS[name], tmp_path / "proc", monkeypatch)
    _enter(folder, monkeypatch)
    return folder


def _enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))  # the keys of who runs the tests are none of theirs


def _made(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    _enter(folder, patch)
    cache = building.new_cache(Path(), samples=None, network=building.GIST)
    assert building.build(cache.absolute()).outcome == "SUCCESS"
    for name in ("changed", "tampered"):
        shutil.copytree("cache", name, symlinks=True)
    building.edit(Path("changed"), "F-1", "F-2")
    building.edit(Path("changed"), "# rotations = 1", "rotations = 2")
    shutil.copytree("tiles", "fewer")
    Path("fewer/14/8581/5737.jpg").unlink()
    main(["init", "gappy", "--tiles", "fewer", "--key", "key.pem"])
    building.edit(Path("gappy"), "min_coverage = {14 = 0.9375}", "min_coverage = {14 = 1}")
    index = Path("tampered/current/corpus.index")
    index.chmod(0o644)
    index.write_bytes(index.read_bytes()[:-1] + b"!")
    main(["keygen", "other.pem"])
    main(["bundle", "cache", "-o", "cache.tar", "--public-key", "key.pub.pem"])
    Path("nowhere").mkdir()
    Path("drive").mkdir()
    Path("out").mkdir()
    main(["init", "empty", "--key", "key.pem"])
    Path("FLEET.toml").write_text('cache = "cache"\n[[vehicle]]\nname = "heron-1"\nflight = "F-9"\n')
    Path("queries.csv").write_text("file,lat,lon\ntiles/14/8581/5737.jpg,46.9,8.6\n")
    return folder


def _masked(text: str, work: Path, command: str) -> str:
    text = text.replace(str(work), "WORK")
    isa = (rf"(?<![\w-]){re.escape(instruction_class())}(?![\w-])", "<isa>")
    for pattern, shown in (*MASKS, isa, *((NUMBERS,) if command == "bench-engine" else ())):
        text = re.sub(pattern, shown, text)
    return text


def _said(line: str, work: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command prints, both streams, and its exit code; run in `work` if that is there."""
    if work.exists():
        os.chdir(work)
    capfd.readouterr()
    try:
        code: object = main(shlex.split(line))
    except SystemExit as stop:
        code = stop.code
    said = capfd.readouterr()
    return _transcript(f"flightcache {line}", said.out, said.err, code, work)


def _transcript(line: str, out: str, err: str, code: object, work: Path) -> str:
    command = line.split()[1] if len(line.split()) > 1 else line
    return f"$ {line}\n{_masked(out, work, command)}{_masked(err, work, command)}[exit {code}]\n"


def _compare(name: str, said: str, *, loosely: bool = False) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("FLIGHTCACHE_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    golden = path.read_text() if path.exists() else ""
    if loosely:
        said, golden = _loose(said), _loose(golden)
    assert said == golden


def _loose(text: str) -> str:
    """Help without its line breaks, and with options as argparse writes them before Python 3.13.

    The options of its first lines in any order and without brackets: Python 3.14 groups those that exclude each other.
    """
    usage, _, rest = text.partition("\n\n")
    text = " ".join([*sorted(re.sub(r"[\[\]|]", " ", usage).split()), rest])
    text = re.sub(r"(-\w) (\S+), (--[\w-]+) \2", r"\1, \3 \2", text)
    return re.sub(r"\s+", " ", text.replace("'", ""))


def test_every_command_has_scenes():
    assert set(COMMANDS) <= set(SCENES)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help(command, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    said = _said(f"{command} --help", Path("/nowhere"), capfd)
    assert "example" in said
    _compare(f"{command}-help", said, loosely=True)


@pytest.mark.parametrize("command", [name for name in sorted(SCENES) if name in COMMANDS])
def test_success_and_failure(command, work, capfd, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    said = "\n".join(_said(line, work, capfd) for line in SCENES[command])
    assert "Traceback" not in said
    _compare(command, said, loosely=command == "completion")


@pytest.mark.parametrize("command", ON_EVERY_HOST)
def test_the_words_are_the_same_on_every_computer(command, work_on_host, capfd, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    said = "\n".join(_said(line, work_on_host, capfd) for line in SCENES[command])
    assert said == (GOLDEN / f"{command}.txt").read_text()


DOIT = [("cache", "doit"), ("cache", "doit list"), ("cache", "doit clean -n"), ("empty", "doit"), ("gappy", "doit")]


def test_doit_nothing_to_do_list_clean_and_failures(work, capsys):
    said = []
    for directory, line in DOIT:
        ran = building.doit_here(work / directory, *line.split(), capsys=capsys)
        said.append(_transcript(line, ran.stdout, ran.stderr, ran.returncode, work))
    _compare("doit", "\n".join(said))


def test_summary_of_all_commands(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _compare("flightcache", _said("--help", Path("/nowhere"), capfd), loosely=True)


@pytest.mark.parametrize("line", ["", "nonsense", "status --nonsense"])
def test_wrong_usage_exits_with_2(line, capfd):
    assert _said(line, Path("/nowhere"), capfd).endswith("[exit 2]\n")
