"""Other settings of one cache, built beside it from the same tiles and descriptors: what `evaluate --try` compares.

The settings stand in a flight.toml that nobody signed. So the engine must be one that the verified Manifest lists, a
library of custom operators comes from the user alone, no other computer is asked, and every index is built here. All
variants share that engine, whatever tiles calibrated it; where `.build` lost it, it is taken from the generation.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from provisioning import catalogue
from provisioning.base.disk.artifacts import atomic_output, is_intact, read_record
from provisioning.base.disk.files import read_input, wrap_os_errors
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import Error
from provisioning.base.hashing import sha256_bytes
from provisioning.build import steps
from provisioning.build.request import NetworkRequest, Request, make_request
from provisioning.build.steps.networks import network_here
from provisioning.config import Flight
from provisioning.config.check import check_index
from provisioning.config.parse import read_flight
from provisioning.flight.manifest import EngineEntry, Manifest
from provisioning.index.read import load_index
from provisioning.network.backbone import resolved
from provisioning.quality.locate import Locator
from provisioning.quality.locate.running import RunningMean, tiles_mean

KEYS = ("transform", "rotations", "overlap", "kind", "zooms", "rotate", "patches", "mean")


class Variant(NamedTuple):
    """Settings to try. rotate, patches, mean: how each photo is asked for; the others replace keys of flight.toml."""

    name: str
    transform: str | None = None
    rotations: int | None = None
    kind: str | None = None
    zooms: tuple[int, ...] | None = None
    rotate: int | None = None
    patches: int | None = None
    mean: str | None = None
    """`running`: the mean of the photos so far is taken off, instead of the tiles'."""
    overlap: int | None = None


def parse_variant(text: str) -> Variant:
    """Read `transform=center,rotations=4`; zoom levels are joined by `+`."""
    given: dict[str, str] = {}
    for pair in text.replace(" ", "").split(","):
        name, equals, value = pair.partition("=")
        if name not in KEYS or not equals or not value or name in given:
            raise Error(f"--try {text}: NAME=VALUE expected, each NAME once", next_step=f"names: {', '.join(KEYS)}")
        given[name] = value
    if given.get("mean", "running") != "running":
        raise Error(f"--try {text}: mean = {given['mean']}", next_step="mean=running, of the photos so far")
    try:
        return Variant(
            text,
            given.get("transform"),
            int(given["rotations"]) if "rotations" in given else None,
            given.get("kind"),
            tuple(sorted(int(zoom) for zoom in given["zooms"].split("+"))) if "zooms" in given else None,
            int(given["rotate"]) if "rotate" in given else None,
            int(given["patches"]) if "patches" in given else None,
            given.get("mean"),
            int(given["overlap"]) if "overlap" in given else None,
        )
    except ValueError as error:
        raise Error(f"--try {text}: whole numbers expected for rotations, overlap, zooms, rotate, patches") from error


def varied(flight: Flight, variant: Variant) -> Flight:
    """Return `flight` with the settings of `variant`. Error for values that flight.toml would not take."""
    index = {name: getattr(variant, name) for name in ("transform", "rotations", "overlap", "kind")}
    flight = dataclasses.replace(
        flight, index=dataclasses.replace(flight.index, **{name: v for name, v in index.items() if v is not None})
    )
    for key, problem in check_index(flight.index):
        raise Error(f"--try {variant.name}: {key}: {problem}")
    if variant.zooms is None:
        return flight
    parts = tuple(dataclasses.replace(part, zooms=()) for part in flight.area.part)
    return dataclasses.replace(flight, area=dataclasses.replace(flight.area, zooms=variant.zooms, part=parts))


def without_foreign_code(flight: Flight, custom_ops: Path | None) -> Flight:
    """Return `flight` computed on this computer, with the user's library of custom operators instead of its own.

    Error if it names such a library and the user gave none.
    """
    named = next((backbone.custom_ops for backbone in flight.backbone if backbone.custom_ops), None)
    if named is not None and custom_ops is None:
        raise Error(
            "flight.toml is not signed, so the library of custom operators it names is not loaded",
            file=flight.root / "flight.toml",
            key="backbone.custom_ops",
            facts={"library": named},
            next_step="if you trust that library: --custom-ops FILE",
        )
    backbones = tuple(
        dataclasses.replace(backbone, custom_ops=custom_ops if backbone.custom_ops else None)
        for backbone in flight.backbone
    )
    local = dataclasses.replace(flight.descriptors, executor="threads")
    return dataclasses.replace(flight, backbone=backbones, descriptors=local)


@contextmanager
def locators(
    cache: Path, variants: Sequence[Variant], *, manifest: Manifest, custom_ops: Path | None
) -> Iterator[Iterator[tuple[Variant, Locator, Request]]]:
    """Yield each variant with its locator. Holds the build lock; publishes nothing; finished work stays in `.build`.

    manifest: of the verified cache; an engine that it does not list is not run.
    """
    flight = without_foreign_code(read_flight(cache), custom_ops)
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        steps.survey(flight)
        published = _last_request(flight)
        _require_signed_engine(published, manifest)
        try:
            yield (_asked(variant, *_built(varied(flight, variant), published.networks)) for variant in variants)
        finally:
            if any(variant.zooms is not None for variant in variants):
                steps.survey(flight)  # the catalogue goes back to what flight.toml asks for


def _asked(variant: Variant, locator: Locator, request: Request) -> tuple[Variant, Locator, Request]:
    if variant.mean:
        locator.network = RunningMean(locator.network, tiles_mean(locator.index))
    return variant, locator, request


def _last_request(flight: Flight, networks: tuple[NetworkRequest, ...] | None = None) -> Request:
    today = dt.datetime.now(dt.timezone.utc).date()
    corpus = catalogue.last_corpus(flight.selection, flight.build_dir)
    return make_request(flight, corpus, today=today, networks=networks)


def _built(flight: Flight, networks: tuple[NetworkRequest, ...]) -> tuple[Locator, Request]:
    steps.survey(flight)
    request = _last_request(flight, networks)
    network = request.descriptor_network
    steps.describe(request)
    steps.build_index(request)  # even if one lies there: a library reads it, and nobody signed that one
    locator = Locator(
        network_here(request),
        load_index(request.index.path.read_bytes()),
        sources=request.tiles.sources,
        rotations=flight.index.rotations,
        fit_how=resolved(network.backbone).fit_how,
    )
    return locator, request


def _require_signed_engine(request: Request, manifest: Manifest) -> None:
    """Refuse an engine that the verified Manifest does not list for this computer; put back one that `.build` lost."""
    network = request.descriptor_network
    if not request.backend.runs_here:
        raise Error(
            "the cache's engine is for another computer, so other settings cannot be tried on this one",
            file=request.cache,
            facts={"engine": network.engine.name},
            next_step="for each setting a cache for this computer (`flightcache init`, `doit`), then "
            "`flightcache evaluate PHOTOS CACHE CACHE`",
        )
    if not is_intact(network.engine):
        _put_back(request, network, manifest)
    record = read_record(network.engine)
    if record is None or record.sha256 not in {entry.sha256 for entry in manifest.engines}:
        raise Error(
            "the engine in .build is none of those that the verified Manifest lists",
            file=network.engine.path,
            next_step=f"cd {quote(str(request.cache))} && doit",
        )


def _put_back(request: Request, network: NetworkRequest, manifest: Manifest) -> None:
    """Write the engine of the published generation, whose signed digest it must have, to its place in `.build`."""
    entry = next((each for each in manifest.engines if each.key == network.engine.key), None)
    if entry is None:
        raise _not_published(request, network, manifest.engines)
    path = request.cache / "current" / entry.path
    with wrap_os_errors(f"read {entry.path}", path):
        data = read_input(path)
    if sha256_bytes(data) != entry.sha256:
        raise Error("the engine is not the one that was verified", file=path, next_step="flightcache verify")
    with atomic_output(network.engine) as output:
        output.write_bytes(data)


def _not_published(request: Request, network: NetworkRequest, published: Sequence[EngineEntry]) -> Error:
    """Return the error for a flight.toml that asks for another engine than the one it was published with."""
    return Error(
        "flight.toml asks for another engine than the published one: it, its model or this computer has changed",
        file=request.cache / "flight.toml",
        facts={"asked for": network.engine.name, "published": ", ".join(each.path for each in published)},
        next_step=f"cd {quote(str(request.cache))} && doit",
    )
