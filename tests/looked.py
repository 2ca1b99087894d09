"""What a scan had looked at, and what happens meanwhile."""

from __future__ import annotations

from provisioning.catalogue.scanning import inspecting
from provisioning.sources.processes.inspection import Looker


class Looks:
    """Addresses of the tiles that were given to processes, and of those that these inspected."""

    def __init__(self, monkeypatch):
        self.asked, self.inspected = [], []
        real = Looker.look

        def look(looker, asked):
            self.asked += [each.at for each in asked]
            found = real(looker, asked)
            self.inspected += [each.at for each, seen in zip(asked, found, strict=True) if seen.inspection]
            return found

        monkeypatch.setattr(Looker, "look", look)

    def clear(self):
        self.asked.clear()
        self.inspected.clear()


def before_looking(monkeypatch, change):
    """Call `change` with the addresses of each share before it is looked at."""
    real = inspecting.look

    def look(looker, candidates):
        change([each[:3] for each in candidates])
        return real(looker, candidates)

    monkeypatch.setattr(inspecting, "look", look)


def once(change):
    """Return what calls `change` the first time, and does nothing from then on."""
    called = []
    return lambda *_: None if called else (called.append(1), change())
