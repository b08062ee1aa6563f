"""The options of runs that guard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin import parse
from pytest_shark_tune.plugin.option_table import Mode, destinations
from pytest_shark_tune.plugin.options import (
    ReportOptions,
    option_or_ini,
    option_path,
    option_value,
    options_given,
    tuning_is_on,
)
from pytest_shark_tune.system.files import read_text
from pytest_shark_tune.system.machine import processors

if TYPE_CHECKING:
    from pytest_shark_tune.measurement.change_points import Spread

__all__ = ["GuardOptions"]

_ROUTES = ("compile", "flag")


@dataclass(frozen=True)
class GuardOptions:
    """The options of a run that guards."""

    spec: Path | None
    """The spec that is guarded instead of the snapshots, if any; an absolute path."""
    tolerance: float
    """How far a speed check may fall behind its record: 0.04 reads as 4%."""
    strict: bool
    """Whether an undecided check fails, and a run that finds nothing to guard."""
    baseline: Path | None
    """The file of recorded times, if any; an absolute path."""
    updates_baseline: bool
    """Whether all times are recorded anew."""
    against: tuple[str, ...]
    """The other compilers that this one is compared with, as they are given; paths are absolute."""
    history: Path | None
    """The file or directory of the history, if any; an absolute path."""
    fails_on_history: bool
    """Whether a recent change for the worse in the history fails the run."""
    trusts_identity: bool
    """Whether a speed check measures only entries with changed machine code."""
    route: str
    """How specs are applied to models in production: ``compile`` or ``flag``."""
    reports: ReportOptions
    """The files for reports."""

    @property
    def needs_no_spec(self) -> bool:
        """Whether the run compares with other compilers or with a baseline, and guards no spec."""
        return bool(self.against or self.baseline)

    def session_spread(self, device: str) -> Spread | None:
        """Return how far sessions on a model of device differ, by the history; ``None`` if none is kept.

        Raises:
            pytest.UsageError: the history cannot be read.
        """
        if self.history is None:
            return None
        from pytest_shark_tune.guard.history import read_history, session_spread

        try:
            return session_spread(read_history(self.history), device, processors())
        except InputError as error:
            raise pytest.UsageError(f"--tune-history: {error}") from error

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> GuardOptions:
        """Read the options; the command line wins over the ini file.

        Raises:
            pytest.UsageError: a value cannot be used; the message names the option.
        """
        value = partial(option_value, config)

        _refuse_other_mode(config)
        route = value("guard_route")
        if route not in _ROUTES:
            raise pytest.UsageError(f"--tune-guard-route: unknown route {route!r}; there is {' and '.join(_ROUTES)}")
        spec, history = option_path(config, "guard"), option_path(config, "history")
        if history is not None and not history.is_dir() and not history.parent.is_dir():
            raise pytest.UsageError(
                f"--tune-history: {history} is neither a directory nor a file in one: make the directory first"
            )
        baseline, updates = option_path(config, "baseline"), bool(option_or_ini(config, "tune_baseline_update"))
        if baseline is not None and (baseline.is_dir() or not baseline.parent.is_dir()):
            raise pytest.UsageError(f"--tune-baseline: {baseline} is not a file in an existing directory")
        if updates and baseline is None:
            raise pytest.UsageError("--tune-baseline-update: there is no file to update: name one by --tune-baseline")
        fails_on_history = bool(option_or_ini(config, "tune_history_fail"))
        if fails_on_history and history is None:
            raise pytest.UsageError("--tune-history-fail: there is no history to look at: name one by --tune-history")
        return cls(
            spec=_read_spec(spec) if spec is not None else None,
            tolerance=parse.parse_tolerance("--tune-tolerance", value("tolerance")),
            strict=bool(option_or_ini(config, "tune_strict")),
            baseline=baseline,
            updates_baseline=updates,
            against=tuple(_rival(config, given) for given in option_or_ini(config, "tune_against")),
            history=history,
            fails_on_history=fails_on_history,
            trusts_identity=bool(option_or_ini(config, "tune_identity")),
            route=route,
            reports=ReportOptions.from_pytest_config(config),
        )


def _refuse_other_mode(config: pytest.Config) -> None:
    """Refuse options on the command line that change nothing in this run, since they are for tuning or for guarding."""
    if config.getoption("tune") and (given := options_given(config, destinations(Mode.GUARD))):
        raise pytest.UsageError(f"{given[0]}: it is for checking specs, and --tune makes one: give one of the two")
    if not tuning_is_on(config) and (given := options_given(config, destinations(Mode.TUNE))):
        raise pytest.UsageError(f"{given[0]}: it is for tuning, and this run only checks specs: add --tune")


def _rival(config: pytest.Config, given: str) -> str:
    """Return another release as it is given, a path as an absolute one."""
    if "==" in given:
        return given
    # A virtual environment's Python is a link, which has to stay one.
    return str(config.invocation_params.dir / given)


def _read_spec(path: Path) -> Path:
    """Make sure that a spec can be read; its entries are checked once there is something to guard."""
    try:
        read_text(path)
    except InputError as error:
        raise pytest.UsageError(f"--tune-guard: {error}") from error
    return path
