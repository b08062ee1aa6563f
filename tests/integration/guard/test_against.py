"""Compilers side by side: this release against itself, from another process with a runtime of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import OtherCompiler, find_installation
from pytest_shark_tune.guard.against import rival_entries
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.report.against_text import against_lines
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.settings import RunSettings
from tests.models import matmuls


def session(directory: Path, devices: tuple[str, ...] = ()) -> GuardSession:
    settings = RunSettings.in_directory(directory, devices, "this CPU", jobs=2)
    return GuardSession(settings, Compiler(Target.parse("llvm-cpu")), Cache(directory / "cache"))


@pytest.mark.slow
def test_a_release_is_as_fast_as_itself(tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(matmuls("main", 64, 32, 48))
    guarding = session(tmp_path, ("local-task",))
    try:
        plan = guarding.rival_plan(["model.mlir"], tmp_path, sys.executable, tmp_path)
        verdicts = {
            entry.name: guarding.evaluator.evaluate(plan, entry, EntryCheck.AGAINST, alpha=0.002)
            for entry in plan.entries
        }
    finally:
        guarding.close()
    *dispatches, model = verdicts.values()
    assert all(verdict.by_identity and verdict.outcome is CheckOutcome.PASSED for verdict in dispatches)
    assert model.outcome in (CheckOutcome.PASSED, CheckOutcome.UNDECIDED)
    assert model.metrics["rounds"] >= 3


@pytest.mark.compiler
def test_dispatches_match_by_structure_and_the_rest_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(matmuls("main", 64, 32, 48))
    guarding = session(tmp_path)
    compiler = OtherCompiler(find_installation(sys.executable, tmp_path), Target.parse("llvm-cpu"))
    plan = guarding._found(guarding.planner.read(["model.mlir"], tmp_path))
    guarding.close()
    first, *rest = plan.tasks
    dispatch, model = rival_entries(compiler, plan, msgspec.structs.replace(plan, tasks=(first.renamed("other"),)))
    assert (dispatch.name, dispatch.checks) == (first.name, (EntryCheck.AGAINST,))
    assert dispatch.rival is not None
    assert dispatch.rival.calls == {"model": 1}
    assert model.rival is not None
    assert model.rival.unmatched == (tuple(task.name for task in rest), ())
    alone = list(rival_entries(compiler, plan, Plan(sources=plan.sources, tasks=(), untunable=())))
    assert [entry.name for entry in alone] == ["model"]
    assert [entry.name for entry in rival_entries(compiler, plan, None)] == ["model"]


def test_the_table_says_what_explains_the_change() -> None:
    def result(name: str, other: float, here: float, calls: dict[str, int], **fields: object) -> GuardResult:
        ratio = other / here
        metrics = {"ratio": ratio, "ratio_low": ratio - 0.01, "ratio_high": ratio + 0.01}
        verdict = Verdict(
            entry=name,
            check=EntryCheck.AGAINST,
            outcome=CheckOutcome.FAILED,
            calls=calls,
            metrics=metrics | {"baseline_us": other, "tuned_us": here},
        )
        verdict = msgspec.structs.replace(verdict, **fields)
        return GuardResult(verdict=verdict, spec="iree==3.12.0", file="f", line=0, where="")

    model = result("model", 100.0, 120.0, {})
    slow = result("slow", 10.0, 15.0, {"model": 3})
    same = result("same", 5.0, 5.0, {"model": 1}, by_identity=True, metrics={})
    head, _, *rows = against_lines([model, slow, same])
    assert "against iree==3.12.0" in head
    assert [row.split()[-1] for row in rows] == ["slower", "75%", "0%", "25%"]
    assert "same code" in rows[2]
    unsure = msgspec.structs.replace(model.verdict, metrics=model.verdict.metrics | {"ratio_high": 1.1})
    rows = list(against_lines([msgspec.structs.replace(model, verdict=unsure), slow]))
    assert not any("%" in row for row in rows)
