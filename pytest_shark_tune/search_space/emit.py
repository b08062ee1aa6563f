"""Building search spaces from asserts over knobs, as the compiler emits them in constraints ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune.dispatch.mlir import shared_context
from pytest_shark_tune.dispatch.reasons import KindNotCovered
from pytest_shark_tune.dispatch.text_pipelines import TEXT_PREFIX
from pytest_shark_tune.search_space.attribute_names import CPU_PIPELINES
from pytest_shark_tune.search_space.constraints import Assert, dimensions, knob, space_of
from pytest_shark_tune.search_space.expression import Apply, Constant, Expression, Lookup, Variable
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = ["Body", "attribute_text", "build_space", "knob", "lookup", "one_of_knob"]

_WITHOUT_CONSTRAINTS = not hasattr(iree_codegen, "ConstraintsOp")


def build_space(
    pipeline: str, sizes: Sequence[int], knobs: Mapping[str, object], constrain: Callable[[Body], None]
) -> SearchSpace:
    """Build a search space.

    Args:
        pipeline: The text of the pipeline's attribute.
        sizes: The sizes of the problem's dimensions.
        knobs: The template of the lowering config: numbers, truth values, texts of attributes (`knob`, `one_of_knob`),
            and sequences and mappings of these. Every knob in it must be constrained.
        constrain: Writes the constraints.

    Raises:
        KindNotCovered: Configs of GPUs are made by the compiler, and this release does not.
    """
    if _WITHOUT_CONSTRAINTS and not pipeline.startswith((CPU_PIPELINES, TEXT_PREFIX)):
        raise KindNotCovered("this release of IREE has no constraints ops, so only dispatches on CPUs are tuned")
    body = Body(sizes)
    constrain(body)
    dims = [dim.name for dim in body.dims]
    with shared_context():
        template = ir.Attribute.parse(attribute_text(knobs))
        return space_of(pipeline, template, dims, body.names, body.asserts)


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


def lookup(index: Expression, values: Sequence[int]) -> Expression:
    """Return the one of ``values`` at the position ``index``."""
    return Lookup(index, tuple(range(len(values))), tuple(values))


class Body:
    """Writes the asserts of a space, with their messages."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.dims = tuple(map(Variable, dimensions(len(sizes))))
        """The sizes of the problem."""
        self.names: list[str] = []
        """The knobs, in the order in which they were added."""
        self.asserts: list[Assert] = []
        for index, (size, dim) in enumerate(zip(sizes, self.dims, strict=True)):
            self.require(self.equal(dim, self.number(size)), f"dim_{index} ({{}}) == {size}", dim)

    def number(self, value: int) -> Expression:
        """Return the constant ``value``."""
        return Constant(value)

    def knob(self, name: str, choices: Sequence[int]) -> Expression:
        """Add the knob ``name``, which is one of ``choices``."""
        self.names.append(name)
        value = Variable(name)
        words = ", ".join(map(str, choices))
        self.require(self.one_of(value, choices), f"{name} ({{}}) must be one of {words}", value)
        return value

    def derived_knob(self, name: str, value: Expression, words: str) -> Expression:
        """Add the knob ``name``, which equals ``value``; ``words`` describe the value."""
        self.names.append(name)
        found = Variable(name)
        self.require(self.equal(found, value), f"{name} ({{}}) must be {words} ({{}})", found, value)
        return found

    def product(self, values: Sequence[Expression]) -> Expression:
        """Return the product of ``values``, 1 for none."""
        if len(values) > 1:
            return Apply("mul", tuple(values))
        return values[0] if values else self.number(1)

    def total(self, values: Sequence[Expression]) -> Expression:
        """Return the sum of ``values``, of which there is at least one."""
        return Apply("add", tuple(values)) if len(values) > 1 else values[0]

    def rest(self, a: Expression, b: Expression) -> Expression:
        """Return the remainder of ``a`` divided by ``b``."""
        return Apply("mod", (a, b))

    def tiles(self, size: Expression, tile: Expression) -> Expression:
        """Return the number of tiles that cover ``size``."""
        return self.quotient(Apply("sub", (self.total([size, tile]), self.number(1))), tile)

    def quotient(self, a: Expression, b: Expression) -> Expression:
        """Return ``a`` divided by ``b``, rounded down."""
        return Apply("div", (a, b))

    def equal(self, a: Expression, b: Expression) -> Expression:
        """Return whether ``a`` equals ``b``."""
        return Apply("eq", (a, b))

    def at_most(self, a: Expression, b: Expression) -> Expression:
        """Return whether ``a`` is at most ``b``."""
        return Apply("le", (a, b))

    def divides(self, part: Expression, whole: Expression) -> Expression:
        """Return whether ``part`` divides ``whole``."""
        return self.equal(self.rest(whole, part), self.number(0))

    def every(self, truths: Sequence[Expression]) -> Expression:
        """Return whether all of ``truths`` hold, of which there is at least one."""
        return Apply("and", tuple(truths)) if len(truths) > 1 else truths[0]

    def either(self, truths: Sequence[Expression]) -> Expression:
        """Return whether one of ``truths`` holds, of which there is at least one."""
        return Apply("or", tuple(truths)) if len(truths) > 1 else truths[0]

    def one_of(self, value: Expression, choices: Sequence[int]) -> Expression:
        """Return whether ``value`` is one of ``choices``."""
        return self.either([self.equal(value, self.number(choice)) for choice in choices])

    def choose(self, condition: Expression, then: Expression, otherwise: Expression) -> Expression:
        """Return ``then`` if ``condition`` holds, else ``otherwise``."""
        return Apply("ite", (condition, then, otherwise))

    def require(self, condition: Expression, message: str, *shown: Expression) -> None:
        """Assert ``condition``; the ``{}`` in ``message`` stand for the values in ``shown``."""
        self.asserts.append((condition, message, shown))

    def limit(self, value: Expression, most: int, words: str, reason: str = "") -> None:
        """Assert that ``value``, described by ``words``, is at most ``most``; ``reason`` ends the message."""
        self.require(self.at_most(value, self.number(most)), f"{words} ({{}}) must be at most {most}{reason}", value)

    def least(self, value: Expression, least: int, words: str, reason: str = "") -> None:
        """Assert that ``value``, described by ``words``, is at least ``least``; ``reason`` ends the message."""
        self.require(self.at_most(self.number(least), value), f"{words} ({{}}) must be at least {least}{reason}", value)

    def multiple(self, whole: Expression, part: Expression, whole_words: str, part_words: str) -> None:
        """Assert that ``whole`` is a multiple of ``part``; the words describe both."""
        message = f"{whole_words} ({{}}) must be a multiple of {part_words} ({{}})"
        self.require(self.divides(part, whole), message, whole, part)
