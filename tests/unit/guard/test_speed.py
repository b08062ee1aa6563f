"""The sequential test of an entry's speed: when the check fails or passes, and how often either is wrong."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.guard.speed import (
    RUN_ALPHA,
    AcceptanceCriteria,
    decide,
    judge,
    most_rounds,
    run_sequential_test,
    session_allowance,
)
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck
from pytest_shark_tune.measurement.change_points import Spread
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, Measurement
from pytest_shark_tune.records.types import WinnerRecord
from tests.factories import make_winner

ALPHA = 1e-3
FEWEST = 11
"""Rounds below what they are held to that break a check of that alpha, without one above: 1.9**11 > 1000."""
CRITERIA = AcceptanceCriteria(alpha=ALPHA, device="a CPU", iree="3.13.0")
RECORDED_ROUNDS = Path(__file__).parents[3] / "benchmarks" / "results" / "h200_power" / "power.json"

Noise = Callable[[random.Random], float]
"""Draws the logarithm of what a process adds to a ratio."""


def heavy(chance: random.Random) -> float:
    """Student's t with 3 degrees of freedom, at 3%."""
    squares = math.fsum(chance.gauss(0, 1) ** 2 for _ in range(3))
    return 0.03 * chance.gauss(0, 1) / math.sqrt(squares / 3)


NOISES: dict[str, Noise] = {
    "a GPU": lambda chance: chance.gauss(0, 0.003),
    "normal": lambda chance: chance.gauss(0, 0.03),
    "heavy tails": heavy,
    "two speeds": lambda chance: chance.choice((-0.05, 0.05)) + chance.gauss(0, 0.01),
    "one in seven is slow": lambda chance: -0.11 * (chance.random() < 1 / 7) + chance.gauss(0, 0.01),
    "one in seven is fast": lambda chance: 0.11 * (chance.random() < 1 / 7) + chance.gauss(0, 0.01),
}


def measured(ratio: float, *, noise: float = 0.007, blocks: int = 4, baseline_us: float = 1500.0) -> Measurement:
    return Measurement(
        samples_us=(baseline_us / ratio,),
        baseline_samples_us=(baseline_us,),
        ratio=ratio,
        ratio_low=ratio * 0.99,
        ratio_high=ratio * 1.01,
        batch=10,
        blocks=blocks,
        noise=noise,
    )


def recorded(ratio: float, low: float, high: float, *, iree: str = "3.13.0") -> WinnerRecord:
    samples = {"samples_us": (1500 / ratio,), "baseline_samples_us": (1500.0,)}
    return make_winner("3f9a1c", **samples, ratio=ratio, ratio_low=low, ratio_high=high, device="a CPU", iree=iree)


def held_to(ratio: float, low: float, high: float, *, iree: str = "3.13.0") -> AcceptanceCriteria:
    return msgspec.structs.replace(CRITERIA, record=recorded(ratio, low, high, iree=iree))


def tuned(rounds: Sequence[Measurement]) -> AcceptanceCriteria:
    """The criteria of an entry that a final of these rounds recorded."""
    joined = combine_rounds(rounds)
    return held_to(joined.ratio, joined.ratio_low, joined.ratio_high)


def outcome_of(ratios: Callable[[], float], criteria: AcceptanceCriteria) -> CheckOutcome:
    return run_sequential_test("matmul", lambda _number: measured(ratios()), criteria).outcome


def outcomes(noise: Noise, true: float, slowed: float, count: int) -> Counter[CheckOutcome]:
    """What comes of entries of the ratio ``true``, recorded on such a machine, then ``slowed`` times as slow."""
    chance = random.Random(0)
    found: Counter[CheckOutcome] = Counter()
    for _ in range(count):
        criteria = tuned([measured(true * math.exp(noise(chance))) for _ in range(FINAL_ROUNDS)])
        found[outcome_of(lambda: true / slowed * math.exp(noise(chance)), criteria)] += 1
    return found


def alarms(alpha: float, below: float) -> float:
    """How often a check is broken, exactly, where a round lies below its bar with probability ``below``.

    Rounds are so noisy that none is kept early.
    """
    criteria = msgspec.structs.replace(CRITERIA, alpha=alpha, budget_s=math.inf)
    walks = {(0, 0): 1.0}
    broken = 0.0
    while walks:
        following: dict[tuple[int, int], float] = {}
        for (slow, fast), probability in walks.items():
            for step, part in (((slow + 1, fast), below), ((slow, fast + 1), 1 - below)):
                rounds = [measured(0.9, noise=10)] * step[0] + [measured(1.1, noise=10)] * step[1]
                outcome = decide(rounds, criteria)
                if outcome is None:
                    following[step] = following.get(step, 0.0) + probability * part
                broken += probability * part * (outcome is CheckOutcome.FAILED)
        walks = following
    return broken


@pytest.mark.parametrize("alpha", [RUN_ALPHA, 1e-3, 1e-4, 1e-5])
def test_false_alarms_are_as_rare_as_alpha_says(alpha: float) -> None:
    """Whatever the noise is like: only half of the processes have to reach what the entry is held to."""
    assert alpha / 10 < alarms(alpha, 0.5) <= alpha
    assert alarms(alpha, 0.4) < alpha / 10
    assert alarms(alpha, 0.97) > 0.95


@pytest.mark.parametrize("name", NOISES)
def test_an_unchanged_entry_is_not_broken(name: str) -> None:
    """The record is as lucky or unlucky as its own five rounds; one in a thousand may be."""
    found = outcomes(NOISES[name], 1.5, 1.0, 300)
    assert found[CheckOutcome.FAILED] <= 1
    assert found[CheckOutcome.PASSED] >= 280


@pytest.mark.parametrize("name", NOISES)
def test_an_entry_as_fast_as_the_default_is_not_broken_without_a_record(name: str) -> None:
    chance, noise = random.Random(0), NOISES[name]
    found = Counter(outcome_of(lambda: math.exp(noise(chance)), CRITERIA) for _ in range(150))
    assert found[CheckOutcome.FAILED] <= 1


@pytest.mark.parametrize(("name", "slowed", "least"), [("a GPU", 1.15, 200), ("a GPU", 1.3, 200), ("normal", 1.3, 190)])
def test_a_slower_entry_is_broken(name: str, slowed: float, least: int) -> None:
    found = outcomes(NOISES[name], 1.5, slowed, 200)
    assert found[CheckOutcome.FAILED] >= least
    assert found[CheckOutcome.PASSED] == 0


def test_measured_rounds_tell_a_slower_config_from_an_equal_one() -> None:
    """42 processes on an H200 in which equal configs met, and one that was 10% slower."""
    ratios = json.loads(RECORDED_ROUNDS.read_text(encoding="utf-8"))["ratios"]
    chance = random.Random(0)
    found: dict[str, Counter[CheckOutcome]] = {"same": Counter(), "10% slower": Counter()}
    for name, counted in found.items():
        for _ in range(200):
            criteria = tuned([measured(each) for each in chance.sample(ratios["same"], FINAL_ROUNDS)])
            counted[outcome_of(lambda name=name: chance.choice(ratios[name]), criteria)] += 1  # type: ignore[misc]
    assert found["same"] == {CheckOutcome.PASSED: 200}
    assert found["10% slower"] == {CheckOutcome.FAILED: 200}


def test_an_unchanged_entry_takes_few_rounds() -> None:
    chance = random.Random(0)
    counts = []
    for _ in range(100):
        criteria = tuned([measured(1.5 * math.exp(chance.gauss(0, 0.01))) for _ in range(FINAL_ROUNDS)])
        verdict = run_sequential_test(
            "matmul", lambda _number: measured(1.5 * math.exp(chance.gauss(0, 0.01))), criteria
        )
        counts.append(verdict.metrics["rounds"])
    assert min(counts) == 3
    assert sorted(counts)[90] <= 5


def test_rounds_that_agree_by_luck_are_no_surer_than_each_of_them() -> None:
    criteria = held_to(1.5, 1.45, 1.55)
    assert decide([measured(1.5)] * 3, criteria) is CheckOutcome.PASSED
    assert decide([measured(1.5, noise=0.2)] * 3, criteria) is None


def test_what_lies_above_what_is_held_to_is_kept_and_told() -> None:
    verdict = run_sequential_test("matmul", lambda _number: measured(1.5), held_to(1.5, 1.45, 1.55))
    assert (verdict.outcome, verdict.check, verdict.entry) == (CheckOutcome.PASSED, EntryCheck.FAST, "matmul")
    assert (verdict.reason, verdict.note) == ("", "")
    assert verdict.metrics["ratio"] == pytest.approx(1.5)
    assert verdict.metrics["ratio_wanted"] == pytest.approx(1.45 * 0.96)
    assert verdict.metrics["baseline_us"] == 1500
    assert verdict.metrics["tuned_us"] == 1000
    assert verdict.metrics["recorded_ratio_low"] == 1.45
    assert verdict.metrics["rounds"] == 3


def test_a_broken_promise_tells_both_intervals_device_and_versions() -> None:
    verdict = run_sequential_test("matmul", lambda _number: measured(1.2), held_to(1.5, 1.45, 1.55, iree="3.12.0"))
    assert verdict.outcome is CheckOutcome.FAILED
    assert verdict.metrics["rounds"] == FEWEST
    assert verdict.reason.splitlines() == [
        (
            "it is slower than recorded: it should reach 1.392 times the default's speed, the lower end recorded less "
            "4% (--tune-tolerance)"
        ),
        (
            "now: 1.200 (1.190 to 1.210) times the default's speed in 11 fresh processes, 1.25 ms where the default "
            "takes 1.5 ms, on a CPU"
        ),
        "recorded: 1.500 (1.450 to 1.550), 1 ms where the default took 1.5 ms, on a CPU",
        "recorded with IREE 3.12.0, now IREE 3.13.0",
        "tune it again with --tune, or remove the entry if the default will do",
    ]


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({"fingerprint": "other"}, True),
        ({"fingerprint": "this"}, False),
        ({"fingerprint": ""}, False),
        ({"fingerprint": "other", "iree": "3.12.0"}, False),
        ({"fingerprint": "other", "device": "another CPU"}, False),
    ],
)
def test_that_an_entry_was_tuned_in_another_setting_is_told(changes: dict[str, str], *, is_told: bool) -> None:
    criteria = held_to(1.5, 1.45, 1.55)
    assert criteria.record is not None
    record = msgspec.structs.replace(criteria.record, **changes)
    criteria = msgspec.structs.replace(criteria, record=record, fingerprint="this")
    verdict = run_sequential_test("matmul", lambda _number: measured(1.2), criteria)
    assert verdict.outcome is CheckOutcome.FAILED
    assert ("--tune-rotate" in verdict.reason) is is_told


def test_an_entry_is_held_to_the_default_too() -> None:
    verdict = run_sequential_test("matmul", lambda _number: measured(0.9), CRITERIA)
    assert verdict.outcome is CheckOutcome.FAILED
    assert verdict.reason.startswith("it is slower than the default, by more than the 2%")
    assert "nothing is recorded for this device" in verdict.reason
    slow = run_sequential_test("matmul", lambda _number: measured(0.9), held_to(1.5, 1.45, 1.55))
    assert slow.reason.startswith("it is slower than the default")


def test_what_layout_alone_can_make_breaks_nothing() -> None:
    assert (
        run_sequential_test("matmul", lambda _number: measured(0.985, noise=0.001), CRITERIA).outcome
        is CheckOutcome.PASSED
    )


def test_an_entry_that_the_default_has_caught_up_with_is_no_longer_needed() -> None:
    verdict = run_sequential_test("matmul", lambda _number: measured(1.0, noise=0.001), CRITERIA)
    assert verdict.outcome is CheckOutcome.PASSED
    assert verdict.note.startswith("no longer needed: the default is as fast, 1.000 (")
    assert run_sequential_test("matmul", lambda _number: measured(1.1, noise=0.001), CRITERIA).note == ""


def test_a_default_that_another_iree_made_faster_is_no_fault_of_the_entry() -> None:
    def faster_default(_number: int) -> Measurement:
        return measured(1.2, baseline_us=1200.0)

    older = run_sequential_test("matmul", faster_default, held_to(1.5, 1.45, 1.55, iree="3.12.0"))
    assert older.outcome is CheckOutcome.PASSED
    assert older.note == (
        "the default of IREE 3.13.0 takes 0.80 times as long as that of 3.12.0: the entry now gives 1.20 instead of "
        "1.50"
    )
    # The same code cannot have become faster: the machine has, and the entry has not kept pace.
    assert run_sequential_test("matmul", faster_default, held_to(1.5, 1.45, 1.55)).outcome is CheckOutcome.FAILED
    # And if the entry's own time is longer than recorded as well, another IREE excuses nothing.
    both = run_sequential_test(
        "matmul", lambda _: measured(1.0, baseline_us=1200.0), held_to(1.5, 1.45, 1.55, iree="3.12.0")
    )
    assert both.outcome is CheckOutcome.FAILED


def test_on_a_machine_that_is_slowed_down_what_was_recorded_breaks_nothing() -> None:
    criteria = held_to(1.5, 1.45, 1.55)
    verdict = run_sequential_test("matmul", lambda _number: measured(1.2, baseline_us=2250.0), criteria)
    assert verdict.outcome is CheckOutcome.UNDECIDED
    assert verdict.reason.startswith("the default itself takes 1.5 times as long as recorded: the machine is busy")
    assert judge("matmul", measured(1.2, baseline_us=2250.0), criteria).outcome is CheckOutcome.UNDECIDED
    # What is slower than the default beside it is so in any state.
    assert (
        run_sequential_test("matmul", lambda _number: measured(0.9, baseline_us=2250.0), criteria).outcome
        is CheckOutcome.FAILED
    )
    assert judge("matmul", measured(0.8, baseline_us=2250.0), criteria).outcome is CheckOutcome.FAILED
    assert (
        run_sequential_test("matmul", lambda _number: measured(1.2, baseline_us=1800.0), criteria).outcome
        is CheckOutcome.FAILED
    )
    assert (
        run_sequential_test("matmul", lambda _number: measured(1.5, baseline_us=2250.0), criteria).outcome
        is CheckOutcome.PASSED
    )


def test_the_tolerance_is_the_users() -> None:
    criteria = msgspec.structs.replace(held_to(1.5, 1.45, 1.55), tolerance=0.2)
    assert run_sequential_test("matmul", lambda _number: measured(1.2), criteria).outcome is CheckOutcome.PASSED


def test_what_cannot_be_told_is_undecided_once_the_time_is_spent() -> None:
    chance = random.Random(1)
    criteria = msgspec.structs.replace(CRITERIA, budget_s=0.0)
    verdict = run_sequential_test("matmul", lambda _number: measured(chance.choice((0.8, 1.2)), noise=0.2), criteria)
    assert verdict.outcome is CheckOutcome.UNDECIDED
    assert verdict.metrics["rounds"] == 4
    assert verdict.reason.startswith("measuring did not decide whether it is as fast as it should be, 0.980 times")


def test_an_entry_on_its_way_to_be_broken_gets_the_time_it_takes() -> None:
    criteria = msgspec.structs.replace(CRITERIA, budget_s=0.0)
    verdict = run_sequential_test("matmul", lambda _number: measured(0.8), criteria)
    assert (verdict.outcome, verdict.metrics["rounds"]) == (CheckOutcome.FAILED, FEWEST)


def test_there_is_a_last_round() -> None:
    rounds = [measured(0.9)] * 9 + [measured(1.1)] * 2 + [measured(0.9)] * 2
    while (outcome := decide(rounds, CRITERIA)) is None:
        rounds = [*rounds, measured(1.1 if len(rounds) % 3 else 0.9)]
    assert (outcome, len(rounds)) == (CheckOutcome.UNDECIDED, most_rounds(ALPHA))
    assert most_rounds(ALPHA) > FEWEST + 2


@pytest.mark.parametrize(
    ("ratio", "low", "high", "outcome"),
    [
        (1.5, 1.48, 1.52, CheckOutcome.PASSED),
        (1.5, 1.30, 1.73, CheckOutcome.UNDECIDED),
        (1.2, 1.19, 1.21, CheckOutcome.FAILED),
        # Below what it is held to with 95%, but not with 99.9%.
        (1.2, 1.10, 1.31, CheckOutcome.UNDECIDED),
        (0.8, 0.79, 0.81, CheckOutcome.FAILED),
    ],
)
def test_a_clients_own_measurement_is_judged_by_its_interval(
    ratio: float, low: float, high: float, outcome: CheckOutcome
) -> None:
    given = msgspec.structs.replace(measured(ratio, blocks=6), ratio_low=low, ratio_high=high)
    verdict = judge("matmul", given, held_to(1.5, 1.45, 1.55))
    assert verdict.outcome is outcome
    assert verdict.metrics["ratio_low"] == low
    assert ("in 1 process," in verdict.reason) is (outcome is not CheckOutcome.PASSED)


def test_an_interval_over_two_blocks_breaks_nothing() -> None:
    given = msgspec.structs.replace(measured(0.5, blocks=2), ratio_high=0.6)
    assert judge("matmul", given, msgspec.structs.replace(CRITERIA, alpha=1e-5)).outcome is CheckOutcome.UNDECIDED


def test_a_measurement_that_was_cut_short_is_slower_than_the_default() -> None:
    given = msgspec.structs.replace(measured(0.3, blocks=0), ratio_low=0.0, ratio_high=1.0, cut_short=True)
    assert judge("matmul", given, CRITERIA).outcome is CheckOutcome.FAILED


def broken_over_sessions(offset: float, spread: Spread, slowed: float, count: int) -> int:
    """How many entries are broken on a quiet machine where each session has an offset of its own."""
    chance = random.Random(0)
    broken = 0
    for _ in range(count):
        tuning, guarding = chance.gauss(0, offset), chance.gauss(0, offset)
        criteria = tuned([measured(1.5 * math.exp(tuning + chance.gauss(0, 0.003))) for _ in range(FINAL_ROUNDS)])
        criteria = msgspec.structs.replace(criteria, allowance=session_allowance(spread, criteria.alpha))
        mean = 1.5 / slowed * math.exp(guarding)

        def ratio(mean: float = mean) -> float:
            return mean * math.exp(chance.gauss(0, 0.003))

        found = outcome_of(ratio, criteria)
        broken += found is CheckOutcome.FAILED
    return broken


def test_offsets_of_sessions_break_nothing_once_the_history_has_their_spread() -> None:
    unknown, known = Spread(0.0, 0), Spread(0.03, 40)
    assert broken_over_sessions(0.03, unknown, 1.0, 300) > 10
    assert broken_over_sessions(0.03, known, 1.0, 300) == 0
    assert broken_over_sessions(0.03, known, 1.35, 50) == 50
