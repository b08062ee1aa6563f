from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plugin.parse import check_file, check_new_file, check_no_directory, parse_knobs, parse_where

HIP, CUDA, CPU = Target("hip", "gfx942"), Target("cuda", "sm_89"), Target("llvm-cpu", "host")


def test_knobs_are_read() -> None:
    lines = ["waves_per_eu=4, 1,2,1", " prefetch_num_stages = 0,2"]
    assert parse_knobs("--tune-knob", lines, HIP) == {"waves_per_eu": (1, 2, 4), "prefetch_num_stages": (0, 2)}
    assert parse_knobs("--tune-knob", [], CPU) == {}


@pytest.mark.parametrize(
    ("line", "target", "reason"),
    [
        ("wave=1", HIP, "'wave' is not an option of a pipeline; the options are prefetch_num_stages"),
        ("wg_0=64,128", HIP, r"--tune-restrict 'NAME in \(1, 2\)'"),
        ("waves_per_eu", HIP, "is not waves_per_eu=V1,V2 with whole numbers from 0 to 16"),
        ("waves_per_eu=", HIP, "is not waves_per_eu=V1,V2"),
        ("waves_per_eu=1,,2", HIP, "is not waves_per_eu=V1,V2"),
        ("waves_per_eu=-1", HIP, "is not waves_per_eu=V1,V2"),
        ("waves_per_eu=17", HIP, "is not waves_per_eu=V1,V2"),
        ("flush_denormals=2", HIP, "whole numbers from 0 to 1"),
        ("flush_denormals=true", HIP, "whole numbers from 0 to 1"),
        ("waves_per_eu=1", CUDA, "changes no code for cuda:sm_89, only for hip; .*: no_reduce_shared_memory_bank"),
        ("prefetch_num_stages=2", CUDA, "changes no code for cuda:sm_89"),
        ("waves_per_eu=1", CPU, "changes no code for llvm-cpu, only for hip; the options for llvm-cpu: none"),
    ],
)
def test_what_is_no_option_is_told(line: str, target: Target, reason: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"^--tune-knob: .*{reason}"):
        parse_knobs("--tune-knob", [line], target)


def test_an_option_is_given_once() -> None:
    with pytest.raises(pytest.UsageError, match="waves_per_eu is given twice"):
        parse_knobs("--tune-knob", ["waves_per_eu=1", "waves_per_eu=2"], HIP)


def test_conditions_are_checked_when_options_are_read() -> None:
    assert parse_where("--tune-restrict", [" a > 1 ", "b < 2"]) == ("a > 1", "b < 2")
    with pytest.raises(pytest.UsageError, match=r"^--tune-restrict: 'a >' is no condition"):
        parse_where("--tune-restrict", ["a >"])


@pytest.mark.parametrize("check", [check_file, check_no_directory, check_new_file])
def test_a_name_that_no_file_can_have_is_told(check: Callable[[str, Path | None], None]) -> None:
    with pytest.raises(pytest.UsageError, match=r"^--option: x+ cannot be used: File name too long"):
        check("--option", Path("x" * 5000))


def test_nothing_but_a_file_is_an_output(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "is not a file in"), (Path("/dev/null"), "cannot be used: it is no regular file")):
        with pytest.raises(pytest.UsageError, match=f"^--option: {path} {why}"):
            check_new_file("--option", path)
    check_new_file("--option", tmp_path / "new")
