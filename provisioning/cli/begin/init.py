"""`flightcache init`: a new cache directory with flight.toml, dodo.py and doit.cfg."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from provisioning.base.angles import BBox
from provisioning.base.errors import ConfigError, SigningError
from provisioning.base.files import make_dirs, require_local_filesystem, wrap_os_errors, write_new
from provisioning.catalogue.surveying import Survey, survey
from provisioning.config.template import render
from provisioning.flight import signing

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
"""

FILES = ("flight.toml", "dodo.py", "doit.cfg")


@dataclass(frozen=True, kw_only=True)
class NewCache:
    """What was written, and the key that will sign."""

    directory: Path
    key: Path
    public_key: Path
    key_is_new: bool
    survey: Survey | None


def create_cache(
    directory: Path,
    *,
    tiles: Path | None = None,
    backbone: Path | None = None,
    key: Path | None = None,
    calibration: Iterable[Path] = (),
    flight_id: str | None = None,
) -> NewCache:
    """Write flight.toml, dodo.py and doit.cfg into `directory`, which is made where it is not there.

    With `tiles` the area and zoom levels are what the source holds. Without `key` a new pair is made outside the
    directory. Raises ConfigError if one of the files is there already, FilesystemError, SigningError, TileError.
    """
    found = [name for name in FILES if os.path.lexists(directory / name)]
    if found:
        raise ConfigError(
            f"{', '.join(found)} is already there", file=directory, next_step="choose another directory, or edit it"
        )
    held = survey(tiles) if tiles else None
    with wrap_os_errors("make the cache directory", directory):
        make_dirs(directory)
    require_local_filesystem(directory)
    private = key.absolute() if key else new_key(directory.absolute().name)
    values = _values(
        directory.absolute(),
        held,
        tiles=tiles,
        backbone=backbone,
        key=private,
        calibration=calibration,
        flight=flight_id,
    )
    with wrap_os_errors("write the files of a new cache", directory):
        write_new(directory / "dodo.py", DODO.encode())
        write_new(directory / "doit.cfg", DOIT_CFG.encode())
        write_new(directory / "flight.toml", render(values).encode())
    public = signing.public_key_path(private)
    return NewCache(directory=directory, key=private, public_key=public, key_is_new=key is None, survey=held)


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
    tiles: Path | None,
    backbone: Path | None,
    key: Path,
    calibration: Iterable[Path],
    flight: str | None,
) -> Mapping[str, Any]:
    def named(path: Path) -> str:
        """Paths below the cache directory are written relative to it, so that it can be moved."""
        path = path.absolute()
        return os.path.relpath(path, directory) if path.is_relative_to(directory) else str(path)

    model = {"name": _model_name(backbone), "onnx": named(backbone)} if backbone else {"name": "gist-color"}
    return {
        "flight": {"id": flight} if flight else {},
        "area": _area(held) if held else {},
        "tiles.source": [{"path": named(tiles)}] if tiles else [],
        "backbone": [model],
        "calibration": [{"path": named(path)} for path in calibration],
        "signing": {"key": named(key)},
    }


def _model_name(onnx: Path) -> str:
    """Return a name that may stand in an engine's file name, where underscores part the fields."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", onnx.stem).strip("-.")[:64] or "backbone"


def _area(held: Survey) -> dict[str, Any]:
    """Return the area that a source covers; the coverage it has is what is asked of it from now on."""
    coverage = {str(z): _share(count.present, count.expected) for z, count in sorted(held.per_zoom.items())}
    asked = {zoom: share for zoom, share in coverage.items() if share < 1}
    area: dict[str, Any] = {"bbox": _degrees(held.bbox), "zooms": sorted(held.per_zoom)}
    return {**area, "min_coverage": asked} if asked else area


def _share(present: int, expected: int) -> Decimal:
    return (Decimal(present) / Decimal(expected)).quantize(Decimal("0.0001"), rounding=ROUND_DOWN)


def _degrees(bbox: BBox) -> list[Decimal]:
    return [Decimal(side).scaleb(-7) for side in bbox]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the new cache directory")
    parser.add_argument("--tiles", type=Path, metavar="SRC", help="XYZ directory, .mbtiles, .pmtiles or GeoTIFF")
    parser.add_argument("--backbone", type=Path, metavar="ONNX", help="descriptor network; default: built-in GIST")
    parser.add_argument("--key", type=Path, metavar="PEM", help="Ed25519 private key; default: a new pair is made")
    parser.epilog = "example: flightcache init survey-7 --tiles ~/tiles/valley.mbtiles && cd survey-7 && doit"


def run(args: argparse.Namespace) -> int:
    """Make the cache directory and say what to do next."""
    new = create_cache(args.directory, tiles=args.tiles, backbone=args.backbone, key=args.key)
    print(f"{new.directory}: flight.toml, dodo.py and doit.cfg written")
    if new.key_is_new:
        print(f"new signing key {new.key} (keep it secret); its public half, for the aircraft: {new.public_key}")
    if new.survey is None:
        print("next: name your tiles and area in flight.toml, then run `doit` there", file=sys.stderr)
    else:
        counts = ", ".join(f"zoom {z}: {c.present} of {c.expected}" for z, c in sorted(new.survey.per_zoom.items()))
        print(f"tiles found: {counts}")
        print(f"next: cd {new.directory} && doit")
    return 0
