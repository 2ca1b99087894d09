"""One memo for all that costs much: the same facts give the kept value, anything else gives nothing."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from provisioning.base.disk import files, memo
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import FilesystemError

FACTS = {"tiles": "ab", "count": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".build" / "memo.json"


def test_what_is_kept_is_found_under_its_name_and_facts(tmp_path: Path, path: Path) -> None:
    with build_lock(tmp_path):
        memo.put(path, "a", FACTS, ["x", 1.5, None])
        memo.put(path, "b", FACTS, "other")
    assert memo.get(path, "a", FACTS) == ["x", 1.5, None]
    assert memo.get(path, "b", FACTS) == "other"
    assert memo.get(path, "a", {**FACTS, "count": 4}) is None
    assert memo.get(path, "c", FACTS) is None


def test_only_who_holds_the_lock_writes(path: Path) -> None:
    memo.put(path, "a", FACTS, 1)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"value": 1}}', b"[" * 100_000])
def test_a_spoilt_memo_knows_nothing_and_is_written_anew(tmp_path: Path, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert memo.get(path, "a", FACTS) is None
    with build_lock(tmp_path):
        memo.put(path, "a", FACTS, 1)
    assert memo.get(path, "a", FACTS) == 1


def test_a_value_that_rotted_is_not_believed(tmp_path: Path, path: Path) -> None:
    with build_lock(tmp_path):
        memo.put(path, "a", FACTS, "d00d")
    entries = json.loads(path.read_bytes())
    entries["a"]["value"] = "d00e"
    path.write_text(json.dumps(entries))
    assert memo.get(path, "a", FACTS) is None


def test_what_cannot_be_written_is_an_error_and_the_old_memo_stays(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build_lock(tmp_path):
        memo.put(path, "a", FACTS, 1)

        def full(*_args: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "write", full)
        with pytest.raises(FilesystemError, match="No space left"):
            memo.put(path, "a", FACTS, 2)
        monkeypatch.undo()
    assert memo.get(path, "a", FACTS) == 1
