"""The speed check of a spec entry: a sequential test over rounds in fresh processes.

docs/measurement.md explains the decisions of the test, and their cost.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement.change_points import Spread
from pytest_shark_tune.measurement.intervals import student_quantile
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.tuning.settings import TOLERANCE

__all__ = [
    "RUN_ALPHA",
    "AcceptanceCriteria",
    "decide",
    "judge",
    "log_e_value",
    "most_rounds",
    "run_sequential_test",
    "session_allowance",
]

RUN_ALPHA = 0.002
"""The probability of a false alarm that all speed checks of a run have together."""

_BUDGET_S = 10.0
_FEWEST_TO_KEEP, _FEWEST = 3, 4
_ALTERNATIVE = 0.95
_GAIN, _LOSS = math.log(2 * _ALTERNATIVE), math.log(2 * (1 - _ALTERNATIVE))
_EXCEPTIONS = 2
_MISS = 0.005
_SHOWN = 0.05
_SLOWED = 1.25
_DEFAULT_THRESHOLD = -math.log(1 + NOISE_FLOOR)
_FEWEST_SESSIONS = 5
_OTHER_ENVIRONMENT = (
    "it was tuned in another environment: give guarding the --iree-compile-flag, --tune-rotate, --tune-restrict and "
    "--tune-knob of tuning, if these changed, or tune it again if the driver or the number of processors did"
)


class AcceptanceCriteria(msgspec.Struct, frozen=True, kw_only=True):
    """The acceptance criteria for an entry's speed, and the facts for a verdict about it."""

    alpha: float
    """The probability of a false alarm that this entry has."""
    device: str
    """The model of the device here."""
    iree: str
    """The release of IREE here."""
    record: WinnerRecord | None = None
    """The entry's record, if it was measured on this model of device. Otherwise only the default's speed counts."""
    fingerprint: str = ""
    """The fingerprint of the environment here; empty if it is not known."""
    tolerance: float = TOLERANCE
    """How far the ratio may fall below the lower end of the recorded one."""
    allowance: float = 0.0
    """The logarithm of a ratio that sessions may differ by: the least tolerance."""
    budget_s: float = _BUDGET_S
    """The seconds for an entry that does not look too slow; four rounds are played even if they take longer."""


def session_allowance(spread: Spread | None, alpha: float) -> float:
    """The logarithm of a ratio by which an unchanged entry falls below its record with a probability of ``alpha``.

    The session of tuning and that of guarding each have an offset of their own. 0 if fewer than five are known.
    """
    if spread is None or spread.freedom < _FEWEST_SESSIONS:
        return 0.0
    return student_quantile(spread.freedom, 2 * alpha) * math.sqrt(2) * spread.deviation


def run_sequential_test(entry: str, play: Callable[[int], Measurement], criteria: AcceptanceCriteria) -> Verdict:
    """Play rounds until they decide, or until the limit is reached.

    Args:
        entry: the name of the entry.
        play: plays the round of a number in a fresh process. Its exceptions end the test.
        criteria: the acceptance criteria.
    """
    rounds: list[Measurement] = []
    started = time.perf_counter()
    outcome: CheckOutcome | None = None
    while outcome is None:
        rounds.append(play(len(rounds)))
        outcome = decide(rounds, criteria, time.perf_counter() - started)
    return _speed_verdict(entry, outcome, combine_rounds(rounds), criteria)


def decide(rounds: Sequence[Measurement], criteria: AcceptanceCriteria, spent_s: float = 0.0) -> CheckOutcome | None:
    """Decide from the rounds played so far.

    The margin of a round is the logarithm of its ratio by the threshold. Only the signs of the margins can fail an
    entry, by Wald's sequential test: every round bets 19 to 1, at even odds, that its margin is negative, and the entry
    fails when the e-value reaches 1 / ``alpha``. If at least half of all processes have a margin of zero or more, that
    happens with a probability of ``alpha`` at most, for any number of rounds, any stopping rule and any distribution of
    the margins (Ville 1939; Wald, 'Sequential Tests of Statistical Hypotheses', 1945). An entry passes if the lower end
    of the t-interval for the mean margin is positive. If the default itself takes far longer than when it was recorded,
    the recorded times fail nothing.

    Args:
        rounds: the rounds.
        criteria: the acceptance criteria.
        spent_s: the seconds that the rounds took.

    Returns:
        The outcome; ``None`` if another round is needed.
    """
    count = len(rounds)
    margins = [math.log(played.ratio) - _threshold(played, criteria) for played in rounds]
    log_e, enough = log_e_value(margins), -math.log(criteria.alpha)
    if log_e >= enough:
        slowest = _default_threshold(criteria)
        below_default = log_e_value([math.log(played.ratio) - slowest for played in rounds]) >= enough
        baseline_us = statistics.median(played.baseline_median_us for played in rounds)
        return CheckOutcome.FAILED if below_default or not _is_slowed(baseline_us, criteria) else CheckOutcome.UNDECIDED
    if count >= _FEWEST_TO_KEEP and _lower_end(rounds, margins) > 0:
        return CheckOutcome.PASSED
    is_late = count >= _FEWEST and spent_s >= criteria.budget_s and log_e <= 0
    return CheckOutcome.UNDECIDED if is_late or count >= most_rounds(criteria.alpha) else None


def most_rounds(alpha: float) -> int:
    """The limit of rounds: enough to fail an entry with two exceptions among them."""
    return math.ceil((-math.log(alpha) - _EXCEPTIONS * _LOSS) / _GAIN) + _EXCEPTIONS


def judge(entry: str, measurement: Measurement, criteria: AcceptanceCriteria) -> Verdict:
    """The verdict on one measurement that a client made in its own way.

    The interval of the measurement covers with a probability of 95%. To fail an entry it is widened to cover with
    1 - ``alpha``. A measurement that was stopped early fails if it is surely slower than the default.
    """
    threshold = _threshold(measurement, criteria)
    is_far_slower = measurement.cut_short and measurement.ratio_high <= 1
    upper_end = _upper_end(measurement, criteria.alpha)
    is_slowed = _is_slowed(measurement.baseline_median_us, criteria)
    if is_far_slower or upper_end < (_default_threshold(criteria) if is_slowed else threshold):
        outcome = CheckOutcome.FAILED
    else:
        outcome = CheckOutcome.PASSED if measurement.ratio_low > math.exp(threshold) else CheckOutcome.UNDECIDED
    return _speed_verdict(entry, outcome, measurement, criteria)


def log_e_value(margins: Sequence[float], stake: float = _ALTERNATIVE) -> float:
    """Return the logarithm of the e-value: of 1 after betting on every margin's being negative.

    Args:
        margins: the margins.
        stake: the part that is bet on "negative", the rest is bet on "positive". The bet gains most if so large a part
            of the margins is negative.
    """
    below = sum(margin < 0 for margin in margins)
    return below * math.log(2 * stake) + (len(margins) - below) * math.log(2 * (1 - stake))


def _threshold(measurement: Measurement, criteria: AcceptanceCriteria) -> float:
    """The logarithm of the ratio that an entry has to reach: the default's, or the recorded one if it is larger.

    One test suffices for both: a ratio below the smaller threshold is below the larger one, too.
    """
    recorded = _recorded_threshold(measurement, criteria)
    default = _default_threshold(criteria)
    return default if recorded is None else max(default, recorded)


def _default_threshold(criteria: AcceptanceCriteria) -> float:
    """The logarithm of the ratio below which an entry is slower than the default."""
    return min(_DEFAULT_THRESHOLD, -criteria.allowance)


def _recorded_threshold(measurement: Measurement, criteria: AcceptanceCriteria) -> float | None:
    """The recorded lower end, less the tolerance, and less the gain of another IREE's default since then."""
    record = criteria.record
    if record is None or not record.ratio_low:
        return None
    tolerance = max(-math.log(1 - criteria.tolerance), criteria.allowance)
    return math.log(record.ratio_low) - tolerance - _default_gained(measurement, criteria)


def _default_gained(measurement: Measurement, criteria: AcceptanceCriteria) -> float:
    """The logarithm of the recorded default's time by the default's now; 0 if it is the same code, or slower.

    A better default makes the ratio fall, which is no fault of the entry. With the same IREE the default cannot have
    become better, so a faster machine excuses nothing.
    """
    record = criteria.record
    if record is None or record.iree == criteria.iree or not record.baseline_samples_us:
        return 0.0
    return max(0.0, math.log(statistics.median(record.baseline_samples_us) / measurement.baseline_median_us))


def _slowdown(baseline_us: float, criteria: AcceptanceCriteria) -> float:
    """The default's time by its recorded time; 1 without a record."""
    if criteria.record is None or not criteria.record.baseline_samples_us:
        return 1.0
    return baseline_us / statistics.median(criteria.record.baseline_samples_us)


def _is_slowed(baseline_us: float, criteria: AcceptanceCriteria) -> bool:
    """Whether the machine is so busy, or throttled, that recorded times say nothing."""
    return _slowdown(baseline_us, criteria) > _SLOWED


def _lower_end(rounds: Sequence[Measurement], margins: Sequence[float]) -> float:
    """The lower end of the t-interval of the mean margin. Its deviation is at least the error within rounds."""
    count = len(margins)
    within = math.sqrt(math.fsum(played.noise**2 / max(played.blocks, 1) for played in rounds) / count)
    error = max(statistics.stdev(margins), within) / math.sqrt(count)
    return statistics.fmean(margins) - student_quantile(count - 1, 2 * _MISS) * error


def _upper_end(measurement: Measurement, alpha: float) -> float:
    """The logarithm of an upper end that is missed with probability ``alpha``, from that of a 95% interval.

    The interval is taken for a t-interval over processes or, if there is only one, over blocks. The upper end of a
    measurement that was stopped early has nothing to do with probability.
    """
    high = math.log(measurement.ratio_high)
    if measurement.cut_short:
        return high
    freedom = max(1, (measurement.rounds if measurement.rounds > 1 else measurement.blocks) - 1)
    wider = student_quantile(freedom, 2 * alpha) / student_quantile(freedom, _SHOWN)
    centre = math.log(measurement.ratio)
    return centre + wider * (high - centre)


def _speed_verdict(entry: str, outcome: CheckOutcome, measured: Measurement, criteria: AcceptanceCriteria) -> Verdict:
    reason = _reason(outcome, measured, criteria) if outcome is not CheckOutcome.PASSED else ""
    return Verdict(
        entry=entry,
        check=EntryCheck.FAST,
        outcome=outcome,
        reason=reason,
        note="" if reason else _note(measured, criteria),
        metrics=_metrics(measured, criteria),
    )


def _reason(outcome: CheckOutcome, measured: Measurement, criteria: AcceptanceCriteria) -> str:
    times = f"{_time(measured.median_us)} where the default takes {_time(measured.baseline_median_us)}"
    lines = [_claim(outcome, measured, criteria), f"now: {_speed_text(measured)}, {times}, on {criteria.device}"]
    record = criteria.record
    if record is not None and record.ratio is not None:
        interval = f"{record.ratio:.3f} ({record.ratio_low or 0:.3f} to {record.ratio_high or 0:.3f})"
        lines.append(f"recorded: {interval}, {_recorded_times(record)}, on {record.device}")
        lines.append(f"recorded with IREE {record.iree}, now IREE {criteria.iree}")
        lines += [_OTHER_ENVIRONMENT] if _is_other_environment(record, criteria) else []
    else:
        lines.append(f"nothing is recorded for this device; IREE {criteria.iree}")
    if outcome is CheckOutcome.FAILED:
        lines.append("tune it again with --tune, or remove the entry if the default will do")
    return "\n".join(lines)


def _is_other_environment(record: WinnerRecord, criteria: AcceptanceCriteria) -> bool:
    """Whether the user, or the owner of the machine, changed the environment, and nothing else changed it."""
    is_comparable = bool(criteria.fingerprint and record.fingerprint) and record.iree == criteria.iree
    return is_comparable and record.device == criteria.device and record.fingerprint != criteria.fingerprint


def _claim(outcome: CheckOutcome, measured: Measurement, criteria: AcceptanceCriteria) -> str:
    threshold = math.exp(_threshold(measured, criteria))
    recorded = _recorded_threshold(measured, criteria)
    if outcome is CheckOutcome.UNDECIDED and _is_slowed(measured.baseline_median_us, criteria):
        return (
            f"the default itself takes {_slowdown(measured.baseline_median_us, criteria):.1f} times as long as "
            "recorded: the machine is busy or throttled, so the entry cannot be compared with its recorded speed"
        )
    if outcome is CheckOutcome.UNDECIDED:
        return (
            f"measuring did not decide whether it is as fast as it should be, {threshold:.3f} times the default's speed"
        )
    default = _default_threshold(criteria)
    if recorded is None or recorded <= default or measured.ratio_high < math.exp(default):
        return f"it is slower than the default, by more than the {1 - math.exp(default):.0%} that layout alone can make"
    sessions = -math.expm1(-criteria.allowance)
    less = (
        f"{sessions:.1%}, by which sessions differ (--tune-history)"
        if sessions > criteria.tolerance
        else f"{criteria.tolerance:.0%} (--tune-tolerance)"
    )
    return (
        f"it is slower than recorded: it should reach {threshold:.3f} times the default's speed, the lower end "
        f"recorded less {less}"
    )


def _note(measured: Measurement, criteria: AcceptanceCriteria) -> str:
    """A remark on an entry that is fast enough."""
    if measured.ratio_high <= 1 + NOISE_FLOOR:
        return f"no longer needed: the default is as fast, {_speed_text(measured)}"
    gained = _default_gained(measured, criteria)
    record = criteria.record
    if record is None or not record.ratio_low or gained <= 0:
        return ""
    if measured.ratio >= record.ratio_low * (1 - criteria.tolerance):
        return ""
    return (
        f"the default of IREE {criteria.iree} takes {math.exp(-gained):.2f} times as long as that of {record.iree}: "
        f"the entry now gives {measured.ratio:.2f} instead of {record.ratio or 0:.2f}"
    )


def _metrics(measured: Measurement, criteria: AcceptanceCriteria) -> dict[str, float]:
    metrics = {
        "ratio": round(measured.ratio, 5),
        "ratio_low": round(measured.ratio_low, 5),
        "ratio_high": round(measured.ratio_high, 5),
        "ratio_wanted": round(math.exp(_threshold(measured, criteria)), 5),
        "baseline_us": round(measured.baseline_median_us, 3),
        "tuned_us": round(measured.median_us, 3),
        "rounds": float(measured.rounds),
    }
    record = criteria.record
    if record is not None and record.ratio and record.ratio_low and record.ratio_high:
        metrics |= {
            "recorded_ratio": record.ratio,
            "recorded_ratio_low": record.ratio_low,
            "recorded_ratio_high": record.ratio_high,
        }
    return metrics


def _speed_text(measured: Measurement) -> str:
    processes = "process" if measured.rounds == 1 else "fresh processes"
    return (
        f"{measured.ratio:.3f} ({measured.ratio_low:.3f} to {measured.ratio_high:.3f}) times the default's speed in "
        f"{measured.rounds} {processes}"
    )


def _recorded_times(record: WinnerRecord) -> str:
    if not record.samples_us or not record.baseline_samples_us:
        return "no times"
    tuned, default = statistics.median(record.samples_us), statistics.median(record.baseline_samples_us)
    return f"{_time(tuned)} where the default took {_time(default)}"


def _time(us: float) -> str:
    unit, scale = ("us", 1.0) if us < 1e3 else ("ms", 1e3) if us < 1e6 else ("s", 1e6)
    return f"{us / scale:.3g} {unit}"
