"""Options that every command takes, and flags for the compiler as they are given."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main

CASES = Path(__file__).parents[2] / "golden" / "cases"
CONVOLUTION = CASES / "conv_for_preprocessing_flags.mlir"
# The blanks are part of the value.
PIPELINE = (
    "--iree-preprocessing-pass-pipeline=builtin.module( util.func( iree-preprocessing-convert-conv-to-channels-last ) )"
)


def commands() -> list[click.Command]:
    found = []
    for command in main.commands.values():
        found += list(command.commands.values()) if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_command_takes_the_options_about_compiler_cache_and_devices(command: click.Command) -> None:
    options = [option for parameter in command.params for option in parameter.opts]
    for option in ("--iree-compile-flag", "--tune-cache", "--tune-device"):
        assert options.count(option) == 1


def test_options_that_a_command_needs_not_are_taken_all_the_same(tmp_path: Path) -> None:
    spec = tmp_path / "spec.mlir"
    spec.write_text("module attributes {transform.with_named_sequence} {}")
    flags = [
        "--iree-compile-flag=--a",
        "--iree-compile-flag=--b",
        f"--tune-cache={tmp_path}",
        "--tune-device=local-task",
    ]
    result = CliRunner().invoke(main, ["show", str(spec), *flags], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_flag_reaches_the_compiler_as_it_was_given() -> None:
    command = ["space", str(CONVOLUTION), "--tune-target=llvm-cpu:x86-64-v3", "--json"]
    plain, changed = (
        CliRunner().invoke(main, [*command, *flags], catch_exceptions=False)
        for flags in ([], [f"--iree-compile-flag={PIPELINE}"])
    )
    assert (plain.exit_code, changed.exit_code) == (0, 0), changed.output
    names = [[row["dispatch"] for row in json.loads(result.stdout)] for result in (plain, changed)]
    # The channels come last.
    shapes = [next(name for name in found if "conv" in name) for found in names]
    assert ["1x128x16x16" in shapes[0], "1x16x16x128" in shapes[1]] == [True, True]


@pytest.mark.slow
def test_pytest_gives_a_flag_to_the_compiler_as_it_stands(pytester: pytest.Pytester) -> None:
    pytester.makefile(".mlir", conv=CONVOLUTION.read_text())
    pytester.makeini(f"[pytest]\niree_compile_flag =\n    {PIPELINE}\n")
    arguments = ["conv.mlir", "--tune", "--collect-only", "-q", "--tune-trials=2", "--tune-cache=cache"]
    result = pytester.runpytest_subprocess(*arguments, "--tune-target=llvm-cpu:x86-64-v3", "--tune-form=none")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1x16x16x128*-default]"])
