"""Whether the imagery is fresh enough for a class of sector."""

from __future__ import annotations

from datetime import date
from typing import Literal, NamedTuple

from provisioning.config import Sector

Verdict = Literal["pass", "warn", "fail"]


class Freshness(NamedTuple):
    """Age of the oldest dated tile in days (None if none is dated), tiles without a date, and what follows from it."""

    verdict: Verdict
    oldest_days: int | None
    undated: int
    detail: str


def judge_freshness(*, oldest: str | None, undated: int, today: date, policy: Sector | None) -> Freshness:
    """Return whether a corpus whose oldest capture is `oldest` (YYYY-MM-DD) satisfies a sector's policy.

    A tile without a date is as bad as one that is too old: nobody knows.
    """
    age = None if oldest is None else (today - date.fromisoformat(oldest)).days
    limit = policy.max_age_days if policy else None
    if policy is None or limit is None:
        return Freshness("pass", age, undated, "no maximum age")
    reasons = []
    if age is not None and age > limit:
        reasons.append(f"the oldest imagery is {age} days old, more than {limit}")
    if age is not None and age < 0:
        reasons.append(f"the oldest imagery is dated {-age} days ahead of today")
    if undated:
        reasons.append(f"{undated} tiles have no capture date")
    if not reasons:
        return Freshness("pass", age, undated, f"the oldest imagery is {age} days old, at most {limit} are allowed")
    return Freshness("fail" if policy.action == "fail" else "warn", age, undated, "; ".join(reasons))
