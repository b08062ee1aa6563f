"""Layers as frameworks have them, run and compared with numpy."""

from __future__ import annotations

import math
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
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops import OpSource
from tests.thinned import thinned

Array = NDArray[Any]


def gelu(x: Array) -> Array:
    found: Array = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return found


def conv_1d(image: Array, weights: Array, bias: Array) -> Array:
    """A convolution of images of N x W x C with padding 1 and stride 2; the weights are filters x taps x channels."""
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)))
    windows = [padded[:, start : start + 3] for start in range(0, padded.shape[1] - 2, 2)]
    return np.stack([np.einsum("ntc,ftc->nf", window, weights) for window in windows], axis=1) + bias


def spread(image: Array, weights: Array) -> Array:
    """A transposed convolution of N x H x W x C by 2 x 2 filters with stride 2; the weights are in x taps x out."""
    batch, height, width, _ = image.shape
    out = np.zeros((batch, 2 * height, 2 * width, weights.shape[3]))
    for y, x in np.ndindex(height, width):
        out[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += np.einsum("nc,cyxf->nyxf", image[:, y, x], weights)
    return out


CASES: dict[str, tuple[OpSource, list[tuple[int, ...]], Callable[..., Array]]] = {
    "bias and gelu": (
        ops.matmul(m=4, n=6, k=5, bias=True, activation="gelu"),
        [(4, 5), (5, 6), (6,)],
        lambda a, b, bias: gelu(a @ b + bias),
    ),
    "residual": (
        ops.batch_matmul(batch=2, m=4, n=6, k=5, residual=True),
        [(2, 4, 5), (2, 5, 6), (2, 4, 6)],
        lambda a, b, rest: a @ b + rest,
    ),
    "relu": (ops.matmul(m=4, n=6, k=5, activation="relu"), [(4, 5), (5, 6)], lambda a, b: np.maximum(a @ b, 0)),
    "1-D convolution": (
        ops.conv(batch=2, channels=3, filters=4, image=(9,), kernel=3, stride=2, padding=1, bias=True),
        [(2, 9, 3), (4, 3, 3), (4,)],
        conv_1d,
    ),
    "transposed convolution": (
        ops.conv_transpose(batch=1, channels=3, filters=2, image=(4, 5), kernel=2, stride=2),
        [(1, 4, 5, 3), (3, 2, 2, 2)],
        spread,
    ),
}


@pytest.mark.parametrize("case", thinned(CASES, every=2))
def test_a_layer_computes_what_numpy_does(case: str, tmp_path: Path) -> None:
    source, shapes, reference = CASES[case]
    compiler = Compiler(Target.parse("llvm-cpu"))
    binary = tmp_path / "op.vmfb"
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), binary)
    module = iree.runtime.load_vm_flatbuffer(binary.read_bytes(), driver="local-sync")
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    right = reference(*(tensor.astype(np.float64) for tensor in given))
    np.testing.assert_allclose(np.asarray(module.main(*given)), right, rtol=1e-4, atol=1e-4)


def test_frameworks_names_of_types_are_understood() -> None:
    assert ops.matmul(m=4, n=4, k=4, lhs="fp16", out="half") == ops.matmul(m=4, n=4, k=4, lhs="f16", out="f16")
    assert ops.softmax(rows=4, columns=8, element="float32") == ops.softmax(rows=4, columns=8)
    assert ops.attention(batch=1, queries=8, keys=8, head=4, element="bfloat16").name == "attention_1x8x8x4_bf16"


def test_heads_share_keys_and_take_a_mask() -> None:
    shared = ops.sdpa(batch=1, heads=8, groups=2, queries=16, keys=32, head=16)
    assert shared.name == "attention_2x64x32x16_f16", "the queries of four heads are one tensor"
    masked = ops.sdpa(batch=1, heads=8, queries=16, keys=32, head=16, mask=(1, 1, 16, 32))
    assert masked.name.endswith("mask_1x1x16x32")


def test_a_module_that_is_written_out_is_a_source() -> None:
    text = "func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> { return %a : tensor<4xf32> }"
    assert ops.mlir(text, "same") == OpSource("same", text)
    assert ops.mlir(text).name == ops.mlir(text).name != ops.mlir(text + "\n").name


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ops.matmul(m=4, n=4, k=4, bias=True, residual=True), "a product takes one of the two"),
        (lambda: ops.matmul(m=4, n=4, k=4, activation="swish"), "activation='swish': it is one of relu, gelu"),  # type: ignore[arg-type]
        (lambda: ops.matmul(m=(1, 4), n=4, k=4, bias=True), r"m=\(1, 4\): a size is an integer"),
        (lambda: ops.matmul(m=4, n=4, k=4, lhs="i8", bias=True), "sums of floats only"),
        (lambda: ops.conv(batch=1, channels=4, filters=4, image=(8, 8), kernel=(3,)), "kernel="),
        (lambda: ops.conv(batch=1, channels=4, filters=4, image=(8, 8), kernel=3, stride=0), "stride=0"),
        (lambda: ops.conv(batch=1, channels=4, filters=4, image=(8, 8), kernel=3, groups=3), "do not divide into 3"),
        (lambda: ops.conv(batch=1, channels=4, filters=4, image=(2, 2, 2, 2), kernel=1), "one, two or three"),
        (lambda: ops.mlir(" "), "the text of a module is empty"),
        (lambda: ops.mlir("module {}", "a b"), "name='a b'"),
    ],
)
def test_bad_arguments_are_named(build: Callable[[], OpSource], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
