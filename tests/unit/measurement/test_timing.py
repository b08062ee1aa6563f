"""Calibration, interleaved comparison and intervals, on a synthetic clock with seeded noise."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import msgspec
import pytest

from pytest_shark_tune.measurement.rounds import combine_rounds, is_decided, join_sizes, usual_spread
from pytest_shark_tune.measurement.timing import (
    FINAL,
    FINAL_ROUNDS,
    SCREENING,
    AtSize,
    Measurement,
    Policy,
    Run,
    SizedMeasurement,
    calibrate,
    compare,
    compare_finalists,
    time_limit_s,
)
from pytest_shark_tune.records.types import Finalist, State
from pytest_shark_tune.records.winner import FINALISTS, declare_winner, final_threshold

# The synthetic kernels below take no time, so budgets never end a comparison.
POLICY = Policy(sample_s=0.005, blocks=8, min_blocks=3, budget_s=60.0, cutoff=2.0)
SIMULATED = msgspec.structs.replace(SCREENING, blocks=4, budget_s=60.0)
"""What a screening comes to with real kernels: its budget ends it after four blocks."""


class Kernel:
    """A synthetic kernel: seconds per dispatch, a fixed cost per batch, noise and a drifting clock."""

    def __init__(
        self, seconds: float, *, noise: float = 0.0, seed: int = 0, fixed_s: float = 0.0, clock: list[int] | None = None
    ) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self._noise = noise
        self._random = random.Random(seed)
        self._fixed_s = fixed_s
        self._clock = clock

    def __call__(self, batch: int) -> float:
        self.batches.append(batch)
        drift = 1.0
        if self._clock is not None:
            self._clock[0] += 1
            drift += 0.01 * self._clock[0]
        return (self._fixed_s + self.seconds * batch) * drift * math.exp(self._random.gauss(0, self._noise))

    @property
    def dispatches(self) -> int:
        return sum(self.batches)


def in_processes(rounds: int, one: Callable[[int], Measurement]) -> Measurement:
    return combine_rounds([one(number) for number in range(rounds)])


def measured(ratio: float, *, noise: float = 0.01, blocks: int = 8) -> Measurement:
    return Measurement(
        samples_us=(1.0,),
        baseline_samples_us=(ratio,),
        ratio=ratio,
        ratio_low=ratio * 0.99,
        ratio_high=ratio * 1.01,
        batch=4,
        blocks=blocks,
        noise=noise,
    )


@pytest.mark.parametrize(
    ("seconds", "batch"), [(0.1, 1), (0.005, 1), (0.002, 3), (0.0002, 25), (5e-6, 1000), (1e-9, 4096)]
)
def test_a_batch_fills_the_sample(seconds: float, batch: int) -> None:
    assert calibrate(Kernel(seconds), 0.005) == batch


def test_calibrating_costs_three_to_five_samples() -> None:
    for seconds in (0.002, 0.0002, 5e-6):
        kernel = Kernel(seconds)
        calibrate(kernel, 0.005)
        assert kernel.dispatches * seconds <= 0.025


def test_slow_first_runs_do_not_make_a_small_batch() -> None:
    runs: list[int] = []

    def warming_up(batch: int) -> float:
        runs.append(batch)
        return 0.0002 * batch + (0.003 if len(runs) <= 2 else 0.0)

    assert calibrate(warming_up, 0.005) == 25


def test_a_fixed_cost_per_batch_is_allowed_for() -> None:
    kernel = Kernel(5e-6, fixed_s=50e-6)
    batch = calibrate(kernel, 0.005)
    assert 0.004 < kernel(batch) < 0.006


@pytest.mark.parametrize(("fixed_s", "sample_s"), [(20e-6, 0.005), (100e-6, 0.010), (150e-6, 0.015)])
def test_a_costly_launch_is_spread_over_more_dispatches(fixed_s: float, sample_s: float) -> None:
    kernel = Kernel(50e-6, fixed_s=fixed_s)
    took = kernel(calibrate(kernel, 0.005))
    assert took == pytest.approx(sample_s, rel=0.02)
    assert fixed_s <= 0.0101 * took


def test_a_sample_grows_fourfold_at_most() -> None:
    kernel = Kernel(50e-6, fixed_s=0.002)
    assert kernel(calibrate(kernel, 0.005)) == pytest.approx(0.020, rel=0.02)
    # A dispatch that takes no time beside its launch does not ask for an endless batch.
    assert calibrate(Kernel(1e-12, fixed_s=0.001), 0.005, cap=64) == 64


def test_slow_single_dispatches_on_a_busy_machine_do_not_make_an_endless_batch() -> None:
    def busy(batch: int) -> float:
        return 0.006 if batch == 1 else 0.0006 * batch

    assert busy(calibrate(busy, 0.005)) <= 2 * 0.020


def test_calibrating_ends_with_a_clock_that_stands_still() -> None:
    assert calibrate(lambda _batch: 0.0, 0.005, cap=64) == 64


def test_a_comparison_reports_the_ratio_and_microseconds() -> None:
    measurement = compare(Kernel(0.001), Kernel(0.0015), POLICY)
    assert measurement.ratio == pytest.approx(1.5)
    assert measurement.ratio_low == pytest.approx(1.5)
    assert measurement.median_us == pytest.approx(1000)
    assert measurement.baseline_median_us == pytest.approx(1500)
    assert len(measurement.samples_us) == len(measurement.baseline_samples_us) == 16
    assert (measurement.blocks, measurement.batch, measurement.rounds) == (8, 4, 1)
    assert not measurement.cut_short


def test_a_given_batch_is_kept() -> None:
    candidate = Kernel(0.001)
    assert compare(candidate, Kernel(0.001), POLICY, batch=7).batch == 7
    assert set(candidate.batches[1:]) == {7}


def test_a_linear_drift_of_the_clock_cancels() -> None:
    clock = [0]
    measurement = compare(Kernel(0.001, clock=clock), Kernel(0.001, clock=clock), POLICY, batch=5)
    assert measurement.ratio == pytest.approx(1, abs=1e-3)
    clock[0] = 0
    finalists = {name: Kernel(0.001, clock=clock) for name in "abc"}
    for measurement in compare_finalists(finalists, Kernel(0.001, clock=clock), POLICY, batch=5).values():
        assert measurement.ratio == pytest.approx(1, abs=2e-3)


def test_a_far_slower_candidate_is_cut_short() -> None:
    candidate = Kernel(0.1)
    measurement = compare(candidate, Kernel(0.001), SCREENING)
    assert measurement.cut_short
    assert candidate.batches == [1, 1, 1]
    assert measurement.ratio == pytest.approx(0.01)
    assert (measurement.ratio_low, measurement.ratio_high) == (0.0, 1.0)
    assert not wins_alone(measurement)


def test_a_slower_candidate_that_hides_behind_the_fixed_cost_is_cut_after_one_block() -> None:
    candidate = Kernel(30e-6, fixed_s=100e-6)
    measurement = compare(candidate, Kernel(5e-6, fixed_s=100e-6), POLICY)
    assert measurement.cut_short
    assert len(measurement.samples_us) == 2


@pytest.mark.parametrize("slow_runs", [1, 2])
def test_slow_first_runs_do_not_cut_a_candidate_short(slow_runs: int) -> None:
    runs: list[int] = []

    def candidate(batch: int) -> float:
        runs.append(batch)
        return 0.001 * batch * (50.0 if len(runs) <= slow_runs else 1.0)

    measurement = compare(candidate, Kernel(0.001), POLICY)
    assert not measurement.cut_short
    assert measurement.ratio == pytest.approx(1)


def test_a_hiccup_in_the_first_block_does_not_cut_a_candidate_short() -> None:
    runs: list[int] = []

    def candidate(batch: int) -> float:
        runs.append(batch)
        return 0.001 * batch * (50.0 if len(runs) == 2 else 1.0)

    assert not compare(candidate, Kernel(0.001), POLICY).cut_short


def test_a_clear_loser_gets_no_more_blocks_than_needed() -> None:
    measurement = compare(Kernel(0.0013, noise=0.002, seed=1), Kernel(0.001, noise=0.002, seed=2), POLICY)
    assert measurement.blocks == 2
    assert measurement.ratio_high < 1


def test_whoever_cannot_reach_the_best_gets_two_blocks_and_an_interval() -> None:
    candidate, baseline = Kernel(0.001, noise=0.002, seed=1), Kernel(0.0012, noise=0.002, seed=2)
    measurement = compare(candidate, baseline, POLICY, batch=5, best=1.6)
    assert measurement.blocks == 2
    assert not measurement.cut_short
    assert 1.1 < measurement.ratio_low < 1.2 < measurement.ratio_high < 1.6
    assert compare(candidate, baseline, POLICY, batch=5, best=1.2).blocks == POLICY.blocks


def test_whoever_is_far_from_the_best_is_cut_after_one_block() -> None:
    candidate = Kernel(0.001)
    measurement = compare(candidate, Kernel(0.0012), POLICY, batch=5, best=2.5)
    assert measurement.cut_short
    assert (measurement.ratio_low, measurement.ratio_high) == (0.0, 2.5)
    assert measurement.ratio == pytest.approx(1.2)
    assert candidate.batches == [1, 5, 5]


def test_a_bar_below_one_changes_nothing() -> None:
    measurement = compare(Kernel(0.001), Kernel(0.0009), POLICY, batch=5, best=0.5)
    assert measurement.blocks == 2
    assert measurement.ratio_high < 1


WIDTH = msgspec.structs.replace(POLICY, width=0.01)


def test_a_comparison_ends_once_it_tells_enough() -> None:
    def measurements(noise: float) -> list[Measurement]:
        kernels = [
            (Kernel(0.001, noise=noise, seed=2 * i), Kernel(0.0013, noise=noise, seed=2 * i + 1)) for i in range(40)
        ]
        return [compare(ours, theirs, WIDTH, batch=5) for ours, theirs in kernels]

    quiet, noisy = measurements(0.001), measurements(0.05)
    assert {each.blocks for each in quiet} == {WIDTH.min_blocks}
    assert all(math.log(each.ratio_high / each.ratio) < 0.01 for each in quiet)
    assert sum(each.blocks == WIDTH.blocks for each in noisy) >= 35


def test_a_final_ends_once_all_of_its_intervals_tell_enough() -> None:
    def blocks(noises: list[float]) -> int:
        runs: dict[str, Run] = {str(i): Kernel(0.001, noise=noise, seed=i) for i, noise in enumerate(noises)}
        return compare_finalists(runs, Kernel(0.001, noise=0.001, seed=9), WIDTH, batch=5)["0"].blocks

    assert blocks([0.001, 0.001, 0.001]) == WIDTH.min_blocks
    assert blocks([0.001, 0.001, 0.05]) > WIDTH.min_blocks


class Machine:
    """Kernels on one clock, which is slower by ``slowdown`` in the runs that ``slow`` holds."""

    def __init__(self, slow: range, slowdown: float = 1.4, noise: float = 0.003) -> None:
        self.runs = 0
        self._slow = slow
        self._slowdown = slowdown
        self._noise = noise
        self._random = random.Random(7)

    def kernel(self, seconds: float) -> Run:
        def run(batch: int) -> float:
            self.runs += 1
            speed = self._slowdown if self.runs in self._slow else 1.0
            return seconds * batch * speed * math.exp(self._random.gauss(0, self._noise))

        return run


EARLIER = tuple(1000 * math.exp(random.Random(i).gauss(0, 0.003)) for i in range(24))
STEADY = msgspec.structs.replace(POLICY, blocks=4, cutoff=math.inf)


@pytest.mark.parametrize(
    ("slow", "place"), [(range(2, 5), "within"), (range(3, 4), "within"), (range(5, 9), "earlier")]
)
def test_a_block_in_which_the_machine_was_throttled_is_repeated(slow: range, place: str) -> None:
    machine = Machine(slow)
    measurement = compare(machine.kernel(0.001), machine.kernel(0.001), STEADY, batch=5, earlier=EARLIER)
    assert measurement.ratio == pytest.approx(1, abs=0.01)
    assert (measurement.blocks, measurement.repeated) == (4, 1)
    assert machine.runs == 20
    assert place in measurement.note
    assert "1 block" in measurement.note
    assert max(measurement.samples_us + measurement.baseline_samples_us) < 1100


def test_a_machine_that_stays_throttled_is_measured_as_it_is() -> None:
    machine = Machine(range(1, 10**6))
    measurement = compare(machine.kernel(0.001), machine.kernel(0.0012), STEADY, batch=5, earlier=EARLIER[:16])
    assert measurement.ratio == pytest.approx(1.2, abs=0.01)
    assert (measurement.blocks, measurement.repeated) == (4, 2)
    assert machine.runs == 4 * 6
    assert measurement.note == (
        "unsteady machine: the baseline was up to 68% off its earlier times in 6 blocks (2 repeated)"
    )


def test_a_machine_that_throttles_all_the_time_ends_and_says_so() -> None:
    runs = 0

    def alternating(batch: int) -> float:
        nonlocal runs
        runs += 1
        return 0.001 * batch * (1.0, 1.0, 1.3)[runs % 3]

    measurement = compare(alternating, alternating, STEADY, batch=5, earlier=EARLIER)
    assert (measurement.blocks, measurement.repeated) == (4, 2)
    assert measurement.note == (
        "unsteady machine: the speed drifted by up to 30% within 4 blocks and the baseline was up to 30% off its "
        "earlier times in 2 blocks (2 repeated)"
    )
    finalist = compare_finalists({"a": alternating}, alternating, STEADY, batch=5)["a"]
    assert finalist.blocks == 4
    assert finalist.repeated == 2


def test_a_final_repeats_a_block_too() -> None:
    machine = Machine(range(10, 14))
    runs = {name: machine.kernel(0.001) for name in "abc"}
    measurements = compare_finalists(runs, machine.kernel(0.001), STEADY, batch=5)
    assert {each.repeated for each in measurements.values()} == {1}
    assert all(each.ratio == pytest.approx(1, abs=0.01) for each in measurements.values())


def test_a_steady_machine_is_not_accused() -> None:
    history: tuple[float, ...] = ()
    notes = repeated = 0
    for i in range(200):
        ours, theirs = Kernel(0.001, noise=0.01, seed=2 * i), Kernel(0.001, noise=0.01, seed=2 * i + 1)
        measurement = compare(ours, theirs, STEADY, batch=5, earlier=history)
        history = (history + measurement.baseline_samples_us)[-24:]
        notes += bool(measurement.note)
        repeated += measurement.repeated
    assert notes <= 8
    assert repeated <= 10


def test_the_interval_covers_the_ratio_as_often_as_it_says() -> None:
    for noise in (0.005, 0.02):
        covered = 0
        for i in range(400):
            ours, theirs = Kernel(0.001, noise=noise, seed=2 * i), Kernel(0.0013, noise=noise, seed=2 * i + 1)
            measurement = compare(ours, theirs, SIMULATED, batch=5)
            covered += measurement.ratio_low <= 1.3 <= measurement.ratio_high
        assert 0.92 <= covered / 400 <= 0.98


def test_repeating_blocks_flatters_nobody() -> None:
    chance = random.Random(11)

    def hiccuping(batch: int) -> float:
        return 0.001 * batch * math.exp(chance.gauss(0, 0.01)) * (1.3 if chance.random() < 0.05 else 1.0)

    history: tuple[float, ...] = ()
    logs = []
    for _ in range(300):
        measurement = compare(hiccuping, hiccuping, SIMULATED, batch=5, earlier=history)
        history = (history + measurement.baseline_samples_us)[-24:]
        logs.append(math.log(measurement.ratio))
    deviation = math.sqrt(sum(each**2 for each in logs) / len(logs))
    assert abs(sum(logs) / len(logs)) < 3 * deviation / math.sqrt(len(logs))


def search(truths: list[float], noise: float, seed: int, *, with_bar: bool) -> tuple[set[int], int]:
    """Screen candidates of these ratios one after the other: the four fastest of them, and all blocks run."""
    lows: list[float] = []
    seen: list[tuple[float, int]] = []
    blocks = 0
    for i, truth in enumerate(truths):
        ours, theirs = (
            Kernel(0.001 / truth, noise=noise, seed=seed + 2 * i),
            Kernel(0.001, noise=noise, seed=seed + 2 * i + 1),
        )
        measurement = compare(ours, theirs, SIMULATED, batch=5, best=final_threshold(lows) if with_bar else 1.0)
        blocks += max(measurement.blocks, 1)
        if measurement.ratio_high > 1:
            seen.append((measurement.ratio, i))
        if not measurement.cut_short:
            lows.append(measurement.ratio_low)
    return {i for _, i in sorted(seen)[-FINALISTS:]}, blocks


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_the_bar_saves_blocks_and_loses_no_finalist_that_matters(noise: float) -> None:
    lost = spent = saved = 0
    for number in range(15):
        chance = random.Random(number)
        truths = [math.exp(chance.gauss(0.0, 0.4)) for _ in range(50)]
        best = max(range(50), key=truths.__getitem__)
        all_of_it, whole = search(truths, noise, 1000 * number, with_bar=False)
        with_bar, less = search(truths, noise, 1000 * number, with_bar=True)
        lost += best in all_of_it and best not in with_bar
        spent += whole
        saved += whole - less
    assert lost == 0
    assert saved > 0.1 * spent


def test_limits_follow_the_baseline() -> None:
    assert time_limit_s(0.0) == 2.0
    assert time_limit_s(0.005) == pytest.approx(2.1)
    assert time_limit_s(30.0) > 20 * 30.0


def test_a_final_goes_on_until_each_interval_is_narrow_or_below_one() -> None:
    narrow = [measured(1.5), measured(1.5), measured(1.51)]
    wide = [measured(1.5), measured(1.3), measured(1.7)]
    slower = [measured(0.2), measured(0.3), measured(0.25)]
    assert is_decided([narrow, slower])
    assert not is_decided([narrow, wide])
    assert is_decided([])


def test_the_budget_ends_a_comparison() -> None:
    def slow(batch: int) -> float:
        time.sleep(0.001)
        return 0.001 * batch

    policy = msgspec.structs.replace(POLICY, budget_s=0.0)
    assert compare(slow, slow, policy, batch=1).blocks == policy.min_blocks
    assert compare_finalists({"a": slow}, slow, policy, batch=1)["a"].blocks == policy.min_blocks


def test_screening_a_dispatch_of_two_milliseconds_costs_about_a_tenth_of_a_second() -> None:
    candidate, baseline = Kernel(0.002), Kernel(0.002)
    compare(candidate, baseline, SCREENING)
    assert 0.06 <= (candidate.dispatches + baseline.dispatches) * 0.002 <= 0.12


def test_finalists_run_in_a_fresh_order_with_the_baseline() -> None:
    order: list[str] = []

    def runner(name: str) -> Run:
        def run(batch: int) -> float:
            order.append(name)
            return 0.001 * batch

        return run

    names = ["a", "b", "c"]
    runs = {name: runner(name) for name in names}
    measurements = compare_finalists(runs, runner("default"), POLICY, seed=3, batch=2)
    assert set(measurements) == set(names)
    blocks = [order[start : start + 8] for start in range(0, len(order), 8)]
    assert len(blocks) == POLICY.blocks
    for block in blocks:
        assert block == block[::-1]
        assert sorted(block[:4]) == ["a", "b", "c", "default"]
    assert len({tuple(block) for block in blocks}) > 1
    first = list(order)
    order.clear()
    compare_finalists(runs, runner("default"), POLICY, seed=3, batch=2)
    assert order == first


def test_hiccups_hardly_move_the_ratio() -> None:
    chance = random.Random(4)

    def hiccuping(batch: int) -> float:
        return 0.001 * batch * (3.0 if chance.random() < 0.04 else 1.0)

    policy = msgspec.structs.replace(POLICY, blocks=15)
    measurement = compare(hiccuping, Kernel(0.001), policy, batch=5)
    assert measurement.ratio == pytest.approx(1, abs=0.02)


def test_a_single_block_bounds_nothing() -> None:
    policy = msgspec.structs.replace(POLICY, blocks=1, min_blocks=1)
    measurement = compare(Kernel(0.001), Kernel(0.002), policy)
    assert measurement.ratio_low == 0.0
    assert measurement.ratio_high == math.inf
    assert not wins_alone(measurement)


def wins_alone(measured: Measurement) -> bool:
    """Whether a final of this one alone would have a winner."""
    finalist = Finalist(
        id="it",
        state=State.MEASURED,
        ratio=measured.ratio,
        ratio_low=measured.ratio_low,
        ratio_high=measured.ratio_high,
    )
    return declare_winner([finalist], lambda name: ())[0] == "it"


def test_equal_kernels_rarely_win_a_screening() -> None:
    noise = 0.02
    wins = sum(
        wins_alone(compare(Kernel(0.001, noise=noise, seed=2 * i), Kernel(0.001, noise=noise, seed=2 * i + 1), POLICY))
        for i in range(400)
    )
    assert wins <= 10


def a_round(ratio: float, process_noise: float, seed: int) -> Measurement:
    """One fresh process: a ratio of its own around ``ratio``, then noisy samples."""
    process = math.exp(random.Random(seed).gauss(0, process_noise))
    baseline = Kernel(0.001 * ratio * process, noise=0.01, seed=2 * seed)
    return compare_finalists({"it": Kernel(0.001, noise=0.01, seed=2 * seed + 1)}, baseline, FINAL, batch=5)["it"]


@pytest.mark.parametrize("process_noise", [0.0, 0.01, 0.05])
def test_equal_kernels_never_win_a_final(process_noise: float) -> None:
    wins = sum(
        wins_alone(in_processes(FINAL_ROUNDS, lambda number, i=i: a_round(1.0, process_noise, 100 * i + number)))  # type: ignore[misc]
        for i in range(60)
    )
    assert wins == 0


def test_a_tenth_is_found() -> None:
    found = sum(
        wins_alone(in_processes(FINAL_ROUNDS, lambda number, i=i: a_round(1.1, 0.01, 100 * i + number)))  # type: ignore[misc]
        for i in range(60)
    )
    assert found >= 58


@pytest.mark.parametrize("process_noise", [0.003, 0.05])
def test_the_interval_overlaps_the_one_of_a_new_process(process_noise: float) -> None:
    overlaps = 0
    for i in range(100):
        reported = in_processes(
            FINAL_ROUNDS,
            lambda number, i=i: a_round(1.5, process_noise, 100 * i + number),  # type: ignore[misc]
        )
        afresh = a_round(1.5, process_noise, 100 * i + 99)
        overlaps += reported.ratio_low <= afresh.ratio_high and afresh.ratio_low <= reported.ratio_high
    assert overlaps >= 95


def test_rounds_are_joined_by_a_prediction_interval() -> None:
    joined = combine_rounds([measured(1.4), measured(1.5), measured(1.6)])
    # By hand: Student's t for 2 degrees of freedom at 97.5% is 4.302653.
    logs = [math.log(1.4), math.log(1.5), math.log(1.6)]
    centre = sum(logs) / 3
    deviation = math.sqrt(sum((each - centre) ** 2 for each in logs) / 2)
    half = 4.302653 * deviation * math.sqrt(1 + 1 / 3)
    assert joined.ratio == pytest.approx(math.exp(centre))
    assert joined.ratio_low == pytest.approx(math.exp(centre - half))
    assert joined.ratio_high == pytest.approx(math.exp(centre + half))
    assert joined.process_noise == pytest.approx(deviation)
    assert (joined.rounds, joined.blocks, len(joined.samples_us)) == (3, 24, 3)


def test_rounds_that_agree_by_luck_keep_their_own_noise() -> None:
    joined = combine_rounds([measured(1.5, noise=0.02, blocks=4)] * 3)
    assert joined.process_noise == pytest.approx(0)
    assert math.log(joined.ratio_high / joined.ratio) == pytest.approx(4.302653 * 0.01 * math.sqrt(4 / 3))


def test_a_single_round_stays_as_it_is() -> None:
    assert combine_rounds([measured(1.5)]) == measured(1.5)


def test_few_rounds_take_in_the_usual_spread() -> None:
    finals = [
        [measured(1.5 * math.exp(step)), measured(1.5 * math.exp(-step))] for step in (0.01, 0.02, 0.03, 0.04, 0.05)
    ]
    usual = usual_spread(finals)
    # The variance of two rounds at a distance of 2 * step is 2 * step^2, and half of such variances are below 0.47.
    assert usual == pytest.approx(math.sqrt(2 * 0.03**2 / (1 - 2 / 9) ** 3))
    assert usual_spread(finals[:4]) == 0.0, "four finals do not show what is usual"
    alone, steady = combine_rounds(finals[0]), combine_rounds(finals[0], usual=usual)
    # t is 12.7 with one degree of freedom, 2.57 with five.
    half = 2.5706 * math.sqrt((4 * usual**2 + 2 * 0.01**2) / 5) * math.sqrt(1.5)
    assert math.log(steady.ratio_high / steady.ratio) == pytest.approx(half, rel=1e-4)
    assert steady.ratio == alone.ratio
    assert steady.process_noise == alone.process_noise, "what was measured is not changed"
    wild = [measured(1.0), measured(2.0)]
    assert combine_rounds(wild, usual=usual).ratio_low < 1, "a final's own spread still counts"


def test_rounds_without_an_interval_are_refused() -> None:
    cut = compare(Kernel(0.1), Kernel(0.001), SCREENING)
    for rounds in ([], [measured(1.0), cut]):
        with pytest.raises(ValueError, match="at least one"):
            combine_rounds(rounds)


def drawn(mean_us: float, noise: float, count: int, random_: random.Random) -> list[float]:
    return [mean_us * math.exp(random_.gauss(0, noise)) for _ in range(count)]


def test_samples_of_another_timer_make_a_measurement() -> None:
    measured = Measurement.of_samples([10.0, 10.1, 9.9, 10.0], [20.0, 19.8, 20.2])
    assert measured.ratio == pytest.approx(2.0, rel=1e-3)
    assert 1.9 < measured.ratio_low < 2.0 < measured.ratio_high < 2.1
    assert (measured.samples_us[0], measured.baseline_samples_us[0], measured.rounds) == (10.0, 20.0, 1)
    assert combine_rounds([measured] * 3).rounds == 3


def test_the_interval_of_another_timers_samples_covers_the_ratio_as_often_as_it_says() -> None:
    draw = random.Random(0)
    pairs = [(drawn(10, 0.01, 8, draw), drawn(15, 0.05, 20, draw)) for _ in range(400)]
    covered = sum(each.ratio_low < 1.5 < each.ratio_high for each in (Measurement.of_samples(*pair) for pair in pairs))
    assert 0.92 < covered / len(pairs) < 0.98


def test_a_single_sample_of_another_timer_bounds_nothing() -> None:
    measured = Measurement.of_samples([10.0], [20.0, 20.1])
    assert (measured.ratio_low, measured.ratio_high) == (0.0, math.inf)


@pytest.mark.parametrize(
    "samples", [([], [1.0]), ([1.0], []), ([1.0, 0.0], [1.0]), ([1.0], [math.nan]), ([math.inf], [1.0])]
)
def test_no_samples_are_no_measurement(samples: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="positive, finite samples"):
        Measurement.of_samples(*samples)


def test_a_measurement_survives_a_file() -> None:
    measurement = compare(Kernel(0.001), Kernel(0.0015), POLICY)
    assert msgspec.json.decode(msgspec.json.encode(measurement), type=Measurement) == measurement


# Dispatches with open sizes.


def at_size(ratio: float, *, weight: int = 1, half: float = 0.01, us: float = 100.0, note: str = "") -> AtSize:
    """A measurement at one size, whose interval reaches so far to both sides."""
    measured = Measurement.of_samples([us, us], [us * ratio, us * ratio])
    low, high = ratio - half, ratio + half
    return AtSize(weight, msgspec.structs.replace(measured, ratio=ratio, ratio_low=low, ratio_high=high, note=note))


def test_sizes_join_to_the_weighted_mean_of_their_ratios() -> None:
    sizes = {"x.0=1": at_size(1.5, weight=3, half=0.04), "x.0=64": at_size(1.1, half=0.16, us=500.0)}
    joined = join_sizes(sizes)
    assert joined.ratio == pytest.approx((3 * 1.5 + 1.1) / 4)
    assert joined.ratio - joined.ratio_low == pytest.approx(math.hypot(0.75 * 0.04, 0.25 * 0.16))
    assert joined.ratio_high - joined.ratio == pytest.approx(joined.ratio - joined.ratio_low)
    assert joined.median_us == pytest.approx((3 * 100 + 500) / 4)
    assert joined.baseline_median_us == pytest.approx((3 * 150 + 550) / 4)
    assert isinstance(joined, SizedMeasurement)
    assert joined.sizes == sizes
    assert not joined.note


def test_no_gain_makes_up_for_a_size_that_is_slower_by_more_than_the_noise_floor() -> None:
    fast = at_size(9.0)
    assert join_sizes({"a": fast, "b": at_size(0.981)}).ratio > 4
    slow = join_sizes({"a": fast, "b": at_size(0.95, note="unsteady"), "c": at_size(0.97)})
    assert (slow.ratio, slow.ratio_high) == pytest.approx((0.95, 0.96))
    assert slow.note == "at b it comes to 0.950 times the default's speed; at b: unsteady"
    assert declare_winner([Finalist.of("x", slow)], lambda name: (0,))[0] is None


def test_one_process_refuses_what_is_slower_for_sure() -> None:
    fast, unsure = at_size(2.0), at_size(0.95, half=0.1)
    assert join_sizes({"a": fast, "b": unsure}).ratio == pytest.approx(0.95)
    assert join_sizes({"a": fast, "b": unsure}, one_process=True).ratio == pytest.approx((2 + 0.95) / 2)
    assert join_sizes({"a": fast, "b": at_size(0.95)}, one_process=True).ratio == pytest.approx(0.95)


def test_fixed_sizes_are_joined_with_nothing() -> None:
    alone = at_size(1.2)
    assert join_sizes({"": alone}) is alone.measurement
    named = join_sizes({"x.0=1": alone})
    assert isinstance(named, SizedMeasurement)
    assert named.sizes == {"x.0=1": alone}


def test_rounds_are_combined_size_by_size() -> None:
    rounds = [
        join_sizes({"a": at_size(1.5 + shift), "b": at_size(1.2 - shift, weight=2)}) for shift in (0.0, 0.05, -0.05)
    ]
    joined = combine_rounds(rounds)
    assert isinstance(joined, SizedMeasurement)
    assert joined.rounds == 3
    assert joined.sizes["a"].measurement.ratio == pytest.approx(1.5, abs=0.01)
    assert joined.sizes["b"].weight == 2
    assert joined.ratio == pytest.approx((joined.sizes["a"].measurement.ratio + 2 * 1.2) / 3, abs=0.01)
    assert joined.sizes["a"].measurement.ratio_low < 1.5 < joined.sizes["a"].measurement.ratio_high
    finalist = Finalist.of("x", joined)
    assert finalist.sizes["b"].weight == 2
    assert finalist.sizes["b"].us == pytest.approx(100.0)
