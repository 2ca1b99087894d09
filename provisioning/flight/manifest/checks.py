"""Checks of JSON values: each turns a value into its frozen form, or notes what is wrong with it and where."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from provisioning.base.limits import MAX_FILES, MAX_TEXT
from provisioning.base.printable import steers

Issues = list[str]
Check = Callable[[Any, str, Issues], Any]
"""Called with (value, where, issues); returns the frozen value, or None after adding to `issues`."""


_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", re.ASCII)
_MOMENT = re.compile(_DATE.pattern + r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z", re.ASCII)
_WORD = re.compile(r"[!-~]{1,255}", re.ASCII)
_NAME = re.compile(r"[!-~]([ -~]{0,253}[!-~])?", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.=,@-]{0,200}(/[A-Za-z0-9_+][A-Za-z0-9_+.=,@-]{0,200}){0,7}", re.ASCII)


def _like(pattern: re.Pattern[str], what: str) -> Check:
    def check(value: Any, where: str, issues: Issues) -> Any:
        if type(value) is not str or not pattern.fullmatch(value):
            issues.append(f"{where}: {what} expected")
            return None
        return value

    return check


digest = _like(_DIGEST, "64 lower-case hex digits")
decimal = _like(_DECIMAL, "a decimal number as text")
date = _like(_DATE, "YYYY-MM-DD")
moment = _like(_MOMENT, "YYYY-MM-DDTHH:MM:SSZ")
word = _like(_WORD, "printable ASCII without spaces")
name = _like(_NAME, "printable ASCII")
_path = _like(_PATH, "a relative path of letters, digits and _+.=,@-")


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
