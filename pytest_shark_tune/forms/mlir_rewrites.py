"""Rewrites of an imported ONNX model in MLIR into one that computes the same and compiles to faster code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import parse_module
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.mlir_attention import fuse_attention
from pytest_shark_tune.forms.mlir_products import fuse_products
from pytest_shark_tune.forms.onnx_in_mlir import erase_unused
from pytest_shark_tune.system.entry_points import describe_entry, load_entry

__all__ = ["GROUP", "MLIR_REWRITES", "ModuleRewrite", "mlir_rewrite_names", "rewrite_mlir"]

GROUP = "pytest_shark_tune.rewrites"

ModuleRewrite: TypeAlias = Callable[[ir.Module], int]
"""Changes a module in the current context and returns the number of places. The same module gives the same result."""

MLIR_REWRITES: Mapping[str, ModuleRewrite] = {
    "fused-attention": fuse_attention,
    "fused-products": fuse_products,
}
"""Our own rewrites by name."""


def mlir_rewrite_names() -> tuple[str, ...]:
    """Return the names of the rewrites of imported models: our own, then those of other packages, sorted."""
    return (*MLIR_REWRITES, *sorted({entry.name for entry in entry_points(group=GROUP)} - MLIR_REWRITES.keys()))


def rewrite_mlir(text: str, names: Sequence[str]) -> tuple[str, Mapping[str, int]]:
    """Rewrite a model that `import_onnx` has imported.

    Args:
        text: The text of the module.
        names: Names of `mlir_rewrite_names`, applied in this order.

    Returns:
        The text of the rewritten module, and the number of places by rewrite: attentions, or products that are in a
        batch now. If all numbers are 0, the text is the given one. The same text gives the same result every time.

    Raises:
        InputError: There is no rewrite of a name, the text is no MLIR that this IREE parses, or the rewrite of another
            package raises, or leaves an invalid module. It is named.
    """
    rewrites = {name: _rewrite(name) for name in names}
    with ir.Context(), ir.Location.unknown():
        module = parse_module(text)
        counts = {name: rewrite(module) for name, rewrite in rewrites.items()}
        if not any(counts.values()):
            return text, counts
        erase_unused(module)
        module.operation.verify()
        return f"{module}\n", counts


def _rewrite(name: str) -> ModuleRewrite:
    if name in MLIR_REWRITES:
        return MLIR_REWRITES[name]
    entry = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
    if entry is None:
        raise InputError(f"there is no rewrite {name!r}: choose from {', '.join(mlir_rewrite_names())}")
    return _foreign(entry)


def _foreign(entry: EntryPoint) -> ModuleRewrite:
    """Load the rewrite of another package; it raises `InputError` if the package's code fails or breaks the module.

    Raises:
        InputError: The entry point cannot be loaded.
    """
    described, rewrite = describe_entry(entry), load_entry(entry)

    def checked(module: ir.Module) -> int:
        try:
            count = rewrite(module)
            module.operation.verify()
        except Exception as error:  # Another package may raise anything.
            raise InputError(f"{described} failed: {type(error).__name__}: {error}") from error
        if type(count) is not int or count < 0:
            raise InputError(f"{described} returned {count!r}, not the number of places that it changed")
        return count

    return checked
