"""Builders of plain two-dimensional convolutions, as one named op of linalg."""

from __future__ import annotations

import functools

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.bindings import text_if_possible
from pytest_shark_tune.ops.builders import OpSource, check_sizes, check_types, tensor_type, type_name, zeros

__all__ = ["conv_2d"]


def conv_2d(
    *,
    batch: int,
    height: int,
    width: int,
    channels: int,
    filters: int,
    kernel_height: int,
    kernel_width: int,
    stride: int = 1,
    dilation: int = 1,
    layout: str = "nhwc",
    lhs: str = "f32",
    rhs: str | None = None,
    acc: str | None = None,
) -> OpSource:
    """Build a convolution without padding. ``height`` and ``width`` are those of the *result*.

    The input image has as many pixels as the result requires. The types are those of `matmul`.

    Args:
        batch: The number of images.
        height: The height of the result.
        width: The width of the result.
        channels: The channels of the input image.
        filters: The channels of the result.
        kernel_height: The height of a filter.
        kernel_width: The width of a filter.
        stride: The step of the filter in both directions.
        dilation: The distance of the filter's taps in both directions.
        layout: nhwc (filters as height, width, channels, filters) or nchw (filters, channels, height, width).
        lhs: The element type of the image.
        rhs: The element type of the filters, by default ``lhs``.
        acc: The type of the sums and of the result.

    Raises:
        InputError: As for `matmul`, or the layout is unknown.
    """
    sizes = check_sizes(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        filters=filters,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride=stride,
        dilation=dilation,
    )
    if layout not in ("nhwc", "nchw"):
        raise InputError(f"layout={layout!r}: it is nhwc or nchw")
    types = check_types(lhs, rhs, acc)
    shape = f"{batch}x{height}x{width}x{channels}_{filters}x{kernel_height}x{kernel_width}"
    steps = f"{f'_stride_{stride}' if stride > 1 else ''}{f'_dilation_{dilation}' if dilation > 1 else ''}"
    return OpSource(f"conv_2d_{layout}_{shape}{steps}_{type_name(types)}", _convolution_text(sizes, types, layout))


@functools.cache
@text_if_possible
def _convolution_text(sizes: tuple[int, ...], types: tuple[str, str, str], layout: str) -> str:
    from iree.compiler import ir
    from iree.compiler.dialects import func, linalg

    from pytest_shark_tune.dispatch.mlir import shared_context

    batch, height, width, channels, filters, kernel_height, kernel_width, stride, dilation = sizes
    in_height = (height - 1) * stride + (kernel_height - 1) * dilation + 1
    in_width = (width - 1) * stride + (kernel_width - 1) * dilation + 1
    if layout == "nhwc":
        convolution = linalg.conv_2d_nhwc_hwcf
        shapes = (
            (batch, in_height, in_width, channels),
            (kernel_height, kernel_width, channels, filters),
            (batch, height, width, filters),
        )
    else:
        convolution = linalg.conv_2d_nchw_fchw
        shapes = (
            (batch, channels, in_height, in_width),
            (filters, channels, kernel_height, kernel_width),
            (batch, filters, height, width),
        )
    with shared_context():
        image, weights, result = map(tensor_type, shapes, types)
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):

            def main(lhs: ir.Value, rhs: ir.Value) -> ir.Value:
                steps = {"strides": [stride, stride], "dilations": [dilation, dilation]}
                return convolution(lhs, rhs, outs=[zeros(result)], **steps)

            func.FuncOp.from_py_func(image, weights)(main)
        module.operation.verify()
        return str(module)
