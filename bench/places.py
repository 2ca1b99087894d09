"""How well places are found again on real and on synthetic imagery: the self-localisation gate over index settings.

    python bench/places.py --tiles ../shared/data/tiles/oam_banepa ../shared/data/tiles/oam_kampala --demo

For each set of tiles, the built-in backbone and each of several index settings: recall@1 of every tile of the set seen
otherwise, one row for each perturbation of `provisioning/quality/gates/perturb.py`
and, below, three for a camera whose heading
is off by 30, 45 or 90 degrees. Deterministic. Writes nothing unless --results names a file, whose section `places` is
then replaced.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.results import replace_section  # noqa: E402
from provisioning.base.geometry import geo  # noqa: E402
from provisioning.base.geometry.angles import BBox  # noqa: E402
from provisioning.build.request import requirements_of  # noqa: E402
from provisioning.catalogue import corpus_table, iter_tiles, scan  # noqa: E402
from provisioning.cli.begin.demo_imagery import write_demo_tiles  # noqa: E402
from provisioning.config.schema import Area, Backbone, Flight, Gates, Index, Tiles, TileSource  # noqa: E402
from provisioning.descriptors import decoded_tiles  # noqa: E402
from provisioning.engines import Network  # noqa: E402
from provisioning.engines.accuracy.fidelity import reference_network  # noqa: E402
from provisioning.index.ids import rows_of  # noqa: E402
from provisioning.index.read import load_index, search  # noqa: E402
from provisioning.index.write.build import build  # noqa: E402
from provisioning.network.backbone import onnx_source  # noqa: E402
from provisioning.network.backbone.image import turn  # noqa: E402
from provisioning.quality.gates.perturb import PERTURBATIONS, turned  # noqa: E402
from provisioning.quality.gates.subject import Subject  # noqa: E402

HEADINGS = {f"heading off by {angle} deg": turned(angle) for angle in (30, 45, 90)}
SETTINGS = (("none", 1), ("center", 1), ("pca(64)", 1), ("pca-whiten(64)", 1), ("none", 4), ("none", 8))


def bounds(tiles: Path) -> BBox:
    """Return the box around all tiles of a directory."""
    boxes = [geo.tile_bounds_e7(int(f.parts[-3]), int(f.parts[-2]), int(f.stem)) for f in tiles.glob("*/*/*.*")]
    return BBox(*(pick(box[side] for box in boxes) for side, pick in enumerate((min, min, max, max))))


def flight_of(root: Path, tiles: Path, backbone: str, rotations: int) -> Flight:
    zooms = tuple(sorted(int(each.name) for each in tiles.iterdir() if each.name.isdigit()))
    return Flight(
        root=root, area=Area(bbox=bounds(tiles), zooms=zooms, min_coverage=dict.fromkeys(zooms, Decimal(0))),
        tiles=Tiles(source=(TileSource(path=tiles, name="tiles"),), on_error="skip"),
        backbone=(Backbone(name="b", onnx=backbone),), gates=Gates(samples=10_000), index=Index(rotations=rotations),
    )  # fmt: skip


def recalls(tiles: Path, backbone: str) -> tuple[int, Mapping[str, list[float]]]:
    """Return the number of tiles, and recall@1 of each perturbation under each of SETTINGS."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / ".build").mkdir()
        flight = flight_of(root, tiles, backbone, 1)
        corpus = scan(flight.selection, flight.build_dir)
        network = reference_network(flight.backbone[0], onnx_source(flight.backbone[0], root, None))
        with decoded_tiles(flight.tiles, flight.build_dir) as decoded:
            images = {bytes.fromhex(t.sha256): decoded(t) for t in iter_tiles(flight.build_dir)}
            subject = Subject(
                requirements_of(flight),
                corpus,
                rows_of(*corpus_table(flight.build_dir)),
                lambda _: np.empty((0, 0)),
                None,
                network,
                decoded,
                "resize",
            )
            views = described(subject, network)
        columns = [
            column(flight_of(root, tiles, backbone, n), how, images, network, subject, views) for how, n in SETTINGS
        ]
    return len(subject.sample), {name: [each[name] for each in columns] for name in columns[0]}


def described(subject: Subject, network: Network) -> dict[str, np.ndarray]:
    """Return the descriptors of every view of every tile, by perturbation."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*PERTURBATIONS, *HEADINGS)}
    for number, row in enumerate(subject.sample):
        scene = subject.scene(int(row))
        every = {**PERTURBATIONS, **HEADINGS}
        seen = network(np.stack([subject.seen(perturb(scene, number)) for perturb in every.values()]))
        for name, vector in zip(every, seen, strict=True):
            found[name].append(vector)
    return {name: np.stack(vectors) for name, vectors in found.items()}


def column(
    flight: Flight,
    transform: str,
    images: dict[bytes, np.ndarray],
    network: Network,
    subject: Subject,
    views: dict[str, np.ndarray],
) -> dict[str, float]:
    """Return recall@1 by perturbation under one setting."""
    turns = flight.index.rotations
    rows = rows_of(*corpus_table(flight.build_dir), rotations=turns)
    by_heading = [
        {
            sha: network(subject.seen(turn(image, Fraction(n, turns)) if n else image)[None])[0]
            for sha, image in images.items()
        }
        for n in range(turns)
    ]
    gather = rows.gather([lambda keys, h=h: np.stack([h[key] for key in keys]) for h in by_heading])
    output = flight.root / "index"
    build(Index(kind="flat", transform=transform), rows.ids, gather, output)
    index = load_index(output.read_bytes())
    truth = subject.rows.ids[subject.sample] >> 14
    return {name: float((search(index, seen, 1)[1][:, 0] >> 14 == truth).mean()) for name, seen in views.items()}


def table(name: str, count: int, found: Mapping[str, list[float]]) -> str:
    heads = [how if n == 1 else f"{how}, rotations {n}" for how, n in SETTINGS]
    lines = [f"### {name}: {count} tiles, chance {1 / count:.4f}", "", f"| recall@1 | {' | '.join(heads)} |",
             "|" + "---|" * (len(heads) + 1)]  # fmt: skip
    return "\n".join(
        [*lines, *(f"| {row} | {' | '.join(f'{v:.2f}' for v in values)} |" for row, values in found.items())]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, nargs="*", default=[])
    parser.add_argument("--demo", action="store_true", help="also the imagery of `flightcache demo`")
    parser.add_argument("--backbone", default="builtin:gist-color")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    sets = {path.name: path for path in args.tiles}
    with tempfile.TemporaryDirectory() as scratch:
        if args.demo:
            write_demo_tiles(Path(scratch) / "demo")
            sets["demo imagery (synthetic)"] = Path(scratch) / "demo"
        tables = [table(name, *recalls(path, args.backbone)) for name, path in sets.items()]
    text = f"{args.backbone}, `python {' '.join(sys.argv)}`\n\n" + "\n\n".join(tables)
    print(text)
    if args.results:
        replace_section(args.results, "Places", text)


if __name__ == "__main__":
    main()
