"""Guarding without a spec: dispatches and models against recorded times, and models against golden times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.compiler import compiler_version, first_error
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.errors import CandidateFailed, CheckSkipped, CommandFailed, InputError
from pytest_shark_tune.guard.against import Rivals, load_models
from pytest_shark_tune.guard.plan import BaselineSubject, GuardEntry, GuardPlan
from pytest_shark_tune.guard.speed import AcceptanceCriteria, decide
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.measurement import timing
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.baseline import BaselineRecord, read_baseline, read_golden
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.tuning.session import Session

__all__ = ["Baselines", "baseline_plan"]

_PROGRAM, _CALIBRATION = "program", "calibration"
_WITHOUT = "(no file)"

_Load = Callable[[DeviceChild], timing.Run]
"""Loads a dispatch or model into a child, and returns what times it."""


def baseline_plan(
    plan: Plan, hot: Plan, target: str, device: str, path: Path | None, golden: Path | None, *, updates: bool = False
) -> GuardPlan:
    """Return the plan for comparing dispatches and models with recorded times, or models with golden times.

    Args:
        plan: the dispatches.
        hot: those of them that make up most of their models' time. The others are compared if they were hot when the
            baseline was recorded.
        target: the target.
        device: the model of the device.
        path: the file of the baseline, if any.
        golden: the file with golden times, if any.
        updates: whether all times are recorded anew.

    Raises:
        InputError: a file cannot be read, or there is not one model that golden times are for.
    """
    models = [source for source in plan.sources if not source.is_op and len(source.run_whole) == 1]
    entries: list[GuardEntry] = []
    if golden is not None:
        if len(models) != 1:
            raise InputError(f"{golden}: golden times are for one model that can be run, and there are {len(models)}")
        subject = BaselineSubject(model=models[0].name, golden=read_golden(golden, device))
        entries.append(GuardEntry(name=models[0].name, baseline=subject))
    if path is not None:
        records = read_baseline(path, target, device)
        names = {task.name for task in hot.tasks} | (set() if updates else records.keys())
        tasks = [task for task in plan.tasks if task.name in names]
        subjects = [
            *((task.name, BaselineSubject(task=task, record=records.get(task.name))) for task in tasks),
            *((model.name, BaselineSubject(model=model.name, record=records.get(model.name))) for model in models),
        ]
        entries += [GuardEntry(name=name, baseline=subject) for name, subject in subjects]
    shown = str(path or golden or _WITHOUT)
    key = content_key("baseline", [source.content for source in plan.sources], shown)
    return GuardPlan(key=key, spec_path=shown, spec="", entries=tuple(entries), plan=plan)


@dataclass(frozen=True)
class Baselines:
    """Compares dispatches and models with recorded times, for one process of a run."""

    session: Session
    """Compiles and measures."""
    rivals: Rivals
    """The other compilers of the run."""

    def verdict(self, guarded: GuardPlan, entry: GuardEntry, criteria: AcceptanceCriteria) -> Verdict:
        """Evaluate a check that needs no spec.

        Raises:
            CheckSkipped: it does not compile or run, or the record was made with another microbenchmark.
        """
        subject = entry.baseline
        if subject is None:
            return self.rivals.verdict(guarded, entry, criteria)
        try:
            load = self._loader(guarded, subject)
            if subject.golden is not None:
                return self._golden(entry, subject, load)
            if subject.record is None or self.session.settings.updates_baseline:
                return self._recorded(entry, load)
            return self._compared(entry, subject.record, load, criteria)
        except CommandFailed as error:
            raise CheckSkipped(f"it does not compile: {first_error(error)}") from error
        except CandidateFailed as failure:
            raise CheckSkipped(f"it does not run: {failure}") from failure

    def _loader(self, guarded: GuardPlan, subject: BaselineSubject) -> _Load:
        if subject.task is None:
            source = guarded.plan.source(subject.model)
            load = load_models(source, [self.session.untuned.vmfb(source)])
            return lambda child: load(child)[0]
        member = subject.task.dispatch.members[0]
        artifact = self.session.builder.artifact(subject.task, subject.task.default)

        def load_dispatch(child: DeviceChild) -> timing.Run:
            child.load_benchmark(_PROGRAM, Path(artifact.vmfb or ""), member.module)
            return partial(child.run, _PROGRAM)

        return load_dispatch

    def _play(self, load: _Load, number: int) -> timing.Measurement:
        """Time the program in turns with a microbenchmark, in a fresh process."""
        microbenchmark = self.session.microbenchmarks.largest
        with self.session.children.fresh() as child:
            child.load_benchmark(_CALIBRATION, Path(microbenchmark.vmfb), microbenchmark.module)
            run, calibration = load(child), partial(child.run, _CALIBRATION)
            return timing.compare_finalists({_PROGRAM: run}, calibration, timing.GUARD_ROUND, seed=number)[_PROGRAM]

    def _rounds(self, load: _Load) -> timing.Measurement:
        return combine_rounds([self._play(load, number) for number in range(timing.FINAL_ROUNDS)])

    def _recorded(self, entry: GuardEntry, load: _Load) -> Verdict:
        measured = self._rounds(load)
        record = BaselineRecord(
            name=entry.name,
            us=round(measured.median_us, 3),
            ratio=round(measured.ratio, 6),
            ratio_low=round(measured.ratio_low, 6),
            ratio_high=round(measured.ratio_high, 6),
            calibration=self.session.microbenchmarks.largest_code,
            target=str(self.session.compiler.target),
            device=self.session.settings.device_name,
            iree=compiler_version(),
        )
        verdict = _verdict(entry, EntryCheck.BASELINE, CheckOutcome.PASSED, "", measured)
        unseen = measured.ratio / measured.ratio_low - 1
        note = f"recorded: {measured.median_us:.4g} us; a slowdown of {unseen:.1%} is within the noise of this session"
        return msgspec.structs.replace(verdict, note=note, recorded=record)

    def _compared(
        self, entry: GuardEntry, record: BaselineRecord, load: _Load, criteria: AcceptanceCriteria
    ) -> Verdict:
        if record.calibration != self.session.microbenchmarks.largest_code:
            raise CheckSkipped(
                f"it was recorded with IREE {record.iree}, which makes other code of the microbenchmark that tells the "
                "speed of the machine: record it again with --tune-baseline-update"
            )
        # One more process of the session that recorded it might have been slower by so much.
        spread = math.log(record.ratio / record.ratio_low)
        held = msgspec.structs.replace(criteria, record=None, allowance=criteria.allowance + spread)
        rounds: list[timing.Measurement] = []
        began_s = time.perf_counter()
        outcome: CheckOutcome | None = None
        while outcome is None:
            rounds.append(_relative(self._play(load, len(rounds)), record.ratio))
            outcome = decide(rounds, held, time.perf_counter() - began_s)
        joined = combine_rounds(rounds)
        figures = (
            f"{joined.ratio:.3f} ({joined.ratio_low:.3f} to {joined.ratio_high:.3f}) times the recorded speed beside a "
            f"microbenchmark, {joined.median_us:.4g} us where {record.us:.4g} us are recorded with IREE {record.iree}"
        )
        reason = {
            CheckOutcome.FAILED: f"it is slower than recorded: {figures}",
            CheckOutcome.UNDECIDED: f"measuring did not decide whether it is slower than recorded: {figures}",
        }.get(outcome, "")
        return _verdict(entry, EntryCheck.BASELINE, outcome, reason, joined)

    def _golden(self, entry: GuardEntry, subject: BaselineSubject, load: _Load) -> Verdict:
        golden = subject.golden
        assert golden is not None
        measured = self._rounds(load)
        # One more process may take so much longer, or less long.
        longest_us = measured.median_us * measured.ratio / measured.ratio_low
        shortest_us = measured.median_us * measured.ratio / measured.ratio_high
        times = f"{measured.median_us / 1e3:.4g} ms ({shortest_us / 1e3:.4g} to {longest_us / 1e3:.4g})"
        limit = f"{golden.limit_us / 1e3:.4g} ms{f' for {golden.sku}' if golden.sku else ''}"
        outcome, reason = CheckOutcome.PASSED, ""
        if shortest_us > golden.limit_us:
            outcome, reason = CheckOutcome.FAILED, f"it takes {times}, and may take {limit}"
        elif longest_us > golden.limit_us:
            outcome = CheckOutcome.UNDECIDED
            reason = f"the golden time is tighter than the noise: it takes {times}, and may take {limit}"
        return _verdict(entry, EntryCheck.GOLDEN, outcome, reason, measured)


def _relative(measured: timing.Measurement, recorded: float) -> timing.Measurement:
    """The measurement with its ratio by the recorded one."""
    return msgspec.structs.replace(
        measured,
        ratio=measured.ratio / recorded,
        ratio_low=measured.ratio_low / recorded,
        ratio_high=measured.ratio_high / recorded,
    )


def _verdict(
    entry: GuardEntry, check: EntryCheck, outcome: CheckOutcome, reason: str, measured: timing.Measurement
) -> Verdict:
    metrics = {
        "ratio": measured.ratio,
        "ratio_low": measured.ratio_low,
        "ratio_high": measured.ratio_high,
        "tuned_us": measured.median_us,
        "rounds": float(measured.rounds),
    }
    rounded = {name: round(value, 5) for name, value in metrics.items()}
    return Verdict(entry=entry.name, check=check, outcome=outcome, reason=reason, metrics=rounded)
