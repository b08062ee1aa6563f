"""The flags of driver commands: a parser that reports mistakes, and the values of its flags."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from typing import NoReturn

from pytest_shark_tune.errors import InputError

__all__ = [
    "ELEMENTS",
    "IGNORED",
    "CommandParser",
    "add_counts",
    "add_ignored",
    "fraction",
    "only",
    "positive",
    "sizes",
    "switch",
    "whole_number",
]

_MOST_DIGITS = 9
_LONGEST = 40
"""Error messages show at most this much of a value."""

ELEMENTS = ("f32", "f16", "bf16")
"""The element types of all commands but convolutions, which know i8, too."""
IGNORED = {
    "time": "-t",
    "verify": "-V",
    "iter": "-i",
    "wall": "-w",
    "search": "-s",
    "solution": "-S",
    "verification_cache": "-C",
    "printconv": "-P",
    "dump_output": "-o",
    "in_data": "-d",
    "weights": "-e",
    "in_bias": "-a",
    "dout_data": "-D",
    "gpualloc": "-G",
    "use-aten": "",
}
"""Flags that control how a driver measures or prints, and the data that it takes."""


class CommandParser(argparse.ArgumentParser):
    """A parser that reports a mistake as an `InputError` instead of exiting."""

    def __init__(self, **_: object) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the message, which names the flag."""
        raise InputError(message.removeprefix("argument "))


def add_ignored(parser: argparse.ArgumentParser, taken: Iterable[str] = ()) -> None:
    """Add the flags of `IGNORED`, but for the short ones that mean something else to this command."""
    for name, short in IGNORED.items():
        parser.add_argument(*([short] if short and short not in taken else []), f"--{name}", dest=f"ignored_{name}")
    parser.add_argument("-perf_priority", "--perf_priority", dest="ignored_priority")


def add_counts(parser: argparse.ArgumentParser, counts: Mapping[str, tuple[str, int]]) -> None:
    """Add flags that take a positive number, each with its short form and the driver's default."""
    for name, (short, default) in counts.items():
        parser.add_argument(short, f"--{name}", type=positive, default=default)


def positive(value: str) -> int:
    """Parse a positive number."""
    number = whole_number(value)
    if number < 1:
        raise ArgumentTypeError(f"{value} is less than 1")
    return number


def whole_number(value: str) -> int:
    """Parse a number that is not negative."""
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        raise ArgumentTypeError(f"{value[:_LONGEST]} is no whole number of at most {_MOST_DIGITS} digits")
    return int(value)


def fraction(value: str) -> float:
    """Parse a finite number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentTypeError(f"{value} is no number")
    return number


def switch(value: str) -> bool:
    """Parse a flag that is given as a number or a word."""
    if value.lower() not in {"0", "1", "false", "true"}:
        raise ArgumentTypeError(f"{value} is neither 0 nor 1")
    return value.lower() in {"1", "true"}


def sizes(value: str) -> tuple[int, ...]:
    """Parse sizes that are joined by ``x``."""
    return tuple(positive(part) for part in value.split("x"))


class only:  # noqa: N801 - it is used as a type of argparse's, like a function
    """The type of a flag of which only one value can be expressed.

    Args:
        value: That value.
        reason: What another value would need.
    """

    def __init__(self, value: float, reason: str = "") -> None:
        self._value = value
        self._reason = f": {reason}" if reason else ""

    def __call__(self, text: str) -> float:
        """Parse the value."""
        number = fraction(text)
        if number != self._value:
            raise ArgumentTypeError(f"{text} cannot be expressed; leave the flag out{self._reason}")
        return number
