from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import iree.runtime
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.convolution import Convolution, Direction, convolution_text
from tests.thinned import thinned

Array = NDArray[Any]

GROUPED = Convolution(
    batch=2,
    in_channels=4,
    out_channels=6,
    image=(7, 8),
    kernel=(3, 2),
    stride=(2, 1),
    padding=(1, 1),
    dilation=(1, 2),
    groups=2,
    input_layout="NHWC",
    filter_layout="NHWC",
    output_layout="NCHW",
)
DEEP = msgspec.structs.replace(
    GROUPED,
    groups=1,
    image=(4, 5, 6),
    kernel=(2, 3, 1),
    stride=(1, 2, 2),
    padding=(0, 1, 0),
    dilation=(2, 1, 1),
    input_layout="NDHWC",
    filter_layout="NCDHW",
    output_layout="NDHWC",
)


def canonical(layout: str) -> str:
    return "NC" + "DHW"[-(len(layout) - 2) :]


def stored(layout: str, n: int, c: int, space: tuple[int, ...]) -> list[int]:
    sizes = dict(zip(canonical(layout), (n, c, *space), strict=True))
    return [sizes[letter] for letter in layout]


def reference(conv: Convolution, image: Array, weights: Array) -> Array:
    """The forward convolution, tap by tap."""
    letters = canonical(conv.input_layout)
    x = image.transpose([conv.input_layout.index(letter) for letter in letters]).astype(np.float64)
    w = weights.transpose([conv.filter_layout.index(letter) for letter in letters]).astype(np.float64)
    x = np.pad(x, [(0, 0), (0, 0), *((pad, pad) for pad in conv.padding)])
    out = np.zeros((conv.batch, conv.out_channels, *conv.result))
    inputs, outputs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    for taps in itertools.product(*map(range, conv.kernel)):
        window = tuple(
            slice(tap * dilation, tap * dilation + (size - 1) * stride + 1, stride)
            for tap, dilation, size, stride in zip(taps, conv.dilation, conv.result, conv.stride, strict=True)
        )
        for group in range(conv.groups):
            mine = slice(group * outputs, (group + 1) * outputs)
            seen: Any = (slice(None), slice(group * inputs, (group + 1) * inputs), *window)
            tap: Any = (mine, slice(None), *taps)
            out[:, mine] += np.einsum("nc...,kc->nk...", x[seen], w[tap])
    return out.transpose([letters.index(letter) for letter in conv.output_layout])


def run(conv: Convolution, first: Array, second: Array, directory: Path) -> Array:
    compiler = Compiler(Target.parse("llvm-cpu"))
    binary = directory / "convolution.vmfb"
    compiler.compile_sources(compiler.lower(convolution_text(conv), to="executable-sources"), binary)
    module = iree.runtime.load_vm_flatbuffer(binary.read_bytes(), driver="local-task")
    return np.asarray(module.main(first.astype(np.float32), second.astype(np.float32)))


@pytest.mark.parametrize("conv", thinned([GROUPED, DEEP], every=2, ids=["grouped", "deep"]))
def test_a_convolution_and_its_gradients_compute_what_they_should(conv: Convolution, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, other_image = rng.standard_normal((2, *stored(conv.input_layout, conv.batch, conv.in_channels, conv.image)))
    shape = stored(conv.filter_layout, conv.out_channels, conv.in_channels // conv.groups, conv.kernel)
    weights, other_weights = rng.standard_normal((2, *shape))
    gradient = rng.standard_normal(stored(conv.output_layout, conv.batch, conv.out_channels, conv.result))
    np.testing.assert_allclose(run(conv, image, weights, tmp_path), reference(conv, image, weights), atol=1e-4)

    def turned(direction: Direction) -> Convolution:
        return msgspec.structs.replace(conv, direction=direction)

    # A gradient is the adjoint: its product with a direction is that of the result's change in that direction.
    to_image = run(turned("input_gradient"), gradient, weights, tmp_path)
    assert np.sum(to_image * other_image) == pytest.approx(
        np.sum(reference(conv, other_image, weights) * gradient), abs=1e-3
    )
    to_weights = run(turned("weight_gradient"), gradient, image, tmp_path)
    assert np.sum(to_weights * other_weights) == pytest.approx(
        np.sum(reference(conv, image, other_weights) * gradient), abs=1e-3
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "in channels, 4, do not divide into 3 groups"),
        ({"input_layout": "NHC"}, "the input's layout NHC is no order of CHNW"),
        ({"image": (1, 1), "padding": (0, 0)}, "a filter of 3x2 does not fit into an image of 1x1"),
        ({"element": "i8", "direction": "weight_gradient"}, "there is no gradient of integers"),
        ({"padding": (3, 0), "direction": "input_gradient"}, "a padding of 3x0 that is wider than the filter"),
    ],
)
def test_what_is_no_convolution_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convolution_text(msgspec.structs.replace(GROUPED, **changes))
