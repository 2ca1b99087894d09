"""The second stage of `locate` on photos with known positions: what features agree on at right and at wrong places.

python -m bench.matching CACHE KEY.pub.pem QUERIES [orb|sift|BACKBONE …]: for each kind of feature recall without and
with it, the median error, the errors in units of the covariance, processor milliseconds a photo, and for right and
wrong places the number of features that agree.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from provisioning.flight.signing import load_public_key
from provisioning.flight.verify import verify
from provisioning.quality.evaluate.queries import find_queries
from provisioning.quality.evaluate.run import prior_around
from provisioning.quality.locate import Locator, Question, answer, distance_m, read_photo
from provisioning.quality.matching import Ground, SecondStage, extractor_of, on_board
from provisioning.quality.query import from_manifest
from tests.delivery import trust_anything_by

RADIUS_M = 1000.0
RIGHT_M = 60.0
TRIED = 12
EVERY = 4


def main(cache: Path, key: Path, queries: Path, kinds: list[str]) -> None:
    """Print a line for each kind."""
    with verify(cache, trust_anything_by(load_public_key(key))) as verdict, on_board(verdict) as tiles:
        locator, manifest = Locator.from_verdict(verdict), verdict.require()
        asked = find_queries(queries)[::EVERY]
        question = Question(camera=from_manifest(manifest.camera), k=30)
        rows = []
        for query in asked:
            photo = read_photo(query.path)
            near = prior_around(query.place, RADIUS_M, query.name)
            began = time.process_time()
            rows.append((query, photo, answer(locator, photo, question, near=near, known=query.known)))
            rows[-1] += (time.process_time() - began,)
        first = [distance_m(found.matches[0].position, query.place) for query, _, found, _ in rows]
        print(f"{cache.name} {queries.parent.name}: one stage {_said(first)}, {_ms(r[3] for r in rows)} ms")
        for kind in kinds:
            _measure(kind, SecondStage(extract := extractor_of(kind, verdict), Ground(tiles, extract), 5), rows)


def _measure(kind: str, stage: SecondStage, rows: list) -> None:
    errors, sigmas, times, right, wrong, fixed = [], [], [], [], [], []
    for query, photo, found, _ in rows:
        began = time.process_time()
        matches, fix = stage.refined(photo.pixels, found.viewing, found.matches, None)
        times.append(time.process_time() - began)
        errors.append(distance_m(matches[0].position, query.place))
        if fix:
            fixed.append(errors[-1])
            sigmas.append(errors[-1] ** 2 / (fix.east_m2 + fix.north_m2))
        wide = SecondStage(stage.extract, stage.ground, TRIED)
        for each in wide.tried(photo.pixels, found.viewing, found.matches):
            away = distance_m(each.position, query.place)
            (right if away < RIGHT_M else wrong).append(each.fix.inliers)
    print(f"  {kind}: {_said(errors)}, {_ms(times)} ms; fixed {len(fixed)} of {len(rows)}, {_said(fixed)}, "
          f"error²/variance {np.mean(sigmas) if sigmas else 0:.2f}")  # fmt: skip
    for name, counts in (("right", right), ("wrong", wrong)):
        said = (
            " ".join(f"{q}%:{np.percentile(counts, q):.0f}" for q in (1, 5, 25, 50, 75, 95, 99, 100)) if counts else ""
        )
        print(f"    features that agree, {name} ({len(counts)}): {said}")


def _said(errors: list[float]) -> str:
    if not errors:
        return "none"
    within = " ".join(f"{100 * np.mean(np.array(errors) <= m):.0f}% in {m} m" for m in (10, 30, 100))
    return f"{within}, median {np.median(errors):.1f} m"


def _ms(seconds) -> str:
    return f"{1000 * np.median(list(seconds)):.0f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:] or ["orb", "sift"])
