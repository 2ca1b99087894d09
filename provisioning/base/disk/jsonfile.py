"""JSON as bytes, by orjson where it is installed, else by the standard library: the same bytes, the same values.

A vehicle verifies without orjson. What orjson writes in another way than `json` is left to `json`: floats below 0.001
or with an exponent, NaN, whole numbers beyond 64 bits, lone surrogates, keys that are no text.
"""

from __future__ import annotations

import json
import re
from typing import Any

try:
    import orjson
except ImportError:  # a vehicle, or a platform for which orjson has no wheel
    orjson = None  # type: ignore[assignment]

_OTHERWISE = re.compile(rb"(?:^|[\[:,\s-])(?:\d[\d.]*e|0\.000)")
"""A number that the two may write differently, outside of text or (harmlessly) in it."""


def to_json(document: object, *, indent: bool = False, ascii_only: bool = False) -> bytes:
    """Return `document` as JSON with sorted keys, without spaces or, with `indent`, two spaces a level.

    `ascii_only`: other characters are escaped. The bytes are those of json.dumps. TypeError for what JSON cannot hold.
    """
    data = _by_orjson(document, indent=indent) if orjson else None
    if data is not None and (not ascii_only or (data.isascii() and b"\x7f" not in data)):
        return data
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        document, sort_keys=True, indent=2 if indent else None, separators=separators, ensure_ascii=ascii_only
    )
    return text.encode(errors="surrogatepass")


def _by_orjson(document: object, *, indent: bool) -> bytes | None:
    """Return what orjson writes; None where `json` may write something else."""
    plain = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        data = orjson.dumps(document, option=plain | (orjson.OPT_INDENT_2 if indent else 0))
    except TypeError:
        return None
    if _OTHERWISE.search(data) or (b"null" in data and _holds_nan(document)):
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
    """Return the document in `data`, as json.loads does; whole numbers beyond 64 bits become floats.

    ValueError for what is no JSON. Not for what a stranger wrote and a signature covers: a key that is there twice is
    accepted (see `provisioning.flight.manifest.strict_json`).
    """
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:  # NaN and lone surrogates, which `json` reads
            pass
    return json.loads(data)
