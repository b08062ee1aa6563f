"""Builds a transformer's encoder layer as an ONNX graph, as an exporter of PyTorch writes BERT.

Q, K and V are three products, the heads are split by Reshape and Transpose, and attention is MatMul, Div, Softmax,
MatMul. All weights are inputs of the graph, so the file is small and the compiler folds none of them::

    y = norm(x + attention(x) Wo + bo)
    z = norm(y + gelu(y Wup + bup) Wdown + bdown)

A product is divided by the root of the length of its sums, so that all values are of the order of 1 with random
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from encoder import Sizes

__all__ = ["encoder_onnx"]

_EPSILON = 1e-5


def encoder_onnx(sizes: Sizes) -> ModelProto:
    """Build the layer as a model with f16 inputs ``x``, weights and biases."""
    graph = _Graph(sizes)
    y = graph.norm("norm", graph.add("Add", "x", _attention(graph, sizes)))
    up = graph.linear("up", y, sizes.width, sizes.hidden)
    bell = graph.add("Erf", graph.scaled(up, 0.5**0.5))
    gelu = graph.scaled(graph.add("Mul", up, graph.add("Add", bell, graph.constant(1.0))), 0.5)
    down = graph.linear("down", gelu, sizes.hidden, sizes.width)
    return graph.model(graph.norm("norm2", graph.add("Add", y, down)))


class _Graph:
    """An ONNX graph under construction."""

    def __init__(self, sizes: Sizes) -> None:
        self._shape = [sizes.batch, sizes.tokens, sizes.width]
        self._nodes: list[Any] = []
        self._inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, self._shape)]

    def input(self, name: str, shape: Sequence[int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape))
        return name

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=f"node_{len(self._nodes)}", **attributes))
        return name

    def constant(self, number: float) -> str:
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(number, np.float16)))

    def scaled(self, value: str, factor: float) -> str:
        return self.add("Mul", value, self.constant(factor))

    def reshape(self, value: str, *shape: int) -> str:
        return self.add(
            "Reshape", value, self.add("Constant", value=numpy_helper.from_array(np.asarray(shape, np.int64)))
        )

    def linear(self, name: str, x: str, rows: int, columns: int) -> str:
        product = self.add("MatMul", x, self.input(f"w{name}", (rows, columns)))
        return self.add("Add", self.scaled(product, rows**-0.5), self.input(f"b{name}", (columns,)))

    def norm(self, name: str, x: str) -> str:
        scale, shift = (self.input(f"{name}_{part}", self._shape[-1:]) for part in ("scale", "shift"))
        return self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=_EPSILON)

    def model(self, result: str) -> ModelProto:
        output = helper.make_tensor_value_info(result, TensorProto.FLOAT16, self._shape)
        graph = helper.make_graph(self._nodes, "encoder", self._inputs, [output])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _attention(graph: _Graph, sizes: Sizes) -> str:
    head = sizes.width // sizes.heads

    def by_head(name: str, *perm: int) -> str:
        rows = graph.linear(name, "x", sizes.width, sizes.width)
        return graph.add("Transpose", graph.reshape(rows, sizes.batch, sizes.tokens, sizes.heads, head), perm=perm)

    query, key, value = by_head("q", 0, 2, 1, 3), by_head("k", 0, 2, 3, 1), by_head("v", 0, 2, 1, 3)
    scores = graph.add("Div", graph.add("MatMul", query, key), graph.constant(head**0.5))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    rows = graph.reshape(graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), sizes.batch, sizes.tokens, sizes.width)
    return graph.linear("o", rows, sizes.width, sizes.width)
