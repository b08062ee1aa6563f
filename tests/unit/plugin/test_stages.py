"""A client's timer, called in turns for the default and those that are compared with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plugin.stages import time_in_turns

DEFAULT, FAST, SLOW = (Artifact(candidate=name, state="compiled") for name in ("default", "fast", "slow"))
COST = {"default": 10.0, "fast": 5.0, "slow": 20.0}


class Timer:
    """Takes 1% longer at each call; ``bad`` fails at its second."""

    def __init__(self, bad: str = "", command: Sequence[str] = ("-c", "import sys; sys.exit('no counters')")) -> None:
        self.bad = bad
        self.command = command
        self.called: list[str] = []

    def __call__(self, artifact: Artifact, device: str) -> list[float]:
        assert device == "local-task"
        self.called.append(artifact.candidate)
        if artifact.candidate == self.bad and self.called.count(self.bad) == 2:
            subprocess.run([sys.executable, *self.command], check=True, capture_output=True, timeout=0.5)
        return [COST[artifact.candidate] * 1.01 ** len(self.called)] * 2


def turns(timer: Timer) -> tuple[dict[str, float], Mapping[str, CandidateFailed]]:
    measured, failed = time_in_turns(timer, "local-task", DEFAULT, {"fast": FAST, "slow": SLOW})
    return {name: measurement.ratio for name, measurement in measured.items()}, failed


def test_a_drift_cancels() -> None:
    timer = Timer()
    assert turns(timer)[0] == pytest.approx({"fast": 2.0, "slow": 0.5})
    assert timer.called == ["default", "fast", "slow", "slow", "fast", "default"]


def test_one_that_fails_does_not_cost_the_others_their_figures() -> None:
    ratios, failed = turns(Timer("slow"))
    assert list(ratios) == ["fast"]
    assert (failed["slow"].state, "no counters" in failed["slow"].reason) == ("run_failed", True)


def test_a_timer_that_hangs_is_a_run_that_timed_out() -> None:
    _, failed = turns(Timer("fast", ("-c", "import time; time.sleep(60)")))
    assert failed["fast"].state == "run_timeout"


def test_a_default_that_cannot_be_timed_is_told_as_such() -> None:
    with pytest.raises(CandidateFailed, match=r"the default config to compare with failed: .*no counters"):
        turns(Timer("default"))


@pytest.mark.parametrize("samples", [[], [1.0, 0.0]])
def test_a_timer_without_times_fails_the_candidate(samples: list[float]) -> None:
    def timer(artifact: Artifact, device: str) -> list[float]:
        return samples if artifact is FAST else [1.0]

    measured, failed = time_in_turns(timer, "local-task", DEFAULT, {"fast": FAST})
    assert measured == {}
    assert "the suite's timer gave" in failed["fast"].reason
