"""What a vehicle knows of its own, in a directory beside its cache: trust file, counter floor, key, what happened.

    <cache>.vehicle/  trust.json  floor  floor.manifest  floor.previous  floor.fallback  key.pem  log.jsonl

Nothing in it comes from the cache. A cache on a medium that is mounted below /media, /run/media or /mnt can be swapped
with what lies beside it, so there the directory is beside the mount: /media/stick.vehicle. A trust file that is found
there counts only if it was installed on this computer: whoever copies a cache here may have copied a directory too.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from provisioning.base.disk.files import make_dirs, read_regular, wrap_os_errors, write_durably
from provisioning.base.errors import FilesystemError, TrustError, VerificationError
from provisioning.base.named import NamedTuple
from provisioning.flight import trust as trusts
from provisioning.flight.signing import keys_directory
from provisioning.flight.trust import Trust
from provisioning.flight.verify.expect import CounterFloor
from provisioning.flight.verify.floor import read_floor, set_floor
from provisioning.flight.verify.reasons import Refusal

SUFFIX = ".vehicle"
VARIABLE = "FLIGHTCACHE_VEHICLE"
REMOVABLE = ("/media/", "/run/media/", "/mnt/")
SYSTEM_REGISTER = Path("/etc/flightcache/vehicles")


class Vehicle(NamedTuple):
    """The directory of a vehicle."""

    path: Path

    @property
    def floor(self) -> CounterFloor:
        """The counter floor, raised by every PASS."""
        return CounterFloor(self.path / "floor", raise_on_pass=True)

    @property
    def trust_file(self) -> Path:
        """The trust file installed here."""
        return self.path / "trust.json"

    @property
    def key_file(self) -> Path:
        """The vehicle's own private key, with which it signs receipts."""
        return self.path / "key.pem"

    def read_trust(self) -> Trust | None:
        """Return the installed trust file, None if there is none; TrustError for one that cannot be used."""
        return trusts.read_trust(self.trust_file) if os.path.lexists(self.trust_file) else None

    def make(self) -> None:
        """Make the directory, with a floor of 0 if it is new; FilesystemError if that cannot be done."""
        if os.path.lexists(self.path):
            self.require_ours()
            return
        with wrap_os_errors("make the directory of this vehicle", self.path):
            make_dirs(self.path)
            write_durably(self.floor.path, b"0\n")

    def require_ours(self) -> None:
        """Raise FilesystemError if others may write to the directory, or it is another user's: they set the floor."""
        with wrap_os_errors("look at the directory of this vehicle", self.path):
            status = os.stat(self.path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o022:
            raise FilesystemError(
                "the directory of this vehicle is no directory, or others may write to it",
                file=self.path,
                facts={"owner": status.st_uid, "mode": f"{stat.S_IMODE(status.st_mode):04o}"},
                next_step=f"find out who made it; then chown it to this user and chmod 755 it, or set {VARIABLE}",
            )

    def install_trust(self, offered: Trust) -> Trust:
        """Install or update the trust file by the rules of rotation and return the one that is now in force.

        A recovery statement sets the floor first, so that after a cut between the two doing it again is enough.
        TrustError, and nothing has changed, if `offered` may not take the place of the one here.
        """
        with wrap_os_errors("install the trust file", self.trust_file), self._alone():
            installed = self.read_trust()
            result = trusts.update(installed, offered) if installed else trusts.check_chain(offered)
            before = installed.newest.version if installed else result.newest.version - 1
            if installed is not None and result.newest.version == before:
                return installed
            self._recover(tuple(each for each in result.versions if each.signed.version > before))
            write_durably(self.trust_file, trusts.to_bytes(result))
            return result

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock, so that of two trust files that arrive at once the older does not end on top."""
        import fcntl

        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _recover(self, newer: tuple[trusts.SignedVersion, ...]) -> None:
        """Set the floor as signed statements say; one that is lost or damaged may be set only so."""
        floor: int | None = None
        with contextlib.suppress(Refusal):
            floor = read_floor(self.floor, self.path / "nothing-is-inside").counter
        after = trusts.recovered(floor, newer)
        if after is not None and after != floor:
            try:
                set_floor(self.floor, after)
            except Refusal as refusal:
                raise FilesystemError(refusal.reason.detail, file=self.floor.path) from refusal


def vehicle_of(cache: Path, environment: Mapping[str, str] = os.environ) -> Vehicle:
    """Return the vehicle's directory for `cache` or a generation of it: $FLIGHTCACHE_VEHICLE, or beside it."""
    if named := environment.get(VARIABLE):
        return Vehicle(Path(named).absolute())
    root = Path(os.path.realpath(cache))
    if root.parent.name == "generations":
        root = root.parent.parent
    mount = next((each for each in (root, *root.parents) if os.path.ismount(each)), Path("/"))
    if f"{mount}/".startswith(REMOVABLE):
        inside = root.relative_to(mount)
        return Vehicle(Path(f"{mount}{SUFFIX}") / inside)
    return Vehicle(Path(f"{root}{SUFFIX}"))


def vehicle_on_drive(cache: Path) -> Vehicle | None:
    """Return the directory beside a cache on a vehicle's own drive that is mounted here; None if there is none."""
    vehicle = Vehicle(Path(f"{os.path.realpath(cache)}{SUFFIX}"))
    return vehicle if vehicle.path.is_dir() else None


def find_vehicle(cache: Path) -> Vehicle | None:
    """Return the vehicle's directory for `cache` if it is there; FilesystemError if others may write to it."""
    vehicle = vehicle_of(cache)
    if not os.path.lexists(vehicle.path):
        return None
    vehicle.require_ours()
    return vehicle


def register(vehicle: Vehicle, *, system: bool) -> Path:
    """Write down that the trust file in this directory was installed on this computer; return where that is written.

    system: for every user of this computer, in /etc; else for this user.
    """
    if "\n" in str(vehicle.path):
        raise TrustError("a path with a line break cannot be written down", file=vehicle.path)
    register_file = SYSTEM_REGISTER if system else keys_directory() / SYSTEM_REGISTER.name
    known = _registered(register_file)
    if str(vehicle.path) not in known:
        with wrap_os_errors("write down where the trust file is", register_file):
            make_dirs(register_file.parent)
            write_durably(register_file, "".join(f"{each}\n" for each in (*known, vehicle.path)).encode())
    return register_file


def is_registered(vehicle: Vehicle) -> bool:
    """Return whether the trust file in this directory was installed on this computer."""
    if os.environ.get(VARIABLE):
        return True  # named by whoever set up this computer
    return any(
        str(vehicle.path) in _registered(each) for each in (SYSTEM_REGISTER, keys_directory() / SYSTEM_REGISTER.name)
    )


def _registered(path: Path) -> tuple[str, ...]:
    try:
        return tuple(read_regular(path, limit=1 << 20).decode().splitlines())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise TrustError(f"the list of vehicles cannot be read: {error}", file=path) from error


def installed_trust(vehicle: Vehicle | None) -> Trust | None:
    """Return the trust file of this vehicle, None if there is none; TrustError for one that nobody installed here."""
    if vehicle is None or not os.path.lexists(vehicle.trust_file):
        return None
    if not is_registered(vehicle):
        raise TrustError(
            "a trust file lies beside the cache, and it was not installed on this computer",
            file=vehicle.trust_file,
            next_step="if it is yours, name it: --trust FILE; else find out who put it there",
        )
    return vehicle.read_trust()


def refusal_error(refusal: Refusal) -> VerificationError:
    """Return a refusal of the floor as the error that commands raise."""
    return VerificationError("the counter floor refuses", facts={"reason": str(refusal.reason)})
