"""Match predicates as text: their conditions, and how an op differs from them."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_shark_tune.dispatch.types import ONLINE_ATTENTION, OPEN, RootOp
from pytest_shark_tune.spec.predicate.predicate import (
    ANY,
    CLASSES,
    STEPS,
    Condition,
    MatchPredicate,
    OperandType,
    exactly,
    sizes_subsume,
    steps_subsume,
    type_subsumes,
)
from pytest_shark_tune.spec.predicate.reader import pattern_of

__all__ = ["describe", "differences"]

_INPUTS = {
    "contraction": ("lhs", "rhs"),
    "convolution": ("input", "filter"),
    "attention": ("query", "key", "value", "scale"),
}
_OUTPUTS = ("result", "max", "sum")


def differences(predicate: MatchPredicate, root: RootOp) -> tuple[str, ...]:
    """Return how ``root`` differs from a predicate; empty if it would match, as far as the predicate was read.

    Examples are ``its lhs has elements f16 instead of f32`` and ``its k is 256 instead of 512``.
    """
    kind = "convolution" if root.kind == "pooling" and predicate.kind == "convolution" else root.kind
    if predicate.kind not in ("other", kind):
        return (f"it is of kind {root.kind} instead of {predicate.kind}",)
    if predicate.op and predicate.op != root.op:
        return (f"it is {root.op} instead of {predicate.op}",)
    return (
        *_element_differences(predicate, root),
        *_map_differences(predicate, root),
        *_size_differences(predicate, root),
        *_operand_differences(predicate, root),
        *_pattern_differences(predicate, root),
    )


def describe(predicate: MatchPredicate) -> str:
    """Describe a predicate: ``contraction 512x512x512 f32, f32 -> f32``; bounds are shown as ``m in 1..64``."""
    words = [predicate.op or "any op"]
    if predicate.op == ONLINE_ATTENTION:
        words = ["online attention"]
    elif predicate.kind != "other":
        words = [predicate.kind]
    if sizes := _described_sizes(predicate):
        words.append(sizes)
    for name in STEPS:
        steps = getattr(predicate, name)
        if any(step != 1 for step in steps):
            words.append(f"{name} {_steps_text(steps)}")
    if predicate.inputs:
        words.append(f"{', '.join(predicate.inputs)} -> {', '.join(predicate.outputs)}")
    elif predicate.operands:
        words.append(", ".join(_type_text(predicate.operands[position]) for position in sorted(predicate.operands)))
    return " ".join(words)


def _element_differences(predicate: MatchPredicate, root: RootOp) -> Iterable[str]:
    inputs = zip(_INPUTS.get(predicate.kind, ()), predicate.inputs, root.inputs, strict=False)
    for name, asked, tensor in (*inputs, *zip(_OUTPUTS, predicate.outputs, root.outputs, strict=False)):
        if tensor.element != asked:
            yield f"its {name} has elements {tensor.element} instead of {asked}"


def _map_differences(predicate: MatchPredicate, root: RootOp) -> Iterable[str]:
    if not predicate.maps or predicate.maps == root.maps or predicate.attributes is not None:
        return
    if len(predicate.maps) != len(root.maps):
        yield f"it has {len(root.maps)} indexing maps instead of {len(predicate.maps)}"
        return
    outputs = len(root.maps) - len(root.outputs)
    names = [*_INPUTS[predicate.kind][:outputs], *_OUTPUTS]
    for name, asked, given in zip(names, predicate.maps, root.maps, strict=False):
        if asked != given:
            yield f"its {name} has the layout {_map_text(given)} instead of {_map_text(asked)}"


def _size_differences(predicate: MatchPredicate, root: RootOp) -> Iterable[str]:
    for name in CLASSES.get(predicate.kind, ()):
        if name not in predicate.sizes:
            continue
        asked = predicate.sizes[name]
        given = tuple(root.matched_loops[position] for position in getattr(root, name))
        if not sizes_subsume(asked, tuple(map(exactly, given))):
            yield f"its {_spoken(name)} is {_steps_text(given)} instead of {_conditions(asked)}"
    for name in STEPS:
        asked_steps, given = getattr(predicate, name), getattr(root, name)
        if not steps_subsume(asked_steps, given):
            yield f"its {name} are {_steps_text(given)} instead of {_steps_text(asked_steps)}"


def _operand_differences(predicate: MatchPredicate, root: RootOp) -> Iterable[str]:
    tensors = (*root.inputs, *root.outputs)
    for position, asked in predicate.operands.items():
        if position >= len(tensors):
            yield f"it has {len(tensors)} operands, and operand {position} is asked about"
        elif tensors[position].shape:
            tensor = tensors[position]
            given = OperandType(element=tensor.element, sizes=tuple(map(exactly, tensor.shape)))
            if not type_subsumes(asked, given):
                yield f"its operand {position} is {_type_text(given)} instead of {_type_text(asked)}"


def _pattern_differences(predicate: MatchPredicate, root: RootOp) -> Iterable[str]:
    """Return the differences of the body and the attributes, from the copy of the op that a root carries."""
    if not root.pattern or (predicate.attributes is None and not predicate.body):
        return
    given, body = pattern_of(root)
    for name in sorted({*given, *(predicate.attributes or {})} if predicate.attributes is not None else ()):
        asked = (predicate.attributes or {}).get(name, "absent")
        if given.get(name, "absent") != asked:
            yield f"its {name} is {given.get(name, 'absent')} instead of {asked}"
    if predicate.body and predicate.body != body:
        yield "its body computes something else"


def _described_sizes(predicate: MatchPredicate) -> str:
    classes = CLASSES.get(predicate.kind, ())
    names = [name for name in classes if predicate.sizes.get(name)]
    everything = [condition for name in names for condition in predicate.sizes[name]]
    if not everything:
        return ""
    if len(predicate.sizes) == len(classes) and all(condition.exact is not None for condition in everything):
        return "x".join(_condition(condition) for condition in everything)
    return ", ".join(f"{_spoken(name)} {_conditions(predicate.sizes[name])}" for name in names) + ","


def _conditions(conditions: tuple[Condition, ...]) -> str:
    if not conditions:
        return "none"
    if len(conditions) == 1:
        return _condition(conditions[0])
    return "x".join("?" if condition == Condition() else _condition(condition) for condition in conditions)


def _condition(condition: Condition) -> str:
    if condition.exact is not None:
        return _size_text(condition.exact)
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
    return "x".join("any" if number == ANY else _size_text(number) for number in numbers) or "none"


def _size_text(size: int) -> str:
    return "D" if size == OPEN else str(size)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
