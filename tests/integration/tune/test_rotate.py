"""A run whose data is rotated, and in it a candidate that leaves part of its work undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

SUITE = suite_text("ops.matmul(m=64, n=64, k=64)")
# The first candidate runs one dispatch, whatever it is asked for.
CONFTEST = """
import msgspec
import pytest
from iree.compiler import ir
from iree.compiler.dialects import arith
from pytest_shark_tune.compiler.compiler import Compiler, Target

tried = []

def running_once(text):
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        def visit(op):
            if op.name == "scf.for":
                with ir.InsertionPoint(op):
                    op.operands[1] = arith.constant(ir.IndexType.get(), 1)
            return ir.WalkResult.ADVANCE
        module.operation.walk(visit)
        return str(module)

@pytest.fixture
def artifact(candidate, artifact, tmp_path):
    if candidate.config is None or not candidate.knobs:
        return artifact
    tried.append(candidate.id)
    if len(tried) > 1:
        return artifact
    vmfb = tmp_path / "once.vmfb"
    text = running_once(candidate.task.dispatch.members[0].module.text)
    Compiler(Target.parse("llvm-cpu")).compile_sources(text, vmfb)
    return msgspec.structs.replace(artifact, vmfb=str(vmfb), sha256="of its own")
"""


@pytest.mark.slow
def test_work_left_undone_on_a_copy_is_a_wrong_result(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": CONFTEST})
    outcome = suite.tune("--tune-trials=2", "--tune-rotate=256K", "--tune-seed=3")
    assert outcome.status == 0, outcome.text
    default, wrong, other = outcome.records
    assert (default["state"], wrong["state"], other["state"]) == ("measured", "wrong_result", "measured")
    assert "in copy 1: expected " in wrong["reason"]
    check = wrong["check"]
    assert (check["seed"], check["copy"], check["first_bad"]) == (3, 1, [0, 0])
    assert check["magnitude"] == pytest.approx(64**0.5 / 3, rel=0.1), "sums of 64 products of uniform numbers"
    assert (default["check"], other["check"]) == (None, None)


def test_a_size_that_is_none_is_refused(make_suite: MakeSuite) -> None:
    outcome = make_suite({"test_suite.py": SUITE}).tune("--tune-rotate=lots")
    assert outcome.status == 4
    outcome.lines.fnmatch_lines(["ERROR: --tune-rotate: 'lots' is not a size; give for example 256M, 1G or auto"])
