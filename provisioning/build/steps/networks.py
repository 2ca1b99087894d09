"""From a backbone to its engine, and the networks that a step runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from provisioning import descriptors, engines
from provisioning.base import events
from provisioning.base.disk.artifacts import Target, atomic_output, is_intact, is_whole, read_whole
from provisioning.base.disk.files import write_durably
from provisioning.base.errors import Error, TileError
from provisioning.build.request import NetworkRequest, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def make_onnx(request: Request, network: NetworkRequest) -> None:
    """Write the typed ONNX of `network`: preprocessing in the graph, precision in the types.

    The range of fp16 is checked before hours of compiling if the tiles can be read; `describe` does not go on without.
    Raises BackboneError, EngineError.
    """
    with contextlib.suppress(TileError):  # `doit engine` may run without the tiles
        check_range(request, network)
    if not is_whole(network.typed):
        with atomic_output(network.typed) as output:
            images = _sample(request, network)
            engines.make_typed(network.backbone, network.source, output, images, backend=network.host.backend)


def check_range(request: Request, network: NetworkRequest) -> None:
    """Check once for these tiles that a network which becomes fp16 stays in its range. EngineError, TileError."""
    if network.checked is None or is_intact(network.checked):
        return
    tiles = engines.check_range(network.backbone, network.source, _sample(request, network))
    with atomic_output(network.checked) as output:
        output.write_text(json.dumps({"tiles": tiles}) + "\n", encoding="utf-8")


def _sample(request: Request, network: NetworkRequest) -> engines.Images:
    """Return a function that gives corpus tiles as `network` takes them.

    Before the first scan, and for a network of another role, that is none. TileError if a tile cannot be read.
    """

    def images(count: int) -> Iterator[NDArray[np.uint8]]:
        if network.backbone.role == "descriptor" and request.corpus is not None:
            yield from descriptors.sample_images(
                request.flight.tiles, request.build_dir, network.backbone, network.source, count
            )

    return images


def compile_network(request: Request, network: NetworkRequest) -> None:
    """Compile the engine of `network` in a fresh process. Raises EngineError."""
    from provisioning.build.history import read_history
    from provisioning.engines.compile import compile_engine, compiled_path
    from provisioning.engines.vehicle.remote import compile_there

    flight = request.flight
    last_s = read_history(flight.build_dir).seconds.get(f"engine:{network.name}", 0)
    spec = engines.engine_spec(
        network.typed.path, network.host, network.backbone, flight.engine, state=flight.build_dir / "compiling"
    )
    try:
        with atomic_output(network.engine) as output:
            log = flight.build_dir / "log" / f"engine-{network.name}.log"
            compiled = (
                compile_there(flight.engine.command, spec, output, tiles=_golden(request, network), log=log)
                if flight.engine.command
                else compile_engine(spec, output, log=log, last_s=last_s)
            )
            write_durably(compiled_path(network.engine.path), compiled.to_json().encode())
    except Error as error:
        events.error("engine.failure", model=network.name, reason=error.what)
        raise


def _golden(request: Request, network: NetworkRequest) -> NDArray[np.uint8] | None:
    """Return a few tiles of the corpus as `network` takes them, None where there are none to be had."""
    import numpy as np

    from provisioning.engines.vehicle.returned import GOLDEN_TILES

    try:
        tiles = list(_sample(request, network)(GOLDEN_TILES))
    except TileError:
        return None
    return np.stack(tiles) if tiles else None


def runnable(request: Request) -> tuple[Target, engines.Backend]:
    """Return what describes tiles here and what runs it; for another computer's engine its typed ONNX stands in."""
    described = request.descriptor_network
    if request.backend.runs_here:
        return described.engine, request.backend
    return described.typed, engines.OnnxRuntime()


def network_here(request: Request) -> engines.Network:
    """Return the network that describes tiles here, at most `engine.batch` at a time."""
    target, backend = runnable(request)
    network = backend.load(read_whole(target), custom_ops=request.descriptor_network.backbone.custom_ops)
    return network.limited(request.flight.engine.batch) if isinstance(network, engines.OnnxNetwork) else network
