"""A medium that is not mounted looks like an empty directory: what is written there never leaves this computer."""

from __future__ import annotations

import os
from pathlib import Path

from provisioning.base.errors import DeliveryError
from provisioning.flight.vehicle import REMOVABLE


def require_mounted(path: Path) -> None:
    """Raise DeliveryError if `path` is where media are mounted, and none is: the place is on the root file system.

    Looked at are the places where Linux mounts media: /media, /run/media, /mnt. A directory somewhere else is one.
    """
    real = os.path.realpath(path)
    if not f"{real}/".startswith(REMOVABLE):
        return
    while not os.path.ismount(real):
        real = os.path.dirname(real)
    if not f"{real}/".startswith(REMOVABLE) and real not in ("/media", "/run/media", "/mnt"):
        raise DeliveryError(
            "no medium is mounted there: it would be written to this computer's own disk",
            file=path,
            facts={"file system of": real},
            next_step="mount the medium (`findmnt`, `lsblk`), then run this again",
        )


def require_place(target: Path) -> None:
    """Raise DeliveryError if the directory in which `target` is, or is to be made, is not there or not mounted.

    Where a cache is already, this is the place.
    """
    if os.path.lexists(target / "current"):
        return
    parent = target.absolute().parent
    if not parent.is_dir():
        raise DeliveryError(
            "there is no such directory", file=parent, next_step="mount the medium, or make it, then run this again"
        )
    require_mounted(target)
