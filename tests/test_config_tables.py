"""The tables of flight.toml are frozen values, as the standard library's dataclasses are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from provisioning.config import Backbone, Flight, Index


def test_tables_are_frozen_equal_by_value_and_made_of_keywords() -> None:
    one, two = Index(kind="flat"), Index(kind="flat")
    assert one == two
    assert hash(one) == hash(two)
    assert one != Index()
    assert one != "flat"
    assert dataclasses.replace(one, recall=None, kind="sq8").kind == "sq8"
    assert dataclasses.asdict(one)["kind"] == "flat"
    assert "kind='flat'" in repr(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.kind = "sq8"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.kind


def test_a_missing_or_unknown_key_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="name is missing"):
        Backbone()
    with pytest.raises(TypeError, match="Index has no kinds"):
        Index(kinds="flat")


def test_mutable_defaults_are_not_shared() -> None:
    assert Flight(root=Path("/a")).sector is not Flight(root=Path("/a")).sector
    assert Flight(root=Path("/a")).build_dir == Path("/a/.build")
