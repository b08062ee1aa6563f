"""The functions of a model: what they take, and the executables that they call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec
from iree.compiler import ir

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.elements import SCALARS
from pytest_shark_tune.dispatch.open_sizes import with_sizes
from pytest_shark_tune.dispatch.reasons import CannotTune
from pytest_shark_tune.dispatch.types import Argument

__all__ = ["Flow", "function_inputs", "read_flow", "why_not_fed"]

_MADE_UP = "only tensors of fixed shapes and numbers of common types"
_BUFFER_VIEW = "!hal.buffer_view"
_CONSTANTS = {"util.global": "initial_value", "flow.tensor.constant": "value"}
"""Ops that hold data, each with the attribute that holds it."""
_PARAMETERS = tuple(f'#{dialect}.parameter.named<"scope"::"key"> : tensor<1xf32>' for dialect in ("flow", "stream"))
"""Attributes that refer to data in another file by its name."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The executables of a module at phase ``flow``, and how they are called."""

    calls: dict[str, int] = {}
    """The number of calls of each executable; a call in a loop counts once."""
    called: dict[str, tuple[str, ...]] = {}
    """The executables that each function calls, itself or through another function."""
    parameters: dict[str, dict[str, int]] = {}
    """The parameters that it takes from other files by scope and key, with the least number of bytes of each."""


def read_flow(flow_text: str) -> Flow:
    """Read a module at phase ``flow``.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with mlir.shared_context():
        module = mlir.parse_module(flow_text)
        functions = _functions(module)
        own = {name: _dispatched(op) for name, op in functions.items()}
        callees = {name: [_callee(call) for call in mlir.ops_named(op, "util.call")] for name, op in functions.items()}
        called = {
            name: {symbol for function in _call_closure(name, callees) for symbol in own[function]} for name in own
        }
        return Flow(
            calls=dict(Counter(_dispatched(module.operation))),
            called={name: tuple(sorted(symbols)) for name, symbols in called.items()},
            parameters=_parameters(module),
        )


def _functions(module: ir.Module) -> dict[str, ir.Operation]:
    """Return the functions of a module that have a body, by name."""
    operations = (op.operation for op in module.body.operations)
    return {
        mlir.string_of(op, "sym_name"): op
        for op in operations
        if op.name in {"func.func", "util.func"} and op.regions[0].blocks
    }


def _dispatched(op: ir.Operation) -> list[str]:
    """Return the executables that are called inside ``op``, one element per call."""
    calls = mlir.ops_named(op, "flow.dispatch")
    entry_points = [entry for call in calls for entry in ir.ArrayAttr(call.attributes["entry_points"])]
    return [ir.SymbolRefAttr(entry).value[0] for entry in entry_points]


def _callee(call: ir.Operation) -> str:
    return str(ir.FlatSymbolRefAttr(call.attributes["callee"]).value)


def _call_closure(name: str, callees: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a function and all functions with a body that it calls, directly or not."""
    reached = [name]
    for function in reached:  # The list grows during the loop.
        reached += [
            callee for callee in dict.fromkeys(callees[function]) if callee in callees and callee not in reached
        ]
    return reached


def _parameters(module: ir.Module) -> dict[str, dict[str, int]]:
    """Return the data in other files that constants of the module refer to, by scope and key."""
    kinds = {ir.Attribute.parse(text).typeid for text in _PARAMETERS}
    constants = [
        (op, name)
        for kind, name in _CONSTANTS.items()
        for op in mlir.ops_named(module.operation, kind)
        if name in op.attributes
    ]
    found: dict[str, dict[str, int]] = {}
    for op, name in constants:
        try:
            constant = op.attributes[name]
        except TypeError:  # The bindings cannot return constants of complex numbers, which are in the module itself.
            continue
        if constant.typeid in kinds:
            scope, key = _parameter_name(constant)
            of_scope = found.setdefault(scope, {})
            of_scope[key] = max(of_scope.get(key, 0), mlir.least_bytes(constant.type))
    return found


def _parameter_name(parameter: ir.Attribute) -> tuple[str, str]:
    """Return the scope and the key of ``#flow.parameter.named<"scope"::"key">``, of which IREE has no bindings.

    IREE prints both as they are, without escapes, so neither can hold a quotation mark. The scope may be left out.
    """
    _, first, between, *rest = str(parameter).split('"')
    return (first, rest[0]) if between == "::" else ("", first)


def function_inputs(
    input_text: str, sizes: Mapping[tuple[int, int], int] = MappingProxyType({})
) -> dict[str, tuple[Argument, ...]]:
    """Return the public functions of a module at phase ``input``, each with the tensors that it takes.

    Functions with other arguments than statically shaped tensors and numbers are left out: no data can be made for
    them. A function from ONNX takes buffer views at this phase. It imports them as tensors, itself or in a function
    that it calls.

    Args:
        input_text: The module.
        sizes: The sizes of open dimensions by input and dimension.
    """
    return {name: inputs for name, inputs in _public_functions(input_text, sizes) if not isinstance(inputs, str)}


def why_not_fed(input_text: str, sizes: Mapping[tuple[int, int], int] = MappingProxyType({})) -> str:
    """Return the reason why no data can be made for any public function of a module at phase ``input``.

    The text is empty if data can be made for one of them.

    Args:
        input_text: The module.
        sizes: The sizes of open dimensions by input and dimension.
    """
    reasons = {name: inputs for name, inputs in _public_functions(input_text, sizes) if isinstance(inputs, str)}
    if not reasons or function_inputs(input_text, sizes):
        return ""
    return "; ".join(f"no data can be made for {name!r}: {reason}" for name, reason in reasons.items())


def _public_functions(
    input_text: str, sizes: Mapping[tuple[int, int], int]
) -> Iterator[tuple[str, tuple[Argument, ...] | str]]:
    """Yield each public function with the tensors that it takes, or with the reason why no data can be made for it."""
    with mlir.shared_context():
        module = mlir.parse_module(input_text)
        defined = _functions(module)
        for name, op in defined.items():
            if "sym_visibility" in op.attributes and mlir.string_of(op, "sym_visibility") != "public":
                continue
            tensors = []
            for number, argument in enumerate(op.regions[0].blocks[0].arguments):
                kind = with_sizes(_imported_type(argument, defined), number, sizes)
                if str(kind) in SCALARS:
                    tensors.append(Argument((), str(kind), is_scalar=True))
                    continue
                try:
                    found = mlir.tensor_of(kind, empty=True)
                    tensors.append(Argument(found.shape, found.element))
                except CannotTune:
                    yield name, f"its input {number} is of type {kind}, and {_MADE_UP} are made up"
                    break
            else:
                yield name, tuple(tensors)


def _imported_type(argument: ir.Value, defined: Mapping[str, ir.Operation]) -> ir.Type:
    """Return the type of an argument; of a buffer view, that of the tensor that it holds.

    A buffer view that is unused, or handed on as it is, may be any tensor.
    """
    if argument.type != ir.Type.parse(_BUFFER_VIEW):
        return argument.type
    is_read = False
    for use in argument.uses:
        user = use.owner.operation  # The ``name`` of a view may be an attribute of that name.
        if user.name == "hal.tensor.import":
            return ir.TypeAttr(user.attributes["target_encoding"]).value
        if user.name == "util.call" and (callee := _callee(user)) in defined:
            return _imported_type(defined[callee].regions[0].blocks[0].arguments[use.operand_number], defined)
        is_read = is_read or user.name not in ("util.return", "func.return")
    return argument.type if is_read else ir.Type.parse("tensor<1xf32>")
