"""JSON as a Manifest may use it: UTF-8, no duplicate keys, whole numbers only, bounded size."""

from __future__ import annotations

import json
from typing import NoReturn

from provisioning.base.errors import ManifestError

MAX_BYTES = 1 << 20
MAX_ISSUES = 20
MAX_DEPTH = 64
"""Levels of objects and lists; the schema ends at five. The limit of Python's own parser differs between versions."""


def load(data: bytes) -> object:
    """Return the document in `data`: UTF-8 without BOM, no duplicate keys, no floats, bounded size and depth."""
    if len(data) > MAX_BYTES:
        raise malformed(f"larger than {MAX_BYTES} bytes")
    try:
        document: object = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise malformed(f"not JSON: {error}") from error
    if _is_deeper(document, MAX_DEPTH):
        raise malformed("nested too deeply")
    return document


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether objects and lists are nested in more than `levels` levels; looks no further down than that."""
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is there twice in one object")
    return document


def _integer(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError("a number has too many digits")
    return int(digits)


def _refuse_number(number: str) -> NoReturn:
    raise ValueError(f"{number[:20]} is no whole number")


def malformed(*issues: str, schema: bool = False) -> ManifestError:
    """Return the error for bytes that are no Manifest, with its issues; `schema`: for a Manifest of another schema."""
    shown = [issue if issue.isprintable() else ascii(issue) for issue in issues[:MAX_ISSUES]]
    return ManifestError(
        "Manifest.json is not a Manifest of this schema" if schema else "Manifest.json is malformed",
        file="Manifest.json",
        key="schema" if schema else None,
        facts={f"issue {number}": issue[:200] for number, issue in enumerate(shown, 1)},
    )
