"""The values of the plugin's options, read once into frozen dataclasses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.plugin import parse
from pytest_shark_tune.plugin.option_table import Mode, destinations, flag_of, read_ini
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.files import read_text

if TYPE_CHECKING:
    # These modules import the compiler, and a run that does not tune must not wait for that.
    from pytest_shark_tune.plan.source import ModelInput
    from pytest_shark_tune.search_space import SpaceRequest

__all__ = [
    "ReportOptions",
    "TuneOptions",
    "bundle_is_given",
    "commands_file",
    "default_cache",
    "given_options",
    "guard_is_given",
    "is_dry",
    "named_here",
    "named_paths",
    "option_or_ini",
    "option_path",
    "option_value",
    "options_given",
    "spec_is_trusted",
    "target_name",
    "tuning_is_on",
]

_DRY = (
    "collectonly",
    "setupplan",
    "setuponly",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
    "markers",
    "help",
    "version",
)
"""Options of pytest's, by their destinations, that show something instead of running tests."""
_BENCHMARK_OPTIONS = ("json", "save", "autosave", "compare", "compare_fail", "histogram")
_SEARCHES = ("model", "random", "exhaustive")
_PRIORS = ("default", "none")
_STAGES = ("compile",)
_REFERENCES = ("default", "onnx")
_COMPARED = ("", "ort")
_REPORTS = ("tune_report_md", "tune_report_html")
_OF_ONE_RUN = (*_REPORTS, "tune_cache_clear", "tune_stop_after", "tune_bundle")
_OF_THE_COMPILER = (
    "tune_starter_spec",
    "tune_restrict",
    "tune_knob",
    "tune_rotate",
    "tune_form",
    "iree_compile_flag",
    "tune_stop_after",
)
"""Options of compiling, which the run that made a bundle has decided already."""


@dataclass(frozen=True)
class ReportOptions:
    """The files for reports of a run that tunes or guards, as absolute paths."""

    markdown: Path | None = None
    page: Path | None = None
    """The page of HTML."""

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> ReportOptions:
        """Read the options; the command line wins over the ini file.

        Raises:
            pytest.UsageError: there is no directory for a file; the message names the option.
        """
        options = cls(option_path(config, "report_md"), option_path(config, "report_html"))
        for flag, path in (("--tune-report-md", options.markdown), ("--tune-report-html", options.page)):
            parse.check_new_file(flag, path)
        return options


@dataclass(frozen=True)
class TuneOptions:
    """The options of a run that tunes."""

    target: Target
    devices: tuple[str, ...]
    """The URIs of the devices to measure on; empty for all devices of the target's driver."""
    candidates: int
    """The maximum number of candidates per dispatch."""
    time_s: float | None
    """The time of the whole run; ``None`` for no limit."""
    search: str
    prior: str
    """The path of a prior, as an absolute one, or ``default`` or ``none``."""
    seed: int
    starter: Path | None
    """The starter spec, if any."""
    out: Path
    """The output directory, as an absolute path."""
    landscape: Path | None
    """The file to record a landscape in, if any."""
    jobs: int
    """The number of compilations at a time."""
    compile_timeout_s: float
    cache: Path
    """The cache directory, as an absolute path."""
    cache_bytes: int
    """The maximum size of the cache after the run."""
    clears_cache: bool
    """Whether the cache is emptied before the run."""
    compile_flags: tuple[str, ...]
    rotate_bytes: int
    """The amount of memory that data is rotated through; 0 for a dispatch's own data alone."""
    share: float
    """The share of a model's time that its tuned dispatches make up; 1 for all dispatches."""
    bitwise: bool
    """Whether only configs win whose results equal the default's bit for bit."""
    fresh: bool
    """Whether dispatches in the snapshot are tuned again, and candidates of earlier runs measured again."""
    request: SpaceRequest
    models: ModelInput
    """The shapes, data, function and parameters of the models of the run."""
    forms: tuple[Form, ...] = ()
    """The forms in which models are tried, besides their default form."""
    reference: str = "default"
    """What the results of ONNX models are compared with: ``default`` or ``onnx``."""
    compare: str = ""
    """``ort`` to time ONNX models in ONNX Runtime as well."""
    stop_after: str = ""
    """The stage after which the run stops, ``compile``; empty for a whole run."""
    bundle: Path | None = None
    """The bundle with the candidates to measure, if any."""
    reports: ReportOptions = ReportOptions()
    """The files for reports."""
    target_is_given: bool = False
    """Whether the target is on the command line."""

    def budget_from_now(self) -> TimeBudget:
        """Return the time of a run that begins now."""
        return TimeBudget.starting_now(self.time_s)

    @property
    def starter_text(self) -> str:
        """The text of the starter spec, empty without one.

        Raises:
            InputError: the file cannot be read.
        """
        return read_text(self.starter) if self.starter is not None else ""

    @property
    def compiler(self) -> Compiler:
        """The compiler of the run, unless a bundle has the compiled candidates."""
        option = "--tune-compile-timeout"
        return Compiler(self.target, self.compile_flags, timeout_s=self.compile_timeout_s, timeout_option=option)

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> TuneOptions:
        """Read the options; the command line wins over the ini file.

        Raises:
            pytest.UsageError: a value cannot be used; the message names the option.
        """
        from pytest_shark_tune.search_space import SpaceRequest

        value = partial(option_value, config)
        base = config.invocation_params.dir
        stop_after = value("stop_after")
        if stop_after and stop_after not in _STAGES:
            raise pytest.UsageError(f"--tune-stop-after: unknown stage {stop_after!r}; there is {', '.join(_STAGES)}")
        bundle = base / value("bundle") if bundle_is_given(config) else None
        if bundle is not None:  # Options of an ini file about compiling are for the run that makes the bundle.
            _refuse_compiler_options(config)
            stop_after = ""
        starter = value("starter_spec")
        landscape = value("record_landscape")
        target = parse.parse_target(value("target"))
        options = cls(
            target=target,
            devices=tuple(uri for uri in (part.strip() for part in value("device").split(",")) if uri),
            candidates=parse.parse_count("--tune-trials", value("trials")),
            time_s=parse.parse_duration("--tune-time", value("time")),
            search=parse.parse_choice("--tune-strategy", value("strategy"), _SEARCHES),
            prior=_parse_prior(base, value("prior")),
            seed=parse.parse_seed("--tune-seed", value("seed")),
            starter=base / starter if starter and bundle is None else None,
            out=base / value("out"),
            landscape=base / landscape if landscape else None,
            jobs=parse.parse_count("--tune-jobs", value("jobs")),
            compile_timeout_s=parse.parse_compile_timeout(value("compile_timeout"), value("time")),
            cache=base / (value("cache") or default_cache()),
            cache_bytes=parse.parse_size("--tune-cache-size", value("cache_size")),
            clears_cache=config.getoption("tune_cache_clear"),
            compile_flags=tuple(filter(None, option_or_ini(config, "iree_compile_flag"))),
            rotate_bytes=parse.parse_rotation("--tune-rotate", value("rotate"), target),
            share=parse.parse_share("--tune-coverage", value("coverage")),
            bitwise=bool(option_or_ini(config, "tune_bitwise")),
            fresh=bool(option_or_ini(config, "tune_fresh") or _keeps_benchmarks(config)),
            request=SpaceRequest(
                where=parse.parse_where("--tune-restrict", option_or_ini(config, "tune_restrict")),
                knobs=parse.parse_knobs("--tune-knob", option_or_ini(config, "tune_knob"), target),
            ),
            models=_parse_models(config, value("function")),
            forms=_parse_forms(config, target),
            reference=parse.parse_choice("--tune-reference", value("reference"), _REFERENCES),
            compare=parse.parse_choice("--tune-compare", value("compare"), _COMPARED),
            stop_after=stop_after,
            bundle=bundle,
            reports=ReportOptions.from_pytest_config(config),
            target_is_given=config.getoption("tune_target") is not None,
        )
        parse.check_file("--tune-starter-spec", options.starter)
        parse.check_no_directory("--tune-record-landscape", options.landscape)
        if stop_after and (given := options_given(config, _REPORTS)):
            raise pytest.UsageError(f"{given[0]}: with --tune-stop-after nothing is measured that could be reported")
        unprofiled = "--tune-bundle" if bundle else "--tune-stop-after" if stop_after else ""
        if unprofiled and options.share < 1 and config.getoption("tune_coverage") is not None:
            raise pytest.UsageError(
                f"--tune-coverage: with {unprofiled} no model is profiled, and all of its dispatches are tuned: choose "
                "among them with -k"
            )
        return options


def bundle_is_given(config: pytest.Config) -> bool:
    """Return whether the candidates to measure were compiled elsewhere, so that the compiler need not be here."""
    return bool(option_or_ini(config, "tune_bundle"))


def _refuse_compiler_options(config: pytest.Config) -> None:
    given = options_given(config, _OF_THE_COMPILER)
    if given:
        raise pytest.UsageError(
            f"--tune-bundle measures candidates that are compiled already, so {' and '.join(given)} would change "
            "nothing: give it to the run with --tune-stop-after compile"
            + (", a starter spec to shark-tune merge-records" if "--tune-starter-spec" in given else "")
        )


def _parse_forms(config: pytest.Config, target: Target) -> tuple[Form, ...]:
    """Return the forms to try: none where bits have to be the same, since a form computes in another way."""
    forms = parse.parse_forms("--tune-form", option_or_ini(config, "tune_form"), target)
    if not option_or_ini(config, "tune_bitwise"):
        return forms
    if forms and config.getoption("tune_form"):
        raise pytest.UsageError(
            "--tune-bitwise: models are tuned in their default form alone, since another one computes other bits: "
            "leave --tune-form out"
        )
    return ()


def _parse_prior(base: Path, given: str) -> str:
    """Return the prior that is given, a path as an absolute one. The process that controls the run reads it."""
    return given if given in _PRIORS else str(base / given)


def _keeps_benchmarks(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is to save or compare measurements, which this run then has to make."""
    return any(config.getoption(f"benchmark_{name}", None) for name in _BENCHMARK_OPTIONS)


def tuning_is_on(config: pytest.Config) -> bool:
    """Return whether this run tunes: a spec to guard on the command line overrides ``tune`` in the ini file."""
    return bool(config.getoption("tune") or (config.getini("tune") and not config.getoption("tune_guard")))


def guard_is_given(config: pytest.Config) -> bool:
    """Return whether an option names a spec to guard, or another compiler or a baseline to compare with."""
    return bool(
        option_or_ini(config, "tune_guard") or option_or_ini(config, "tune_against") or option_value(config, "baseline")
    )


def spec_is_trusted(config: pytest.Config) -> bool:
    """Return whether the user trusts specs, so that the compiler may interpret anything that they hold."""
    return bool(option_or_ini(config, "tune_trust_spec"))


def is_dry(config: pytest.Config) -> bool:
    """Return whether this run only shows tests, fixtures or the like, so that nothing may be written."""
    return any(getattr(config.option, name, None) for name in _DRY)


def named_paths(config: pytest.Config) -> list[str]:
    """Return the paths on the command line; none if pytest took its default ones."""
    return list(config.args) if config.args_source is pytest.Config.ArgsSource.ARGS else []


def target_name(config: pytest.Config) -> str:
    """Return the target option as it is given."""
    return str(option_or_ini(config, "tune_target"))


def commands_file(config: pytest.Config) -> Path | None:
    """Return the list of driver commands to tune, if there is one."""
    given = option_or_ini(config, "tune_commands")
    # Pytest's own paths are absolute too, with symbolic links unresolved.
    return Path(os.path.abspath(config.invocation_params.dir / given)) if given else None  # noqa: PTH100


def named_here(config: pytest.Config, models: ModelInput) -> ModelInput:
    """Return the part of ``models`` that is on the command line: an ini file may be about models of other runs."""
    from pytest_shark_tune.plan.source import ModelInput

    return ModelInput(
        shapes=models.shapes if config.getoption("tune_input_shape") else {},
        data=models.data if config.getoption("tune_input") else {},
        function=models.function if config.getoption("tune_function") else "",
        parameters=models.parameters if config.getoption("tune_parameters") else (),
        dims=models.dims if config.getoption("tune_dim") else {},
    )


def _parse_models(config: pytest.Config, function: str) -> ModelInput:
    from pytest_shark_tune.plan.source import ModelInput

    lists = [option_or_ini(config, f"tune_{name}") for name in ("input_shape", "input", "parameters", "dim")]
    shapes, data, parameters, dims = lists
    try:
        return ModelInput.parse(shapes, data, function, parameters, dims, base=config.invocation_params.dir)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error


def given_options(config: pytest.Config) -> list[str]:
    """Return our options on the command line, for a command that tunes next; options that are for guarding or for one
    run only are left out.
    """
    left_out = {*_OF_ONE_RUN, *destinations(Mode.GUARD)}
    given: list[str] = []
    for name, value in vars(config.option).items():
        if not name.startswith(("tune_", "iree_compile_flag")) or name in left_out:
            continue
        flag = flag_of(name)
        if value is True:
            given.append(flag)
        elif isinstance(value, list):
            given += [f"{flag}={part}" for part in value]
        elif isinstance(value, str):
            given.append(f"{flag}={value}")
    return given


def option_value(config: pytest.Config, name: str) -> str:
    """The value of the option ``--tune-NAME`` on the command line or, if it is not given there, in the ini file."""
    given = config.getoption(f"tune_{name}")
    return str(given if given is not None else read_ini(config, f"tune_{name}"))


def option_path(config: pytest.Config, name: str) -> Path | None:
    """The path in an option; a path in the ini file is relative to that file, wherever pytest is started."""
    given = option_value(config, name)
    ini = config.inipath.parent if config.inipath is not None else config.rootpath
    base = config.invocation_params.dir if config.getoption(f"tune_{name}") is not None else ini
    return base / given if given else None


def option_or_ini(config: pytest.Config, name: str) -> Any:
    """The value of an option on the command line or, if that one is empty, in the ini file."""
    return config.getoption(name) or read_ini(config, name)


def options_given(config: pytest.Config, names: Sequence[str]) -> list[str]:
    """Those of some options, by their destinations, that the command line gives."""
    return [flag_of(name) for name in names if config.getoption(name)]


def default_cache() -> Path:
    """Return the user's own cache directory."""
    return Path(platformdirs.user_cache_dir("pytest-shark-tune", appauthor=False))
