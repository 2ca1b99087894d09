"""`flightcache demo`: a cache of synthetic imagery, built and verified, on a bare machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from provisioning.base.disk.files import make_dirs, wrap_os_errors
from provisioning.base.errors import ConfigError
from provisioning.base.printable import printable
from provisioning.base.words import typed
from provisioning.cli.begin.init import NewCache, create_cache, key_text, network_text

CAMERA = {
    "model": "pinhole with radial and tangential distortion",
    "image_size_px": [1280, 1024],
    "focal_length_px": [1181.6, 1181.9],
    "principal_point_px": [641.3, 509.8],
    "distortion_k1_k2_p1_p2_k3": [-0.1029, 0.0871, 0.0003, -0.0002, 0.0],
    "mount": {"pitch_deg": -90.0, "roll_deg": 0.0, "yaw_deg": 0.0},
    "note": "synthetic: belongs to no camera",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("flightcache-demo"),
        metavar="DIR",
        help="the new cache directory; default: flightcache-demo",
    )
    parser.epilog = "example: flightcache demo && cd flightcache-demo && doit"


def run(args: argparse.Namespace) -> int:
    """Make, build and verify the demo; the exit code is that of the first step that fails."""
    new = make_demo(args.directory)
    print(f"$ {typed('cd', new.directory)} && doit", flush=True)
    built = subprocess.run([sys.executable, "-m", "doit"], cwd=new.directory, check=False).returncode
    return built or _verify(new) or _say_what_next(new)


def make_demo(directory: Path) -> NewCache:
    """Write imagery, a calibration file and the files of a new cache below `directory`."""
    if os.path.lexists(directory / "flight.toml"):
        raise ConfigError(
            "a cache is there already",
            file=directory,
            next_step=f"{typed('cd', directory)} && doit, or name another directory",
        )
    from provisioning.cli.begin.demo_imagery import write_demo_tiles

    with wrap_os_errors("make the demo", directory):
        make_dirs(directory)
        write_demo_tiles(directory / "tiles")
        (directory / "camera.json").write_text(json.dumps(CAMERA, indent=2) + "\n", encoding="utf-8")
    camera = directory / "camera.json"  # and no cuts: the demo is to be done in seconds on any laptop
    new = create_cache(directory, tiles=directory / "tiles", calibration=[camera], index_overlap=1)
    count = new.survey and sum(zoom.present for zoom in new.survey.per_zoom.values())
    print(f"{printable(directory)}: {count} tiles of synthetic imagery in tiles/, flight.toml, dodo.py")
    print(key_text(new))
    print(network_text(new))
    return new


def _verify(new: NewCache) -> int:
    from provisioning.cli import main

    words = ["verify", str(new.directory), "--public-key", str(new.public_key), "--ground"]
    print(f"$ {typed('flightcache', *words)}", flush=True)
    return main(words)


def _say_what_next(new: NewCache) -> int:
    print(f"""
The demo cache is built, signed and verified. What now?
  {typed("cd", new.directory)}
  {_command("doit"):<40} nothing has changed: nothing is done
  {_command("flightcache") + " status":<40} what is current
  look at current/report.html in a browser: what the aircraft will know
  remove some tiles below tiles/, or edit flight.toml, then {_command("flightcache")} plan, and {_command("doit")}
  {_command("flightcache")} init DIR --tiles SRC makes a cache of your own imagery""")
    return 0


def _command(name: str) -> str:
    """Return how this shell can call a command that is installed beside this Python."""
    return name if shutil.which(name) else str(Path(sys.executable).parent / name)
