"""A client's compile step: what it may do, and what becomes of the candidate where it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.records.types import State
from pytest_shark_tune.tuning.compile_step import CompileStep

INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{tile}, 8]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
MODULE = """
func.func @main(%x: tensor<8x8xf32>) -> tensor<8x8xf32> attributes {{
  translation_info = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>
}} {{
  %c = arith.constant 0.0 : f32
  %y = linalg.fill {{lowering_config = #iree_cpu.lowering_config<distribution = [{tile}, 8]>}}
    ins(%c : f32) outs(%x : tensor<8x8xf32>) -> tensor<8x8xf32>
  return %y : tensor<8x8xf32>
}}
"""


def test_what_keeps_the_config_is_taken() -> None:
    step = CompileStep("comment", lambda text: text + "// ours")
    assert step.applied_to(MODULE.format(tile=4), INFO.format(tile=4)).endswith("// ours")


def test_a_step_that_loses_the_config_is_told() -> None:
    step = CompileStep("retile", lambda _: MODULE.format(tile=2))
    assert step.applied_to(MODULE.format(tile=4)) == MODULE.format(tile=2)
    with pytest.raises(CandidateFailed, match="after the compile step retile no op took the config") as told:
        step.applied_to(MODULE.format(tile=4), INFO.format(tile=4))
    assert told.value.state == State.NOT_APPLIED


FAILURES = {
    "exit": ([sys.executable, "-c", "import sys; sys.exit('no such pass')"], State.COMPILE_FAILED, "no such pass"),
    "hang": ([sys.executable, "-c", "import time; time.sleep(60)"], State.COMPILE_TIMEOUT, "timed out"),
    "absent": (["no-such-compiler"], State.COMPILE_FAILED, "no-such-compiler"),
    "words": ([sys.executable, "-c", "print('no module')"], State.COMPILE_FAILED, "the compile step words gave"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_command_that_fails_is_the_candidates_state(name: str) -> None:
    command, state, reason = FAILURES[name]

    def run(text: str) -> str:
        return subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=0.5).stdout

    with pytest.raises(CandidateFailed, match=reason) as told:
        CompileStep(name, run).applied_to(MODULE.format(tile=4), INFO.format(tile=4))
    assert told.value.state == state


def test_a_command_of_ours_that_fails_is_too() -> None:
    def run(text: str) -> str:
        raise CommandFailed("iree-opt exited with 1", stderr="error: unknown pass")

    with pytest.raises(CandidateFailed, match="unknown pass"):
        CompileStep("ours", run).applied_to(MODULE.format(tile=4))
