"""The tasks of a flight cache, in the order in which they are built: `doit list` prints their first lines."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from doit.exceptions import InvalidDodoFile

from provisioning.base.errors import Error
from provisioning.build import reasons as stale
from provisioning.build import steps
from provisioning.build.request import Request, read_request
from provisioning.flight.verify import Reason
from rules.rule import Task, rule


class Tasks:
    """The task creators of the cache directory `root`; what it asks for is read once, when doit wants the tasks."""

    def __init__(self, root: Path, read: Callable[[Path], Request] = read_request) -> None:
        self.root = root
        self._read = read

    @functools.cached_property
    def request(self) -> Request:
        """What flight.toml, this host and the last scan ask for."""
        try:
            return self._read(self.root)
        except Error as error:
            raise InvalidDodoFile(str(error)) from error

    @functools.cached_property
    def examined(self) -> Callable[[], tuple[Reason, ...]]:
        """What the verifier has against the published generation: found once for `manifest` and `coverage`."""
        return functools.cache(functools.partial(stale.examine, self.request))

    def task_onnx(self) -> Iterator[Task]:
        """Prepare each backbone: preprocessing into the graph, precision into the types."""
        for network in self.request.networks:
            yield rule(
                steps.make_onnx,
                name=network.name,
                makes=[network.typed],
                given={"request": self.request, "network": network},
                why=functools.partial(stale.onnx, self.request, network),
            )

    def task_engine(self) -> Iterator[Task]:
        """Compile each backbone for this host."""
        for network in self.request.networks:
            yield rule(
                steps.compile_network,
                name=network.name,
                makes=[network.engine],
                given={"request": self.request, "network": network},
                after=[f"onnx:{network.name}"],
                why=functools.partial(stale.engine, self.request, network),
            )

    def task_descriptors(self) -> Task:
        """Describe the tiles that have no descriptor yet."""
        return rule(
            steps.describe,
            given={"request": self.request},
            after=[f"engine:{self.request.descriptor_network.name}"],
            why=functools.partial(stale.described, self.request),
        )

    def task_corpus(self) -> Task:
        """Build corpus.index over the descriptors."""
        return rule(
            steps.build_index,
            makes=[self.request.index, self.request.index_info],
            given={"request": self.request},
            after=["descriptors"],
            why=functools.partial(stale.indexed, self.request),
        )

    def task_gates(self) -> Task:
        """Measure quality: fidelity, recall, gaps, freshness."""
        return rule(
            steps.measure,
            makes=[self.request.gates],
            given={"request": self.request},
            after=["engine", "corpus"],
            why=functools.partial(stale.gates, self.request),
        )

    def task_report(self) -> Task:
        """Draw report.html and coverage.geojson, and pack what else goes on board."""
        return rule(
            steps.draw_report,
            makes=self.request.extras,
            given={"request": self.request},
            after=["gates"],
            why=functools.partial(stale.report, self.request),
        )

    def task_manifest(self) -> Task:
        """Stage a complete generation with its signed Manifest."""
        return rule(
            steps.stage,
            given={"request": self.request},
            after=["report"],
            why=functools.partial(stale.staged, self.request, self.examined),
        )

    def task_coverage(self) -> Task:
        """Walk and verify the staged, or else the current generation; publish what was staged."""
        return rule(
            steps.publish_staged, given={"request": self.request, "examined": self.examined}, after=["manifest"]
        )


def database(root: Path) -> str:
    """Return doit's database: in `.build`, or in memory for a `doit list` before anything was built."""
    build_dir = root / ".build"
    return str(build_dir / "doit.sqlite") if os.path.isdir(build_dir) else ":memory:"


def namespace(tasks: Tasks) -> dict[str, object]:
    """Return what a dodo.py must contain: doit's settings and the task creators of `tasks`."""
    creators = {name: getattr(tasks, name) for name in dir(Tasks) if name.startswith("task_")}
    return {
        "DOIT_CONFIG": {
            "backend": "sqlite3",  # the only backend that survives a kill while it writes (measured)
            "dep_file": database(tasks.root),
            "verbosity": 2,
        },
        **creators,
    }
