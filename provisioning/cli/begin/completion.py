"""`flightcache completion`: shell completion, printed from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from provisioning.cli import COMMANDS, command_parser

BASH = """\
_flightcache() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    case $word in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
        *) [ "$COMP_CWORD" -eq 1 ] && COMPREPLY=($(compgen -W "$words" -- "$word")) || COMPREPLY=() ;;
    esac
}}
complete -o bashdefault -o default -F _flightcache flightcache
"""

ZSH = """\
#compdef flightcache
_flightcache() {{
    local -a commands options
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{cases}
    esac
    _arguments "$options[@]" '*:file:_files'
}}
compdef _flightcache flightcache
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that is to complete")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n  source <(flightcache completion bash)\n  flightcache completion zsh > ~/.zfunc/_flightcache"
    )


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(bash() if args.shell == "bash" else zsh(), end="")
    return 0


def options(command: str) -> tuple[tuple[str, str], ...]:
    """Return the long options of a command, each with its help."""
    return tuple(
        (name, (action.help or "").replace("%%", "%"))
        for action in command_parser(command)._actions  # noqa: SLF001  argparse has no public way to ask
        for name in action.option_strings
        if name.startswith("--")
    )


def bash() -> str:
    """Return the script for bash."""
    cases = (
        f'            {name}) words="{" ".join(long for long, _ in options(name))}" ;;' for name in sorted(COMMANDS)
    )
    return BASH.format(commands=" ".join(sorted(COMMANDS)), cases="\n".join(cases))


def zsh() -> str:
    """Return the script for zsh."""
    commands = (f"        '{name}:{_zsh(summary)}'" for name, summary in sorted(COMMANDS.items()))
    cases = (f"        {name}) options=({_zsh_options(options(name))}) ;;" for name in sorted(COMMANDS))
    return ZSH.format(commands="\n".join(commands), cases="\n".join(cases))


def _zsh_options(described: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"'*{name}[{_zsh(meaning)}]'" for name, meaning in described)


def _zsh(text: str) -> str:
    """Return text that zsh's specifications take literally within single quotes."""
    for special in "\\:[]":
        text = text.replace(special, "\\" + special)
    return text.replace("'", "'\\''").replace("\n", " ")
