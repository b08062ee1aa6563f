"""Commands of iree-turbine's BOO driver: an op of PyTorch's, with shapes, types and strides of its arguments."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.builders import Addend, product_plus
from pytest_shark_tune.ops.sdpa import Sdpa, sdpa

__all__ = ["PREFIX", "aten_op"]

PREFIX = "aten::"
"""The beginning of the name of such an op."""

_ELEMENTS = {"float": "f32", "c10::Float": "f32", "c10::Half": "f16", "c10::BFloat16": "bf16"}


class _Argument(msgspec.Struct, frozen=True):
    """An argument of the op: a tensor, or a value that stands in the command."""

    shape: tuple[int, ...]
    kind: str
    strides: tuple[int, ...]
    value: Any
    """The value; `None` for a tensor, and for an absent one."""
    is_tensor: bool

    @property
    def element(self) -> str:
        """The element type of a tensor."""
        if self.kind not in _ELEMENTS:
            raise InputError(f"{self.kind}: a tensor is of one of the types {', '.join(_ELEMENTS)}")
        return _ELEMENTS[self.kind]


def aten_op(words: Sequence[str]) -> ops.OpSource:
    """Return the op of a command: its name, and the lists of its arguments' shapes, types, strides and values.

    Strides tell transposed operands of a product from others. A tensor with gaps is taken as one without.

    Raises:
        InputError: The op is unknown, or its arguments cannot be expressed.
    """
    name, *lists = words
    if name not in _OPS:
        raise InputError(f"{name!r}: an op of PyTorch's is one of {', '.join(_OPS)}")
    return _OPS[name](_arguments(lists))


def _arguments(lists: Sequence[str]) -> list[_Argument]:
    if len(lists) != 4:
        raise InputError(f"it takes four lists, of shapes, types, strides and values, and has {len(lists)}")
    try:
        shapes, kinds, strides, values = (ast.literal_eval(text) for text in lists)
        arguments = [
            _Argument(
                tuple(shape), kind, tuple(stride), ast.literal_eval(value) if value else None, is_tensor=not value
            )
            for shape, kind, stride, value in zip(shapes, kinds, strides, values, strict=True)
        ]
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"its lists of shapes, types, strides and values are not such lists: {error}") from error
    for argument in arguments:
        if not isinstance(argument.value, int | float | None):
            raise InputError(f"{argument.value!r} is no number")
        if len(argument.shape) != len(argument.strides) or not all(
            isinstance(number, int) for number in (*argument.shape, *argument.strides)
        ):
            raise InputError(f"a shape {list(argument.shape)} with the strides {list(argument.strides)}")
    return arguments


def _tensors(arguments: Sequence[_Argument], *ranks: int) -> list[_Argument]:
    """Return the first arguments, which are tensors of these ranks and of one type."""
    tensors = list(arguments[: len(ranks)])
    if len(tensors) < len(ranks) or not all(tensor.is_tensor for tensor in tensors):
        raise InputError(f"it takes {len(ranks)} tensors")
    for tensor, rank in zip(tensors, ranks, strict=True):
        if len(tensor.shape) != rank:
            raise InputError(f"a tensor of shape {list(tensor.shape)}, where it takes one of {rank} dimensions")
    if len({tensor.element for tensor in tensors}) > 1:
        raise InputError(
            f"tensors of the types {', '.join(tensor.kind for tensor in tensors)}, where it takes one type"
        )
    return tensors


def _is_transposed(tensor: _Argument) -> bool:
    """Whether the last two dimensions of a tensor are stored in turned order.

    Raises:
        InputError: Its dimensions are turned in another way, or it repeats its elements.
    """
    *outer, rows, columns = range(len(tensor.shape))
    if _is_stored(tensor, (*outer, rows, columns)):
        return False
    if _is_stored(tensor, (*outer, columns, rows)):
        return True
    raise _Turned(tensor)


def _is_stored(tensor: _Argument, order: Sequence[int]) -> bool:
    """Whether a tensor is stored with its dimensions in that order.

    Gaps between rows, as in a part of a larger tensor, do not matter: the op is tuned on a tensor without them.
    """
    strides = [tensor.strides[at] for at in order if tensor.shape[at] != 1]
    return all(strides) and strides == sorted(strides, reverse=True)


class _Turned(InputError):
    """The strides of a tensor cannot be expressed."""

    def __init__(self, tensor: _Argument) -> None:
        super().__init__(
            f"the strides {list(tensor.strides)} of a shape {list(tensor.shape)} turn its dimensions, or repeat it"
        )


def _product(arguments: Sequence[_Argument], rank: int = 2) -> dict[str, Any]:
    """Return the arguments of a builder of products."""
    lhs, rhs = _tensors(arguments, rank, rank)
    *batch, m, k = lhs.shape
    *other, rows, n = rhs.shape
    if batch != other or rows != k:
        raise InputError(f"there is no product of {list(lhs.shape)} and {list(rhs.shape)}")
    sizes = {"m": m, "n": n, "k": k} | ({"batch": batch[0]} if batch else {})
    layout = {"transpose_a": _is_transposed(lhs), "transpose_b": _is_transposed(rhs)}
    return {**sizes, **layout, "lhs": lhs.element, "out": lhs.element}


def _mm(arguments: Sequence[_Argument]) -> ops.OpSource:
    return ops.matmul(**_product(arguments))


def _bmm(arguments: Sequence[_Argument]) -> ops.OpSource:
    return ops.batch_matmul(**_product(arguments, 3))


def _addmm(arguments: Sequence[_Argument]) -> ops.OpSource:
    if not arguments:
        raise InputError("it takes 3 tensors")
    addend, *others = arguments
    product = _product(others)
    beta, alpha = ([value.value for value in others[2:]] + [None, None])[:2]
    kept = [at for at, size in enumerate(addend.shape) if size != 1 and addend.strides[at] != 0]
    names = ["m", "n"][-len(addend.shape) :]
    if len(addend.shape) > 2 or any(addend.shape[at] != product[names[at]] for at in kept):
        raise InputError(f"a tensor of shape {list(addend.shape)} cannot be added to {product['m']}x{product['n']}")
    stored = msgspec.structs.replace(
        addend, shape=tuple(addend.shape[at] for at in kept), strides=tuple(addend.strides[at] for at in kept)
    )
    if not _is_stored(stored, range(len(kept))):
        raise _Turned(addend)
    given = Addend(
        loops=tuple(names[at] for at in kept),
        element=addend.element,
        alpha=1.0 if alpha is None else float(alpha),
        beta=1.0 if beta is None else float(beta),
    )
    return product_plus(given, **product)


def _attention(arguments: Sequence[_Argument]) -> ops.OpSource:
    query, key, value = _tensors(arguments, 4, 4, 4)
    mask, dropout, causal, scale, _ = [*arguments[3:], *[_Argument((), "", (), None, is_tensor=False)] * 5][:5]
    has_mask = mask.is_tensor and bool(mask.shape)
    if dropout.value:
        raise InputError(f"a dropout of {dropout.value} is random")
    batch, groups, keys, head = key.shape
    if query.shape[::3] != (batch, head) or value.shape[:3] != (batch, groups, keys):
        raise InputError("queries, keys and values do not fit together")
    for tensor in (query, key, value, *([mask] if has_mask else [])):
        if not _is_stored(tensor, range(len(tensor.shape))):
            raise _Turned(tensor)
    if has_mask and mask.element != query.element:
        raise InputError(f"a mask of type {mask.kind} for queries of type {query.kind}")
    return sdpa(
        Sdpa(
            batch=batch,
            heads=query.shape[1],
            groups=groups,
            queries=query.shape[2],
            keys=keys,
            head=head,
            value_head=value.shape[3],
            element=query.element,
            scale=None if scale.value is None or math.isclose(scale.value, head**-0.5) else float(scale.value),
            causal=bool(causal.value),
            mask=mask.shape if has_mask else None,
        )
    )


_OPS: dict[str, Callable[[Sequence[_Argument]], ops.OpSource]] = {
    "aten::mm": _mm,
    "aten::bmm": _bmm,
    "aten::addmm": _addmm,
    "aten::scaled_dot_product_attention": _attention,
}
