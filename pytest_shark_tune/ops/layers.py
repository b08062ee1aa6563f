"""Builders of layers: convolutions of any kind, attention of several heads, and modules that are written out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.activations import Activation
from pytest_shark_tune.ops.builders import OpSource, check_sizes, element_name
from pytest_shark_tune.ops.convolution import Convolution, convolution_text
from pytest_shark_tune.ops.sdpa import Sdpa
from pytest_shark_tune.ops.sdpa import sdpa as build_sdpa

__all__ = ["conv", "conv_transpose", "mlir", "sdpa"]

_LETTERS = {1: "W", 2: "HW", 3: "DHW"}


def conv(
    *,
    batch: int,
    channels: int,
    filters: int,
    image: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    channels_last: bool = True,
    element: str = "f32",
    bias: bool = False,
    activation: Activation = "",
) -> OpSource:
    """Build a convolution in one, two or three dimensions of space. With as many groups as channels it is depthwise.

    Args:
        batch: The number of images.
        channels: The channels of the images.
        filters: The channels of the result.
        image: The size of the *input*, a number for each dimension of space.
        kernel: The size of a filter, a number for each dimension or one for all.
        stride: The step of the filter, likewise.
        padding: The padding on both sides, likewise.
        dilation: The distance of the filter's taps, likewise.
        groups: The groups that the channels are divided into.
        channels_last: Whether the channels are the last dimension of images, filters and result, or come before space.
        element: The element type: f32, f16, bf16 or i8. Floats are accumulated in f32.
        bias: Whether a number is added to each channel of the result.
        activation: The function that is applied last: relu, gelu, logistic, tanh, abs or softrelu.

    Raises:
        InputError: The arguments describe no convolution.
    """
    return _source(
        _convolution(
            (batch, channels, filters, groups),
            image,
            {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation},
            element,
            channels_last=channels_last,
        ),
        bias=bias,
        activation=activation,
    )


def conv_transpose(
    *,
    batch: int,
    channels: int,
    filters: int,
    image: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    channels_last: bool = True,
    element: str = "f32",
) -> OpSource:
    """Build a transposed convolution: the gradient of the input of a convolution.

    The arguments are those of `conv`; ``image`` is the size of the input, and the result is larger by the stride.

    Raises:
        InputError: The arguments describe no convolution.
    """
    space = len(tuple(image))
    taps, steps, edges = (
        _along(name, value, space, least)
        for name, value, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0))
    )
    size = check_sizes(**{f"image[{place}]": number for place, number in enumerate(image)})
    result = tuple(
        (number - 1) * step - 2 * edge + tap for number, step, edge, tap in zip(size, steps, edges, taps, strict=True)
    )
    # The convolution whose gradient it is takes the result to the input.
    forward = _convolution(
        (batch, filters, channels, groups),
        result,
        {"kernel": taps, "stride": steps, "padding": edges, "dilation": 1},
        element,
        channels_last=channels_last,
    )
    return _source(forward, direction="input_gradient")


def sdpa(
    *,
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    head: int,
    value_head: int | None = None,
    groups: int | None = None,
    causal: bool = False,
    mask: Sequence[int] | None = None,
    element: str = "f16",
    scale: float | None = None,
) -> OpSource:
    """Build an attention of several heads, as PyTorch describes it.

    Args:
        batch: The number of sequences.
        heads: The heads of the queries.
        queries: The number of queries.
        keys: The number of keys and values.
        head: The elements of a query and of a key.
        value_head: The elements of a value, by default ``head``.
        groups: The heads of keys and values, a divisor of ``heads``; fewer than ``heads`` make grouped-query attention.
        causal: Whether a query sees only the keys up to its own position.
        mask: The shape of a tensor that is added to the products, such as ``(1, 1, queries, keys)``.
        element: The type of all tensors: f16, bf16 or f32.
        scale: The factor of the products, by default ``1 / sqrt(head)``.

    Raises:
        InputError: A size is no positive integer, the heads do not divide into groups, or the mask does not fit.
    """
    return build_sdpa(
        Sdpa(
            batch=batch,
            heads=heads,
            groups=heads if groups is None else groups,
            queries=queries,
            keys=keys,
            head=head,
            value_head=head if value_head is None else value_head,
            element=element_name(element),
            scale=scale,
            causal=causal,
            mask=None if mask is None else tuple(mask),
        )
    )


def mlir(text: str, name: str = "") -> OpSource:
    """Take a module that is written out as MLIR: one public function whose arguments and results are tensors.

    Args:
        text: The text of the module.
        name: Its name in results, by default ``mlir_`` and a hash of the text.

    Raises:
        InputError: The text is empty, or the name is not one word.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("ops.mlir: the text of a module is empty")
    if name and not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"name={name!r}: a name has letters, digits, underscores, dots and hyphens")
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return OpSource(name or f"mlir_{digest}", text)


def _convolution(
    counts: tuple[int, int, int, int],
    image: Sequence[int],
    given: dict[str, int | Sequence[int]],
    element: str,
    *,
    channels_last: bool,
) -> Convolution:
    batch, channels, filters, groups = counts
    check_sizes(batch=batch, channels=channels, filters=filters, groups=groups)
    size = check_sizes(**{f"image[{place}]": number for place, number in enumerate(image)})
    if len(size) not in _LETTERS:
        raise InputError(f"image={tuple(image)!r}: a convolution has one, two or three dimensions of space")
    space = _LETTERS[len(size)]
    layout = f"N{space}C" if channels_last else f"NC{space}"
    numbers = {name: _along(name, value, len(size), int(name != "padding")) for name, value in given.items()}
    return Convolution(
        batch=batch,
        in_channels=channels,
        out_channels=filters,
        image=size,
        groups=groups,
        input_layout=layout,
        filter_layout=layout,
        output_layout=layout,
        element=element_name(element),
        kernel=numbers["kernel"],
        stride=numbers["stride"],
        padding=numbers["padding"],
        dilation=numbers["dilation"],
    )


def _along(name: str, value: int | Sequence[int], space: int, least: int) -> tuple[int, ...]:
    """A number for each dimension of space, all of them at least ``least``."""
    numbers = (value,) * space if isinstance(value, int) else tuple(value)
    if len(numbers) != space or any(
        isinstance(one, bool) or not isinstance(one, int) or one < least for one in numbers
    ):
        raise InputError(f"{name}={value!r}: give an integer of at least {least}, or {space} of them")
    return numbers


def _source(convolution: Convolution, **changes: object) -> OpSource:
    made = msgspec.structs.replace(convolution, **changes)
    made.check()
    return OpSource(made.name, convolution_text(made))
