"""Fused dispatches: the ops beside the root of a dispatch, and whether they need a config of their own."""

from __future__ import annotations

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import ops_inside, parse_module, shared_context

__all__ = ["has_other_reductions", "special_ops"]

_FILL, _GENERIC = "linalg.fill", "linalg.generic"


def has_other_reductions(text: str) -> bool:
    """Return whether a dispatch goes over the elements that its root op reduces in another op, too.

    That is another reduction, or an op after the root whose result has more dimensions than the root's, as in softmax.

    Args:
        text: The text of the dispatch's benchmark module.
    """
    with shared_context():
        module = parse_module(text)
        ops = [op for op in ops_inside(module.operation) if _computes_tensors(op)]
        roots = [place for place, op in enumerate(ops) if "root_op" in op.attributes]
        if len(roots) != 1:
            return len(roots) > 1
        (root,) = roots
        rank = _rank(ops[root].results[0].type)
        return any(
            max((_rank(operand.type) for operand in op.operands), default=0) > _rank(op.results[0].type)
            or (place > root and _rank(op.results[0].type) > rank)
            for place, op in enumerate(ops)
            if place != root
        )


def special_ops(text: str) -> frozenset[str]:
    """Return the names of the ops of a dispatch that compute tensors and are lowered by rules of their own.

    A pack or a scatter that is fused with a root op decides which of its configs can be compiled. Elementwise ops do
    not.

    Args:
        text: The text of the dispatch's benchmark module.
    """
    with shared_context():
        module = parse_module(text)
        return frozenset(op.name for op in ops_inside(module.operation) if _computes_tensors(op)) - {_GENERIC}


def _computes_tensors(op: ir.Operation) -> bool:
    return (
        op.name.startswith(("linalg.", "iree_linalg_ext."))
        and op.name != _FILL
        and len(op.results) > 0
        and isinstance(op.results[0].type, ir.RankedTensorType)
    )


def _rank(kind: ir.Type) -> int:
    return kind.rank if isinstance(kind, ir.RankedTensorType) else 0
