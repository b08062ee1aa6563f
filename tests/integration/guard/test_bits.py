"""Equal bits: an entry tuned so has a check of its own, which another order of a sum fails while it stays correct."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement.correctness import Check, with_bits
from pytest_shark_tune.records.snapshot import write_spec
from pytest_shark_tune.records.types import RecordedOp
from pytest_shark_tune.search_space.candidate import applied_candidate
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.settings import RunSettings
from tests.factories import make_winner

SOURCE = ops.matmul(m=64, n=64, k=64)


CONFIG = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [32, 16, 0], "
    "vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
ZERO = "0.000000e+00"


def verdicts(directory: Path, start: str) -> dict[EntryCheck, Verdict]:
    """The verdicts on an entry whose sums start at ``start``."""
    directory.mkdir()
    settings = RunSettings.in_directory(directory, ("local-task",), "this CPU", jobs=2)
    session = GuardSession(settings, Compiler(Target.parse("llvm-cpu")), Cache(directory / "cache"))
    try:
        (directory / "none.mlir").write_text("module {}")
        (task,) = session.guard_plan([SOURCE], directory, directory / "none.mlir").plan.tasks
        candidate = applied_candidate(task.name, CONFIG, identifier="c0ffee", knobs={})
        record = make_winner(
            "c0ffee",
            dispatch=task.name,
            device="this CPU",
            target="llvm-cpu",
            root=task.dispatch.root,
            compilation_info=candidate.compilation_info,
            ops=tuple(RecordedOp(member.source, member.symbol) for member in task.dispatch.members),
        )
        spec = directory / "spec.mlir"
        write_spec(spec, [msgspec.structs.replace(record, bitwise=True)])
        plan = session.guard_plan([SOURCE], directory, spec)
        (entry,) = plan.entries
        assert entry.checks[-2:] == (EntryCheck.BITS, EntryCheck.FAST)
        text = task.dispatch.members[0].module.text
        assert ZERO in text
        out = directory / "entry.vmfb"
        session.compiler.compile_sources(text.replace(ZERO, start), out)
        artifact = Artifact(candidate="c0ffee", state="compiled", vmfb=str(out), sha256="0")
        return {
            check: session.evaluator.evaluate(plan, entry, check, artifact, alpha=0.002)
            for check in (EntryCheck.CORRECT, EntryCheck.BITS)
        }
    finally:
        session.close()


@pytest.mark.compiler
def test_a_result_that_is_off_by_a_rounding_is_correct_and_has_other_bits(tmp_path: Path) -> None:
    same, other = verdicts(tmp_path / "same", ZERO), verdicts(tmp_path / "other", "1.000000e-07")
    assert {verdict.outcome for verdict in (*same.values(), other[EntryCheck.CORRECT])} == {CheckOutcome.PASSED}, other
    assert other[EntryCheck.BITS].outcome is CheckOutcome.FAILED
    assert "of 4096 elements differ in their bits, first at [" in other[EntryCheck.BITS].reason


def test_bits_are_compared_with_their_signs_and_any_nan_is_a_nan() -> None:
    right = Check(ok=True, compared=3)
    was = np.array([1.0, 0.0, np.nan], np.float32)
    assert with_bits(right, was, was.copy()).ok
    signed = with_bits(right, was, np.array([1.0, -0.0, np.nan], np.float32))
    assert (signed.ok, signed.differing, signed.first_bad) == (False, 1, (1,))
    near = with_bits(right, was, np.array([np.nextafter(np.float32(1), np.float32(2)), 0.0, np.nan], np.float32))
    assert "1 of 3 elements differ in their bits, first at [0]" in near.reason
    assert with_bits(Check(ok=False), was, was).differing == 0
