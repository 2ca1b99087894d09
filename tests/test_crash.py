"""The real build, killed and failed at its file-system calls: `current` verifies, the next `doit` ends as if nothing was."""

from __future__ import annotations

import pytest

from tests import crashing


def show(capsys, name: str, done: crashing.Campaign) -> None:
    with capsys.disabled():
        print(f"\n{name}: {done.points} points over {done.changes} changes and {done.calls} calls, "
              f"{done.covered} of them covered, {done.distinct} distinct states after, {done.outcomes}", end=" ")  # fmt: skip


def test_an_added_tile_survives_a_kill_and_an_error(tmp_path, capsys):
    """At one in 37 of the states that the build goes through; the full form kills before and after each call."""
    killed, failed = crashing.in_clean_process(crashing.campaigns, tmp_path, "next", "kill-some", "fail-some")
    show(capsys, "real build, a tile added, killed", killed)
    assert killed.changes >= 150
    assert killed.distinct >= 6
    assert killed.outcomes == {"killed": killed.points}
    show(capsys, "real build, a tile added, failed", failed)
    assert failed.points * crashing.SOME >= failed.changes >= 150
    assert failed.outcomes["FilesystemError"] > failed.points / 2


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["first", "next"])
@pytest.mark.parametrize("points", ["kill", "fail"])
def test_every_point_of_a_build(tmp_path, capsys, scene, points):
    (done,) = crashing.in_clean_process(crashing.campaigns, tmp_path, scene, points)
    show(capsys, f"real build, {scene}, {points}", done)
    assert done.points >= 2 * done.changes >= 300
