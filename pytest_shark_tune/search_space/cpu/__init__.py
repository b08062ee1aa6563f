"""Search spaces on llvm-cpu, one module per kind of op."""

from pytest_shark_tune.search_space.cpu import attention, contraction, convolution, generic, mmt4d, register_tiling
from pytest_shark_tune.search_space.cpu.generic import has_long_rows

__all__ = ["BACKEND", "BUILDERS", "VERSIONS", "has_long_rows"]

BACKEND = "llvm-cpu"

BUILDERS = {
    BACKEND: {
        "contraction": contraction.cpu_contraction_spaces,
        "convolution": convolution.cpu_convolution_spaces,
        "pooling": convolution.cpu_convolution_spaces,
        "attention": attention.cpu_attention_spaces,
        "other": generic.cpu_generic_spaces,
    }
}
"""The function that builds the spaces of a kind of op, by backend."""

VERSIONS = {
    "cpu_attention": attention.VERSION,
    "cpu_contraction": contraction.VERSION,
    "cpu_convolution": convolution.VERSION,
    "cpu_generic": generic.VERSION,
    "cpu_mmt4d": mmt4d.VERSION,
    "cpu_register_tiling": register_tiling.VERSION,
}
