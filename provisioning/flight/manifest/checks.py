"""Checks of JSON values: each turns a value into its frozen form, or notes what is wrong with it and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from provisioning.base.limits import MAX_FILES, MAX_TEXT
from provisioning.base.printable import is_word, steers

Issues = list[str]
Check = Callable[[Any, str, Issues], Any]
"""Called with (value, where, issues); returns the frozen value, or None after adding to `issues`."""


_HEX = frozenset("0123456789abcdef")
_BEGINS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+")
IN_NAMES = _BEGINS | frozenset(".=,@-")
"""What the names in a path of a Manifest consist of (docs/manifest.md)."""
_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_MOMENT = _DATE + r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"


def _text_that(is_sound: Callable[[str], object], what: str) -> Check:
    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not str or not is_sound(value):
            issues.append(f"{where}: {what} expected")
            return None
        return value

    return check


def _like(pattern: str, what: str) -> Check:
    """Accept text that `pattern` matches; it is compiled for the first such text, which not every Manifest has."""
    return _text_that(lambda value: re.fullmatch(pattern, value, re.ASCII), what)


def _is_digest(value: str) -> bool:
    return len(value) == 64 and _HEX.issuperset(value)


def _is_decimal(value: str) -> bool:
    whole, point, part = value.removeprefix("-").partition(".")
    return _is_number(whole) and (whole == "0" or whole[0] != "0") and (not point or _is_number(part))


def _is_number(digits: str) -> bool:
    return len(digits) <= 18 and digits.isascii() and digits.isdigit()


def _is_name(value: str) -> bool:
    return 0 < len(value) <= 255 and value.isascii() and value.isprintable() and value.strip(" ") == value


def _is_path(value: str) -> bool:
    names = value.split("/")
    return len(names) <= 8 and all(
        len(each) <= 201 and each[:1] in _BEGINS and IN_NAMES.issuperset(each) for each in names
    )


digest = _text_that(_is_digest, "64 lower-case hex digits")
decimal = _text_that(_is_decimal, "a decimal number as text")
date = _like(_DATE, "YYYY-MM-DD")
moment = _like(_MOMENT, "YYYY-MM-DDTHH:MM:SSZ")
word = _text_that(lambda value: len(value) <= 255 and is_word(value), "printable ASCII without spaces")
name = _text_that(_is_name, "printable ASCII")
_path = _text_that(_is_path, "a relative path of letters, digits and _+.=,@-")


def path(value: Any, where: str, issues: Issues) -> Any:
    """Accept a relative POSIX path that names no special file of the format."""
    checked = _path(value, where, issues)
    if checked is not None and (checked.lower().endswith(".sha256") or checked.lower().startswith("manifest.json")):
        issues.append(f"{where}: the name is reserved")
    return checked


def text(value: Any, where: str, issues: Issues) -> Any:
    """Accept any text of bounded length that UTF-8 can carry and that cannot steer a terminal."""
    if type(value) is not str or len(value) > MAX_TEXT or steers(value):
        issues.append(f"{where}: text of at most {MAX_TEXT} characters without control characters expected")
        return None
    return value


def whole(low: int, high: int) -> Check:
    """Accept an integer in low..high; bool, which Python counts as one, is refused."""

    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not int or not low <= value <= high:
            issues.append(f"{where}: a whole number in {low}..{high} expected")
            return None
        return value

    return check


def one_of(*words: str) -> Check:
    """Accept one of `words`."""

    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not str or value not in words:
            issues.append(f"{where}: {' or '.join(words)} expected")
            return None
        return value

    return check


def optional(check: Check) -> Check:
    """Mark a key that may be absent; JSON null stays refused."""

    def maybe(value: Any, where: str, issues: Issues) -> Any:
        return check(value, where, issues)

    maybe.absent_is_none = True  # type: ignore[attr-defined]
    return maybe


def record(kind: Callable[..., Any], /, **shape: Check) -> Check:
    """Accept an object with exactly the keys of `shape`, and make a `kind` of it."""

    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not dict:
            issues.append(f"{where or 'the document'}: an object expected")
            return None
        prefix = where + "." if where else ""
        issues.extend(f"{prefix}{key}: unknown" for key in value if key not in shape)
        parts = {}
        for key, part in shape.items():
            if key in value:
                parts[key] = part(value[key], prefix + key, issues)
            else:
                parts[key] = None
                if not getattr(part, "absent_is_none", False):
                    issues.append(f"{prefix}{key}: missing")
        return kind(**parts)

    return check


def array(item: Check, *, most: int = MAX_FILES, least: int = 0) -> Check:
    """Accept a list of `least` to `most` items, and make a tuple of it."""

    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not list or not least <= len(value) <= most:
            issues.append(f"{where}: a list of {least} to {most} items expected")
            return ()
        return tuple(item(part, f"{where}[{number}]", issues) for number, part in enumerate(value))

    return check


def table(key: Check, item: Check, *, most: int = 64) -> Check:
    """Accept an object with checked keys and items, and make a dict of it."""

    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not dict or len(value) > most:
            issues.append(f"{where}: an object of at most {most} keys expected")
            return {}
        return {key(k, f"{where} key", issues): item(v, f"{where}.{k}", issues) for k, v in value.items()}

    return check


def zoom_key(value: Any, where: str, issues: Issues) -> Any:
    """Accept a zoom level as the key of an object, without leading zeros."""
    if value in _ZOOMS:
        return _ZOOMS[value]
    issues.append(f"{where}: a zoom level in 0..24 expected")
    return None


_ZOOMS: Mapping[Any, int] = {str(zoom): zoom for zoom in range(25)}
