"""A vehicle has the old generation or the new one, whatever happens in between, and never an older one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.base.disk import lock
from provisioning.base.errors import BuildLockHeldError, DeliveryError, Error, FilesystemError, VerificationError
from provisioning.cli import main
from provisioning.delivery.bundle.pack import documents_of, pack
from provisioning.delivery.install import install_bundle
from provisioning.delivery.trust import trusting, verifying
from provisioning.flight.signing import public_key_path
from provisioning.flight.verify import ANY, CounterFloor, verify
from tests import faults
from tests.delivery import FILES, make_keys, noise, publish_cache, tree, trust_anything_by
from tests.power_cut import Model, Op, recorded
from tests.processes import needs_permissions, with_permissions

OLD = {**FILES, "tiles.bin": noise(5000, "old"), "shared.bin": noise(9000, "both")}
NEW = {**FILES, "tiles.bin": noise(5500, "new"), "shared.bin": noise(9000, "both"), "corpus.index": noise(30_000, "i")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two generations of one cache, bundled; the key that signed both."""
    root = tmp_path_factory.mktemp("install")
    keys = make_keys(root)
    expect = trust_anything_by(keys.public)
    for counter, files in ((1, OLD), (2, NEW)):
        publish_cache(root / "cache", keys, counter=counter, files=files, flight_id=f"F-{counter}")
        with verify(root / "cache", expect) as verdict:
            pack(verdict, documents_of(verdict), root / f"{counter}.tar")
    return root, keys, expect


def install(made, counter: int, target: Path, *, expect=None, keep: int = 1):
    expect = expect or made[2]
    return install_bundle(
        made[0] / f"{counter}.tar", target, trust=trusting(expect, target), verify=verifying(expect), keep=keep
    )


def installed_counter(target: Path, expect) -> int | None:
    """The counter of what verifies in `target`, None if there is no `current`; anything else fails the test."""
    if not os.path.lexists(target / "current"):
        return None
    with verify(target, expect) as verdict:
        return verdict.require().build.counter


def test_the_new_generation_takes_from_the_old_what_is_the_same(made, tmp_path):
    install(made, 1, tmp_path)
    done = install(made, 2, tmp_path)
    assert installed_counter(tmp_path, made[2]) == 2
    assert done.received_files == 2
    assert done.received_bytes == len(NEW["tiles.bin"]) + len(NEW["corpus.index"])


def test_one_generation_is_kept(made, tmp_path):
    install(made, 1, tmp_path)
    install(made, 2, tmp_path)
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["000002"]
    assert not (tmp_path / ".build/incoming").exists()


def test_more_are_kept_when_asked_for(made, tmp_path):
    install(made, 1, tmp_path)
    install(made, 2, tmp_path, keep=2)
    assert sorted(path.name for path in (tmp_path / "generations").iterdir()) == ["000001", "000002"]


def test_installing_the_same_again_changes_nothing(made, tmp_path):
    install(made, 1, tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".c10.lock"}
    assert install(made, 1, tmp_path).received_files == 0
    assert {path: path.lstat().st_mtime_ns for path in before} == before


def test_a_lower_counter_is_refused(made, tmp_path):
    install(made, 2, tmp_path)
    with pytest.raises(DeliveryError, match="older or equal"):
        install(made, 1, tmp_path)
    assert installed_counter(tmp_path, made[2]) == 2


def test_a_lower_counter_is_refused_even_after_current_was_removed(made, tmp_path):
    install(made, 2, tmp_path)
    (tmp_path / "current").unlink()
    with pytest.raises(DeliveryError, match="older or equal"):
        install(made, 1, tmp_path)


def test_the_same_counter_with_another_manifest_is_refused(made, tmp_path):
    _, keys, expect = made
    install(made, 2, tmp_path / "t")
    publish_cache(tmp_path / "other", keys, counter=2, files=OLD)
    with verify(tmp_path / "other", expect) as verdict:
        pack(verdict, documents_of(verdict), tmp_path / "other.tar")
    with pytest.raises(DeliveryError, match="older or equal"):
        install_bundle(
            tmp_path / "other.tar", tmp_path / "t", trust=trusting(expect, tmp_path / "t"), verify=verifying(expect)
        )


def test_a_counter_below_the_floor_outside_is_refused(made, tmp_path):
    (tmp_path / "floor").write_text("2\n")
    expect = made[2]._replace(counter_floor=CounterFloor(tmp_path / "floor", raise_on_pass=True))
    with pytest.raises(VerificationError, match="below the floor"):
        install(made, 1, tmp_path / "t", expect=expect)
    assert not (tmp_path / "t").exists()


def test_installing_never_moves_the_floor(made, tmp_path):
    (tmp_path / "floor").write_text("1\n")
    expect = made[2]._replace(counter_floor=CounterFloor(tmp_path / "floor", raise_on_pass=True))
    install(made, 2, tmp_path / "t", expect=expect)
    assert (tmp_path / "floor").read_text() == "1\n"


@pytest.mark.parametrize(("field", "value"), [("flight_id", "F-9"), ("aircraft_id", "AC-1")])
def test_a_generation_for_somebody_else_is_refused_before_anything_is_written(made, tmp_path, field, value):
    with pytest.raises(VerificationError, match="expected"):
        install(made, 1, tmp_path / "t", expect=made[2]._replace(**{field: value}))
    assert not (tmp_path / "t").exists()


def test_a_generation_signed_by_another_key_is_refused_before_anything_is_written(made, tmp_path):
    other = make_keys(tmp_path)
    with pytest.raises(VerificationError, match="signature"):
        install(made, 1, tmp_path / "t", expect=trust_anything_by(other.public))
    assert not (tmp_path / "t").exists()


def test_a_damaged_installation_is_mended_by_the_same_bundle(made, tmp_path):
    install(made, 1, tmp_path)
    victim = tmp_path / "generations/000001/tiles.bin"
    os.chmod(victim, 0o644)
    victim.write_bytes(b"\0" + OLD["tiles.bin"][1:])
    with verify(tmp_path, made[2]) as verdict:
        assert not verdict.passed
    done = install(made, 1, tmp_path)
    assert installed_counter(tmp_path, made[2]) == 1
    assert done.received_bytes == len(OLD["tiles.bin"])


def test_a_builder_at_work_in_the_target_is_waited_for_by_the_operator(made, tmp_path):
    with lock.build_lock(tmp_path), pytest.raises(BuildLockHeldError):
        install(made, 1, tmp_path)
    assert not (tmp_path / "generations").exists()


def test_too_little_space_is_said_before_files_are_written(made, tmp_path, monkeypatch):
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real(path)[:3], 10, 10, *real(path)[5:])))
    with pytest.raises(FilesystemError, match="not enough space"):
        install(made, 1, tmp_path)
    assert not list(tmp_path.rglob("*.index"))


def test_files_that_arrived_before_a_cut_are_not_fetched_again(made, tmp_path):
    install(made, 1, tmp_path)
    clean = faults.copy_cache(tmp_path, tmp_path.with_name("clean"))
    calls = faults.run(lambda: install(made, 2, clean), clean).calls
    arrived = [n for n, call in enumerate(calls) if call.name == "rename" and "incoming" in call.what]
    assert faults.run(lambda: install(made, 2, tmp_path), tmp_path, faults.Fault(arrived[0], "after")).killed
    assert install(made, 2, tmp_path).received_files == 1


@pytest.fixture
def scene(made, tmp_path):
    """A vehicle with generation 1, and the calls that installing generation 2 makes there."""
    before = tmp_path / "before"
    install(made, 1, before)
    undisturbed = faults.copy_cache(before, tmp_path / "undisturbed")
    ended = faults.run(lambda: install(made, 2, undisturbed), undisturbed)
    assert ended.error is None, ended.shown
    return before, ended.calls


def states(calls: list[faults.Call]) -> list[faults.Fault]:
    """Every state that a kill can leave, once: before a change the disk is as it was after the one before."""
    first, *rest = faults.kills(calls)
    return [first, *(fault for fault in rest if fault.how != "before")]


def converges(made, target: Path, fault: faults.Fault) -> None:
    """Old or new verifies now, and installing once more ends with the new one and nothing else."""
    assert installed_counter(target, made[2]) in (1, 2), fault
    install(made, 2, target)
    assert installed_counter(target, made[2]) == 2, fault
    assert [path.name for path in (target / "generations").iterdir()] == ["000002"], fault
    stray = [str(p) for p in target.rglob("*") if ".tmp-" in p.name or "incoming" in p.parts or p.suffix == ".part"]
    assert stray == [], fault


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_change_old_or_new_verifies(made, scene, tmp_path, capsys, every):
    before, calls = scene
    points = states(calls)[::every]
    for number, fault in enumerate(points):
        target = faults.copy_cache(before, tmp_path / f"kill{number}")
        assert faults.run(lambda target=target: install(made, 2, target), target, fault).killed, fault
        converges(made, target, fault)
        faults.remove(target)
    with capsys.disabled():
        print(f"\ninstall: {len(points)} kill points over {sum(call.changes for call in calls)} changes", end=" ")
    assert len(points) * every > sum(call.changes for call in calls)


@pytest.mark.parametrize("every", [89, pytest.param(1, marks=pytest.mark.slow)])
def test_every_call_may_fail_once_with_a_clear_error(made, scene, tmp_path, capsys, every):
    before, calls = scene
    points = faults.failures(calls)[::every]
    failed = 0
    for number, fault in enumerate(points):
        target = faults.copy_cache(before, tmp_path / f"fail{number}")
        ended = faults.run(lambda target=target: install(made, 2, target), target, fault)
        assert not ended.killed
        if ended.error is not None:
            failed += 1
            assert isinstance(ended.error, Error), (fault, calls[fault.at], ended.shown)
        converges(made, target, fault)
        faults.remove(target)
    with capsys.disabled():
        print(f"\ninstall: {len(points)} failed calls, {failed} of them reported", end=" ")
    assert failed > len(points) / 3


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_during_a_first_installation_nothing_or_the_new_one_is_there(made, tmp_path, every):
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    calls = faults.run(lambda: install(made, 2, undisturbed), undisturbed).calls
    for number, fault in enumerate(states(calls)[::every]):
        target = tmp_path / f"kill{number}"
        target.mkdir()
        assert faults.run(lambda target=target: install(made, 2, target), target, fault).killed
        assert installed_counter(target, made[2]) in (None, 2), fault
        install(made, 2, target)
        assert installed_counter(target, made[2]) == 2
        faults.remove(target)


ALONE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {"provisioning", "cryptography", "orjson", "_cffi_backend"}:
            raise ImportError("a vehicle has no " + name)
sys.meta_path.insert(0, Only())
from provisioning.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("python", [sys.executable, shutil.which("python3.10")])
def test_install_needs_no_package_beyond_the_verifiers(made, tmp_path, python):
    if python is None or subprocess.run([python, "-c", "import cryptography"], check=False).returncode:
        pytest.skip("no such Python with cryptography here")
    root, keys, _ = made
    key = public_key_path(keys.signing.key)
    command = [python, "-c", ALONE, "install", str(root / "1.tar"), str(tmp_path / "t"), "--public-key", str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert installed_counter(tmp_path / "t", made[2]) == 1


def test_the_command_tells_what_it_did_and_what_was_not_checked(made, tmp_path, capsys):
    root, keys, _ = made
    words = [
        "install",
        str(root / "1.tar"),
        str(tmp_path / "t"),
        "--public-key",
        str(public_key_path(keys.signing.key)),
    ]
    assert main([*words, "--flight", "F-1"]) == 0
    output = capsys.readouterr()
    assert "counter 1" in output.out
    assert "not checked: aircraft, host\n" in output.err


def test_the_command_refuses_with_the_code_of_the_error(made, tmp_path, capsys):
    root, keys, _ = made
    words = [
        "install",
        str(root / "1.tar"),
        str(tmp_path / "t"),
        "--public-key",
        str(public_key_path(keys.signing.key)),
    ]
    assert main([*words, "--flight", "F-2"]) == VerificationError.exit_code
    assert "for flight F-1, expected F-2" in capsys.readouterr().err


def test_the_bundle_command_names_its_file_by_flight_counter_and_hash(made, tmp_path, capsys):
    root, keys, _ = made
    words = ["bundle", str(root / "cache"), "-o", str(tmp_path), "--public-key", str(public_key_path(keys.signing.key))]
    assert main(words) == 0
    (written,) = tmp_path.iterdir()
    assert written.name.startswith("F-2-000002-")
    assert written.name in capsys.readouterr().out


def test_without_a_key_nothing_is_trusted(made, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY", raising=False)
    assert main(["install", str(made[0] / "1.tar"), str(tmp_path / "t")]) == 25
    assert "--public-key" in capsys.readouterr().err


def test_two_targets_do_not_share_bytes_with_the_bundle(made, tmp_path):
    install(made, 1, tmp_path / "a")
    install(made, 1, tmp_path / "b")
    assert tree(tmp_path / "a/current") == tree(tmp_path / "b/current")
    assert not os.path.samefile(tmp_path / "a/current/corpus.index", tmp_path / "b/current/corpus.index")
    assert made[2].flight_id is ANY


def test_no_power_cut_leaves_a_current_that_is_neither_old_nor_new(made, tmp_path, capsys):
    """Every state that a disk may be in after a cut, by what was fsynced when: `current` is generation 1 or 2, whole."""
    target = tmp_path / "t"
    install(made, 1, target)
    before = faults.snapshot(target)
    inodes = {name: os.lstat(target / name).st_ino for name in before}
    directories = [str(p.relative_to(target)) for p in target.rglob("*") if p.is_dir() and not p.is_symlink()]
    ops: list[Op] = []
    with recorded(target, ops):
        install(made, 2, target)
    after = faults.snapshot(target)
    whole = {
        f"generations/{n}": below(tree_, f"generations/{n}") for n, tree_ in (("000001", before), ("000002", after))
    }
    model, states, renamed = Model(before, inodes, directories), 0, False
    for number, op in enumerate(ops):
        model.apply(op)
        for state, _ in model.states(most=64, seed=number):
            states += 1
            current = state.get("current")
            assert current in whole, (number, op[:3])
            assert below(state, str(current)) == whole[current], (number, op[:3])
        renamed = renamed or op.path == "current"
    assert renamed
    assert [state["current"] for state, _ in model.states()] == ["generations/000002"] * len(list(model.states()))
    with capsys.disabled():
        print(f"\ninstall: {states} states after a power cut at {len(ops)} moments", end=" ")


def below(state: dict[str, bytes | str], directory: str) -> dict[str, bytes | str]:
    return {
        name.removeprefix(directory + "/"): body for name, body in state.items() if name.startswith(directory + "/")
    }


CUT_OFF = """
import hashlib, sys
from pathlib import Path
from provisioning.delivery.bundle.contents import Listed
from provisioning.delivery.target import opened
data = b"tiles" * 1000
file = Listed("tiles.bin", len(data), hashlib.sha256(data).hexdigest())
with opened(Path(sys.argv[1]), keep=1) as target:
    target.require_room([file])
    part = target.incoming / f"{file.sha256}.part"
    part.write_bytes(data)
    part.chmod(0o444)
    assert target.arrived_bytes(file) == 0
    assert target.receive(file, [data]).read_bytes() == data
"""


@needs_permissions
def test_a_file_that_was_complete_when_its_delivery_was_cut_off_is_received_again(tmp_path):
    """It is read-only then."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(with_permissions(sys.executable, "-c", CUT_OFF, tmp_path), env=environment, check=True)
