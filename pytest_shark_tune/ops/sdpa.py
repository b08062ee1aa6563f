"""Scaled dot-product attention, alone or with a mask, as modules with one root op."""

from __future__ import annotations

import functools

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.bindings import text_if_possible
from pytest_shark_tune.ops.builders import OpSource, check_sizes, element_name, number_name

__all__ = ["Sdpa", "attention", "sdpa"]

_ELEMENTS = ("f16", "bf16", "f32")


def attention(
    *,
    batch: int,
    queries: int,
    keys: int,
    head: int,
    value_head: int | None = None,
    element: str = "f16",
    scale: float | None = None,
) -> OpSource:
    """Build a scaled dot-product attention.

    Args:
        batch: The number of attentions.
        queries: The number of queries.
        keys: The number of keys and values.
        head: The number of elements of a query and of a key.
        value_head: The number of elements of a value and of a row of the result, by default ``head``.
        element: The type of all tensors: f16, bf16 or f32.
        scale: The factor of the products of queries and keys, by default ``1 / sqrt(head)``.

    Raises:
        InputError: A size is no positive integer, or the element type is unknown.
    """
    value_head = head if value_head is None else value_head
    sizes = check_sizes(batch=batch, queries=queries, keys=keys, head=head, value_head=value_head)
    element = _check_element(element)
    shape = f"{batch}x{queries}x{keys}x{head}" + (f"x{value_head}" if value_head != head else "")
    end = f"_scale_{number_name(scale)}" if scale is not None else ""
    return OpSource(f"attention_{shape}_{element}{end}", _attention_text(sizes, element, scale or head**-0.5))


class Sdpa(msgspec.Struct, frozen=True, kw_only=True):
    """An attention of several heads, as PyTorch describes it.

    The queries are a tensor of batch x heads x queries x head, and the keys and values one of batch x groups x keys x
    head. Queries of ``heads / groups`` heads share the keys and values of one.
    """

    batch: int
    heads: int
    groups: int
    """The heads of the keys and values, a divisor of ``heads``."""
    queries: int
    keys: int
    head: int
    """The elements of a query, a key and a value."""
    value_head: int
    """The elements of a value and of a row of the result."""
    element: str = "f16"
    scale: float | None = None
    """The factor of the products of queries and keys, by default ``1 / sqrt(head)``."""
    causal: bool = False
    """Whether a query sees only the keys up to its own position."""
    mask: tuple[int, ...] | None = None
    """The shape of a tensor of type ``element`` that is added to the products, if there is one."""

    @property
    def name(self) -> str:
        """A name such as ``sdpa_1x8x64x64x32_f16_causal``, to which other values than defaults are appended."""
        sizes = [self.batch, self.heads, self.queries, self.keys, self.head]
        sizes += [self.value_head] if self.value_head != self.head else []
        parts = ["sdpa", "x".join(map(str, sizes)), self.element]
        parts += [f"groups_{self.groups}"] if self.groups != self.heads else []
        parts += [f"scale_{number_name(self.scale)}"] if self.scale is not None else []
        parts += ["causal"] if self.causal else []
        parts += [f"mask_{'x'.join(map(str, self.mask))}"] if self.mask is not None else []
        return "_".join(parts)


def sdpa(op: Sdpa) -> OpSource:
    """Build an attention of several heads.

    Without a mask it is the op of `attention`, as IREE folds the heads into the batch, and the queries of heads that
    share keys into one.

    Raises:
        InputError: A size is no positive integer, the element type is unknown, the heads do not divide into groups, or
            the mask does not fit.
    """
    check_sizes(batch=op.batch, heads=op.heads, groups=op.groups, queries=op.queries)
    check_sizes(keys=op.keys, head=op.head, value_head=op.value_head)
    _check_element(op.element)
    whole = (op.batch, op.heads, op.queries, op.keys)
    if op.mask is not None and not (
        len(op.mask) == len(whole) and all(size in (1, full) for size, full in zip(op.mask, whole, strict=True))
    ):
        raise InputError(f"a mask of shape {list(op.mask)} for products of shape {list(whole)}")
    if op.heads % op.groups:
        raise InputError(f"{op.heads} heads of queries do not divide into {op.groups} groups")
    if not op.causal and op.mask is None:
        return attention(
            batch=op.batch * op.groups,
            queries=op.queries * (op.heads // op.groups),
            keys=op.keys,
            head=op.head,
            value_head=op.value_head,
            element=op.element,
            scale=op.scale,
        )
    return OpSource(op.name, _sdpa_text(op))


def _check_element(element: str) -> str:
    if element_name(element) not in _ELEMENTS:
        raise InputError(f"element={element!r}: it is one of {', '.join(_ELEMENTS)}")
    return element_name(element)


@functools.cache
@text_if_possible
def _attention_text(sizes: tuple[int, ...], element: str, scale: float) -> str:
    """Return the module's text. Attention's dialect has no Python bindings, so the text is written by hand."""
    from iree.compiler import ir

    from pytest_shark_tune.dispatch.mlir import shared_context

    batch, queries, keys, head, value_head = sizes
    query, key, value, result = (
        f"tensor<{batch}x{rows}x{columns}x{element}>"
        for rows, columns in ((queries, head), (keys, head), (keys, value_head), (queries, value_head))
    )
    maps = ", ".join(
        f"affine_map<(b, m, n, k1, k2) -> ({dims})>" for dims in ("b, m, k1", "b, k2, k1", "b, k2, n", "", "b, m, n")
    )
    # The generic form of the op is the one that all releases read.
    text = f"""
func.func @main(%query: {query}, %key: {key}, %value: {value}) -> {result} {{
  %scale = arith.constant {scale:e} : {element}
  %empty = tensor.empty() : {result}
  %result = "iree_linalg_ext.attention"(%query, %key, %value, %scale, %empty) <{{
      indexing_maps = [{maps}], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 1>}}> ({{
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  }}) : ({query}, {key}, {value}, {element}, {result}) -> {result}
  return %result : {result}
}}
"""
    with shared_context():
        return str(ir.Module.parse(text))


@functools.cache
@text_if_possible
def _sdpa_text(op: Sdpa) -> str:
    """Return the text of a module with PyTorch's op, whose dialect has no Python bindings either."""
    from iree.compiler import ir

    from pytest_shark_tune.dispatch.mlir import shared_context

    def tensor(*shape: int) -> str:
        return f"!torch.vtensor<[{','.join(map(str, shape))}],{op.element}>"

    query, result = (tensor(op.batch, op.heads, op.queries, width) for width in (op.head, op.value_head))
    key, value = (tensor(op.batch, op.groups, op.keys, width) for width in (op.head, op.value_head))
    mask = tensor(*op.mask) if op.mask is not None else "!torch.none"
    given = f", %mask: {mask}" if op.mask is not None else ""
    scale = op.scale if op.scale is not None else op.head**-0.5
    text = f"""
func.func @main(%query: {query}, %key: {key}, %value: {value}{given}) -> {result} {{
  %none = torch.constant.none
  %dropout = torch.constant.float 0.000000e+00
  %causal = torch.constant.bool {str(op.causal).lower()}
  %scale = torch.constant.float {scale:e}
  %grouped = torch.constant.bool {str(op.groups != op.heads).lower()}
  %result = torch.aten.scaled_dot_product_attention
      %query, %key, %value, {"%mask" if given else "%none"}, %dropout, %causal, %scale, %grouped :
      {query}, {key}, {value}, {mask}, !torch.float, !torch.bool, !torch.float, !torch.bool -> {result}
  return %result : {result}
}}
"""
    with shared_context():
        return str(ir.Module.parse(text))
