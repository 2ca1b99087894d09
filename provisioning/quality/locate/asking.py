"""Asking a cache where one photo was taken, with all that is known of it: what `locate` and `evaluate` share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from provisioning.base.errors import PhotoError
from provisioning.base.geometry.angles import Origin
from provisioning.base.geometry.geo import E7
from provisioning.quality.locate.confidence import LEAST_STRUCTURE, doubt_of, structure
from provisioning.quality.locate.photo import Photo, Unread, read_photo
from provisioning.quality.locate.places import Prior
from provisioning.quality.locate.search import PATCHES, Locator, Match, evenly_turned
from provisioning.quality.query.camera import TURNED_DEG, Camera
from provisioning.quality.query.declaration import UNDECLARED, Declared
from provisioning.quality.query.metadata import Metadata
from provisioning.quality.query.patches import anchor
from provisioning.quality.query.viewing import LEAST_HEIGHT_M, NOTHING, Known, Viewing, viewing

if TYPE_CHECKING:
    from provisioning.quality.matching.stage import Fix, SecondStage

HEADING_STEP_DEG = 10.0
"""A photo turned by half of this against the tiles is still found (docs/evaluation.md)."""
COMPARED = 30
"""Places among which the next one apart from the first is looked for."""
HEIGHT_STEP = 0.25
"""Share of the height by which a photo may be off and is still found (docs/camera.md)."""
PITCH_STEP_DEG = 10.0
"""Pitches that lie half of this apart show nearly the same ground (docs/camera.md)."""
WIDEST_SOUGHT = 4.0
"""A photo of unknown height is tried from one to so many sides of a tile of the finest zoom wide, and to WIDEST_COARSE
of the coarsest: rendering needs some tiles, and a photo that shows many more is rare (docs/evaluation.md)."""
WIDEST_COARSE = 2.0
SOUGHT_STEP = math.sqrt(2)
NO_GROUND = 'the camera sees no ground: pitch -90 looks down; angles of the airframe need camera.angles_of = "body"'


@dataclass(frozen=True)
class Question:
    """How photos are asked for.

    camera: as the Manifest declares it. rotate: number of headings to try instead of the known one. heading_deg:
    instead of the photo's own. heading_sigma_deg: how well the heading is known; twice that to each side is tried.
    patches: squares of ground rendered from one photo; 0 compares the photo as it is. height_sigma: how well the height
    is known, a share of it, and pitch_sigma_deg how well the pitch is; twice that to each side is tried. second_stage:
    tries the best places by local features.
    """

    camera: Declared = UNDECLARED
    k: int = 5
    rotate: int | None = None
    heading_deg: float | None = None
    heading_sigma_deg: float = 0.0
    patches: int = PATCHES
    height_sigma: float = 0.0
    pitch_sigma_deg: float = 0.0
    second_stage: SecondStage | None = None


class Assumed(NamedTuple):
    """What stood for something that neither the photo nor the caller said; None where it was said, or not needed.

    heading_deg: north. pitch_deg: the mounting's, straight down unless [camera] says otherwise. height_m: that of
    [camera]. height_sought_m: of several the one from which the photo is found best. lens_mm: a video's
    35-mm-equivalent focal length, taken over the width of a 4:3 sensor.
    """

    heading_deg: float | None = None
    pitch_deg: float | None = None
    height_m: float | None = None
    height_sought_m: float | None = None
    lens_mm: float | None = None

    def as_json(self) -> dict[str, float]:
        """Return what was assumed by its name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Answered(NamedTuple):
    """Matches, the best first; how the photo was rendered, or why it was compared as it is.

    doubt: why the first match is not to be relied on, None where nothing speaks against it. fix: the position of the
    first match is from features that agree; None where the second stage was not asked, or no place stood out.
    """

    matches: tuple[Match, ...]
    viewing: Viewing | str
    doubt: str | None = None
    assumed: Assumed = Assumed()
    fix: Fix | None = None


def answer(
    locator: Locator,
    photo: Photo,
    question: Question,
    *,
    near: Prior | None = None,
    position: Origin | None = None,
    known: Known = NOTHING,
) -> Answered:
    """Return where `photo` was taken. Rendered where camera and height are known, otherwise as it is.

    near: circle to which the search is limited. position: the true one, to measure distances from. known: what is
    known of this photo beside its metadata. Raises PhotoError where the photo is not of the declared camera's shape.
    """
    height, width = photo.pixels.shape[:2]
    seen = _viewing(locator, photo.metadata, width, height, question, near, known)
    own = photo.heading_deg if known.angles.yaw_deg is None else known.angles.yaw_deg
    headings = headings_for(question, own, _turned_deg(photo) if isinstance(seen, str) else 0)
    headed = own is not None or question.rotate is not None or question.heading_deg is not None
    k = max(question.k, COMPARED)
    if isinstance(seen, str):
        found = locator.locate(photo.pixels, k=k, headings=headings, position=position, near=near)
    else:
        readings = [each for each in _readings(locator, seen, near) if anchor(each.view(headings[0])) is not None]
        if not readings:
            return Answered((), NO_GROUND)
        rendered = partial(
            locator.locate_view,
            photo.pixels,
            k=k,
            headings=headings,
            position=position,
            near=near,
            patches=question.patches,
        )
        answers = [(rendered(*viewings_for(question, each)), each) for each in readings]
        found, seen = max(answers, key=lambda each: _worth(each[0]))
    doubt, fix = _doubt(locator, photo, found), None
    if question.second_stage is not None:
        found, fix = question.second_stage.refined(photo.pixels, seen, found, position)
    return Answered(found[: question.k], seen, None if fix else doubt, _assumed(seen, headed=headed), fix)


def look(
    locator: Locator, path: Path, question: Question, *, near: Prior | None = None, known: Known = NOTHING
) -> Photo:
    """Return the photo at `path`, decoded as finely as `answer` looks at it with the same words."""

    def needed(unread: Unread) -> float:
        if question.second_stage is not None:
            return 1.0
        width, height = unread.width, unread.height
        seen = _viewing(locator, unread.metadata, width, height, question, near, known)
        if isinstance(seen, str):
            return min(1.0, 2 * max(locator.network.size) / min(width, height))
        own = unread.heading_deg if known.angles.yaw_deg is None else known.angles.yaw_deg
        views = [each.view(headings_for(question, own)[0]) for each in _readings(locator, seen, near)]
        shares = (locator.needed_of(each, near, question.patches) for each in views if anchor(each) is not None)
        return min(1.0, (1 + 2 * question.height_sigma) * max(shares, default=1.0))

    return read_photo(path, needed)


def ask_file(
    locator: Locator,
    path: Path,
    question: Question,
    *,
    near: Prior | None = None,
    position: Origin | None = None,
    known: Known = NOTHING,
) -> tuple[Photo, Answered]:
    """Return the photo at `path` and where it was taken, by `look` and `answer`.

    position: the true one; None: the photo's own. Raises PhotoError, which names the file.
    """
    try:
        photo = look(locator, path, question, near=near, known=known)
        position = position or photo.position
        return photo, answer(locator, photo, question, near=near, position=position, known=known)
    except PhotoError as error:
        error.file = error.file or str(path)
        raise


def _doubt(locator: Locator, photo: Photo, found: tuple[Match, ...]) -> str | None:
    if not found:
        return "nothing to compare with"
    if structure(photo.pixels) < LEAST_STRUCTURE:
        return "the photo shows no structure: noise, one colour, or a slope of brightness"
    side_m = locator.places.side_m(found[0].z, found[0].centre.lat_e7 / E7)
    return doubt_of(
        [each.standing for each in found],
        [each.position for each in found],
        side_m=side_m,
        likeness=found[0].likeness,
        least=locator.least_likeness,
    )


def _assumed(seen: Viewing | str, *, headed: bool) -> Assumed:
    """Return what stands for the unknown; `headed`: the heading is known, or every one is tried."""
    north = None if headed else 0.0
    if isinstance(seen, str):
        return Assumed(north)
    pitch = seen.mounting[1] if seen.angles.pitch_deg is None else None
    if seen.height_sought:
        return Assumed(north, pitch, None, seen.height_m, seen.lens_mm)
    return Assumed(north, pitch, seen.height_m if seen.height_assumed else None, None, seen.lens_mm)


def _viewing(
    locator: Locator, metadata: Metadata, width: int, height: int, question: Question, near: Prior | None, known: Known
) -> Viewing | str:
    if not question.patches:
        return "not asked to"
    finest_m = _sides_m(locator, near)[-1]

    def least_m(camera: Camera) -> float:
        return max(LEAST_HEIGHT_M, finest_m * camera.fx / camera.width)

    return viewing(question.camera, metadata, width=width, height=height, known=known, least_m=least_m)


def _sides_m(locator: Locator, near: Prior | None) -> list[float]:
    """Return the sides of the tiles of each zoom level, the coarsest first."""
    places = locator.places
    lat = near.position.lat_e7 / E7 if near else places.middle_lat_deg(places.bands[0])
    return [places.side_m(zoom, lat) for zoom in places.zooms]


def _readings(locator: Locator, seen: Viewing, near: Prior | None) -> list[Viewing]:
    """Return what the angles may mean, each from all heights that are to be tried."""
    if not seen.height_sought:
        return list(seen.readings())
    coarsest, finest = _sides_m(locator, near)[0], _sides_m(locator, near)[-1]
    widest = max(WIDEST_SOUGHT, WIDEST_COARSE * coarsest / finest)
    steps = round(math.log(widest, SOUGHT_STEP))
    heights = [seen.height_m * SOUGHT_STEP**step for step in range(steps + 1)]
    return [each._replace(height_m=height) for each in seen.readings() for height in heights]


def headings_for(question: Question, own: float | None, turned_deg: int = 0) -> tuple[float, ...]:
    """Return the headings to try: those asked for, or else the one known with its uncertainty, or else north.

    turned_deg: by how much the stored pixels were turned to be shown; the photo's own heading may be of either top.
    """
    if question.rotate is not None:
        return evenly_turned(question.rotate)
    known = [question.heading_deg if question.heading_deg is not None else own or 0.0]
    if turned_deg and own is not None and question.heading_deg is None:
        known.append(own - turned_deg)
    return tuple((each + heading) % 360 for heading in known for each in spread(question.heading_sigma_deg))


def _worth(found: tuple[Match, ...]) -> float:
    """Return how far answers are to be believed against those to another reading of the same photo.

    How far the first stands out says little of a large patch, how like it is little of a small one: their product
    decides best between heights (docs/evaluation.md).
    """
    return found[0].standing * found[0].likeness if found else -math.inf


def _turned_deg(photo: Photo) -> int:
    return TURNED_DEG.get(photo.metadata.orientation, 0)


def viewings_for(question: Question, seen: Viewing) -> Sequence[Viewing]:
    """Return how the photo may have been taken: as it is known, then from other heights and with other pitches."""
    heights = spread(question.height_sigma, HEIGHT_STEP, most=0.8)
    pitches = spread(question.pitch_sigma_deg, PITCH_STEP_DEG, most=45.0)
    tried = [(share, degrees) for share in heights for degrees in pitches if share or degrees]
    return (seen, *(_otherwise(seen, share, degrees) for share, degrees in tried))


def _otherwise(seen: Viewing, share: float, degrees: float) -> Viewing:
    """Return a viewing from a height that is greater by a share of it, with the camera pitched up by some degrees."""
    yaw, pitch, roll = seen.mounting
    higher = seen._replace(height_m=seen.height_m * (1 + share))
    if seen.angles.of == "body":
        return higher._replace(mounting=(yaw, pitch + degrees, roll))
    known = pitch if seen.angles.pitch_deg is None else seen.angles.pitch_deg
    return higher._replace(angles=seen.angles._replace(pitch_deg=known + degrees))


def spread(sigma: float, step: float = HEADING_STEP_DEG, *, most: float = 180.0) -> Sequence[float]:
    """Return differences that cover two deviations to each side, no farther apart than `step`, up to `most`."""
    reach = min(most, 2 * sigma)
    count = 1 + 2 * max(0, -int(-reach // step))
    return [0.0] if count == 1 else [reach * (2 * n / (count - 1) - 1) for n in range(count)]
