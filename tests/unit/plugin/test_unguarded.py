"""The end of a run that found nothing to guard, and options that are for another kind of run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_shark_tune.ops import OpenModel
from pytest_shark_tune.plugin.guard.unguarded import missing_file, unguarded_lines


def config_of(directory: Path, **given: Any) -> Any:
    options = {"tune_target": None, "tune_commands": None} | given

    def ini(name: str) -> str:
        return "llvm-cpu" if name == "tune_target" else ""

    return SimpleNamespace(
        getoption=options.get,
        getini=ini,
        invocation_params=SimpleNamespace(dir=directory),
        option=SimpleNamespace(**options),
        args=["suites"],
        args_source=pytest.Config.ArgsSource.ARGS,
    )


def test_a_suite_without_a_snapshot_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    config = config_of(tmp_path, tune_target="hip:gfx942", tune_strict=True, tune_tolerance="5%")
    assert list(unguarded_lines([tmp_path / "a/test_a.py"], config, 100, guards=False)) == [
        "nothing guarded: no snapshot for hip:gfx942 beside a/test_a.py; make one with",
        "    pytest a/test_a.py --tune --tune-target=hip:gfx942",
    ]


def test_many_suites_are_tuned_by_the_paths_of_the_command_line(tmp_path: Path) -> None:
    paths = [tmp_path / f"test_{name}.py" for name in "abcde"]
    assert list(unguarded_lines(paths, config_of(tmp_path), 120, guards=True)) == [
        "not guarded: no snapshot for llvm-cpu beside test_a.py, test_b.py, test_c.py and 2 others; make one with",
        "    pytest suites --tune",
    ]


def test_a_model_without_a_spec_is_named(tmp_path: Path) -> None:
    assert list(unguarded_lines([tmp_path / "a model.onnx"], config_of(tmp_path), 120, guards=False)) == [
        "nothing guarded: no spec for a model.onnx; name one with --tune-guard SPEC, or make one with",
        "    pytest 'a model.onnx' --tune",
    ]


def test_where_everything_was_guarded_nothing_is_said(tmp_path: Path) -> None:
    assert list(unguarded_lines([], config_of(tmp_path), 120, guards=True)) == []


@pytest.mark.parametrize("source", ["gone.mlir", Path("gone.mlir"), OpenModel("gone.mlir", {"x.0": (1,)})])
def test_a_source_without_a_file_is_missing(tmp_path: Path, source: object) -> None:
    (tmp_path / "there.mlir").touch()
    assert missing_file(["there.mlir", source], tmp_path) == f"there is no file {tmp_path / 'gone.mlir'}"
    assert missing_file(["there.mlir"], tmp_path) == ""
