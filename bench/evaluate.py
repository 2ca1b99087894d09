"""What centring, whitening and rotations add: recall on perturbed crops of real tiles, two backbones, chance beside it.

    python bench/evaluate.py [WORD...]         only the tables whose title holds a word; all if none

Needs ../shared/data beside the checkout. Writes a section of bench/RESULTS.md for each table. The settings are those
of `flightcache evaluate --try`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.crops import make_crops  # noqa: E402
from bench.results import machine, replace_section  # noqa: E402
from provisioning.cli import main as flightcache  # noqa: E402
from provisioning.cli.begin.init import create_cache  # noqa: E402
from provisioning.flight.signing import generate_key  # noqa: E402
from rules import build  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
SETS = (("oam_banepa", 19), ("oam_kampala", 21))
TRANSFORMS = ("transform=center", "transform=pca(64)", "transform=pca-whiten(32)")
ROTATIONS = ("rotate=1", "rotate=8", "rotate=16", "rotations=8,rotate=1", "rotations=16,rotate=1")
SQUEEZENET = {
    '# channels = "rgb"': 'channels = "bgr"',
    "# scale = 0.00392156862745098": "scale = 1",
    "# mean = []": "mean = [103.94, 116.78, 123.68]",
}
PHOTOS = (
    ("centre within 15 % of a tile's, yaw known", 0.15, False, TRANSFORMS),
    ("centre within 25 % of a tile's, yaw known", 0.25, False, TRANSFORMS),
    ("centre within 15 % of a tile's, any heading (first row: yaw known)", 0.15, True, ROTATIONS),
)


def main(words: list[str]) -> None:
    """Build the caches, make the photos, evaluate every setting, write the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        generate_key(root / "key.pem", password=None)
        for name, zoom in SETS:
            wanted = [
                (f"{name} z{zoom}: {title}", *rest)
                for title, *rest in PHOTOS
                if not words or any(word in f"{name} z{zoom}: {title}" for word in words)
            ]
            caches = {model: new_cache(root, name, model) for model in ("gist-color", "squeezenet") if wanted}
            for title, offset, turned, tries in wanted:
                folder = root / f"photos-{title}"
                make_crops(DATA / "tiles" / name, zoom, folder, offset=offset, turned=turned)
                lines = table(folder / "queries.csv", caches, tries)
                text = "\n".join(["`python bench/evaluate.py`", "", machine(), "", *lines])
                replace_section(ROOT / "bench" / "RESULTS.md", f"Recall, {title}", text)


def new_cache(root: Path, name: str, model: str) -> Path:
    """Build a cache over the tiles `name` with the built-in backbone or SqueezeNet."""
    cache = root / f"{name}-{model}"
    onnx = DATA / "models/squeezenet_gap512.onnx" if model == "squeezenet" else None
    create_cache(cache, tiles=DATA / "tiles" / name, key=root / "key.pem", backbone=onnx)
    text = (cache / "flight.toml").read_text()
    for old, new in SQUEEZENET.items() if onnx else ():
        text = text.replace(old, new, 1)
    (cache / "flight.toml").write_text(text)
    build(cache)
    return cache


def table(queries: Path, caches: dict[str, Path], tries: tuple[str, ...]) -> list[str]:
    """Return a table with a row a setting and a pair of columns a backbone."""
    found = {model: evaluated(queries, cache, tries) for model, cache in caches.items()}
    first = next(iter(found.values()))[0]
    head = f"{first['queries']} photos, {first['tiles']} tiles, right within {first['within_m']:.0f} m,"
    head += f" chance@1 {100 * first['recall']['1']['chance']:.1f} %"
    columns = [column for model in found for column in (f"{model} @1 [95 %]", f"{model} @5")]
    lines = [head, "", f"| setting | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for row, name in enumerate(("as built", *tries)):
        cells = [cell for rows in found.values() for cell in shown(rows[row]["recall"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(lines), flush=True)
    return [*lines, ""]


def shown(recall) -> tuple[str, str]:
    one, five = recall["1"], recall["5"]
    low, high = (round(100 * bound) for bound in one["interval_95"])
    return f"{100 * one['share']:.1f} [{low}, {high}]", f"{100 * five['share']:.1f}"


def evaluated(queries: Path, cache: Path, tries: tuple[str, ...]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        words = [word for setting in tries for word in ("--try", setting)]
        assert flightcache(["evaluate", str(queries), str(cache), "--json", *words]) == 0
    return json.loads(out.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
