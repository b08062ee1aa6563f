"""Lists of commands for drivers of kernel libraries, MIOpen's and Fusilli's, read as ops to tune."""

from __future__ import annotations

import argparse
import functools
import shlex
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from typing import NoReturn

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.convolution import Convolution, Direction, convolution_text

__all__ = ["read_commands"]

_MOST_DIGITS = 9
_LONGEST = 40
"""Error messages show at most this much of a value."""

_ELEMENTS = {"conv": "f32", "convfp16": "f16", "convbfp16": "bf16", "convint8": "i8"}
_DIRECTIONS: tuple[tuple[int, Direction], ...] = ((1, "forward"), (2, "input_gradient"), (4, "weight_gradient"))
_DRIVERS = ("MIOpenDriver", "fusilli_benchmark_driver")
_LAYOUTS = {2: "NCHW", 3: "NCDHW"}

_COUNTS = {
    "batchsize": ("-n", 100),
    "in_channels": ("-c", 3),
    "in_d": ("-!", 32),
    "in_h": ("-H", 32),
    "in_w": ("-W", 32),
    "out_channels": ("-k", 32),
    "fil_d": ("-@", 3),
    "fil_h": ("-y", 3),
    "fil_w": ("-x", 3),
    "conv_stride_d": ("-#", 1),
    "conv_stride_h": ("-u", 1),
    "conv_stride_w": ("-v", 1),
    "dilation_d": ("-^", 1),
    "dilation_h": ("-l", 1),
    "dilation_w": ("-j", 1),
    "group_count": ("-g", 1),
    "spatial_dim": ("-_", 2),
}
"""Flags of a convolution that take a positive number, with the drivers' defaults."""
_PADDING = {"pad_d": "-$", "pad_h": "-p", "pad_w": "-q"}
_ZERO = {
    "bias": "-b",
    "pad_val": "-r",
    "trans_output_pad_d": "-%",
    "trans_output_pad_h": "-Y",
    "trans_output_pad_w": "-X",
}
"""Flags that must be 0: other values cannot be expressed."""
_IGNORED = {
    "time": "-t",
    "verify": "-V",
    "iter": "-i",
    "wall": "-w",
    "search": "-s",
    "solution": "-S",
    "verification_cache": "-C",
    "printconv": "-P",
    "dump_output": "-o",
}
"""Flags that control how the driver measures or prints."""


class _CommandParser(argparse.ArgumentParser):
    """A parser that reports a mistake as an `InputError` instead of exiting."""

    def __init__(self, **_: object) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument "))


def read_commands(text: str, name: str) -> tuple[ops.OpSource, ...]:
    """Read the ops of a list of commands, one per line.

    Lines are those of ``MIOpenDriver`` for convolutions (``convbfp16 -n 128 -c 128 ... -F 1``) and of Fusilli's
    benchmark driver (``conv --bf16 ...``, ``matmul -M 1024 ...``), with or without the driver's name. Empty lines,
    comments and lines marked ``[SKIP]`` are ignored. ``-F`` is a sum of 1 (forward), 2 (input gradient) and 4 (weight
    gradient). Other defaults than that of ``-F`` are the drivers'; MIOpen's driver computes all three directions.

    Args:
        text: The list.
        name: What messages call the list.

    Returns:
        The ops in order, without repetitions.

    Raises:
        InputError: A line cannot be expressed. The message names the line and the flag.
    """
    found: dict[str, ops.OpSource] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "[SKIP]")):
            continue
        try:
            for source in _ops_of_line(shlex.split(line)):
                known = found.setdefault(source.name, source)
                assert known == source, f"{source.name} is the name of two ops"
        except (InputError, ValueError) as error:
            raise InputError(f"{name}, line {number}: {error}") from error
    if not found:
        raise InputError(f"{name}: there is no command in it")
    return tuple(found.values())


def _ops_of_line(words: list[str]) -> Iterator[ops.OpSource]:
    """Return the ops of one line."""
    if words[0].rpartition("/")[2] in _DRIVERS:
        del words[0]
    given = _parser().parse_args(words)
    if given.op == "matmul":
        yield _matmul(given, words)
    else:
        for direction in given.forw:
            convolution = _convolution(given, direction)
            yield ops.OpSource(convolution.name, convolution_text(convolution))


@functools.cache
def _parser() -> _CommandParser:
    parser = _CommandParser()
    for short, long in (("-i", "--iter"), ("-D", "--device")):
        parser.add_argument(short, long)
    parser.add_argument("-d", "--dump", action="store_true")
    kinds = parser.add_subparsers(dest="op", required=True)
    for op, element in _ELEMENTS.items():
        _add_convolution_flags(kinds.add_parser(op), element)
    _add_matmul_flags(kinds.add_parser("matmul"))
    return parser


def _add_convolution_flags(parser: argparse.ArgumentParser, element: str) -> None:
    parser.set_defaults(element=element)
    for half, kind in (("--fp16", "f16"), ("--bf16", "bf16")):
        parser.add_argument(half, dest="element", action="store_const", const=kind)
    for name, (short, default) in _COUNTS.items():
        parser.add_argument(short, f"--{name}", type=_positive, default=default)
    for name, short in _PADDING.items():
        parser.add_argument(short, f"--{name}", type=_whole_number, default=0)
    for name, short in _ZERO.items():
        parser.add_argument(short, f"--{name}", type=_zero)
    for name, short in _IGNORED.items():
        parser.add_argument(short, f"--{name}")
    for name, short in {"in_layout": "-I", "fil_layout": "-f", "out_layout": "-O"}.items():
        parser.add_argument(short, f"--{name}")
    parser.add_argument("-m", "--mode", choices=["conv"])
    parser.add_argument("-z", "--pad_mode", choices=["default"])
    parser.add_argument("-F", "--forw", type=_directions, default=("forward",))


def _add_matmul_flags(parser: argparse.ArgumentParser) -> None:
    for half, kind in (("--fp16", "f16"), ("--bf16", "bf16")):
        parser.add_argument(half, dest="half", action="store_const", const=kind)
    for name in "mnk":
        parser.add_argument(f"-{name.upper()}", f"--{name}", type=_whole_number, required=True)
    parser.add_argument("-B", "--b", dest="batch", type=_whole_number)
    for flag, name in (("--a_type", "lhs"), ("--b_type", "rhs"), ("--out_type", "out")):
        parser.add_argument(flag, dest=name)
    for flag, name in (("--transA", "transpose_a"), ("--transB", "transpose_b")):
        parser.add_argument(flag, dest=name, action="store_true")


def _convolution(given: Namespace, direction: Direction) -> Convolution:
    layouts = [layout for layout in (given.in_layout, given.fil_layout, given.out_layout) if layout]
    count = len(layouts[0]) - 2 if layouts else given.spatial_dim
    if count not in _LAYOUTS:
        raise InputError(f"--spatial_dim: there are convolutions in 2 and 3 dimensions here, not in {count}")

    def along(flag: str) -> tuple[int, ...]:
        return tuple(getattr(given, f"{flag}_{axis}") for axis in "dhw"[-count:])

    return Convolution(
        direction=direction,
        batch=given.batchsize,
        in_channels=given.in_channels,
        out_channels=given.out_channels,
        image=along("in"),
        kernel=along("fil"),
        stride=along("conv_stride"),
        padding=along("pad"),
        dilation=along("dilation"),
        groups=given.group_count,
        input_layout=given.in_layout or _LAYOUTS[count],
        filter_layout=given.fil_layout or _LAYOUTS[count],
        output_layout=given.out_layout or _LAYOUTS[count],
        element=given.element,
    )


def _matmul(given: Namespace, words: list[str]) -> ops.OpSource:
    arguments = {"lhs": given.lhs or given.half or "f32", "rhs": given.rhs, "out": given.out or given.half}
    arguments |= {name: getattr(given, name) for name in ("m", "n", "k", "transpose_a", "transpose_b")}
    try:
        if given.batch is not None:
            return ops.batch_matmul(batch=given.batch, **arguments)
        return ops.matmul(**arguments)
    except InputError as error:  # The message names arguments instead of flags.
        raise InputError(f"{shlex.join(words)}: {error}") from error


def _directions(value: str) -> tuple[Direction, ...]:
    number = _whole_number(value)
    if not 1 <= number <= 7:
        raise ArgumentTypeError(f"{value} is no sum of 1 (forward), 2 (input gradient) and 4 (weight gradient)")
    return tuple(direction for bit, direction in _DIRECTIONS if number & bit)


def _positive(value: str) -> int:
    number = _whole_number(value)
    if number < 1:
        raise ArgumentTypeError(f"{value} is less than 1")
    return number


def _zero(value: str) -> int:
    if number := _whole_number(value):
        raise ArgumentTypeError(f"{number} cannot be expressed; leave the flag out")
    return 0


def _whole_number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        raise ArgumentTypeError(f"{value[:_LONGEST]} is no whole number of at most {_MOST_DIGITS} digits")
    return int(value)
