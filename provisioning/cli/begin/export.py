"""`flightcache export`: an ONNX file from the weights that a network's authors publish."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from provisioning.base.disk.files import read_input, wrap_os_errors
from provisioning.base.errors import BackboneError, FilesystemError
from provisioning.base.printable import printable
from provisioning.config import Tiles
from provisioning.network.export import export, exporter_of
from provisioning.sources.pixels.fitting import Pixels
from provisioning.sources.pixels.image import decode

COMPARED = 8
"""Tiles that are compared, evenly out of those given."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("preset", metavar="PRESET", help="efficientnet-lite0, mobilenetv2 or xfeat")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="state dict of PyTorch, .pt or .pth"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="ONNX file to write, new")
    parser.add_argument(
        "--tiles", type=Path, metavar="FOLDER", help="tiles to compare with PyTorch on; default: drawn ground"
    )
    parser.epilog = (
        "Needs PyTorch: pip install 'flightcache[export]'. Prints the lines for flight.toml.\n"
        "example: flightcache export xfeat --weights xfeat.pt -o models/xfeat.onnx --tiles tiles/"
    )


def run(args: argparse.Namespace) -> int:
    """Write the model, then print how near it is to PyTorch and its [[backbone]]."""
    exporter = exporter_of(args.preset)
    if not args.weights.is_file():
        raise BackboneError("no weights here", file=args.weights, next_step="name the .pt or .pth file")
    if os.path.lexists(args.output):
        raise FilesystemError("a file is there already", file=args.output, next_step="choose another name with -o")
    images = _images(args.tiles) if args.tiles else _drawn()
    made = export(exporter, args.weights, images, args.output)
    print(f"# {printable(args.output)}: {made.dimension} numbers a tile; cosine to PyTorch at least {made.cosine:.6f}")
    where = printable(args.tiles) if args.tiles else "drawn ground (--tiles compares on yours)"
    print(f"# on {len(images)} tiles of {where}")
    print(made.lines())
    return 0


def _images(folder: Path) -> list[Pixels]:
    """Return some of the tiles below `folder`, evenly out of all; TileError where one cannot be decoded."""
    if folder.is_file():
        raise BackboneError("this is no folder of images", file=folder, next_step="give a folder of JPEG or PNG tiles")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise BackboneError(
            "no images here", file=folder, facts={"looked for": ", ".join(SUFFIXES)}, next_step="name a folder of tiles"
        )
    chosen = found[:: max(1, len(found) // COMPARED)][:COMPARED]
    with wrap_os_errors("read a tile"):
        return [decode(read_input(path), max_pixels=Tiles.max_pixels) for path in chosen]


def _drawn() -> list[Pixels]:
    from provisioning.cli.begin.demo_imagery import draw_patch

    return [draw_patch(column, column) for column in range(COMPARED)]
