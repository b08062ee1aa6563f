"""Forms of models on GPUs."""

from __future__ import annotations

from pytest_shark_tune.forms.form import Form

__all__ = ["GPU_FORMS"]

GPU_FORMS = (
    Form(name="fused-attention", rewrites=("fused-attention",)),
    Form(name="fused-products", rewrites=("fused-products",)),
    Form(name="O2", flags=("--iree-opt-level=O2",)),
    Form(name="transposes", flags=("--iree-opt-aggressively-propagate-transposes",)),
    Form(name="aggressive-fusion", flags=("--iree-dispatch-creation-enable-aggressive-fusion",)),
    Form(name="split-reduction", flags=("--iree-dispatch-creation-enable-split-reduction",)),
    Form(name="data-tiling", flags=("--iree-opt-data-tiling",)),
    Form(name="vector-distribution", flags=("--iree-codegen-llvmgpu-use-tile-and-fuse-matmul=false",)),
)
"""The forms that a GPU may profit from, the most promising first.

The compiler makes one dispatch of an attention op, and three or more of MatMul, Softmax, MatMul. Products with the same
left operand, such as those of Q, K and V, are larger together. O3 makes the same code as O2.
"""
