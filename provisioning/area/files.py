"""Bytes of area and mission files as text, JSON, XML or the members of a ZIP, each within limits.

The limits keep a file of at most 16 MiB below about 200 MiB of memory and a second, whatever is written in it.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError  # only the type and the error: defusedxml does the reading

from provisioning.base.disk.files import open_regular
from provisioning.base.errors import AreaError

if TYPE_CHECKING:
    import zipfile

MOST_BYTES = 16 << 20
MOST_JSON_PARTS = 2_000_000
MOST_XML_PARTS = 1_200_000
MOST_LINES = 500_000
MOST_ZIP_DIRECTORY_BYTES = 1 << 20
MOST_FEATURE_BYTES = 64 << 20
SMALLER = "keep what the flight needs, or simplify its lines, then save it again"
SQLITE = b"SQLite format 3\0"
GEOPACKAGE_IDS = (b"GPKG", b"GP10", b"GP11")
"""At byte 68 of a SQLite file (OGC 12-128r19, 1.1.1.1.1)."""
FEATURE_FILES = ((b"\0\0\x27\x0a", "Shapefile"), (b"fgb\3fgb", "FlatGeobuf"))
BESIDE = {"Shapefile": (".shx", ".prj", ".cpg")}
"""Files beside one of a kind that have a part in what it draws."""


def bytes_of(path: Path) -> list[bytes]:
    """Return the bytes that decide what a file draws: its own and those of the files that belong to it."""
    data = read_bytes(path, most=MOST_FEATURE_BYTES)
    kind = feature_kind(data)
    if not kind and len(data) > MOST_BYTES:
        read_bytes(path, most=MOST_BYTES)  # refuses it
    beside = (path.with_suffix(suffix) for suffix in BESIDE.get(kind, ()))
    return [data, *(read_bytes(one, most=MOST_FEATURE_BYTES) for one in beside if one.is_file())]


def feature_kind(data: bytes) -> str:
    """Return the kind of a file of features, empty if it is another."""
    if data.startswith(SQLITE) and data[68:72] in GEOPACKAGE_IDS:
        return "GeoPackage"
    return next((kind for magic, kind in FEATURE_FILES if data.startswith(magic)), "")


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of an area file; AreaError if it cannot be read or is larger than `most`."""
    try:
        with open_regular(path) as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise AreaError(
            f"the file cannot be read: {error.strerror}", file=path, next_step="check its path and permissions"
        ) from error
    if len(data) > most:
        raise AreaError(f"the area file is larger than {most} bytes", file=path, next_step=SMALLER)
    return data


def text_of(data: bytes, path: Path) -> str:
    """Return the text in `data`: UTF-8, or UTF-16 as Windows programs write it; AreaError if it is neither."""
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif data[1:4:2] == b"\0\0":
        encoding = "utf-16-le"
    elif data[:4:2] == b"\0\0":
        encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise AreaError(
            "the area file is not UTF-8 text", file=path, next_step="save it again as UTF-8, or see docs/missions.md"
        ) from error


def lines_of(text: str, path: Path) -> list[str]:
    """Return the lines of `text`; AreaError if they are more than any mission has."""
    if text.count("\n") + text.count("\r") > 2 * MOST_LINES:
        raise AreaError(f"the file has more than {MOST_LINES} lines", file=path, next_step=SMALLER)
    return text.splitlines()


def parse_json(text: str, path: Path) -> Any:
    """Return the JSON value in `text`; AreaError if there is none."""
    if sum(map(text.count, "{[,")) > MOST_JSON_PARTS:
        raise AreaError(f"the file has more than {MOST_JSON_PARTS} JSON values", file=path, next_step=SMALLER)
    try:
        return json.loads(text, parse_constant=_refused, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise AreaError(
            f"the area file is not valid JSON: {error}", file=path, next_step="save it again where it was made"
        ) from error


def _refused(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)


def parse_xml(data: bytes, path: Path) -> Element:
    """Return the root of an XML document; AreaError if it is none, declares entities or a DTD, or is too large."""
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    if data.count(b"<") > MOST_XML_PARTS or data.count(b"=") > MOST_XML_PARTS // 3:
        raise AreaError(f"the file has more than {MOST_XML_PARTS} XML elements", file=path, next_step=SMALLER)
    try:
        root: Element = ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AreaError(
            "the XML file has a document type or entities of its own, which may expand without end",
            file=path,
            next_step="export it again without them",
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise AreaError(
            f"the file is not well-formed XML: {error}", file=path, next_step="export it again where it was made"
        ) from error
    return root


def tag(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def members(data: bytes, path: Path) -> dict[str, bytes]:
    """Return the KML, WPML and shapefile members of a ZIP file by name; AreaError if it cannot be read or is a bomb."""
    import zipfile

    end = data.rfind(b"PK\x05\x06")
    if end < 0 or len(data) < end + 22 or struct.unpack_from("<L", data, end + 12)[0] > MOST_ZIP_DIRECTORY_BYTES:
        raise AreaError("the ZIP file is damaged or has too many members", file=path, next_step="export it again")
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if re.search(r"\.(kml|wpml)$", info.filename, re.IGNORECASE):
                    found[info.filename] = _member(archive, info, path, MOST_BYTES - sum(map(len, found.values())))
                elif info.filename.lower().endswith(".shp"):
                    found[info.filename] = b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error, ValueError) as error:
        raise AreaError(
            f"the ZIP file cannot be read: {error}", file=path, next_step="export it again, without a password"
        ) from error
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, most: int) -> bytes:
    with archive.open(info) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise AreaError(f"{info.filename} in the ZIP file is larger than {MOST_BYTES} bytes", file=path,
                        next_step=SMALLER)  # fmt: skip
    return data
