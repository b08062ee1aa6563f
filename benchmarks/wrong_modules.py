"""Modules that compute something else than they should, or the same in another order, made by editing a right one.

Every edit goes through the compiler's bindings and works on any module that holds executables: a benchmark module, or
a whole model at phase ``executable-sources``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from iree.compiler import ir, passmanager
from iree.compiler.dialects import arith, iree_codegen, linalg, tensor

from pytest_shark_tune.dispatch.extraction import drop_configs
from pytest_shark_tune.dispatch.mlir import ops_inside, ops_named, string_of

__all__ = ["RIGHT", "WRONG", "NotApplicable", "edited", "edited_with_its_config", "sums_in"]

Edit: TypeAlias = Callable[["Sum"], None]

_GENERALIZE = (
    "builtin.module(hal.executable(hal.executable.variant(builtin.module(func.func(linalg-generalize-named-ops)))))"
)


class NotApplicable(Exception):
    """The edit makes no sense in this module."""


class Sum:
    """The sum of a dispatch: a ``linalg.generic`` with loops that are summed over, or an attention."""

    def __init__(self, op: ir.Operation) -> None:
        self.op = op
        self.is_attention = op.name in _ATTENTIONS
        self.result: ir.Value = op.results[0]
        self.shape = list(ir.ShapedType(self.result.type).shape)
        # An attention sums its values, and takes its keys in the same order.
        self.inputs = [2, 1] if self.is_attention else list(range(len(op.operands) - 1))

    @property
    def element(self) -> ir.Type:
        """The type that the sum is kept in."""
        return ir.ShapedType(self.result.type).element_type

    def summed_dimension(self, number: int) -> tuple[int, int]:
        """The dimension of an input that the last summed loop alone goes through, and its size."""
        if self.is_attention:
            shape = list(ir.ShapedType(self.op.operands[number].type).shape)
            return len(shape) - 2, shape[-2]
        for loop in self._summed_loops():
            found = self._dimension(number, loop)
            if isinstance(found, tuple):
                return found
        raise NotApplicable("no loop of the sum goes through this input alone")

    def one_summed_loop(self) -> tuple[dict[int, int], int]:
        """The dimension that a summed loop alone goes through, for each input that has the loop, and its size."""
        if self.is_attention:
            places = {number: self.summed_dimension(number) for number in self.inputs}
        else:
            places = next(filter(None, (self._along(loop) for loop in self._summed_loops())), {})
        sizes = {size for _, size in places.values()}
        if len(sizes) != 1:
            raise NotApplicable("no loop of the sum goes through dimensions of its inputs alone")
        return {number: dimension for number, (dimension, _) in places.items()}, sizes.pop()

    def _along(self, loop: int) -> dict[int, tuple[int, int]]:
        """The dimensions of a loop, and their sizes, by input; none if an input has the loop in windows."""
        places = {}
        for number in self.inputs:
            found = self._dimension(number, loop)
            if found == "window":
                return {}
            if isinstance(found, tuple):
                places[number] = found
        return places

    def _summed_loops(self) -> list[int]:
        """The loops that are summed over, the last one first."""
        maps = self._maps()
        kept = {expression.position for expression in maps[-1].results if isinstance(expression, ir.AffineDimExpr)}
        return [position for position in reversed(range(maps[0].n_dims)) if position not in kept]

    def _dimension(self, number: int, loop: int) -> tuple[int, int] | str:
        """The dimension of an input that a loop alone goes through, and its size; ``window`` or empty if none."""
        shape = list(ir.ShapedType(self.op.operands[number].type).shape)
        affine = self._maps()[number]
        for dimension, expression in enumerate(affine.results):
            alone = isinstance(expression, ir.AffineDimExpr) and expression.position == loop
            if alone and shape[dimension] > 1:
                return dimension, shape[dimension]
        return "window" if any(_uses(expression, loop) for expression in affine.results) else ""

    def _maps(self) -> list[ir.AffineMap]:
        return [ir.AffineMapAttr(attribute).value for attribute in linalg.get_indexing_maps(self.op)]

    @property
    def body(self) -> ir.Block:
        """What is done with each product."""
        if self.is_attention:
            raise NotApplicable("it is for plain sums")
        return self.op.regions[0].blocks[0]

    def replace_input(self, number: int, make: Callable[[ir.Value], ir.Value]) -> None:
        """Put what ``make`` makes of an input in its place."""
        with ir.InsertionPoint(self.op):
            self.op.operands[number] = make(self.op.operands[number])

    def replace_result(self, make: Callable[[ir.Value], ir.Value]) -> None:
        """Put what ``make`` makes of the result in its place."""
        uses = [(use.owner.operation, use.operand_number) for use in self.result.uses]
        with ir.InsertionPoint.after(self.op):
            made = make(self.result)
        for user, number in uses:
            user.operands[number] = made


def edited_with_its_config(text: str, edit: Edit) -> str:
    """A configured benchmark module with ``edit`` in its root op, and its config still applied."""
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        module = ir.Module.parse(text)
        (root,) = iree_codegen.get_tuner_root_ops(module)
        edit(Sum(root))
        return str(module)


def edited(text: str, edit: Edit, executable: int = 0) -> str:
    """The module of ``text`` with ``edit`` in the sum of its executable of that number.

    Raises:
        NotApplicable: there is no such sum, or the edit makes no sense for it.
    """
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        module = ir.Module.parse(text)
        drop_configs(module)
        passmanager.PassManager.parse(_GENERALIZE).run(module.operation)
        found = _sums(module)
        if executable >= len(found):
            raise NotApplicable("there is no such sum")
        edit(Sum(found[executable]))
        for name in ("root_op", "lowering_config"):
            for op in ops_inside(module.operation):
                if name in op.attributes:
                    del op.attributes[name]
        if not module.operation.verify():
            raise NotApplicable("what came out is not valid")
        return str(module)


_ATTENTIONS = ("iree_linalg_ext.attention", "iree_linalg_ext.online_attention")


def _sums(module: ir.Module) -> list[ir.Operation]:
    ops = [op for op in ops_inside(module.operation) if op.name == "linalg.generic" or op.name in _ATTENTIONS]
    return [op for op in ops if op.name in _ATTENTIONS or _adds(op)]


def _adds(op: ir.Operation) -> bool:
    sums = any(inner.name in ("arith.addf", "arith.addi") for inner in ops_inside(op))
    return sums and any("reduction" in str(kind) for kind in op.attributes["iterator_types"])


def _uses(expression: ir.AffineExpr, loop: int) -> bool:
    """Whether a loop is part of an index."""
    if isinstance(expression, ir.AffineDimExpr):
        return bool(expression.position == loop)
    if isinstance(expression, ir.AffineBinaryExpr):
        return _uses(expression.lhs, loop) or _uses(expression.rhs, loop)
    return False


def _index(value: int) -> ir.Value:
    return arith.constant(ir.IndexType.get(), value)


def _elementwise(value: ir.Value, body: Callable[[ir.Value, list[ir.Value]], ir.Value]) -> ir.Value:
    """A tensor like ``value`` whose elements ``body`` makes of the element there and its indices."""
    kind = ir.ShapedType(value.type)
    empty = tensor.empty(kind.shape, kind.element_type)
    identity = ir.AffineMap.get_identity(kind.rank)
    generic = linalg.GenericOp(
        [value.type],
        [value],
        [empty],
        ir.ArrayAttr.get([ir.AffineMapAttr.get(identity)] * 2),
        ir.ArrayAttr.get([ir.Attribute.parse("#linalg.iterator_type<parallel>")] * kind.rank),
    )
    block = generic.regions[0].blocks.append(kind.element_type, kind.element_type)
    with ir.InsertionPoint(block):
        indices = [linalg.IndexOp(dimension).result for dimension in range(kind.rank)]
        linalg.YieldOp([body(block.arguments[0], indices)])
    return generic.results[0]


def _gathered(value: ir.Value, place: Callable[[list[ir.Value]], list[ir.Value]]) -> ir.Value:
    """A tensor like ``value`` with the element from another place in each place."""
    return _elementwise(value, lambda _, indices: tensor.extract(value, place(indices)))


def _zero(kind: ir.Type) -> ir.Value:
    return arith.constant(kind, 0.0 if isinstance(kind, ir.FloatType) else 0)


def _masked(value: ir.Value, dimension: int, keep: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """A tensor like ``value`` with zeros where ``keep`` says no of the index in ``dimension``."""
    kind = ir.ShapedType(value.type).element_type
    return _elementwise(value, lambda old, at: arith.select(keep(at[dimension]), old, _zero(kind)))


def _compare(predicate: Any, left: ir.Value, right: ir.Value) -> ir.Value:
    return arith.cmpi(predicate, left, right)


def _without(part: Callable[[int], tuple[int, int]]) -> Edit:
    """Leave the products from one place to another out of every sum."""

    def edit(found: Sum) -> None:
        number = found.inputs[0]
        dimension, size = found.summed_dimension(number)
        first, last = part(size)

        def keep(at: ir.Value) -> ir.Value:
            before = _compare(arith.CmpIPredicate.slt, at, _index(first))
            after = _compare(arith.CmpIPredicate.sge, at, _index(last))
            return arith.ori(before, after)

        found.replace_input(number, lambda value: _masked(value, dimension, keep))

    return edit


def _rounded_sum(name: str) -> Edit:
    """Round every sum to a coarser type after each product."""

    def edit(found: Sum) -> None:
        wide, narrow = found.element, ir.Type.parse(name)
        if type(wide) is type(narrow) or isinstance(wide, ir.FloatType) != isinstance(narrow, ir.FloatType):
            raise NotApplicable("the sum is kept in such a type")
        if wide.width <= narrow.width:
            raise NotApplicable("the sum is kept in no wider type")
        block = found.body
        done = block.operations[len(block.operations) - 1]
        with ir.InsertionPoint(done):
            is_float = isinstance(wide, ir.FloatType)
            cut = (arith.truncf if is_float else arith.trunci)(narrow, done.operands[0])
            done.operands[0] = (arith.extf if is_float else arith.extsi)(wide, cut)

    return edit


def _narrow_integers(found: Sum) -> None:
    narrow = ir.IntegerType.get_signless(16)
    wide = found.element
    if not isinstance(wide, ir.IntegerType) or wide.width <= narrow.width:
        raise NotApplicable("the sum is kept in no wider integer")
    block = found.body
    done = block.operations[len(block.operations) - 1]
    with ir.InsertionPoint(done):
        done.operands[0] = arith.extsi(wide, arith.trunci(narrow, done.operands[0]))


def _saturated(found: Sum) -> None:
    """Clip results at one half."""
    kind = found.element
    if isinstance(kind, ir.IntegerType):
        raise NotApplicable("it is for floats")

    def clipped(old: ir.Value, _: list[ir.Value]) -> ir.Value:
        return arith.minimumf(old, arith.constant(kind, 0.5))

    found.replace_result(lambda value: _elementwise(value, clipped))


def _longest(shape: Sequence[int]) -> int:
    """The dimension of the largest size."""
    dimension = max(range(len(shape)), key=lambda number: shape[number], default=None)
    if dimension is None or shape[dimension] < 2:
        raise NotApplicable("there is one result alone")
    return dimension


def _border(found: Sum) -> None:
    """The last place of the last dimension gets the result of the place before."""
    dimension = _longest(found.shape)
    last = found.shape[dimension] - 1

    def place(at: list[ir.Value]) -> list[ir.Value]:
        inner = arith.minsi(at[dimension], _index(last - 1))
        return [*at[:dimension], inner, *at[dimension + 1 :]]

    found.replace_result(lambda value: _gathered(value, place))


def _one_off(found: Sum) -> None:
    """Products at the first place of the summed loop are taken from the second."""
    number = found.inputs[0]
    dimension, _ = found.summed_dimension(number)

    def place(at: list[ir.Value]) -> list[ir.Value]:
        return [*at[:dimension], arith.maxsi(at[dimension], _index(1)), *at[dimension + 1 :]]

    found.replace_input(number, lambda value: _gathered(value, place))


def _swapped(found: Sum) -> None:
    """The first two places of the first dimension change their results."""
    _longest(found.shape)
    dimension = next(number for number, size in enumerate(found.shape) if size > 1)

    def place(at: list[ir.Value]) -> list[ir.Value]:
        is_first = _compare(arith.CmpIPredicate.slt, at[dimension], _index(2))
        other = arith.select(is_first, arith.subi(_index(1), at[dimension]), at[dimension])
        return [*at[:dimension], other, *at[dimension + 1 :]]

    found.replace_result(lambda value: _gathered(value, place))


def _turned(one: int, other: int, value: ir.Value) -> ir.Value:
    """A tensor like ``value`` with two dimensions exchanged."""

    def place(at: list[ir.Value]) -> list[ir.Value]:
        turned = list(at)
        turned[one], turned[other] = at[other], at[one]
        return turned

    return _gathered(value, place)


def _transposed(found: Sum) -> None:
    """An input with two dimensions of equal size is read the other way around."""
    for number in found.inputs:
        shape = ir.ShapedType(found.op.operands[number].type).shape
        pairs = [(one, other) for one in range(len(shape)) for other in range(one) if shape[one] == shape[other] > 1]
        if pairs:
            found.replace_input(number, partial(_turned, *pairs[0]))
            return
    raise NotApplicable("no input is square")


def _never(found: Sum) -> None:
    """The sum is not computed: its results are 0."""
    kind = found.element
    found.replace_result(lambda value: _elementwise(value, lambda old, at: _zero(kind)))


def _zero_quarter(found: Sum) -> None:
    """A quarter of the results is 0, as where a tile's loop ends too early."""
    dimension = _longest(found.shape)
    edge = found.shape[dimension] - max(1, found.shape[dimension] // 4)
    found.replace_result(
        lambda value: _masked(value, dimension, lambda at: _compare(arith.CmpIPredicate.slt, at, _index(edge)))
    )


def _twice(found: Sum) -> None:
    """The last product counts twice, as where tiles overlap."""
    number = found.inputs[0]
    dimension, size = found.summed_dimension(number)

    def body(old: ir.Value, at: list[ir.Value]) -> ir.Value:
        is_last = _compare(arith.CmpIPredicate.eq, at[dimension], _index(size - 1))
        add = arith.addf if isinstance(old.type, ir.FloatType) else arith.addi
        return arith.select(is_last, add(old, old), old)

    found.replace_input(number, lambda value: _elementwise(value, body))


def _partly_written(found: Sum) -> None:
    """The last row of the output is never stored."""
    stores = ops_named(found.op.operation.parent.operation, "iree_codegen.store_to_buffer")
    if len(stores) != 1:
        raise NotApplicable("it does not store one result in a buffer")
    (store,) = stores
    shape = list(ir.ShapedType(store.operands[0].type).shape)
    dimension = _longest(shape)
    with ir.InsertionPoint(store):
        load = ir.Operation.create(
            "iree_codegen.load_from_buffer", results=[store.operands[0].type], operands=[store.operands[1]]
        )

        def body(new: ir.Value, at: list[ir.Value]) -> ir.Value:
            is_last = _compare(arith.CmpIPredicate.eq, at[dimension], _index(shape[dimension] - 1))
            return arith.select(is_last, tensor.extract(load.results[0], at), new)

        store.operands[0] = _elementwise(store.operands[0], body)


def _stale(found: Sum) -> None:
    """The dispatch is not run, so that an output holds what was there before."""
    top = found.op.operation
    while top.parent is not None:
        top = top.parent.operation
    dispatches = [op for op in ops_inside(top) if op.name == "hal.command_buffer.dispatch"]
    if not dispatches:
        raise NotApplicable("it is no benchmark module")
    for op in dispatches:
        op.erase()


def _without_tail(found: Sum) -> None:
    """What follows on the sum is left out, but for the rounding to the type that is stored."""
    users = [use.owner.operation for use in found.result.uses]
    if len(users) != 1 or users[0].name != "linalg.generic":
        raise NotApplicable("nothing follows on the sum")
    block = users[0].regions[0].blocks[0]
    if [inner.operation.name for inner in block.operations] == ["arith.truncf", "linalg.yield"]:
        raise NotApplicable("nothing follows on the sum")
    done = block.operations[len(block.operations) - 1]
    (number,) = [use.operand_number for use in found.result.uses]
    value, wanted = block.arguments[number], done.operands[0].type
    with ir.InsertionPoint(done):
        if value.type != wanted:
            if not isinstance(value.type, ir.FloatType) or not isinstance(wanted, ir.FloatType):
                raise NotApplicable("its result is of another kind")
            value = arith.truncf(wanted, value) if value.type.width > wanted.width else arith.extf(wanted, value)
    done.operands[0] = value


def _overflowing(found: Sum) -> None:
    """Results run through f16 with a factor at which some do not fit in."""
    kind = found.element
    if not isinstance(kind, ir.F32Type):
        raise NotApplicable("it is for sums in f32")

    def body(old: ir.Value, _: list[ir.Value]) -> ir.Value:
        factor, back = (arith.constant(kind, value) for value in (2.0**15, 2.0**-15))
        return arith.mulf(arith.extf(kind, arith.truncf(ir.F16Type.get(), arith.mulf(old, factor))), back)

    found.replace_result(lambda value: _elementwise(value, body))


def _in_order(factor: int, offset: int) -> Edit:
    """Add up the same products in another order: that of ``(factor * k + offset) mod K``."""

    def edit(found: Sum) -> None:
        places, size = found.one_summed_loop()
        step = factor
        while _gcd(step, size) > 1:
            step += 1
        for number, dimension in places.items():

            def place(at: list[ir.Value], dimension: int = dimension) -> list[ir.Value]:
                moved = arith.addi(arith.muli(at[dimension], _index(step)), _index(offset))
                return [*at[:dimension], arith.remui(moved, _index(size)), *at[dimension + 1 :]]

            found.replace_input(number, lambda value: _gathered(value, place))

    return edit


def _gcd(one: int, other: int) -> int:
    while other:
        one, other = other, one % other
    return one


WRONG: dict[str, Edit] = {
    "one product is missing": _without(lambda size: (size - 1, size)),
    "a product in the middle is missing": _without(lambda size: (size // 2, size // 2 + 1)),
    "the last block is missing": _without(lambda size: (size - max(1, size // 8), size)),
    "the last product counts twice": _twice,
    "the first product is taken from its neighbour": _one_off,
    "the sum is kept in f16": _rounded_sum("f16"),
    "the sum is kept in bf16": _rounded_sum("bf16"),
    "the sum is kept in i16": _narrow_integers,
    "results overflow f16": _overflowing,
    "results are clipped": _saturated,
    "the border is off by one": _border,
    "the first two rows are swapped": _swapped,
    "an input is transposed": _transposed,
    "a quarter of the results is 0": _zero_quarter,
    "the output is partly written": _partly_written,
    "the output is stale": _stale,
    "the epilogue is dropped": _without_tail,
    "the sum is never computed": _never,
}
"""Edits that make a wrong module, by what is wrong with it."""

RIGHT: dict[str, Edit] = {
    "products in another order (1)": _in_order(7, 3),
    "products in another order (2)": _in_order(11, 5),
    "products in another order (3)": _in_order(13, 1),
}
"""Edits that make a right module in another summation order."""


def sums_in(text: str) -> list[str]:
    """The executables of the sums that can be edited in a module, one for each, in order."""
    with ir.Context() as context:
        context.enable_multithreading(False)
        module = ir.Module.parse(text)
        passmanager.PassManager.parse(_GENERALIZE).run(module.operation)
        return [_executable(op) for op in _sums(module)]


def _executable(op: ir.Operation) -> str:
    while op.name != "hal.executable":
        op = op.parent.operation
    return string_of(op, "sym_name")
