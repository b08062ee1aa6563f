"""The meaning of driver commands: each op is compiled for the CPU, run, and compared with numpy."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import iree.runtime
import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.ops.driver_commands import read_commands
from tests.thinned import thinned

Array = NDArray[Any]
Reference = Callable[..., Array | tuple[Array, ...]]

WIDE = np.float64


def run(line: str, arrays: list[Array], directory: Path) -> list[tuple[Array, ...]]:
    """Run each op of a line on as many of ``arrays`` as it takes."""
    compiler = Compiler(Target.parse("llvm-cpu"))
    results = []
    for source in read_commands(line, "list").sources:
        binary = directory / "op.vmfb"
        compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), binary)
        module = iree.runtime.load_vm_flatbuffer(binary.read_bytes(), driver="local-task")
        found = module.main(*arrays)
        results.append(tuple(np.asarray(each) for each in (found if isinstance(found, tuple) else (found,))))
    return results


def aten(op: str, *lists: list[Any]) -> str:
    return shlex.join([f"aten::{op}", *map(str, lists)])


def numbers(*shape: int, kind: str = "f4") -> Array:
    return np.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), dtype=kind)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float, causal: bool = False) -> Array:
    k, v = (np.repeat(each, q.shape[1] // k.shape[1], axis=1) for each in (k, v))
    scores = np.einsum("bhsd,bhtd->bhst", q, k) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    return np.asarray(np.einsum("bhst,bhtd->bhsd", softmax(scores), v))


def folded(reference: Callable[..., Array], *shapes: tuple[int, ...]) -> Reference:
    """A reference of several heads for an op whose tensors have the heads in the batch."""

    def of(*arrays: Array) -> Array:
        result = reference(*(array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)))
        return result.reshape(-1, *result.shape[2:])

    return of


def normalized(x: Array, over: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    mean, variance = (statistic(axis=over, keepdims=True) for statistic in (x.mean, x.var))
    inverse = 1 / np.sqrt(variance + epsilon)
    return (x - mean) * inverse, mean.squeeze(over), inverse.squeeze(over)


def input_gradient(slope: Array, x: Array, scale: Array, mean: Array, inverse: Array) -> Array:
    """As iree-turbine's BOO writes it: over the last dimension, with the statistics of the forward pass."""
    norm = (x - mean[..., None]) * inverse[..., None]
    scaled = slope * scale
    return np.asarray(
        (scaled - scaled.mean(-1, keepdims=True) - norm * (scaled * norm).mean(-1, keepdims=True)) * inverse[..., None]
    )


def batch_norm(x: Array, scale: Array, bias: Array, old_mean: Array, old_variance: Array) -> tuple[Array, ...]:
    """MIOpen's spatial training of an NHWC tensor, with saved and running statistics."""
    y, mean, inverse = normalized(x, (0, 1, 2), 1e-3)
    variance = x.var(axis=(0, 1, 2), ddof=1)
    return y * scale + bias, mean, inverse, 0.9 * old_mean + 0.1 * mean, 0.9 * old_variance + 0.1 * variance


def correlate(x: Array, w: Array) -> Array:
    """A convolution of an NCHW image, without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.asarray(np.einsum("nchwyx,kcyx->nkhw", windows, w))


def grouped(x: Array, w: Array) -> Array:
    """The same in two groups, of an N01GC image (NHWGC) and a filter of KYXGC, with the result as NGCHW."""
    halves = [correlate(x[:, :, :, at].transpose(0, 3, 1, 2), w[:, :, :, at].transpose(0, 3, 1, 2)) for at in range(2)]
    return np.concatenate(halves, axis=1)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


A, B = numbers(6, 10), numbers(10, 8)
BATCHED = numbers(3, 6, 10), numbers(3, 10, 8)
X, W = numbers(2, 4, 7, 9), numbers(6, 4, 3, 3)
K_BIAS = numbers(6)
HEADS = numbers(2, 4, 5, 8), numbers(2, 4, 7, 8), numbers(2, 4, 7, 8)
SHARED = numbers(2, 2, 7, 8), numbers(2, 2, 7, 8)
IMAGE = numbers(2, 5, 6, 4)
CONV = "-n 2 -c 4 -H 7 -W 9 -k 6 -y 3 -x 3"
SDPA = "sdpa -B 2 --heads_q 4 --seq_q 5 --seq_kv 7 -d 8 -t f32"

CASES: dict[str, tuple[str, list[Array], Reference]] = {
    "gemm": ("gemm -m 6 -k 10 -n 8", [A, B], lambda a, b: a @ b),
    "gemm-transposed": ("gemm -m 6 -k 10 -n 8 -u 1 -v 1", [A.T.copy(), B.T.copy()], lambda a, b: a.T @ b.T),
    "gemm-factors": (
        "gemm --a_h 6 --a_w 10 --b_w 8 --alpha 2 --beta -0.5",
        [A, B, numbers(6, 8)],
        lambda a, b, c: 2 * (a @ b) - 0.5 * c,
    ),
    "gemm-scaled": ("gemm -m 6 -k 10 -n 8 -A 3", [A, B], lambda a, b: 3 * (a @ b)),
    "gemm-batch": ("gemm -m 6 -k 10 -n 8 -b 3", [*BATCHED], lambda a, b: a @ b),
    "gemm-gradient-a": ("gemm -m 6 -k 10 -n 8 -F 2", [numbers(6, 8), B], lambda dc, b: dc @ b.T),
    "gemm-gradient-a-transposed": ("gemm -m 6 -k 10 -n 8 -F 2 -u 1", [B, numbers(6, 8)], lambda b, dc: (dc @ b.T).T),
    "gemm-gradient-b": ("gemm -m 6 -k 10 -n 8 -F 3", [A, numbers(6, 8)], lambda a, dc: a.T @ dc),
    "gemm-gradient-b-transposed": ("gemm -m 6 -k 10 -n 8 -F 3 -v 1", [numbers(6, 8), A], lambda dc, a: (a.T @ dc).T),
    "gemmfp16": (
        "gemmfp16 -m 6 -k 10 -n 8 --transB 1",
        [A.astype("f2"), B.T.astype("f2").copy()],
        lambda a, b: a @ b.T,
    ),
    "matmul-bias": (
        "matmul -M 6 -N 8 -K 10 --a_type f32 --b_type f32 --out_type f32 --bias --bias_type f32 --transA",
        [A.T.copy(), B, numbers(8)],
        lambda a, b, bias: a.T @ b + bias,
    ),
    "matmul-batch-bias": (
        "matmul -B 3 -M 6 -N 8 -K 10 --a_type f16 --b_type f16 --out_type f32 --bias --bias_type f16",
        [*(each.astype("f2") for each in BATCHED), numbers(8, kind="f2")],
        lambda a, b, bias: a @ b + bias,
    ),
    "aten-mm": (
        aten("mm", [[6, 10], [10, 8]], ["float", "float"], [[1, 6], [8, 1]], ["", ""]),
        [A.T.copy(), B],
        lambda a, b: a.T @ b,
    ),
    "aten-bmm": (
        aten("bmm", [[3, 6, 10], [3, 10, 8]], ["c10::Half", "c10::Half"], [[60, 10, 1], [80, 1, 10]], ["", ""]),
        [BATCHED[0].astype("f2"), BATCHED[1].transpose(0, 2, 1).astype("f2").copy()],
        lambda a, b: a @ b.transpose(0, 2, 1),
    ),
    "aten-addmm": (
        aten(
            "addmm",
            [[8], [6, 10], [10, 8], [], []],
            ["float", "float", "float", "Scalar", "Scalar"],
            [[1], [10, 1], [1, 10], [], []],
            ["", "", "", "2", "3"],
        ),
        [A, B.T.copy(), numbers(8)],
        lambda a, b, bias: 2 * bias + 3 * (a @ b.T),
    ),
    "aten-addmm-column": (
        aten("addmm", [[6, 1], [6, 10], [10, 8]], ["float"] * 3, [[1, 1], [10, 1], [8, 1]], [""] * 3),
        [A, B, numbers(6)],
        lambda a, b, column: a @ b + column[:, None],
    ),
    "aten-sdpa": (
        aten(
            "scaled_dot_product_attention",
            [[2, 4, 5, 8], [2, 4, 7, 8], [2, 4, 7, 8], [], [], [], [], []],
            ["float", "float", "float", "", "Scalar", "Scalar", "", "Scalar"],
            [[160, 40, 8, 1], [224, 56, 8, 1], [224, 56, 8, 1], [], [], [], [], []],
            ["", "", "", "None", "0.0", "True", "None", "False"],
        ),
        [*HEADS],
        lambda q, k, v: attention(q, k, v, scale=8**-0.5, causal=True),
    ),
    "sdpa": (
        f"{SDPA} --heads_kv 4",
        [each.reshape(8, -1, 8) for each in HEADS],
        folded(lambda q, k, v: attention(q, k, v, scale=8**-0.5), *(each.shape for each in HEADS)),
    ),
    "sdpa-scale-groups": (
        f"{SDPA} --heads_kv 2 --gqa --scale 0.5",
        [HEADS[0].reshape(4, 10, 8), *(each.reshape(4, 7, 8) for each in SHARED)],
        lambda q, k, v: attention(
            q.reshape(2, 4, 5, 8), k.reshape(2, 2, 7, 8), v.reshape(2, 2, 7, 8), scale=0.5
        ).reshape(4, 10, 8),
    ),
    "sdpa-mask": (
        f"{SDPA} --heads_kv 4 --mask",
        [*HEADS, numbers(2, 1, 5, 7)],
        lambda q, k, v, mask: attention(q, k, v, mask, scale=8**-0.5),
    ),
    "sdpa-causal-groups": (
        f"{SDPA} --heads_kv 2 --gqa --causal",
        [HEADS[0], *SHARED],
        lambda q, k, v: attention(q, k, v, scale=8**-0.5, causal=True),
    ),
    "layernorm-fusilli": (
        "layernorm -X 2x4x5x6 -F 1 -t f32 --layout NHWC --elementwise_affine -e 1e-3",
        [IMAGE, numbers(5, 6, 4), numbers(5, 6, 4)],
        lambda x, scale, bias: (
            normalized(x, (1, 2, 3), 1e-3)[0] * scale + bias,
            *normalized(x, (1, 2, 3), 1e-3)[1:],
        ),
    ),
    "layernorm-rank-3": (
        "layernorm -X 2x3x8 -F 1 -t f32 --layout NCH",
        [numbers(2, 3, 8)],
        lambda x: normalized(x, (1, 2), 1e-5),
    ),
    "layernorm-miopen": (
        "layernorm --input 2x5x6x4 -t 1 -m 1",
        [IMAGE, numbers(4), numbers(4)],
        lambda x, scale, bias: (normalized(x, (3,), 1e-5)[0] * scale + bias, *normalized(x, (3,), 1e-5)[1:]),
    ),
    "layernormfp16-dims": (
        "layernormfp16 --input 2x5x6x4 -o 2",
        [IMAGE.astype("f2")],
        lambda x: normalized(x, (2, 3), 1e-5),
    ),
    "layernorm-input-gradient": (
        "layernorm --input 2x5x6x4 -F 2 -m 1",
        [numbers(2, 5, 6, 4), numbers(2, 5, 6, 4), numbers(4), numbers(2, 5, 6), np.abs(numbers(2, 5, 6))],
        input_gradient,
    ),
    "layernorm-input-gradient-plain": (
        "layernorm --input 2x5x6x4 -F 2",
        [numbers(2, 5, 6, 4), numbers(2, 5, 6, 4), numbers(2, 5, 6), np.abs(numbers(2, 5, 6))],
        lambda slope, x, mean, inverse: input_gradient(slope, x, np.ones(4), mean, inverse),
    ),
    "layernorm-scale-gradient": (
        "layernorm --input 2x5x6x4 -F 4",
        [numbers(2, 5, 6, 4), numbers(2, 5, 6, 4), numbers(2, 5, 6), np.abs(numbers(2, 5, 6))],
        lambda slope, x, mean, inverse: (slope * (x - mean[..., None]) * inverse[..., None]).sum((0, 1, 2)),
    ),
    "layernorm-bias-gradient": (
        "layernorm --input 2x5x6x4 -F 8",
        [numbers(2, 5, 6, 4)],
        lambda slope: slope.sum((0, 1, 2)),
    ),
    "bnorm": (
        "bnorm -n 2 -c 4 -H 5 -W 6 -F 1 -m 1 -s 1 -r 1 --layout NHWC",
        [IMAGE, *(numbers(4) for _ in range(3)), np.abs(numbers(4))],
        batch_norm,
    ),
    "bnorm-per-activation": (
        "bnorm -n 2 -c 5 -H 6 -W 4",
        [IMAGE, numbers(5, 6, 4), numbers(5, 6, 4)],
        lambda x, scale, bias: normalized(x, (0,), 1e-3)[0] * scale + bias,
    ),
    "bnorm-inference": (
        "bnorm -n 2 -c 5 -H 6 -W 4 -F 2 -m 1",
        [IMAGE, *(numbers(5) for _ in range(3)), np.abs(numbers(5))],
        lambda x, scale, bias, mean, variance: (
            (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-3) * scale[:, None, None]
            + bias[:, None, None]
        ),
    ),
    "conv-bias": (f"conv {CONV} -b 1", [X, W, K_BIAS], lambda x, w, b: correlate(x, w) + b[:, None, None]),
    "conv-bias-nhwc": (
        f"conv {CONV} -F 1 --bias --in_layout=NHWC --fil_layout=NHWC --out_layout=NHWC",
        [X.transpose(0, 2, 3, 1).copy(), W.transpose(0, 2, 3, 1).copy(), K_BIAS],
        lambda x, w, b: correlate(x.transpose(0, 3, 1, 2), w.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1) + b,
    ),
    "conv-bias-activation": (
        f"CBAInfer {CONV}",
        [X, W, K_BIAS],
        lambda x, w, b: np.maximum(correlate(x, w) + b[:, None, None], 0),
    ),
    "conv-activation-fp16": (
        f"CAInferfp16 {CONV} -m 1",
        [X.astype("f2"), W.astype("f2")],
        lambda x, w: sigmoid(correlate(x, w)),
    ),
    "conv-tanh": (f"CAInfer {CONV} -m 2", [X, W], lambda x, w: np.tanh(correlate(x, w))),
    "conv-softrelu": (f"CAInfer {CONV} -m 4", [X, W], lambda x, w: np.log1p(np.exp(correlate(x, w)))),
    "conv-abs": (f"CAInfer {CONV} -m 5", [X, W], lambda x, w: np.abs(correlate(x, w))),
    "conv-same": (
        f"conv {CONV} -z same",
        [X, W],
        lambda x, w: correlate(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), w),
    ),
    "conv-groups-apart": (
        "conv -n 1 -c 4 -H 7 -W 9 -k 6 -y 3 -x 3 -g 2 -F 1 -I N01GC -f N01GC -O NGC01 -perf_priority 2",
        # The image's groups stand before its channels, so its dimension is the plain one; the filter's do not.
        [numbers(1, 7, 9, 4), numbers(3, 3, 3, 2, 2)],
        lambda x, w: grouped(x.reshape(1, 7, 9, 2, 2), w),
    ),
}


@pytest.mark.parametrize(("line", "arrays", "reference"), thinned(CASES.values(), every=8, ids=CASES))
def test_an_op_computes_what_its_command_says(
    line: str, arrays: list[Array], reference: Reference, tmp_path: Path
) -> None:
    ((*found,),) = run(line, arrays, tmp_path)
    expected = reference(*(array.astype(WIDE) for array in arrays))
    expected = expected if isinstance(expected, tuple) else (expected,)
    is_half = any(array.dtype == np.float16 for array in (*arrays, *found))
    assert len(found) == len(expected)
    for result, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(result, right, atol=2e-2 if is_half else 1e-4, rtol=1e-2 if is_half else 1e-4)


def test_a_gradient_of_a_convolution_with_a_bias_has_that_of_the_bias_too(tmp_path: Path) -> None:
    line = f"conv {CONV} -F 2 -b"
    names = [source.name for source in read_commands(line, "list").sources]
    assert names == ["conv_dgrad_nchw_2x7x9x4_6x3x3_f32", "conv_bgrad_nchw_2x7x9x4_6x3x3_f32"]
    gradient = numbers(2, 6, 5, 7)
    compiler = Compiler(Target.parse("llvm-cpu"))
    source = read_commands(line, "list").sources[1]
    binary = tmp_path / "op.vmfb"
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), binary)
    module = iree.runtime.load_vm_flatbuffer(binary.read_bytes(), driver="local-task")
    np.testing.assert_allclose(np.asarray(module.main(gradient)), gradient.sum((0, 2, 3)), atol=1e-4)
