"""Why each task must run; nothing to say means that it is up to date. doit asks these, and so does `flightcache plan`.

Addresses say whether a file is the right one, artifact records whether it is whole; doit's database is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from provisioning import descriptors
from provisioning.base.artifacts import Target, is_intact, read_record
from provisioning.base.errors import Error
from provisioning.build import contents
from provisioning.build.contents import Published
from provisioning.build.request import NetworkRequest, Request
from provisioning.flight import manifest, publish, signing
from provisioning.flight.verify import ANY, Code, Expectations, KnownFile, Reason, verify

Reasons = tuple[str, ...]
Examined = Callable[[], tuple[Reason, ...]]
"""What the verifier has against the current generation; found once in a run for each generation."""


def onnx(request: Request, network: NetworkRequest) -> Reasons:
    """Say why the typed ONNX is needed: an engine is to be compiled from it, gates are to measure against it.

    Or its range was not checked on these tiles, as after a `doit engine` that came before them.
    """
    if reasons := _not_made(network.typed) and (engine(request, network) or gates(request)):
        return reasons
    return () if network.checked is None else _not_made(network.checked)


def engine(_request: Request, network: NetworkRequest) -> Reasons:
    """Say why the engine must be compiled."""
    return _not_made(network.engine)


def unchecked(request: Request) -> Reasons:
    """Say why the scan must be checked: gates or report are still to be made for it."""
    return _not_made(request.gates, *request.extras)


def described(request: Request) -> Reasons:
    """Say why tiles must be described: an index is to be built, or gates measured, over descriptors not all there.

    Or the range of a network in fp16 has not been checked on these tiles.
    """
    checked = request.descriptor_network.checked
    if checked is not None and (reasons := _not_made(checked)):
        return reasons
    store, coverage = descriptors.store_path(request.flight), request.tiles.coverage_sha256
    if descriptors.is_described(store, request.descriptor_keys, coverage):
        return ()
    return indexed(request) or gates(request)


def indexed(request: Request) -> Reasons:
    """Say why corpus.index must be built."""
    return _not_made(request.index, request.index_info)


def gates(request: Request) -> Reasons:
    """Say why quality must be measured."""
    return _not_made(request.gates)


def report(request: Request) -> Reasons:
    """Say why the report must be drawn: it shows what changed against the generation that it replaces."""
    if reasons := _not_made(*request.extras):
        return reasons
    current = contents.published(request.cache)
    listed = {entry.sha256 for entry in current.manifest.other} if current else set()
    record = read_record(request.report)
    return () if record and record.sha256 in listed else ("the generation that it compares with has changed",)


def published(request: Request, examined: Examined) -> Reasons:
    """Say why a generation must be published: another Manifest, another key, or a published file that is not intact."""
    current = contents.published(request.cache)
    if current is None:
        return ("nothing is published yet",)
    try:
        wanted = contents.compose(request, counter=current.manifest.build.counter)
    except Error as error:
        return (error.what,)
    changes = tuple(changed(current, wanted)) if manifest.to_bytes(wanted) != current.manifest_bytes else ()
    return changes or tuple(str(reason) for reason in examined() if reason.code != Code.UNLISTED)


def changed(current: Published, wanted: manifest.Manifest) -> Iterable[str]:
    """Yield the parts of the Manifest in which `wanted` differs from what is published."""
    for name, was, now in zip(wanted._fields, current.manifest, wanted, strict=True):
        if was != now:
            yield f"{name} changed"


def examiner(request: Request) -> Examined:
    """Return a function that examines the current generation, once for each that it meets."""
    found: dict[object, tuple[Reason, ...]] = {}

    def examined() -> tuple[Reason, ...]:
        generation = publish.current_generation(request.cache)
        if generation not in found:
            found[generation] = examine(request)
        return found[generation]

    return examined


def examine(request: Request) -> tuple[Reason, ...]:
    """Return what the verifier has against the current generation, for this request.

    Files that are still those of their artifact records are not hashed again: a no-op costs their stat.
    """
    with verify(request.cache, expectations(request), known=known_good(request)) as verdict:
        return verdict.reasons


def expectations(request: Request) -> Expectations:
    """Return what this request expects of its own generation."""
    identity = request.flight.flight
    return Expectations(
        keys=(signing.public_key_of(request.flight.signing),),
        flight_id=identity.id,
        aircraft_id=identity.aircraft,
        host=contents.host(request),
        counter_floor=ANY,
    )


def known_good(request: Request) -> dict[str, KnownFile]:
    """Return what the artifact records say of the generation's files, by their names in it."""
    record = {name: read_record(target) for name, target in contents.targets(request).items()}
    return {name: KnownFile(b.bytes, b.mtime_ns, b.inode, b.sha256) for name, b in record.items() if b is not None}


def _not_made(*targets: Target) -> Reasons:
    return tuple(f"{target.name}: {_wrong(target)}" for target in targets if not is_intact(target))


def _wrong(target: Target) -> str:
    return "is not as it was made" if read_record(target) else "has not been made for these inputs"
