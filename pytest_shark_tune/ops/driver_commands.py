"""Lists of commands for drivers of kernel libraries, MIOpen's and Fusilli's, read as ops to tune."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.convolution import Convolution, Direction, convolution_text

__all__ = ["read_commands"]

_ELEMENTS = {"conv": "f32", "convfp16": "f16", "convbfp16": "bf16", "convint8": "i8"}
_DIRECTIONS: tuple[tuple[int, Direction], ...] = ((1, "forward"), (2, "input_gradient"), (4, "weight_gradient"))
_GLOBAL = {"--iter": 1, "-i": 1, "--device": 1, "-D": 1, "--dump": 0, "-d": 0}
"""What comes before the op and changes nothing in it, with how many values it takes."""

_NUMBERS = {
    "batchsize": "-n",
    "in_channels": "-c",
    "in_d": "-!",
    "in_h": "-H",
    "in_w": "-W",
    "out_channels": "-k",
    "fil_d": "-@",
    "fil_h": "-y",
    "fil_w": "-x",
    "pad_d": "-$",
    "pad_h": "-p",
    "pad_w": "-q",
    "conv_stride_d": "-#",
    "conv_stride_h": "-u",
    "conv_stride_w": "-v",
    "dilation_d": "-^",
    "dilation_h": "-l",
    "dilation_w": "-j",
    "group_count": "-g",
    "spatial_dim": "-_",
    "forw": "-F",
    "bias": "-b",
    "pad_val": "-r",
    "trans_output_pad_d": "-%",
    "trans_output_pad_h": "-Y",
    "trans_output_pad_w": "-X",
}
_WORDS = {"in_layout": "-I", "fil_layout": "-f", "out_layout": "-O", "mode": "-m", "pad_mode": "-z"}
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
"""What says how the driver measures or prints."""

_DEFAULTS: Mapping[str, int] = {
    "batchsize": 100,
    "in_channels": 3,
    "in_d": 32,
    "in_h": 32,
    "in_w": 32,
    "out_channels": 32,
    "fil_d": 3,
    "fil_h": 3,
    "fil_w": 3,
    "group_count": 1,
    "forw": 1,
} | {f"{what}_{axis}": usual for what, usual in (("pad", 0), ("conv_stride", 1), ("dilation", 1)) for axis in "dhw"}
"""As the drivers have them, but for ``-F``, which would mean all three directions in MIOpen's."""

_LAYOUTS = {2: "NCHW", 3: "NCDHW"}
_MATMUL = {"-M": "m", "--m": "m", "-N": "n", "--n": "n", "-K": "k", "--k": "k", "-B": "batch", "--b": "batch"}
_MATMUL_TYPES = {"--a_type": "lhs", "--b_type": "rhs", "--out_type": "out"}
_TRANSPOSED = {"--transA": "transpose_a", "--transB": "transpose_b"}
_HALVES = {"--fp16": "f16", "--bf16": "bf16"}


def read_commands(text: str, name: str) -> tuple[ops.OpSource, ...]:
    """The ops of a list of commands, one a line, each once; ``name`` is what messages call the list.

    Lines are those of ``MIOpenDriver`` for convolutions (``convbfp16 -n 128 -c 128 ... -F 1``) and of Fusilli's
    benchmark driver (``conv --bf16 ...``, ``matmul -M 1024 ...``), with or without the driver's name. Empty lines,
    comments and lines marked ``[SKIP]`` are passed over. ``-F`` adds up 1 (forward), 2 (input gradient) and 4 (weight
    gradient).

    Raises:
        InputError: a line cannot be expressed; it and the flag are named.
    """
    found: dict[str, ops.OpSource] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "[SKIP]")):
            continue
        try:
            for source in _sources(shlex.split(line)):
                known = found.setdefault(source.name, source)
                assert known == source, f"{source.name} is the name of two ops"
        except (InputError, ValueError) as error:
            raise InputError(f"{name}, line {number}: {error}") from error
    if not found:
        raise InputError(f"{name}: there is no command in it")
    return tuple(found.values())


def _sources(words: list[str]) -> Iterator[ops.OpSource]:
    """The ops of one line."""
    op, flags = _parted(words)
    if op in _ELEMENTS:
        yield from _convolutions(op, flags)
    elif op == "matmul":
        yield _matmul(flags)
    else:
        raise InputError(f"the op {op} is none of {', '.join([*_ELEMENTS, 'matmul'])}")


def _parted(words: list[str]) -> tuple[str, list[str]]:
    """The op's name, and the flags that come after it."""
    rest = list(words)
    if rest[0].rpartition("/")[2] in ("MIOpenDriver", "fusilli_benchmark_driver"):
        del rest[0]
    while rest and rest[0] in _GLOBAL:
        del rest[: 1 + _GLOBAL[rest[0]]]
    if not rest:
        raise InputError("there is no op in it")
    return rest[0], rest[1:]


def _convolutions(op: str, flags: list[str]) -> Iterator[ops.OpSource]:
    element = _ELEMENTS[op]
    values: dict[str, Any] = dict(_DEFAULTS)
    names = {short: name for table in (_NUMBERS, _WORDS, _IGNORED) for name, short in table.items()}
    rest = iter(flags)
    for flag in rest:
        if flag in _HALVES:
            element = _HALVES[flag]
            continue
        name = flag.removeprefix("--") if flag.startswith("--") else names.get(flag, "")
        if name not in (*_NUMBERS, *_WORDS, *_IGNORED):
            raise InputError(f"{flag}: it is no flag of a convolution that is known here")
        value = next(rest, None)
        if value is None:
            raise InputError(f"{flag}: there is no value after it")
        if name in _NUMBERS:
            values[name] = _whole(flag, value)
        elif name in _WORDS:
            values[name] = value
    _refuse(values)
    axes = _axes(values)
    yield from (
        ops.OpSource(conv.name, convolution_text(conv))
        for bit, direction in _DIRECTIONS
        if values["forw"] & bit
        for conv in [_convolution(values, axes, element, direction)]
    )


def _axes(values: Mapping[str, Any]) -> str:
    """The directions of space: as many as the layouts have, else as ``--spatial_dim`` says."""
    layouts = [str(values[name]) for name in ("in_layout", "fil_layout", "out_layout") if name in values]
    count = len(layouts[0]) - 2 if layouts else int(values.get("spatial_dim", 2))
    if count not in _LAYOUTS:
        raise InputError(f"--spatial_dim: there are convolutions in 2 and 3 dimensions here, not in {count}")
    return "dhw"[-count:]


def _convolution(values: Mapping[str, Any], axes: str, element: str, direction: Direction) -> Convolution:
    def along(what: str) -> tuple[int, ...]:
        return tuple(values[f"{what}_{axis}"] for axis in axes)

    usual = _LAYOUTS[len(axes)]
    return Convolution(
        direction=direction,
        batch=values["batchsize"],
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        image=along("in"),
        kernel=along("fil"),
        stride=along("conv_stride"),
        padding=along("pad"),
        dilation=along("dilation"),
        groups=values["group_count"],
        input_layout=values.get("in_layout", usual),
        filter_layout=values.get("fil_layout", usual),
        output_layout=values.get("out_layout", usual),
        element=element,
    )


def _refuse(values: Mapping[str, Any]) -> None:
    """Refuse what would make another op of it than can be expressed."""
    if values.get("mode", "conv") != "conv":
        raise InputError(f"-m {values['mode']}: only -m conv can be expressed")
    if values.get("pad_mode", "default") != "default":
        raise InputError(f"-z {values['pad_mode']}: give the padding with -p and -q")
    for name in ("bias", "pad_val", "trans_output_pad_d", "trans_output_pad_h", "trans_output_pad_w"):
        if values.get(name):
            raise InputError(f"{_NUMBERS[name]} {values[name]}: it cannot be expressed; leave it out")
    if not 1 <= values["forw"] <= 7:
        raise InputError(f"-F {values['forw']}: it is a sum of 1 (forward), 2 (input gradient) and 4 (weight gradient)")
    for name, value in values.items():
        if isinstance(value, int) and value < 1 and not name.startswith(("pad_", "bias", "trans_")):
            raise InputError(f"{_NUMBERS[name]} {value}: it is at least 1")


def _matmul(flags: list[str]) -> ops.OpSource:
    arguments: dict[str, Any] = {}
    rest = iter(flags)
    for flag in rest:
        if flag in _HALVES:
            arguments = {"lhs": _HALVES[flag], "out": _HALVES[flag]} | arguments
        elif flag in _TRANSPOSED:
            arguments[_TRANSPOSED[flag]] = True
        elif flag in (*_MATMUL, *_MATMUL_TYPES):
            value = next(rest, None)
            if value is None:
                raise InputError(f"{flag}: there is no value after it")
            if flag in _MATMUL:
                arguments[_MATMUL[flag]] = _whole(flag, value)
            else:
                arguments[_MATMUL_TYPES[flag]] = value
        else:
            raise InputError(f"{flag}: it is no flag of a matmul that is known here")
    for name in "mnk":
        if name not in arguments:
            raise InputError(f"-{name.upper()}: the size is missing")
    build = ops.batch_matmul if "batch" in arguments else ops.matmul
    try:
        return build(**arguments)
    except InputError as error:  # It knows its own arguments, and not the flags.
        raise InputError(f"{shlex.join(flags)}: {error}") from error


def _whole(flag: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"{flag} {value}: it takes a whole number")
    return int(value)
