"""One command run: its module is imported only when it is called, and its errors become exit codes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import sys
from collections.abc import Iterator, Sequence

from provisioning.base.disk.files import wrap_machine_errors
from provisioning.base.errors import Error, FilesystemError
from provisioning.base.process.blas import begin_with_one_thread, require_address_space
from provisioning.base.process.leaving import leave
from provisioning.base.process.signals import stop_goes_first, stops_in_order
from provisioning.base.words import meant, meant_file, missing_part
from provisioning.cli import COMMANDS, GROUPS, STOPPED
from provisioning.cli.parsing import Parser, add_everywhere, grouped, refuse_misspelt, take_everywhere
from provisioning.console.awaiting import progress_shown
from provisioning.console.streams import OutputError, answering, open_missing, write_any_character
from provisioning.console.style import colouring

BUILDER_MODULES = frozenset({
    "PIL", "defusedxml", "doit", "faiss", "geographiclib", "numpy", "onnx", "onnxruntime", "orjson",
    "simplejpeg", "threadpoolctl", "tomli",
})  # fmt: skip
"""What the extra [build] brings. The core needs cryptography alone."""
DESCRIPTION = "Build, sign, verify and carry the flight cache of an aircraft that navigates by satellite tiles."
HEADINGS = {
    "begin": "To begin",
    "look": "To look, without changing anything",
    "check": "To check before a flight",
    "tidy": "To free space",
    "measure": "To measure",
    "deliver": "To deliver",
}

COMPUTING = frozenset({*GROUPS["look"], *GROUPS["measure"], "init", "demo"}) - {"status", "host"}
"""Commands that compute with arrays."""
ADDRESS_SPACE_BYTES = 128 << 20
READERS = frozenset({"evaluate", "fleet", "init", "locate", "plan", "tiles", "why"})
"""Commands that read photos, missions, area files or models."""
READER_LEFT = 141
"""As a shell reports the end by SIGPIPE."""


class _Version(argparse.Action):
    """`--version`: the distribution is asked only where somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print name and version."""
        from provisioning.base.distributions import own_version

        print(f"flightcache {own_version()}")
        parser.exit()


class _Program(Parser):
    """The parser of all commands; it lists them only when its help is asked for."""

    def format_help(self) -> str:
        """Return the help."""
        self.description = f"{DESCRIPTION}\n{grouped(GROUPS, HEADINGS)}"
        return super().format_help()


def _parsers(chosen: str | None) -> tuple[Parser, Parser | None]:
    """Return the parser of the program and that of the chosen command; without one that of all, without arguments."""
    parser = _Program(
        prog="flightcache",
        usage="flightcache [-h] [--version] [-q] [--color WHEN] COMMAND ...",
        epilog="`flightcache COMMAND --help` says more.\n"
        "example: flightcache init mycache --tiles tiles/ && cd mycache && doit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_everywhere(parser)
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        help=argparse.SUPPRESS,
        prog="flightcache",
        parser_class=Parser,
    )
    for name in COMMANDS if chosen is None else (chosen,):
        about = COMMANDS[name]
        command = commands.add_parser(name, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if chosen is None:
        return parser, None
    importlib.import_module(_module(chosen)).arguments(command)
    return parser, command


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command alone, for completion and the reference page."""
    parser = Parser(
        prog=f"flightcache {name}",
        description=COMMANDS[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importlib.import_module(_module(name)).arguments(parser)
    return parser


def _module(command: str) -> str:
    group = next(group for group, commands in GROUPS.items() if command in commands)
    return f"provisioning.cli.{group}.{command.replace('-', '_')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Do as `provisioning.cli.main`."""
    if argv is not None:
        return _main(argv)
    with stops_in_order(signal.SIGINT):
        code = _main(None)
    leave(code)
    return code


def _main(argv: Sequence[str] | None) -> int:
    open_missing()
    begin_with_one_thread()
    write_any_character()
    try:
        apart = _apart() if argv is None else contextlib.nullcontext()
        with stop_goes_first(), wrap_machine_errors("run this command"), answering(), apart:
            return _run(list(sys.argv[1:] if argv is None else argv))
    except Error as error:
        print(f"flightcache: {error}", file=sys.stderr)
        return error.exit_code
    except OutputError as error:
        if error.reader_left:  # `flightcache tiles | head -1`: it has what it wanted
            return READER_LEFT
        print(f"flightcache: the answer cannot be written: {error}", file=sys.stderr)
        return FilesystemError.exit_code


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Read foreign input in another process, where this one is a command's own: a program that calls `main` may not.

    The process starts with the first file to be read. Every word is looked at, since options may stand before a
    command: a file named like one costs an import.
    """
    if READERS.isdisjoint(sys.argv[1:]):
        yield
        return
    from provisioning.base.process import confined

    with confined.apart():
        yield


def _without_builder(error: ModuleNotFoundError) -> Error:
    return Error(
        "this needs the builder, which is not installed here",
        facts={"missing": error.name, "here": "verify, install, receipt, fallback, trust, info, doctor"},
        next_step="pip install 'flightcache[build]'",
    )


def _run(words: Sequence[str]) -> int:
    try:
        return _run_command(words)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in BUILDER_MODULES:
            raise
        print(f"flightcache: {_without_builder(error)}", file=sys.stderr)
        return Error.exit_code


def _run_command(words: Sequence[str]) -> int:
    everywhere, words = take_everywhere(words)
    chosen = next((word for word in words if not word.startswith("-")), None)
    if chosen in COMPUTING:
        require_address_space(ADDRESS_SPACE_BYTES, what=f"`flightcache {chosen}`")
    parser, command = _parsers(chosen if chosen in COMMANDS else None)
    refuse_misspelt(parser, words[: words.index(chosen)] if chosen else words)
    if chosen is not None and chosen not in COMMANDS:
        parser.error(f"there is no command {chosen!r}{meant(chosen, COMMANDS)}")
    if chosen is not None and command is not None:
        refuse_misspelt(command, words[words.index(chosen) + 1 :])
    args = parser.parse_args(words)
    args.words = words
    try:
        with stop_goes_first(), colouring(everywhere.color), progress_shown(not everywhere.quiet):
            return int(importlib.import_module(_module(args.command)).run(args))
    except Error as error:
        print(f"flightcache {args.command}: {error}{_meant_by(error, words)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"flightcache {args.command}: stopped", file=sys.stderr)
        return STOPPED


def _meant_by(error: Error, words: Sequence[str]) -> str:
    """Return a line with the file that was meant, where the error's is not there and was typed."""
    missing = missing_part(error.file) if error.file else None
    typed = missing is not None and any(missing.name in word for word in words)
    said = meant_file(missing) if missing is not None and typed else ""
    return f"\n  {said.removeprefix('; ')}" if said and said not in str(error) else ""
