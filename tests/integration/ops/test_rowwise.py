"""Ops on the rows of a matrix: compiled and run, and compared with numpy; and what has no such op."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import iree.runtime
import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import spaces_for
from tests.thinned import thinned

Array = NDArray[Any]
Builder = Callable[..., ops.OpSource]

ROWS, COLUMNS = 7, 45


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    return np.asarray(
        (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * weight + bias
    )


def rms_norm(x: Array, weight: Array) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * weight)


REFERENCES: dict[str, tuple[Builder, dict[str, Any], Callable[..., Array], int]] = {
    "softmax": (ops.softmax, {}, softmax, 0),
    "layer_norm": (ops.layer_norm, {}, layer_norm, 2),
    "rms_norm": (ops.rms_norm, {}, rms_norm, 1),
    "row_sum": (ops.reduce, {}, lambda x: x.sum(axis=1), 0),
    "row_max": (ops.reduce, {"kind": "max"}, lambda x: x.max(axis=1), 0),
    "column_sum": (ops.reduce, {"axis": 0}, lambda x: x.sum(axis=0), 0),
    "column_max": (ops.reduce, {"axis": 0, "kind": "max"}, lambda x: x.max(axis=0), 0),
    "transpose": (ops.transpose, {}, lambda x: x.T, 0),
}
"""By name: the builder, its arguments, the op in numpy, and how many vectors it takes besides the matrix."""


@pytest.mark.parametrize("element", thinned(["f32", "f16"], every=2))
@pytest.mark.parametrize("name", thinned(REFERENCES, every=2))
def test_an_op_computes_what_numpy_does_in_dispatches_with_spaces(name: str, element: str, tmp_path: Path) -> None:
    build, arguments, reference, vectors = REFERENCES[name]
    source = build(rows=ROWS, columns=COLUMNS, element=element, **arguments)
    assert source.name == f"{name}_{ROWS}x{COLUMNS}_{element}"
    compiler = Compiler(Target.parse("llvm-cpu"))
    binary = tmp_path / "op.vmfb"
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), binary)
    module = iree.runtime.load_vm_flatbuffer(binary.read_bytes(), driver="local-sync")
    rng = np.random.default_rng(0)
    stored = np.float16 if element == "f16" else np.float32
    # A mean that is not 0, so that it counts whether it is subtracted.
    inputs = [rng.standard_normal((ROWS, COLUMNS)) * 3 + 2, *(rng.standard_normal(COLUMNS) for _ in range(vectors))]
    given = [each.astype(stored) for each in inputs]
    right = reference(*(each.astype(np.float64) for each in given))
    result = np.asarray(module.main(*given))
    assert result.dtype == (np.float32 if "sum" in name or "max" in name.partition("_")[2] else stored)
    np.testing.assert_allclose(result.astype(np.float64), right, rtol=2e-3 if element == "f16" else 2e-5, atol=2e-3)
    read = [read_benchmark(text, "op", processors=2) for text in compiler.dump_benchmarks(source.text, "op")]
    found = [each for each in read if isinstance(each, FoundDispatch)]
    assert found
    for dispatch in found:
        assert spaces_for(dispatch.root, dispatch.target)


def test_a_transpose_moves_integers_too() -> None:
    assert "tensor<5x3xi8>" in ops.transpose(rows=3, columns=5, element="i8").text


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (ops.softmax, {"rows": 0}, "rows=0: a size is an integer from 1"),
        (ops.layer_norm, {"columns": True}, "columns=True: a size is an integer from 1"),
        (ops.rms_norm, {"element": "i8"}, "element='i8': it is one of f32, f16, bf16"),
        (ops.reduce, {"axis": 2}, "axis=2: it is 0 or 1"),
        (ops.reduce, {"axis": True}, "axis=True: it is 0 or 1"),
        (ops.reduce, {"kind": "mean"}, "kind='mean': it is one of sum, max"),
        (ops.transpose, {"element": "i4"}, "element='i4': it is one of f32, f16, bf16, i8"),
    ],
)
def test_bad_arguments_are_named(build: Builder, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**{"rows": 4, "columns": 8} | arguments)
