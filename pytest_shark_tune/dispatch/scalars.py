"""Scalars that are known only at run time: seeded values in their place, so that a dispatch has a benchmark.

iree-compile makes a benchmark only of a dispatch whose scalar operands are constants. At ``executable-sources`` the
code of a dispatch no longer depends on the values that its calls pass, so constants in the calls change nothing else.
An index or an offset gets a value for which the dispatch stays inside its operands.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from iree.compiler import ir
from iree.compiler.dialects import arith
from msgspec import Struct

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.elements import SCALAR_FLOATS, SCALAR_INTEGERS
from pytest_shark_tune.dispatch.integers import NotComputed, evaluate, origins

__all__ = ["BoundScalars", "bind_scalars"]

_CALL = "stream.cmd.dispatch"
_BIT_FORMATS: Final = {"f64": ("<d", "<q"), "f32": ("<f", "<i"), "f16": ("<e", "<h")}


class BoundScalars(Struct, frozen=True):
    """A module whose calls pass constants."""

    text: str
    bound: tuple[str, ...]
    """The executables that are called with seeded values."""
    unbound: dict[str, str]
    """The executables whose scalars cannot have such values, although their sizes are static, with the reason."""


class _Origin(Struct, frozen=True):
    """A value that is known only at run time. It is ``start``, or some steps further."""

    value: ir.Value
    start: int = 0
    step: int = 1


def bind_scalars(sources_text: str) -> BoundScalars:
    """Replace the scalars that calls of dispatches pass by seeded constants, where dispatches have static sizes.

    Args:
        sources_text: A module at phase ``executable-sources``.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    bound: list[str] = []
    unbound: dict[str, str] = {}
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        module = mlir.parse_module(sources_text)
        functions = _functions(module)
        for call in mlir.ops_named(module.operation, _CALL):
            symbol, entry = _callee(call)
            function = functions.get((symbol, entry))
            scalars = [position for position in _scalars(call) if not _is_constant(call.operands[position])]
            if not scalars or function is None or symbol in bound or not _has_static_sizes(function):
                continue
            try:
                _set_constants(call, scalars, _choose(call, symbol, function))
                bound.append(symbol)
                unbound.pop(symbol, None)
            except NotComputed as reason:
                unbound[symbol] = str(reason)
        return BoundScalars(str(module), tuple(bound), unbound)


def _functions(module: ir.Module) -> dict[tuple[str, str], ir.Operation]:
    """Return the functions of dispatches by the names of their executable and their entry point."""
    executables = mlir.ops_named(module.operation, "hal.executable")
    return {
        (mlir.string_of(executable, "sym_name"), mlir.string_of(function, "sym_name")): function
        for executable in executables
        for function in mlir.ops_named(executable, "func.func")
    }


def _callee(call: ir.Operation) -> tuple[str, str]:
    symbol, *_, entry = ir.SymbolRefAttr(ir.ArrayAttr(call.attributes["entry_points"])[0]).value
    return symbol, entry


def _scalars(call: ir.Operation) -> list[int]:
    """Return the positions of a call's workload and of its scalar operands."""
    workload, operands, *_ = mlir.operand_groups(call)
    return [*workload, *operands]


def _is_constant(value: ir.Value) -> bool:
    return not isinstance(value.owner, ir.Block) and value.owner.operation.name == "arith.constant"


def _has_static_sizes(function: ir.Operation) -> bool:
    """Return whether no tensor in a dispatch has an open size, so that no scalar is one."""
    values = (value for op in mlir.walk(function) for value in op.results)
    return all(shape.has_static_shape for value in values if (shape := mlir.shaped_type(value.type)) is not None)


def _choose(call: ir.Operation, symbol: str, function: ir.Operation) -> dict[ir.Value, int]:
    """Return values for everything that the scalars of a call are computed from.

    Raises:
        NotComputed: There are none that are known to be right; the message tells the reason.
    """
    scalars = [call.operands[position] for position in _scalars(call)]
    values = dict.fromkeys(origin for scalar in scalars for origin in origins(scalar))
    found = [_origin_of(value) for value in values]
    generator = random.Random(hashlib.sha256(symbol.encode()).digest())
    floats = itertools.cycle(generator.sample(SCALAR_FLOATS, len(SCALAR_FLOATS)))
    numbers = [next(floats) for _ in found]
    steps = [generator.sample(SCALAR_INTEGERS, len(SCALAR_INTEGERS)) for _ in found]
    for attempt in range(len(SCALAR_INTEGERS) + 1):
        chosen = {
            origin.value: _value(origin, number, tried[attempt] if attempt < len(SCALAR_INTEGERS) else 0)
            for origin, number, tried in zip(found, numbers, steps, strict=True)
        }
        inside = _stays_inside(call, function, chosen)
        if inside or (
            inside is None and attempt == len(SCALAR_INTEGERS)
        ):  # Nothing is safer than the first iteration's values.
            return chosen
    raise NotComputed(
        "it takes a scalar that is known only at run time, and no value is known to be inside its operands"
    )


def _origin_of(value: ir.Value) -> _Origin:
    """Return an origin with the values that it has in the first iterations, if it counts a loop's iterations."""
    if isinstance(value.owner, ir.Block) and isinstance(value.type, ir.IndexType | ir.IntegerType):
        incoming = list(_incoming(value))
        starts = [
            ir.IntegerAttr(each.owner.operation.attributes["value"]).value for each in incoming if _is_constant(each)
        ]
        steps = [step for each in incoming if (step := _step_from(each, value)) is not None]
        if len(starts) == 1 and len(steps) == len(incoming) - 1 == 1:
            return _Origin(value, starts[0], steps[0])
    return _Origin(value)


def _incoming(argument: ir.Value) -> Iterator[ir.Value]:
    """Return the values that unconditional branches pass for an argument of a block."""
    block = ir.BlockArgument(argument).owner
    position = ir.BlockArgument(argument).arg_number
    for predecessor in block.region.blocks:
        last = predecessor.operations[len(predecessor.operations) - 1].operation
        if last.name == "cf.br" and last.successors[0] == block:
            yield last.operands[position]


def _step_from(value: ir.Value, counter: ir.Value) -> int | None:
    """Return the step if ``value`` is ``counter`` and a constant."""
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "arith.addi":
        return None
    operands = list(value.owner.operation.operands)
    others = [operand for operand in operands if operand != counter]
    if len(others) != 1 or not _is_constant(others[0]):
        return None
    return int(ir.IntegerAttr(others[0].owner.operation.attributes["value"]).value)


def _value(origin: _Origin, number: float, step: int) -> int:
    """Return the value of an origin, which is an integer, an index or the bits of a float.

    Raises:
        NotComputed: The type is another one.
    """
    owner, kind = origin.value.owner, origin.value.type
    if not isinstance(owner, ir.Block) and owner.operation.name == "arith.bitcast":
        return _bits(number, owner.operation.operands[0].type)
    if not isinstance(kind, ir.IntegerType | ir.IndexType):
        raise NotComputed(f"it takes a scalar of type {kind} that is known only at run time, and none is made up")
    if isinstance(kind, ir.IntegerType) and kind.width == 1:
        return step % 2
    return origin.start + origin.step * step


def _bits(number: float, kind: ir.Type) -> int:
    """Return the bits of a float as a signed integer.

    Raises:
        NotComputed: The type is another one.
    """
    name = str(kind)
    if name == "bf16":  # The upper half of an f32.
        return _bits(number, ir.F32Type.get()) >> 16
    if name not in _BIT_FORMATS:
        raise NotComputed(f"it takes a scalar of type {name} that is known only at run time, and none is made up")
    floating, integer = _BIT_FORMATS[name]
    return int(struct.unpack(integer, struct.pack(floating, number))[0])


def _stays_inside(call: ir.Operation, function: ir.Operation, chosen: Mapping[ir.Value, int]) -> bool | None:
    """Return whether a dispatch reads and writes inside its operands, ``None`` if that cannot be told.

    Args:
        call: The call of the dispatch.
        function: Its function.
        chosen: The values of everything that its scalars are computed from.
    """
    _, operands, *_, lengths = mlir.operand_groups(call)
    constants = [evaluate(call.operands[position], known=chosen) for position in operands]
    sizes = [evaluate(call.operands[position], known=chosen) for position in lengths]
    answers = [
        answer
        for op in mlir.ops_inside(function)
        for answer in (*_assumed(op, constants), *_indexed(op, constants, sizes))
    ]
    return False if False in answers else None if None in answers else True


def _assumed(op: ir.Operation, constants: Sequence[int]) -> Iterator[bool | None]:
    """Check the properties of integers that the compiler derived from their computation in the program.

    IREE has no bindings for the attribute, so the text between its brackets is parsed as a dictionary.
    """
    if op.name != "util.assume.int":
        return
    for operand, assumptions in zip(op.operands, ir.ArrayAttr(op.attributes["assumptions"]), strict=True):
        try:
            number = evaluate(operand, constants)
        except NotComputed:
            yield None
            continue
        possible = [_parsed(assumption) for assumption in ir.ArrayAttr(assumptions)]
        yield not possible or any(
            one.get("umin", number) <= number <= one.get("umax", number) and number % one.get("udiv", 1) == 0
            for one in possible
        )


def _parsed(assumption: ir.Attribute) -> dict[str, int]:
    text = str(assumption)
    if "<" not in text:
        return {}
    fields = ir.DictAttr(ir.Attribute.parse(f"{{{text[text.index('<') + 1 : text.rindex('>')]}}}"))
    return {named.name: int(ir.IntegerAttr(named.attr).value) for named in fields}


def _indexed(op: ir.Operation, constants: Sequence[int], lengths: Sequence[int]) -> Iterator[bool | None]:
    """Check the offsets and indices of an op that depend on scalars."""
    if op.name == "hal.interface.binding.subspan":
        whole = mlir.shaped_type(op.results[0].type)
        binding = ir.IntegerAttr(op.attributes["binding"]).value
        if whole is None or _is_constant(op.operands[0]) or binding >= len(lengths):
            return
        bits = whole.element_type.width if hasattr(whole.element_type, "width") else 64
        size = -(-math.prod(whole.shape) * bits // 8)
        yield _is_inside(op.operands[0], size, lengths[binding], constants)
    elif op.name == "tensor.extract":
        whole = ir.ShapedType(op.operands[0].type)
        for index, dimension in zip(list(op.operands)[1:], whole.shape, strict=True):
            if any(_is_loaded(origin) for origin in origins(index)):
                yield _is_inside(index, 1, dimension, constants)
    elif "static_offsets" in op.attributes:
        yield from _sliced(op, constants)


def _sliced(op: ir.Operation, constants: Sequence[int]) -> Iterator[bool | None]:
    """Check the offsets of an op that reads or writes a slice."""
    segments = mlir.operand_groups(op)
    dynamic = iter(segments[-3])
    # A slice is taken from the first operand, or put into the second.
    whole = mlir.shaped_type(op.operands[segments[1][0] if "store" in op.name or "insert" in op.name else 0].type)
    if whole is None:
        return
    names = ("static_offsets", "static_sizes", "static_strides")
    described = [list(ir.DenseI64ArrayAttr(op.attributes[name])) for name in names]
    for offset, size, stride, dimension in zip(*described, whole.shape, strict=True):
        if offset == ir.ShapedType.get_dynamic_size():
            yield _is_inside(op.operands[next(dynamic)], (size - 1) * stride + 1, dimension, constants)


def _is_loaded(value: ir.Value) -> bool:
    return not isinstance(value.owner, ir.Block) and value.owner.operation.name == "hal.interface.constant.load"


def _is_inside(start: ir.Value, size: int, whole: int, constants: Sequence[int]) -> bool | None:
    try:
        number = evaluate(start, constants)
    except NotComputed:
        return None
    return number >= 0 and number + size <= whole


def _set_constants(call: ir.Operation, positions: Sequence[int], chosen: Mapping[ir.Value, int]) -> None:
    """Pass constants in a call, whose values are those that it computes from chosen ones."""
    outermost = call
    while outermost.parent.name not in ("util.func", "util.initializer"):
        outermost = outermost.parent
    for position in positions:
        value = call.operands[position]
        with ir.InsertionPoint(outermost):
            constant = arith.constant(value.type, evaluate(value, known=chosen))
        call.operands[position] = constant
