"""JSON as bytes, by orjson where it pays, else by the standard library: the same bytes, the same values.

A vehicle verifies without orjson. What orjson writes in another way than `json` is left to `json`: floats below 0.001
or with an exponent, NaN, whole numbers beyond 64 bits, lone surrogates, keys that are no text. So are documents so
small that `json` is done before orjson is imported, which takes 4 ms of processor time (it imports `uuid`, that
`platform`: measured).
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from types import ModuleType
from typing import Any

SMALL_BYTES = 64 << 10
SMALL_VALUES = 1000
_OTHERWISE = rb"(?:^|[\[:,\s-])(?:\d[\d.]*e|0\.000)"
"""A number that the two may write differently, outside of text or (harmlessly) in it."""


@cache
def _orjson() -> ModuleType | None:
    """Return the library; None on a vehicle, or on a platform for which it has no wheel."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson


def to_json(document: object, *, indent: bool = False, ascii_only: bool = False) -> bytes:
    """Return `document` as JSON with sorted keys, without spaces or, with `indent`, two spaces a level.

    `ascii_only`: other characters are escaped. The bytes are those of json.dumps. TypeError for what JSON cannot hold.
    """
    pays = "orjson" in sys.modules or _has_more_than(SMALL_VALUES, document)
    data = _by_orjson(document, indent=indent) if pays else None
    if data is not None and (not ascii_only or (data.isascii() and b"\x7f" not in data)):
        return data
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        document, sort_keys=True, indent=2 if indent else None, separators=separators, ensure_ascii=ascii_only
    )
    return text.encode(errors="surrogatepass")


def _has_more_than(most: int, document: object) -> bool:
    """Return whether `document` has more values than `most`; no more are counted."""
    waiting, seen = [document], 0
    while waiting and seen <= most:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        seen += 1
    return seen > most


def _by_orjson(document: object, *, indent: bool) -> bytes | None:
    """Return what orjson writes; None where `json` may write something else."""
    if (orjson := _orjson()) is None:
        return None
    plain = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        data: bytes = orjson.dumps(document, option=plain | (orjson.OPT_INDENT_2 if indent else 0))
    except TypeError:
        return None
    if re.search(_OTHERWISE, data) or (b"null" in data and _holds_nan(document)):
        return None
    return data


def _holds_nan(value: object) -> bool:
    """Return whether a float is not finite somewhere in `value`: orjson writes null for it."""
    if isinstance(value, float):
        return not -1e308 < value < 1e308
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_nan, value))


def from_json(data: bytes | str) -> Any:
    """Return the document in `data`, as json.loads does; whole numbers beyond 64 bits may become floats.

    ValueError for what is no JSON. Not for what a stranger wrote and a signature covers: a key that is there twice is
    accepted (see `provisioning.flight.manifest.strict_json`).
    """
    pays = "orjson" in sys.modules or len(data) > SMALL_BYTES
    if pays and (orjson := _orjson()) is not None:
        try:
            return orjson.loads(data)
        except ValueError:  # NaN and lone surrogates, which `json` reads
            pass
    return json.loads(data)
