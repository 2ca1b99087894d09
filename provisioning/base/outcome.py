"""What a build says at its end: eight fields, one line, one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from provisioning.base.disk.files import read_regular, write_durably
from provisioning.base.disk.jsonfile import from_json, to_json
from provisioning.base.frozen import dataclass

Outcome = Literal["SUCCESS", "FAILURE", "IDEMPOTENT_NO_OP"]
FILE = "build-report.json"
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """The outcome of one build. Counts are of this build alone; `elapsed_s` is wall time in seconds."""

    outcome: Outcome
    engines_built: int = 0
    engines_reused: int = 0
    descriptors_generated: int = 0
    manifest_hash: str | None = None
    manifest_path: str | None = None
    failure_reason: str | None = None
    elapsed_s: float = 0.0

    def to_json(self) -> str:
        """Return the text of build-report.json."""
        return to_json(asdict(self), indent=True, ascii_only=True).decode() + "\n"

    def line(self, place: str = "") -> str:
        """Return the one line a person reads last; `place` says where the cache is of."""
        counts = (
            f"engines {self.engines_built} built {self.engines_reused} reused, "
            f"descriptors {self.descriptors_generated} generated, {self.elapsed_s:.2f} s"
        )
        named = f" manifest_hash {self.manifest_hash}," if self.manifest_hash else ""
        return f"{self.outcome}{named} {counts}" + (f", {place}" if place else "")


def write_report(build_dir: Path, report: BuildReport) -> None:
    """Write `report` to `.build/build-report.json`; the caller holds the build lock. Raises FilesystemError."""
    write_durably(build_dir / FILE, report.to_json().encode())


def read_report(build_dir: Path) -> BuildReport | None:
    """Return the last build's report, or None where there is none that can be read."""
    try:
        report = BuildReport(**from_json(read_regular(build_dir / FILE, limit=_LIMIT_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return report if _is_sound(report) else None


def _is_sound(report: BuildReport) -> bool:
    """Return whether every field has its type: anyone may have written the file in a cache that came from elsewhere."""
    texts = (report.manifest_hash, report.manifest_path, report.failure_reason)
    counts = (report.engines_built, report.engines_reused, report.descriptors_generated)
    return (
        report.outcome in get_args(Outcome)
        and all(text is None or isinstance(text, str) for text in texts)
        and all(type(count) is int for count in counts)
        and type(report.elapsed_s) in (int, float)
        and 0 <= report.elapsed_s < 1e9
    )
