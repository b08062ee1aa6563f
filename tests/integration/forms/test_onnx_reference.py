"""ONNX models beside the model's own results, and beside ONNX Runtime's time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.elements import as_bytes
from pytest_shark_tune.device.onnx_engine import arrays_of, run_onnx, tensors_like
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.cpu import CPU_FORMS
from pytest_shark_tune.measurement.correctness import tolerance_for
from pytest_shark_tune.plan.make import found_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.model.forms import FormRace
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from pytest_shark_tune.tuning.model.whole import UntunedModels
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings
from tests.integration.conftest import MakeSuite

onnx: Any = pytest.importorskip("onnx")


def strided(path: Path) -> Path:
    """Write a model of a depthwise convolution with a stride, and a convolution with a kernel of 1."""
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((8, 1, 3, 3), dtype=np.float32),
        "w2": random.standard_normal((4, 8, 1, 1), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], group=8, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "w2"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", f32, [1, 8, 32, 32])]
    ends.append(helper.make_tensor_value_info("y", f32, [1, 4, 16, 16]))
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def convolutions(path: Path, *, addend: float = 0.0) -> Path:
    """Write a model of two convolutions and an addition."""
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((8, 4, 1, 1), dtype=np.float32),
        "w2": random.standard_normal((4, 8, 3, 3), dtype=np.float32),
        "more": np.array([addend], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "more"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, f32, [1, 4, 16, 16]) for name in ("x", "y")]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def floats(*values: float) -> TensorData:
    return TensorData((len(values),), "f32", as_bytes(np.array(values, np.float32)).tobytes())


@pytest.fixture
def session(tmp_path: Path, tune_cache: Path) -> Iterator[Session]:
    settings = RunSettings.in_directory(tmp_path, ["local-task"], "cpu", jobs=2)
    with closing(Session(settings, Compiler(Target.parse("llvm-cpu")), Cache(tune_cache))) as session:
        yield session


def test_a_model_is_run_on_given_arrays(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "model.onnx", addend=2.5)
    with run_onnx(path, [np.zeros((1, 4, 16, 16), np.float32)]) as engine:
        assert engine.name.startswith(("ONNX Runtime ", "onnx's evaluator "))
        (output,) = engine.outputs
        assert (output == 2.5).all()
        assert engine.run(2) > 0


def test_a_model_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="ended with status 1"), run_onnx(path, []):
        pass


def test_the_evaluators_time_is_never_taken_for_onnx_runtimes(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "model.onnx")
    inputs = [np.zeros((1, 4, 16, 16), np.float32)]
    if importlib.util.find_spec("onnxruntime") is None:
        with pytest.raises(InputError, match="No module named 'onnxruntime'"), run_onnx(path, inputs, is_timed=True):
            pass
    else:
        with run_onnx(path, inputs, is_timed=True) as engine:
            assert engine.name.startswith("ONNX Runtime ")


def test_arrays_take_the_types_and_shapes_of_outputs() -> None:
    (tensor,) = tensors_like([floats(1, 2)], [np.array([3.0, 4.0])])
    (array,) = arrays_of([tensor])
    assert array.dtype == np.float32
    assert array.tolist() == [3.0, 4.0]
    with pytest.raises(InputError, match="shapes"):
        tensors_like([floats(1, 2)], [np.zeros((2, 1))])


@pytest.mark.slow
def test_the_default_is_wrong_if_the_model_computes_something_else(session: Session, tmp_path: Path) -> None:
    """The model that is asked adds 1 to what the compiled one gives."""
    source = read_source(convolutions(tmp_path / "model.onnx"), tmp_path)
    other = msgspec.structs.replace(source, path=str(convolutions(tmp_path / "other.onnx", addend=1.0)))
    for asked, states in ((source, {State.MEASURED}), (other, {State.WRONG_RESULT})):
        untuned = UntunedModels(session.builder, asks_onnx=True)
        race = FormRace(session.builder, untuned, session.models, lambda message: None)
        plan = found_dispatches([asked], session.compiler, processors=2)
        (default,) = race.run(plan, plan.sources[0], (), lambda: False)
        assert {default.state} == states, default.reason


@pytest.mark.slow
def test_what_pays_once_it_is_tuned_races_beside_the_best_rewrites(session: Session, tmp_path: Path) -> None:
    source = read_source(strided(tmp_path / "model.onnx"), tmp_path)
    race = FormRace(session.builder, UntunedModels(session.builder), session.models, lambda message: None)
    plan = found_dispatches([source], session.compiler, processors=2)
    products, strides = CPU_FORMS[:2]
    results = {result.form.name: result for result in race.run(plan, plan.sources[0], CPU_FORMS[:2], lambda: False)}
    assert {"default", "products", "strides"} <= results.keys()
    assert results.keys() <= {"default", "products", "strides", "strides+products"}
    for result in results.values():
        assert result.state == State.MEASURED, result.reason
        assert result.form.is_default or result.compile_s > 0
    both = results.get("strides+products")
    assert both is None or both.form.rewrites == (*strides.rewrites, *products.rewrites)


@pytest.mark.slow
def test_how_a_model_answers_to_rounding_is_not_how_far_it_is_from_the_reference(
    session: Session, tmp_path: Path
) -> None:
    source = read_source(convolutions(tmp_path / "model.onnx"), tmp_path)
    (whole,) = found_dispatches([source], session.compiler, processors=2).sources
    vmfb = UntunedModels(session.builder).vmfb(source)

    def off(inputs: object, outputs: Sequence[TensorData]) -> tuple[TensorData, ...]:
        return tensors_like(outputs, [array + 0.01 for array in arrays_of(outputs)])

    models = ModelRunner(session.children, seed=0)
    (name,) = whole.run_whole
    function = ModelFunction(
        name, whole.functions[name], tolerance_for("f32", "f32", 72), disturbed=lambda: vmfb, expected=off
    )
    failed = models.check_all(function, vmfb, {"same": vmfb}, inputs=1)
    assert failed["same"].state is State.WRONG_RESULT


@pytest.mark.slow
def test_a_run_compares_with_the_model_and_times_onnx_runtime(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"pytest.ini": "[pytest]\n"})
    suite.write("model.onnx", convolutions(tmp_path / "model.onnx").read_bytes())
    options = ("--tune-reference=onnx", "--tune-compare=ort", "--tune-form=im2col", "--tune-trials=1")
    outcome = suite.tune("model.onnx", "-v", *options)
    assert outcome.status == 0, outcome.text
    if importlib.util.find_spec("onnxruntime") is None:
        outcome.lines.fnmatch_lines_random(["*model is not timed in ONNX Runtime, which this Python does not have*"])
    else:
        outcome.lines.fnmatch_lines_random(["*ONNX Runtime * the model takes * of its time*"])
