"""Parses the values of options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import COMPILE_TIMEOUT_S
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.forms.registry import forms_for
from pytest_shark_tune.system.journal import check_replaceable
from pytest_shark_tune.system.machine import last_level_cache_bytes

__all__ = [
    "check_file",
    "check_new_file",
    "check_no_directory",
    "naming",
    "parse_choice",
    "parse_compile_timeout",
    "parse_count",
    "parse_duration",
    "parse_knobs",
    "parse_rotation",
    "parse_seed",
    "parse_share",
    "parse_size",
    "parse_target",
    "parse_tolerance",
    "parse_where",
    "split_flags",
]


_MOST_DIGITS = 9
_NUMBER = rf"[0-9]{{1,{_MOST_DIGITS}}}(?:\.[0-9]{{1,{_MOST_DIGITS}}})?"
_SHORTEST_COMPILE_S, _COMPILES = 20.0, 60
"""The least time limit of the compiler for a candidate, and the part of a run's time that it is."""


_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


_PAST_GPU_CACHES = 512 << 20
"""More than the last-level cache of any GPU: the largest caches have 256 MiB."""


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Turn the errors of a block about its input into usage errors that name ``option``."""
    try:
        yield
    except (InputError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{option}: {error}") from error
    except OSError as error:  # For example a name that is too long.
        raise pytest.UsageError(f"{option}: {error.filename} cannot be used: {error.strerror}") from error


def check_file(option: str, path: Path | None) -> None:
    """Make sure that a file exists, if one is given.

    Raises:
        pytest.UsageError: it does not.
    """
    with naming(option):
        if path is not None and not path.is_file():
            raise InputError(f"there is no file {path}")


def check_no_directory(option: str, path: Path | None) -> None:
    """Make sure that a path is no directory, if one is given.

    Raises:
        pytest.UsageError: it is one.
    """
    with naming(option):
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a directory; name a file in it")


def check_new_file(option: str, path: Path | None) -> None:
    """Make sure that a file can be made at a path, if one is given.

    Raises:
        pytest.UsageError: it is a directory, a pipe or a device, or its directory does not exist.
    """
    with naming(option):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InputError(f"{path} is not a file in an existing directory: make the directory first")
        if path is not None:
            check_replaceable(path)


def parse_target(text: str) -> Target:
    """Parse a target.

    Raises:
        pytest.UsageError: the target is unknown or incomplete.
    """
    from pytest_shark_tune.device.driver.architecture import resolve_target  # It loads what asks devices.

    try:
        return resolve_target(text)
    except InputError as error:
        raise pytest.UsageError(f"--tune-target: {error}") from error


def parse_count(option: str, text: str) -> int:
    """Parse a whole number of at least 1 and at most nine digits.

    Raises:
        pytest.UsageError: ``text`` is anything else.
    """
    number = _parse_number(text)
    if not number:
        raise pytest.UsageError(f"{option}: {text!r} is not a whole number of at least 1")
    return number


def parse_seed(option: str, text: str) -> int:
    """Parse a whole number of at least 0 and at most nine digits, which is in the range of every random generator.

    Raises:
        pytest.UsageError: ``text`` is anything else.
    """
    number = _parse_number(text)
    if number is None:
        raise pytest.UsageError(f"{option}: {text!r} is not a whole number from 0 to {10**_MOST_DIGITS - 1}")
    return number


def parse_compile_timeout(text: str, time: str) -> float:
    """Return the seconds that the compiler may take for a candidate: a small part of a run's time unless it is given.

    Args:
        text: The value of ``--tune-compile-timeout``.
        time: The value of ``--tune-time``.

    Raises:
        pytest.UsageError: One of them is no duration.
    """
    given, time_s = parse_duration("--tune-compile-timeout", text), parse_duration("--tune-time", time)
    if given or time_s is None:
        return given or COMPILE_TIMEOUT_S
    return min(COMPILE_TIMEOUT_S, max(_SHORTEST_COMPILE_S, time_s / _COMPILES))


def parse_duration(option: str, text: str) -> float | None:
    """Parse ``90``, ``90s``, ``30m`` or ``1.5h`` as seconds.

    Returns:
        The seconds; ``None`` for no limit, if ``text`` is empty.

    Raises:
        pytest.UsageError: ``text`` is anything else, or zero.
    """
    if not text.strip():
        return None
    match = re.fullmatch(rf"({_NUMBER})([smh]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not seconds:
        raise pytest.UsageError(f"{option}: {text!r} is not a duration; give for example 90s, 30m or 1h")
    return seconds


def parse_rotation(option: str, text: str, target: Target) -> int:
    """Parse ``64K``, ``256M``, ``1G`` (powers of 1024) or ``auto`` as bytes.

    Returns:
        The bytes; 0 if ``text`` is empty. ``auto`` is twice the last-level cache on a CPU, and 512 MiB on a GPU.

    Raises:
        pytest.UsageError: ``text`` is anything else, or the system does not report the size of its caches.
    """
    text = text.strip()
    if not text:
        return 0
    if text == "auto":
        size = 2 * last_level_cache_bytes() if target.shares_processor else _PAST_GPU_CACHES
        if not size:
            raise pytest.UsageError(
                f"{option}: this system does not report the size of its caches: give a size, as in 256M"
            )
        return size
    size = _parse_bytes(text)
    if not size:
        raise pytest.UsageError(f"{option}: {text!r} is not a size; give for example 256M, 1G or auto")
    return size


def parse_size(option: str, text: str) -> int:
    """Parse ``64K``, ``256M`` or ``1G`` (powers of 1024) as bytes, at least one.

    Raises:
        pytest.UsageError: ``text`` is anything else.
    """
    size = _parse_bytes(text.strip())
    if not size:
        raise pytest.UsageError(f"{option}: {text!r} is not a size; give for example 500M or 20G")
    return size


def parse_tolerance(option: str, text: str) -> float:
    """Parse ``4%`` or ``0.04`` as a share, at least 0 and less than 1.

    Raises:
        pytest.UsageError: ``text`` is anything else.
    """
    share = _parse_part(text)
    if share is None or share >= 1:
        raise pytest.UsageError(f"{option}: {text!r} is no share of less than 1; give for example 4% or 0.04")
    return share


def parse_choice(option: str, text: str, known: Sequence[str]) -> str:
    """Return one of the known values; an empty one among them stands for none.

    Raises:
        pytest.UsageError: ``text`` is no known value.
    """
    if text not in known:
        raise pytest.UsageError(f"{option}: {text!r} is not known; there is {', '.join(filter(None, known))}")
    return text


def parse_share(option: str, text: str) -> float:
    """Parse ``90%`` or ``0.9`` as a share, more than 0 and at most 1.

    Raises:
        pytest.UsageError: ``text`` is anything else.
    """
    share = _parse_part(text)
    if share is None or not 0 < share <= 1:
        raise pytest.UsageError(
            f"{option}: {text!r} is no share of more than 0 and at most 1; give for example 0.9 or 90%"
        )
    return share


def split_flags(option: str, text: str) -> tuple[str, ...]:
    """Split a text as a shell would: a form has several flags.

    Raises:
        pytest.UsageError: a quotation mark is not closed.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise pytest.UsageError(f"{option}: {text} cannot be split into flags: {error}") from error


def parse_forms(option: str, lines: Sequence[str], target: Target) -> tuple[Form, ...]:
    """Parse lines such as ``im2col``, ``mine=--iree-opt-level=O3`` or ``none``.

    Returns:
        All known forms and the user's, unless lines name known ones: then these and the user's; none for ``none``.

    Raises:
        pytest.UsageError: there is no form of that name, a name is given twice, or ``none`` has company.
    """
    if list(lines) == ["none"]:
        return ()
    with naming(option):
        known = {form.name: form for form in forms_for(target)}
        named: list[Form] = []
        own: list[Form] = []
        for line in lines:
            name, equals, flags = line.partition("=")
            if name == "none":
                raise InputError("none excludes all other forms: give it alone")
            if name in {DEFAULT_FORM.name, *(form.name for form in own)} or (equals and name in known):
                raise InputError(f"there is a form {name!r} already: choose another name")
            if equals:
                own.append(Form(name=name, flags=split_flags(option, flags)))
            elif name in known:
                named.append(known[name])
            else:
                raise InputError(f"there is no form {name!r} for {target}: choose from {', '.join(known) or 'none'}")
        return (*(named or known.values()), *own)


def parse_where(option: str, lines: Sequence[str]) -> tuple[str, ...]:
    """Parse conditions over knobs. The names in them are checked later, once the search spaces are known.

    Raises:
        pytest.UsageError: a line is not a condition.
    """
    from pytest_shark_tune.search_space import parse_condition

    with naming(option):
        for line in lines:
            parse_condition(line)
    return tuple(line.strip() for line in lines)


def parse_knobs(option: str, lines: Sequence[str], target: Target) -> dict[str, tuple[int, ...]]:
    """Parse lines such as ``waves_per_eu=1,2,4``.

    Returns:
        The values of the options by their names.

    Raises:
        pytest.UsageError: a line has another form, its name is not an option of the target's pipelines, or the option
            does not take one of its values.
    """
    from pytest_shark_tune.search_space import PIPELINE_OPTIONS, options_of

    knobs: dict[str, tuple[int, ...]] = {}
    for line in lines:
        name, equals, text = (part.strip() for part in line.partition("="))
        values = [_parse_number(part) for part in text.split(",")]
        if name not in PIPELINE_OPTIONS:
            known = ", ".join(PIPELINE_OPTIONS)
            raise pytest.UsageError(
                f"{option}: {name!r} is not an option of a pipeline; the options are {known}. For any other knob, "
                f"--tune-restrict 'NAME in (1, 2)' chooses among its values"
            )
        pipeline_option = PIPELINE_OPTIONS[name]
        low, high = pipeline_option.values
        if not equals or any(value is None or not low <= value <= high for value in values):
            raise pytest.UsageError(
                f"{option}: {line!r} is not {name}=V1,V2 with whole numbers from {low} to {high} ("
                f"{pipeline_option.meaning})"
            )
        if target.backend not in pipeline_option.backends:
            there = ", ".join(options_of(target.backend)) or "none"
            raise pytest.UsageError(
                f"{option}: {name} changes no code for {target}, only for {' and '.join(pipeline_option.backends)}; "
                f"the options for {target.backend}: {there}"
            )
        if name in knobs:
            raise pytest.UsageError(f"{option}: {name} is given twice: write {name}=V1,V2 once")
        knobs[name] = tuple(sorted({value for value in values if value is not None}))
    return knobs


def _parse_part(text: str) -> float | None:
    match = re.fullmatch(rf"({_NUMBER})(%?)", text.strip(), re.ASCII)
    return float(match[1]) / (100 if match[2] else 1) if match else None


def _parse_number(text: str) -> int | None:
    return int(text) if re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text.strip()) else None


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(rf"([0-9]{{1,{_MOST_DIGITS}}})([KMG])", text)
    return int(match[1]) * _SIZES[match[2]] if match else 0
