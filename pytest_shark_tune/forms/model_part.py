"""Parts of a model: some ops of its function as a function of their own, with the values from outside as arguments."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import parse_module, shared_context, string_of, walk
from pytest_shark_tune.forms.onnx_in_mlir import is_onnx, tensor_type

__all__ = ["count_ops", "cut_part"]

_FLOATS = (ir.F16Type, ir.BF16Type, ir.F32Type, ir.F64Type)


def count_ops(text: str, function: str) -> int:
    """Count the ops of a function but for its terminator; 0 if it has several blocks, or is not there."""
    with shared_context():
        module = parse_module(text)
        found = _function(module, function)
        return len(_ops(found)) if found is not None else 0


def cut_part(text: str, function: str, first: int, last: int, most: int) -> tuple[str, tuple[int, ...]]:
    """Cut the ops from ``first`` to ``last``, inclusive, out of a function of straight-line code.

    Float tensors that come from other ops become arguments. Constants, and values of other types, are computed inside,
    since random data has no meaning for a shape or an index. The rest of the module goes, as far as nothing uses it.

    Args:
        text: The module.
        function: The name of the function.
        first: The first op of the part.
        last: The last op of the part.
        most: The most results of the part. They are float tensors, evenly spread over its ops.

    Returns:
        The module with the part, and the op of each result, ascending; an empty text if the part has no such result.
    """
    with shared_context(), ir.Location.unknown():
        module = parse_module(text)
        found = _function(module, function)
        ops = _ops(found) if found is not None else []
        results = [number for number in range(first, min(last + 1, len(ops))) if _is_result(ops[number])]
        if found is None or not results:
            return "", ()
        step = max(1, -(-len(results) // most))
        chosen = results[::-1][::step][::-1]
        block = found.regions[0].blocks[0]
        _take_arguments(block, ops, set(range(first, last + 1)))
        _return(block, [ops[number].results[0] for number in chosen])
        _erase_unused(block)
        _describe(found, block)
        _erase_other_functions(module, found)
        module.operation.verify()
        return f"{module}\n", tuple(chosen)


def _function(module: ir.Module, name: str) -> ir.Operation | None:
    for op in module.body.operations:
        is_it = "sym_name" in op.attributes and string_of(op.operation, "sym_name") == name
        if is_it and len(op.regions) == 1 and len(op.regions[0].blocks) == 1:
            return op.operation
    return None


def _ops(function: ir.Operation) -> list[ir.Operation]:
    return [op.operation for op in function.regions[0].blocks[0].operations][:-1]


def _is_result(op: ir.Operation) -> bool:
    return len(op.results) == 1 and _is_float(op.results[0]) and not _is_constant(op)


def _is_float(value: ir.Value) -> bool:
    if isinstance(value.type, ir.RankedTensorType):
        shaped = ir.ShapedType(value.type)
        return shaped.has_static_shape and isinstance(shaped.element_type, _FLOATS)
    kind = tensor_type(value)
    return kind is not None and kind.is_float


def _is_constant(op: ir.Operation) -> bool:
    return len(op.operands) == 0 or is_onnx(op, "Constant")


def _take_arguments(block: ir.Block, ops: Sequence[ir.Operation], part: Collection[int]) -> None:
    """Make arguments of the float tensors that the part takes from ops outside, and from what it computes again."""
    places = {op: number for number, op in enumerate(ops)}
    waiting, seen = sorted(part), set(part)
    arguments: dict[ir.Value, ir.Value] = {}
    while waiting:
        inside = ops[waiting.pop()]
        for user in walk(inside):
            for number, value in enumerate(user.operands):
                owner = value.owner
                place = places.get(owner.operation) if isinstance(owner, ir.OpView | ir.Operation) else None
                if place is None or place in part:  # An argument, a value of a region, or one of the part.
                    continue
                if _is_float(value) and not _is_constant(ops[place]):
                    if value not in arguments:
                        arguments[value] = block.add_argument(value.type, ir.Location.unknown())
                    user.operands[number] = arguments[value]
                elif place not in seen:
                    seen.add(place)
                    waiting.append(place)


def _return(block: ir.Block, values: Sequence[ir.Value]) -> None:
    old = block.operations[len(block.operations) - 1].operation
    with ir.InsertionPoint(old):
        ir.Operation.create(old.name, operands=values)
    old.erase()


def _erase_unused(block: ir.Block) -> None:
    for op in reversed([op.operation for op in block.operations][:-1]):
        if not any(True for result in op.results for _ in result.uses):
            op.erase()
    for number in reversed(range(len(block.arguments))):
        if not any(True for _ in block.arguments[number].uses):
            block.erase_argument(number)


def _describe(function: ir.Operation, block: ir.Block) -> None:
    """Bring the function's type up to date, and drop what it says of single arguments and results."""
    returned = block.operations[len(block.operations) - 1].operands
    kind = ir.FunctionType.get([value.type for value in block.arguments], [value.type for value in returned])
    function.attributes["function_type"] = ir.TypeAttr.get(kind)
    for name in ("arg_attrs", "res_attrs"):
        if name in function.attributes:
            del function.attributes[name]


def _erase_other_functions(module: ir.Module, kept: ir.Operation) -> None:
    """Erase the functions and globals that the part does not name."""
    used = str(kept)
    for op in reversed([op.operation for op in module.body.operations]):
        named = f"@{string_of(op, 'sym_name')}" if "sym_name" in op.attributes else ""
        if op != kept and named and named not in used:
            op.erase()
