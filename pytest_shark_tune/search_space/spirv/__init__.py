"""Search spaces on SPIR-V, one module per kind of op."""

from pytest_shark_tune.search_space.spirv import contraction, convolution

__all__ = ["BUILDERS", "VERSIONS"]

BUILDERS = {
    "vulkan-spirv": {
        "contraction": contraction.spirv_contraction_spaces,
        "convolution": convolution.spirv_convolution_spaces,
    }
}
"""The function that builds the spaces of a kind of op, by backend."""

VERSIONS = {"spirv_contraction": contraction.VERSION, "spirv_convolution": convolution.VERSION}
