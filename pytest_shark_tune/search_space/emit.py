"""Building constraints ops in the form that the compiler emits, for the same reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iree.compiler import ir
from iree.compiler.dialects import arith, iree_codegen, smt

from pytest_shark_tune.dispatch.mlir import shared_context
from pytest_shark_tune.search_space.constraints import read_constraints
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = ["Body", "attribute_text", "build_space", "knob", "lookup", "one_of_knob"]


def build_space(
    pipeline: str, sizes: Sequence[int], knobs: Mapping[str, object], constrain: Callable[[Body], None]
) -> SearchSpace:
    """Build a constraints op and return its space.

    Args:
        pipeline: The text of the pipeline's attribute.
        sizes: The sizes of the problem's dimensions.
        knobs: The template of the lowering config: numbers, truth values, texts of attributes (`knob`, `one_of_knob`),
            and sequences and mappings of these. Every knob in it must be constrained.
        constrain: Writes the constraints.
    """
    with shared_context():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            dims = [arith.ConstantOp(ir.IndexType.get(), size).result for size in sizes]
            op = iree_codegen.ConstraintsOp(
                target=ir.Attribute.parse("#iree_codegen.root_op<set = 0>"),
                pipeline=ir.Attribute.parse(pipeline),
                knobs=ir.Attribute.parse(attribute_text(knobs)),
                problem_dims=dims,
            )
        block = op.regions[0].blocks.append(*[smt.IntType.get()] * len(dims))
        with ir.InsertionPoint(block):
            constrain(Body(sizes, block.arguments))
        module.operation.verify()
        (space,) = [read_constraints(found) for found in ir.get_ops_of_type(module, iree_codegen.ConstraintsOp)]
        return space


def knob(name: str) -> str:
    """Return the attribute for the value of the knob ``name``."""
    return f'#iree_codegen.smt.int_knob<"{name}">'


def one_of_knob(name: str, choices: Sequence[object]) -> str:
    """Return the attribute for one of ``choices``, with the knob ``name`` as its position."""
    return f'#iree_codegen.smt.one_of_knob<"{name}", {attribute_text(choices)}>'


def attribute_text(value: object) -> str:
    """Return the attribute for numbers, truth values, texts of attributes, and sequences and mappings of these."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {attribute_text(part)}' for name, part in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(attribute_text, value))}]"
    return str(value)


def lookup(index: Any, values: Sequence[int]) -> Any:
    """Add an op to the body of a constraints op that gives the one of ``values`` at the position ``index``."""
    return iree_codegen.LookupOp(index, list(range(len(values))), list(values), results=[smt.IntType.get()]).result


class Body:
    """Writes the body of a constraints op: smt ops for integers and truth values, and asserts with their messages."""

    def __init__(self, sizes: Sequence[int], dims: Sequence[Any]) -> None:
        self._int = smt.IntType.get()
        self._constants: dict[int, Any] = {}
        self.dims = tuple(dims)
        for index, (size, dim) in enumerate(zip(sizes, dims, strict=True)):
            self.require(self.equal(dim, self.number(size)), f"dim_{index} ({{}}) == {size}", dim)

    def number(self, value: int) -> Any:
        """Return the constant ``value``."""
        if value not in self._constants:
            attribute = ir.IntegerAttr.get(ir.IntegerType.get_unsigned(64), value)
            self._constants[value] = smt.IntConstantOp(attribute).result
        return self._constants[value]

    def knob(self, name: str, choices: Sequence[int]) -> Any:
        """Add the knob ``name``, which is one of ``choices``."""
        value = iree_codegen.KnobOp(name, results=[self._int]).result
        words = ", ".join(map(str, choices))
        self.require(self.one_of(value, choices), f"{name} ({{}}) must be one of {words}", value)
        return value

    def derived_knob(self, name: str, value: Any, words: str) -> Any:
        """Add the knob ``name``, which equals ``value``; ``words`` describe the value."""
        found = iree_codegen.KnobOp(name, results=[self._int]).result
        self.require(self.equal(found, value), f"{name} ({{}}) must be {words} ({{}})", found, value)
        return found

    def product(self, values: Sequence[Any]) -> Any:
        """Return the product of ``values``, 1 for none."""
        if len(values) > 1:
            return smt.IntMulOp(list(values)).result
        return values[0] if values else self.number(1)

    def total(self, values: Sequence[Any]) -> Any:
        """Return the sum of ``values``, of which there is at least one."""
        return smt.IntAddOp(list(values)).result if len(values) > 1 else values[0]

    def rest(self, a: Any, b: Any) -> Any:
        """Return the remainder of ``a`` divided by ``b``."""
        return smt.IntModOp(a, b).result

    def tiles(self, size: Any, tile: Any) -> Any:
        """Return the number of tiles that cover ``size``."""
        return self.quotient(smt.IntSubOp(self.total([size, tile]), self.number(1)).result, tile)

    def quotient(self, a: Any, b: Any) -> Any:
        """Return ``a`` divided by ``b``, rounded down."""
        return smt.IntDivOp(a, b).result

    def equal(self, a: Any, b: Any) -> Any:
        """Return whether ``a`` equals ``b``."""
        return smt.EqOp([a, b]).result

    def at_most(self, a: Any, b: Any) -> Any:
        """Return whether ``a`` is at most ``b``."""
        return smt.IntCmpOp(smt.IntPredicate.le, a, b).result

    def divides(self, part: Any, whole: Any) -> Any:
        """Return whether ``part`` divides ``whole``."""
        return self.equal(self.rest(whole, part), self.number(0))

    def every(self, truths: Sequence[Any]) -> Any:
        """Return whether all of ``truths`` hold, of which there is at least one."""
        return smt.AndOp(list(truths)).result if len(truths) > 1 else truths[0]

    def either(self, truths: Sequence[Any]) -> Any:
        """Return whether one of ``truths`` holds, of which there is at least one."""
        return smt.OrOp(list(truths)).result if len(truths) > 1 else truths[0]

    def one_of(self, value: Any, choices: Sequence[int]) -> Any:
        """Return whether ``value`` is one of ``choices``."""
        return self.either([self.equal(value, self.number(choice)) for choice in choices])

    def choose(self, condition: Any, then: Any, otherwise: Any) -> Any:
        """Return ``then`` if ``condition`` holds, else ``otherwise``."""
        return smt.IteOp(condition, then, otherwise).result

    def require(self, condition: Any, message: str, *shown: Any) -> None:
        """Assert ``condition``; the ``{}`` in ``message`` stand for the values in ``shown``."""
        iree_codegen.AssertOp(condition, message, list(shown))

    def limit(self, value: Any, most: int, words: str, reason: str = "") -> None:
        """Assert that ``value``, described by ``words``, is at most ``most``; ``reason`` ends the message."""
        self.require(self.at_most(value, self.number(most)), f"{words} ({{}}) must be at most {most}{reason}", value)

    def least(self, value: Any, least: int, words: str, reason: str = "") -> None:
        """Assert that ``value``, described by ``words``, is at least ``least``; ``reason`` ends the message."""
        self.require(self.at_most(self.number(least), value), f"{words} ({{}}) must be at least {least}{reason}", value)

    def multiple(self, whole: Any, part: Any, whole_words: str, part_words: str) -> None:
        """Assert that ``whole`` is a multiple of ``part``; the words describe both."""
        message = f"{whole_words} ({{}}) must be a multiple of {part_words} ({{}})"
        self.require(self.divides(part, whole), message, whole, part)
