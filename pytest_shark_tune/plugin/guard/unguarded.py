"""Tests and models that a run could have guarded and did not: the reasons, and the commands that change that.

It is there in every run that does not tune, so it imports nothing that loads the compiler.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_shark_tune.plugin.options import commands_file, given_options, named_paths, target_name
from pytest_shark_tune.report.tables import wrapped

__all__ = ["missing_file", "nothing_to_guard", "unguarded_lines"]

_LISTED = 3
"""The most files that are listed; of more, the command names those on the command line."""


def missing_file(sources: Sequence[object], directory: Path) -> str:
    """Return why the first source that names a file without there being one cannot be guarded; empty without one."""
    for source in sources:
        given = getattr(source, "path", source)
        if isinstance(given, (str, os.PathLike)) and not (directory / given).exists():
            return f"there is no file {directory / given}"
    return ""


def nothing_to_guard(path: Path, config: pytest.Config) -> str:
    """Return why a test in the file ``path`` is skipped, with the command that changes that."""
    named = [path] if path != commands_file(config) else []
    if path.suffix == ".py":
        return f"there is no snapshot for {target_name(config)} to guard: {_tune_command(named, config)} makes one"
    return f"there is nothing to guard: {_tune_command(named, config)} tunes it, --tune-guard SPEC checks a spec"


def unguarded_lines(paths: Sequence[Path], config: pytest.Config, columns: int, *, guards: bool) -> Iterator[str]:
    """Yield lines for the end of a run that left something unguarded. Commands to type stay whole.

    Args:
        paths: the files of the skipped tests.
        config: pytest's configuration.
        columns: the width of the terminal.
        guards: whether the run guarded anything else.
    """
    head = "not guarded" if guards else "nothing guarded"
    suites = [path for path in paths if path.suffix == ".py"]
    models = [path for path in paths if path.suffix != ".py" and path != commands_file(config)]
    if suites:
        beside = f"{head}: no snapshot for {target_name(config)} beside {_names(suites, config)}; make one with"
        yield from wrapped(beside, columns)
        yield f"    {_tune_command(suites, config)}"
    if len(suites) < len(paths):
        source = _names(models, config) if models else "the list of --tune-commands"
        yield from wrapped(f"{head}: no spec for {source}; name one with --tune-guard SPEC, or make one with", columns)
        yield f"    {_tune_command(models, config)}"


def _names(paths: Sequence[Path], config: pytest.Config) -> str:
    shown = ", ".join(_relative(path, config) for path in paths[:_LISTED])
    return shown + (f" and {len(paths) - _LISTED} others" if len(paths) > _LISTED else "")


def _tune_command(paths: Sequence[Path], config: pytest.Config) -> str:
    named = [_relative(path, config) for path in paths] if len(paths) <= _LISTED else named_paths(config)
    return shlex.join(["pytest", *named, "--tune", *given_options(config)])


def _relative(path: Path, config: pytest.Config) -> str:
    return os.path.relpath(path, config.invocation_params.dir)
