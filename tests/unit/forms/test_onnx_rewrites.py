"""Rewrites of ONNX graphs: the results stay the same, and the same model gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.onnx_rewrites import REWRITES, rewrite_onnx

RANDOM = np.random.default_rng(0)


def model_of(
    op_type: str,
    image: tuple[int, ...],
    weights: tuple[int, ...],
    *,
    bias: bool = False,
    weights_given: bool = True,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one convolution; its weights are an input unless they are given."""
    values = {"w": RANDOM.standard_normal(weights).astype(np.float32)}
    if bias:
        values["b"] = RANDOM.standard_normal(weights[0 if op_type == "Conv" else 1]).astype(np.float32)
    names = ["x", *values]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)]
    if not weights_given:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weights))
        del values["w"]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "model",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(image))],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def results(path: Path) -> np.ndarray[Any, Any]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inputs = {
        value.name: np.random.default_rng(1)
        .standard_normal([dim.dim_value for dim in value.type.tensor_type.shape.dim])
        .astype(np.float32)
        for value in model.graph.input
    }
    (result,) = ReferenceEvaluator(model).run(None, inputs)
    assert isinstance(result, np.ndarray)
    return result


def ops_of(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


REWRITTEN = {
    "pointwise": model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1)),
    "with a bias": model_of("Conv", (2, 6, 5, 7), (4, 6, 1, 1), bias=True, kernel_shape=[1, 1], pads=[0, 0, 0, 0]),
    "one-dimensional": model_of("Conv", (2, 6, 9), (4, 6, 1), bias=True),
    "three-dimensional": model_of("Conv", (1, 3, 2, 4, 3), (5, 3, 1, 1, 1)),
    "weights as an input": model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1), weights_given=False),
    "a stride": model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1), bias=True, strides=[2, 3]),
    "upsampling": model_of("ConvTranspose", (1, 3, 4, 5), (3, 2, 2, 2), strides=[2, 2]),
    "upsampling with a bias": model_of("ConvTranspose", (2, 3, 4, 5), (3, 2, 2, 3), bias=True, strides=[2, 3]),
    "upsampling one-dimensional": model_of("ConvTranspose", (1, 3, 4), (3, 2, 4), strides=[4], auto_pad="VALID"),
}
KEPT = {
    "a kernel of three": model_of("Conv", (1, 6, 5, 7), (4, 6, 3, 3)),
    "padding": model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1), pads=[0, 1, 0, 0]),
    "groups": model_of("Conv", (1, 6, 5, 7), (4, 3, 1, 1), group=2),
    "an overlap": model_of("ConvTranspose", (1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2]),
    "output padding": model_of("ConvTranspose", (1, 3, 4, 5), (3, 2, 2, 2), strides=[2, 2], output_padding=[1, 0]),
}


@pytest.mark.parametrize("model", REWRITTEN.values(), ids=REWRITTEN)
def test_a_rewritten_model_has_the_same_results(model: onnx.ModelProto, tmp_path: Path) -> None:
    before, after = tmp_path / "model.onnx", tmp_path / "rewritten.onnx"
    onnx.save(model, before)
    rewritten = rewrite_onnx(before, after)
    assert sorted(len(result.nodes) for result in rewritten) == [0, 1]
    assert not ops_of(after) & {"Conv", "ConvTranspose"}
    np.testing.assert_allclose(results(after), results(before), rtol=1e-5, atol=1e-5)


STRIDED = {
    "depthwise": model_of("Conv", (1, 6, 9, 8), (6, 1, 3, 3), bias=True, strides=[2, 2], pads=[1, 1, 1, 1], group=6),
    "odd sizes": model_of("Conv", (2, 4, 7, 11), (4, 1, 5, 5), strides=[1, 2], pads=[2, 2, 2, 2], group=4),
    "a stride of three": model_of("Conv", (1, 4, 7, 13), (8, 1, 2, 4), strides=[1, 3], pads=[0, 2, 1, 0], group=4),
    "an even kernel": model_of("Conv", (1, 3, 8, 8), (5, 3, 2, 2), strides=[2, 2]),
    "one image of three channels": model_of("Conv", (1, 3, 8, 9), (5, 3, 3, 3), bias=True, strides=[2, 2]),
    "groups of two": model_of("Conv", (1, 4, 6, 9), (6, 2, 3, 3), strides=[3, 2], pads=[0, 1, 0, 1], group=2),
    "weights as an input": model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 3), weights_given=False, strides=[1, 2]),
}
UNSTRIDED = {
    "no stride along the rows": model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 3), strides=[2, 1]),
    "many channels": model_of("Conv", (1, 8, 8, 8), (5, 8, 3, 3), strides=[2, 2]),
    "a kernel of one column": model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 1), strides=[2, 2]),
    "dilations": model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 3), strides=[2, 2], dilations=[1, 2]),
    "columns that no window reaches": model_of("Conv", (1, 3, 8, 9), (5, 3, 2, 2), strides=[2, 2]),
    "padding that ONNX computes": model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "one dimension": model_of("Conv", (1, 3, 8), (5, 3, 3), strides=[2]),
}


@pytest.mark.parametrize("model", STRIDED.values(), ids=STRIDED)
def test_a_stride_along_the_rows_becomes_one_down_them(model: onnx.ModelProto, tmp_path: Path) -> None:
    before, after = tmp_path / "model.onnx", tmp_path / "rewritten.onnx"
    onnx.save(model, before)
    (rewritten,) = rewrite_onnx(before, after, ["strided-convolutions"])
    assert len(rewritten.nodes) == 1
    (convolution,) = [node for node in onnx.load(after).graph.node if node.op_type == "Conv"]
    (strides,) = [entry.ints for entry in convolution.attribute if entry.name == "strides"]
    assert strides[1] == 1
    np.testing.assert_allclose(results(after), results(before), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", UNSTRIDED.values(), ids=UNSTRIDED)
def test_other_convolutions_keep_their_stride(model: onnx.ModelProto, tmp_path: Path) -> None:
    before, after = tmp_path / "model.onnx", tmp_path / "rewritten.onnx"
    onnx.save(model, before)
    assert [result.nodes for result in rewrite_onnx(before, after, ["strided-convolutions"])] == [()]
    assert onnx.load(after).graph.node == model.graph.node


def test_an_old_version_of_onnx_keeps_what_needs_pad(tmp_path: Path) -> None:
    model = model_of("Conv", (1, 3, 8, 8), (5, 3, 3, 3), strides=[2, 2])
    model.opset_import[0].version = 10
    onnx.save(model, tmp_path / "model.onnx")
    (rewritten,) = rewrite_onnx(tmp_path / "model.onnx", tmp_path / "out.onnx", ["strided-convolutions"])
    assert rewritten.nodes == ()


@pytest.mark.parametrize("model", KEPT.values(), ids=KEPT)
def test_a_convolution_that_is_no_single_product_is_kept(model: onnx.ModelProto, tmp_path: Path) -> None:
    before, after = tmp_path / "model.onnx", tmp_path / "rewritten.onnx"
    onnx.save(model, before)
    assert [result.nodes for result in rewrite_onnx(before, after)] == [(), ()]
    assert onnx.load(after).graph.node == model.graph.node


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    onnx.save(REWRITTEN["with a bias"], tmp_path / "model.onnx")
    for name in ("one.onnx", "two.onnx"):
        rewrite_onnx(tmp_path / "model.onnx", tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_new_name_differs_from_the_names_of_the_model(tmp_path: Path) -> None:
    model = model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1))
    graph = model.graph
    graph.node.append(helper.make_node("Relu", ["y"], ["y/matmul_0"]))
    graph.output.append(helper.make_tensor_value_info("y/matmul_0", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "model.onnx")
    rewrite_onnx(tmp_path / "model.onnx", tmp_path / "out.onnx")
    names = [name for node in onnx.load(tmp_path / "out.onnx").graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_an_open_size_is_named_with_the_option_that_gives_it(tmp_path: Path) -> None:
    model = model_of("Conv", (1, 6, 5, 7), (4, 6, 1, 1))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="--tune-input-shape"):
        rewrite_onnx(tmp_path / "model.onnx", tmp_path / "out.onnx")
    (pointwise, _) = rewrite_onnx(tmp_path / "model.onnx", tmp_path / "out.onnx", shapes={"x": (1, 6, 5, 7)})
    assert len(pointwise.nodes) == 1


def test_an_unknown_rewrite_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no rewrite 'fft': choose from {', '.join(REWRITES)}"):
        rewrite_onnx(tmp_path / "model.onnx", tmp_path / "out.onnx", ["fft"])
