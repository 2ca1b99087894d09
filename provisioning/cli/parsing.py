"""What all commands share on the command line: grouped help, options for every command, and misspelt words."""

from __future__ import annotations

import argparse
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from provisioning.base.errors import Error
from provisioning.base.printable import printable
from provisioning.base.words import meant
from provisioning.console.style import WHEN

OPTION = re.compile(r"(--[A-Za-z][\w-]*)(=.*)?", re.DOTALL)
CHOICE = re.compile(r"(?P<where>.*)invalid choice: '?(?P<word>.*?)'? \(choose from (?P<known>.*)\)", re.DOTALL)
NAME_WIDTH = 14


class _Once(argparse._StoreAction):  # noqa: SLF001  argparse has no public name of the action that keeps a value
    """Keeps the one value of an option. A second one would take back the first without a word."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._given_in: weakref.ref[argparse.Namespace] | None = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Keep the value; exit with 2 if this parse has met the option before."""
        if option is not None:
            if self._given_in is not None and self._given_in() is namespace:
                parser.error(f"{option} is given twice, and takes one value")
            self._given_in = weakref.ref(namespace)
        super().__call__(parser, namespace, values, option)


class Parser(argparse.ArgumentParser):
    """A parser that names what a misspelt word was meant to be, and takes no option twice that has one value."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, _Once)
        self._declares = False
        self.color = False  # Python 3.14 would colour help by itself, whatever --color says

    def add_argument(self, *args: Any, **options: Any) -> argparse.Action:
        """Declare an argument."""
        self._declares = True
        try:
            return super().add_argument(*args, **options)
        finally:
            self._declares = False

    def _get_formatter(self) -> argparse.HelpFormatter:
        """Return what writes the help; argparse makes one for each argument, to check it, and asks for the terminal."""
        kind: Any = self.formatter_class
        made: argparse.HelpFormatter = kind(prog=self.prog, width=80) if self._declares else super()._get_formatter()
        return made

    def error(self, message: str) -> NoReturn:
        """Exit with 2; a choice that is none gets the nearest one."""
        if found := CHOICE.fullmatch(message):
            known = [name.strip(" '\"") for name in found["known"].split(",")]
            message = f"{found['where']}there is no {found['word']!r}{meant(found['word'], known)} ({', '.join(known)})"
        super().error(printable(message))

    def print_help(self, file: Any = None) -> None:
        """Print the help; an OSError where it cannot be written, which argparse passes over."""
        print(self.format_help(), end="", file=file)


def add_everywhere(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every command takes, before or behind its name."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and errors")
    parser.add_argument("--color", choices=WHEN, default="auto", metavar="WHEN", help=f"colour: {', '.join(WHEN)}")


def take_everywhere(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options that every command takes, and the words without them."""
    end = list(words).index("--") if "--" in words else len(words)
    parser = Parser(prog="flightcache", add_help=False, allow_abbrev=False)
    add_everywhere(parser)
    taken, left = parser.parse_known_args(words[:end])
    return taken, [*left, *words[end:]]


def refuse_misspelt(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Exit with 2 where a word is an option that `parser` does not have; the nearest one is named."""
    known = sorted({*options(parser)})
    for word in words:
        if word == "--":
            return
        found = OPTION.fullmatch(word)
        if found and not any(name.startswith(found[1]) for name in known):
            parser.error(f"there is no option {found[1]}{meant(found[1], known).replace(chr(39), '')}")


class UsageError(Error):
    """Options of which one would have no effect; nothing was done. Ends as wrong usage that argparse finds."""

    exit_code = 2


def needs(option: str, needed: str, *, given: bool, there: bool) -> None:
    """Raise UsageError if `option` is given without what it has an effect on."""
    if given and not there:
        raise UsageError(f"{option} has no effect without {needed}", next_step=f"leave {option} out, or add {needed}")


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the long options of a command and of its own subcommands."""
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to ask
        yield from (name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in action.choices.values():
                yield from options(inner)


def grouped(groups: Mapping[str, Mapping[str, str]], headings: Mapping[str, str]) -> str:
    """Return the commands under the headings of their groups, for the help of the whole program."""
    import shutil
    import textwrap  # here, because the verifier on a vehicle starts without them

    width = max(40, min(shutil.get_terminal_size().columns - 2, 110))
    lines = []
    for group, commands in groups.items():
        lines += ["", f"{headings[group]}:"]
        for name, summary in commands.items():
            first = f"  {name:<{NAME_WIDTH}}"
            lines += textwrap.wrap(summary, width, initial_indent=first, subsequent_indent=" " * len(first))
    return "\n".join(lines)
