"""What a vehicle sends is looked at before it is kept: its answers are bounded, its engine is tried."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from provisioning.base.errors import EngineError
from provisioning.base.hashing import sha256_bytes
from provisioning.base.process.capture import AnswerTooLongError, ask, last_lines
from provisioning.cli import main
from provisioning.cli.deliver.fleet import probe
from provisioning.config import Backbone, Engine
from provisioning.delivery.fleet import Vehicle
from provisioning.engines import HostTuple, OnnxRuntime, engine_spec
from provisioning.engines.vehicle import apart as apart_module
from provisioning.engines.vehicle import remote as remote_module
from provisioning.engines.vehicle.apart import bare_environment, describe_apart
from provisioning.engines.vehicle.remote import compile_there
from provisioning.engines.vehicle.returned import golden_tiles
from tests import networks
from tests.shell import quote

ORIN = HostTuple("tensorrt", "10.3.0.30", "sm87", "Orin", "l4t36.4.3")
PLAN = b"ftrt" + bytes(20) + bytes([10, 3, 0, 30]) + bytes(100)


@pytest.fixture
def spec(tmp_path):
    onnx_file = networks.save(networks.network(), tmp_path / "m.onnx")
    return engine_spec(onnx_file, OnnxRuntime().probe(), Backbone(name="net"), Engine(), state=tmp_path / "state")


def described(model: bytes, spec) -> np.ndarray:
    return OnnxRuntime().load(model)(golden_tiles(spec.onnx.read_bytes(), None))


def returned(spec, tmp_path, engine: bytes, vectors: np.ndarray):
    """Compile through a vehicle that answers with `engine` and says that it computes `vectors`."""
    head = {
        "bytes": len(engine), "sha256": sha256_bytes(engine), "elapsed_s": 1, "facts": {},
        "descriptors": list(vectors.shape),
    }  # fmt: skip
    (tmp_path / "answer").write_bytes(json.dumps(head).encode() + b"\n" + engine + vectors.astype("<f4").tobytes())
    command = ["sh", "-c", f"cat > /dev/null; cat {quote(tmp_path)}/answer"]
    return compile_there(command, spec, tmp_path / "engine", log=tmp_path / "log")


def test_an_engine_of_the_network_is_kept_with_how_well_it_agrees(spec, tmp_path):
    engine = spec.onnx.read_bytes()
    compiled = returned(spec, tmp_path, engine, described(engine, spec))
    assert (tmp_path / "engine").read_bytes() == engine
    assert compiled.facts["golden"] == {"tiles": 2, "cosine_min": "1.00000"}


def other_networks():
    wider = networks.network(side=networks.SIDE * 2)
    renamed = networks.network()
    renamed.graph.output[0].name = "other"
    renamed.graph.node[-1].output[0] = "other"
    elsewhere = networks.network()
    weight = elsewhere.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="proc/self/exe")  # the process that runs it starts in /
    return {
        "weights of a file here": elsewhere.SerializeToString(),
        "13 bytes of text": b"not an engine",
        "nothing": b"",
        "a plan of TensorRT": PLAN,
        "other weights": networks.network(seed=2).SerializeToString(),
        "another size": wider.SerializeToString(),
        "another output": renamed.SerializeToString(),
    }


@pytest.mark.parametrize("name", other_networks())
def test_an_engine_that_is_not_of_the_network_is_refused_whatever_is_said_of_it(spec, tmp_path, name):
    """The vehicle lies well: the descriptors it sends are those of the right network."""
    with pytest.raises(EngineError):
        returned(spec, tmp_path, other_networks()[name], described(spec.onnx.read_bytes(), spec))
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("change", ["negated", "nan", "shorter", "fewer"])
def test_an_engine_that_computes_something_else_on_its_target_is_refused(spec, tmp_path, change):
    engine = spec.onnx.read_bytes()
    right = described(engine, spec)
    vectors = {"negated": -right, "nan": right * np.nan, "shorter": right[:, :-1], "fewer": right[:1]}[change]
    with pytest.raises(EngineError, match="not one of net"):
        returned(spec, tmp_path, engine, vectors)


def test_a_plan_must_be_of_the_version_asked_for_and_compute_the_network(spec, tmp_path):
    right, orin = described(spec.onnx.read_bytes(), spec), replace(spec, host=ORIN)
    assert returned(orin, tmp_path, PLAN, right).facts["golden"]["tiles"] == 2
    with pytest.raises(EngineError, match="another version"):
        returned(orin, tmp_path, PLAN[:24] + bytes([10, 9, 0, 1]) + PLAN[28:], right)
    with pytest.raises(EngineError, match="not a tensorrt plan"):
        returned(orin, tmp_path, b"v" + PLAN[1:], right)
    with pytest.raises(EngineError, match="cosine on the target"):
        returned(orin, tmp_path, PLAN, right[::-1])


@pytest.mark.parametrize(
    "head",
    [
        {"bytes": -1}, {"bytes": 1 << 60}, {"bytes": True}, {"descriptors": [1 << 40, 1]}, {"descriptors": [1]},
        {"descriptors": "ab"}, {"elapsed_s": "x"}, {"facts": 3}, {"bytes": None}, {"descriptors": [True, 1.5]},
    ],
)  # fmt: skip
def test_an_odd_head_is_one_clear_error(spec, tmp_path, head):
    usual = {"bytes": 0, "sha256": "0", "elapsed_s": 1, "facts": {}, "descriptors": [0, 0]}
    (tmp_path / "answer").write_text(json.dumps(usual | head) + "\n")
    with pytest.raises(EngineError):
        compile_there(["cat", str(tmp_path / "answer")], spec, tmp_path / "engine", log=tmp_path / "log")


def test_an_endless_answer_of_a_compile_is_cut_off(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_module, "SPARE_BYTES", 1 << 20)
    with pytest.raises(EngineError, match="more than"):
        compile_there(["cat", "/dev/zero"], spec, tmp_path / "engine", log=tmp_path / "log")


def test_a_vehicle_that_chatters_on_stderr_fills_no_disk(spec, tmp_path):
    short = replace(spec, timeout_s=-59)
    with pytest.raises(EngineError, match="timed out"):
        compile_there(["sh", "-c", "cat /dev/zero >&2"], short, tmp_path / "engine", log=tmp_path / "log")
    assert (tmp_path / "log").stat().st_size <= 1 << 18


GOOD = {"backend": "onnxruntime", "runtime": "1", "arch": "x", "device": "d", "platform": "linux"}


@pytest.mark.parametrize(
    "answer",
    [
        None, [], "x", 7, {}, {**GOOD, "more": "x"}, {**GOOD, "backend": "venv.__main__"}, {**GOOD, "arch": 7},
        {**GOOD, "arch": ""}, {**GOOD, "device": "a\nb"}, {**GOOD, "device": "\x1b[2J"}, {**GOOD, "device": "x" * 999},
        {**GOOD, "platform": None}, {**GOOD, "runtime": ["1"]},
    ],
)  # fmt: skip
def test_an_odd_host_tuple_is_refused(tmp_path, answer):
    (tmp_path / "answer").write_text(json.dumps({"engines are built for": answer}))
    with pytest.raises(EngineError, match="does not say what computer it is"):
        probe(Vehicle(name="odd", command=f"sh -c 'cat {tmp_path}/answer'"))


@pytest.mark.parametrize(
    "command", ["cat /dev/zero", "yes", "printf '[%.0s' $(seq 30000)", "kill -9 $$", "printf '\\377'", "true"]
)
def test_an_odd_or_endless_answer_of_a_probe_is_one_clear_error(tmp_path, command):
    (tmp_path / "odd.sh").write_text(f"{command}\n")
    with pytest.raises(EngineError, match="odd does not say what computer it is"):
        probe(Vehicle(name="odd", command=f"sh {tmp_path}/odd.sh"))


@pytest.mark.parametrize(
    "text",
    [
        "vehicle = [1]", "vehicle = 3", "cache = 5\n[[vehicle]]\nname = 'a'", "[[vehicle]]\nname = 'a'\ncommand = \"'\"",
        "directory = [1]\n[[vehicle]]\nname = 'a'", "[[vehicle]]\nname = 'a'\nprogram = '\"'", "vehicle = [[1]]",
        "[[vehicle]]\nname = ['a']", "cache = \"a\\u0000b\"\n[[vehicle]]\nname = 'a'",
    ],
)  # fmt: skip
def test_a_fleet_file_of_another_shape_is_one_clear_error(tmp_path, capsys, text):
    (tmp_path / "FLEET.toml").write_text(text)
    assert main(["fleet", str(tmp_path / "FLEET.toml")]) == 11
    assert "FLEET.toml" in capsys.readouterr().err


# asking and running apart


def test_what_a_program_is_asked_and_answers_is_exchanged_whole():
    request = bytes(range(256)) * 4096
    assert ask(["cat"], request, most_bytes=len(request), within_s=120).out == request
    with pytest.raises(AnswerTooLongError):
        ask(["cat"], request, most_bytes=len(request) - 1, within_s=120)


def test_a_program_that_reads_nothing_or_never_ends_is_left_in_time():
    assert ask(["true"], b"x" * (1 << 20), most_bytes=0, within_s=120).returncode == 0
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        ask(["sh", "-c", "exec >&- 2>&-; sleep 60"], most_bytes=0, within_s=0.3)
    with pytest.raises(subprocess.TimeoutExpired):
        ask(["sh", "-c", "sleep 60 & exit"], most_bytes=0, within_s=0.3)
    assert time.monotonic() - started < 50  # the programs take 60


def looping() -> bytes:
    """A network that takes tiles and counts to 2**60 before it answers."""
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Mul", ["v", "one"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    nodes = [
        helper.make_node("Cast", ["tiles"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Loop", ["many", "", "m"], ["y"], body=body),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("many", TensorProto.INT64, [], [2**60])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_model_that_loops_for_ever_is_ended():
    with pytest.raises(EngineError, match="had not finished"):
        describe_apart(looping(), np.zeros((1, 8, 8, 3), np.uint8), within_s=2)


def test_a_model_is_run_apart_with_the_same_result_and_no_secret(monkeypatch):
    monkeypatch.setenv("FLIGHTCACHE_KEY_PASSWORD", "secret")
    model, tiles = networks.network().SerializeToString(), networks.tiles(2)
    np.testing.assert_array_equal(describe_apart(model, tiles), OnnxRuntime().load(model)(tiles))
    assert "secret" not in bare_environment().values()


def test_a_model_that_is_none_or_needs_too_much_memory_is_an_error(monkeypatch):
    tiles = networks.tiles(1)
    with pytest.raises(EngineError, match="does not run"):
        describe_apart(b"nonsense", tiles)
    monkeypatch.setattr(apart_module, "MEMORY_BYTES", 64 << 20)
    with pytest.raises(EngineError, match="does not run"):
        describe_apart(networks.network().SerializeToString(), tiles)


def test_of_what_a_vehicle_says_the_last_whole_lines_are_shown():
    error = "flightcache receipt: a trust file lies beside the cache\n  next step: name it"
    assert last_lines("motd\n" * 200 + error + "\n", most=len(error)) == error
    assert last_lines("x" * 900) == "x" * 900
    assert last_lines("") == ""
