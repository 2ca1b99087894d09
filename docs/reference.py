"""Write docs/reference/flight.toml.md and cli.md from the code: `python docs/reference.py`, `--check` only compares."""

# ruff: noqa: SLF001 - argparse has no public way to ask a parser for its arguments

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from provisioning.base import errors
from provisioning.cli import COMMANDS
from provisioning.cli.running import command_parser
from provisioning.config.schema import NO_PATH
from provisioning.config.template import Section, default_of, keys, sections, toml

FOLDER = Path(__file__).parent / "reference"
WORDS = {Any: "any value", str: "text", int: "whole number", bool: "true or false", Decimal: "number", Path: "path"}
TABLES = {"Origin": "table {lat, lon, alt_m}", "BBox": "[west, south, east, north]"}


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name."""
    return {"flight.toml.md": flight_toml(), "cli.md": cli()}


def flight_toml() -> str:
    """Return the reference of every key of flight.toml."""
    head = (
        "# flight.toml\n\nGenerated from `provisioning/config/schema.py` by `python docs/reference.py`. "
        "`flightcache init` writes a file with all of this as comments. Every mistake in a file is reported at once, "
        "with its key. Paths are relative to the file; angles are degrees with at most seven decimals.\n"
    )
    return "\n".join([head, *map(_section, sections())])


def _section(section: Section) -> str:
    doc = (section.kind.__doc__ or "").split(": ", 1)[-1]
    lines = [f"## `{section.heading}`", "", (doc[0].upper() + doc[1:]).strip(), ""]
    hints = get_type_hints(section.kind)
    rows = [_key(field, hints[field.name]) for field in keys(section.kind)]
    return "\n".join([*lines, *_table(("key", "value", "default", "meaning"), rows)]) + "\n"


def _key(field: dataclasses.Field[Any], hint: Any) -> tuple[str, ...]:
    default = default_of(field)
    return f"`{field.name}`", _kind(hint) + _range(field), _default(default), field.metadata["doc"]


def _default(default: object) -> str:
    if default is dataclasses.MISSING:
        return "**required**"
    return "none" if default in (None, NO_PATH) else f"`{toml(default)}`"


def _kind(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{toml(choice)}`" for choice in args)
    if origin is tuple:
        return f"list of {_kind(args[0])}"
    if origin is dict:
        return f"table of {_kind(args[1])}"
    if args:  # Optional
        return _kind(next(arg for arg in args if arg is not type(None)))
    return WORDS.get(hint) or TABLES.get(hint.__name__, hint.__name__)


def _range(field: dataclasses.Field[Any]) -> str:
    low, high = field.metadata["low"], field.metadata["high"]
    if low is None:
        return ""
    return f", {low} to {high}" if high is not None else f", at least {low}"


def cli() -> str:
    """Return the reference of every command and of the exit codes."""
    head = (
        "# Commands\n\nGenerated from the parsers by `python docs/reference.py`. Every command takes `-q` (`--quiet`, "
        "no progress) and `--color auto|always|never`, before or behind its name; `NO_COLOR` is obeyed. The keys of "
        "`--json` are [documented](json.md).\n\n"
        "`doit`, `doit clean`, `doit list`, `doit info TASK`, `doit ignore`, `doit reset-dep` and `doit -v` are "
        "[doit's own](https://pydoit.org) and keep their meaning; `doit forget` needs the names of tasks or `--all`. "
        "`doit -n` and `doit -r` are refused, because each task uses all cores by itself and `doit --log json` writes "
        "one JSON object a line to standard error.\n"
    )
    return "\n".join([head, *map(_command, sorted(COMMANDS)), _exit_codes()])


def _command(name: str) -> str:
    parser = command_parser(name)
    rows = [(_invocation(action), _meaning(action)) for action in _actions(parser)]
    lines = [f"## `flightcache {name}`", "", COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".", ""]
    lines += _table(("argument", "meaning"), rows) if rows else []
    example = (parser.epilog or "").strip()
    return "\n".join([*lines, "", "```", example, "```", ""])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a command; those of its own subcommands after their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action._choices_actions
        elif not isinstance(action, argparse._HelpAction):
            yield action


def _invocation(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = "" if action.nargs == 0 else " " + str(action.metavar or _choices(action) or action.dest.upper())
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _choices(action: argparse.Action) -> str:
    return "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""


def _meaning(action: argparse.Action) -> str:
    values = {**vars(action), "prog": "flightcache"}
    return (action.help or "") % values if "%(" in (action.help or "") else (action.help or "").replace("%%", "%")


def _exit_codes() -> str:
    rows = [
        ("0", "done, or nothing to do"),
        ("1", "`doit`: a task failed, or what it prints cannot be written to standard output"),
        ("2", "wrong usage, or `doit`: a task error"),
    ]
    rows += [("3", "`doit`: the build could not start (its error says why)"), ("130", "stopped by Ctrl-C")]
    rows.append(("141", "nobody reads standard output any more (`| head -1`); a build goes on and keeps its code"))
    kinds = dict.fromkeys(_subclasses(errors.Error))
    rows += [(str(k.exit_code), f"`{k.__name__}`: {(k.__doc__ or '').splitlines()[0]}") for k in kinds]
    rows.sort(key=lambda row: int(row[0]))
    return "\n".join(["## Exit codes", "", *_table(("code", "meaning"), rows), ""])


def _subclasses(kind: type[errors.Error]) -> Iterator[type[errors.Error]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _subclasses(child)


def _table(headings: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(_shown(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    headings = tuple(headings)
    return [line(headings), "|" + "---|" * len(headings), *map(line, rows)]


def _shown(text: str) -> str:
    """Return `text` with every `<` outside code spelled out: `<name>` would be taken for HTML and not be seen."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def main() -> int:
    """Write the pages; with --check tell which are not current and return 1."""
    stale = [name for name, text in pages().items() if _read(FOLDER / name) != text]
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        for name in stale:
            (FOLDER / name).write_text(pages()[name])
        return 0
    for name in stale:
        print(f"docs/reference/{name} is not current: run python docs/reference.py", file=sys.stderr)
    return 1 if stale else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
