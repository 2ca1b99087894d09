"""Other settings of one cache, built beside it from the same tiles and descriptors: what `evaluate --try` compares."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from provisioning import catalogue
from provisioning.base.artifacts import is_intact
from provisioning.base.errors import Error
from provisioning.base.lock import build_lock
from provisioning.build import steps
from provisioning.build.request import Request, make_request
from provisioning.build.steps.networks import network_here
from provisioning.config import Flight
from provisioning.config.parse import read_flight
from provisioning.index.read import load_index
from provisioning.network.backbone import resolved
from provisioning.quality.locate import Locator

KEYS = ("transform", "rotations", "kind", "zooms", "rotate", "patches")


class Variant(NamedTuple):
    """Settings to try. rotate, patches: how each photo is asked for; the others replace keys of flight.toml."""

    name: str
    transform: str | None = None
    rotations: int | None = None
    kind: str | None = None
    zooms: tuple[int, ...] | None = None
    rotate: int | None = None
    patches: int | None = None


def parse_variant(text: str) -> Variant:
    """Read `transform=center,rotations=4`; zoom levels are joined by `+`."""
    given: dict[str, str] = {}
    for pair in text.replace(" ", "").split(","):
        name, equals, value = pair.partition("=")
        if name not in KEYS or not equals or not value or name in given:
            raise Error(f"--try {text}: NAME=VALUE expected, each NAME once", next_step=f"names: {', '.join(KEYS)}")
        given[name] = value
    try:
        return Variant(
            text,
            given.get("transform"),
            int(given["rotations"]) if "rotations" in given else None,
            given.get("kind"),
            tuple(sorted(int(zoom) for zoom in given["zooms"].split("+"))) if "zooms" in given else None,
            int(given["rotate"]) if "rotate" in given else None,
            int(given["patches"]) if "patches" in given else None,
        )
    except ValueError as error:
        raise Error(f"--try {text}: whole numbers expected for rotations, zooms, rotate, patches") from error


def varied(flight: Flight, variant: Variant) -> Flight:
    """Return `flight` with the settings of `variant`."""
    index = {name: getattr(variant, name) for name in ("transform", "rotations", "kind")}
    flight = dataclasses.replace(
        flight, index=dataclasses.replace(flight.index, **{name: v for name, v in index.items() if v is not None})
    )
    if variant.zooms is None:
        return flight
    parts = tuple(dataclasses.replace(part, zooms=()) for part in flight.area.part)
    return dataclasses.replace(flight, area=dataclasses.replace(flight.area, zooms=variant.zooms, part=parts))


@contextmanager
def locators(cache: Path, variants: Sequence[Variant]) -> Iterator[Iterator[tuple[Variant, Locator, Request]]]:
    """Yield each variant with its locator. Holds the build lock; publishes nothing; finished work stays in `.build`."""
    flight = read_flight(cache)
    with build_lock(flight.root, timeout_s=float(flight.lock.timeout_s)):
        try:
            yield ((variant, *_built(varied(flight, variant))) for variant in variants)
        finally:
            if any(variant.zooms is not None for variant in variants):
                steps.survey(flight)  # the catalogue goes back to what flight.toml asks for


def _built(flight: Flight) -> tuple[Locator, Request]:
    steps.survey(flight)
    request = make_request(flight, catalogue.last_corpus(flight), today=dt.datetime.now(dt.timezone.utc).date())
    network = request.descriptor_network
    if not is_intact(network.engine):
        raise Error(
            "the cache has no engine for these settings yet", file=flight.root, next_step="run doit there first"
        )
    steps.describe(request)
    if not is_intact(request.index):
        steps.build_index(request)
    locator = Locator(
        network_here(request),
        load_index(request.index.path.read_bytes()),
        sources=request.tiles.sources,
        rotations=flight.index.rotations,
        fit_how=resolved(network.backbone).fit,
    )
    return locator, request
