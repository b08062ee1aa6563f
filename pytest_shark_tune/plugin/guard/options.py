"""The options of runs that guard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin import parse
from pytest_shark_tune.plugin.options import ReportOptions, option_or_ini, option_path, option_value, options_given
from pytest_shark_tune.system.files import read_text

__all__ = ["GuardOptions", "add_guard_options"]

_ROUTES = ("compile", "flag")
_OF_GUARDING = ("tune_guard", "tune_guard_route", "tune_tolerance", "tune_strict", "tune_identity")
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

    add("guard", "SPEC", "", "check this spec, from whatever source, against the models and suites on the command line")
    add("tolerance", "PERCENT", "4%", "how far a guarded entry may fall behind its recorded speed (default: 4 percent)")
    add("guard-route", "ROUTE", "compile", "how specs are applied: compile (shark-tune compile, default) or flag")
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
    trusts_identity: bool
    """Whether a speed check measures only entries with changed machine code."""
    route: str
    """How specs are applied to models in production: ``compile`` or ``flag``."""
    reports: ReportOptions
    """The files for reports."""

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
        spec = option_path(config, "guard")
        return cls(
            spec=_read_spec(spec) if spec is not None else None,
            tolerance=parse.parse_tolerance("--tune-tolerance", value("tolerance")),
            strict=bool(option_or_ini(config, "tune_strict")),
            trusts_identity=bool(option_or_ini(config, "tune_identity")),
            route=route,
            reports=ReportOptions.from_pytest_config(config),
        )


def _read_spec(path: Path) -> Path:
    """Make sure that a spec can be read; its entries are checked once there is something to guard."""
    try:
        read_text(path)
    except InputError as error:
        raise pytest.UsageError(f"--tune-guard: {error}") from error
    return path
