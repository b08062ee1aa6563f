"""Verifying: the merged spec on the sources that it was made from, before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from pytest_shark_tune.apply import Application, apply_spec
from pytest_shark_tune.bench import Bench
from pytest_shark_tune.builds import Builds
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan import Plan, Source
from pytest_shark_tune.profile import by_symbol, splat
from pytest_shark_tune.stages.artifact import replace_executables, strip
from pytest_shark_tune.stages.measurement import NOISE_FLOOR, Measurement
from pytest_shark_tune.stages.record import FinalRecord, SourceCheck, SpecRecord
from pytest_shark_tune.stages.spec import SpecEntry, build_spec, link_spec
from pytest_shark_tune.tools.profiler import NoProfile, profile

__all__ = ["verify_spec"]

_ALL = "all"
_PROFILES = 3
"""How often a model's dispatches are timed with and without a spec, in turns."""


def verify_spec(plan: Plan, finals: Iterable[FinalRecord], builds: Builds, bench: Bench | None) -> SpecRecord:
    """Try the merged spec on the sources of ``plan``: applied where it should be, same results, and worth it.

    Entries that fail, or that make the whole model slower though they won alone, are dropped, with the reason, until
    what is left holds. Without a ``bench`` there is no device, and nothing is run.
    """
    # Two suites may tune equal dispatches: the later final stands, here as in the ledger.
    by_dispatch = {each.dispatch: each for each in finals}
    winners = [each for each in by_dispatch.values() if each.winner and each.root is not None]
    dropped: dict[str, str] = {}
    while kept := [each for each in winners if each.dispatch not in dropped]:
        spec = link_spec(build_spec([_entry(each) for each in kept]))
        checks: list[SourceCheck] = []
        for source in plan.sources:
            check, bad = _verify_source(plan, source, spec, kept, builds, bench)
            if bad:
                dropped |= bad
                break
            checks.append(check)
        else:
            return SpecRecord(sources=tuple(checks), dropped=dropped)
    return SpecRecord(sources=(), dropped=dropped)


def _verify_source(
    plan: Plan, source: Source, spec: str, finals: Sequence[FinalRecord], builds: Builds, bench: Bench | None
) -> tuple[SourceCheck, dict[str, str]]:
    """The check of one source, and the entries that it speaks against, by name with the reason."""
    infos = {each.dispatch: each.compilation_info for each in finals}
    owned = {
        task.dispatch.name: [each.symbol for each in task.dispatch.members if each.source == source.name]
        for task in plan.tasks
        if task.dispatch.name in infos and any(each.source == source.name for each in task.dispatch.members)
    }
    if not owned:
        return SourceCheck(source=source.name, applied=0, note="nothing in it was tuned"), {}
    application = apply_spec(source, spec, builds.compiler)
    check = SourceCheck(source=source.name, applied=len(application.placed), note=_flag_note(application))
    if bad := _misapplied(plan, source, infos, {(each.symbol, each.compilation_info) for each in application.placed}):
        return check, bad
    if application.flag_error:
        return check, dict.fromkeys(owned, f"iree-compile fails on {source.name} with it: {application.flag_error}")
    if not source.functions:
        if not source.is_benchmark:
            note = "no function in it whose inputs can be made up, so it was not run"
            check = msgspec.structs.replace(check, note="; ".join(filter(None, [note, check.note])))
        return check, {}
    if bench is None:
        note = "; ".join(filter(None, ["not run as a whole, as there is no device here", check.note]))
        return msgspec.structs.replace(check, note=note), {}
    reduction = max([1, *(task.dispatch.root.reduction_length for task in plan.tasks)])
    for function in source.functions:
        model = _Model(source, function, reduction, application, owned, builds, bench)
        try:
            measured, in_model, bad = model.measure()
        except CandidateFailed as error:
            return check, dict.fromkeys(owned, f"in the whole of {source.name}: {error}")
        if bad:
            return check, bad
        check = msgspec.structs.replace(
            check, ratio=measured.ratio, ratio_low=measured.ratio_low, ratio_high=measured.ratio_high, in_model=in_model
        )
        if measured.ratio_high < 1:
            reason = f"the whole of {source.name} is slower with it: {_speed(measured)}"
            return check, dict.fromkeys(owned, reason)
    return check, {}


@dataclass(frozen=True)
class _Model:
    """One function of a source with a spec in force; ``owned`` are the executables of each entry by its name."""

    source: Source
    function: str
    reduction: int
    application: Application
    owned: Mapping[str, Sequence[str]]
    builds: Builds
    bench: Bench

    def measure(self) -> tuple[Measurement, dict[str, float], dict[str, str]]:
        """The whole against its default; each entry's speed in it, where that is told; what it is better off without.

        Raises:
            CandidateFailed: it cannot be run, or its results are others.
        """
        tuned = self.builds.model(self.application.text)
        whole = self._compare({_ALL: tuned})[_ALL]
        if len(self.owned) == 1:
            return whole, {}, {}
        try:
            ratios = self._ratios(tuned)
            slow = [name for name, ratio in ratios.items() if ratio < 1]
        except NoProfile:
            ratios, slow = {}, []
            if whole.ratio < 1 + NOISE_FLOOR:
                slow = self._burdens(list(self.owned))
        bad = {}
        if slow and len(slow) < len(self.owned) and self._is_better_without(slow, tuned):
            bad = {name: self._reason(ratios.get(name)) for name in slow}
        return whole, {name: round(ratio, 4) for name, ratio in ratios.items()}, bad

    def _compare(self, tuned: Mapping[str, Path]) -> dict[str, Measurement]:
        inputs = self.source.functions[self.function]
        return self.bench.compare_models(self._default(), tuned, self.function, inputs, self.reduction)

    def _default(self) -> Path:
        return self.builds.model(strip(self.application.sources))

    def _ratios(self, tuned: Path) -> dict[str, float]:
        """Each entry's default time by its tuned time, as its dispatches run in the model; the runs take turns.

        Raises:
            NoProfile: the driver does not tell.
        """
        inputs = self.source.functions[self.function]
        taken: dict[Path, list[dict[str, float]]] = {self._default(): [], tuned: []}
        for _ in range(_PROFILES):
            for path, times in taken.items():
                with self.bench.device() as uri:
                    told = profile(path, uri, self.function, [splat(each) for each in inputs])
                times.append(by_symbol(told.exports_us, [each for owned in self.owned.values() for each in owned]))
        ratios = {}
        for name, symbols in self.owned.items():
            before, after = (
                median(sum(times.get(symbol, 0.0) for symbol in symbols) for times in each) for each in taken.values()
            )
            if before and after:
                ratios[name] = before / after
        return ratios

    def _burdens(self, names: Sequence[str]) -> list[str]:
        """The entries without which the model is faster, found by leaving out halves, and halves of these."""
        if len(names) == 1:
            return list(names)
        middle = len(names) // 2
        halves = {"first": names[:middle], "second": names[middle:]}
        variants = {key: self._without(left_out) for key, left_out in halves.items()}
        measured = self._compare({_ALL: self.builds.model(self.application.text), **variants})
        return [
            name
            for key, left_out in halves.items()
            if measured[key].ratio > measured[_ALL].ratio * (1 + NOISE_FLOOR)
            for name in self._burdens(left_out)
        ]

    def _is_better_without(self, names: Sequence[str], tuned: Path) -> bool:
        measured = self._compare({_ALL: tuned, "without": self._without(names)})
        return measured["without"].ratio >= measured[_ALL].ratio

    def _without(self, names: Sequence[str]) -> Path:
        """The model in which the executables of these entries have their default."""
        symbols = [symbol for name in names for symbol in self.owned[name]]
        return self.builds.model(replace_executables(self.application.text, strip(self.application.sources), symbols))

    def _reason(self, ratio: float | None) -> str:
        told = f": its dispatch runs at {ratio:.3f} times the default's speed there" if ratio else ""
        return f"the whole of {self.source.name} is no faster with it{told}"


def _speed(measured: Measurement) -> str:
    low, high = measured.ratio_low, measured.ratio_high
    return f"{measured.ratio:.3f} times the default's speed ({low:.3f} to {high:.3f})"


def _entry(final: FinalRecord) -> SpecEntry:
    assert final.root is not None
    return SpecEntry(name=final.dispatch, root=final.root, compilation_info=final.compilation_info)


def _flag_note(application: Application) -> str:
    """Which entries iree-compile's own flag does not apply."""
    missed = sorted({each.entry for each in application.placed if not each.by_flag})
    return f"only shark-tune compile applies {', '.join(missed)}" if missed else ""


def _misapplied(plan: Plan, source: Source, infos: Mapping[str, str], applied: Set[tuple[str, str]]) -> dict[str, str]:
    """The entries that were not applied to exactly their ops in a source, with the reason."""
    bad = {}
    for task in plan.tasks:
        name = task.dispatch.name
        if name not in infos:
            continue
        wanted = {member.symbol for member in task.dispatch.members if member.source == source.name}
        got = {symbol for symbol, info in applied if info == infos[name]}
        if missed := wanted - got:
            bad[name] = f"in the whole of {source.name} it does not apply to {', '.join(sorted(missed))}"
        elif extra := got - wanted - _owners(plan, infos, name):
            bad[name] = f"in the whole of {source.name} it applies to {', '.join(sorted(extra))} as well"
    return bad


def _owners(plan: Plan, infos: Mapping[str, str], name: str) -> set[str]:
    """The executables that take the same config by right: those of dispatches with an equal winner."""
    return {
        member.symbol
        for task in plan.tasks
        if infos.get(task.dispatch.name) == infos[name]
        for member in task.dispatch.members
    }
