"""What is remembered of the last build: one file, which a plan, the status and a compile that takes long look at."""

from __future__ import annotations

import pytest

from provisioning.base.errors import EngineError
from provisioning.build.history import read_history, remember
from provisioning.build.request import read_request
from provisioning.build.steps.networks import compile_network
from tests import building


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"facts": {}, "seconds": {"engine:net": "x"}}'])
def test_a_compile_is_given_the_seconds_of_the_last_build_or_none(content, tmp_path, monkeypatch):
    cache = building.new_cache(tmp_path)
    request = read_request(cache)
    network = request.descriptor_network
    task = f"engine:{network.name}"
    (cache / ".build").mkdir(exist_ok=True)
    remember(cache / ".build", {task: {}}, {task: 41.6})
    if content is not None:
        (cache / ".build/history.json").write_bytes(content)
    given = []

    def stopped(*_, last_s, **__):
        given.append(last_s)
        raise EngineError("stopped")

    monkeypatch.setattr("provisioning.engines.compile.compile_engine", stopped)
    with pytest.raises(EngineError):
        compile_network(request, network)
    assert given == [41.6 if content is None else 0]


def test_times_of_a_network_that_was_taken_away_are_forgotten(tmp_path):
    remember(tmp_path, {"engine:a": {}, "engine:b": {}}, {"engine:a": 1.0, "engine:b": 2.0})
    remember(tmp_path, {"engine:b": {}}, {"engine:b": 3.0})
    history = read_history(tmp_path)
    assert (history.seconds, history.seconds_before) == ({"engine:b": 3.0}, {"engine:b": 2.0})
