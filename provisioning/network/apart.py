"""What opens a user's ONNX model before it is compiled, called in another process (`base.process.confined`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.errors import BackboneError
from provisioning.base.process import confined
from provisioning.config import Backbone
from provisioning.network.backbone.source import OnnxSource, trees

if TYPE_CHECKING:
    from provisioning.network.rehearsal import Rehearsal
    from provisioning.network.typing.facts import Images

TIME_S, TIME_PER_TILE_S = 1200.0, 30.0
"""Seconds for reading, converting and trying a model (three runs of at most 300 s), and for each tile it sees."""
COPIES = 12
"""Bytes of memory for each byte of the model: graph, converted graph, sessions."""


def locations(path: Path) -> tuple[str, ...]:
    """Return the files of weights that the model at `path` names. See `backbone.external.locations`."""
    return tuple(map(str, _call(_locations, path, files=(path,), size_bytes=path.stat().st_size)))


def image_size(backbone: Backbone, source: OnnxSource) -> tuple[int, int]:
    """Return height and width of the images that the prepared network takes. See `backbone.wrap.tile_size`."""
    height, width = _call(_image_size, backbone, source, files=_files(backbone, source), size_bytes=_size_bytes(source))
    return int(height), int(width)


def measured(backbone: Backbone, source: OnnxSource) -> tuple[int, int, int]:
    """Prepare the network and try it; return image height and width and descriptor length. BackboneError."""
    found = _call(_measured, backbone, source, files=_files(backbone, source), size_bytes=_size_bytes(source))
    height, width, dimension = (int(number) for number in found)
    return height, width, dimension


def rehearsed(backbone: Backbone, source: OnnxSource) -> Rehearsal:
    """Prepare the network and run it on a few images. See `rehearsal.rehearse`; its errors."""
    from provisioning.network.rehearsal import Rehearsal
    from provisioning.network.shape import Shape

    shape, *seconds = _call(
        _rehearsed, backbone, source, files=_files(backbone, source), size_bytes=_size_bytes(source)
    )
    return Rehearsal(Shape(*map(int, shape)), *map(float, seconds))


def make_typed(backbone: Backbone, source: OnnxSource, output: Path, images: Images, *, backend: str) -> None:
    """Write the typed ONNX of `backbone` to `output`. See `typing.typed.make_typed`."""
    made = confined.output(output) if source.files else output
    _call(
        _make_typed,
        backbone,
        source,
        made,
        backend,
        files=_files(backbone, source),
        size_bytes=_size_bytes(source),
        images=images,
        tiles=backbone.calibration_tiles if backbone.precision == "int8" else 0,
    )
    if made != output:
        with wrap_os_errors("keep the network", output):
            shutil.move(made, output)


def check_range(backbone: Backbone, source: OnnxSource, images: Images) -> int:
    """Return how many tiles the range of fp16 was checked on. See `typing.typed.check_range`."""
    from provisioning.network.typing import typed
    from provisioning.network.typing.facts import RANGE_TILES

    files, size_bytes = _files(backbone, source), _size_bytes(source)
    return int(
        _call(
            typed.check_range, backbone, source,
            files=files, size_bytes=size_bytes, images=images, tiles=RANGE_TILES,
        )
    )  # fmt: skip


def _files(backbone: Backbone, source: OnnxSource) -> tuple[Path, ...]:
    return (*source.files, *filter(None, [backbone.custom_ops]))


def _size_bytes(source: OnnxSource) -> int:
    return sum(file.stat().st_size for file in source.files)


def _call(
    function: Callable[..., Any],
    *arguments: object,
    files: Iterable[Path],
    size_bytes: int,
    images: Images | None = None,
    tiles: int = 0,
) -> Any:
    files, given = tuple(files), {} if images is None else {"images": images}
    if not files:  # a built-in backbone is ours
        return function(*arguments, **given)
    return confined.call(
        function,
        *arguments,
        subject=confined.Subject("the model", files[0], BackboneError),
        reads=[tree for file in files for tree in trees(file)],
        limits=confined.Limits(TIME_S + TIME_PER_TILE_S * tiles, confined.MEMORY_BYTES + COPIES * size_bytes),
        images=images,
    )


# in the other process


def _locations(path: Path) -> list[str]:
    from provisioning.network.backbone import external

    return list(external.locations(path))


def _image_size(backbone: Backbone, source: OnnxSource) -> list[int]:
    from provisioning.network.backbone.wrap import tile_size

    return list(tile_size(backbone, source))


def _measured(backbone: Backbone, source: OnnxSource) -> list[int]:
    from provisioning.network.shape import measure

    return list(measure(backbone, source))


def _rehearsed(backbone: Backbone, source: OnnxSource) -> list[Any]:
    from provisioning.network.rehearsal import rehearse

    return list(rehearse(backbone, source))


def _make_typed(backbone: Backbone, source: OnnxSource, output: Path, backend: str, *, images: Images) -> None:
    from provisioning.network.typing import typed

    typed.make_typed(backbone, source, output, images, backend=backend)
