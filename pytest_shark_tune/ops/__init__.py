"""Builders of ops to tune. A builder returns the MLIR of one op with the given sizes and types."""

from pytest_shark_tune.ops.builders import OpenModel, OpSource, attention, batch_matmul, conv_2d, matmul, zeros

__all__ = ["OpSource", "OpenModel", "attention", "batch_matmul", "conv_2d", "matmul", "zeros"]
