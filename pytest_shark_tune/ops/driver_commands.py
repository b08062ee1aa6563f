"""Lists of commands for drivers of kernel libraries, MIOpen's, Fusilli's and BOO's, read as ops to tune."""

from __future__ import annotations

import argparse
import functools
import shlex
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.activations import Activation
from pytest_shark_tune.ops.aten_commands import PREFIX, aten_op
from pytest_shark_tune.ops.builders import Addend, product_plus
from pytest_shark_tune.ops.command_flags import (
    ELEMENTS,
    CommandParser,
    add_counts,
    add_ignored,
    fraction,
    only,
    positive,
    switch,
    whole_number,
)
from pytest_shark_tune.ops.convolution import Convolution, Direction, convolution_text, plain_layout
from pytest_shark_tune.ops.normalization_commands import add_batch_norm_flags, add_layer_norm_flags
from pytest_shark_tune.ops.sdpa import Sdpa, sdpa

__all__ = ["CommandList", "read_commands"]

_SUFFIXES = dict(zip(("", "fp16", "bfp16"), ELEMENTS, strict=True))
"""The ends of an op's name in MIOpen's driver, with the element types that they stand for."""
_ACTIVATIONS: dict[int, Activation] = {0: "", 1: "logistic", 2: "tanh", 3: "relu", 4: "softrelu", 5: "abs"}
"""MIOpen's numbers of activations, as far as they can be expressed."""
_DIRECTIONS: tuple[tuple[int, Direction], ...] = ((1, "forward"), (2, "input_gradient"), (4, "weight_gradient"))
_DRIVERS = ("MIOpenDriver", "fusilli_benchmark_driver", "iree-boo-driver")
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
    "pad_val": "-r",
    "trans_output_pad_d": "-%",
    "trans_output_pad_h": "-Y",
    "trans_output_pad_w": "-X",
    "tensor_vect": "-Z",
}
"""Flags that must be 0: other values cannot be expressed."""


class CommandList(NamedTuple):
    """A list of commands, as far as it could be read."""

    sources: tuple[ops.OpSource, ...]
    """The ops in order, without repetitions."""
    problems: tuple[str, ...]
    """The lines that could not be read, each with its number and the reason."""

    def describe_problems(self, name: str) -> str:
        """Describe the lines that could not be read, one on each line. ``name`` is what messages call the list."""
        if not self.problems:
            return ""
        count = "1 line is" if len(self.problems) == 1 else f"{len(self.problems)} lines are"
        return "\n".join([f"{name}: {count} not tuned", *(f"  {problem}" for problem in self.problems)])


def read_commands(text: str, name: str) -> CommandList:
    """Read the ops of a list of commands, one per line.

    Lines are those of ``MIOpenDriver`` (``convbfp16 -n 128 -c 128 ... -F 1``, ``gemm``, ``bnorm``, ``layernorm``), of
    Fusilli's benchmark driver (``conv --bf16 ...``, ``matmul -M 1024 ...``, ``layernorm``, ``sdpa``) and of
    iree-turbine's BOO driver (``aten::mm ...``), with or without the driver's name. Empty lines, comments and lines
    marked ``[SKIP]`` are ignored. ``-F`` of a convolution is a sum of 1 (forward), 2 (input gradient) and 4 (weight
    gradient), and 0 is all of them. Other defaults than that of ``-F`` are the drivers'; MIOpen's driver computes all
    three directions.

    Args:
        text: The list.
        name: What messages call the list.

    Raises:
        InputError: No line can be read. The message names each with its number and the flag.
    """
    found: dict[str, ops.OpSource] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "[SKIP]")):
            continue
        try:
            sources = list(_ops_of_line(line.split("\t") if "\t" in line else shlex.split(line)))
        except (InputError, ValueError) as error:
            problems.append(f"line {number}: {error}")
            continue
        for source in sources:
            known = found.setdefault(source.name, source)
            assert known == source, f"{source.name} is the name of two ops"
    commands = CommandList(tuple(found.values()), tuple(problems))
    if not found:
        raise InputError(commands.describe_problems(name) or f"{name}: there is no command in it")
    return commands


def _ops_of_line(words: list[str]) -> Iterator[ops.OpSource]:
    """Return the ops of one line."""
    names = [word.rpartition("/")[2] for word in words]
    # MIOpen's log has the time and the function before the driver.
    start = next((at + 1 for at, name in enumerate(names) if name in _DRIVERS), 0)
    words = words[start:]
    if words and words[0].startswith(PREFIX):
        yield aten_op([word for word in words if word])
        return
    given = _parser().parse_args(words)
    read: Callable[[Namespace, Sequence[str]], Iterator[ops.OpSource]] = given.read
    yield from read(given, words)


@functools.cache
def _parser() -> CommandParser:
    parser = CommandParser()
    for short, long in (("-i", "--iter"), ("-D", "--device")):
        parser.add_argument(short, long)
    parser.add_argument("-d", "--dump", action="store_true")
    kinds = parser.add_subparsers(dest="op", required=True)

    def add(op: str, element: str, add_flags: Callable[[argparse.ArgumentParser], None]) -> None:
        kind = kinds.add_parser(op)
        kind.set_defaults(element=element)
        add_flags(kind)

    for suffix, element in (*_SUFFIXES.items(), ("int8", "i8")):
        add(f"conv{suffix}", element, _add_convolution_flags)
    add("matmul", "f32", _add_matmul_flags)
    for suffix, element in _SUFFIXES.items():
        add(f"gemm{suffix}", element, _add_gemm_flags)
        add(f"bnorm{suffix}", element, add_batch_norm_flags)
        add(f"layernorm{suffix}", element, add_layer_norm_flags)
        add(f"CBAInfer{suffix}", element, functools.partial(_add_fusion_flags, bias=True))
        add(f"CAInfer{suffix}", element, functools.partial(_add_fusion_flags, bias=False))
    add("sdpa", "f32", _add_attention_flags)
    return parser


# Convolutions


def _add_convolution_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(read=_convolutions, activation="")
    _add_shared_convolution_flags(parser)
    for half, kind in (("--fp16", "f16"), ("--bf16", "bf16")):
        parser.add_argument(half, dest="element", action="store_const", const=kind)
    # Fusilli's flag has no value, and its --mode is MIOpen's -F.
    parser.add_argument("-b", "--bias", type=switch, nargs="?", const=True, default=False)
    parser.add_argument("-m", "--mode", type=_mode, default=())
    parser.add_argument("-F", "--forw", type=_directions, default=("forward",))


def _add_fusion_flags(parser: argparse.ArgumentParser, *, bias: bool) -> None:
    _add_shared_convolution_flags(parser)
    parser.set_defaults(read=_convolutions, bias=bias, mode=(), forw=("forward",), batchsize=32)
    parser.add_argument("-m", "--activMode", dest="activation", type=_activation, default="3")
    parser.add_argument("-F", "--fusion_mode", type=only(4 if bias else 5, "batch normalization is another line's"))
    for short, long in (("-A", "--alpha"), ("-B", "--beta"), ("-G", "--gamma"), ("-M", "--bnMode")):
        parser.add_argument(short, long)  # Parameters of activations that cannot be expressed.


def _add_shared_convolution_flags(parser: argparse.ArgumentParser) -> None:
    add_counts(parser, _COUNTS)
    for name, short in _PADDING.items():
        parser.add_argument(short, f"--{name}", type=whole_number, default=0)
    for name, short in _ZERO.items():
        parser.add_argument(short, f"--{name}", type=only(0))
    parser.add_argument("-L", "--vector_length", type=only(1))
    add_ignored(parser, taken=("-G",))
    for name, short in {"in_layout": "-I", "fil_layout": "-f", "out_layout": "-O"}.items():
        parser.add_argument(short, f"--{name}", type=str.upper)
    parser.add_argument("-z", "--pad_mode", choices=["default", "conv", "same", "valid"], default="default")


def _convolutions(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    del words
    for direction in given.mode or given.forw:
        convolution = _convolution(given, direction)
        yield ops.OpSource(convolution.name, convolution_text(convolution))
    if given.bias and (given.mode or given.forw) != ("forward",):
        gradient = _convolution(given, "bias_gradient")
        yield ops.OpSource(gradient.name, convolution_text(gradient))


def _convolution(given: Namespace, direction: Direction) -> Convolution:
    layouts = [layout for layout in (given.in_layout, given.fil_layout, given.out_layout) if layout]
    count = len(layouts[0].replace("G", "")) - 2 if layouts else given.spatial_dim
    if count not in _LAYOUTS:
        raise InputError(f"--spatial_dim: there are convolutions in 2 and 3 dimensions here, not in {count}")

    def along(flag: str) -> tuple[int, ...]:
        return tuple(getattr(given, f"{flag}_{axis}") for axis in "dhw"[-count:])

    def layout(flag: str, channels: str) -> str:
        stated: str = getattr(given, flag) or _LAYOUTS[count]
        lettered = stated.translate(str.maketrans("012"[:count], "DHW"[-count:]))
        plain = plain_layout(lettered, channels)
        return plain.replace("G", "") if given.group_count == 1 else plain

    convolution = Convolution(
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
        input_layout=layout("in_layout", "C"),
        filter_layout=layout("fil_layout", "N"),
        output_layout=layout("out_layout", "C"),
        element=given.element,
        bias=given.bias and direction == "forward",
        activation=given.activation if direction == "forward" else "",
    )
    return _padded(convolution, given.pad_mode)


def _padded(convolution: Convolution, mode: str) -> Convolution:
    """Return the convolution with the padding of MIOpen's padding mode. Dilated filters keep the stated one."""
    if mode not in ("same", "valid") or (max(convolution.dilation) > 1 and max(convolution.kernel) > 1):
        return convolution
    same = tuple(
        max(taps - (size % stride or stride), 0) // 2
        for size, taps, stride in zip(convolution.image, convolution.kernel, convolution.stride, strict=True)
    )
    return convolution.with_padding(same if mode == "same" else (0,) * len(same))


def _mode(value: str) -> tuple[Direction, ...]:
    if value.isdigit():
        return _directions(value)
    if value != "conv":
        raise ArgumentTypeError(f"invalid choice: {value!r} (choose from 'conv')")
    return ()


def _directions(value: str) -> tuple[Direction, ...]:
    number = whole_number(value)
    if number > 7:
        raise ArgumentTypeError(f"{value} is no sum of 1 (forward), 2 (input gradient) and 4 (weight gradient)")
    return tuple(direction for bit, direction in _DIRECTIONS if (number or 7) & bit)


def _activation(value: str) -> Activation:
    number = whole_number(value)
    if number not in _ACTIVATIONS:
        known = ", ".join(f"{at} ({name or 'none'})" for at, name in _ACTIVATIONS.items())
        raise ArgumentTypeError(f"the activation {value} cannot be expressed, only {known}")
    return _ACTIVATIONS[number]


# Matrix products


def _add_matmul_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(read=_matmul)
    for half, kind in (("--fp16", "f16"), ("--bf16", "bf16")):
        parser.add_argument(half, dest="half", action="store_const", const=kind)
    for name in "mnk":
        parser.add_argument(f"-{name.upper()}", f"--{name}", type=whole_number, required=True)
    parser.add_argument("-B", "--b", dest="batch", type=whole_number)
    for flag, name in (("--a_type", "lhs"), ("--b_type", "rhs"), ("--out_type", "out"), ("--bias_type", "bias_type")):
        parser.add_argument(flag, dest=name)
    for flag, name in (("--transA", "transpose_a"), ("--transB", "transpose_b"), ("--bias", "bias")):
        parser.add_argument(flag, dest=name, action="store_true")


def _matmul(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    arguments = {"lhs": given.lhs or given.half or "f32", "rhs": given.rhs, "out": given.out or given.half}
    arguments |= {name: getattr(given, name) for name in ("m", "n", "k", "transpose_a", "transpose_b")}
    try:
        if given.bias:
            bias = Addend(element=given.bias_type or arguments["out"] or "f32")
            yield product_plus(bias, batch=given.batch, **arguments)
        elif given.batch is not None:
            yield ops.batch_matmul(batch=given.batch, **arguments)
        else:
            yield ops.matmul(**arguments)
    except InputError as error:  # The message names arguments instead of flags.
        raise InputError(f"{shlex.join(words)}: {error}") from error


def _add_gemm_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(read=_gemm)
    add_counts(parser, {"a_h": ("-m", 256), "a_w": ("-k", 256), "b_w": ("-n", 256), "batchsize": ("-b", 1)})
    for short, name in (("-u", "transA"), ("-v", "transB")):
        parser.add_argument(short, f"--{name}", type=switch, default=False)
    for short, name, default in (("-A", "alpha", 1.0), ("-B", "beta", 0.0)):
        parser.add_argument(short, f"--{name}", type=fraction, default=default)
    parser.add_argument("-F", "--forw", type=whole_number, choices=[0, 1, 2, 3], default=1)
    add_ignored(parser)


def _gemm(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    """Read MIOpen's product of an ``a_h`` x ``a_w`` and an ``a_w`` x ``b_w`` matrix; 2 and 3 are BOO's gradients."""
    del words
    m, n, k = given.a_h, given.b_w, given.a_w
    transposed: tuple[bool, bool] = given.transA, given.transB
    if given.forw in (2, 3) and (given.beta or given.alpha != 1):
        raise InputError(f"-F {given.forw} of a gemm with factors cannot be expressed")
    if given.forw == 2:  # The gradient of A is that of C times B transposed, itself transposed if A is.
        m, n, k = (m, k, n) if not given.transA else (k, m, n)
        transposed = (False, not given.transB) if not given.transA else (given.transB, True)
    elif given.forw == 3:  # That of B is A transposed times that of C.
        m, n, k = (k, n, m) if not given.transB else (n, k, m)
        transposed = (not given.transA, False) if not given.transB else (True, given.transA)
    sizes = {"m": m, "n": n, "k": k, "transpose_a": transposed[0], "transpose_b": transposed[1]}
    types = {"lhs": given.element, "out": given.element}
    batch = given.batchsize if given.batchsize > 1 else None
    if given.beta or given.alpha != 1:
        loops = ("m", "n") if batch is None else ("batch", "m", "n")
        addend = Addend(loops=loops, element=given.element, alpha=given.alpha, beta=given.beta)
        yield product_plus(addend, batch=batch, **sizes, **types)
    elif batch is None:
        yield ops.matmul(**sizes, **types)
    else:
        yield ops.batch_matmul(batch=batch, **sizes, **types)


# Attention


def _add_attention_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(read=_attention)
    for flags in (
        ("-B", "--batch"),
        ("--heads_q",),
        ("--heads_kv",),
        ("--seq_q",),
        ("--seq_kv",),
        ("-d", "--head_dim"),
    ):
        parser.add_argument(*flags, type=positive, required=True)
    parser.add_argument("-t", "--type", choices=ELEMENTS, required=True)
    parser.add_argument("-s", "--scale", type=fraction)
    parser.add_argument("-p", "--dropout", type=only(0, "it is random"))
    for flag in ("--mask", "--causal", "--gqa"):
        parser.add_argument(flag, action="store_true")


def _attention(given: Namespace, words: Sequence[str]) -> Iterator[ops.OpSource]:
    del words
    if given.heads_q != given.heads_kv and not given.gqa:
        raise InputError(f"{given.heads_q} heads of queries share the keys of {given.heads_kv} with --gqa only")
    if given.mask and given.causal:
        raise InputError("--mask: not with --causal")
    yield sdpa(
        Sdpa(
            batch=given.batch,
            heads=given.heads_q,
            groups=given.heads_kv,
            queries=given.seq_q,
            keys=given.seq_kv,
            head=given.head_dim,
            value_head=given.head_dim,
            element=given.type,
            scale=given.scale,
            causal=given.causal,
            mask=(given.batch, 1, given.seq_q, given.seq_kv) if given.mask else None,
        )
    )
