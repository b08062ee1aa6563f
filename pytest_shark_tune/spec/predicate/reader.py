"""Reading match predicates from the ops of a matcher.

A matcher is a straight line of transform ops, and it ends at the first op that fails. So its predicate is the
conjunction of the conditions of its ops. An op that is unknown here adds an unknown condition, and ``unread`` names it.
The condition that an op has no config yet is ignored, since specs are applied to modules without configs. Ops are
assumed to have static sizes, as all tuned ops have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, linalg, transform

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.mlir import pattern_op
from pytest_shark_tune.dispatch.types import ATTENTION, INCIDENTAL_ATTRIBUTES, ONLINE_ATTENTION, RootOp
from pytest_shark_tune.spec.module import PROVENANCE
from pytest_shark_tune.spec.predicate import predicate

__all__ = ["pattern_of", "read_matcher"]

_SUPPRESS = 2
"""The mode of ``transform.include`` in which a failing sequence is ignored, so that it is no condition."""


@dataclass
class _Asked:
    """The conditions of a matcher that were read so far."""

    sequences: Mapping[str, ir.Operation]
    meanings: dict[ir.Value, tuple[str, str | int]] = field(default_factory=dict)
    """The meaning of each value in the matcher: the root, an operand of it, or sizes or steps of a class."""
    kind: str = "other"
    op: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    maps: tuple[ir.AffineMap, ...] = ()
    sizes: dict[str, tuple[predicate.Condition, ...]] = field(default_factory=dict)
    steps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    operands: dict[int, predicate.OperandType] = field(default_factory=dict)
    body: str = ""
    attributes: dict[str, str] | None = None
    unread: list[str] = field(default_factory=list)

    def set_once(self, name: str, value: object, op: ir.Operation) -> None:
        """Store a condition. A matcher with contradicting conditions matches nothing; it is treated as unread."""
        before = getattr(self, name)
        if before in ("", "other", (), None, value):
            setattr(self, name, value)
        else:
            self.unread.append(op.name)


_ROOT = ("root", 0)


def read_matcher(name: str, sequences: Mapping[str, ir.Operation]) -> predicate.MatchPredicate:
    """Return the predicate of a matcher, one of the named ``sequences`` of a spec."""
    asked = _Asked(sequences)
    matcher = sequences[name]
    block = matcher.regions[0].blocks[0]
    for argument in block.arguments:
        asked.meanings[argument] = _ROOT
        if isinstance(argument.type, transform.OperationType):
            asked.op = transform.OperationType(argument.type).operation_name
    _follow(block, asked)
    _fold_operands(asked)
    return predicate.MatchPredicate(
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
        digest=_hash(_canonical_text(matcher, _Numbers(), sequences, set(block.operations[-1].operation.operands))),
    )


def _follow(block: ir.Block, asked: _Asked) -> list[tuple[str, str | int] | None]:
    """Read the ops of a sequence, and return the meanings of the values that it yields."""
    for op in block.operations:
        operation = op.operation
        if operation.name == "transform.yield":
            return [asked.meanings.get(value) for value in operation.operands]
        reader = _READERS.get(operation.name)
        if reader is None or not reader(operation, asked):
            asked.unread.append(operation.name)
    return []


def pattern_of(root: RootOp) -> tuple[dict[str, str], str]:
    """Return the texts of the attributes and the hash of the body of the op in the pattern of ``root``."""
    with compiler_context(keep=True):
        _held, op = pattern_op(root.pattern)
        return _attribute_texts(op), _body_hash(op)


def _is_about(op: ir.Operation, asked: _Asked, meaning: str) -> bool:
    return asked.meanings.get(op.operands[0], ("", 0))[0] == meaning


def _read_nothing(op: ir.Operation, asked: _Asked) -> bool:
    return True


def _read_name(op: ir.Operation, asked: _Asked) -> bool:
    names = [ir.StringAttr(name).value for name in ir.ArrayAttr(op.attributes["op_names"])]
    if not _is_about(op, asked, "root") or len(names) != 1:
        return False
    asked.set_once("op", names[0], op)
    return True


def _read_kind(kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "") -> Callable[..., bool]:
    """Return the reader of one of IREE's matchers for a kind of ops.

    Args:
        kind: The kind.
        inputs: The attributes of the matcher that hold the element types of the inputs.
        outputs: The same for the outputs.
        name: The name of the only op that the matcher matches, if there is only one.
    """

    def read(op: ir.Operation, asked: _Asked) -> bool:
        if not _is_about(op, asked, "root"):
            return False
        asked.set_once("kind", kind, op)
        asked.set_once("inputs", tuple(_type_of(op, attribute) for attribute in inputs), op)
        asked.set_once("outputs", tuple(_type_of(op, attribute) for attribute in outputs), op)
        if name:
            asked.set_once("op", name, op)
        if "indexing_maps" in op.attributes:
            asked.set_once("maps", _affine_maps(op), op)
        for result, meaning in zip(op.results, (*predicate.CLASSES[kind], *predicate.STEPS), strict=False):
            asked.meanings[result] = ("steps" if meaning in predicate.STEPS else "sizes", meaning)
        return True

    return read


def _read_sizes(op: ir.Operation, asked: _Asked) -> bool:
    meaning, name = asked.meanings.get(op.operands[0], ("", ""))
    expected = tuple(ir.DenseI64ArrayAttr(op.attributes["expected_values"]))
    if meaning == "steps":
        before = asked.steps.setdefault(str(name), expected)
        return before == expected
    if meaning != "sizes":
        return False
    given = tuple(predicate.Condition() if size == predicate.ANY else predicate.exactly(size) for size in expected)
    old = asked.sizes.get(str(name), given)
    if len(old) != len(given):
        return False
    asked.sizes[str(name)] = tuple(predicate.both(*pair) for pair in zip(old, given, strict=True))
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
    old = asked.operands.get(position, predicate.OperandType())
    if old.element not in ("", given.element) or (old.sizes is not None and old.sizes != given.sizes):
        return False
    asked.operands[position] = given
    return all(_ask_bound(asked, position, dim, condition) for dim, condition in old.bounds.items())


def _read_bounds(op: ir.Operation, asked: _Asked) -> bool:
    def number(name: str, default: Any) -> Any:
        return int(ir.IntegerAttr(op.attributes[name]).value) if name in op.attributes else default

    if not _is_about(op, asked, "operand"):
        return False
    condition = predicate.Condition(
        low=number("lower_bound", 0), high=number("upper_bound", None), step=number("size", 1)
    )
    return condition.step > 0 and _ask_bound(asked, _position(op, asked), number("dim", 0), condition)


def _ask_bound(asked: _Asked, position: int, dim: int, condition: predicate.Condition) -> bool:
    old = asked.operands.get(position, predicate.OperandType())
    if old.sizes is None:
        bounds = old.bounds | {dim: predicate.both(old.bounds.get(dim, predicate.Condition()), condition)}
        asked.operands[position] = msgspec.structs.replace(old, bounds=bounds)
        return True
    if dim >= len(old.sizes):
        return False
    sizes = (*old.sizes[:dim], predicate.both(old.sizes[dim], condition), *old.sizes[dim + 1 :])
    asked.operands[position] = msgspec.structs.replace(old, sizes=sizes)
    return True


def _read_body(op: ir.Operation, asked: _Asked) -> bool:
    if not _is_about(op, asked, "root"):
        return False
    asked.set_once("body", _body_hash(op.regions[0].blocks[0].operations[0].operation), op)
    return True


def _read_whole(op: ir.Operation, asked: _Asked) -> bool:
    if not _is_about(op, asked, "root"):
        return False
    *producers, root, _ = (inner.operation for inner in op.regions[0].blocks[0].operations)
    asked.set_once("op", root.name, op)
    if "match.operation_name_only" in root.attributes:
        return True
    asked.set_once("attributes", _attribute_texts(root), op)
    asked.set_once("body", _body_hash(root), op)
    asked.set_once("kind", _kind_of(root), op)
    if "indexing_maps" in root.attributes:
        asked.set_once("maps", _affine_maps(root), op)
    types = [_ask_type(asked, position, operand.type) for position, operand in enumerate(root.operands)]
    return all(types) and not producers and len(set(root.operands)) == len(root.operands)


def _read_included(op: ir.Operation, asked: _Asked) -> bool:
    if ir.IntegerAttr(op.attributes["failure_propagation_mode"]).value == _SUPPRESS:
        return True
    block = _target_of(op, asked.sequences).regions[0].blocks[0]
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
    """Convert conditions on sizes of operands to conditions on loops, so that both ways to write them are equal."""
    if not asked.maps or not asked.inputs:
        return
    classes = _classes_of_loops(asked)
    for name in predicate.CLASSES[asked.kind]:
        count = sum(dimension_class == name for dimension_class, _ in classes.values())
        if len(asked.sizes.setdefault(name, (predicate.Condition(),) * count)) != count:
            # Such a matcher matches nothing, so its conditions must not be taken at face value.
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
                asked.sizes[name] = (*old[:index], predicate.both(old[index], condition), *old[index + 1 :])
        if all(loops[dim] is not None for dim in asks) and operand.element in ("", elements.get(position)):
            del asked.operands[position]


def _classes_of_loops(asked: _Asked) -> dict[int, tuple[str, int]]:
    """Return the class of each loop and its position in the class, as IREE's matcher of the kind infers them."""
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
        for name in predicate.CLASSES[asked.kind]
        for index, loop in enumerate(getattr(found, f"{name}{suffix}"))
    }


def _elements_by_position(asked: _Asked) -> dict[int, str]:
    """Return the required element types by operand. IREE's matcher of attention ignores the scale."""
    first_output = len(asked.maps) - len(asked.outputs)
    outputs = {first_output + number: element for number, element in enumerate(asked.outputs)}
    return dict(enumerate(asked.inputs)) | outputs


def _position(op: ir.Operation, asked: _Asked) -> int:
    return int(asked.meanings[op.operands[0]][1])


def _type_of(op: ir.Operation, name: str) -> str:
    return str(ir.TypeAttr(op.attributes[name]).value)


def _operand_type(kind: ir.Type) -> predicate.OperandType:
    if not isinstance(kind, ir.RankedTensorType) or not ir.RankedTensorType(kind).shape:
        return predicate.OperandType(element=str(kind))
    tensor = ir.RankedTensorType(kind)
    encoding = f", {tensor.encoding}" if tensor.encoding is not None else ""
    dynamic = ir.ShapedType.get_dynamic_size()
    return predicate.OperandType(
        element=f"{tensor.element_type}{encoding}",
        sizes=tuple(predicate.Condition() if size == dynamic else predicate.exactly(size) for size in tensor.shape),
    )


def _affine_maps(op: ir.Operation) -> tuple[ir.AffineMap, ...]:
    return tuple(ir.AffineMapAttr(attribute).value for attribute in ir.ArrayAttr(op.attributes["indexing_maps"]))


def _kind_of(op: ir.Operation) -> str:
    """Return the kind that a `RootOp` of this op has, as IREE's matchers see it."""
    if linalg.isa_contraction_op(op):
        return "contraction"
    if linalg.isa_convolution_op(op):
        return "convolution"
    return "attention" if op.name in predicate.ATTENTIONS else "other"


def _target_of(op: ir.Operation, sequences: Mapping[str, ir.Operation]) -> ir.Operation:
    return sequences[ir.FlatSymbolRefAttr(op.attributes["target"]).value]


class _Numbers(dict[Any, int]):
    """Numbers values in the order of their first use: a name that does not depend on the surrounding text."""

    def __missing__(self, value: Any) -> int:
        return self.setdefault(value, len(self))


def _canonical_text(
    op: ir.Operation, numbers: _Numbers, sequences: Mapping[str, ir.Operation], handed_on: Collection[ir.Value] = ()
) -> str:
    """Return a text that is equal for equal ops, without names of sequences, provenance and values in ``handed_on``."""
    attributes = _attribute_texts(op)
    inner = ""
    if op.name == "transform.param.constant" and op.results[0] in handed_on:
        attributes = {}
    elif op.name == "transform.named_sequence":
        attributes = {name: text for name, text in attributes.items() if name not in ("sym_name", PROVENANCE)}
    elif op.name == "transform.include":
        attributes.pop("target")
        inner = _canonical_text(
            _target_of(op, sequences), _Numbers(), sequences
        )  # The matcher may compare its constants.
    operands = [numbers[value] for value in op.operands]
    results = [(numbers[value], str(value.type)) for value in op.results]
    regions = _canonical_regions(op, numbers, sequences, handed_on)
    return f"{op.name}{operands}{results}{sorted(attributes.items())}{inner}{regions}"


def _canonical_regions(
    owner: ir.Operation, numbers: _Numbers, sequences: Mapping[str, ir.Operation], handed_on: Collection[ir.Value] = ()
) -> str:
    text = ""
    for region in owner.regions:
        for block in region.blocks:
            arguments = [(numbers[argument], str(argument.type)) for argument in block.arguments]
            inner = ";".join(
                _canonical_text(child.operation, numbers, sequences, handed_on) for child in block.operations
            )
            text += f"{{{arguments}{inner}}}"
    return text


def _body_hash(op: ir.Operation) -> str:
    return _hash(_canonical_regions(op, _Numbers(), {}))


def _attribute_texts(op: ir.Operation) -> dict[str, str]:
    return {name: str(op.attributes[name]) for name in op.attributes if name not in INCIDENTAL_ATTRIBUTES}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
