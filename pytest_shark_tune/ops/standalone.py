"""Standalone ops: sources that are made from the record of a dispatch if its model is not available."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import arith, func, linalg
from msgspec.structs import replace

from pytest_shark_tune.dispatch.foreign.trust import check_pattern
from pytest_shark_tune.dispatch.mlir import affine_map, pattern_op
from pytest_shark_tune.dispatch.types import ATTENTION, ONLINE_ATTENTION, RootOp
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.builders import OpSource, tensor_type, zeros

__all__ = ["resized", "standalone_op"]


def resized(root: RootOp, loop: int, size: int) -> RootOp:
    """Return a contraction with another trip count of one loop, for that size alone."""
    with ir.Context():
        shows = [
            [isinstance(index, ir.AffineDimExpr) and index.position == loop for index in affine_map(text).results]
            for text in root.maps
        ]
    operands = [
        replace(tensor, shape=tuple(size if shown else old for shown, old in zip(dims, tensor.shape, strict=True)))
        for dims, tensor in zip(shows, (*root.inputs, *root.outputs), strict=True)
    ]
    loops = tuple(size if position == loop else old for position, old in enumerate(root.loops))
    inputs, outputs = operands[: len(root.inputs)], operands[len(root.inputs) :]
    return replace(root, loops=loops, inputs=tuple(inputs), outputs=tuple(outputs), ranges=msgspec.UNSET)


def standalone_op(name: str, root: RootOp) -> OpSource:
    """Build a module with a public function ``@main`` that fills the results of ``root`` with zeros and runs it.

    The compiler may make one dispatch with such a root op of it, or something else, so the caller must check.

    Args:
        name: The name of the module.
        root: The root op.

    Raises:
        InputError: Only the compiler makes such root ops, or this IREE does not parse the op.
    """
    if root.op in (ATTENTION, ONLINE_ATTENTION):
        raise InputError(f"{name}: {root.op} cannot be made from its record alone: give the model")
    if root.open_loops:
        raise InputError(f"{name}: its sizes are open, and its record does not hold the sizes to try: give the model")
    if not root.pattern and root.kind != "contraction":
        raise InputError(f"{name}: its record does not hold the op: give the model")
    if not all((*root.maps, *(tensor.element for tensor in (*root.inputs, *root.outputs)))):
        raise InputError(f"{name}: its record lacks a map or a type")  # IREE would crash on the empty text.
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        try:
            text = _pattern_copy(root) if root.pattern else _contraction(root)
        except (InputError, ir.MLIRError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{name}: this IREE does not parse the op in its record: {error}") from error
    return OpSource(name=name, text=text)


def _contraction(root: RootOp) -> str:
    """Build a generic op that multiplies and adds. A matcher sees nothing else of a contraction."""
    inputs, outputs = (
        [tensor_type(tensor.shape, tensor.element) for tensor in tensors] for tensors in (root.inputs, root.outputs)
    )
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):

        def main(*arguments: ir.Value) -> ir.Value:
            (init,) = map(zeros, outputs)
            op = linalg.GenericOp(
                outputs,
                list(arguments),
                [init],
                ir.ArrayAttr.get([ir.Attribute.parse(text) for text in root.maps]),
                ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in root.iterators]),
            )
            elements = [kind.element_type for kind in (*inputs, *outputs)]
            block = op.regions[0].blocks.append(*elements)
            with ir.InsertionPoint(block):
                lhs, rhs, total = (_widen(value, elements[-1]) for value in block.arguments)
                is_float = isinstance(elements[-1], ir.FloatType)
                multiply, add = (arith.MulFOp, arith.AddFOp) if is_float else (arith.MulIOp, arith.AddIOp)
                linalg.YieldOp([add(total, multiply(lhs, rhs).result).result])
            return op.results[0]

        func.FuncOp.from_py_func(*inputs)(main)
    module.operation.verify()
    return str(module)


def _widen(value: ir.Value, element: ir.Type) -> ir.Value:
    """Extend ``value`` to the wider type ``element``."""
    if value.type == element:
        return value
    is_float = isinstance(element, ir.FloatType)
    extended: ir.Value = (arith.ExtFOp if is_float else arith.ExtSIOp)(element, value).result
    return extended


def _pattern_copy(root: RootOp) -> str:
    """Build a copy of the op in the pattern, with its results filled with zeros before."""
    held, source = pattern_op(root.pattern)
    check_pattern(held, f"the recorded op {root.op}")
    kinds = [operand.type for operand in source.operands]
    count = len(root.outputs)
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):

        def main(*arguments: ir.Value) -> Sequence[ir.Value]:
            operands = [*arguments, *map(zeros, kinds[-count:])]
            copy = source.clone().operation
            for position, value in enumerate(operands):
                copy.operands[position] = value
            return list(copy.results)

        func.FuncOp.from_py_func(*kinds[:-count])(main)
    module.operation.verify()
    return str(module)
