"""The options of runs that guard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin import parse
from pytest_shark_tune.plugin.options import ReportOptions, option_or_ini, option_path, option_value, options_given
from pytest_shark_tune.system.files import read_text
from pytest_shark_tune.system.machine import processors

if TYPE_CHECKING:
    from pytest_shark_tune.measurement.change_points import Spread

__all__ = ["GuardOptions", "add_guard_options"]

_ROUTES = ("compile", "flag")
_OF_GUARDING = (
    "tune_guard",
    "tune_guard_route",
    "tune_tolerance",
    "tune_strict",
    "tune_identity",
    "tune_history",
    "tune_history_fail",
    "tune_against",
    "tune_baseline",
    "tune_baseline_update",
)
"""Options of runs that guard: they would change nothing in a run that tunes."""


def add_guard_options(parser: pytest.Parser) -> None:
    """Add the options to pytest, for the command line and for the ini file."""
    group = parser.getgroup("shark-tune", "tuning IREE dispatches")

    def add(name: str, metavar: str, default: str, help_text: str) -> None:
        dest = f"tune_{name.replace('-', '_')}"
        group.addoption(f"--tune-{name}", dest=dest, metavar=metavar, default=None, help=help_text)
        parser.addini(dest, help_text, default=default)

    def add_flag(flag: str, help_text: str) -> None:
        group.addoption(flag, action="store_true", default=False, help=help_text)
        parser.addini(flag.removeprefix("--").replace("-", "_"), help_text, type="bool", default=False)

    def add_list(flag: str, metavar: str, help_text: str) -> None:
        dest = flag.removeprefix("--").replace("-", "_")
        group.addoption(flag, dest=dest, metavar=metavar, action="append", default=[], help=f"{help_text} (repeatable)")
        parser.addini(dest, f"{help_text}; one a line", type="linelist", default=[])

    add("guard", "SPEC", "", "check this spec, from whatever source, against the models and suites on the command line")
    add("tolerance", "PERCENT", "4%", "how far a guarded entry may fall behind its recorded speed (default: 4 percent)")
    add("guard-route", "ROUTE", "compile", "how specs are applied: compile (shark-tune compile, default) or flag")
    add_list(
        "--tune-against",
        "IREE",
        "compare with another release of IREE: iree==3.12.0, a wheel of the compiler, or a Python that has both",
    )
    add("baseline", "FILE", "", "compare dispatches and models with the times in this file, and record what it lacks")
    add_flag("--tune-baseline-update", "record the times of --tune-baseline anew")
    add("history", "PATH", "", "append the speeds of guarded entries to a file, or to a file in a directory")
    add_flag("--tune-history-fail", "fail a run whose history shows that an entry or a default became slower")
    add_flag("--tune-strict", "fail a guarded entry with an undecided speed, and a run that finds nothing to guard")
    add_flag("--tune-identity", "measure a guarded entry only if its machine code is not the one that was measured")


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

        given = options_given(config, _OF_GUARDING)
        if given and config.getoption("tune"):
            raise pytest.UsageError(f"{given[0]}: it is for checking specs, and --tune makes one: give one of the two")
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
