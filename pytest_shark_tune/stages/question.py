"""Questions: what a matcher of any spec asks of an op, as plain data that can be shown and compared.

A matcher is a straight line of transform ops, each of which holds or ends it, so what it asks is the sum of what they
ask. An op that is not known here makes the question narrower in a way that nobody knows; it is named in ``unread``.
Whether an op has a config already is not asked about: specs are applied to stripped modules. Ops are taken to have
static sizes, as all that is tuned has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, linalg, transform

from pytest_shark_tune.stages.artifact import compiler_context
from pytest_shark_tune.stages.dispatch import ATTENTION, INCIDENTAL_ATTRIBUTES, ONLINE_ATTENTION, RootOp
from pytest_shark_tune.stages.spec import PROVENANCE, link_spec

__all__ = ["Condition", "OperandType", "Question", "Relation", "describe", "differences", "read_questions", "relation"]

Relation = Literal["equal", "covers", "covered", "overlaps", "apart", "unknown"]
"""How the ops that one matcher matches lie to those of another: ``covers`` says that the first matches all of them."""

_CLASSES = {
    "contraction": ("batch", "m", "n", "k"),
    "convolution": ("batch", "output_image", "output_channel", "filter_loop", "input_channel", "depth"),
    "attention": ("batch", "m", "n", "k1", "k2"),
}
_STEPS = ("strides", "dilations")
_INPUTS = {
    "contraction": ("lhs", "rhs"),
    "convolution": ("input", "filter"),
    "attention": ("query", "key", "value", "scale"),
}
_OUTPUTS = ("result", "max", "sum")
_LINALG = ("contraction", "convolution")
_ATTENTIONS = (ATTENTION, ONLINE_ATTENTION)
_ANY = -1
_SUPPRESS = 2
"""The mode of ``transform.include`` in which a sequence that fails does no harm, so that it asks nothing."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a dimension: at least ``low``, at most ``high`` (``None``: any), a multiple of ``step``."""

    low: int = 0
    high: int | None = None
    step: int = 1

    @property
    def exact(self) -> int | None:
        """The one size that fulfils this, if there is just one."""
        return self.low if self.low == self.high else None


class OperandType(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an operand's type; ``element`` is empty and ``sizes`` is ``None`` where they may be anything.

    ``element`` is the element type of a tensor, else the whole type. ``bounds`` are conditions on dimensions of an
    operand whose rank is not known.
    """

    element: str = ""
    sizes: tuple[Condition, ...] | None = None
    bounds: dict[int, Condition] = {}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What one matcher asks of an op.

    ``matcher`` is the symbol's name. ``kind`` is as a `RootOp` has it, where ``convolution`` may be a pooling and
    ``other`` anything, unless there are ``attributes``; ``op`` is the op's name where one is asked for. ``inputs`` and
    ``outputs`` are element types in the order of the operands, ``maps`` the texts of the indexing maps. ``sizes`` has a
    condition for each dimension of each class (``batch``, ``m``, ``n``, ``k``, ... as in `RootOp`), in order; a class
    that is missing may be anything. In ``strides`` and ``dilations`` -1 is any. ``operands`` are what is asked of
    operands' types, by position, beyond what ``inputs``, ``outputs`` and ``sizes`` say. ``body`` is a hash that is
    equal for equal bodies, ``attributes`` are the texts of all attributes that the op must have, ``None`` where it may
    have any. ``unread`` names the transform ops that ask something that is not read here: a matcher that has any never
    surely covers another, unless they are alike in every op, as those of equal ``fingerprint`` are.
    """

    matcher: str
    kind: str
    op: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    sizes: dict[str, tuple[Condition, ...]] = {}
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    operands: dict[int, OperandType] = {}
    body: str = ""
    attributes: dict[str, str] | None = None
    unread: tuple[str, ...] = ()
    fingerprint: str = ""


def read_questions(spec: str) -> tuple[Question, ...]:
    """What each matcher of a spec asks, in the order in which they are tried, as ``spec.read_spec`` lists them.

    Raises:
        InputError: the text is no tuning spec.
    """
    linked = link_spec(spec)
    with compiler_context(keep=True):
        sequences: dict[str, ir.Operation] = {}
        matchers: list[str] = []

        def visit(op: ir.Operation) -> ir.WalkResult:
            if op.name == "transform.named_sequence":
                sequences[ir.StringAttr(op.attributes["sym_name"]).value] = op
            elif op.name == "transform.foreach_match":
                matchers.extend(ir.FlatSymbolRefAttr(name).value for name in ir.ArrayAttr(op.attributes["matchers"]))
            return ir.WalkResult.ADVANCE

        module = ir.Module.parse(linked)
        module.operation.walk(visit)
        return tuple(_read(name, sequences) for name in matchers)


def relation(first: Question, second: Question) -> Relation:
    """How the ops that ``first`` matches lie to those that ``second`` matches.

    ``covers``, ``covered``, ``equal`` and ``apart`` are said only where they are sure; ``overlaps`` where neither
    covers the other and nothing that is read keeps them apart; ``unknown`` where something is not read.
    """
    if first.fingerprint == second.fingerprint:
        return "equal"
    if _are_apart(first, second):
        return "apart"
    covers, covered = _covers(first, second), _covers(second, first)
    if covers or covered:
        return "equal" if covers and covered else "covers" if covers else "covered"
    return "unknown" if first.unread or second.unread else "overlaps"


def differences(question: Question, root: RootOp) -> tuple[str, ...]:
    """In what ``root`` differs from what is asked, in words; empty where it would match as far as is read.

    As in ``its lhs has elements f16 instead of f32`` or ``its k is 256 instead of 512``.
    """
    kind = "convolution" if root.kind == "pooling" and question.kind == "convolution" else root.kind
    if question.kind not in ("other", kind):
        return (f"it is of kind {root.kind} instead of {question.kind}",)
    if question.op and question.op != root.op:
        return (f"it is {root.op} instead of {question.op}",)
    return (
        *_element_differences(question, root),
        *_map_differences(question, root),
        *_size_differences(question, root),
        *_operand_differences(question, root),
        *_pattern_differences(question, root),
    )


def describe(question: Question) -> str:
    """What is matched, in a few words: ``contraction 512x512x512 f32, f32 -> f32``; bounds as ``m in 1..64``."""
    words = [question.op or "any op"]
    if question.op == ONLINE_ATTENTION:
        words = ["online attention"]
    elif question.kind != "other":
        words = [question.kind]
    if sizes := _described_sizes(question):
        words.append(sizes)
    for name in _STEPS:
        steps = getattr(question, name)
        if any(step != 1 for step in steps):
            words.append(f"{name} {_by(steps)}")
    if question.inputs:
        words.append(f"{', '.join(question.inputs)} -> {', '.join(question.outputs)}")
    elif question.operands:
        words.append(", ".join(_type_text(question.operands[position]) for position in sorted(question.operands)))
    return " ".join(words)


@dataclass
class _Asked:
    """What a matcher was found to ask so far; ``meanings`` says what the values in it are."""

    sequences: Mapping[str, ir.Operation]
    meanings: dict[ir.Value, tuple[str, str | int]] = field(default_factory=dict)
    kind: str = "other"
    op: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    maps: tuple[ir.AffineMap, ...] = ()
    sizes: dict[str, tuple[Condition, ...]] = field(default_factory=dict)
    steps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    operands: dict[int, OperandType] = field(default_factory=dict)
    body: str = ""
    attributes: dict[str, str] | None = None
    unread: list[str] = field(default_factory=list)

    def set_once(self, name: str, value: object, op: ir.Operation) -> None:
        """Note a fact; one that contradicts another matches nothing, which is not for this module to say."""
        before = getattr(self, name)
        if before in ("", "other", (), None, value):
            setattr(self, name, value)
        else:
            self.unread.append(op.name)


_ROOT = ("root", 0)


def _read(name: str, sequences: Mapping[str, ir.Operation]) -> Question:
    asked = _Asked(sequences)
    matcher = sequences[name]
    block = matcher.regions[0].blocks[0]
    for argument in block.arguments:
        asked.meanings[argument] = _ROOT
        if isinstance(argument.type, transform.OperationType):
            asked.op = transform.OperationType(argument.type).operation_name
    _follow(block, asked)
    _fold_operands(asked)
    return Question(
        matcher=name,
        kind=asked.kind,
        op=asked.op,
        inputs=asked.inputs,
        outputs=asked.outputs,
        maps=tuple(str(ir.AffineMapAttr.get(affine)) for affine in asked.maps),
        sizes=asked.sizes,
        strides=asked.steps.get("strides", ()),
        dilations=asked.steps.get("dilations", ()),
        operands=asked.operands,
        body=asked.body,
        attributes=asked.attributes,
        unread=tuple(dict.fromkeys(asked.unread)),
        fingerprint=_hash(_text(matcher, _Numbers(), sequences, _handed_on(block))),
    )


def _follow(block: ir.Block, asked: _Asked) -> list[tuple[str, str | int] | None]:
    """Read the ops of a sequence; return what the values that it yields are."""
    for op in block.operations:
        operation = op.operation
        if operation.name == "transform.yield":
            return [asked.meanings.get(value) for value in operation.operands]
        reader = _READERS.get(operation.name)
        if reader is None or not reader(operation, asked):
            asked.unread.append(operation.name)
    return []


def _is_about(op: ir.Operation, asked: _Asked, what: str) -> bool:
    return asked.meanings.get(op.operands[0], ("", 0))[0] == what


def _read_nothing(op: ir.Operation, asked: _Asked) -> bool:
    return True


def _read_name(op: ir.Operation, asked: _Asked) -> bool:
    names = [ir.StringAttr(name).value for name in ir.ArrayAttr(op.attributes["op_names"])]
    if not _is_about(op, asked, "root") or len(names) != 1:
        return False
    asked.set_once("op", names[0], op)
    return True


def _read_kind(kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "") -> Callable[..., bool]:
    """The reader of one of IREE's matchers for a kind of ops; the element types are in attributes of these names."""

    def read(op: ir.Operation, asked: _Asked) -> bool:
        if not _is_about(op, asked, "root"):
            return False
        asked.set_once("kind", kind, op)
        asked.set_once("inputs", tuple(_type_of(op, each) for each in inputs), op)
        asked.set_once("outputs", tuple(_type_of(op, each) for each in outputs), op)
        if name:
            asked.set_once("op", name, op)
        if "indexing_maps" in op.attributes:
            asked.set_once("maps", _maps(op), op)
        for result, meaning in zip(op.results, (*_CLASSES[kind], *_STEPS), strict=False):
            asked.meanings[result] = ("steps" if meaning in _STEPS else "sizes", meaning)
        return True

    return read


def _read_sizes(op: ir.Operation, asked: _Asked) -> bool:
    what, name = asked.meanings.get(op.operands[0], ("", ""))
    expected = tuple(ir.DenseI64ArrayAttr(op.attributes["expected_values"]))
    if what == "steps":
        before = asked.steps.setdefault(str(name), expected)
        return before == expected
    if what != "sizes":
        return False
    given = tuple(Condition() if size == _ANY else _exactly(size) for size in expected)
    old = asked.sizes.get(str(name), given)
    if len(old) != len(given):
        return False
    asked.sizes[str(name)] = tuple(_both(*pair) for pair in zip(old, given, strict=True))
    return True


def _read_operand(op: ir.Operation, asked: _Asked) -> bool:
    positions = list(ir.DenseI64ArrayAttr(op.attributes["raw_position_list"]))
    if not _is_about(op, asked, "root") or "is_inverted" in op.attributes or len(positions) != 1 or positions[0] < 0:
        return False
    asked.meanings[op.results[0]] = ("operand", positions[0])
    return True


def _read_type(op: ir.Operation, asked: _Asked) -> bool:
    if not _is_about(op, asked, "operand"):
        return False
    return _ask_type(asked, _position(op, asked), ir.TypeAttr(op.attributes["target_type"]).value)


def _ask_type(asked: _Asked, position: int, kind: ir.Type) -> bool:
    given = _operand_type(kind)
    old = asked.operands.get(position, OperandType())
    if old.element not in ("", given.element) or (old.sizes is not None and old.sizes != given.sizes):
        return False
    asked.operands[position] = given
    return all(_ask_bound(asked, position, dim, condition) for dim, condition in old.bounds.items())


def _read_bounds(op: ir.Operation, asked: _Asked) -> bool:
    def number(name: str, default: Any) -> Any:
        return int(ir.IntegerAttr(op.attributes[name]).value) if name in op.attributes else default

    if not _is_about(op, asked, "operand"):
        return False
    condition = Condition(low=number("lower_bound", 0), high=number("upper_bound", None), step=number("size", 1))
    return condition.step > 0 and _ask_bound(asked, _position(op, asked), number("dim", 0), condition)


def _ask_bound(asked: _Asked, position: int, dim: int, condition: Condition) -> bool:
    old = asked.operands.get(position, OperandType())
    if old.sizes is None:
        bounds = old.bounds | {dim: _both(old.bounds.get(dim, Condition()), condition)}
        asked.operands[position] = msgspec.structs.replace(old, bounds=bounds)
        return True
    if dim >= len(old.sizes):
        return False
    sizes = (*old.sizes[:dim], _both(old.sizes[dim], condition), *old.sizes[dim + 1 :])
    asked.operands[position] = msgspec.structs.replace(old, sizes=sizes)
    return True


def _read_body(op: ir.Operation, asked: _Asked) -> bool:
    if not _is_about(op, asked, "root"):
        return False
    asked.set_once("body", _body(op.regions[0].blocks[0].operations[0].operation), op)
    return True


def _read_whole(op: ir.Operation, asked: _Asked) -> bool:
    if not _is_about(op, asked, "root"):
        return False
    *producers, root, _ = (each.operation for each in op.regions[0].blocks[0].operations)
    asked.set_once("op", root.name, op)
    if "match.operation_name_only" in root.attributes:
        return True
    asked.set_once("attributes", _attributes(root), op)
    asked.set_once("body", _body(root), op)
    asked.set_once("kind", _kind(root), op)
    if "indexing_maps" in root.attributes:
        asked.set_once("maps", _maps(root), op)
    types = [_ask_type(asked, position, operand.type) for position, operand in enumerate(root.operands)]
    return all(types) and not producers and len(set(root.operands)) == len(root.operands)


def _read_included(op: ir.Operation, asked: _Asked) -> bool:
    if ir.IntegerAttr(op.attributes["failure_propagation_mode"]).value == _SUPPRESS:
        return True
    block = _included(op, asked.sequences).regions[0].blocks[0]
    for argument, operand in zip(block.arguments, op.operands, strict=True):
        asked.meanings.pop(argument, None)
        if operand in asked.meanings:
            asked.meanings[argument] = asked.meanings[operand]
    for result, meaning in zip(op.results, _follow(block, asked), strict=True):
        if meaning is not None:
            asked.meanings[result] = meaning
    return True


_READERS: Mapping[str, Callable[[ir.Operation, _Asked], bool]] = {
    "transform.get_operand": _read_operand,
    "transform.include": _read_included,
    "transform.iree.match.attention": _read_kind(
        "attention", ("query_type", "key_type", "value_type"), ("output_type",), ATTENTION
    ),
    "transform.iree.match.cast_compatible_dag_from_root": _read_whole,
    "transform.iree.match.cast_compatible_type": _read_type,
    "transform.iree.match.contraction": _read_kind("contraction", ("lhs_type", "rhs_type"), ("output_type",)),
    "transform.iree.match.convolution": _read_kind("convolution", ("lhs_type", "rhs_type"), ("output_type",)),
    "transform.iree.match.dim_bounds": _read_bounds,
    "transform.iree.match.dim_is_multiple_of": _read_bounds,
    "transform.iree.match.dims_equal": _read_sizes,
    "transform.iree.match.has_no_lowering_config": _read_nothing,
    "transform.iree.match.online_attention": _read_kind(
        "attention",
        ("query_type", "key_type", "value_type", "scale_type"),
        ("output_type", "max_type", "sum_type"),
        ONLINE_ATTENTION,
    ),
    "transform.iree.match.regions": _read_body,
    "transform.match.operation_name": _read_name,
    "transform.param.constant": _read_nothing,
    "transform.print": _read_nothing,
}


def _fold_operands(asked: _Asked) -> None:
    """Turn what is asked of operands' sizes into what is asked of loops, so that two ways to ask it look alike."""
    if not asked.maps or not asked.inputs:
        return
    classes = _classes_of_loops(asked)
    for name in _CLASSES[asked.kind]:
        count = sum(each == name for each, _ in classes.values())
        if len(asked.sizes.setdefault(name, (Condition(),) * count)) != count:
            # Such a matcher matches nothing, and nobody is to think that it asks what it says.
            asked.unread.append("transform.iree.match.dims_equal")
            return
    elements = _elements_by_position(asked)
    for position, operand in list(asked.operands.items()):
        if position >= len(asked.maps):
            continue
        loops = [
            classes.get(expression.position) if isinstance(expression, ir.AffineDimExpr) else None
            for expression in asked.maps[position].results
        ]
        asks = dict(enumerate(operand.sizes)) if operand.sizes is not None else operand.bounds
        if len(loops) != len(operand.sizes or loops) or any(dim >= len(loops) for dim in asks):
            continue
        for dim, condition in asks.items():
            if (loop := loops[dim]) is not None:
                name, index = loop
                old = asked.sizes[name]
                asked.sizes[name] = (*old[:index], _both(old[index], condition), *old[index + 1 :])
        if all(loops[dim] is not None for dim in asks) and operand.element in ("", elements.get(position)):
            del asked.operands[position]


def _classes_of_loops(asked: _Asked) -> dict[int, tuple[str, int]]:
    """The class of each loop and its position in there, as IREE's matcher of the kind will tell them."""
    maps = list(asked.maps)
    found: Any
    suffix = ""
    if asked.kind == "contraction":
        found = linalg.infer_contraction_dimensions_from_maps(maps)
    elif asked.kind == "convolution":
        found = linalg.infer_convolution_dimensions_from_maps(maps)
    elif len(maps) <= len(asked.inputs):
        return {}
    else:
        found = iree_codegen.get_attention_op_detail(*maps[:3], maps[len(maps) - len(asked.outputs)])
        suffix = "_dims"
    if found is None:
        return {}
    return {
        loop: (name, index)
        for name in _CLASSES[asked.kind]
        for index, loop in enumerate(getattr(found, f"{name}{suffix}"))
    }


def _elements_by_position(asked: _Asked) -> dict[int, str]:
    """The element types that are asked for, by operand; IREE's matcher of attention passes over the scale."""
    first_output = len(asked.maps) - len(asked.outputs)
    outputs = {first_output + number: element for number, element in enumerate(asked.outputs)}
    return dict(enumerate(asked.inputs)) | outputs


def _are_apart(first: Question, second: Question) -> bool:
    """Whether no op can be matched by both. An op that is compared whole is of its kind for sure, also of none."""
    pair = (first, second)
    if first.kind != second.kind and all(each.kind != "other" or each.attributes is not None for each in pair):
        return True
    if first.op and second.op and first.op != second.op:
        return True
    if any(one.kind in _LINALG and other.op in _ATTENTIONS for one, other in (pair, pair[::-1])):
        return True
    if first.maps and second.maps and first.maps != second.maps:
        return True
    if first.body and second.body and first.body != second.body:
        return True
    if None not in (first.attributes, second.attributes) and first.attributes != second.attributes:
        return True
    return (
        any(one != other for one, other in zip(first.inputs, second.inputs, strict=False))
        or any(one != other for one, other in zip(first.outputs, second.outputs, strict=False))
        or any(_steps_apart(getattr(first, name), getattr(second, name)) for name in _STEPS)
        or any(_sizes_apart(first.sizes[name], second.sizes[name]) for name in first.sizes.keys() & second.sizes.keys())
        or any(
            _types_apart(first.operands[each], second.operands[each])
            for each in first.operands.keys() & second.operands.keys()
        )
    )


def _covers(first: Question, second: Question) -> bool:
    """Whether ``first`` surely matches all that ``second`` matches."""
    if first.unread or (first.kind not in ("other", second.kind)):
        return False
    wanted = ("op", "maps", "body")
    if any(getattr(first, name) and getattr(first, name) != getattr(second, name) for name in wanted):
        return False
    if first.attributes is not None and first.attributes != second.attributes:
        return False
    return (
        second.inputs[: len(first.inputs)] == first.inputs
        and second.outputs[: len(first.outputs)] == first.outputs
        and all(_steps_cover(getattr(first, name), getattr(second, name)) for name in _STEPS)
        and all(name in second.sizes and _sizes_cover(asked, second.sizes[name]) for name, asked in first.sizes.items())
        and all(
            position in second.operands and _type_covers(asked, second.operands[position])
            for position, asked in first.operands.items()
        )
    )


def _steps_apart(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    if not first or not second:
        return False
    if len(first) != len(second):
        return True
    return any(one != other and _ANY not in (one, other) for one, other in zip(first, second, strict=True))


def _steps_cover(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    if not first:
        return True
    return len(first) == len(second) and all(one in (_ANY, two) for one, two in zip(first, second, strict=True))


def _sizes_apart(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    if len(first) != len(second):
        return True
    return any(_is_empty(_both(one, other)) for one, other in zip(first, second, strict=True))


def _sizes_cover(first: tuple[Condition, ...], second: tuple[Condition, ...]) -> bool:
    return len(first) == len(second) and all(_holds_for(*pair) for pair in zip(first, second, strict=True))


def _types_apart(first: OperandType, second: OperandType) -> bool:
    if first.element and second.element and first.element != second.element:
        return True
    return first.sizes is not None and second.sizes is not None and _sizes_apart(first.sizes, second.sizes)


def _type_covers(first: OperandType, second: OperandType) -> bool:
    if first.element not in ("", second.element):
        return False
    if first.sizes is not None:
        return second.sizes is not None and _sizes_cover(first.sizes, second.sizes)
    known = dict(enumerate(second.sizes)) if second.sizes is not None else second.bounds
    return all(dim in known and _holds_for(asked, known[dim]) for dim, asked in first.bounds.items())


def _exactly(size: int) -> Condition:
    return Condition(low=size, high=size)


def _both(one: Condition, other: Condition) -> Condition:
    """The condition that holds where both do, with bounds that are multiples themselves."""
    step = math.lcm(one.step, other.step)
    low = max(one.low, other.low)
    highs = [each.high for each in (one, other) if each.high is not None]
    high = min(highs) if highs else None
    low = -(-low // step) * step
    if high is not None:
        high = high // step * step
    return Condition(low=low, high=high, step=1 if low == high else step)


def _is_empty(condition: Condition) -> bool:
    return condition.high is not None and condition.low > condition.high


def _holds_for(wide: Condition, narrow: Condition) -> bool:
    """Whether all sizes that fulfil ``narrow`` fulfil ``wide``."""
    return _both(wide, narrow) == _both(narrow, narrow)


def _position(op: ir.Operation, asked: _Asked) -> int:
    return int(asked.meanings[op.operands[0]][1])


def _type_of(op: ir.Operation, name: str) -> str:
    return str(ir.TypeAttr(op.attributes[name]).value)


def _operand_type(kind: ir.Type) -> OperandType:
    if not isinstance(kind, ir.RankedTensorType) or not ir.RankedTensorType(kind).shape:
        return OperandType(element=str(kind))
    tensor = ir.RankedTensorType(kind)
    encoding = f", {tensor.encoding}" if tensor.encoding is not None else ""
    dynamic = ir.ShapedType.get_dynamic_size()
    return OperandType(
        element=f"{tensor.element_type}{encoding}",
        sizes=tuple(Condition() if size == dynamic else _exactly(size) for size in tensor.shape),
    )


def _maps(op: ir.Operation) -> tuple[ir.AffineMap, ...]:
    return tuple(ir.AffineMapAttr(each).value for each in ir.ArrayAttr(op.attributes["indexing_maps"]))


def _kind(op: ir.Operation) -> str:
    """The kind of a `RootOp` that is like this op, as IREE's matchers see it."""
    if linalg.isa_contraction_op(op):
        return "contraction"
    if linalg.isa_convolution_op(op):
        return "convolution"
    return "attention" if op.name in _ATTENTIONS else "other"


def _included(op: ir.Operation, sequences: Mapping[str, ir.Operation]) -> ir.Operation:
    return sequences[ir.FlatSymbolRefAttr(op.attributes["target"]).value]


class _Numbers(dict[Any, int]):
    """Numbers values in the order in which they are met: a name that does not depend on what stands around."""

    def __missing__(self, value: Any) -> int:
        return self.setdefault(value, len(self))


def _handed_on(matcher: ir.Block) -> set[ir.Value]:
    """What a matcher hands to its action: its last op's operands."""
    return set(list(matcher.operations)[-1].operation.operands)


def _text(
    op: ir.Operation, numbers: _Numbers, sequences: Mapping[str, ir.Operation], handed_on: Collection[ir.Value] = ()
) -> str:
    """A text that is equal for ops that are alike; sequences' names, provenance and what is handed on are left out."""
    attributes = _attributes(op)
    inner = ""
    if op.name == "transform.param.constant" and op.results[0] in handed_on:
        attributes = {}
    elif op.name == "transform.named_sequence":
        attributes = {name: text for name, text in attributes.items() if name not in ("sym_name", PROVENANCE)}
    elif op.name == "transform.include":
        attributes.pop("target")
        inner = _text(_included(op, sequences), _Numbers(), sequences)  # whose constants may be asked for
    operands = [numbers[value] for value in op.operands]
    results = [(numbers[value], str(value.type)) for value in op.results]
    regions = _regions(op, numbers, sequences, handed_on)
    return f"{op.name}{operands}{results}{sorted(attributes.items())}{inner}{regions}"


def _regions(
    op: ir.Operation, numbers: _Numbers, sequences: Mapping[str, ir.Operation], handed_on: Collection[ir.Value] = ()
) -> str:
    text = ""
    for region in op.regions:
        for block in region.blocks:
            arguments = [(numbers[argument], str(argument.type)) for argument in block.arguments]
            inner = ";".join(_text(each.operation, numbers, sequences, handed_on) for each in block.operations)
            text += f"{{{arguments}{inner}}}"
    return text


def _body(op: ir.Operation) -> str:
    return _hash(_regions(op, _Numbers(), {}))


def _attributes(op: ir.Operation) -> dict[str, str]:
    return {name: str(op.attributes[name]) for name in op.attributes if name not in INCIDENTAL_ATTRIBUTES}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _element_differences(question: Question, root: RootOp) -> Iterable[str]:
    names = _INPUTS.get(question.kind, ())
    for name, asked, tensor in zip(names, question.inputs, root.inputs, strict=False):
        if tensor.element != asked:
            yield f"its {name} has elements {tensor.element} instead of {asked}"
    for name, asked, tensor in zip(_OUTPUTS, question.outputs, root.outputs, strict=False):
        if tensor.element != asked:
            yield f"its {name} has elements {tensor.element} instead of {asked}"


def _map_differences(question: Question, root: RootOp) -> Iterable[str]:
    if not question.maps or question.maps == root.maps or question.attributes is not None:
        return
    if len(question.maps) != len(root.maps):
        yield f"it has {len(root.maps)} indexing maps instead of {len(question.maps)}"
        return
    outputs = len(root.maps) - len(root.outputs)
    names = [*_INPUTS[question.kind][:outputs], *_OUTPUTS]
    for name, asked, given in zip(names, question.maps, root.maps, strict=False):
        if asked != given:
            yield f"its {name} has the layout {_layout(given)} instead of {_layout(asked)}"


def _size_differences(question: Question, root: RootOp) -> Iterable[str]:
    for name in _CLASSES.get(question.kind, ()):
        if name not in question.sizes:
            continue
        asked = question.sizes[name]
        given = tuple(root.loops[position] for position in getattr(root, name))
        if not _sizes_cover(asked, tuple(map(_exactly, given))):
            yield f"its {_plain(name)} is {_by(given)} instead of {_conditions(asked)}"
    for name in _STEPS:
        asked_steps, given = getattr(question, name), getattr(root, name)
        if not _steps_cover(asked_steps, given):
            yield f"its {name} are {_by(given)} instead of {_by(asked_steps)}"


def _operand_differences(question: Question, root: RootOp) -> Iterable[str]:
    tensors = (*root.inputs, *root.outputs)
    for position, asked in question.operands.items():
        if position >= len(tensors):
            yield f"it has {len(tensors)} operands, and operand {position} is asked about"
        elif tensors[position].shape:
            tensor = tensors[position]
            given = OperandType(element=tensor.element, sizes=tuple(map(_exactly, tensor.shape)))
            if not _type_covers(asked, given):
                yield f"its operand {position} is {_type_text(given)} instead of {_type_text(asked)}"


def _pattern_differences(question: Question, root: RootOp) -> Iterable[str]:
    """What the copy of the op that a root carries tells: its body and attributes."""
    if not root.pattern or (question.attributes is None and not question.body):
        return
    with compiler_context(keep=True):
        module = ir.Module.parse(root.pattern)
        function = module.body.operations[0]
        operations = [each.operation for each in function.regions[0].blocks[0].operations]
        (op,) = (each for each in operations if each.name != "func.return")
        given, body = _attributes(op), _body(op)
    for name in sorted({*given, *(question.attributes or {})} if question.attributes is not None else ()):
        asked = (question.attributes or {}).get(name, "absent")
        if given.get(name, "absent") != asked:
            yield f"its {name} is {given.get(name, 'absent')} instead of {asked}"
    if question.body and question.body != body:
        yield "its body computes something else"


def _described_sizes(question: Question) -> str:
    classes = _CLASSES.get(question.kind, ())
    names = [name for name in classes if question.sizes.get(name)]
    everything = [condition for name in names for condition in question.sizes[name]]
    if not everything:
        return ""
    if len(question.sizes) == len(classes) and all(condition.exact is not None for condition in everything):
        return "x".join(str(condition.exact) for condition in everything)
    return ", ".join(f"{_plain(name)} {_conditions(question.sizes[name])}" for name in names) + ","


def _conditions(conditions: tuple[Condition, ...]) -> str:
    if not conditions:
        return "none"
    if len(conditions) == 1:
        return _condition(conditions[0])
    return "x".join("?" if each == Condition() else _condition(each) for each in conditions)


def _condition(condition: Condition) -> str:
    if condition.exact is not None:
        return str(condition.exact)
    words = []
    if condition.high is not None:
        words.append(f"in {condition.low}..{condition.high}" if condition.low else f"at most {condition.high}")
    elif condition.low > condition.step or (condition.low and condition.step == 1):
        words.append(f"at least {condition.low}")
    if condition.step > 1:
        words.append(f"a multiple of {condition.step}")
    return " and ".join(words) or "any"


def _type_text(kind: OperandType) -> str:
    element = kind.element or "any"
    if kind.sizes is None:
        return " and ".join([element, *(f"dimension {dim} {_condition(each)}" for dim, each in kind.bounds.items())])
    sizes = "".join(f"{'?' if each == Condition() else _condition(each)}x" for each in kind.sizes)
    return f"tensor<{sizes}{element}>"


def _layout(affine_map: str) -> str:
    return affine_map.removeprefix("affine_map<").removesuffix(">")


def _by(numbers: Iterable[int]) -> str:
    return "x".join("any" if number == _ANY else str(number) for number in numbers) or "none"


def _plain(name: str) -> str:
    return name.replace("_", " ")
