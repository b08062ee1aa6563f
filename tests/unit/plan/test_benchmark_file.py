"""Files with dumped dispatches are refused if they are for another target or from another release."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.benchmark_file import IsSpec, check_benchmark_target, is_benchmark_file

BENCHMARK = (Path(__file__).parents[2] / "golden" / "behaviour" / "benchmark.mlir").read_text()
"""A dispatch that was dumped for llvm-cpu:x86-64-v3."""


def test_a_dispatch_is_taken_for_the_target_that_it_was_dumped_for() -> None:
    assert is_benchmark_file(BENCHMARK)
    check_benchmark_target(BENCHMARK, Compiler(Target.parse("llvm-cpu:x86-64-v3")))


@pytest.mark.parametrize(
    ("target", "difference"),
    [
        ("llvm-cpu:x86-64-v4", 'its cpu is "x86-64-v3", and that of this target is "x86-64-v4"'),
        ("cuda:sm_89", "its code is embedded-elf-x86_64, and that of this target is cuda-nvptx-fb"),
        ("hip:gfx942", "its code is embedded-elf-x86_64, and that of this target is rocm-hsaco-fb"),
    ],
)
def test_a_dispatch_for_another_target_is_refused_with_a_remedy(target: str, difference: str) -> None:
    with pytest.raises(InputError) as refused:
        check_benchmark_target(BENCHMARK, Compiler(Target.parse(target)))
    assert str(refused.value).startswith(f"it was dumped for another target than {target}: {difference}. ")
    assert "Give the target that it is for with --tune-target, or dump it again with the flags" in str(refused.value)


def test_another_architecture_of_a_gpu_is_another_target() -> None:
    dumped = Compiler(Target.parse("hip:gfx942")).lower("func.func @f() { return }", to="executable-targets")
    with pytest.raises(InputError, match="it is for gfx942, and this target is gfx90a"):
        check_benchmark_target(dumped, Compiler(Target.parse("hip:gfx90a")))


def test_a_dispatch_from_another_release_is_called_one() -> None:
    old = BENCHMARK.replace("hal.return", "hal.old.return %x, %y")
    with pytest.raises(InputError, match=r"another release of IREE dumped.*dump it again with this release's"):
        is_benchmark_file(old)


def test_dispatches_without_a_function_are_refused() -> None:
    with pytest.raises(InputError, match="no function that runs them"):
        is_benchmark_file("hal.executable private @a {\n}")


def test_a_spec_is_no_model_but_a_model_may_hold_named_sequences() -> None:
    marked = "module attributes {transform.with_named_sequence} "
    with pytest.raises(IsSpec, match="shark-tune show"):
        is_benchmark_file(marked + "{}")
    assert not is_benchmark_file(marked + "{ func.func @f() { return } }")
    assert not is_benchmark_file('"stablehlo.custom"() : () -> ()')
    assert not is_benchmark_file("not MLIR at all")
