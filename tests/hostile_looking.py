"""What looks at tiles, with faults: as the target of the processes of a scan."""

from __future__ import annotations

import errno
import os
import signal

from provisioning.sources.pixels import eighth, image
from provisioning.sources.processes import inspection as looking
from provisioning.sources.processes import listing
from tests.hostile_decoding import misbehave


class HostileLooking(looking.InspectTiles):
    """The one of a scan; what a tile's last bytes say happens while it is inspected."""

    def _inspected(self, data):
        for each in data.values():
            misbehave(each)
        return super()._inspected(data)


def _failing(name, error):
    def __init__(self, settings):
        looking.InspectTiles.__init__(self, settings)

        def fail(*_args, **_more):
            raise error

        image._decoded = fail
        eighth._eighth = lambda *_: None  # as where it fails, too

    return type(name, (looking.InspectTiles,), {"__init__": __init__, "__module__": __name__})


ERRORS = {
    "NoMemory": MemoryError(),
    "Enomem": OSError(errno.ENOMEM, "no memory"),
    "Emfile": OSError(errno.EMFILE, "too many open files"),
    "NotImported": ImportError("cannot import name '_arraypad_impl' from partially initialized module"),
    "WithoutException": SystemError("error return without exception set"),
    "HalfLoaded": AttributeError("partially initialized module has no attribute"),
    "Interpreter": RuntimeError("can't start new thread"),
}
globals().update({name: _failing(name, error) for name, error in ERRORS.items()})


class Doubting(looking.InspectTiles):
    """Calls every tile damaged where it sees several; alone, as a new process is asked again, it is what it is."""

    def _inspected(self, data):
        found = super()._inspected(data)
        return {k: v._replace(fault="bits were flipped") for k, v in found.items()} if len(data) > 1 else found


class Undecided(looking.InspectTiles):
    """Gives another reason each time."""

    def _inspected(self, data):
        return {digest: image.Inspection(0, 0, f"process {os.getpid()} does not like it") for digest in data}


class Blind(looking.InspectTiles):
    """Can open no file."""

    def _read(self, asked, room):
        if isinstance(asked.where, str):
            return looking.UNREADABLE, b"", b""
        return super()._read(asked, room)


class ForgetfulListing(listing.Listing):
    """Begins anew for each answer, which has three tiles."""

    def __call__(self, asked, room):
        self._held.clear()
        self._position = -1
        return super().__call__(asked, room)[: 3 * listing.RECORD.size]


class CrashingListing(listing.Listing):
    def __call__(self, asked, room):
        os.kill(os.getpid(), signal.SIGSEGV)
