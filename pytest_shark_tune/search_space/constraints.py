"""Reading ``iree_codegen.smt.constraints`` ops into search spaces.

The spaces that this package builds are made here too, from the same asserts as plain data (`emit`). IREE's objects stay
in this module, and only plain data leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, smt

from pytest_shark_tune.dispatch.mlir import pipeline_name
from pytest_shark_tune.dispatch.reasons import UnreadableConstraints
from pytest_shark_tune.search_space.domains import domains_of
from pytest_shark_tune.search_space.expression import (
    Apply,
    Constant,
    Expression,
    Lookup,
    Operator,
    Truth,
    Variable,
    substitute,
    variables,
)
from pytest_shark_tune.search_space.space import Constraint, Knob, SearchSpace

__all__ = [
    "VERSION",
    "Assert",
    "UnreadableConstraints",
    "dimensions",
    "knob",
    "knob_name",
    "read_constraints",
    "space_of",
    "spaces_in",
]

VERSION: Final = 1
"""The version of reading emitted constraints. Raise it if the same constraints yield other members or knobs."""

_KNOB_ATTRIBUTES = tuple(
    getattr(iree_codegen, name) for name in ("IntKnobAttr", "OneOfKnobAttr") if hasattr(iree_codegen, name)
)
_KNOB_PREFIX = "knob:"
"""How the string begins that stands for a knob with releases before 3.12, which have no attribute for it."""

Assert: TypeAlias = tuple[Expression, str, tuple[Expression, ...]]
"""A condition, its message, and the values that stand for the ``{}`` in it."""


_OPERATORS: dict[type, Operator] = {
    smt.IntAddOp: "add",
    smt.IntSubOp: "sub",
    smt.IntMulOp: "mul",
    smt.IntDivOp: "div",
    smt.IntModOp: "mod",
    smt.IntAbsOp: "abs",
    smt.EqOp: "eq",
    smt.DistinctOp: "distinct",
    smt.AndOp: "and",
    smt.OrOp: "or",
    smt.XOrOp: "xor",
    smt.NotOp: "not",
    smt.ImpliesOp: "implies",
    smt.IteOp: "ite",
}

_PREDICATES: dict[int, Operator] = {
    int(smt.IntPredicate.lt): "lt",
    int(smt.IntPredicate.le): "le",
    int(smt.IntPredicate.gt): "gt",
    int(smt.IntPredicate.ge): "ge",
}


def spaces_in(text: str) -> tuple[SearchSpace, ...]:
    """Return the space of each constraints op in an MLIR module, in order.

    The compiler writes such a module with
    ``--iree-codegen-emit-pipeline-constraints --compile-to=executable-configurations``.

    Raises:
        UnreadableConstraints: An op uses something that a search space cannot express.
        UnboundedKnob: An op leaves a knob without bounds.
    """
    with ir.Context() as context:
        context.enable_multithreading(False)
        module = ir.Module.parse(text)
        return tuple(read_constraints(op) for op in ir.get_ops_of_type(module, iree_codegen.ConstraintsOp))


def read_constraints(op: Any) -> SearchSpace:
    """Return the search space of one ``iree_codegen.ConstraintsOp``.

    Problem dimensions that an assert fixes are replaced by their sizes. Constants that the op declares and that are no
    knobs become helpers: a member is an assignment to the knobs for which helpers exist.

    Raises:
        UnreadableConstraints: The op uses something that a search space cannot express.
        UnboundedKnob: The op leaves a knob without bounds.
    """
    (block,) = op.regions[0].blocks
    values: dict[Any, Expression] = {}
    dims = dimensions(len(block.arguments))
    values.update(zip(block.arguments, map(Variable, dims), strict=True))
    declared: list[str] = []
    asserts: list[Assert] = []
    for inner in block.operations:
        if isinstance(inner, iree_codegen.AssertOp):
            shown = tuple(values[operand] for operand in inner.printArgs)
            asserts.append((values[inner.condition], inner.msg.value, shown))
            continue
        expression = _expression(inner, values)
        if isinstance(expression, Variable) and expression.name not in declared:
            declared.append(expression.name)
        values[inner.results[0]] = expression
    return space_of(str(op.pipeline), op.knobs, dims, declared, asserts)


def dimensions(count: int) -> list[str]:
    """Return the names of the variables for the sizes of a problem."""
    return [f"problem_dim_{index}" for index in range(count)]


def space_of(
    pipeline: str, template: Any, dims: Sequence[str], names: Sequence[str], asserts: Sequence[Assert]
) -> SearchSpace:
    """Return the search space of some asserts.

    Args:
        pipeline: The text of the pipeline's attribute.
        template: The dictionary of the knobs.
        dims: The variables for the sizes of the problem.
        names: The other variables.
        asserts: The conditions, with their messages and the values that these show.

    Raises:
        UnreadableConstraints: No assert mentions a knob.
        UnboundedKnob: A knob is without bounds.
    """
    knobs = _knob_names(template)
    declared = list(dict.fromkeys(names))
    sizes = _fixed_sizes(dims, [condition for condition, _, _ in asserts])
    declared.extend(dim for dim in dims if dim not in sizes)
    constraints = []
    for condition, message, shown in asserts:
        condition = substitute(condition, sizes)
        if condition != Truth(True):
            shown = tuple(substitute(argument, sizes) for argument in shown)
            constraints.append(Constraint(condition, message, shown))
    missing = [name for name in knobs if name not in declared]
    if missing:
        raise UnreadableConstraints(f"no constraint mentions the knob {missing[0]}, so it has no bounds")
    conditions = [constraint.condition for constraint in constraints]
    used = {name for condition in conditions for name in variables(condition)}
    helpers = [name for name in declared if name not in knobs and name in used]
    domains = domains_of([*knobs, *helpers], conditions)
    return SearchSpace(
        pipeline=pipeline_name(pipeline),
        knobs=tuple(Knob(name, domains[name]) for name in knobs),
        helpers=tuple(Knob(name, domains[name]) for name in helpers),
        constraints=tuple(constraints),
        pipeline_attribute=pipeline,
        knob_dictionary=str(template),
    )


def knob(name: str) -> str:
    """Return the attribute for the value of the knob ``name``."""
    return (
        f'#iree_codegen.smt.int_knob<"{name}">' if hasattr(iree_codegen, "IntKnobAttr") else f'"{_KNOB_PREFIX}{name}"'
    )


def knob_name(attribute: Any) -> str | None:
    """Return the name of the knob that an attribute stands for, or ``None`` if it stands for none."""
    if isinstance(attribute, _KNOB_ATTRIBUTES):
        return str(attribute.name)
    if isinstance(attribute, ir.StringAttr) and attribute.value.startswith(_KNOB_PREFIX):
        return str(attribute.value.removeprefix(_KNOB_PREFIX))
    return None


def _knob_names(attribute: Any) -> tuple[str, ...]:
    """Return the names of the knobs at any depth of a knob dictionary, in the order of their first use."""
    names: dict[str, None] = {}

    def visit(node: Any) -> None:
        if (name := knob_name(node)) is not None:
            names[name] = None
        elif isinstance(node, ir.DictAttr):
            for entry in node:
                visit(entry.attr)
        elif isinstance(node, ir.ArrayAttr):
            for entry in node:
                visit(entry)
        elif (inner := getattr(node, "attributes", None)) is not None:
            visit(inner)

    visit(attribute)
    return tuple(names)


def _expression(op: Any, values: dict[Any, Expression]) -> Expression:
    if isinstance(op, smt.IntConstantOp):
        return Constant(_signed(op.value.value))
    if isinstance(op, smt.BoolConstantOp):
        return Truth(bool(op.value.value))
    if isinstance(op, iree_codegen.KnobOp):
        return Variable(op.name.value)
    if isinstance(op, smt.DeclareFunOp):
        return Variable(op.namePrefix.value)
    if isinstance(op, iree_codegen.LookupOp):
        return Lookup(values[op.index], tuple(op.keys), tuple(op.attributes["values"]))
    operands = tuple(values[operand] for operand in op.operands)
    if isinstance(op, smt.IntCmpOp):
        return Apply(_PREDICATES[int(ir.IntegerAttr(op.attributes["pred"]).value)], operands)
    if (operator := _OPERATORS.get(type(op))) is None:
        raise UnreadableConstraints(f"constraints use {op.operation.name}, which no search space can express")
    return Apply(operator, operands)


def _signed(value: int) -> int:
    """Convert an integer constant of the smt dialect, an unsigned 64-bit attribute in which negative numbers wrap."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _fixed_sizes(dims: Sequence[str], conditions: Sequence[Expression]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for condition in conditions:
        match condition:
            case Apply(operator="eq", operands=(Variable(name=name), Constant(value=value))) if name in dims:
                sizes[name] = value
            case Apply(operator="eq", operands=(Constant(value=value), Variable(name=name))) if name in dims:
                sizes[name] = value
    return sizes
