"""Builders of ops to tune. A builder returns the MLIR of one op with the given sizes and types."""

from pytest_shark_tune.ops.builders import OpenModel, OpSource, batch_matmul, matmul, zeros
from pytest_shark_tune.ops.layers import conv, conv_transpose, mlir, sdpa
from pytest_shark_tune.ops.plain_convolution import conv_2d
from pytest_shark_tune.ops.rowwise import layer_norm, reduce, rms_norm, softmax, transpose
from pytest_shark_tune.ops.sdpa import attention

__all__ = [
    "OpSource",
    "OpenModel",
    "attention",
    "batch_matmul",
    "conv",
    "conv_2d",
    "conv_transpose",
    "layer_norm",
    "matmul",
    "mlir",
    "reduce",
    "rms_norm",
    "sdpa",
    "softmax",
    "transpose",
    "zeros",
]
