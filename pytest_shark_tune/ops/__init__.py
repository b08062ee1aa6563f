"""Builders of ops to tune. A builder returns the MLIR of one op with the given sizes and types."""

from pytest_shark_tune.ops.builders import OpenModel, OpSource, batch_matmul, conv_2d, matmul, zeros
from pytest_shark_tune.ops.rowwise import layer_norm, reduce, rms_norm, softmax, transpose
from pytest_shark_tune.ops.sdpa import attention

__all__ = [
    "OpSource",
    "OpenModel",
    "attention",
    "batch_matmul",
    "conv_2d",
    "layer_norm",
    "matmul",
    "reduce",
    "rms_norm",
    "softmax",
    "transpose",
    "zeros",
]
