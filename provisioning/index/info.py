"""What was built, as the Manifest and the report show it."""

from __future__ import annotations

import dataclasses
import json

from provisioning.base.disk.artifacts import Target
from provisioning.base.disk.jsonfile import from_json
from provisioning.base.errors import IndexingError
from provisioning.base.frozen import dataclass


@dataclass(frozen=True)
class IndexInfo:
    """What was built; `dimension` is that of a query.

    transform_found, transform_reason: of index.transform = "auto", the share of queries that the transform taken finds,
    and why it was taken.
    """

    kind: str
    dimension: int
    vectors: int
    bytes: int
    transform: str
    reason: str = ""
    transform_found: str = ""
    transform_reason: str = ""

    def to_json(self) -> str:
        """Return the JSON that `read_info` reads."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1) + "\n"


def read_info(target: Target) -> IndexInfo:
    """Return what `target` says of its index; IndexingError if it cannot be read."""
    try:
        return IndexInfo(**from_json(target.path.read_bytes()))
    except FileNotFoundError as error:
        raise IndexingError("the index has not been made yet", file=target.path, next_step="run `doit`") from error
    except (OSError, ValueError, TypeError) as error:
        raise IndexingError("what was built is not recorded", file=target.path, next_step="run `doit` again") from error
