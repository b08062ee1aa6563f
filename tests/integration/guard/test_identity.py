"""Speed by the identity of machine code: equal code passes without the device, and changed code asks for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.records.snapshot import write_spec
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.search_space.candidate import applied_candidate
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.builder import recorded_code
from pytest_shark_tune.tuning.settings import RunSettings
from tests.factories import make_winner

SOURCE = ops.matmul(m=64, n=64, k=64)
CONFIG = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [32, 16, 0], "
    "vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)


def session(directory: Path, *flags: str, target: str = "llvm-cpu", devices: tuple[str, ...] = ()) -> GuardSession:
    found = RunSettings.in_directory(directory, devices, "this CPU", jobs=2)
    return GuardSession(found, Compiler(Target.parse(target), flags), Cache(directory / "cache"))


def recorded(directory: Path) -> Path:
    """A spec with the record that a machine of another CPU made."""
    tuning = session(directory)
    (directory / "none.mlir").write_text("module {}")
    (task,) = tuning.guard_plan([SOURCE], directory, directory / "none.mlir").plan.tasks
    candidate = applied_candidate(task.name, CONFIG, identifier="c0ffee", knobs={})
    code = recorded_code(tuning.builder, task, candidate)
    assert code is not None
    assert code.cpu == tuning.compiler.host_cpu[0]
    record = make_winner(
        "c0ffee",
        dispatch=task.name,
        device="another CPU",
        target="llvm-cpu",
        root=task.dispatch.root,
        compilation_info=candidate.compilation_info,
        ops=tuple(RecordedOp(member.source, member.symbol) for member in task.dispatch.members),
    )
    spec = directory / "spec.mlir"
    write_spec(spec, [msgspec.structs.replace(record, code=code)])
    tuning.close()
    return spec


def fast(guarding: GuardSession, spec: Path) -> Verdict:
    plan = guarding.guard_plan([SOURCE], spec.parent, spec)
    verdict = guarding.evaluator.evaluate(plan, plan.entries[0], EntryCheck.FAST, alpha=0.002)
    guarding.close()
    return verdict


@pytest.mark.compiler
def test_equal_code_is_fast_by_identity_and_changed_code_needs_the_device(tmp_path: Path) -> None:
    spec = recorded(tmp_path)
    equal = fast(session(tmp_path), spec)
    assert (equal.outcome, equal.by_identity) == (CheckOutcome.PASSED, True)
    changed = fast(session(tmp_path, "--regalloc=basic"), spec)
    assert changed.outcome is CheckOutcome.SKIPPED
    assert "needs the device, since its own and the default's machine code is not" in changed.reason


@pytest.mark.slow
@pytest.mark.compiler
def test_code_for_host_is_compared_for_the_recorded_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recorded(tmp_path)
    monkeypatch.setattr(Compiler, "host_cpu", ("x86-64", ""))  # As if the machine here were another one.
    assert fast(session(tmp_path), spec).by_identity


def test_a_record_without_code_says_where_it_was_recorded(tmp_path: Path) -> None:
    spec = recorded(tmp_path)
    path = spec.with_suffix(".jsonl")
    record = msgspec.json.decode(path.read_bytes(), type=WinnerRecord)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, code=None)))
    verdict = fast(session(tmp_path, devices=("local-task",)), spec)
    assert (verdict.outcome, verdict.reason) == (CheckOutcome.SKIPPED, "recorded on another CPU, this is this CPU")
