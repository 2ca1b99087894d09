"""`flightcache init`: a new cache directory with flight.toml, dodo.py and doit.cfg."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from provisioning.area.area import measure_area
from provisioning.area.place import describe_place, place_facts
from provisioning.base.disk.files import make_dirs, require_local_filesystem, wrap_os_errors, write_new
from provisioning.base.errors import ConfigError, SigningError
from provisioning.base.geometry.angles import BBox, overlap
from provisioning.base.printable import printable
from provisioning.base.words import meant, meant_file, typed
from provisioning.catalogue.surveying import Survey, survey
from provisioning.cli.parsing import needs
from provisioning.config import Area, AreaPart, Index, TileSource
from provisioning.config.check import BUILTIN, BUILTINS, check_area
from provisioning.config.schema import NO_PATH
from provisioning.config.template import render
from provisioning.console import listen
from provisioning.flight import signing
from provisioning.network.builtin.known import GIST_COLOR, LIMITS, recommended
from provisioning.sources.placement.placement import scheme_of
from provisioning.sources.stores import kind_of

DODO = '''\
"""The flight cache in this directory: `doit` builds it, `doit clean` resets it, `doit list` names its tasks."""

from rules import declare

globals().update(declare(__file__))
'''

DOIT_CFG = """\
# doit's commands in this directory hold the build lock; nothing here needs to be edited.
[COMMAND]
run = rules.plugin:Run
clean = rules.plugin:Clean
forget = rules.plugin:Forget
ignore = rules.plugin:Ignore
reset-dep = rules.plugin:ResetDep
info = rules.plugin:Info
list = rules.plugin:List
"""

LOOKED_AT_ZOOM = 12
"""Zoom at which a mission is measured where no tiles say which."""
OPTIONS = {"scheme": "--source-scheme", "pattern": "--pattern", "table": "--table"}
"""What says how a source is read, by the field of TileSource."""
FILES = ("flight.toml", "dodo.py", "doit.cfg")
OVERLAP_BY_RULE = 0
"""New flights have cuts where the rule of docs/index.md allows it; a flight.toml of before stays without until its
owner sets the key: verifiers of before refuse a Manifest that has it."""


@dataclass(frozen=True, kw_only=True)
class NewCache:
    """What was written, and the key that will sign."""

    directory: Path
    key: Path
    public_key: Path
    onnx: str
    """The descriptor network as flight.toml names it."""
    key_is_new: bool
    survey: Survey | None
    asked: BBox | None = None
    """Where the mission or the drawn area lies."""
    questions: tuple[str, ...] = ()


def create_cache(  # noqa: PLR0913 - one for each option of the command
    directory: Path,
    *,
    tiles: Path | TileSource | None = None,
    mission: Path | None = None,
    area: Path | None = None,
    backbone: Path | None = None,
    key: Path | None = None,
    calibration: Iterable[Path] = (),
    flight_id: str | None = None,
    index_overlap: int = OVERLAP_BY_RULE,
) -> NewCache:
    """Write flight.toml, dodo.py and doit.cfg into `directory`, which is made where it is not there.

    With `tiles` the zoom levels are what the source holds, and so is the area unless a `mission` or `area` file is
    given; of both, the area file is a part of its own. Without `key` a new pair is made outside the directory. Raises
    ConfigError if one of the files is there already, the result would be refused or the tiles lie elsewhere than what
    is to be flown, AreaError, FilesystemError, SigningError, TileError.
    """
    found = [name for name in FILES if os.path.lexists(directory / name)]
    if found:
        raise ConfigError(
            f"{', '.join(found)} is already there", file=directory, next_step="choose another directory, or edit it"
        )
    _check_given(tiles.path if isinstance(tiles, TileSource) else tiles, backbone, key)
    held = survey(tiles) if tiles else None
    shape = _area(held, mission=mission, drawing=area)
    _check_area(shape, directory)
    asked = _measured(shape) if mission or area else None
    if held and asked:
        _check_together(held, asked)
    with wrap_os_errors("make the cache directory", directory):
        make_dirs(directory)
    require_local_filesystem(directory)
    private = key.absolute() if key else new_key(directory.absolute().name)
    values = _values(
        directory.absolute(),
        held,
        area=shape,
        backbone=backbone,
        key=private,
        calibration=calibration,
        flight=flight_id,
    )
    if index_overlap != Index().overlap:
        values = {**values, "index": {"overlap": index_overlap}}
    text = _with_questions(render(values), held, shape)
    with wrap_os_errors("write the files of a new cache", directory):
        write_new(directory / "dodo.py", DODO.encode())
        write_new(directory / "doit.cfg", DOIT_CFG.encode())
        write_new(directory / "flight.toml", text.encode())
    public = signing.public_key_path(private)
    return NewCache(
        directory=directory,
        key=private,
        public_key=public,
        onnx=values["backbone"][0].get("onnx", GIST_COLOR),
        key_is_new=key is None,
        survey=held,
        asked=asked,
        questions=tuple(questions(held, shape)),
    )


def _check_given(tiles: Path | None, backbone: Path | None, key: Path | None) -> None:
    """Raise ConfigError for what is not there: a flight.toml that names it could not be used."""
    if backbone and str(backbone).startswith(BUILTIN):
        if str(backbone) not in BUILTINS:
            step = f"give an ONNX file, or one of {', '.join(BUILTINS)}"
            found = f"there is no network {str(backbone)!r}{meant(str(backbone), BUILTINS)}"
            raise ConfigError(found, key="--backbone", next_step=step)
        backbone = None
    for name, path, step in (
        ("--tiles", tiles, "give a directory of tiles, or a file that holds some"),
        ("--backbone", backbone, f"give an ONNX file, or one of {', '.join(BUILTINS)}"),
        ("--key", key, f"make one with `flightcache {typed('keygen', key or '')}`, or leave --key out for a new one"),
    ):
        if path and path != NO_PATH and not path.exists():
            raise ConfigError(f"no such file: {path}{meant_file(path)}", key=name, next_step=step)
        if name != "--tiles" and path and path.exists() and not path.is_file():
            raise ConfigError(f"this is no file: {path}", key=name, next_step=step)


def new_key(name: str) -> Path:
    """Make a key pair in the user's configuration directory and return the private half's path.

    Raises SigningError if there is no such directory and none can be made there: no home, or one that is read-only.
    """
    folder = _folder_of_keys()
    for number in range(1, 10_000):
        path = folder / (f"{name}.pem" if number == 1 else f"{name}-{number}.pem")
        if not path.exists() and not signing.public_key_path(path).exists():
            signing.generate_key(path, password=None)
            return path
    raise SigningError("too many keys of this name", file=folder, next_step="name one with --key")


def _folder_of_keys() -> Path:
    """Return the directory of keys, made where it is not there."""
    folder = signing.keys_directory()
    try:
        if not folder.is_absolute():  # `~` is left where the system knows no home for this user
            raise FileNotFoundError(errno.ENOENT, "this user has no home directory")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SigningError(
            f"no directory for a new key: {error.strerror}",
            file=folder,
            next_step="set XDG_CONFIG_HOME to a folder of yours, or make a key with `flightcache keygen FILE` "
            "and give it: flightcache init --key FILE",
        ) from error
    return folder


def _values(
    directory: Path,
    held: Survey | None,
    *,
    area: Mapping[str, Any],
    backbone: Path | None,
    key: Path,
    calibration: Iterable[Path],
    flight: str | None,
) -> Mapping[str, Any]:
    def named(path: Path) -> str:
        """Paths below the cache directory are written relative to it, so that it can be moved."""
        path = path.absolute()
        return os.path.relpath(path, directory) if path.is_relative_to(directory) else str(path)

    onnx = _network(backbone, named)
    model = {"name": _model_name(onnx), **({"onnx": onnx} if onnx != GIST_COLOR else {})}
    drawn = {name: named(value) if isinstance(value, Path) else value for name, value in area.items()}
    part = {"geojson": drawn.pop("geojson")} if {"mission", "geojson"} <= drawn.keys() else {}
    return {
        "flight": {"id": flight} if flight else {},
        "area": drawn,
        "area.part": [part] if part else [],
        "tiles.source": [_source(held, named)] if held else [],
        "backbone": [model],
        "calibration": [{"path": named(path)} for path in calibration],
        "signing": {"key": named(key)},
    }


def _network(backbone: Path | None, named: Callable[[Path], str]) -> str:
    """Return the descriptor network as flight.toml names it: a file, a built-in one, or the best built-in one here."""
    if backbone is None:
        return recommended()
    return str(backbone) if str(backbone).startswith(BUILTIN) else named(backbone)


def _model_name(onnx: str) -> str:
    """Return a name that may stand in an engine's file name, where underscores part the fields."""
    stem = Path(onnx.removeprefix(BUILTIN)).stem
    return re.sub(r"[^A-Za-z0-9.]+", "-", stem).strip("-.")[:64] or "backbone"


def _source(held: Survey, named: Callable[[Path], str]) -> dict[str, Any]:
    """Return a source's table: its path, and what of how it is read is not the default."""
    default = TileSource(path=held.source.path)
    keys = ("name", "kind", "pattern", "table", "evidence", "scheme", "values")
    given = {key: getattr(held.source, key) for key in keys}
    return {"path": named(held.source.path)} | {key: v for key, v in given.items() if v != getattr(default, key)}


def _area(held: Survey | None, *, mission: Path | None, drawing: Path | None) -> dict[str, Any]:
    """Return the area that was given, or the one that a source covers.

    Of its own area the coverage that the source has is asked of it from now on, which `questions` puts to the user.
    """
    drawn = {"mission": mission, "geojson": drawing}
    given = {name: path.absolute() for name, path in drawn.items() if path}
    if held is None:
        return given
    if given:
        return {**given, "zooms": sorted(held.per_zoom)}
    coverage = {str(z): _share(count.present, count.expected) for z, count in sorted(held.per_zoom.items())}
    asked = {zoom: share for zoom, share in coverage.items() if share < 1}
    area: dict[str, Any] = {"bbox": _degrees(held.bbox), "zooms": sorted(held.per_zoom)}
    return {**area, "min_coverage": asked, "accepted_by": "init"} if asked else area


def _check_area(shape: Mapping[str, Any], directory: Path) -> None:
    """Raise ConfigError if flight.toml's own rules would refuse the area."""
    for name in ("mission", "geojson"):
        if name in shape and not shape[name].is_file():
            raise ConfigError(f"no such file: {shape[name]}{meant_file(shape[name])}", key=f"area.{name}")
    if "bbox" in shape:
        box = BBox(*(int(side.scaleb(7)) for side in shape["bbox"]))
        found = [f"{key}: {problem}" for key, problem in check_area(Area(bbox=box, zooms=tuple(shape["zooms"])))]
        if found:
            raise ConfigError(
                "the tiles cover an area that cannot be built: " + "; ".join(found), file=directory,
                next_step="give the area that will be flown: --mission FILE or --area FILE",
            )  # fmt: skip


def _measured(shape: Mapping[str, Any]) -> BBox:
    """Return the box of what the mission and area files ask for; AreaError if one cannot be understood."""
    drawn = (AreaPart(**{name: shape[name]}) for name in ("mission", "geojson") if name in shape)
    zooms = tuple(shape.get("zooms", ())[-1:]) or (LOOKED_AT_ZOOM,)
    return measure_area(Area(part=tuple(drawn), zooms=zooms)).bbox


def _check_together(held: Survey, asked: BBox) -> None:
    """Raise ConfigError if no tile can lie in the area: the rows may count from the other end, or a file is wrong."""
    if overlap(held.bbox, asked):
        return
    other = "xyz" if scheme_of(held.source, held.kind) == "tms" else "tms"
    step = "give the tiles of this area, or the mission of these tiles"
    if overlap(held.mirrored_bbox, asked):
        step = f"the rows may count from the other end: --source-scheme {other}"
    raise ConfigError(
        "the tiles lie elsewhere than what is to be flown", file=held.source.path,
        facts={"tiles": describe_place(held.bbox), "mission or area": describe_place(asked)}, next_step=step,
    )  # fmt: skip


def questions(held: Survey | None, shape: Mapping[str, Any]) -> list[str]:
    """Return a question for each zoom level of which less than all is asked."""
    asked = shape.get("min_coverage", {})
    counts = {zoom: held.per_zoom[int(zoom)] for zoom in asked} if held else {}
    return [
        f"ZOOM {zoom}: {count.present} OF {count.expected} TILES ARE THERE. IS THAT ENOUGH TO FLY?"
        for zoom, count in counts.items()
    ]


def _with_questions(text: str, held: Survey | None, shape: Mapping[str, Any]) -> str:
    """Return the text of flight.toml with the questions above the line that answers them."""
    asked = [f"# {question}" for question in questions(held, shape)]
    if not asked:
        return text
    answer = "# accepted by init; remove the line below to have the build refuse what is incomplete"
    return text.replace("\nmin_coverage = ", "\n" + "\n".join([*asked, answer]) + "\nmin_coverage = ", 1)


def _share(present: int, expected: int) -> Decimal:
    return (Decimal(present) / Decimal(expected)).quantize(Decimal("0.0001"), rounding=ROUND_DOWN)


def _degrees(bbox: BBox) -> list[Decimal]:
    return [Decimal(side).scaleb(-7) for side in bbox]


def key_text(new: NewCache) -> str:
    """Return where the new key is, and its public half."""
    key, public = printable(new.key), printable(new.public_key)
    return f"new signing key {key} (keep it secret); its public half, for the aircraft: {public}"


def network_text(new: NewCache) -> str:
    """Return which network describes the tiles, and what it cannot do."""
    limit = LIMITS.get(new.onnx)
    return f"network: {printable(new.onnx)}" + (f"\nnote: {limit}" if limit else "")


def as_text(new: NewCache) -> str:
    """Return what was found, for a person to check: the place, the counts, what was left out, what is asked."""
    held = new.survey
    assert held is not None
    order = {"xyz": "rows from the north", "tms": "rows from the south"}[scheme_of(held.source, held.kind)]
    counts = ", ".join(f"zoom {z}: {c.present} of {c.expected}" for z, c in sorted(held.per_zoom.items()))
    rows = [f"  {name + ':':8} {value}" for name, value in place_facts(held.bbox).items()]
    lines = [f"tiles found: {counts}", f"the tiles lie here ({held.kind}, {order}):", *rows]
    lines += [f"note: {printable(note)}" for note in held.notes]
    if new.asked is not None:
        lines.append(f"the mission or area lies here: {describe_place(new.asked)}")
    elif held.kind == "xyz" and not held.has_evidence:
        other = "xyz" if held.source.scheme == "tms" else "tms"
        lines.append(f"nothing beside the tiles confirms this; with --source-scheme {other} it is {held.mirrored}")
    lines += new.questions
    return "\n".join(lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the new cache directory")
    parser.add_argument("--tiles", type=Path, metavar="SRC", help="directory of tiles, .mbtiles, .gpkg, GeoTIFF …")
    parser.add_argument(
        "--mission", type=Path, metavar="FILE", help="the mission to be flown: its corridor is the area"
    )
    parser.add_argument(
        "--area",
        type=Path,
        metavar="FILE",
        help="a drawn area, instead of the box of the tiles or besides the mission's corridor",
    )
    parser.add_argument("--source-scheme", choices=("xyz", "tms"), help="rows from the north (xyz) or the south (tms)")
    parser.add_argument("--pattern", metavar="PATH", help="path of a tile in a directory ({z}/{x}/{y})")
    parser.add_argument("--table", help="the tile table of a GeoPackage that has several")
    parser.add_argument(
        "--backbone", type=Path, metavar="ONNX", help="descriptor network: a file, or builtin:NAME; default: built in"
    )
    parser.add_argument("--key", type=Path, metavar="PEM", help="Ed25519 private key; default: a new pair is made")
    parser.epilog = "example: flightcache init survey-7 --tiles ~/tiles/valley.mbtiles && cd survey-7 && doit"


def _tiles(args: argparse.Namespace) -> TileSource | None:
    """Return the source with what is said of how it is read; UsageError for what has no effect on one of its kind."""
    given = {"scheme": args.source_scheme, "pattern": args.pattern, "table": args.table}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        needs(OPTIONS[name], "--tiles SRC", given=True, there=args.tiles is not None)
    if args.tiles is None:
        return None
    source = TileSource(path=args.tiles, **given)
    if "pattern" in given or "table" in given:
        kind = kind_of(source) if args.tiles.exists() else ""
        needs("--pattern", "a directory of tiles", given="pattern" in given, there=kind in ("xyz", ""))
        needs("--table", "a GeoPackage", given="table" in given, there=kind in ("geopackage", ""))
    return source


def run(args: argparse.Namespace) -> int:
    """Make the cache directory and say what to do next."""
    tiles = _tiles(args)
    with closing(listen("human", sys.stderr)):
        new = create_cache(
            args.directory, tiles=tiles, mission=args.mission, area=args.area, backbone=args.backbone, key=args.key
        )
    print(f"{printable(new.directory)}: flight.toml, dodo.py and doit.cfg written")
    if new.key_is_new:
        print(key_text(new))
    print(network_text(new))
    if new.survey is None:
        print("next: name your tiles and area in flight.toml, then run `doit` there", file=sys.stderr)
    else:
        print(as_text(new))
        print(f"next: {typed('cd', new.directory)} && doit")
    return 0
