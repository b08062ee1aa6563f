"""Search spaces on GPUs under TileAndFuse and VectorDistribute, one module per kind of op."""

from pytest_shark_tune.search_space.gpu import attention, contraction, convolution, generic, mma, pooling, reduction

__all__ = ["BUILDERS", "VERSIONS"]

BUILDERS = {
    "cuda": {
        "contraction": contraction.gpu_contraction_spaces,
        "convolution": convolution.gpu_convolution_spaces,
        "pooling": pooling.gpu_pooling_spaces,
        "attention": attention.gpu_attention_spaces,
        "other": generic.gpu_generic_spaces,
    },
    "rocm": {
        "contraction": contraction.gpu_contraction_spaces,
        "convolution": convolution.gpu_convolution_spaces,
        "pooling": pooling.gpu_pooling_spaces,
        "other": generic.gpu_generic_spaces,
    },
}
"""The function that builds the spaces of a kind of op, by backend."""

VERSIONS = {
    "gpu_attention": attention.VERSION,
    "gpu_contraction": contraction.VERSION,
    "gpu_convolution": convolution.VERSION,
    "gpu_generic": generic.VERSION,
    "gpu_mma": mma.VERSION,
    "gpu_pooling": pooling.VERSION,
    "gpu_reduction": reduction.VERSION,
}
