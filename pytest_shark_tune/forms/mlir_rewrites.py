"""Rewrites of an imported ONNX model in MLIR into one that computes the same and compiles to faster code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import parse_module
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.mlir_attention import fuse_attention
from pytest_shark_tune.forms.mlir_products import fuse_products
from pytest_shark_tune.forms.onnx_in_mlir import erase_unused

__all__ = ["MLIR_REWRITES", "rewrite_mlir"]

MLIR_REWRITES: Mapping[str, Callable[[ir.Module], int]] = {
    "fused-attention": fuse_attention,
    "fused-products": fuse_products,
}
"""The rewrites by name. Each changes a module in the current context and returns the number of places."""


def rewrite_mlir(text: str, names: Sequence[str]) -> tuple[str, Mapping[str, int]]:
    """Rewrite a model that `import_onnx` has imported.

    Args:
        text: The text of the module.
        names: Names of `MLIR_REWRITES`, applied in this order.

    Returns:
        The text of the rewritten module, and the number of places by rewrite: attentions, or products that are in a
        batch now. If all numbers are 0, the text is the given one. The same text gives the same result every time.

    Raises:
        InputError: There is no rewrite of a name, or the text is no MLIR that this IREE parses.
    """
    for name in names:
        if name not in MLIR_REWRITES:
            raise InputError(f"there is no rewrite {name!r}: choose from {', '.join(MLIR_REWRITES)}")
    with ir.Context(), ir.Location.unknown():
        module = parse_module(text)
        counts = {name: MLIR_REWRITES[name](module) for name in names}
        if not any(counts.values()):
            return text, counts
        erase_unused(module)
        module.operation.verify()
        return f"{module}\n", counts
