"""Compilers side by side: this release against itself, from another process with a runtime of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.commands.timing.evidence import leave_dispatch
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import OtherCompiler, find_installation
from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.guard.explain import explain
from pytest_shark_tune.guard.rivals import rival_entries, with_spec
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.snapshot import write_spec
from pytest_shark_tune.report.against_text import against_lines
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.search_space.candidate import Candidate, applied_candidate
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.settings import RunSettings
from tests.factories import make_winner
from tests.models import matmuls

CONFIG = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [32, 16, 0], "
    "vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)

GPU = "iree_gpu.pipeline<TileAndFuse"
"""The pipeline of another backend, in place of that of the config."""


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
    plan = guarding.dispatches_of(guarding.planner.read(["model.mlir"], tmp_path))
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


@pytest.mark.compiler
def test_two_that_compute_alike_are_a_pair_whatever_becomes_of_sizes_of_one(tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(matmuls("main", 64, 32, 48))
    guarding = session(tmp_path)
    compiler = OtherCompiler(find_installation(sys.executable, tmp_path), Target.parse("llvm-cpu"))
    plan = guarding.dispatches_of(guarding.planner.read(["model.mlir"], tmp_path))
    guarding.close()

    def other(root: RootOp) -> Plan:
        (task,) = plan.tasks
        dispatch = msgspec.structs.replace(task.dispatch, name="other", root=root)
        return msgspec.structs.replace(plan, tasks=(msgspec.structs.replace(task, dispatch=dispatch),))

    root = plan.tasks[0].dispatch.root
    batched = msgspec.structs.replace(
        root,
        op="linalg.batch_matmul",
        loops=(1, *root.loops),
        iterators=("parallel", *root.iterators),
        maps=(),
        inputs=tuple(Tensor((1, *tensor.shape), tensor.element) for tensor in root.inputs),
    )
    pair, model = rival_entries(compiler, plan, other(batched))
    assert pair.rival is not None
    assert pair.rival.rival is not None
    assert pair.rival.rival.name == "other"
    assert model.rival is not None
    assert model.rival.unmatched == ((), ())
    larger = msgspec.structs.replace(batched, loops=(2, *root.loops))
    (model,) = rival_entries(compiler, plan, other(larger))
    assert model.rival is not None
    assert model.rival.unmatched == ((plan.tasks[0].name,), ("other",))


@pytest.mark.slow
def test_a_spec_is_given_to_both_compilers(tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(matmuls("main", 64, 32, 48))
    guarding = session(tmp_path, ("local-task",))
    given = ["model.mlir"]
    try:
        pairs = guarding.rival_plan(given, tmp_path, sys.executable, tmp_path)
        (task,) = pairs.plan.tasks
        config = applied_candidate(task.name, CONFIG, identifier="c0ffee", knobs={})
        root = task.dispatch.root
        winner = make_winner(
            "c0ffee", dispatch=task.name, root=root, compilation_info=config.compilation_info, target="llvm-cpu"
        )
        write_spec(tmp_path / "spec.mlir", [winner])
        plan = guarding.spec_against(pairs, given, tmp_path, tmp_path / "spec.mlir")
        assert plan is not None
        assert plan.spec_path == f"{sys.executable} with spec.mlir"
        dispatch, model = (
            guarding.evaluator.evaluate(plan, entry, EntryCheck.AGAINST, alpha=0.002) for entry in plan.entries
        )
        (entry,) = (entry for entry in plan.entries if entry.rival and entry.rival.task)
        odd = msgspec.structs.replace(
            config, compilation_info=CONFIG.replace("iree_cpu.pipeline<DoubleTilingExpert", GPU)
        )
        assert entry.rival is not None
        assert entry.rival.rival is not None
        refused = msgspec.structs.replace(
            entry, rival=msgspec.structs.replace(entry.rival, rival=with_candidate(entry.rival.rival, odd))
        )
        untuned = guarding.evaluator.evaluate(plan, refused, EntryCheck.AGAINST, alpha=0.002)
        assert with_spec(pairs, msgspec.structs.replace(plan, entries=())) is None
    finally:
        guarding.close()
    assert dispatch.by_identity
    assert model.metrics["rounds"] >= 3
    assert "does not take the spec, so its default is timed" in untuned.note
    assert not untuned.by_identity


def with_candidate(task: Task, config: Candidate) -> Task:
    return msgspec.structs.replace(task, candidates=(config,))


@pytest.mark.slow
def test_the_dispatch_that_is_slower_is_named_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(matmuls("main", 256, 256, 512))
    guarding = session(tmp_path, ("local-task",))
    installed = find_installation(sys.executable, tmp_path)
    good, bad = (OtherCompiler(installed, Target.parse(name)) for name in ("llvm-cpu", "llvm-cpu:x86-64"))
    source = guarding.plan_of(["model.mlir"], tmp_path).sources[0]
    try:
        found, tasks = explain(guarding, good, bad, source, lambda _: None)
    finally:
        guarding.close()
    (name,) = found.slower
    assert found.dispatches[0].ratio_high < 1
    assert found.dispatches[0].share is not None
    assert (found.unmatched_good, found.unmatched_bad, found.skipped) == ((), (), {})
    before, after = tasks[name]
    assert before is not None
    assert after is not None
    files = [path.name for path in leave_dispatch(name, after, bad, tmp_path / "out")]
    assert files == [f"{name}-{bad.version}{suffix}" for suffix in (".mlir", ".configured.mlir", ".s")]
    assert "lowering_config" in (tmp_path / "out" / files[1]).read_text()


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
    head, _, _, *rows = against_lines([model, slow, same], 80)
    assert "against iree==3.12.0" in head
    assert [row.split()[-1] for row in rows] == ["slower", "75%", "0%", "25%"]
    assert "same code" in rows[2]
    unsure = msgspec.structs.replace(model.verdict, metrics=model.verdict.metrics | {"ratio_high": 1.1})
    rows = list(against_lines([msgspec.structs.replace(model, verdict=unsure), slow], 80))
    assert not any("%" in row for row in rows)
    assert max(map(len, rows)) <= 80
