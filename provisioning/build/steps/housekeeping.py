"""What a build leaves behind: its report, and no more in `.build` than can be of use again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from provisioning.base import events
from provisioning.base.disk import directories
from provisioning.base.disk.files import make_dirs, wrap_os_errors
from provisioning.base.outcome import BuildReport, write_report
from provisioning.base.printable import printable
from provisioning.build import unused
from provisioning.build.request import IMAGERY_FILE, INDEX_FILE, Request
from provisioning.flight import publish


def record(build_dir: Path, report: BuildReport) -> None:
    """Write the build report, under the lock, and log how the build ended."""
    if report.outcome == "IDEMPOTENT_NO_OP":
        events.event("idempotent.no_op", manifest_hash=report.manifest_hash)
    elif report.outcome == "SUCCESS":
        counts = {name: value for name, value in asdict(report).items() if name not in ("outcome", "failure_reason")}
        events.event("build.success", **counts)
    make_dirs(build_dir)
    write_report(build_dir, report)


KEPT = frozenset({"counter"})
"""Names in `.build` that a reset keeps: a counter that started again would let an old generation pass for new."""


def reset(cache: Path, *, log: Callable[[str], object], dryrun: bool) -> None:
    """Remove everything that was built, `current` first, so that no reader meets a generation half removed."""
    doomed = [publish.CURRENT, publish.GENERATIONS]
    doomed += [f".build/{name}" for name in directories.names_in(cache, ".build") if name not in KEPT]
    for name in doomed:
        if not os.path.lexists(cache / name):
            continue
        log(f"removing {printable(cache / name)}")
        if not dryrun:
            directories.remove(cache, name)


def forget_superseded(request: Request) -> None:
    """Remove indexes and imagery that no kept generation holds: each is as large as the corpus, and quickly made again.

    Engines and descriptors, which are not, stay for a while: see `unused.tidy`.
    """
    published = unused.published_inodes(request.cache)
    wanted = {target.key for target in (request.index, *request.extras)}
    store = request.flight.build_dir / "store"
    with wrap_os_errors("tidy the store", store):
        if (request.flight.build_dir / "index").is_dir():  # earlier versions kept a link to their last index there
            directories.remove(request.flight.build_dir, "index")
        for key in os.listdir(store):
            large = [store / key / name for name in (INDEX_FILE, IMAGERY_FILE)]
            held = [path for path in large if path.exists()]
            if held and key not in wanted and not any(_inode(path) in published for path in held):
                directories.remove(request.flight.build_dir, f"store/{key}")


def _inode(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
