"""Verifying: the merged spec on the sources that it was made from, before it is written.

First what it says is checked: that every entry applies where it should and nowhere else, and that whole models compile
and compute what they do by default. Then each model is measured end to end: what won alone may lose in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from pytest_shark_tune.compiler.configure import replace_executables, strip
from pytest_shark_tune.device.profiler import Cost, NoProfile, profile
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.measurement.correctness import Tolerance
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.draft import Draft, is_of_starter
from pytest_shark_tune.records.types import SourceCheck, SpecRecord
from pytest_shark_tune.spec.apply import Application, SpecNotApplicable, apply_spec
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.model_profile import arguments, by_symbol
from pytest_shark_tune.tuning.runner import Bench, model_tolerance

__all__ = ["VERIFY_VERSION", "TunedModel", "Verifier", "culprits"]

VERIFY_VERSION: Final = 1
"""What a spec is held to in whole sources.

Raise it where the same spec may lose other entries: it is then tried anew.
"""

_ALL = "all"
_WITHOUT = "without"
_PROFILES = 3
"""How often a model's dispatches are timed with and without a spec, in turns."""
_PROFILE_S = 0.5
_NO_INPUTS = "no function in it whose inputs can be made up, so it was not run"


def culprits(names: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """Which of ``names``, that fail together, are to blame, found by trying halves, and halves of those that fail.

    All of them, where neither half fails without the other.
    """
    if len(names) == 1:
        return list(names)
    middle = len(names) // 2
    found = [name for half in (names[:middle], names[middle:]) if fails(half) for name in culprits(half, fails)]
    return found or list(names)


class Verifier:
    """Tries specs in whole sources for one process of a run; ``tell`` is told what is under way.

    With ``asks_driver`` the driver is asked how long dispatches take in a running model, which tells more of each than
    the whole does. Without a ``bench`` there is no device, and nothing is run.
    """

    def __init__(
        self,
        builds: Builds,
        bench: Bench | None,
        *,
        tell: Callable[[str], None],
        asks_driver: bool = True,
    ) -> None:
        self._builds = builds
        self._bench = bench
        self._tell = tell
        self._asks_driver = asks_driver
        self._applications: dict[str, tuple[str, Application]] = {}

    def check(self, plan: Plan, draft: Draft) -> SpecRecord:
        """Try the spec of a draft on the sources of ``plan``: applied where it should be, and the same results.

        Entries that fail, of the starter too, are dropped with the reason, and the draft is tried without them, until
        what is left holds. Single ops are measured, too, and must not become slower.
        """
        dropped: dict[str, str] = {}
        has_winners = bool(draft.entries)
        while draft.entries or (draft.starter and not has_winners):
            checks: list[SourceCheck] = []
            for source in plan.sources:
                check, bad = self._check(plan, source, draft)
                if bad:
                    dropped |= bad
                    draft = draft.without(bad)
                    break
                checks.append(check)
            else:
                return _record(draft, tuple(checks), dropped)
        return SpecRecord(sources=(), dropped=dropped)

    def measure(self, plan: Plan, source: Source, draft: Draft) -> SpecRecord:
        """Measure a model with the spec of a draft and without; drop what does not pay, until all that is left does.

        Raises:
            CandidateFailed: it cannot be run.
        """
        dropped: dict[str, str] = {}
        while draft.entries:
            check, bad = SourceCheck(source=source.name, applied=0), self._refused(plan, source, draft)
            models = self.models(plan, source, draft) if not bad else []
            if not models and not bad:
                break
            if models:
                check = _noted(_applied_check(models[0]), _untouched(models))
                bad = _misapplied(plan, models[0])
            for model in _touched(models) if not bad else ():
                check, bad = self._measure(model, check)
                if bad:
                    break
            if not bad:
                return _record(draft, (check,), dropped, model=source.name)
            dropped |= bad
            draft = draft.without(bad)
        note = "no entry of the spec pays in the whole of it" if dropped else "nothing in it was tuned"
        return _record(draft, (SourceCheck(source=source.name, applied=0, note=note),), dropped, model=source.name)

    def models(self, plan: Plan, source: Source, draft: Draft) -> list[TunedModel]:
        """The source with the spec of a draft in force, once for each function to run; at least once if it has entries.

        Each has the entries whose dispatches it calls: of the others it can tell nothing.
        """
        if not _may_apply(plan, source, draft):
            return []
        application = self._application(source, draft)
        everything = _owned(plan, source, draft.configs) | _of_starter(application, draft)
        if not everything:
            return []
        changed = [symbol for symbols in everything.values() for symbol in symbols]

        def model(function: str) -> TunedModel:
            called = source.called.get(function)
            return TunedModel(
                source=source,
                function=function,
                tolerance=model_tolerance(source, function, plan.tasks, changed),
                application=application,
                everything=everything,
                owned={
                    name: symbols
                    for name, symbols in everything.items()
                    if called is None or not set(symbols).isdisjoint(called)
                },
                draft=draft,
                builds=self._builds,
                bench=self._bench,
                tell=self._tell,
            )

        return [model(function) for function in source.run_whole or ("",)]

    def _check(self, plan: Plan, source: Source, draft: Draft) -> tuple[SourceCheck, dict[str, str]]:
        """The check of one source, and the entries that it speaks against, by name with the reason."""
        nothing = SourceCheck(source=source.name, applied=0, note="nothing in it was tuned")
        if bad := self._refused(plan, source, draft):
            return nothing, bad
        models = self.models(plan, source, draft)
        if not models:
            return nothing, {}
        first = models[0]
        check = _applied_check(first)
        if bad := _misapplied(plan, first):
            return check, bad
        if source.run_whole and self._bench is None:
            return _noted(check, "not run as a whole, as there is no device here"), {}
        check = _noted(check, _untouched(models))
        for model in _touched(models):
            note, bad = model.wrong()
            check = _noted(check, note)
            if bad:
                return check, bad
            if source.is_op and not note:
                whole = model.compare_whole()
                check = _with_figures(check, whole)
                if whole.ratio_high < 1:
                    return check, dict.fromkeys(model.owned, model.no_faster(whole))
        if not source.run_whole and not source.is_benchmark:
            check = _noted(check, source.why_not_run or _NO_INPUTS)
        return check, {}

    def _refused(self, plan: Plan, source: Source, draft: Draft) -> dict[str, str]:
        """The entries with which the compiler fails on a source, by name with the reason."""
        if not _may_apply(plan, source, draft) or not (problem := self._problem(source, draft)):
            return {}
        names = culprits(draft.names, lambda part: bool(self._problem(source, draft.only(part))))
        return dict.fromkeys(names, f"iree-compile fails on {source.name} with it: {problem}")

    def _problem(self, source: Source, draft: Draft) -> str:
        """Why the compiler fails on a source with a draft's spec, by its own flag or ours; empty where it works."""
        try:
            return self._application(source, draft).flag_error
        except SpecNotApplicable as error:
            return str(error)

    def _measure(self, model: TunedModel, check: SourceCheck) -> tuple[SourceCheck, dict[str, str]]:
        """One function of a model end to end; the slowest function's figures stay."""
        self._tell(f"measuring the whole of {model.source.name} with {len(model.owned)} entries and without")
        whole = model.compare_whole()
        try:
            ratios = model.ratios() if self._asks_driver else None
        except NoProfile:
            ratios = None
        check = _with_figures(check, whole)
        if ratios:
            told = {name: round(ratio, 4) for name, ratio in ratios.items()}
            check = msgspec.structs.replace(check, in_model=check.in_model | told)
        return check, model.what_does_not_pay(whole, ratios)

    def _application(self, source: Source, draft: Draft) -> Application:
        """The spec of a draft applied; what was applied to a source last is remembered.

        Raises:
            SpecNotApplicable: the compiler refuses the spec or one of its configs.
        """
        known = self._applications.get(source.name)
        if known is None or known[0] != draft.text:
            self._tell(f"applying the spec's {len(draft.by_matcher)} entries to {source.name}")
            application = apply_spec(source, draft.text, self._builds.compiler)
            known = self._applications[source.name] = draft.text, application
        return known[1]


@dataclass(frozen=True)
class TunedModel:
    """One function of a source with the spec of a ``draft`` in force.

    ``everything`` are the executables of each entry by its name, and ``owned`` those of what it calls. It is run on
    ``bench``, and its results may be off by ``tolerance``.
    """

    source: Source
    function: str
    tolerance: Tolerance
    application: Application
    everything: Mapping[str, Sequence[str]]
    owned: Mapping[str, Sequence[str]]
    draft: Draft
    builds: Builds
    bench: Bench | None
    tell: Callable[[str], None]

    @property
    def _running(self) -> Bench:
        assert self.bench is not None, "without a device no model is run"
        return self.bench

    def wrong(self) -> tuple[str, dict[str, str]]:
        """Why its results could not be compared, and the entries with which they are not the default's, with reasons.

        What does not compile or run in the whole is as wrong as a wrong result.
        """
        self.tell(f"checking the results of the whole of {self.source.name}")
        everything = list(self.owned)
        problems = {tuple(everything): self._problem(everything)}
        if not problems[tuple(everything)]:
            return "", {}
        if failure := self._problem([]):
            return f"by default it cannot be run as a whole, so its results were not compared: {failure}", {}

        def fails(names: Sequence[str]) -> bool:
            problems[tuple(names)] = self._problem(names)
            return bool(problems[tuple(names)])

        names = culprits(everything, fails)
        reasons = {name: problems.get((name,)) or problems[tuple(everything)] for name in names}
        return "", {name: f"in the whole of {self.source.name}: {reason}" for name, reason in reasons.items()}

    def compare_whole(self) -> Measurement:
        """The whole with all entries against its default.

        Raises:
            CandidateFailed: it cannot be run, or its results are others.
        """
        return self._compare({_ALL: self._with(list(self.owned))})[_ALL]

    def ratios(self) -> dict[str, float]:
        """Each entry's default time by its tuned time, as its dispatches run in the model; the runs take turns.

        Raises:
            NoProfile: the driver does not tell.
        """
        inputs = arguments(self.source, self.function)
        symbols = [symbol for owned in self.owned.values() for symbol in owned]
        taken: dict[Path, list[dict[str, Cost]]] = {self._with([]): [], self._with(list(self.owned)): []}
        for _ in range(_PROFILES):
            for path, costs_of in taken.items():
                with self._running.device() as uri:
                    told = profile(path, uri, self.function, inputs, seconds=_PROFILE_S)
                costs_of.append(by_symbol(told.exports, symbols))
        ratios = {}
        for name, own in self.owned.items():
            times = [
                median(sum(costs[symbol].time_us for symbol in own if symbol in costs) for costs in each)
                for each in taken.values()
            ]
            if len(times) > 1 and all(times):
                ratios[name] = times[0] / times[1]
        return ratios

    def what_does_not_pay(self, whole: Measurement, ratios: Mapping[str, float] | None) -> dict[str, str]:
        """The entries without which the model is no slower, by name with the reason; ``ratios`` as the driver told.

        Where it tells nothing, they are found by leaving out halves, unless the whole is clearly faster.
        """
        names = list(self.owned)
        if ratios is not None:
            slow = [name for name, ratio in ratios.items() if ratio < 1]
        elif whole.ratio < 1 + NOISE_FLOOR and len(names) > 1:
            slow = self._burdens(names)
        else:
            slow = []
        if slow and len(slow) < len(names) and self._is_no_slower_without(slow):
            return {name: self._no_gain((ratios or {}).get(name)) for name in slow}
        # Where dispatches tell of a gain, it may be too small for the whole to show.
        tells_of_gain = ratios is not None and any(ratio >= 1 for ratio in ratios.values())
        if whole.ratio_high < 1 or (whole.ratio < 1 and not tells_of_gain):
            return dict.fromkeys(names, self.no_faster(whole))
        return {}

    def no_faster(self, whole: Measurement) -> str:
        """Why all of the spec is of no use."""
        low, high = whole.ratio_low, whole.ratio_high
        speed = f"{whole.ratio:.3f} times the default's speed ({low:.3f} to {high:.3f})"
        return f"the whole of {self.source.name} is no faster with the spec: {speed}"

    def _no_gain(self, ratio: float | None) -> str:
        told = f": its dispatch runs at {ratio:.3f} times the default's speed there" if ratio else ""
        return f"the whole of {self.source.name} is no faster with it{told}"

    def _burdens(self, names: Sequence[str]) -> list[str]:
        """The entries without which the model is faster, found by leaving out halves, and halves of these."""
        middle = len(names) // 2
        halves = {"first": names[:middle], "second": names[middle:]}
        variants = {key: self._without(left_out) for key, left_out in halves.items()}
        measured = self._compare({_ALL: self._with(list(self.owned)), **variants})
        found: list[str] = []
        for key, left_out in halves.items():
            if measured[key].ratio > measured[_ALL].ratio * (1 + NOISE_FLOOR):
                # A half that burdens the model as a whole may hold no entry that does so alone.
                found += (self._burdens(left_out) if len(left_out) > 1 else []) or left_out
        return found

    def _is_no_slower_without(self, names: Sequence[str]) -> bool:
        measured = self._compare({_ALL: self._with(list(self.owned)), _WITHOUT: self._without(names)})
        return measured[_WITHOUT].ratio >= measured[_ALL].ratio * (1 - NOISE_FLOOR)

    def _problem(self, names: Sequence[str]) -> str:
        """Why the model with these entries alone is not to be had; empty where its results are the default's."""
        inputs = self.source.functions[self.function]
        try:
            self._running.check_model(
                self._with([]),
                self._with(names),
                self.function,
                inputs,
                self.tolerance,
                self.source.files,
                self._disturbed,
            )
        except (CandidateFailed, CommandFailed) as error:
            return str(error)
        return ""

    def _compare(self, tuned: Mapping[str, Path]) -> dict[str, Measurement]:
        inputs = self.source.functions[self.function]
        return self._running.compare_models(
            self._with([]), tuned, self.function, inputs, self.tolerance, self.source.files, self._disturbed
        )

    def _disturbed(self) -> Path | None:
        """The default with its sums disturbed."""
        self.tell(f"asking how {self.source.name} answers to rounding errors")
        changed = [symbol for symbols in self.everything.values() for symbol in symbols]
        return self.builds.disturbed_model(strip(self.application.sources), changed)

    def _without(self, names: Sequence[str]) -> Path:
        self.tell(f"trying the whole of {self.source.name} without {', '.join(names)}")
        return self._with([name for name in self.owned if name not in names])

    def _with(self, names: Sequence[str]) -> Path:
        """The model compiled with only these entries in force: the other executables have their default."""
        default = strip(self.application.sources)
        if not names:
            return self.builds.model(default)
        others = [symbol for name, symbols in self.everything.items() if name not in names for symbol in symbols]
        text = replace_executables(self.application.text, default, others) if others else self.application.text
        return self.builds.model(text)


def _record(draft: Draft, checks: tuple[SourceCheck, ...], dropped: dict[str, str], *, model: str = "") -> SpecRecord:
    """What came of a draft, which is what was left in the end."""
    return SpecRecord(sources=checks, dropped=dropped, model=model, entries=draft.configs, starter=draft.starter_key)


def _may_apply(plan: Plan, source: Source, draft: Draft) -> bool:
    """Whether an entry may be for something in a source: nobody knows of a starter's."""
    return bool(draft.starter or _owned(plan, source, draft.configs))


def _owned(plan: Plan, source: Source, names: Collection[str]) -> dict[str, list[str]]:
    """The executables of a source that the entries of these names are for; entries without any are left out."""
    owned = {
        task.name: [each.symbol for each in task.dispatch.members if each.source == source.name]
        for task in plan.tasks
        if task.name in names
    }
    return {name: symbols for name, symbols in owned.items() if symbols}


def _of_starter(application: Application, draft: Draft) -> dict[str, list[str]]:
    """The executables that entries of the starter are in force on, by the entry's name."""
    found: dict[str, list[str]] = {}
    for placement in application.placed:
        name = draft.by_matcher[placement.entry]
        if is_of_starter(name) and placement.symbol not in found.setdefault(name, []):
            found[name].append(placement.symbol)
    return found


def _touched(models: Sequence[TunedModel]) -> list[TunedModel]:
    """Those that an entry can make faster, or wrong."""
    return [model for model in models if model.function and model.owned]


def _untouched(models: Sequence[TunedModel]) -> str:
    """Which functions no entry changes, in words; empty without any."""
    names = ", ".join(repr(model.function) for model in models if model.function and not model.owned)
    return f"no entry is for what {names} calls, so that was not run" if names else ""


def _applied_check(model: TunedModel) -> SourceCheck:
    """To how many ops the spec applies, and which entries iree-compile's own flag does not apply."""
    placed = model.application.placed
    missed = sorted({each.entry for each in placed if not each.by_flag})
    note = f"only shark-tune compile applies {', '.join(missed)}" if missed else ""
    return SourceCheck(source=model.source.name, applied=len(placed), note=note)


def _noted(check: SourceCheck, note: str) -> SourceCheck:
    return msgspec.structs.replace(check, note="; ".join(filter(None, [note, check.note])))


def _with_figures(check: SourceCheck, whole: Measurement) -> SourceCheck:
    """The check with the whole's figures, unless it has those of a function that gained less."""
    if check.ratio is not None and check.ratio <= whole.ratio:
        return check
    return msgspec.structs.replace(
        check,
        ratio=whole.ratio,
        ratio_low=whole.ratio_low,
        ratio_high=whole.ratio_high,
        default_us=round(whole.baseline_median_us, 3),
        tuned_us=round(whole.median_us, 3),
    )


def _misapplied(plan: Plan, model: TunedModel) -> dict[str, str]:
    """The entries that were not applied to exactly their ops in a source, with the reason."""
    source, draft, infos = model.source, model.draft, model.draft.configs
    applied = {
        (each.symbol, each.compilation_info)
        for each in model.application.placed
        if not is_of_starter(draft.by_matcher[each.entry])
    }
    bad = {}
    for task in plan.tasks:
        name = task.name
        if name not in infos:
            continue
        wanted = {member.symbol for member in task.dispatch.members if member.source == source.name}
        got = {symbol for symbol, info in applied if info == infos[name]}
        if missed := wanted - got:
            bad[name] = f"in the whole of {source.name} it does not apply to {_named(missed)}"
        elif extra := got - wanted - _owners(plan, infos, name):
            bad[name] = f"in the whole of {source.name} it applies to {_named(extra)} as well"
    return bad


def _named(symbols: Set[str]) -> str:
    return ", ".join(sorted(symbols))


def _owners(plan: Plan, infos: Mapping[str, str], name: str) -> set[str]:
    """The executables that take the same config by right: those of dispatches with an equal winner."""
    return {
        member.symbol for task in plan.tasks if infos.get(task.name) == infos[name] for member in task.dispatch.members
    }
