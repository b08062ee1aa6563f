"""Every way in which a spec rots, told by the real compiler: each is found by the promise that it breaks, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.guardplan import GuardPlan
from pytest_shark_tune.plan import Task
from pytest_shark_tune.session import Session
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.snapshot import records_path, write_spec
from pytest_shark_tune.stages.candidate import applied_candidate
from pytest_shark_tune.stages.guard import Outcome, Promise, Verdict
from pytest_shark_tune.stages.record import RecordedOp, State, WinnerRecord
from pytest_shark_tune.stages.space import SpaceRequest
from pytest_shark_tune.tools.cache import Cache
from pytest_shark_tune.tools.compiler import Compiler, Target

MODEL = """
func.func @plain(%a: tensor<64x32xf32>, %b: tensor<32x48xf32>) -> tensor<64x48xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x48xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<64x48xf32>) -> tensor<64x48xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<64x32xf32>, tensor<32x48xf32>)
      outs(%f : tensor<64x48xf32>) -> tensor<64x48xf32>
  return %0 : tensor<64x48xf32>
}
func.func @batch(%a: tensor<3x32x64xf32>, %b: tensor<3x64x48xf32>) -> tensor<3x32x48xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<3x32x48xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<3x32x48xf32>) -> tensor<3x32x48xf32>
  %0 = linalg.batch_matmul ins(%a, %b : tensor<3x32x64xf32>, tensor<3x64x48xf32>)
      outs(%f : tensor<3x32x48xf32>) -> tensor<3x32x48xf32>
  return %0 : tensor<3x32x48xf32>
}
"""
PLAIN, BATCH = "matmul_64x48x32_f32", "batch_matmul_3x32x48x64_f32"


def info(levels: str) -> str:
    return (
        f"#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<{levels}>, "
        "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    )


INFOS = {
    PLAIN: info("distribution = [32, 16, 0], vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]"),
    BATCH: info(
        "distribution = [1, 16, 48, 0], vector_common_parallel = [1, 4, 16, 0], vector_reduction = [0, 0, 0, 8]"
    ),
}


class Workshop:
    """A model whose dispatches are found, and specs for it, each guarded in a file of its own."""

    def __init__(self, folder: Path, **settings: str | tuple[str, ...]) -> None:
        self.folder = folder
        (folder / "model.mlir").write_text(MODEL, encoding="utf-8")
        self.session = Session(
            RunSettings(
                devices=(),
                device_name="this very CPU",
                jobs=2,
                candidates=1,
                seed=0,
                records=folder / "records.jsonl",
                finals=folder / "finals.jsonl",
                exchange=folder / "exchange",
                request=SpaceRequest(),
            ),
            Compiler(Target.parse("llvm-cpu:x86-64-v3")),
            Cache(folder / "cache"),
        )
        (self.folder / "none.mlir").write_text("module {}", encoding="utf-8")
        found = self.guarded(self.folder / "none.mlir").plan.tasks
        self.tasks = {task.name: task for task in found}

    def winner(self, name: str, compilation_info: str = "", **changes: object) -> WinnerRecord:
        """The record of an entry for the dispatch of that name, as tuning writes one, but for ``changes``."""
        task = self.tasks[name]
        candidate = applied_candidate(name, compilation_info or INFOS[name], identifier="c0ffee", knobs={})
        record = WinnerRecord(
            id=candidate.id,
            dispatch=name,
            pipeline=candidate.pipeline,
            knobs={},
            config=candidate.config,
            state=State.MEASURED,
            ratio=1.5,
            ratio_low=1.4,
            ratio_high=1.6,
            device="this very CPU",
            target="llvm-cpu:x86-64-v3",
            iree="3.12.0",
            root=task.dispatch.root,
            weight=1,
            compilation_info=candidate.compilation_info,
            ops=tuple(RecordedOp(member.source, member.symbol) for member in task.dispatch.members),
        )
        return msgspec.structs.replace(record, **changes)

    def guarded(self, spec: Path) -> GuardPlan:
        return self.session.guard_plan(["model.mlir"], self.folder, spec)

    def spec(self, path: Path, winners: Sequence[WinnerRecord], *, with_records: bool = True) -> GuardPlan:
        write_spec(path, winners)
        if not with_records:
            records_path(path).unlink()
        return self.guarded(path)

    def look(self, guarded: GuardPlan, name: str, promise: Promise) -> Verdict:
        return self.session.look(guarded, guarded.entry(name), promise)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    shop = Workshop(tmp_path_factory.mktemp("workshop"))
    yield shop
    shop.session.close()


def like(task: Task, **changes: object) -> WinnerRecord:
    raise NotImplementedError


def test_promises_that_hold_are_kept(workshop: Workshop, tmp_path: Path) -> None:
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(PLAIN), workshop.winner(BATCH)])
    assert [entry.name for entry in guarded.entries] == [PLAIN, BATCH]
    verdicts = {promise: workshop.look(guarded, PLAIN, promise) for promise in Promise}
    assert [verdicts[each].outcome for each in Promise if each.is_static] == [Outcome.KEPT] * 3, verdicts
    for promise in (Promise.CORRECT, Promise.FAST):
        assert verdicts[promise].outcome is Outcome.SKIPPED
        assert "there is no device here that runs llvm-cpu:x86-64-v3" in verdicts[promise].reason
