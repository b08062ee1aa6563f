"""Fused dispatches: the ops beside the root of a dispatch, whether they need a config of their own, and which ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import ops_inside, parse_module, shared_context
from pytest_shark_tune.dispatch.reasons import SeveralReductions

__all__ = ["OPERAND", "RESULT", "FusedOp", "fused_ops", "has_other_reductions", "special_ops"]

OPERAND: Final = "operand"
RESULT: Final = "result"
"""The steps of a path: to the op that gives an operand, and to the only one that takes a result."""

_FILL = "linalg.fill"
_GENERIC = "linalg.generic"


class FusedOp(msgspec.Struct, frozen=True):
    """An op of a dispatch that goes over the same elements as the root op."""

    path: str
    """The way from the root op to this one, such as ``operand_1`` or ``result_0_result_0``."""
    is_reduction: bool
    """Whether it reduces what the root reduces. Otherwise it computes a result for each element."""


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


def fused_ops(text: str) -> tuple[FusedOp, ...]:
    """Return the ops of a dispatch with one root op that go over the elements that the root op reduces.

    Args:
        text: The text of the dispatch's benchmark module.

    Raises:
        SeveralReductions: One of them has other loops than the root op, or no path leads to it.
    """
    with shared_context():
        module = parse_module(text)
        ops = [op for op in ops_inside(module.operation) if _computes_tensors(op)]
        (root,) = (op for op in ops if "root_op" in op.attributes)
        others = [op for op in ops if op != root and _loops(op) >= _loops(root)]
        paths = dict(_paths(root))
        found = []
        for op in others:
            path = next((path for path, reached in paths.items() if reached == op), None)
            if path is None or not _has_loops_of(op, root):
                raise SeveralReductions(f"{op.name} beside {root.name} goes over its elements in another way")
            found.append(FusedOp(path, "reduction" in str(op.attributes["iterator_types"])))
        return tuple(sorted(found, key=lambda each: each.path))


def _paths(root: ir.Operation) -> Iterator[tuple[str, ir.Operation]]:
    """Yield the ops that can be reached from a root op, nearest first, each with the path to it."""
    waiting, seen = [("", root)], [root]
    while waiting:
        path, op = waiting.pop(0)
        for step, reached in _neighbours(op):
            if reached not in seen:
                seen.append(reached)
                found = f"{path}_{step}" if path else step
                waiting.append((found, reached))
                yield found, reached


def _neighbours(op: ir.Operation) -> Iterator[tuple[str, ir.Operation]]:
    for number, operand in enumerate(op.operands):
        if not isinstance(operand.owner, ir.Block) and operand.owner.operation.name == _GENERIC:
            yield f"{OPERAND}_{number}", operand.owner.operation
    for number, result in enumerate(op.results):
        users = [use.owner.operation for use in result.uses]
        if len(users) == 1 and users[0].name == _GENERIC:
            yield f"{RESULT}_{number}", users[0]


def _has_loops_of(op: ir.Operation, root: ir.Operation) -> bool:
    """Return whether an op has the root's loops in the root's order, and reduces none that the root does not."""
    if op.name != _GENERIC or root.name != _GENERIC or _sizes(op) != _sizes(root):
        return False
    own, roots = (list(ir.ArrayAttr(each.attributes["iterator_types"])) for each in (op, root))
    parallel = next((kind for kind in roots if "parallel" in str(kind)), None)
    known = dict(_mapped(root))
    return all(one in (other, parallel) for one, other in zip(own, roots, strict=True)) and all(
        known.get(value, affine) == affine for value, affine in _mapped(op)
    )


def _mapped(op: ir.Operation) -> Iterator[tuple[ir.Value, ir.AffineMap]]:
    """Yield the operands and the result of a generic op, each with its map."""
    maps = [ir.AffineMapAttr(each).value for each in ir.ArrayAttr(op.attributes["indexing_maps"])]
    yield from zip(op.operands, maps, strict=True)
    yield from zip(op.results, maps[-len(op.results) :], strict=True)


def _sizes(op: ir.Operation) -> dict[int, int]:
    """Return the sizes of the loops that are dimensions of an operand."""
    return {
        index.position: size
        for value, affine in _mapped(op)
        if isinstance(value.type, ir.RankedTensorType)
        for index, size in zip(affine.results, value.type.shape, strict=True)
        if isinstance(index, ir.AffineDimExpr)
    }


def _loops(op: ir.Operation) -> int:
    """Return the number of an op's loops; of an op that is no generic one, the most dimensions of an operand."""
    if "iterator_types" in op.attributes:
        return len(ir.ArrayAttr(op.attributes["iterator_types"]))
    return max((_rank(operand.type) for operand in op.operands), default=0)


def _computes_tensors(op: ir.Operation) -> bool:
    return (
        op.name.startswith(("linalg.", "iree_linalg_ext."))
        and op.name != _FILL
        and len(op.results) > 0
        and isinstance(op.results[0].type, ir.RankedTensorType)
    )


def _rank(kind: ir.Type) -> int:
    return kind.rank if isinstance(kind, ir.RankedTensorType) else 0
