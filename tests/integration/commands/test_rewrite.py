"""``shark-tune rewrite``: IREE's results of a rewritten model, and messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.flow import function_inputs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution with a kernel of 1, and one that doubles the image."""
    random = np.random.default_rng(0)
    shapes = {"w": (8, 4, 1, 1), "b": (8,), "up": (8, 3, 2, 2)}
    weights = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"]),
        helper.make_node("ConvTranspose", ["h", "up"], ["y"], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "height", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, None, 14])],
        weights,
    )
    path = tmp_path / "a model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def results(path: Path, work: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[tuple[int, ...], bytes]:
    """The output of a model on random inputs, compiled by IREE."""
    compiler = Compiler(Target.parse("llvm-cpu"))
    text = compiler.lower(import_onnx(path, shapes), to="input")
    ((name, inputs),) = function_inputs(text).items()
    out = work / f"{path.stem}.vmfb"
    compiler.compile_sources(compiler.lower(text, to="executable-sources", since="input"), out)
    with DeviceChild("local-sync") as child:
        child.load_function("model", out, name, inputs)
        child.fill("model", 0)
        child.run("model", 1)
        *_, output = child.read("model")
    return output.shape, output.data


@pytest.mark.slow
def test_a_rewritten_model_computes_the_same_in_iree(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = CliRunner().invoke(main, ["rewrite", str(model), "-o", str(out), "--tune-input-shape", "x=1x4x5x7"])
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        ["pointwise-convolutions: 1 place rewritten", "upsampling-convolutions: 1 place rewritten"],
    )
    before, after = results(model, tmp_path, {"x": (1, 4, 5, 7)}), results(out, tmp_path, {})
    assert before[0] == after[0] == (1, 3, 10, 14)
    np.testing.assert_allclose(
        np.frombuffer(after[1], np.float32), np.frombuffer(before[1], np.float32), rtol=1e-4, atol=1e-5
    )


def test_a_size_that_is_open_is_asked_for(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["rewrite", str(model), "-o", str(tmp_path / "out.onnx")])
    assert done.exit_code == 2
    assert "--tune-input-shape x=" in done.output
    assert not (tmp_path / "out.onnx").exists()
