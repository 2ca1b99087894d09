"""Preprocessing of backbones that people use, so that a flight.toml names one instead of six numbers.

Read in the authors' own inference code; docs/backbones.md has the file and the commit of each. Keys left at their
default are filled; a key that is set stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from provisioning.base.frozen import dataclass
from provisioning.config import Backbone

D = Decimal
IMAGENET_MEAN = (D("0.485"), D("0.456"), D("0.406"))
IMAGENET_STD = (D("0.229"), D("0.224"), D("0.225"))
CLIP_MEAN = (D("0.48145466"), D("0.4578275"), D("0.40821073"))
CLIP_STD = (D("0.26862954"), D("0.26130258"), D("0.27577711"))
SATELLITE_MEAN = (D("0.430"), D("0.411"), D("0.296"))
SATELLITE_STD = (D("0.213"), D("0.156"), D("0.143"))
HALF = (D("0.5"),)
MATCONVNET_MEAN = (D("123.68"), D("116.779"), D("103.939"))


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a family of models expects. `size` is used only where the model does not fix its own; empty: any."""

    size: tuple[int, ...]
    dimensions: tuple[int, ...] = ()
    """Descriptor lengths that exist; empty: any."""
    scale: Decimal | None = None
    mean: tuple[Decimal, ...] = IMAGENET_MEAN
    std: tuple[Decimal, ...] = IMAGENET_STD
    fit: str | None = None
    resample: str | None = None


PRESETS = {
    "imagenet": Preset(size=(224, 224)),
    "dinov2-salad": Preset(size=(322, 322), dimensions=(544, 2176, 8448)),
    "megaloc": Preset(size=(322, 322), dimensions=(8448,)),
    "mixvpr": Preset(size=(320, 320), dimensions=(128, 512, 4096)),
    "eigenplaces": Preset(size=(512, 512), dimensions=(128, 256, 512, 1024, 2048)),
    "cosplace": Preset(size=(512, 512), dimensions=(32, 64, 128, 256, 512, 1024, 2048)),
    "boq-resnet50": Preset(size=(384, 384), dimensions=(16384,), resample="bicubic"),
    "boq-dinov2": Preset(size=(322, 322), dimensions=(12288,), resample="bicubic"),
    "cricavpr": Preset(size=(224, 224), dimensions=(10752,)),
    "anyloc": Preset(size=(), dimensions=(49152,), resample="bicubic"),
    "clip": Preset(
        size=(224, 224), dimensions=(512, 640, 768, 1024), mean=CLIP_MEAN, std=CLIP_STD, fit="crop", resample="bicubic"
    ),
    "dinov2": Preset(size=(224, 224), fit="crop", resample="bicubic"),
    "dinov3": Preset(size=(256, 256)),
    "dinov3-sat": Preset(size=(256, 256), mean=SATELLITE_MEAN, std=SATELLITE_STD),
    "siglip": Preset(size=(224, 224), mean=HALF, std=HALF, resample="bicubic"),
    "netvlad": Preset(size=(), dimensions=(4096, 32768), scale=D(1), mean=MATCONVNET_MEAN, std=()),
}
_GIST = Preset(size=(128, 128), scale=D(1), mean=(), std=())
BUILTINS: Mapping[str, Preset] = {
    "builtin:efficientnet-lite0": Preset(size=(224, 224), scale=D(1), mean=(D(127),), std=(D(128),)),
    "builtin:gist-color": _GIST,
    "builtin:gist-gray": _GIST,
}
"""What the built-in backbones expect, by name; docs/backbones.md says what each is good for."""

_DEFAULTS = {f.name: f.default for f in fields(Backbone)}


def preset_of(backbone: Backbone) -> Preset | None:
    """Return the preset that `backbone` names, is built in with, or None."""
    return BUILTINS.get(backbone.onnx) or PRESETS.get(backbone.preset)


def resolved(backbone: Backbone) -> Backbone:
    """Return `backbone` with the keys of its preset filled in where they were left at their defaults."""
    preset = preset_of(backbone)
    if preset is None:
        return backbone
    return replace(
        backbone,
        scale=_filled(backbone, "scale", preset.scale),
        mean=_filled(backbone, "mean", preset.mean),
        std=_filled(backbone, "std", preset.std),
        fit=_filled(backbone, "fit", preset.fit),
        resample=_filled(backbone, "resample", preset.resample),
    )


def declared_normalisation(backbone: Backbone) -> str:
    """Return the keys among scale, mean and std that are not at their defaults, for a message."""
    names = ("scale", "mean", "std")
    return ", ".join(name for name in names if getattr(backbone, name) != _DEFAULTS[name])


def _filled(backbone: Backbone, name: str, value: Any) -> Any:
    """Return the preset's `value` where flight.toml left `name` at its default."""
    own = getattr(backbone, name)
    return own if value is None or own != _DEFAULTS[name] else value
