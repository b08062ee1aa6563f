"""The compiler's passes that a pass pipeline in a config may name, with their options.

A pipeline in a spec is text that runs inside the compiler with the user's rights, and the compiler's library holds
passes that write files, load files and start commands. This list holds passes that only rewrite their dispatch. It
includes an option only if its value is a number, a truth value or a word from a fixed set.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

__all__ = ["why_not_plain"]

_WITHOUT_OPTIONS = """
affine-expand-index-ops affine-expand-index-ops-as-affine affine-loop-coalescing affine-loop-invariant-code-motion
affine-scalrep affine-simplify-min-max affine-simplify-structures affine-simplify-with-bounds buffer-hoisting
buffer-loop-hoisting convert-elementwise-to-linalg convert-linalg-to-affine-loops convert-linalg-to-loops cse
eliminate-empty-tensors empty-tensor-to-alloc-tensor expand-strided-metadata flatten-memref fold-memref-alias-ops
iree-codegen-absorb-swizzle-hint-to-alloc iree-codegen-affinemin-scf-canonicalization
iree-codegen-amdgpu-lower-async-dma iree-codegen-amdgpu-lower-coalesced-dma-to-gather-lds
iree-codegen-block-dynamic-dimensions iree-codegen-bubble-up-ordinal-ops iree-codegen-bufferize-copy-only-dispatches
iree-codegen-bufferize-dispatch-tensor-load-store iree-codegen-canonicalize-scf-for
iree-codegen-cleanup-buffer-alloc-view iree-codegen-concretize-pad-result-shape
iree-codegen-convert-hal-descriptor-type-to-gpu-address-space iree-codegen-convert-workgroup-forall-to-pcf
iree-codegen-convolution-to-igemm iree-codegen-cpu-prepare-ukernels iree-codegen-cpu-propagate-data-layout
iree-codegen-decompose-affine-ops iree-codegen-decompose-convolution-to-lower-dim-ops
iree-codegen-decompose-linalg-generic iree-codegen-decompose-memrefs iree-codegen-drop-vector-unit-dims
iree-codegen-erase-dead-alloc-and-stores iree-codegen-erase-hal-descriptor-type-from-memref
iree-codegen-expand-gpu-ops iree-codegen-flatten-memref-subspan iree-codegen-flatten-swizzle-hint-allocs
iree-codegen-fold-affinemin-in-distributed-loops iree-codegen-fold-memref-alias-ops
iree-codegen-fold-memref-copy-into-dps-ops iree-codegen-fold-reshape-into-interface-tensor
iree-codegen-fold-split-reduction-and-workgroup-mapping-loops iree-codegen-fold-tensor-extract-op
iree-codegen-forall-to-for iree-codegen-fuse-tensor-pad-with-consumer
iree-codegen-gpu-alloc-private-memory-for-dps-ops iree-codegen-gpu-bubble-resource-casts
iree-codegen-gpu-check-resource-usage iree-codegen-gpu-combine-layout-transformation
iree-codegen-gpu-combine-value-semantic-barriers iree-codegen-gpu-convert-to-coalesced-dma
iree-codegen-gpu-create-fast-slow-path iree-codegen-gpu-decompose-horizontally-fused-gemms
iree-codegen-gpu-distribute iree-codegen-gpu-distribute-copy-using-forall iree-codegen-gpu-distribute-forall
iree-codegen-gpu-distribute-shared-memory-copy iree-codegen-gpu-fuse-and-hoist-parallel-loops
iree-codegen-gpu-fuse-subgroup-consumers iree-codegen-gpu-generalize-named-ops
iree-codegen-gpu-greedily-distribute-to-threads iree-codegen-gpu-infer-memory-space
iree-codegen-gpu-pack-partial-reductions iree-codegen-gpu-pack-to-intrinsics iree-codegen-gpu-pad-convs
iree-codegen-gpu-pad-operands iree-codegen-gpu-reuse-shared-memory-allocs iree-codegen-gpu-tensor-alloc
iree-codegen-gpu-tile iree-codegen-gpu-tile-and-convert-conv-to-matmul iree-codegen-gpu-tile-reduction
iree-codegen-gpu-vector-alloc iree-codegen-gpu-verify-distribution iree-codegen-hoist-inner-tiled-acc-reshapes
iree-codegen-hoist-vector-extract-insert-slice iree-codegen-inject-assume-alignment
iree-codegen-insert-batch-dim-for-batchless-conv iree-codegen-materialize-vector-tile-sizes
iree-codegen-math-transform iree-codegen-memrefcopy-to-linalg iree-codegen-pad-dynamic-alloc
iree-codegen-propagate-constant-offsets iree-codegen-propagate-dispatch-size-bounds
iree-codegen-propagate-reshapes-by-expansion iree-codegen-reinsert-swizzle-hints
iree-codegen-rematerialize-parallel-ops iree-codegen-remove-index-hints iree-codegen-remove-single-iteration-loop
iree-codegen-replace-slow-min-max-ops iree-codegen-resolve-swizzle-hints iree-codegen-type-propagation
iree-codegen-unroll-annotated-loops iree-codegen-vectorize-memref-copy iree-codegen-vectorize-tensor-pad
iree-codegen-verify-workgroup-distribution iree-eliminate-empty-tensors iree-gpu-convert-forall-to-generic-nest
iree-gpu-distribute-inner-tiled-to-lanes iree-gpu-lower-ops iree-gpu-unroll-to-intrinsics
iree-linalg-ext-convert-attention-to-online-attention iree-linalg-ext-convert-conv-to-im2col-op
iree-linalg-ext-decompose-winograd iree-linalg-ext-to-loops iree-llvmcpu-assign-workgroup-local-memory
iree-llvmcpu-expand-f16-op-to-f32 iree-llvmcpu-peel iree-llvmcpu-tile-to-vector-size iree-llvmcpu-unfuse-fma-pass
iree-llvmcpu-vector-contract-custom-kernels iree-llvmcpu-vector-shape-cast-lowering
iree-llvmcpu-verify-linalg-transform-legality iree-llvmcpu-verify-vector-size-legality
iree-llvmgpu-1d-vector-canonicalizations iree-llvmgpu-configure-tensor-layouts iree-llvmgpu-group-global-loads
iree-llvmgpu-legalize-nd-vectors iree-llvmgpu-pack-shared-memory-alloc iree-llvmgpu-tensorcore-vectorization
iree-llvmgpu-tile-and-distribute iree-llvmgpu-vector-distribute iree-llvmgpu-vector-flattening
iree-llvmgpu-vector-lowering iree-llvmgpu-vector-multi-reduction-lowering iree-llvmgpu-vector-to-gpu
iree-loop-invariant-code-motion iree-pcf-convert-sref-to-memref iree-pcf-fuse-consumers iree-pcf-fuse-pcf-writes
iree-pcf-fuse-producers iree-pcf-lower-structural-pcf iree-pcf-resolve-tokens iree-vector-ext-fold-unit-extent-dims
iree-vector-ext-lower-arg-compare-to-vector iree-vector-ext-lower-transfer-gather-scatter-to-vector
iree-preprocessing-convert-1x1-filter-conv2d-to-matmul iree-preprocessing-convert-conv-filter-to-channels-last
iree-preprocessing-convert-conv-to-channels-last iree-preprocessing-convert-strided-insert-slice-to-generic
iree-preprocessing-fold-attention-with-transpose iree-preprocessing-generalize-linalg-matmul-experimental
iree-preprocessing-make-single-dispatch iree-preprocessing-make-single-dispatch-for-function
iree-preprocessing-pad-linalg-ops iree-preprocessing-pad-to-intrinsics iree-preprocessing-promote-linalg-outputs
iree-preprocessing-swap-strided-insert-slice-with-contraction iree-preprocessing-transpose-convolution-pipeline
iree-preprocessing-transpose-matmul-pass
linalg-fold-into-elementwise linalg-fuse-elementwise-ops linalg-generalize-named-ops linalg-inline-scalar-operands
linalg-specialize-generic-ops loop-invariant-code-motion lower-affine memref-elide-reinterpret-cast memref-expand
normalize-memrefs optimize-allocation-liveness scf-parallel-loop-fusion
"""

_WITH_OPTIONS = {
    "affine-loop-unroll": "cleanup-unroll unroll-factor unroll-full-threshold unroll-num-reps unroll-up-to-factor",
    "canonicalize": "cse-between-iterations max-iterations max-num-rewrites region-simplify test-convergence top-down",
    "convert-scf-to-cf": "allow-pattern-rollback",
    "iree-codegen-canonicalize": "test-convergence",
    "iree-codegen-combine-result-layout-transformation": "scope",
    "iree-codegen-combine-source-layout-transformation": "",
    "iree-codegen-config-tracking-canonicalize": "test-convergence",
    "iree-codegen-convert-unsupported-float-to-int-buffers": (
        "include-bf16 include-f8e4m3fn include-f8e4m3fnuz include-f8e5m2 include-f8e5m2fnuz include-f8e8m0fnu"
    ),
    "iree-codegen-cpu-lower-to-ukernels": "skip-intermediate-roundings",
    "iree-codegen-decompose-boundary-pack-unpack-ops": "tile-outer-to-one",
    "iree-codegen-decompose-pack-unpack-ops": "tile-outer-to-one use-only-reshapes",
    "iree-codegen-decompose-softmax": "use-fusion",
    "iree-codegen-emulate-narrow-type": "disable-atomic-rmw",
    "iree-codegen-expand-strided-metadata": "allow-subview-expansion allow-unresolved",
    "iree-codegen-fission-transfer-ops-in-control-flow": "fission-multi-trip",
    "iree-codegen-generic-vectorization": (
        "enable-cleanup enable-vector-masking fold-cast-into-contract generate-contract max-vector-size "
        "use-configured-vector-sizes vectorize-copies vectorize-map-store vectorize-to-transfer-gather"
    ),
    "iree-codegen-gpu-apply-padding-level": "tiling-level",
    "iree-codegen-gpu-apply-tiling-level": "allow-zero-slices fuse-consumers normalize-loops tiling-level",
    "iree-codegen-gpu-distribute-scf-for": "use-block-dims",
    "iree-codegen-gpu-multi-buffering": "num-buffers",
    "iree-codegen-gpu-pipelining": "epilogue-peeling pipeline-depth schedule-index",
    "iree-codegen-gpu-promote-matmul-operands": "skip-operand-promotion",
    "iree-codegen-gpu-reduce-bank-conflicts": "padding-bits",
    "iree-codegen-gpu-tensor-tile": "distribute-to-subgroup",
    "iree-codegen-gpu-tensor-tile-to-serial-loops": "coalesce-loops",
    "iree-codegen-hoist-statically-bound-allocations": "vscale-max vscale-min",
    "iree-codegen-iree-comprehensive-bufferize": "",
    "iree-codegen-materialize-vector-masking": "decompose-masks",
    "iree-codegen-normalize-loop-bounds": "normalize-for normalize-forall",
    "iree-codegen-optimize-tensor-insert-extract-slices": "fold-identity-slices",
    "iree-codegen-optimize-vector-transfer": "flatten redundant-hoisting",
    "iree-codegen-reconcile-translation-info": "distribute-along",
    "iree-codegen-reorder-workgroups": "strategy",
    "iree-codegen-split-full-partial-transfer": "split-transfers",
    "iree-codegen-tile-and-distribute-to-workgroups-using-forall-op": "transpose-workgroup",
    "iree-codegen-tile-large-tensors": "max-vector-size",
    "iree-codegen-vector-reduction-to-gpu": "expand-subgroup-reduction",
    "iree-codegen-vector-transfer-lowering": "enable-scalable-lowerings",
    "iree-gpu-expand-undistributed-inner-tiles": "expand-inputs expand-outputs",
    "iree-linalg-ext-convert-conv2d-to-winograd": "replace-all-convs",
    "iree-linalg-ext-decompose-aggregated-ops": "",
    "iree-linalg-ext-decompose-attention": "use-exp2",
    "iree-linalg-ext-decompose-im2col": "unroll",
    "iree-linalg-ext-decompose-map-store": "",
    "iree-linalg-ext-fold-unit-extent-dims": "use-reshapes",
    "iree-linalg-ext-topk-split-reduction": "split-ratios",
    "iree-llvmcpu-2d-scalable-to-1d-scalable": "assume-arm-sme",
    "iree-llvmcpu-check-ir-before-llvm-conversion": "fail-on-out-of-bounds",
    "iree-llvmcpu-mmt4d-vector-lowering": "vector-contract-custom-kernels",
    "iree-llvmcpu-split-reduction": "enable-fp-reduction-reordering",
    "iree-llvmcpu-tile": "skip-root-op tiling-level",
    "iree-llvmcpu-tile-and-fuse-producer-consumer": (
        "anchor-on-root-op only-fuse-producer-input-operands tiling-level"
    ),
    "iree-llvmcpu-vector-transpose-lowering": "lower-vector-transpose-to-avx2",
    "iree-llvmcpu-virtual-vector-lowering": "enable-arm-i8mm split-transfers",
    "iree-llvmgpu-prefetch-shared-memory": "num-stages",
    "linalg-fold-unit-extent-dims": "use-rank-reducing-slices",
    "promote-buffers-to-stack": "max-alloc-size-in-bytes max-rank-of-allocated-memref",
    "resolve-ranked-shaped-type-result-dims": "error-on-pattern-iteration-limit",
    "resolve-shaped-type-result-dims": "error-on-pattern-iteration-limit",
    "scf-parallel-loop-tiling": "no-min-max-bounds parallel-loop-tile-sizes",
}

_PASSES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_WITHOUT_OPTIONS.split(), frozenset()),
    **{name: frozenset(options.split()) for name, options in _WITH_OPTIONS.items()},
}
_ANCHORS = frozenset({"any", "builtin.module", "func.func", "util.func"})
"""Ops on which a part of a pipeline may be nested."""
_MOST_NESTED = 16
_NAME_LETTERS = frozenset(string.ascii_letters + string.digits + "-_.")
_VALUE_LETTERS = _NAME_LETTERS | {",", "+"}


def why_not_plain(pipeline: str) -> str:
    """Return why a pass pipeline is refused, or an empty text if the list has all of its passes and options.

    Only the plain form is read (names, nesting on ops, options ``name=value``), without quotes and nested braces, so
    that this reading never differs from the compiler's.
    """
    return _PipelineReader(pipeline).refusal()


class _Refused(Exception):
    """The reason for refusing a pipeline."""


class _PipelineReader:
    """Reads the text of one pipeline."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._depth = 0

    def refusal(self) -> str:
        try:
            self._elements()
            if self._place < len(self._text):
                raise self._unreadable()
        except _Refused as reason:
            return str(reason)
        return ""

    def _elements(self) -> None:
        """Read passes and nested pipelines, separated by commas."""
        while True:
            self._element()
            self._blanks()
            if not self._take(","):
                return

    def _element(self) -> None:
        self._blanks()
        name = self._word(_NAME_LETTERS)
        if not name:
            if not self._text.strip():  # A pipeline without a pass does nothing.
                return
            raise self._unreadable()
        self._blanks()
        if self._take("("):
            self._depth += 1
            if self._depth > _MOST_NESTED:
                raise _Refused(f"passes nested more than {_MOST_NESTED} deep")
            self._elements()
            self._depth -= 1
            if not self._take(")"):
                raise self._unreadable()
            if name not in _ANCHORS:
                raise _Refused(f"passes nested on {name}")
            return
        if name not in _PASSES:
            raise _Refused(f"the pass {name}")
        if self._take("{"):
            self._options(name)

    def _options(self, name: str) -> None:
        while True:
            self._blanks()
            if self._take("}"):
                return
            option = self._word(_NAME_LETTERS)
            if not option:
                raise self._unreadable()
            if option not in _PASSES[name]:
                raise _Refused(f"the option {option} of the pass {name}")
            if self._take("="):
                self._word(_VALUE_LETTERS)

    def _blanks(self) -> None:
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1

    def _word(self, letters: frozenset[str]) -> str:
        start = self._place
        while self._text[self._place : self._place + 1] in letters and self._place < len(self._text):
            self._place += 1
        return self._text[start : self._place]

    def _take(self, character: str) -> bool:
        taken = self._text.startswith(character, self._place)
        self._place += taken
        return taken

    def _unreadable(self) -> _Refused:
        return _Refused(f"a pass pipeline that is not in its plain form: {self._text[self._place :][:60]!r}")
