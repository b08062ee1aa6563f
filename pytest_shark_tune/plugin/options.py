"""The plugin's options: each on the command line and in the ini file, read once into a frozen value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import pytest

from pytest_shark_tune.compiler.compiler import COMPILE_TIMEOUT_S, Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.parse import (
    parse_count,
    parse_duration,
    parse_flags,
    parse_knobs,
    parse_rotation,
    parse_seed,
    parse_share,
    parse_size,
    parse_target,
    parse_tolerance,
    parse_where,
)
from pytest_shark_tune.system.journal import read_plain
from pytest_shark_tune.system.machine import processors

if TYPE_CHECKING:
    # With them comes the compiler, for which a run that does not tune must not wait.
    from pytest_shark_tune.plan.model_input import ModelInput
    from pytest_shark_tune.search_space import SpaceRequest

__all__ = [
    "CACHE_SIZE",
    "GuardOptions",
    "TuneOptions",
    "add_options",
    "bundle_is_given",
    "commands_file",
    "default_cache",
    "given_options",
    "guard_is_given",
    "is_dry",
    "named_here",
    "spec_is_trusted",
    "target_name",
    "tuning_is_on",
]

CACHE_SIZE = "10G"
"""The default of ``--tune-cache-size``."""

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
_ROUTES = ("compile", "flag")
_STAGES = ("compile",)
_OF_ONE_RUN = ("tune_report_md", "tune_cache_clear", "tune_stop_after", "tune_bundle")
_OF_THE_COMPILER = ("tune_spec", "tune_where", "tune_knob", "tune_rotate", "iree_compile_flag", "tune_stop_after")
"""Options that say what is compiled and how, which is settled where a bundle was made."""
_OF_GUARDING = ("tune_guard", "tune_guard_route", "tune_tolerance", "tune_strict", "tune_report_md")
"""Options of runs that guard, which would change nothing where a run tunes."""


@dataclass(frozen=True)
class TuneOptions:
    """What the user asked for. ``time_s`` is ``None`` without a limit; ``devices`` is empty for all of the target's.

    ``jobs`` compilations run at a time; ``out`` and ``cache`` are absolute. ``rotate_bytes`` is how much memory data
    is rotated through, 0 for a dispatch's own alone. The cache is emptied before the run with ``clears_cache``, and cut
    to ``cache_bytes`` after it. Of a model the dispatches that make up ``share`` of its time are tuned, all of them
    with 1. ``landscape`` is where a landscape is to be recorded. ``models`` is what is said of the models that the run
    takes. ``stop_after`` is a stage, ``compile``, or empty; ``bundle`` is what such a run left, with what is to be
    measured.
    """

    target: Target
    devices: tuple[str, ...]
    candidates: int
    time_s: float | None
    search: str
    seed: int
    starter: Path | None
    out: Path
    landscape: Path | None
    jobs: int
    compile_timeout_s: float
    cache: Path
    cache_bytes: int
    clears_cache: bool
    compile_flags: tuple[str, ...]
    rotate_bytes: int
    share: float
    fresh: bool
    request: SpaceRequest
    models: ModelInput
    stop_after: str = ""
    bundle: Path | None = None
    target_is_given: bool = False

    @property
    def compiler(self) -> Compiler:
        """The compiler that the run takes, unless a bundle brings what it made."""
        option = "--tune-compile-timeout"
        return Compiler(self.target, self.compile_flags, timeout_s=self.compile_timeout_s, timeout_option=option)

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> TuneOptions:
        """Read the options; the command line wins over the ini file.

        Raises:
            pytest.UsageError: a value is of no use; the message names the option.
        """
        from pytest_shark_tune.search_space import SpaceRequest

        value = partial(_value, config)
        base = config.invocation_params.dir
        stop_after = value("stop_after")
        if stop_after and stop_after not in _STAGES:
            raise pytest.UsageError(f"--tune-stop-after: unknown stage {stop_after!r}; there is {', '.join(_STAGES)}")
        bundle = base / value("bundle") if bundle_is_given(config) else None
        if bundle is not None:  # What an ini file says of compiling is for the other run.
            _refuse_compiler_options(config)
            stop_after = ""
        starter = value("spec")
        landscape = value("record_landscape")
        search = value("search")
        if search not in _SEARCHES:
            raise pytest.UsageError(f"--tune-search: unknown search {search!r}; there is {', '.join(_SEARCHES)}")
        target = parse_target(value("target"))
        options = cls(
            target=target,
            devices=tuple(uri for uri in (part.strip() for part in value("device").split(",")) if uri),
            candidates=parse_count("--tune-candidates", value("candidates")),
            time_s=parse_duration("--tune-time", value("time")),
            search=search,
            seed=parse_seed("--tune-seed", value("seed")),
            starter=base / starter if starter and bundle is None else None,
            out=base / value("out"),
            landscape=base / landscape if landscape else None,
            jobs=parse_count("--tune-jobs", value("jobs")),
            compile_timeout_s=parse_duration("--tune-compile-timeout", value("compile_timeout")) or COMPILE_TIMEOUT_S,
            cache=base / (value("cache") or default_cache()),
            cache_bytes=parse_size("--tune-cache-size", value("cache_size")),
            clears_cache=config.getoption("tune_cache_clear"),
            compile_flags=parse_flags("--iree-compile-flag", _either(config, "iree_compile_flag")),
            rotate_bytes=parse_rotation("--tune-rotate", value("rotate"), target),
            share=parse_share("--tune-share", value("share")),
            fresh=bool(_either(config, "tune_fresh") or _keeps_benchmarks(config)),
            request=SpaceRequest(
                where=parse_where("--tune-where", _either(config, "tune_where")),
                knobs=parse_knobs("--tune-knob", _either(config, "tune_knob"), target),
            ),
            models=_parse_models(config, value("function")),
            stop_after=stop_after,
            bundle=bundle,
            target_is_given=config.getoption("tune_target") is not None,
        )
        if options.starter and not options.starter.is_file():
            raise pytest.UsageError(f"--tune-spec: there is no file {options.starter}")
        if options.landscape and options.landscape.is_dir():
            raise pytest.UsageError(f"--tune-record-landscape: {options.landscape} is a folder; name a file in it")
        unprofiled = "--tune-bundle" if bundle else "--tune-stop-after" if stop_after else ""
        if unprofiled and options.share < 1 and config.getoption("tune_share") is not None:
            raise pytest.UsageError(
                f"--tune-share: with {unprofiled} no model is profiled, and all of its dispatches are tuned: choose "
                "among them with -k"
            )
        return options


@dataclass(frozen=True)
class GuardOptions:
    """What the user asked of guarding. ``spec`` is guarded instead of the snapshots, ``None`` where those are.

    A speed promise may fall behind its record by ``tolerance``: 0.04 reads as 4%. With ``strict`` an undecided promise
    fails, and a run that finds nothing to guard. ``route`` is how the spec comes to its ops in production: ``compile``
    or ``flag``. ``report`` is where the Markdown goes. Paths are absolute.
    """

    spec: Path | None
    tolerance: float
    strict: bool
    route: str
    report: Path | None

    @classmethod
    def from_pytest_config(cls, config: pytest.Config) -> GuardOptions:
        """Read the options; the command line wins over the ini file.

        Raises:
            pytest.UsageError: a value is of no use; the message names the option.
        """
        value = partial(_value, config)

        def file(name: str) -> Path | None:
            """The path of an option; one in the ini file is meant from there, wherever pytest is started."""
            option = config.getoption(f"tune_{name}")
            base = config.invocation_params.dir if option is not None else _ini_folder(config)
            return base / value(name) if value(name) else None

        given = _given(config, _OF_GUARDING)
        if given and config.getoption("tune"):
            raise pytest.UsageError(f"{given[0]}: it is for checking specs, and --tune makes one: give one of the two")
        route = value("guard_route")
        if route not in _ROUTES:
            raise pytest.UsageError(f"--tune-guard-route: unknown route {route!r}; there is {' and '.join(_ROUTES)}")
        spec, report = file("guard"), file("report_md")
        if report is not None and (report.is_dir() or not report.parent.is_dir()):
            raise pytest.UsageError(f"--tune-report-md: {report} is no file in a folder that is there: make it first")
        return cls(
            spec=_read_spec(spec) if spec is not None else None,
            tolerance=parse_tolerance("--tune-tolerance", value("tolerance")),
            strict=bool(_either(config, "tune_strict")),
            route=route,
            report=report,
        )


def _ini_folder(config: pytest.Config) -> Path:
    """The folder of the ini file, else the root folder."""
    return config.inipath.parent if config.inipath is not None else config.rootpath


def _read_spec(path: Path) -> Path:
    """The path of a spec that can be read; what it holds is looked at where there is something to guard."""
    try:
        read_plain(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise pytest.UsageError(f"--tune-guard: {path} cannot be read: {problem}") from error
    return path


def bundle_is_given(config: pytest.Config) -> bool:
    """Whether what is to be measured was compiled elsewhere, and the compiler need not be here."""
    return bool(_either(config, "tune_bundle"))


def _refuse_compiler_options(config: pytest.Config) -> None:
    given = _given(config, _OF_THE_COMPILER)
    if given:
        raise pytest.UsageError(
            f"--tune-bundle measures what was compiled before, so {' and '.join(given)} would change nothing: give it "
            "to the run with --tune-stop-after compile"
            + (", a starter spec to shark-tune merge-records" if "--tune-spec" in given else "")
        )


def add_options(parser: pytest.Parser) -> None:
    """Add every option, and its ini twin, to pytest."""
    group = parser.getgroup("shark-tune", "tuning IREE dispatches")

    def add_flag(flag: str, help_text: str, ini_help: str = "") -> None:
        group.addoption(flag, action="store_true", default=False, help=help_text)
        if ini_help:
            parser.addini(flag.removeprefix("--").replace("-", "_"), ini_help, type="bool", default=False)

    add_flag(
        "--tune",
        "tune the dispatches of the suite, or of the .mlir and .onnx files that are named",
        "tune without --tune being given",
    )
    add_flag(
        "--tune-fresh",
        "tune again what the snapshot holds, and measure again what earlier runs measured on the same device",
        "tune and measure again what is known",
    )

    def add(name: str, metavar: str, default: str, help_text: str) -> None:
        dest = f"tune_{name.replace('-', '_')}"
        group.addoption(f"--tune-{name}", dest=dest, metavar=metavar, default=None, help=help_text)
        parser.addini(dest, help_text, default=default)

    add("target", "TARGET", "llvm-cpu", "llvm-cpu (default), cuda:sm_89, hip:gfx942 or vulkan:rdna3")
    add("device", "URIS", "", "IREE device URIs, comma-separated (default: all devices of the target's driver)")
    add("candidates", "N", "60", "most candidates measured per dispatch (default: 60)")
    add("time", "DURATION", "", "budget for trying candidates: 90s, 30m, 1h (default: no limit)")
    add(
        "share",
        "SHARE",
        "0.9",
        "tune of a model what makes up this share of its time: 0.9 (default), 80 percent as 80%%",
    )
    add("search", "NAME", "model", "how candidates are chosen: model, which learns (default), random or exhaustive")
    add("seed", "N", "0", "seed of the search and of the input data (default: 0)")
    add("rotate", "SIZE", "", "rotate inputs through so much memory, past the caches: 256M, auto (default: off)")
    add("spec", "FILE", "", "starter spec, linked behind the new entries")
    add("out", "DIR", ".tune", "where spec.mlir, records.jsonl and summary.json go (default: .tune)")
    add("function", "NAME", "", "the function of a model that is run whole, where it has several")
    add("commands", "FILE", "", "tune the convolutions and matmuls of a list of MIOpen or Fusilli driver commands")
    add("record-landscape", "FILE", "", "write what was measured for shark-tune replay; FILE-DISPATCH with several")
    add("stop-after", "STAGE", "", "compile: measure nothing, and leave what is compiled as OUT/bundle.tar")
    add("bundle", "FILE", "", "measure what is in a bundle; the compiler is not needed")
    add("jobs", "N", str(processors()), "compilations at a time (default: one per processor)")
    add(
        "compile-timeout",
        "DURATION",
        "120s",
        "most time to compile a candidate (default: 120s); a model has 30m at least",
    )
    add("cache", "DIR", "", "folder of plans and compiled candidates (default: the user's cache folder)")
    add("cache-size", "SIZE", CACHE_SIZE, f"most that the cache holds after a run: 500M, 20G (default: {CACHE_SIZE})")
    add_flag("--tune-cache-clear", "empty the cache before the run")

    def add_list(flag: str, metavar: str, help_text: str) -> None:
        dest = flag.removeprefix("--").replace("-", "_")
        group.addoption(flag, dest=dest, metavar=metavar, action="append", default=[], help=f"{help_text} (repeatable)")
        parser.addini(dest, f"{help_text}; one a line", type="linelist", default=[])

    add("guard", "SPEC", "", "check this spec, ours or not, against the models and suites that are named")
    add("tolerance", "PERCENT", "4%", "how far a guarded entry may fall behind its record (default: 4 percent)")
    add("guard-route", "ROUTE", "compile", "how specs are applied: compile (shark-tune compile, default) or flag")
    add("report-md", "FILE", "", "write what guarding found as Markdown, one line where nothing changed")
    add_flag(
        "--tune-strict",
        "fail a guarded entry whose speed is undecided, and a run that finds nothing to guard",
        "fail what is undecided, and where nothing is guarded",
    )
    add_flag(
        "--tune-trust-spec",
        "let the compiler interpret whatever a spec holds: it can run commands and write files",
        "interpret whatever a spec holds",
    )
    add_list("--tune-input-shape", "NAME=SIZES", "sizes of an ONNX model's input: x=1x3x224x224")
    add_list("--tune-input", "NAME=FILE", "what a model is run whole on: x=FILE.npy, or its input's number: 0=FILE.npy")
    add_list("--tune-where", "CONDITION", 'try only configs that fulfil it: "wg_0 >= 64 and red_2 in (4, 8)"')
    add_list("--tune-knob", "NAME=V1,V2", "search an option that the compiler pins, too: waves_per_eu=1,2,4")
    add_list("--iree-compile-flag", "FLAG", "a flag for iree-compile, for the default and the candidates alike")


def _keeps_benchmarks(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is to save or compare what is measured: then it has to be measured now."""
    return any(config.getoption(f"benchmark_{name}", None) for name in _BENCHMARK_OPTIONS)


def tuning_is_on(config: pytest.Config) -> bool:
    """Whether this run tunes: a spec to guard on the command line outweighs an ini file that says so."""
    return bool(config.getoption("tune") or (config.getini("tune") and not config.getoption("tune_guard")))


def guard_is_given(config: pytest.Config) -> bool:
    """Whether this run is to guard a spec that is named."""
    return bool(_either(config, "tune_guard"))


def spec_is_trusted(config: pytest.Config) -> bool:
    """Whether the user vouches for specs, so that the compiler may interpret whatever they hold."""
    return bool(_either(config, "tune_trust_spec"))


def is_dry(config: pytest.Config) -> bool:
    """Whether this run only shows tests, fixtures or the like, so that nothing may be written."""
    return any(getattr(config.option, name, None) for name in _DRY)


def target_name(config: pytest.Config) -> str:
    """The target that is asked for, as given."""
    return str(_either(config, "tune_target"))


def commands_file(config: pytest.Config) -> Path | None:
    """The list of commands that is to be tuned, if there is one."""
    given = _either(config, "tune_commands")
    # As pytest has the paths of what it collects: whole, but with symbolic links.
    return Path(os.path.abspath(config.invocation_params.dir / given)) if given else None  # noqa: PTH100


def named_here(config: pytest.Config, models: ModelInput) -> ModelInput:
    """What of ``models`` was said on the command line: an ini file may speak of models that another run takes."""
    from pytest_shark_tune.plan.model_input import ModelInput

    return ModelInput(
        shapes=models.shapes if config.getoption("tune_input_shape") else {},
        data=models.data if config.getoption("tune_input") else {},
        function=models.function if config.getoption("tune_function") else "",
    )


def _parse_models(config: pytest.Config, function: str) -> ModelInput:
    from pytest_shark_tune.plan.model_input import ModelInput

    shapes, data = _either(config, "tune_input_shape"), _either(config, "tune_input")
    try:
        return ModelInput.parse(shapes, data, function, base=config.invocation_params.dir)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error


def given_options(config: pytest.Config) -> list[str]:
    """Our options as given on the command line, to be given again, but for those that only that run has a use for."""
    given: list[str] = []
    for name, value in vars(config.option).items():
        if not name.startswith(("tune_", "iree_compile_flag")) or name in _OF_ONE_RUN:
            continue
        flag = _flag(name)
        if value is True:
            given.append(flag)
        elif isinstance(value, list):
            given += [f"{flag}={each}" for each in value]
        elif isinstance(value, str):
            given.append(f"{flag}={value}")
    return given


def _value(config: pytest.Config, name: str) -> str:
    """The value of the option ``--tune-NAME`` on the command line or, if it is not given there, in the ini file."""
    given = config.getoption(f"tune_{name}")
    return str(given if given is not None else config.getini(f"tune_{name}"))


def _either(config: pytest.Config, name: str) -> Any:
    """The value of an option on the command line or, if that one is empty, in the ini file."""
    return config.getoption(name) or config.getini(name)


def _given(config: pytest.Config, names: Sequence[str]) -> list[str]:
    """Those of some options, by their destinations, that the command line gives."""
    return [_flag(name) for name in names if config.getoption(name)]


def _flag(name: str) -> str:
    """The option whose value has the destination ``name``."""
    return f"--{name.replace('_', '-')}"


def default_cache() -> Path:
    """The user's own folder for what is kept between runs."""
    return Path(platformdirs.user_cache_dir("pytest-shark-tune", appauthor=False))
