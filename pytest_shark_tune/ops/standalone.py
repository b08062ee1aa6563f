"""A root op as a source of its own, for what is known of a dispatch when its model is not there."""

from __future__ import annotations

from collections.abc import Sequence

from iree.compiler import ir
from iree.compiler.dialects import arith, func, linalg

from pytest_shark_tune.dispatch.trust import check_pattern
from pytest_shark_tune.dispatch.types import ATTENTION, ONLINE_ATTENTION, RootOp, Tensor
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.builders import OpSource, zeros

__all__ = ["lone_op"]


def lone_op(name: str, root: RootOp) -> OpSource:
    """A module named ``name`` whose public function ``@main`` fills the results of ``root`` with zeros and runs it.

    The compiler makes of it one dispatch with such a root op, or something else: the caller must look.

    Raises:
        InputError: the root op is one that the compiler itself makes, or one that this IREE does not parse.
    """
    if root.op in (ATTENTION, ONLINE_ATTENTION):
        raise InputError(f"{name}: {root.op} cannot be made from its record alone: give the model")
    if not root.pattern and root.kind != "contraction":
        raise InputError(f"{name}: its record does not hold the op: give the model")
    if not all((*root.maps, *(tensor.element for tensor in (*root.inputs, *root.outputs)))):
        raise InputError(f"{name}: its record lacks a map or a type")  # IREE would crash on the empty text
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        try:
            text = _copied(root) if root.pattern else _contraction(root)
        except (ir.MLIRError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{name}: this IREE does not parse the op in its record: {error}") from error
    return OpSource(name=name, text=text)


def _contraction(root: RootOp) -> str:
    """A generic op that multiplies and sums up; what a matcher sees of a contraction is no more."""
    inputs, outputs = ([_ranked_type(tensor) for tensor in tensors] for tensors in (root.inputs, root.outputs))
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):

        def main(*arguments: ir.Value) -> ir.Value:
            (init,) = map(zeros, outputs)
            op = linalg.GenericOp(
                outputs,
                list(arguments),
                [init],
                ir.ArrayAttr.get([ir.Attribute.parse(each) for each in root.maps]),
                ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{each}>") for each in root.iterators]),
            )
            elements = [kind.element_type for kind in (*inputs, *outputs)]
            block = op.regions[0].blocks.append(*elements)
            with ir.InsertionPoint(block):
                lhs, rhs, total = (_as(value, elements[-1]) for value in block.arguments)
                is_float = isinstance(elements[-1], ir.FloatType)
                multiply, add = (arith.MulFOp, arith.AddFOp) if is_float else (arith.MulIOp, arith.AddIOp)
                linalg.YieldOp([add(total, multiply(lhs, rhs).result).result])
            return op.results[0]

        func.FuncOp.from_py_func(*inputs)(main)
    module.operation.verify()
    return str(module)


def _as(value: ir.Value, element: ir.Type) -> ir.Value:
    """``value`` in the wider type ``element``."""
    if value.type == element:
        return value
    is_float = isinstance(element, ir.FloatType)
    extended: ir.Value = (arith.ExtFOp if is_float else arith.ExtSIOp)(element, value).result
    return extended


def _copied(root: RootOp) -> str:
    """The op that the pattern holds, its results filled with zeros before."""
    held = ir.Module.parse(root.pattern)
    check_pattern(held, f"the recorded op {root.op}")
    pattern = held.body.operations[0].regions[0].blocks[0]
    (source,) = (op.operation for op in pattern.operations if op.operation.name != "func.return")
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


def _ranked_type(tensor: Tensor) -> ir.Type:
    return ir.RankedTensorType.get(tensor.shape, ir.Type.parse(tensor.element))
