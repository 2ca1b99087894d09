"""How large the code is, and how far what it handles reaches through it.

    python bench/house.py                  # this checkout: what is counted in its text, and two builds
    python bench/house.py --text DIR       # another checkout's text alone

Counted in the text are the modules of `provisioning` and `rules`, and functions by what they take or name. Counted
while it runs: the functions and modules of ours that a `doit` with nothing to do calls, and how often a tile's file is
opened, by whatever process, in a first build of 36 tiles. These figures are in docs/decisions/the-house-in-order.md.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PACKAGES = ("provisioning", "rules")
BACKENDS = {"onnxruntime", "tensorrt", "tensorrt_rtx"}
IN_CLOSE_NOWRITE = 0x10
Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Test = Callable[[ast.AST], bool]


def takes(*types: str) -> Test:
    """Return whether a function has a parameter of one of these types."""

    def test(function: ast.AST) -> bool:
        spec: ast.arguments = function.args
        notes = [each.annotation for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs) if each.annotation]
        return any(isinstance(n, ast.Name) and n.id in types for note in notes for n in ast.walk(note))

    return test


def names(*words: str) -> Test:
    """Return whether a function has a variable, parameter or attribute of one of these names."""

    def test(function: ast.AST) -> bool:
        found = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        found |= {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
        found |= {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
        return bool(found & set(words))

    return test


def names_a_backend(function: ast.AST) -> bool:
    """Return whether a function has the name of a backend in it."""
    return any(isinstance(n, ast.Constant) and n.value in BACKENDS for n in ast.walk(function))


TESTS: dict[str, Test] = {
    "functions that take all of flight.toml (`Flight`, `BuildSettings`)": takes("Flight", "BuildSettings"),
    "functions that take the signing key's path (`Flight`, `Signing`)": takes("Flight", "Signing"),
    "functions that name `signing`": names("signing"),
    "functions that name `bbox`": names("bbox"),
    "functions that name a backend": names_a_backend,
}


def in_the_text(root: Path) -> Iterator[tuple[str, str]]:
    """Yield what is counted in the text of a checkout."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    lines = sum(text.count("\n") for text in texts)
    trees = [ast.parse(text) for text in texts]
    code = sum(map(code_lines, texts, trees))
    top = [
        path for path in (root / "provisioning").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    yield "modules", f"{len(paths):,}"
    yield "lines", f"{lines:,}"
    yield "lines of code: neither blank nor comment nor docstring", f"{code:,}"
    yield "packages and modules at the top", str(len(top) - 1)
    yield (
        "modules in the largest folder",
        str(max(Counter(path.parent for path in paths if path.name != "__init__.py").values())),
    )
    functions = [(n, path) for tree, path in zip(trees, paths, strict=True) for n in ast.walk(tree)
                 if isinstance(n, Function)]  # fmt: skip
    yield "functions", f"{len(functions):,}"
    for what, test in TESTS.items():
        found = [path for function, path in functions if test(function)]
        yield what, f"{len(found)} in {len(set(found))} files"


def code_lines(text: str, tree: ast.Module) -> int:
    """Return how many lines are neither blank nor comment nor docstring."""
    documented = {
        line
        for n in ast.walk(tree)
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
        for line in range(n.lineno, (n.end_lineno or n.lineno) + 1)
    }
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(bool(line) and not line.startswith("#") and number not in documented for number, line in lines)


def while_it_runs(scratch: Path) -> Iterator[tuple[str, str]]:
    """Yield what is counted in a first build of 36 tiles, and in the build after it, which has nothing to do."""
    from tests.building import new_cache

    cache = new_cache(scratch, side=6)
    doit = [sys.executable, "-m", "doit"]
    with opened(sorted((scratch / "tiles").rglob("*.jpg"))) as times:
        subprocess.run(doit, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    yield "times that a tile's file is opened in a first build of 36 tiles, median", f"{median(times.values()):g}"
    calls = subprocess.run(
        [sys.executable, "-c", CALLS, str(ROOT)], cwd=cache, check=True, capture_output=True, text=True
    )
    yield "functions called by a `doit` with nothing to do", calls.stdout.splitlines()[-1]


CALLS = """
import inspect, os, sys
ours, called = sys.argv.pop(1), set()
def note(frame, event, arg):
    if event == "call":
        called.add(frame.f_code)
sys.setprofile(note)
from doit.doit_cmd import DoitMain
try:
    DoitMain().run([])
finally:
    sys.setprofile(None)
folders = [os.path.join(ours, package) + os.sep for package in ("provisioning", "rules")]
mine = {
    code for code in called
    if code.co_filename.startswith(tuple(folders)) and code.co_flags & inspect.CO_OPTIMIZED  # no class or module body
    and not code.co_name.startswith("<")
}
print(f"{len(mine)} in {len({code.co_filename for code in mine})} files")
"""


@contextmanager
def opened(files: list[Path]) -> Iterator[Counter[str]]:
    """Count how often each of `files` is opened and closed without being written, by any process (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    watched = {libc.inotify_add_watch(fd, os.fsencode(path), IN_CLOSE_NOWRITE): str(path) for path in files}
    times: Counter[str] = Counter(dict.fromkeys(watched.values(), 0))

    def count() -> None:
        while events := os.read(fd, 1 << 16):
            for at in range(0, len(events), 16):  # of a file, without a name: 16 bytes each
                watch = int.from_bytes(events[at : at + 4], sys.byteorder, signed=True)
                if watch not in watched:
                    return
                times[watched[watch]] += 1

    thread = threading.Thread(target=count)
    thread.start()
    yield times
    with tempfile.NamedTemporaryFile() as last:
        libc.inotify_add_watch(fd, os.fsencode(last.name), IN_CLOSE_NOWRITE)
        Path(last.name).read_bytes()
        thread.join()
    os.close(fd)


def main() -> None:
    """Print a table of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="count the text of this checkout, and run nothing")
    args = parser.parse_args()
    rows = list(in_the_text(args.text or ROOT))
    if not args.text:
        with tempfile.TemporaryDirectory() as scratch:
            rows += while_it_runs(Path(scratch))
    print("| figure | |\n|---|---:|", *(f"| {what} | {figure} |" for what, figure in rows), sep="\n")


if __name__ == "__main__":
    main()
