"""A commented flight.toml, printed from the schema: every key with its unit and default, the given ones set."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from provisioning.base.errors import ConfigError
from provisioning.config.schema import NO_PATH, Flight, is_key

Values = Mapping[str, Any]
"""Section name → table of set keys, or list of such tables."""

HEAD = """\
# flight.toml: what this cache is for. `doit` builds it, `flightcache plan` says what would be done and why.
# A key behind `#` shows its default. Paths are relative to this file. Angles are degrees with at most 7 decimals.
"""


class Section:
    """One section of flight.toml: its heading, whether it repeats, and its dataclass."""

    def __init__(self, name: str, kind: type, *, repeats: bool, named: bool) -> None:
        self.name, self.kind, self.repeats, self.named = name, kind, repeats, named

    @property
    def heading(self) -> str:
        """The TOML heading."""
        if self.named:
            return f"[{self.name}.NAME]"
        return f"[[{self.name}]]" if self.repeats else f"[{self.name}]"


def sections(kind: type = Flight, prefix: str = "") -> Iterator[Section]:
    """Yield every section of the file in the schema's order, nested ones after their parent."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        origin, args = get_origin(hint), get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield Section(name, hint, repeats=False, named=False)  # type: ignore[arg-type]
            yield from sections(hint, f"{name}.")  # type: ignore[arg-type]
        elif origin is tuple and dataclasses.is_dataclass(args[0]):
            yield Section(name, args[0], repeats=True, named=False)  # type: ignore[arg-type]
        elif origin is dict and dataclasses.is_dataclass(args[1]):
            yield Section(name, args[1], repeats=False, named=True)  # type: ignore[arg-type]


def keys(kind: type) -> Iterator[dataclasses.Field[Any]]:
    """Yield the plain keys of a section, without its nested sections."""
    nested = {section.name for section in sections(kind)}
    return (f for f in dataclasses.fields(kind) if is_key(f) and f.name not in nested)


def toml(value: object) -> str:
    """Return `value` as TOML text. Raises ConfigError for a path that is not UTF-8, which TOML cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    if isinstance(value, (str, Path)):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else _escape(c, text) for c in text) + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_bare(str(name))} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(toml, value)) + "]"
    raise TypeError(f"no TOML for {value!r}")


def _escape(sign: str, text: str) -> str:
    if "\ud800" <= sign <= "\udfff":  # a byte of a file name, as Python keeps it
        raise ConfigError(
            "flight.toml cannot name a path that is not UTF-8",
            file=text,
            next_step="rename the directory, or make a symbolic link to it with a name in UTF-8 and give that",
        )
    return f"\\u{ord(sign):04x}" if sign <= "\uffff" else f"\\U{ord(sign):08x}"


def _bare(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else toml(name)


def default_of(field: dataclasses.Field[Any]) -> object:
    """Return the field's default, or `dataclasses.MISSING` for a required key."""
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def render(values: Values) -> str:
    """Return the text of a flight.toml in which `values` are set and every other key is shown with its default."""
    return "\n".join([HEAD, *(line for section in sections() for line in _section(section, values))])


def _section(section: Section, values: Values) -> Iterator[str]:
    given: Any = values.get(section.name, [] if section.repeats or section.named else {})
    doc = (section.kind.__doc__ or "").split(": ", 1)[-1].splitlines()[0]
    yield from textwrap.wrap(doc[0].upper() + doc[1:], 110, initial_indent="# ", subsequent_indent="# ")
    if section.repeats or section.named:
        for table in given:
            yield section.heading
            yield from _keys(section.kind, table)
        if not given:
            yield "# " + section.heading
            yield from _keys(section.kind, {})
        return
    yield section.heading
    yield from _keys(section.kind, given)


def _keys(kind: type, table: Values) -> Iterator[str]:
    for field in keys(kind):
        yield from textwrap.wrap(field.metadata["doc"], 110, initial_indent="# ", subsequent_indent="# ")
        if field.name in table:
            yield f"{field.name} = {toml(table[field.name])}"
        else:
            yield f"# {field.name} = {_shown_default(default_of(field))}"
    yield ""


def _shown_default(default: object) -> str:
    if default is dataclasses.MISSING or default in (None, NO_PATH):
        return "…"
    return toml(default)
