"""What cuts half a tile apart add: recall on perturbed crops of real tiles whose centres lie anywhere in a tile.

    python bench/overlap.py [oam_banepa] [oam_kampala]

Needs ../shared/data beside the checkout and the extra of builtin:efficientnet-lite0. Writes a section of
bench/RESULTS.md for each set of tiles.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.crops import make_crops  # noqa: E402
from bench.results import machine, replace_section  # noqa: E402
from provisioning.cli import main as flightcache  # noqa: E402
from provisioning.cli.begin.init import create_cache  # noqa: E402
from provisioning.flight.manifest import parse  # noqa: E402
from provisioning.flight.signing import generate_key  # noqa: E402
from rules import build  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
SETS = (("oam_banepa", 19, 68.0, 4), ("oam_kampala", 21, 19.0, 2))
"""Tiles, their zoom, the side of one on the ground in metre, photos of each."""
MODELS = ("builtin:efficientnet-lite0", "builtin:gist-color")
SHARES = (0.5, 1.0)
"""Right within these shares of a tile's side."""
WAIVED = '\n[[waiver]]\ngate = "recognition"\nby = "bench"\nreason = "measured here"\n'


def main(words: list[str]) -> None:
    """Build each set without and with cuts, ask for the same photos, write the tables; `words` choose sets."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        generate_key(root / "key.pem", password=None)
        for name, zoom, side_m, each in SETS:
            if words and name not in words:
                continue
            make_crops(DATA / "tiles" / name, zoom, root / name, offset=0.5, turned=False, each=each)
            lines = list(table(root, name, side_m))
            text = "\n".join(["`python bench/overlap.py`", "", machine(), "", *lines])
            replace_section(ROOT / "bench" / "RESULTS.md", f"Recall with cuts half a tile apart, {name} z{zoom}", text)


def table(root: Path, name: str, side_m: float):
    """Yield the lines of a table with a row for each network and overlap."""
    heads = [f"within {share:g} sides ({share * side_m:.0f} m) @1 [95 %] / @5 / chance" for share in SHARES]
    yield f"| network, overlap | vectors | described in | {' | '.join(heads)} | gate, heading known / any |"
    yield "|---" * (4 + len(heads)) + "|"
    for model in MODELS:
        for overlap in (1, 2):
            cache = root / f"{name}-{model.partition(':')[2]}-{overlap}"
            create_cache(cache, tiles=DATA / "tiles" / name, key=root / "key.pem", backbone=Path(model))
            text = (cache / "flight.toml").read_text().replace("overlap = 0", f"overlap = {overlap}", 1)
            (cache / "flight.toml").write_text(text + WAIVED)
            begun = time.process_time()
            build(cache)
            took = time.process_time() - begun
            manifest = parse((cache / "current/Manifest.json").read_bytes())
            assert (manifest.descriptor_index.overlap or 1) == overlap
            cells = [cell(root / name / "queries.csv", cache, share * side_m) for share in SHARES]
            gates = " / ".join(str(manifest.gates[gate].measured)
                               for gate in ("recognition", "recognition.any_heading"))  # fmt: skip
            vectors = manifest.descriptor_index.vectors
            line = f"| {model}, {overlap} | {vectors} | {took:.0f} s | {' | '.join(cells)} | {gates} |"
            print(line, flush=True)
            yield line


def cell(queries: Path, cache: Path, within_m: float) -> str:
    """Return recall at rank 1 and 5, and chance."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        words = ["evaluate", str(queries), str(cache), "--json", "--within", f"{within_m:.1f}"]
        assert flightcache([*words, "--public-key", str(cache.parent / "key.pub.pem")]) == 0
    recall = json.loads(out.getvalue())[0]["recall"]
    one, five = recall["1"], recall["5"]
    low, high = (round(100 * bound) for bound in one["interval_95"])
    return f"{100 * one['share']:.0f} [{low}, {high}] / {100 * five['share']:.0f} / {100 * one['chance']:.1f}"


if __name__ == "__main__":
    main(sys.argv[1:])
