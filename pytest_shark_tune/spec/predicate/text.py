"""Match predicates as text: their conditions, and how an op differs from them."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_shark_tune.dispatch.types import ONLINE_ATTENTION, RootOp
from pytest_shark_tune.spec.predicate.predicate import (
    ANY,
    CLASSES,
    STEPS,
    Condition,
    OperandType,
    Question,
    exactly,
    sizes_cover,
    steps_cover,
    type_covers,
)
from pytest_shark_tune.spec.predicate.reader import pattern_of

__all__ = ["describe", "differences"]

_INPUTS = {
    "contraction": ("lhs", "rhs"),
    "convolution": ("input", "filter"),
    "attention": ("query", "key", "value", "scale"),
}
_OUTPUTS = ("result", "max", "sum")


def differences(question: Question, root: RootOp) -> tuple[str, ...]:
    """Return how ``root`` differs from a predicate; empty if it would match, as far as the predicate was read.

    Examples are ``its lhs has elements f16 instead of f32`` and ``its k is 256 instead of 512``.
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
    """Describe a predicate: ``contraction 512x512x512 f32, f32 -> f32``; bounds are shown as ``m in 1..64``."""
    words = [question.op or "any op"]
    if question.op == ONLINE_ATTENTION:
        words = ["online attention"]
    elif question.kind != "other":
        words = [question.kind]
    if sizes := _described_sizes(question):
        words.append(sizes)
    for name in STEPS:
        steps = getattr(question, name)
        if any(step != 1 for step in steps):
            words.append(f"{name} {_steps_text(steps)}")
    if question.inputs:
        words.append(f"{', '.join(question.inputs)} -> {', '.join(question.outputs)}")
    elif question.operands:
        words.append(", ".join(_type_text(question.operands[position]) for position in sorted(question.operands)))
    return " ".join(words)


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
            yield f"its {name} has the layout {_map_text(given)} instead of {_map_text(asked)}"


def _size_differences(question: Question, root: RootOp) -> Iterable[str]:
    for name in CLASSES.get(question.kind, ()):
        if name not in question.sizes:
            continue
        asked = question.sizes[name]
        given = tuple(root.loops[position] for position in getattr(root, name))
        if not sizes_cover(asked, tuple(map(exactly, given))):
            yield f"its {_spoken(name)} is {_steps_text(given)} instead of {_conditions(asked)}"
    for name in STEPS:
        asked_steps, given = getattr(question, name), getattr(root, name)
        if not steps_cover(asked_steps, given):
            yield f"its {name} are {_steps_text(given)} instead of {_steps_text(asked_steps)}"


def _operand_differences(question: Question, root: RootOp) -> Iterable[str]:
    tensors = (*root.inputs, *root.outputs)
    for position, asked in question.operands.items():
        if position >= len(tensors):
            yield f"it has {len(tensors)} operands, and operand {position} is asked about"
        elif tensors[position].shape:
            tensor = tensors[position]
            given = OperandType(element=tensor.element, sizes=tuple(map(exactly, tensor.shape)))
            if not type_covers(asked, given):
                yield f"its operand {position} is {_type_text(given)} instead of {_type_text(asked)}"


def _pattern_differences(question: Question, root: RootOp) -> Iterable[str]:
    """Return the differences of the body and the attributes, from the copy of the op that a root carries."""
    if not root.pattern or (question.attributes is None and not question.body):
        return
    given, body = pattern_of(root)
    for name in sorted({*given, *(question.attributes or {})} if question.attributes is not None else ()):
        asked = (question.attributes or {}).get(name, "absent")
        if given.get(name, "absent") != asked:
            yield f"its {name} is {given.get(name, 'absent')} instead of {asked}"
    if question.body and question.body != body:
        yield "its body computes something else"


def _described_sizes(question: Question) -> str:
    classes = CLASSES.get(question.kind, ())
    names = [name for name in classes if question.sizes.get(name)]
    everything = [condition for name in names for condition in question.sizes[name]]
    if not everything:
        return ""
    if len(question.sizes) == len(classes) and all(condition.exact is not None for condition in everything):
        return "x".join(str(condition.exact) for condition in everything)
    return ", ".join(f"{_spoken(name)} {_conditions(question.sizes[name])}" for name in names) + ","


def _conditions(conditions: tuple[Condition, ...]) -> str:
    if not conditions:
        return "none"
    if len(conditions) == 1:
        return _condition(conditions[0])
    return "x".join("?" if condition == Condition() else _condition(condition) for condition in conditions)


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
        return " and ".join([element, *(f"dimension {dim} {_condition(bound)}" for dim, bound in kind.bounds.items())])
    sizes = "".join(f"{'?' if size == Condition() else _condition(size)}x" for size in kind.sizes)
    return f"tensor<{sizes}{element}>"


def _map_text(affine_map: str) -> str:
    return affine_map.removeprefix("affine_map<").removesuffix(">")


def _steps_text(numbers: Iterable[int]) -> str:
    return "x".join("any" if number == ANY else str(number) for number in numbers) or "none"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
