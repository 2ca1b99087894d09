"""One run of a prepared network, so that a useless one is found before hours are spent on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from provisioning.base.errors import BackboneError, EngineError
from provisioning.network.backbone.presets import Preset
from provisioning.network.session import run_limited, session_options

TRIAL_S = 300.0
"""Longest run of a model on a batch; the largest backbones take seconds."""
TRACED = (1, 2, 4, 8, 16, 32)
"""Batches that exporters trace with, and that some graphs hold though they declare a free one."""
DOES_NOT_RUN = "the model does not run"
NOT_ONE_FOR_EACH = "the model does not give one descriptor for each tile"
SAME = 1e-6
"""Two descriptors nearer than this in every component are the same: float32 noise of a deep network is below."""


def trial(
    model: onnx.ModelProto, file: str, preset: Preset | None, custom_ops: Path | None, weights: Path | None = None
) -> int:
    """Run `model` on three unlike images and return the length of its descriptors.

    `weights`: the directory of external data, where the model has not loaded it.
    BackboneError: cannot run, other shape, non-finite, the same descriptor for all, a length the preset excludes.
    """
    images = _unlike_images(model)
    with running(file):
        outputs = _run(session_of(model, custom_ops, weights), images, model)
    free = not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return _width(outputs, len(images) if free else 2, file, preset)


def measured_shape(
    model: onnx.ModelProto, batch: int | None, custom_ops: Path | None, weights: Path | None = None
) -> tuple[int, tuple[int, ...] | None]:
    """Return how many images `model` was given, and the shape of its only output; None where it does not run.

    `batch` is the one that the model fixes, or None: then two images are tried, and what it may be traced with.
    """
    images = _unlike_images(model)
    with contextlib.suppress(Exception):  # the trial of the whole network says what is wrong
        session = session_of(model, custom_ops, weights)
        for count in (batch,) if batch else (2, *TRACED):
            given = np.resize(images, (count, *images[0].shape))
            with contextlib.suppress(Exception):
                return count, tuple(np.shape(session.run(None, {"tiles": given})[0]))
    return batch or 1, None


@contextlib.contextmanager
def running(file: str, *, next_step: str | None = None, **facts: object) -> Iterator[None]:
    """Make a BackboneError of `file` of whatever onnxruntime raises in the block, with `facts` before its own words."""
    try:
        yield
    except EngineError as error:
        raise BackboneError(error.what, file=file, next_step=error.next_step) from error
    except Exception as error:  # onnxruntime raises a dozen classes straight from C++, all of them Exception
        text = " ".join(str(error).split())
        facts = {**facts, "onnxruntime says": text[:500]}
        raise BackboneError(DOES_NOT_RUN, file=file, facts=facts, next_step=next_step) from error


def session_of(model: onnx.ModelProto, custom_ops: Path | None, weights: Path | None) -> Any:
    """Return a session of a model in preparation. weights: the directory of external data that is not loaded."""
    options = session_options("ORT_ENABLE_BASIC", custom_ops, weights)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _unlike_images(model: onnx.ModelProto) -> npt.NDArray[np.uint8]:
    """Return noise, a ramp and noise [3, H, W, 3]: no network that looks at its input gives them the same descriptor.

    Three, since many networks are traced with one image or two.
    """
    _, height, width, _ = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (height, width, 3), np.uint8)
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    return np.stack([noise, ramp, noise[::-1]])


def _run(session: Any, images: npt.NDArray[np.uint8], model: onnx.ModelProto) -> list[npt.NDArray[np.float32]]:
    """Return what the model gives for each image, [1, D] where all is well."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if not fixed:
        return _each(np.asarray(_once(session, images)), len(images))
    return [_repeated(np.asarray(_once(session, np.repeat(image[None], fixed, axis=0))), fixed) for image in images[:2]]


def _each(output: npt.NDArray[np.float32], count: int) -> list[npt.NDArray[np.float32]]:
    """Return an output for each of `count` images; as it is where it cannot be divided."""
    return np.split(output, count) if output.ndim and len(output) == count else [output]


def _repeated(output: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return one descriptor of an image that was given `count` times; the output as it is where they are not alike."""
    alike = output.ndim and len(output) == count and np.allclose(output, output[:1], atol=SAME, equal_nan=True)
    return output[:1] if alike else output


def _once(session: Any, images: npt.NDArray[np.uint8]) -> Any:
    return run_limited(session, None, {"tiles": images}, within_s=TRIAL_S)[0]


def _width(outputs: list[npt.NDArray[np.float32]], count: int, file: str, preset: Preset | None) -> int:
    """Return the length of the descriptors; BackboneError where `outputs` are not one for each of `count` images."""
    if len(outputs) != count or any(o.shape != (1, *outputs[0].shape[1:2]) for o in outputs):
        raise BackboneError(
            NOT_ONE_FOR_EACH,
            file=file,
            facts={"tiles": count, "shape": [list(o.shape) for o in outputs]},
            next_step="declare backbone.output and backbone.pooling, or export it with a free batch",
        )
    found = np.concatenate(outputs)
    if not np.isfinite(found).all():
        raise BackboneError(
            "the model gives non-finite numbers",
            file=file,
            next_step="check scale, mean and std; an fp16 model overflows above 65504",
        )
    if np.ptp(found, axis=0).max(initial=0) <= SAME:
        raise BackboneError(
            "the model gives a constant descriptor: the same for unlike images",
            file=file,
            next_step="check backbone.input, backbone.output, and that the weights are loaded",
        )
    if preset and preset.dimensions and found.shape[1] not in preset.dimensions:
        raise BackboneError(
            f"the descriptor has {found.shape[1]} numbers, which this preset does not know",
            file=file,
            key="backbone.preset",
            facts={"it knows": ", ".join(map(str, preset.dimensions))},
            next_step="declare scale, mean and std without the preset",
        )
    return int(found.shape[1])
