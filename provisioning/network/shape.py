"""What a network takes and gives: its image size and descriptor length, learned once for each prepared backbone.

The kind of index depends on the descriptor length, so it must be known when the rules load, without importing onnx.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from provisioning.base.disk.artifacts import Target, atomic_output, read_record
from provisioning.base.disk.files import wrap_os_errors
from provisioning.base.disk.jsonfile import from_json
from provisioning.base.hashing import sha256_bytes
from provisioning.base.named import NamedTuple
from provisioning.config import Backbone
from provisioning.network.backbone import OnnxSource, prepare, prepared_facts


class Shape(NamedTuple):
    """Image height and width, pixel, and descriptor length."""

    height: int
    width: int
    dimension: int


def shape_target(store: Path, backbone: Backbone, source: OnnxSource) -> Target:
    """Return where the shape of a backbone is kept in `store`: under what decides the prepared network."""
    return Target(store, "shape", "shape.json", prepared_facts(backbone, source))


def known_shape(target: Target) -> Shape | None:
    """Return the shape; None where it has not been learned or is damaged, so that it is learned again.

    One that cannot be read is a FilesystemError, never None: it decides keys and what a Manifest says of an engine.
    """
    with wrap_os_errors("read the shape of a network", target.path):
        try:
            data = target.path.read_bytes()
        except FileNotFoundError:
            return None
    record = read_record(target)
    if record is None or sha256_bytes(data) != record.sha256:
        return None
    try:
        return Shape(**from_json(data))
    except (ValueError, TypeError):
        return None


def learn_shape(target: Target, backbone: Backbone, source: OnnxSource) -> Shape:
    """Prepare the network once and keep its shape; BackboneError names the model if it cannot be used as declared."""
    from provisioning.network import apart

    shape = Shape(*apart.measured(backbone, source))
    with atomic_output(target) as output:
        output.write_text(json.dumps(shape._asdict()) + "\n", encoding="utf-8")
    return shape


def measure(backbone: Backbone, source: OnnxSource) -> Shape:
    """Prepare the network and return its shape; BackboneError as `learn_shape`."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        prepare(backbone, source, prepared)
        return shape_of(prepared)


def shape_of(prepared: Path) -> Shape:
    """Return the shape of the prepared network in a file."""
    import onnx

    graph = onnx.load(str(prepared), load_external_data=False).graph
    takes, gives = (port[0].type.tensor_type.shape.dim for port in (graph.input, graph.output))
    return Shape(takes[1].dim_value, takes[2].dim_value, gives[1].dim_value)
