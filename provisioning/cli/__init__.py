"""The `flightcache` command: the table of its commands, and its beginning.

Nothing is imported here at once: what cannot be loaded is reported by `main`, never by a traceback and exit code 1,
which is an answer of `flightcache plan`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

GROUPS = {
    "begin": {
        "init": "write flight.toml and the doit files of a new cache directory",
        "demo": "make, build and verify a cache of synthetic imagery",
        "export": "write an ONNX model from published PyTorch weights, compared with PyTorch",
        "keygen": "make an Ed25519 key pair",
        "key": "show the fingerprint of a public key",
        "completion": "print a script that lets a shell complete these commands",
    },
    "look": {
        "plan": "say what doit would do and why, before it is done",
        "why": "say why one task would run",
        "status": "show what is current, its age, free space and how the last build ended",
        "tiles": "count the tiles of the area by zoom and source: bytes, gaps, ages",
        "host": "show what this computer is to an engine, and the engines kept for other hosts",
    },
    "check": {
        "verify": "decide whether a cache may be flown, with every reason if not",
        "doctor": "look at a cache on its vehicle: what is wrong, and what to do about it",
    },
    "tidy": {
        "clean": "list and remove what a build directory keeps and nothing uses any more",
    },
    "measure": {
        "locate": "name the tiles that photos look like",
        "evaluate": "measure on photos with known positions how often a cache knows the place",
        "bench-engine": "measure latency and throughput of an engine, as JSON",
    },
    "deliver": {
        "bundle": "write the current generation as one file",
        "install": "make a bundle the current generation of this vehicle",
        "trust": "say who may sign caches: make, sign, show, install the trust file",
        "cosign": "add the signature of a further key to the current generation",
        "fallback": "return this vehicle to the generation before, where the current one does not verify or run",
        "receipt": "print what this vehicle has installed, signed by the vehicle",
        "info": "say what a bundle holds, without installing it",
        "sync": "send the current generation to a vehicle or a drive, only what it lacks",
        "rollback": "publish an earlier set of files again, signed anew",
        "fleet": "build and send the caches of several vehicles from one request",
    },
}
"""Name and summary of each command. `provisioning.cli.<group>.<name>` has its `arguments(parser)` and `run(args)`."""

COMMANDS = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}


NOT_LOADED, STOPPED = 10, 130
"""Exit codes of a plain Error, and of SIGINT as shells report it."""
LOAD_AGAIN = "run this again; if it fails again, see `dmesg` and `ulimit -a`, then install flightcache anew"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for wrong usage, or the code of the error's class.

    Without `argv` this is the program itself: it takes the words of the command line, and the process ends here, with
    130 where Ctrl-C stopped it.
    """
    try:
        return _loaded(argv)
    except KeyboardInterrupt:
        if argv is not None:
            raise
        print("flightcache: stopped", file=sys.stderr)
        return STOPPED
    except MemoryError:  # also for the error that would have said so
        print(f"flightcache: memory does not suffice\n  next step: {LOAD_AGAIN}", file=sys.stderr)
        return NOT_LOADED


def _loaded(argv: Sequence[str] | None) -> int:
    try:
        from provisioning.cli import running
    except (ImportError, OSError, MemoryError, AttributeError, SystemError) as error:
        why = str(error) or type(error).__name__
        print(f"flightcache: a part of the program cannot be loaded: {why}\n  next step: {LOAD_AGAIN}", file=sys.stderr)
        return NOT_LOADED
    return running.main(argv)


if __name__ == "__main__":
    sys.exit(main())
