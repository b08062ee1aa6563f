"""Pipelines written as text: passes of the compiler with their options, in order.

IREE takes such a text in place of a named pipeline. This module alone makes them, from typed descriptions. A record has
the name of the description, so that a text can be made anew for a release that spells a pass in another way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

__all__ = [
    "PEELED_REGISTER_TILING",
    "REGISTER_TILING",
    "TEXT_PREFIX",
    "Pass",
    "pass_text",
    "text_attribute",
    "text_name",
]

REGISTER_TILING = "RegisterTiling"
PEELED_REGISTER_TILING = "PeeledRegisterTiling"

TEXT_PREFIX = '#iree_codegen.pass_pipeline<"'
"""The start of the attribute that holds such a text."""

_SUFFIX = '">'
_NAME_DIGITS = 6

Option: TypeAlias = bool | str | None
"""The value of an option; ``None`` for a flag."""


class Pass(msgspec.Struct, frozen=True):
    """One pass of the compiler."""

    name: str
    """The name that iree-opt has for it, such as ``iree-llvmcpu-peel``."""
    options: Mapping[str, Option] = {}

    def __str__(self) -> str:
        """Return the pass as pipelines spell it: ``NAME{OPTION=VALUE FLAG}``."""
        options = [name if value is None else f"{name}={str(value).lower()}" for name, value in self.options.items()]
        return f"{self.name}{{{' '.join(options)}}}" if options else self.name


_CLEAN_UP = (Pass("canonicalize"), Pass("cse"))
_FOLD_PADS = (Pass("iree-codegen-fuse-tensor-pad-with-consumer"), Pass("iree-codegen-concretize-pad-result-shape"))


def _tile(level: str, *, from_root: bool, inputs_only: bool) -> tuple[Pass, ...]:
    options: dict[str, Option] = {
        "anchor-on-root-op": from_root,
        "only-fuse-producer-input-operands": inputs_only,
        "tiling-level": level,
    }
    return (Pass("iree-llvmcpu-tile-and-fuse-producer-consumer", options), *_FOLD_PADS)


_TILED = (
    Pass("iree-codegen-tile-and-distribute-to-workgroups-using-forall-op"),
    Pass("iree-codegen-bufferize-dispatch-tensor-load-store"),
    Pass("iree-codegen-combine-result-layout-transformation"),
    Pass("iree-codegen-config-tracking-canonicalize"),
    Pass("cse"),
    *_FOLD_PADS,
    Pass("iree-codegen-propagate-dispatch-size-bounds"),
    *_tile("vector_common_parallel", from_root=True, inputs_only=False),
    Pass("iree-llvmcpu-split-reduction", {"enable-fp-reduction-reordering": False}),
    *_tile("vector_reduction", from_root=True, inputs_only=True),
    Pass("iree-llvmcpu-tile", {"skip-root-op": True, "tiling-level": "vector_reduction"}),
    *_FOLD_PADS,
    *_tile("vector_inner_parallel", from_root=False, inputs_only=False),
    Pass("iree-codegen-forall-to-for"),
)
_IN_REGISTERS = (
    # The filter loops have size one by now. Without them the rest is an elementwise product, which is vectorized.
    Pass("linalg-fold-unit-extent-dims", {"use-rank-reducing-slices": None}),
    *_CLEAN_UP,
    Pass("iree-codegen-vectorize-tensor-pad"),
    Pass("iree-llvmcpu-tile-to-vector-size"),
    Pass(
        "iree-codegen-generic-vectorization",
        {
            "enable-cleanup": True,
            "enable-vector-masking": True,
            "fold-cast-into-contract": False,
            "generate-contract": True,
            "use-configured-vector-sizes": False,
            "vectorize-copies": True,
        },
    ),
    Pass("iree-codegen-optimize-tensor-insert-extract-slices"),
    *_CLEAN_UP,
    Pass("iree-llvmcpu-verify-vector-size-legality"),
    Pass("iree-codegen-optimize-vector-transfer", {"flatten": True}),
    Pass("iree-eliminate-empty-tensors"),
    Pass("empty-tensor-to-alloc-tensor"),
    Pass("iree-codegen-iree-comprehensive-bufferize"),
    Pass("iree-codegen-inject-assume-alignment"),
    Pass("resolve-shaped-type-result-dims"),
    Pass("iree-codegen-canonicalize"),
    Pass("cse"),
    Pass("iree-codegen-canonicalize"),
    Pass("iree-codegen-cleanup-buffer-alloc-view"),
    Pass("iree-codegen-propagate-dispatch-size-bounds"),
    Pass("iree-codegen-remove-single-iteration-loop"),
    Pass("iree-codegen-drop-vector-unit-dims"),
    # The sums stay in registers: their transfers are hoisted out of the reduction, and their buffer is removed.
    Pass("iree-codegen-fold-memref-alias-ops"),
    Pass("canonicalize"),
    Pass("iree-codegen-optimize-vector-transfer", {"flatten": False}),
    Pass("iree-codegen-erase-dead-alloc-and-stores"),
    Pass("iree-codegen-hoist-inner-tiled-acc-reshapes"),
    Pass("iree-llvmcpu-virtual-vector-lowering", {"enable-arm-i8mm": False, "split-transfers": "linalg-copy"}),
    Pass("canonicalize"),
    Pass("iree-codegen-vector-transfer-lowering", {"enable-scalable-lowerings": True}),
    Pass("iree-llvmcpu-vector-transpose-lowering", {"lower-vector-transpose-to-avx2": True}),
    Pass("canonicalize"),
    Pass("iree-llvmcpu-vector-shape-cast-lowering"),
)
"""After `_TILED` these are the passes of ``DoubleTilingExpert``, as IREE 3.13 prints them, with two additions."""

_PIPELINES = {
    REGISTER_TILING: (*_TILED, *_IN_REGISTERS),
    # The rest of a row becomes a loop of its own, with tiles of a constant size.
    PEELED_REGISTER_TILING: (*_TILED, Pass("iree-llvmcpu-peel"), *_CLEAN_UP, *_IN_REGISTERS),
}
_TEXTS: Mapping[str, str] = {name: ",".join(map(str, passes)) for name, passes in _PIPELINES.items()}
_NAMES = {text: name for name, text in _TEXTS.items()}


def pass_text(name: str) -> str:
    """Return the text of the pipeline of that name."""
    return _TEXTS[name]


def text_attribute(name: str) -> str | None:
    """Return the attribute of the pipeline of that name, or ``None`` if it is not written as text."""
    return f"{TEXT_PREFIX}{_TEXTS[name]}{_SUFFIX}" if name in _TEXTS else None


def text_name(attribute: str) -> str | None:
    """Return the name of the pipeline that an attribute writes as text, or ``None`` if it does not.

    A text that no description here makes is named by a digest of it.
    """
    if not attribute.startswith(TEXT_PREFIX):
        return None
    text = attribute.removeprefix(TEXT_PREFIX).removesuffix(_SUFFIX)
    return _NAMES.get(text) or f"passes-{hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]}"
