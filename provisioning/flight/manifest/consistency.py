"""What no single value of a Manifest shows: paths that clash, boxes inside out, counts that do not add up."""

from __future__ import annotations

from collections import Counter

from provisioning.base.geometry.geo import MOST_ROTATIONS_WITH_CUTS
from provisioning.base.limits import MAX_FILES
from provisioning.flight.manifest.types import SCHEMA_1, Camera, Manifest


def contradictions(m: Manifest) -> list[str]:
    """Return every contradiction; empty if there is none."""
    issues = _clashes([entry.path for entry in m.files])
    if len(m.files) > MAX_FILES:
        issues.append(f"artifacts: more than {MAX_FILES} files")
    if m.area.bbox_e7.south >= m.area.bbox_e7.north or m.area.bbox_e7.west == m.area.bbox_e7.east:
        issues.append("area.bbox_e7: the box is empty")
    if len(set(m.area.zoom_levels)) != len(m.area.zoom_levels):
        issues.append("area.zoom_levels: a level is there twice")
    if m.descriptor_index.engine not in {engine.path for engine in m.engines}:
        issues.append("artifacts.descriptor_index.engine: not a listed engine")
    issues += _cuts(m)
    issues += _counts(m)
    if len(set(m.tiles.sources)) != len(m.tiles.sources):
        issues.append("tiles.sources: a source is there twice")
    origin = m.flight.takeoff_origin
    if m.schema != SCHEMA_1 and origin is not None and (origin.alt_mm is None) != (origin.alt_datum is None):
        issues.append("flight.takeoff_origin: alt_mm and alt_datum only together")
    return issues + _camera(m.camera)


def _camera(camera: Camera | None) -> list[str]:
    """Return what is wrong with a lens: sizes and focal lengths come together, or a field of view instead of them."""
    if camera is None:
        return []
    absent = [part is None for part in camera[:6]]
    issues = (
        ["camera: needs width, height, focal lengths and principal point together"]
        if any(absent) != all(absent)
        else []
    )
    if not all(absent) and camera.fov_e7 is not None:
        issues.append("camera.fov_e7: only where there are no focal lengths")
    if all(absent) and camera.fov_e7 is None and camera.distortion is not None:
        issues.append("camera.distortion: of no lens")
    if all(part is None for part in camera):
        issues.append("camera: declares nothing")
    return issues


def _cuts(m: Manifest) -> list[str]:
    """Return what is wrong with cuts: schema 1 knows none, and ids have room for 64 of cut and heading."""
    where, index = "artifacts.descriptor_index.overlap", m.descriptor_index
    if index.overlap is None:
        return []
    if m.schema == SCHEMA_1:
        return [f"{where}: unknown key"]
    room = index.rotations <= MOST_ROTATIONS_WITH_CUTS
    return [] if room else [f"{where}: at most {MOST_ROTATIONS_WITH_CUTS} rotations have room in the ids"]


def _counts(m: Manifest) -> list[str]:
    """Return what is wrong with `tiles.count`: from schema 2 a place may have one tile of each source."""
    places = sum(zoom.present for zoom in m.tiles.per_zoom.values())
    if m.schema == SCHEMA_1:
        return [] if m.tiles.count == places else ["tiles.count: not the sum of per_zoom present"]
    most = places * len(m.tiles.sources)
    return [] if places <= m.tiles.count <= most else [f"tiles.count: not {places} to {most}, the places by sources"]


def _clashes(paths: list[str]) -> list[str]:
    """Return paths that are the same file on a file system without case, or a file and a directory at once."""
    folded = [path.lower() for path in paths]
    twice = [path for path, count in Counter(folded).items() if count > 1]
    parents = {"/".join(path.split("/")[:depth]) for path in folded for depth in range(1, path.count("/") + 1)}
    sidecars = {path + ".sha256" for path in folded}
    return (
        [f"{path}: listed twice" for path in twice]
        + [f"{path}: a file and a directory" for path in folded if path in parents or path in sidecars]
        + [f"{path}: a file and a directory" for path in sidecars & parents]
    )
