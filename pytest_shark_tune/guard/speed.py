"""Guarding: what a committed spec entry promises, what became of each promise, and the gate for that of speed.

docs/measurement.md says why the gate decides as it does, and what it costs.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from pytest_shark_tune.guard.verdict import Outcome, Promise, Verdict
from pytest_shark_tune.measurement.intervals import student_quantile
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement, Policy, combine_rounds
from pytest_shark_tune.records.types import WinnerRecord

__all__ = ["GATE", "RUN_ALPHA", "TOLERANCE", "Terms", "decide", "hold_gate", "judge", "most_rounds"]

RUN_ALPHA = 0.002
"""The probability of a false alarm that all speed promises of a run have together."""

TOLERANCE = 0.04
"""By how much a ratio may fall below the lower end of what was recorded."""

GATE = Policy(sample_s=0.010, blocks=4, min_blocks=3, budget_s=0.5, width=0.005)
"""For one round of the gate, in one fresh process: samples as in a final, fewer, since what tells is the rounds."""

_BUDGET_S = 10.0
_FEWEST_TO_KEEP, _FEWEST = 3, 4
_BET = 0.95
_GAIN, _LOSS = math.log(2 * _BET), math.log(2 * (1 - _BET))
_EXCEPTIONS = 2
_MISS = 0.005
_SHOWN = 0.05
_SLOWED = 1.25
_DEFAULT_BAR = -math.log(1 + NOISE_FLOOR)
_OTHER_SETTING = (
    "it was tuned in another setting: give guarding the --iree-compile-flag, --tune-rotate, --tune-where and "
    "--tune-knob of tuning, if these changed, or tune it again if the driver or the number of processors did"
)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry's speed is held to, and what a verdict about it tells.

    ``alpha`` is the probability of a false alarm that this entry has. ``record`` is the entry's where its figures
    were taken on this model of device, else ``None``: then it is held to the default's speed alone. ``device`` and
    ``iree`` are those of now, and so is ``setting``, which is as in a record, and empty where it is not known.
    ``budget_s`` seconds go into an entry that is not on its way to be found broken, or four rounds where those take
    longer.
    """

    alpha: float
    device: str
    iree: str
    record: WinnerRecord | None = None
    setting: str = ""
    tolerance: float = TOLERANCE
    budget_s: float = _BUDGET_S


def hold_gate(entry: str, play: Callable[[int], Measurement], terms: Terms) -> Verdict:
    """Play rounds, each in a fresh process, until they decide or as many as there may be are played.

    ``play`` takes the number of a round and measures it; what it raises ends the gate.
    """
    rounds: list[Measurement] = []
    started = time.perf_counter()
    outcome: Outcome | None = None
    while outcome is None:
        rounds.append(play(len(rounds)))
        outcome = decide(rounds, terms, time.perf_counter() - started)
    return _verdict(entry, outcome, combine_rounds(rounds), terms)


def decide(rounds: Sequence[Measurement], terms: Terms, spent_s: float = 0.0) -> Outcome | None:
    """What the rounds played so far, which took ``spent_s`` seconds, say of an entry; ``None``: go on.

    A round's margin is the logarithm of its ratio over what it is held to. *Broken* is decided by the margins' signs
    alone, with Wald's sequential test: each round bets 19 to 1 that its margin is negative, at even odds, and the
    entry is broken where the stake has grown by 1 / ``alpha``. As long as at least half of all processes have margins
    of zero or more that happens with probability ``alpha`` at most, however many rounds are played, whoever stops them
    when, and whatever the margins are distributed like (Ville 1939; Wald, 'Sequential Tests of Statistical
    Hypotheses', 1945). *Kept* is decided by a t-interval for the mean margin, whose lower end has to be positive.
    Where the default itself takes far longer than it did when the figures were recorded, these break nothing.
    """
    count = len(rounds)
    margins = [math.log(each.ratio) - _bar(each, terms) for each in rounds]
    stake, enough = _stake(margins), -math.log(terms.alpha)
    if stake >= enough:
        below_default = _stake([math.log(each.ratio) - _DEFAULT_BAR for each in rounds]) >= enough
        baseline_us = statistics.median(each.baseline_median_us for each in rounds)
        return Outcome.BROKEN if below_default or not _is_slowed(baseline_us, terms) else Outcome.UNDECIDED
    if count >= _FEWEST_TO_KEEP and _lower_end(rounds, margins) > 0:
        return Outcome.KEPT
    is_late = count >= _FEWEST and spent_s >= terms.budget_s and stake <= 0
    return Outcome.UNDECIDED if is_late or count >= most_rounds(terms.alpha) else None


def most_rounds(alpha: float) -> int:
    """How many rounds there may be: enough to break a promise with two exceptions among them."""
    return math.ceil((-math.log(alpha) - _EXCEPTIONS * _LOSS) / _GAIN) + _EXCEPTIONS


def judge(entry: str, measurement: Measurement, terms: Terms) -> Verdict:
    """The verdict on one measurement that a client made in a way of its own, by its interval.

    The interval covers with probability 95%; to break a promise it is widened to what covers but for ``alpha``.
    What was cut short is broken where it is surely slower than the default.
    """
    bar = _bar(measurement, terms)
    is_far_slower = measurement.cut_short and measurement.ratio_high <= 1
    upper_end = _upper_end(measurement, terms.alpha)
    is_slowed = _is_slowed(measurement.baseline_median_us, terms)
    if is_far_slower or upper_end < (_DEFAULT_BAR if is_slowed else bar):
        outcome = Outcome.BROKEN
    else:
        outcome = Outcome.KEPT if measurement.ratio_low > math.exp(bar) else Outcome.UNDECIDED
    return _verdict(entry, outcome, measurement, terms)


def _stake(margins: Sequence[float]) -> float:
    """The logarithm of what is left of 1 that was staked on each margin's being negative."""
    below = sum(margin < 0 for margin in margins)
    return below * _GAIN + (len(margins) - below) * _LOSS


def _bar(measurement: Measurement, terms: Terms) -> float:
    """The logarithm of the ratio that an entry is held to: the larger one of the default's and the recorded one's.

    Where both fall short, the test of the larger one needs no share of the other's alpha: what falls short of the
    smaller one falls short of the larger one, too.
    """
    recorded = _recorded_bar(measurement, terms)
    return _DEFAULT_BAR if recorded is None else max(_DEFAULT_BAR, recorded)


def _recorded_bar(measurement: Measurement, terms: Terms) -> float | None:
    """The lower end recorded, less the tolerance, and less what another IREE's default gained since."""
    record = terms.record
    if record is None or not record.ratio_low:
        return None
    return math.log(record.ratio_low * (1 - terms.tolerance)) - _default_gained(measurement, terms)


def _default_gained(measurement: Measurement, terms: Terms) -> float:
    """The logarithm of the recorded default's time over the default's now; 0 where it is the same code, or slower.

    A better default makes the ratio fall, and that is no fault of the entry. With the same IREE it cannot have become
    better, so that then a machine that is in a better mood excuses nothing.
    """
    record = terms.record
    if record is None or record.iree == terms.iree or not record.baseline_samples_us:
        return 0.0
    return max(0.0, math.log(statistics.median(record.baseline_samples_us) / measurement.baseline_median_us))


def _slowdown(baseline_us: float, terms: Terms) -> float:
    """The default's time by its time when the figures were recorded; 1 where there are none."""
    if terms.record is None or not terms.record.baseline_samples_us:
        return 1.0
    return baseline_us / statistics.median(terms.record.baseline_samples_us)


def _is_slowed(baseline_us: float, terms: Terms) -> bool:
    """Whether the machine is in so different a state that recorded figures tell nothing: busy, or throttled."""
    return _slowdown(baseline_us, terms) > _SLOWED


def _lower_end(rounds: Sequence[Measurement], margins: Sequence[float]) -> float:
    """The lower end of the t-interval of the mean margin; its deviation is never below the rounds' own errors."""
    count = len(margins)
    within = math.sqrt(math.fsum(each.noise**2 / max(each.blocks, 1) for each in rounds) / count)
    error = max(statistics.stdev(margins), within) / math.sqrt(count)
    return statistics.fmean(margins) - student_quantile(count - 1, 2 * _MISS) * error


def _upper_end(measurement: Measurement, alpha: float) -> float:
    """The logarithm of an upper end that is missed with probability ``alpha``, from that of a 95% interval.

    Figures of several processes are taken for a t-interval over these, others for one over blocks. Where a measurement
    was cut short, its upper end is no matter of probability.
    """
    high = math.log(measurement.ratio_high)
    if measurement.cut_short:
        return high
    freedom = max(1, (measurement.rounds if measurement.rounds > 1 else measurement.blocks) - 1)
    wider = student_quantile(freedom, 2 * alpha) / student_quantile(freedom, _SHOWN)
    centre = math.log(measurement.ratio)
    return centre + wider * (high - centre)


def _verdict(entry: str, outcome: Outcome, measured: Measurement, terms: Terms) -> Verdict:
    reason = _reason(outcome, measured, terms) if outcome is not Outcome.KEPT else ""
    return Verdict(
        entry=entry,
        promise=Promise.FAST,
        outcome=outcome,
        reason=reason,
        note="" if reason else _note(measured, terms),
        figures=_figures(measured, terms),
    )


def _reason(outcome: Outcome, measured: Measurement, terms: Terms) -> str:
    lines = [_claim(outcome, measured, terms), f"now: {_told(measured)}, {_times(measured)}, on {terms.device}"]
    record = terms.record
    if record is not None and record.ratio is not None:
        interval = f"{record.ratio:.3f} ({record.ratio_low or 0:.3f} to {record.ratio_high or 0:.3f})"
        lines.append(f"recorded: {interval}, {_recorded_times(record)}, on {record.device}")
        lines.append(f"recorded with IREE {record.iree}, now IREE {terms.iree}")
        lines += [_OTHER_SETTING] if _is_other_setting(record, terms) else []
    else:
        lines.append(f"nothing is recorded for this device; IREE {terms.iree}")
    if outcome is Outcome.BROKEN:
        lines.append("tune it again with --tune, or remove the entry if the default will do")
    return "\n".join(lines)


def _is_other_setting(record: WinnerRecord, terms: Terms) -> bool:
    """Whether this is another setting for no other reason than what the user, or the machine's keeper, changed."""
    is_comparable = bool(terms.setting and record.setting) and record.iree == terms.iree
    return is_comparable and record.device == terms.device and record.setting != terms.setting


def _claim(outcome: Outcome, measured: Measurement, terms: Terms) -> str:
    bar = math.exp(_bar(measured, terms))
    recorded = _recorded_bar(measured, terms)
    if outcome is Outcome.UNDECIDED and _is_slowed(measured.baseline_median_us, terms):
        return (
            f"the default itself takes {_slowdown(measured.baseline_median_us, terms):.1f} times as long as recorded: "
            "the machine is busy or throttled, and whether the entry is as fast as recorded cannot be told on it"
        )
    if outcome is Outcome.UNDECIDED:
        return f"measuring did not decide whether it is as fast as it should be, {bar:.3f} times the default's speed"
    if recorded is None or recorded <= _DEFAULT_BAR or measured.ratio_high < math.exp(_DEFAULT_BAR):
        return f"it is slower than the default, by more than the {NOISE_FLOOR:.0%} that layout alone can make"
    return (
        f"it is slower than recorded: it should reach {bar:.3f} times the default's speed, the lower end recorded less "
        f"{terms.tolerance:.0%} (--tune-tolerance)"
    )


def _note(measured: Measurement, terms: Terms) -> str:
    """What is worth telling of an entry that is fast enough."""
    if measured.ratio_high <= 1 + NOISE_FLOOR:
        return f"no longer needed: the default is as fast, {_told(measured)}"
    gained = _default_gained(measured, terms)
    record = terms.record
    if record is None or not record.ratio_low or gained <= 0:
        return ""
    if measured.ratio >= record.ratio_low * (1 - terms.tolerance):
        return ""
    return (
        f"the default of IREE {terms.iree} takes {math.exp(-gained):.2f} times as long as that of {record.iree}: the "
        f"entry now gives {measured.ratio:.2f} instead of {record.ratio or 0:.2f}"
    )


def _figures(measured: Measurement, terms: Terms) -> dict[str, float]:
    figures = {
        "ratio": round(measured.ratio, 5),
        "ratio_low": round(measured.ratio_low, 5),
        "ratio_high": round(measured.ratio_high, 5),
        "ratio_wanted": round(math.exp(_bar(measured, terms)), 5),
        "baseline_us": round(measured.baseline_median_us, 3),
        "tuned_us": round(measured.median_us, 3),
        "rounds": float(measured.rounds),
    }
    record = terms.record
    if record is not None and record.ratio and record.ratio_low and record.ratio_high:
        figures |= {
            "recorded_ratio": record.ratio,
            "recorded_ratio_low": record.ratio_low,
            "recorded_ratio_high": record.ratio_high,
        }
    return figures


def _told(measured: Measurement) -> str:
    processes = "process" if measured.rounds == 1 else "fresh processes"
    return (
        f"{measured.ratio:.3f} ({measured.ratio_low:.3f} to {measured.ratio_high:.3f}) times the default's speed in "
        f"{measured.rounds} {processes}"
    )


def _times(measured: Measurement) -> str:
    return f"{_time(measured.median_us)} where the default takes {_time(measured.baseline_median_us)}"


def _recorded_times(record: WinnerRecord) -> str:
    if not record.samples_us or not record.baseline_samples_us:
        return "no times"
    tuned, default = statistics.median(record.samples_us), statistics.median(record.baseline_samples_us)
    return f"{_time(tuned)} where the default took {_time(default)}"


def _time(us: float) -> str:
    unit, scale = ("us", 1.0) if us < 1e3 else ("ms", 1e3) if us < 1e6 else ("s", 1e6)
    return f"{us / scale:.3g} {unit}"
