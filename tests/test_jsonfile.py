"""JSON is written and read as `json` does it, whichever library does it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import orjson  # noqa: F401 - as soon as it is imported, it is taken for small documents too
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.base.disk import jsonfile
from provisioning.base.disk.jsonfile import from_json, to_json

TEXT = st.text(st.characters(codec=None))  # lone surrogates too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


def by_json(document: object, *, indent: bool, ascii_only: bool) -> bytes:
    separators = (",", ": " if indent else ":")
    return json.dumps(
        document, sort_keys=True, ensure_ascii=ascii_only, indent=2 if indent else None, separators=separators
    ).encode(errors="surrogatepass")


def same(one: object, two: object) -> bool:
    """Equal in type and value; NaN is NaN."""
    return repr(one) == repr(two)


@given(DOCUMENTS, st.booleans(), st.booleans())
@example([1e-5, 1e16, 123456789012345678.0, 5e-324, -0.0, 1e22, 0.0001], False, False)
@example([None, math.nan], False, False)
@example({"b": None, "a": [], "": {}, "\x7f\u2028": "\ud800"}, True, True)
@example([-(1 << 63) - 1, 1 << 64, (1 << 64) - 1], False, False)
@example({"1e5": "0.00001", "x": "[1e5"}, False, False)
@example({2: "two", 10: "ten"}, False, False)
def test_what_is_written_is_what_json_writes(document: object, indent: bool, ascii_only: bool) -> None:
    assert to_json(document, indent=indent, ascii_only=ascii_only) == by_json(
        document, indent=indent, ascii_only=ascii_only
    )


@given(DOCUMENTS)
@example([float("inf"), -0.0, "\ud83d", (1 << 64) - 1])
def test_what_is_read_is_what_json_reads(document: object) -> None:
    text = json.dumps(document)
    found = from_json(text)
    if not any(abs(number) >= 1 << 63 for number in whole_numbers(document)):
        assert same(found, json.loads(text))


def whole_numbers(value: object) -> list[int]:
    if isinstance(value, (list, tuple)):
        return [number for each in value for number in whole_numbers(each)]
    if isinstance(value, dict):
        return whole_numbers(list(value.values()))
    return [value] if isinstance(value, int) else []


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", '{"a" 1}', b"\xff", "[" * 5000])
def test_what_is_no_json_is_refused_as_json_refuses_it(text: str | bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        from_json(text)


def test_without_orjson_the_bytes_and_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"z": [1, 0.5, None, True], "a": {"ä": "\n"}}
    with_it = to_json(document, indent=True)
    monkeypatch.setattr(jsonfile, "_orjson", lambda: None)
    assert to_json(document, indent=True) == with_it
    assert from_json(with_it) == document


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes"])
def test_what_json_cannot_hold_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        to_json([value])


def test_plain_documents_are_left_to_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "dumps", lambda *args, **kwargs: pytest.fail("json wrote it"))
    assert to_json({"path": "corpus.index", "bytes": 12, "none": None, "key": "1e5" + "0" * 61, "x": [1.5]}) == (
        b'{"bytes":12,"key":"1e5' + b"0" * 61 + b'","none":null,"path":"corpus.index","x":[1.5]}'
    )


def test_orjson_is_imported_where_a_document_is_large() -> None:
    code = (
        "import sys; from provisioning.base.disk.jsonfile import from_json, to_json\n"
        "small, large = {'a': [1, {'b': None}]}, [[n, n] for n in range(400)]\n"
        "texts = from_json(to_json(small)), 'orjson' in sys.modules, from_json(to_json(large)) == large\n"
        "print(*texts, 'orjson' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'a': [1, {'b': None}]} False True True\n"
