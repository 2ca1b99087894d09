"""What a scan had looked at, and what happens meanwhile."""

from __future__ import annotations

from provisioning.catalogue.scanning import inspecting
from provisioning.sources.processes.inspection import InspectionWorker


class Looks:
    """Addresses of the tiles that were given to processes, and of those that these inspected."""

    def __init__(self, monkeypatch):
        self.asked, self.inspected = [], []
        real = InspectionWorker.inspect

        def inspect(worker, asked):
            self.asked += [each.at for each in asked]
            found = real(worker, asked)
            self.inspected += [each.at for each, seen in zip(asked, found, strict=True) if seen.inspection]
            return found

        monkeypatch.setattr(InspectionWorker, "inspect", inspect)

    def clear(self):
        self.asked.clear()
        self.inspected.clear()


def before_inspection(monkeypatch, change):
    """Call `change` with the addresses of each share before it is looked at."""
    real = inspecting.inspect_share

    def inspect_share(worker, candidates):
        change([each[:3] for each in candidates])
        return real(worker, candidates)

    monkeypatch.setattr(inspecting, "inspect_share", inspect_share)


def once(change):
    """Return what calls `change` the first time, and does nothing from then on."""
    called = []
    return lambda *_: None if called else (called.append(1), change())
