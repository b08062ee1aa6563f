"""The commands that follow a run: compile the model with the spec, guard the snapshot, or look further."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plugin.option_table import OPTIONS
from pytest_shark_tune.plugin.options import TuneOptions, named_paths
from pytest_shark_tune.records.form_files import record_path
from pytest_shark_tune.results.summary import Summary

__all__ = ["next_steps"]

_MORE = 4
"""The factor by which the next run tries more."""


def next_steps(
    config: pytest.Config,
    options: TuneOptions,
    summary: Summary,
    sources: Sequence[Source],
    *,
    spec: Path,
    snapshots: Sequence[Path],
    forms: Sequence[Path] = (),
) -> Iterator[tuple[str, str]]:
    """Yield the commands to type next, each after its purpose.

    Args:
        config: pytest's configuration.
        options: the options of the run.
        summary: the summary of the run.
        sources: the sources of the run.
        spec: the path of the spec.
        snapshots: the snapshots of the suites that exist.
        forms: the response files of models.
    """
    base = config.invocation_params.dir
    chosen = {record.model: record for record in summary.forms}
    has_won = bool(summary.improved) or not all(record.form.is_default for record in chosen.values())
    if not has_won and (more := _more(options, summary)):
        given = [*_common(config), *_given(config, ("tune_out",))]
        yield "to try more", shlex.join(["pytest", *named_paths(config), "--tune", *given, more])
    model = next((source for source in sources if source.is_model and source.path and has_won), None)
    if model is not None and (record := chosen.get(model.model_name)) is not None:
        path = record_path(spec.parent, record.model, record.target)
        yield "to use it", shlex.join(_compile(config, model, "--form", os.path.relpath(path, base)))
    elif model is not None and spec.exists():
        given = _given(config, ("tune_target", "tune_input_shape", "tune_dim", "iree_compile_flag"))
        yield "to use it", shlex.join(_compile(config, model, "--spec", os.path.relpath(spec, base), *given))
    beside_suites = [*(snapshots if has_won else ()), *(path for path in forms if path.parent != spec.parent)]
    if beside_suites:
        added = sorted({os.path.relpath(path.parent, base) for path in beside_suites})
        yield "to keep it", shlex.join(["git", "add", *added])
    if beside_suites and has_won:
        yield "to guard it", shlex.join(["pytest", *named_paths(config), *_common(config)])


def _more(options: TuneOptions, summary: Summary) -> str:
    """The option with which the next run tries more than this one; empty if everything was tried."""
    if all(row.tried >= row.generated for row in summary.dispatches):
        return ""
    if options.time_s is not None:
        return f"--tune-time={options.time_s * _MORE:.0f}s"
    return f"--tune-trials={options.candidates * _MORE}"


def _compile(config: pytest.Config, model: Source, *words: str) -> list[str]:
    path = Path(model.path)
    named = os.path.relpath(path, config.invocation_params.dir)
    return ["shark-tune", "compile", named, *words, "-o", f"{path.stem}.vmfb"]


def _common(config: pytest.Config) -> list[str]:
    """The options on the command line that a run on the same models and devices needs again."""
    names = ("tune_target", "tune_device", "tune_cache", "tune_input_shape", "tune_input", "tune_dim")
    return _given(config, (*names, "tune_parameters", "tune_function", "tune_rotate", "iree_compile_flag"))


def _given(config: pytest.Config, names: Sequence[str]) -> list[str]:
    """The options with some destinations that are on the command line, as they are given there."""
    words: list[str] = []
    for option in OPTIONS:
        if option.dest in names and (value := config.getoption(option.dest)):
            values = value if isinstance(value, list) else [value]
            words += [f"{option.flag}={part}" for part in values]
    return words
