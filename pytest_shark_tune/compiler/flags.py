"""The flags of iree-compile that a file from elsewhere may bring.

Some flags load libraries, start commands or write files (``--iree-llvmcpu-system-linker-path``,
``--iree-hal-preprocess-executables-with``). A user may give all of them. A bundle may bring only flags that choose how
code is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_shark_tune.errors import InputError

__all__ = ["SPEC_FLAG", "check_flags"]

SPEC_FLAG = "--iree-codegen-tuning-spec-path"
"""The flag that names a tuning spec."""

_ALLOWED = {
    f"--iree-{family}-{name}"
    for family, names in {
        "codegen": """llvmgpu-enable-outer-reduction-tile-and-fuse llvmgpu-igemm-pad-convolution
            llvmgpu-use-direct-convolution llvmgpu-use-igemm llvmgpu-use-reduction-vector-distribution
            llvmgpu-use-tile-and-fuse-convolution llvmgpu-use-tile-and-fuse-matmul llvmgpu-use-vector-distribution
            llvmgpu-vectorize-pipeline mmt4d-use-intrinsics reorder-workgroups-strategy enable-default-tuning-specs""",
        "cuda": "target target-features use-ptxas",
        "dispatch-creation": """data-tiling element-wise-fuse-multi-reduction enable-aggressive-fusion
            enable-aggressive-reshape-movement enable-early-trunc-fusion enable-fuse-horizontal-contractions
            enable-fuse-padding-into-linalg-consumer-ops enable-fuse-padding-into-linalg-producer-ops
            enable-split-reduction experimental-multi-use-encoding-fusion experimental-set-data-tiling-ops
            fuse-multi-use opt-level propagate-collapse-across-expands set-encoding-strategy split-argmax-threshold
            split-argmax-tile-size split-matmul-reduction split-reduction-low-parallelism topk-split-reduction""",
        "global-opt": """data-tiling demote-contraction-inputs-operations demote-contraction-inputs-type
            enable-attention-v-transpose enable-early-materialization enable-qdq-to-integer-math
            enable-quantized-matmul-reassociation enable-sink-transpose-through-pad
            experimental-enable-edge-reshape-propagation propagate-transposes propagate-transposes-through-conv
            set-encoding-strategy use-im2col-for-convs""",
        "input": """demote-f32-to-f16 demote-f64-to-f32 demote-i64-to-i32 promote-bf16-to-f32 promote-f16-to-f32
            type""",
        "llvmcpu": """disable-arm-sme-tiling disable-distribution disable-vector-peeling distribution-size
            enable-inner-tiled enable-llvm-ukernels enable-scalable-vectorization enable-ukernels
            fail-on-out-of-bounds-stack-allocation loop-interleaving loop-unrolling loop-vectorization
            matmul-tile-bytes mlir-opt-level number-of-threads reassociate-fp-reductions skip-intermediate-roundings
            slp-vectorization stack-allocation-limit target-abi target-cpu target-cpu-features target-data-layout
            target-float-abi target-triple target-vector-width-in-bytes use-decompose-softmax-fuse
            use-fast-min-max-ops vector-pproc-strategy""",
        "llvmgpu": """enable-shared-memory-reuse enable-small-float-emulation prefetch-num-stages
            set-workgroup-distribution-along shared-memory-limit""",
        "opt": """aggressively-propagate-transposes const-eval const-expr-hoisting
            const-expr-max-size-increase-threshold data-tiling generalize-matmul level numeric-precision-reduction
            outer-dim-concat strip-assertions""",
        "rocm": """denormal-fp-math-f32 enable-tensor-ukernels enable-ukernels llvm-global-isel llvm-slp-vec
            specialize-dispatches target target-features use-spirv waves-per-eu""",
        "stream": """partitioning-favor resource-alias-mutable-bindings resource-index-bits
            resource-max-allocation-size resource-max-range resource-memory-model resource-min-offset-alignment""",
        "vulkan": "dispatch-abi target target-features",
    }.items()
    for name in names.split()
} | {"--mlir-disable-threading"}
_PIPELINES = "--iree-preprocessing-pass-pipeline"
"""The flag that takes a pass pipeline."""


def check_flags(flags: Iterable[str], name: str, why_not_plain: Callable[[str], str]) -> None:
    """Refuse flags that no file may bring.

    Args:
        flags: The flags of the file.
        name: The name of the file in messages.
        why_not_plain: Gives the reason why a pass pipeline is refused; empty if it is not.

    Raises:
        InputError: one of the flags is not on the list.
    """
    for flag in flags:
        key, _, value = flag.partition("=")
        refused = why_not_plain(value) if key == _PIPELINES else "" if key in _ALLOWED else "it may do more than that"
        if refused:
            raise InputError(
                f"{name} is refused: it brings the flag {flag}, and a file may bring only flags that choose how code "
                f"is made: {refused}. If you trust it, give --tune-trust-spec"
            )
