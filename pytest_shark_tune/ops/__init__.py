"""Builders of ops to tune: each gives the MLIR of one op of given sizes and types."""

from pytest_shark_tune.ops.builders import OpSource, attention, batch_matmul, conv_2d, matmul

__all__ = ["OpSource", "attention", "batch_matmul", "conv_2d", "matmul"]
