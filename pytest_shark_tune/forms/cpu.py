"""Forms of models on llvm-cpu."""

from __future__ import annotations

from pytest_shark_tune.forms.form import Form

__all__ = ["CPU_FORMS"]

_PREPROCESSING = "--iree-preprocessing-pass-pipeline"

CPU_FORMS = (
    Form(name="products", rewrites=("pointwise-convolutions", "upsampling-convolutions")),
    Form(name="strides", rewrites=("strided-convolutions",)),
    Form(name="im2col", flags=("--iree-global-opt-use-im2col-for-convs",)),
    Form(
        name="channels-last",
        flags=(f"{_PREPROCESSING}=builtin.module(util.func(iree-preprocessing-convert-conv-to-channels-last))",),
    ),
    Form(
        name="transposed-convolutions",
        flags=(f"{_PREPROCESSING}=builtin.module(iree-preprocessing-transpose-convolution-pipeline)",),
    ),
    Form(name="fused-attention", rewrites=("fused-attention",)),
    Form(name="O3", flags=("--iree-opt-level=O3",)),
    Form(name="data-tiling", flags=("--iree-opt-data-tiling",)),
)
"""The forms that llvm-cpu may profit from, the most promising first.

A batch-1 convolution with channels first compiles to scalar code or to shuffles. The first five forms turn it into a
matrix product, into one with stride 1 along the rows, or move its channels last. Data tiling goes without
``--iree-llvmcpu-enable-ukernels``: with it, PP-OCR recognition was no faster, and forms with flags for the code
generator share no tuned dispatch with others.
"""
