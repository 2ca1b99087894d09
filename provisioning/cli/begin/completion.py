"""`flightcache completion`: shell completion. The shell asks this program, which asks its own parsers.

Ours and not shtab's: a vehicle has no package beyond cryptography, and vehicles, tasks and generations are known
only where the command line is typed.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from provisioning.base.errors import Error
from provisioning.cli import COMMANDS
from provisioning.cli.parsing import add_everywhere
from provisioning.cli.running import command_parser

FILES = ":files"
"""The line that asks the shell for names of files."""

SCRIPTS = {
    "bash": """\
_flightcache() {
    local line IFS=$'\\n' word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    for line in $("${COMP_WORDS[0]}" completion reply -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        if [ "$line" = :files ]; then
            compopt -o default 2>/dev/null
            COMPREPLY+=($(compgen -f -- "$word"))
        else
            COMPREPLY+=("$(printf %q "${line%%$'\\t'*}")")
        fi
    done
}
complete -F _flightcache flightcache
""",
    "zsh": """\
#compdef flightcache
_flightcache() {
    local line
    local -a found
    for line in ${(f)"$(${words[1]} completion reply -- "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        if [[ $line == :files ]]; then
            _files
        else
            found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
        fi
    done
    (( $#found )) && _describe flightcache found
}
compdef _flightcache flightcache
""",
    "fish": """\
function __flightcache_reply
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] completion reply -- $words[2..-1] 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c flightcache -f -a '(__flightcache_reply)'
""",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "shell", choices=(*SCRIPTS, "reply"), metavar="{bash,zsh,fish}", help="the shell that is to complete"
    )
    parser.add_argument("typed", nargs="*", help=argparse.SUPPRESS)  # what `reply` is to complete, from the script
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n  source <(flightcache completion bash)\n  flightcache completion zsh > ~/.zfunc/_flightcache\n"
        "  flightcache completion fish > ~/.config/fish/completions/flightcache.fish"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script, or what the script asks for: one candidate a line, with its meaning behind a tab."""
    if args.shell != "reply":
        print(SCRIPTS[args.shell], end="")
        return 0
    # Not `args.typed`: argparse takes every `--` away, the one that is being completed too.
    *before, word = args.words[args.words.index("--") + 1 :] if "--" in args.words else [""]
    found = dict(reply(before))
    values = {candidate: meaning for candidate, meaning in found.items() if not candidate.startswith("-")}
    for candidate, meaning in (found if word.startswith("-") else values or found).items():
        if candidate == FILES:
            print(FILES)
        elif candidate.startswith(word):
            print(f"{candidate}\t{meaning}")
    return 0


def reply(before: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what may follow the words `before`, each with its meaning; FILES where any file may."""
    name = next((word for word in before if word in COMMANDS), None)
    parser = command_parser(name) if name else argparse.ArgumentParser()
    add_everywhere(parser)
    rest = list(before[list(before).index(name) + 1 :]) if name else list(before)
    parser, rest = _inner(parser, rest)
    option = _option(parser, rest[-1]) if rest else None
    if option is not None and option.nargs != 0:
        yield from _values(name or "", option, rest)
        return
    yield from _options(parser)
    if name is None:
        yield from COMMANDS.items()
        return
    positional = _positional(parser, rest)
    if positional is not None:
        yield from _values(name, positional, rest)


def _inner(parser: argparse.ArgumentParser, rest: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """Return the parser of a verb (`trust sign`) and the words behind it, where one was typed."""
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for at, word in enumerate(rest):
                if word in action.choices:
                    return _inner(action.choices[word], rest[at + 1 :])
    return parser, rest


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:  # noqa: SLF001
        for name in action.option_strings:
            if name.startswith("--"):
                yield name, (action.help or "").replace("%%", "%").replace("\n", " ")


def _option(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    return next((action for action in parser._actions if word in action.option_strings), None)  # noqa: SLF001


def _positional(parser: argparse.ArgumentParser, rest: Sequence[str]) -> argparse.Action | None:
    """Return the argument that comes next; the last one takes all further words if it takes several."""
    actions = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001
    typed, is_value = 0, False
    for word in rest:
        option = _option(parser, word)
        typed += not (word.startswith("-") or is_value)
        is_value = option is not None and option.nargs != 0
    if typed < len(actions):
        return actions[typed]
    return actions[-1] if actions and actions[-1].nargs in ("+", "*") else None


def _values(command: str, action: argparse.Action, rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    if action.choices:
        yield from ((str(choice), "") for choice in action.choices)
        return
    known = VALUES.get((command, action.dest))
    if known is not None:
        with contextlib.suppress(Error, OSError):
            yield from ((value, "") for value in known(rest))
    if action.type is Path or not (known or action.option_strings):
        yield FILES, ""


def _vehicles(rest: Sequence[str]) -> Iterator[str]:
    from provisioning.delivery.fleet import read_fleet

    file = next((Path(word) for word in rest if word.endswith(".toml")), Path("FLEET.toml"))
    yield from (vehicle.name for vehicle in read_fleet(file).vehicles)


def _tasks(_rest: Sequence[str]) -> Iterator[str]:
    from provisioning.config.parse import read_flight

    yield from ("preflight", "descriptors", "corpus", "gates", "report", "manifest", "coverage")
    for backbone in read_flight(Path()).backbone:
        yield from (f"onnx:{backbone.name}", f"engine:{backbone.name}")


def _generations(_rest: Sequence[str]) -> Iterator[str]:
    yield from (str(int(path.name)) for path in sorted(Path("generations").iterdir()) if path.name.isdecimal())


def _networks(_rest: Sequence[str]) -> Iterator[str]:
    from provisioning.config.check import BUILTINS

    yield from BUILTINS


def _host_parts(_rest: Sequence[str]) -> Iterator[str]:
    from provisioning.flight.verify import ExpectedHost

    yield from (f"{name}=" for name in ExpectedHost._fields)


VALUES: Mapping[tuple[str, str], Callable[[Sequence[str]], Iterator[str]]] = {
    ("fleet", "only"): _vehicles,
    ("why", "task"): _tasks,
    ("rollback", "to"): _generations,
    ("init", "backbone"): _networks,
    ("verify", "host"): _host_parts,
    ("doctor", "host"): _host_parts,
    ("install", "host"): _host_parts,
}
"""What is known of the values of an argument, by command and destination."""
