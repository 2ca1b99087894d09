"""Commands and patterns in the order of a file → a mission."""

from __future__ import annotations

from typing import Literal

from provisioning.area.missions.commands import Command, Reading, read_command
from provisioning.area.missions.steps import MOST_STEPS, Mission, Step
from provisioning.area.shapes import Margin, Note, Point, Ring
from provisioning.base.errors import AreaError
from provisioning.base.geometry.angles import AltDatum, Origin


class MissionBuilder:
    """Gathers the steps of one mission; `build` returns them frozen."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.steps: list[Step] = []
        self.labels: dict[str, int] = {}
        self.alternates: list[Point] = []
        self.landings: list[Point] = []
        self.homes_set: list[Point] = []
        self.margins: list[Margin] = []
        self.notes: list[Note] = []
        self._landing_next = False
        self._landed = False

    def command(self, command: Command) -> None:
        """Add what a command does."""
        read = read_command(command, self.reading)
        self.notes += read.notes
        self.homes_set += read.homes_set
        self.alternates += [read.alternate] if read.alternate else []
        self._landing_next |= read.starts_landing
        if read.step.kind != "pass" or read.lands:
            self._landed = read.lands
        self._append(read.step)

    def pattern(self, step: Step, *margins: Margin, lands: bool = False) -> None:
        """Add a pattern, and the ground that its camera sees."""
        self._landing_next |= lands
        self._landed = lands
        self.margins += margins
        self._append(step)

    def landed(self, *, lands: bool) -> None:
        """Say whether the last step was a landing: nothing is flown after it."""
        self._landed = lands

    def label(self, name: object) -> None:
        """Name the next step as jumps name it; the first of a name counts, as for QGroundControl."""
        self.labels.setdefault(str(name), len(self.steps))

    def _append(self, step: Step) -> None:
        if len(self.steps) >= MOST_STEPS:
            raise AreaError(
                f"the mission has more than {MOST_STEPS} items", file=self.reading.path,
                next_step="split it into several missions",
            )  # fmt: skip
        if step.kind == "fly" and self._landing_next:
            self.landings += step.entries[:1]
            self._landing_next = False
        self.steps.append(step)

    def build(
        self,
        *,
        takeoff: Origin | None,
        datum: AltDatum | None,
        ends: Literal["stay", "home", "unknown"] = "stay",
        lines: tuple[Ring, ...] = (),
    ) -> Mission:
        """Return the mission; `ends` says what follows the last step unless that lands."""
        return Mission(
            steps=tuple(self.steps), home=self.reading.home, takeoff=takeoff,
            takeoff_datum=datum if takeoff and takeoff.alt_mm is not None else None, labels=self.labels,
            alternates=tuple(self.alternates), landings=tuple(self.landings), homes_set=tuple(self.homes_set),
            margins=tuple(self.margins), lines=lines, ends="land" if self._landed else ends, notes=tuple(self.notes),
        )  # fmt: skip
