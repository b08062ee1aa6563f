"""Root ops as sources of their own: what comes of one is the dispatch that it was taken from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.ops.standalone import standalone_op
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source

pytestmark = pytest.mark.compiler

OPS = {
    "transposed": ops.matmul(m=32, n=48, k=64, lhs="f16", transpose_b=True),
    "narrow": ops.batch_matmul(batch=2, m=16, n=16, k=32, lhs="i8"),
    "convolution": ops.conv_2d(
        batch=1, height=8, width=8, channels=8, filters=16, kernel_height=3, kernel_width=3, stride=2, lhs="f32"
    ),
}


def dispatch_of(source: OpSource, compiler: Compiler) -> Dispatch:
    (dispatch,) = extract_dispatches([read_source(source, Path())], compiler, 2).dispatches
    return dispatch


@pytest.mark.parametrize("name", OPS)
def test_it_becomes_the_dispatch_that_it_is_of(compiler: Compiler, name: str) -> None:
    dispatch = dispatch_of(OPS[name], compiler)
    again = dispatch_of(standalone_op("alone", dispatch.root), compiler)
    assert again.key == dispatch.key
    assert again.members[0].source == "alone"


def test_what_the_compiler_makes_itself_is_refused(compiler: Compiler) -> None:
    attention = dispatch_of(ops.attention(batch=1, queries=16, keys=16, head=8, element="f32"), compiler)
    with pytest.raises(InputError, match=r"online_attention cannot be made .* give the model"):
        standalone_op("alone", attention.root)


def test_what_does_not_parse_is_refused(compiler: Compiler) -> None:
    root = dispatch_of(OPS["convolution"], compiler).root
    with pytest.raises(InputError, match="alone: this IREE does not parse the op in its record"):
        standalone_op("alone", msgspec.structs.replace(root, pattern="what another release wrote"))
    with pytest.raises(InputError, match="its record does not hold the op: give the model"):
        standalone_op("alone", msgspec.structs.replace(root, pattern=""))
