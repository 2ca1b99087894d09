"""What a build makes of networks as people export them: architecture x exporter x opset x precision x backend.

    python bench/networks.py --tiles ../shared/data/tiles/oam_banepa --torch /path/to/python

`--torch` is an interpreter with PyTorch (bench/networks_torch.py says which packages); it exports and computes the
references. Here each file becomes the typed ONNX of each precision. Least cosine to PyTorch over the tiles; recall@1:
tiles seen 30 per cent of a side aside, brighter and compressed anew, found among all tiles, in this precision; and the
processor time of a tile, alone, on one core. A typed ONNX for TensorRT is compiled by TensorRT-RTX (no
GPU is needed for that) and computed by ONNX Runtime: what a GPU computes is not measured here.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from PIL import Image  # noqa: E402

from bench.results import machine, replace_section  # noqa: E402
from provisioning.base.errors import Error  # noqa: E402
from provisioning.config import Backbone, Engine  # noqa: E402
from provisioning.engines import engine_spec, select  # noqa: E402
from provisioning.engines.compile import compile_engine  # noqa: E402
from provisioning.engines.ort.onnx_network import in_batches  # noqa: E402
from provisioning.network import backbone as backbones  # noqa: E402
from provisioning.network.session import open_session  # noqa: E402
from provisioning.network.typing.typed import make_typed  # noqa: E402
from provisioning.sources.pixels.fitting import fit  # noqa: E402

Pixels = npt.NDArray[np.uint8]
SIDES = (224, 256)
FORMS = (("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("int8", "onnxruntime"), ("int8", "tensorrt_rtx"))
SMALL = ("EfficientNet-Lite0", "MobileNetV2")
"""Networks of the bounded form, which CI runs."""
LEAST_FP32 = 0.9999
ABOUT = """\
"trained": weights of the authors' package, else random ones from a fixed seed, whose recall says nothing of the
architecture. fp32, fp16, int8: least cosine to PyTorch over 48 tiles, of what a build makes of the file,
preprocessing included. recall@1: the same tiles seen 30 per cent of a side aside, brighter and compressed. int8 for
TensorRT is computed by ONNX Runtime here; what a GPU computes is not measured."""
HEAD = (
    "network", "exporter, opset", "fp32", "fp16", "int8", "int8 for TensorRT", "engine",
    "recall@1 of fp32, fp16, int8", "fp32 a tile", "fp16, int8 to that",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `said`: why there are no figures."""

    network: str
    export: str
    precision: str
    backend: str
    cosine: float = float("nan")
    recall: float = float("nan")
    time_s: float = float("nan")
    compiled: str = ""
    said: str = ""


def main() -> int:
    """Print the table; return 1 where a network in fp32 is not what PyTorch computes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, help="folder of images")
    parser.add_argument("--torch", default=sys.executable, help="interpreter with PyTorch (default: this one)")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(SMALL)} only")
    parser.add_argument("--only", nargs="*", default=[], help="words of networks' names")
    parser.add_argument("--compile", action="store_true", help="also compile int8 with TensorRT-RTX")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--results", type=Path, help="Markdown page whose section is replaced: docs/backbones.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        _write_tiles(folder, args.tiles)
        only = [*args.only, *(SMALL if args.quick else ())]
        script = ROOT / "bench/networks_torch.py"
        subprocess.run([args.torch, str(script), str(folder), "--only", *only], check=True, cwd=folder)
        rows = [row for network in json.loads((folder / "networks.json").read_text())
                for row in _rows(folder, network, rtx=args.compile)]  # fmt: skip
    text = _table(rows)
    print(text)
    if args.results:
        replace_section(args.results, "Measured: exporter, opset and precision", text)
    return int(any(row.precision == "fp32" and row.cosine < LEAST_FP32 for row in rows))


def _write_tiles(folder: Path, source: Path, most: int = 48) -> None:
    files = sorted(path for path in source.rglob("*") if path.suffix in (".jpg", ".png", ".webp"))
    chosen = files[:: max(1, len(files) // most)][:most]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    for side in SIDES:
        np.save(folder / f"tiles-{side}.npy", np.stack([fit(image, (side, side), "resize") for image in images]))


def _seen_again(tiles: Pixels) -> Pixels:
    """Return each tile moved by 30 per cent of its side, brighter, and through JPEG at quality 60."""
    moved = np.roll(tiles, (tiles.shape[1] * 3 // 10, -tiles.shape[2] * 3 // 10), (1, 2))
    bright = np.clip(moved.astype(np.float32) * 1.15 + 8, 0, 255).astype(np.uint8)
    return np.stack([_compressed(image) for image in bright])


def _compressed(image: Pixels) -> Pixels:
    held = io.BytesIO()
    Image.fromarray(image).save(held, "JPEG", quality=60)
    return np.asarray(Image.open(held))


def _rows(folder: Path, network: dict[str, Any], *, rtx: bool) -> Iterator[Row]:
    tiles = np.load(folder / f"tiles-{network['side']}.npy")
    expected = np.load(folder / f"{network['stem']}.npy")
    for export, file in network["files"].items():
        if not file.endswith(".onnx"):
            yield Row(network=network["name"], export=export, precision="", backend="", said=file)
            continue
        for precision, backend in FORMS:
            row = {"network": network["name"], "export": export, "precision": precision, "backend": backend}
            try:
                yield Row(**row, **_figures(folder / file, network, tiles, expected, precision, backend, rtx=rtx))
            except Exception as error:  # noqa: BLE001 - a cell of the table: ours, or onnxruntime's from C++
                yield Row(**row, said=" ".join(str(error).split())[:90])


def _figures(
    file: Path, network: dict[str, Any], tiles: Pixels, expected: Any, precision: str, backend: str, *, rtx: bool
) -> dict[str, Any]:
    values = {key: tuple(Decimal(str(v)) for v in network["values"][key]) for key in ("mean", "std")}
    scale = {"scale": Decimal(network["values"]["scale"])} if "scale" in network["values"] else {}
    size = (network["side"], network["side"])
    backbone = Backbone(name="net", onnx=str(file), size=size, precision=precision, **values, **scale)
    output = file.with_suffix(f".{precision}.{backend}")
    source = backbones.onnx_source(backbone, file.parent, None)
    make_typed(backbone, source, output, lambda count: iter(tiles[: min(count, 24)]), backend=backend)
    compiled = _compiled(output, file.parent) if rtx and backend == "tensorrt_rtx" else ""
    session = open_session(str(output), None, level="ORT_ENABLE_ALL")
    found, again = (_vectors(session, images) for images in (tiles, _seen_again(tiles)))
    cosine = float((found * expected).sum(1).min())
    recall = float(np.mean((again @ found.T).argmax(1) == np.arange(len(tiles))))
    times = [_seconds(session, tiles[:1]) for _ in range(7)]
    output.unlink()
    return {"cosine": cosine, "recall": recall, "time_s": min(times), "compiled": compiled}


def _vectors(session: Any, tiles: Pixels) -> Any:
    name = session.get_inputs()[0].name
    vectors = in_batches(
        lambda part: session.run(None, {name: part})[0], tiles, _fixed(session) or 8, session.get_outputs()[0].shape[-1]
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _fixed(session: Any) -> int | None:
    batch = session.get_inputs()[0].shape[0]
    return batch if isinstance(batch, int) else None


def _seconds(session: Any, tile: Pixels) -> float:
    count = _fixed(session) or 1
    started = time.process_time()
    session.run(None, {session.get_inputs()[0].name: np.repeat(tile, count, axis=0)})
    return (time.process_time() - started) / count


def _compiled(typed: Path, folder: Path) -> str:
    """Return what TensorRT-RTX makes of the file for a GPU that is not here: its size, or why none."""
    engine = Engine(backend="tensorrt_rtx", host={"sm": "86"})
    spec = engine_spec(typed, select(engine).probe(), Backbone(name="net"), engine, state=folder / "state")
    try:
        compile_engine(spec, folder / "plan", log=folder / "log")
    except Error as error:
        return str(error).splitlines()[0]
    return f"{(folder / 'plan').stat().st_size / 1e6:.0f} MB"


def _table(rows: list[Row]) -> str:
    """Return one line for each exported file."""
    lines = [f"Made by `bench/networks.py` on {machine()}. {ABOUT}", "", *_line(HEAD), "|" + "---|" * len(HEAD)]
    for network, export in dict.fromkeys((row.network, row.export) for row in rows):
        forms = [row for row in rows if (row.network, row.export) == (network, export)]
        if len(forms) < len(FORMS):
            lines += _line([network, export, forms[0].said, *[""] * (len(HEAD) - 3)])
            continue
        fp32, fp16, int8, tensorrt = forms
        lines += _line([
            network, export, *(_cosine(form) for form in forms), tensorrt.compiled or "-",
            " ".join(f"{form.recall:.2f}" for form in (fp32, fp16, int8)),
            f"{fp32.time_s * 1e3:.0f} ms", f"{fp16.time_s / fp32.time_s:.2f} {int8.time_s / fp32.time_s:.2f}",
        ])  # fmt: skip
    return "\n".join(lines)


def _cosine(row: Row) -> str:
    return row.said or f"{row.cosine:.6f}"


def _line(cells: Any) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


if __name__ == "__main__":
    sys.exit(main())
