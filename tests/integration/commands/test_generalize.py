"""``shark-tune merge --generalize``: entries that differ in one size are measured, and become entries for ranges."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import devices_for
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_sources
from pytest_shark_tune.records.generalize import root_of
from pytest_shark_tune.records.snapshot import read_records, write_spec
from tests.factories import make_winner

TARGET = Target.parse("llvm-cpu")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of three products that differ in M, all with one config."""
    sources = read_sources([ops.matmul(m=m, n=64, k=64, lhs="f32") for m in (32, 48, 64)], Path())
    plan = make_plan(sources, Compiler(TARGET), processors=2, count=1, seed=0)
    config = plan.tasks[0].candidates[0]
    shared = {"pipeline": config.pipeline, "knobs": config.knobs, "config": config.config}
    device = devices_for(TARGET, ())["name"]
    path = tmp_path_factory.mktemp("general") / "spec.mlir"
    write_spec(
        path,
        [
            make_winner(
                config.id,
                dispatch=task.name,
                root=task.root,
                compilation_info=config.compilation_info,
                device=device,
                target=str(TARGET),
                **shared,
            )
            for task in plan.tasks
        ],
    )
    return path


def shark_tune(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_dry_run_proposes_and_writes_nothing(spec: Path, tmp_path: Path) -> None:
    result = shark_tune("merge", spec, "-o", tmp_path / "out.mlir", "--generalize", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "3 entries like matmul_32x64x64_f32 differ in loop 0: 32, 48, 64; 1 of their configs would be measured at each "
        "of these sizes\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_plain_merge_is_refused(spec: Path, tmp_path: Path) -> None:
    result = shark_tune("merge", spec, "-o", tmp_path / "out.mlir", "--dry-run")
    assert (result.exit_code, result.output.splitlines()[-1]) == (
        2,
        "Error: --dry-run has an effect only with --generalize",
    )


@pytest.mark.slow
def test_what_is_measured_decides_which_entries_become_one(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mlir"
    result = shark_tune("merge", spec, "-o", out, "--generalize", "--tune-cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    entries = [root_of(record) for record in read_records(out)]
    sizes = [root.loops[0] for root in entries]
    general = [root for root in entries if root.loop_ranges]
    # Whether the sizes share an entry depends on the machine: each of them has one, and none has two.
    for m in (32, 48, 64):
        ranges = [span for root in general for span in root.loop_ranges if span.low <= m <= span.high]
        assert (
            len(ranges) + (m in [size for size, root in zip(sizes, entries, strict=True) if root not in general]) == 1
        )
    for root in general:
        (span,) = root.loop_ranges
        assert f"umin = {span.low}, umax = {span.high}" in out.read_text()
    assert f"{out}: {len(entries)} entr" in result.stdout
