"""The table of the plugin's options: names, defaults, help, groups, and the runs that each option is for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest

from pytest_shark_tune.system.machine import processors

__all__ = ["CACHE_SIZE", "OPTIONS", "Mode", "Option", "add_options", "destinations", "flag_of", "read_ini"]

CACHE_SIZE = "10G"
"""The default of ``--tune-cache-size``."""


def _dest(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


class Mode(StrEnum):
    """The runs that an option is for."""

    TUNE = "tune"
    GUARD = "guard"
    BOTH = "both"


@dataclass(frozen=True)
class Option:
    """An option on the command line and, unless it is for one run only, in the ini file."""

    flag: str
    metavar: str
    """The name of its value in ``--help``; empty for an option without a value."""
    help: str
    default: str = ""
    mode: Mode = Mode.BOTH
    repeats: bool = False
    has_ini: bool = True
    old: str = ""
    """Its name in earlier releases, which the next release drops. ``--help`` does not show it."""

    @property
    def dest(self) -> str:
        """The name in pytest's namespace, which is the name in the ini file."""
        return _dest(self.flag)

    def add(self, group: pytest.OptionGroup, parser: pytest.Parser) -> None:
        """Add it to a group, and to the options of the ini file."""
        if not self.metavar:
            group.addoption(self.flag, action="store_true", default=False, help=self.help)
            if self.has_ini:
                parser.addini(self.dest, self.help, type="bool", default=False)
            return
        settings: dict[str, Any] = {"dest": self.dest, "metavar": self.metavar, "default": None}
        text = self.help
        if self.repeats:
            settings |= {"action": "append", "default": []}
            text = f"{text} (repeatable)"
        group.addoption(self.flag, help=text, **settings)
        if self.old:
            group.addoption(self.old, help=argparse.SUPPRESS, **settings)
        described = f"{self.help}; one a line" if self.repeats else self.help
        ini: dict[str, Any] = {"type": "linelist", "default": []} if self.repeats else {"default": self.default}
        old = [_dest(self.old)] if self.old else []
        try:
            parser.addini(self.dest, described, **ini, aliases=old)
        except TypeError:  # Before 9.0, pytest has no other names.
            parser.addini(self.dest, described, **ini)
            for name in old:
                parser.addini(name, f"the old name of {self.dest}", **{**ini, "default": [] if self.repeats else ""})


def _value(name: str, metavar: str, default: str, text: str, mode: Mode = Mode.BOTH, old: str = "") -> Option:
    return Option(f"--tune-{name}", metavar, text, default, mode, old=f"--tune-{old}" if old else "")


def _list(flag: str, metavar: str, text: str, mode: Mode = Mode.BOTH, old: str = "") -> Option:
    return Option(flag, metavar, text, mode=mode, repeats=True, old=old)


_TUNE = (
    Option("--tune", "", "tune the dispatches of the suite, or of .mlir and .onnx files on the command line"),
    Option(
        "--tune-fresh",
        "",
        "tune dispatches in the snapshot again, and use no measurement of an earlier run",
        mode=Mode.TUNE,
    ),
    Option("--tune-bitwise", "", "let only configs win whose results equal the default's bit for bit", mode=Mode.TUNE),
    _value("trials", "N", "60", "maximum number of candidates per dispatch (default: 60)", Mode.TUNE, "candidates"),
    _value("time", "DURATION", "", "time of the whole run: 90s, 30m, 1h (default: no limit)", Mode.TUNE),
    _value(
        "strategy",
        "NAME",
        "model",
        "search strategy: model, which learns from results (default), random or exhaustive",
        Mode.TUNE,
        "search",
    ),
    _value(
        "prior",
        "FILE",
        "default",
        "results of other shapes to begin with: FILE, none, or default, the shipped ones",
        Mode.TUNE,
    ),
    _value("seed", "N", "0", "seed of the search and of the input data (default: 0)"),
    _list(
        "--tune-restrict",
        "CONDITION",
        'condition on the configs to try: "wg_0 >= 64 and red_2 in (4, 8)"',
        Mode.TUNE,
        old="--tune-where",
    ),
    _list("--tune-knob", "NAME=V1,V2", "also search an option that the compiler pins: waves_per_eu=1,2,4", Mode.TUNE),
    _value("starter-spec", "FILE", "", "starter spec: its entries apply after the new ones", Mode.TUNE, "spec"),
    _value(
        "out",
        "DIR",
        ".tune",
        "output directory for spec.mlir, records.jsonl and summary.json (default: .tune)",
        Mode.TUNE,
    ),
    _value(
        "record-landscape",
        "FILE",
        "",
        "record measurements for shark-tune replay; FILE-DISPATCH for several",
        Mode.TUNE,
    ),
    _value(
        "stop-after",
        "STAGE",
        "",
        "compile: measure nothing, and pack the compiled candidates into OUT/bundle.tar",
        Mode.TUNE,
    ),
    _value("bundle", "FILE", "", "measure the candidates in a bundle; the compiler is not needed", Mode.TUNE),
)
_MODEL = (
    _value(
        "coverage",
        "SHARE",
        "0.9",
        "share of a model's time that the dispatches to tune, or to time for --tune-baseline, make up: 0.9 (default)",
        old="share",
    ),
    _list(
        "--tune-form",
        "FORM",
        "a form of models to try: NAME of a known one, NAME=FLAGS, or none (default: all)",
        Mode.TUNE,
    ),
    _value(
        "reference",
        "WHAT",
        "default",
        "what results of ONNX models are compared with: default, or onnx (the model's own)",
        Mode.TUNE,
    ),
    _value("compare", "WHAT", "", "also time ONNX models in ONNX Runtime, where it is installed: ort", Mode.TUNE),
    _list("--tune-input-shape", "NAME=SIZES", "sizes of an ONNX model's input: x=1x3x224x224"),
    _list("--tune-input", "NAME=FILE", "data of a model's input: x=FILE.npy, or by the input's number: 0=FILE.npy"),
    _list("--tune-dim", "INPUT.DIM=SIZES", "sizes of an open dimension to tune for: x.0=1,16,128"),
    _list("--tune-parameters", "SCOPE=FILE", "file of a model's parameters: model=FILE.irpa, .gguf or .safetensors"),
    _value("function", "NAME", "", "the function to run, of a model that has several"),
    _value("commands", "FILE", "", "tune the convolutions and matmuls of a list of MIOpen or Fusilli driver commands"),
    _list("--iree-compile-flag", "FLAG", "a flag for iree-compile, for the default and for all candidates"),
)
_DEVICE = (
    _value("target", "TARGET", "llvm-cpu", "llvm-cpu (default), cuda:sm_89, hip:gfx942 or vulkan:rdna3"),
    _value("device", "URIS", "", "IREE device URIs, comma-separated (default: all devices of the target's driver)"),
    _value("rotate", "SIZE", "", "rotate inputs through this much memory, past the caches: 256M, auto (default: off)"),
    _value("jobs", "N", str(processors()), "number of compilations at a time (default: one per processor)"),
    _value("compile-timeout", "DURATION", "", "time limit per candidate (default: 120s, less with --tune-time)"),
)
_CACHE = (
    _value("cache", "DIR", "", "directory for plans and compiled candidates (default: the user's cache directory)"),
    _value(
        "cache-size", "SIZE", CACHE_SIZE, f"maximum size of the cache after a run: 500M, 20G (default: {CACHE_SIZE})"
    ),
    Option("--tune-cache-clear", "", "empty the cache before the run", has_ini=False),
)
_GUARD = (
    _value(
        "guard",
        "SPEC",
        "",
        "check this spec, from whatever source, against the models and suites on the command line",
        Mode.GUARD,
    ),
    _value(
        "tolerance",
        "PERCENT",
        "4%",
        "how far a guarded entry may fall behind its recorded speed (default: 4 percent)",
        Mode.GUARD,
    ),
    _value(
        "guard-route",
        "ROUTE",
        "compile",
        "how specs are applied: compile (shark-tune compile, default) or flag",
        Mode.GUARD,
    ),
    _list(
        "--tune-against",
        "IREE",
        "compare with another release of IREE: iree==3.12.0, a wheel of the compiler, or a Python that has both",
        Mode.GUARD,
    ),
    _value(
        "baseline",
        "FILE",
        "",
        "compare dispatches and models with the times in this file, and record what it lacks",
        Mode.GUARD,
    ),
    Option("--tune-baseline-update", "", "record the times of --tune-baseline anew", mode=Mode.GUARD),
    _value(
        "history",
        "PATH",
        "",
        "append the speeds of guarded entries to a file, or to a file in a directory",
        Mode.GUARD,
    ),
    Option(
        "--tune-history-fail",
        "",
        "fail a run whose history shows that an entry or a default became slower",
        mode=Mode.GUARD,
    ),
    Option(
        "--tune-identity",
        "",
        "measure a guarded entry only if its machine code is not the one that was measured",
        mode=Mode.GUARD,
    ),
    Option(
        "--tune-strict",
        "",
        "fail a guarded entry with an undecided speed, and a run that finds nothing to guard",
        mode=Mode.GUARD,
    ),
    Option(
        "--tune-trust-spec", "", "let the compiler interpret specs unchecked, which can run commands and write files"
    ),
)
_REPORT = (
    _value("report-md", "FILE", "", "write the results as Markdown; of guarding in one line if nothing changed"),
    _value("report-html", "FILE", "", "write the results as one page of HTML with figures, which loads nothing else"),
)
_GROUPS = {
    "tune": _TUNE,
    "model": _MODEL,
    "device": _DEVICE,
    "cache": _CACHE,
    "guard": _GUARD,
    "report": _REPORT,
}
_TITLES = {
    "tune": "tuning IREE dispatches",
    "model": "models to tune or guard",
    "device": "targets, devices and compilation",
    "cache": "the cache between runs",
    "guard": "guarding specs",
    "report": "reports of tuning and guarding",
}

OPTIONS: Sequence[Option] = tuple(option for options in _GROUPS.values() for option in options)
"""All options, in the order of ``--help``."""
_BY_DEST = {option.dest: option for option in OPTIONS}


def add_options(parser: pytest.Parser) -> None:
    """Add every option to pytest, for the command line and for the ini file."""
    for name, options in _GROUPS.items():
        group = parser.getgroup(f"shark-tune {name}", f"shark-tune {name}: {_TITLES[name]}")
        for option in options:
            option.add(group, parser)


def read_ini(config: pytest.Config, dest: str) -> Any:
    """Return the value of an option in the ini file, where its old name may stand."""
    option = _BY_DEST.get(dest)
    old = config.getini(_dest(option.old)) if option is not None and option.old else None
    return old or config.getini(dest)


def destinations(mode: Mode) -> list[str]:
    """Return the options that only runs of one mode take, by their names in pytest's namespace."""
    return [option.dest for option in OPTIONS if option.mode is mode]


def flag_of(dest: str) -> str:
    """Return the option with a name in pytest's namespace."""
    return f"--{dest.replace('_', '-')}"
