"""Driver commands of normalizations: MIOpen's batch norm, and the layer norms of MIOpen, Fusilli and BOO."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.command_flags import (
    ELEMENTS,
    add_counts,
    add_ignored,
    fraction,
    only,
    sizes,
    switch,
    whole_number,
)
from pytest_shark_tune.ops.normalization import Gradient, Normalization, normalization

__all__ = ["add_batch_norm_flags", "add_layer_norm_flags"]

_DIRECTIONS: tuple[tuple[int, Gradient | None], ...] = ((1, None), (2, "input"), (4, "scale"), (8, "bias"))
_RUNNING_PART = 0.1
"""The part of new statistics in the running ones. MIOpen's driver uses another one in every iteration."""


def add_batch_norm_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a batch normalization."""
    parser.set_defaults(read=_batch_norm)
    counts = {"batchsize": ("-n", 32), "in_channels": ("-c", 3), "in_h": ("-H", 32), "in_w": ("-W", 32)}
    add_counts(parser, counts)
    parser.add_argument("-D", "--in_d", type=whole_number, default=0)
    parser.add_argument("-F", "--forw", type=whole_number, choices=[0, 1, 2], default=1)
    parser.add_argument("-b", "--back", type=only(0, "gradients of batch normalizations are not read"))
    parser.add_argument("-m", "--mode", type=whole_number, choices=[0, 1], default=0)
    for short, name in (("-s", "save"), ("-r", "run")):
        parser.add_argument(short, f"--{name}", type=switch, default=False)
    parser.add_argument("-L", "--layout", type=str.upper)
    parser.add_argument("-A", "--alpha", type=only(1))
    parser.add_argument("-B", "--beta", type=only(0))
    add_ignored(parser, taken=("-s", "-D"))


def _batch_norm(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    del words
    sizes = {"N": given.batchsize, "C": given.in_channels, "D": given.in_d, "H": given.in_h, "W": given.in_w}
    layout = _checked_layout(given.layout, "NCDHW" if given.in_d else "NCHW")
    over = "NDHW" if given.mode == 1 else "N"
    reduced = tuple(at for at, letter in enumerate(layout) if letter in over)
    is_inference = given.forw == 2
    yield normalization(
        Normalization(
            kind="bnorm",
            shape=tuple(sizes[letter] for letter in layout),
            layout=layout,
            reduced=reduced,
            scaled=tuple(at for at in range(len(layout)) if at not in reduced),
            element=given.element,
            statistics="f32",
            epsilon=1e-3,
            stored=given.save,
            running=_RUNNING_PART if given.run and not is_inference else 0.0,
            given=is_inference,
        )
    )


def add_layer_norm_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a layer normalization."""
    parser.set_defaults(read=_layer_norm)
    parser.add_argument("-X", "--input", type=sizes)
    counts = {"batchsize": ("-n", 100), "in_channels": ("-c", 3), "in_d": ("-D", 0), "in_h": ("-H", 32)}
    for name, (short, default) in (counts | {"in_w": ("-W", 32)}).items():
        parser.add_argument(short, f"--{name}", type=whole_number, default=default)
    parser.add_argument("-F", "--forw", type=_directions, default="1")
    parser.add_argument("-e", "--eps", type=fraction, default=1e-5)
    parser.add_argument("-m", "--mode", type=whole_number, choices=[0, 1], default=0)
    parser.add_argument("-o", "--normalized_dim", "--nomalized_dim", type=whole_number, default=3)
    # Fusilli's type has the short form of MIOpen's --time.
    parser.add_argument("-t", "--type", dest="type", type=_type_or_time)
    parser.add_argument("-l", "--layout", type=str.upper)
    parser.add_argument("--elementwise_affine", action="store_true")
    parser.add_argument("--time", dest="ignored_other_time")
    for short, name in (("-i", "iter"), ("-V", "verify"), ("-w", "wall"), ("-S", "solution")):
        parser.add_argument(short, f"--{name}", dest=f"ignored_{name}")
    parser.add_argument("--use-aten", dest="ignored_aten")


def _layer_norm(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    """Read a layer normalization: Fusilli's is over all dimensions but the first, MIOpen's from a stated one on."""
    del words
    each = (given.batchsize, given.in_channels, given.in_d, given.in_h, given.in_w)
    shape: tuple[int, ...] = given.input or tuple(size for size in each if size)
    if given.type:
        if not 2 <= len(shape) <= 5:
            raise InputError(f"-X/--input: {len(shape)} dimensions, where it takes 2 to 5")
        usual = "NC" + "DHW"[5 - len(shape) :] if len(shape) != 3 else "NCH"
        layout = _checked_layout(given.layout, usual)
        shape = tuple(shape[usual.index(letter)] for letter in layout)
        reduced = tuple(at for at, letter in enumerate(layout) if letter != "N")
        is_affine, element = given.elementwise_affine, given.type
    else:
        if given.layout or given.elementwise_affine:
            raise InputError("--layout and --elementwise_affine are Fusilli's, which takes a --type, too")
        if given.normalized_dim >= len(shape):
            raise InputError(f"-o/--normalized_dim: {given.normalized_dim} is no dimension of {len(shape)}")
        layout, reduced = "", tuple(range(given.normalized_dim, len(shape)))
        is_affine, element = given.mode == 1, given.element
    for gradient in given.forw:
        yield normalization(
            Normalization(
                kind="layernorm",
                shape=shape,
                layout=layout,
                reduced=reduced,
                scaled=reduced if is_affine and gradient in (None, "input") else (),
                element=element,
                statistics=element,
                epsilon=given.eps if gradient is None else 1e-5,  # A gradient takes the inverse deviation.
                gradient=gradient,
            )
        )


def _directions(value: str) -> tuple[Gradient | None, ...]:
    number = whole_number(value)
    if number > 15:
        raise ArgumentTypeError(f"{value} is no sum of 1 (forward), 2 (input), 4 (scale) and 8 (bias gradient)")
    return tuple(gradient for bit, gradient in _DIRECTIONS if (number or 15) & bit)


def _type_or_time(value: str) -> str:
    if value in ELEMENTS:
        return value
    whole_number(value)
    return ""


def _checked_layout(layout: str | None, usual: str) -> str:
    if layout and sorted(layout) != sorted(usual):
        raise InputError(f"--layout: {layout} is no order of {usual}")
    return layout or usual
