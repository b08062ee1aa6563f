"""A model with a spec applied: its results and its speed, with all entries of the spec or with some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pytest_shark_tune.compiler.configure import replace_executables, strip
from pytest_shark_tune.device.profiler import Cost, profile
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.measurement.correctness import Tolerance
from pytest_shark_tune.measurement.timing import NOISE_FLOOR, Measurement
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.spec.apply import Application
from pytest_shark_tune.system.steps import Stage, Step
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.profile import arguments, by_symbol
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner

__all__ = ["TunedModel", "failing_entries"]

_ALL = "all"
_WITHOUT = "without"
_PROFILES = 3
"""How often a model's dispatches are timed with and without a spec, in turns."""
_PROFILE_S = 0.5


def failing_entries(names: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """Find the entries among ``names``, which fail together, that are to blame: by halves, and halves of those.

    If neither half fails without the other, all of them are to blame.
    """
    if len(names) == 1:
        return list(names)
    middle = len(names) // 2
    found = [name for half in (names[:middle], names[middle:]) if fails(half) for name in failing_entries(half, fails)]
    return found or list(names)


@dataclass(frozen=True)
class TunedModel:
    """One function of a source with the spec of a draft applied."""

    source: Source
    """The source."""
    function: str
    """The name of the function; empty if the source has none that can be run."""
    tolerance: Tolerance
    """How far its results may be off."""
    application: Application
    """The spec, applied to the source."""
    everything: Mapping[str, Sequence[str]]
    """The executables of each entry by the entry's name."""
    owned: Mapping[str, Sequence[str]]
    """The same, of the entries that have an executable which the function calls."""
    draft: Draft
    """The draft of the spec."""
    builder: Builder
    """Compiles the model."""
    models: ModelRunner | None
    """Runs it; ``None`` if there is no device."""
    report: Callable[[str], None]
    """Gets a message about work that takes long."""

    def wrong(self) -> tuple[str, dict[str, str]]:
        """Find the entries with which the model does not compile or run, or computes something else.

        Returns:
            A note on why results could not be compared, and the reasons by entry.
        """
        self.report(Step(f"checking the results of the whole of {self.source.name}", Stage.MODELS))
        everything = list(self.owned)
        problems = {tuple(everything): self._problem(everything)}
        if not problems[tuple(everything)]:
            return "", {}
        if failure := self._problem([]):
            return f"by default it cannot be run as a whole, so its results were not compared: {failure}", {}

        def fails(names: Sequence[str]) -> bool:
            problems[tuple(names)] = self._problem(names)
            return bool(problems[tuple(names)])

        names = failing_entries(everything, fails)
        reasons = {name: problems.get((name,)) or problems[tuple(everything)] for name in names}
        return "", {name: f"in the whole of {self.source.name}: {reason}" for name, reason in reasons.items()}

    def compare_whole(self) -> Measurement:
        """Compare the model with all entries with its default.

        Raises:
            CandidateFailed: it cannot be run, or its results differ.
        """
        return self._compare({})[_ALL]

    def ratios(self) -> dict[str, float]:
        """The time of each entry's dispatches in the default model by their time in the tuned one, run in turns.

        Raises:
            NoProfile: the driver does not tell.
        """
        inputs, parameters = arguments(self.source, self.function), self.source.parameter_arguments
        symbols = [symbol for owned in self.owned.values() for symbol in owned]
        taken: dict[Path, list[dict[str, Cost]]] = {self._with([]): [], self._with(list(self.owned)): []}
        for _ in range(_PROFILES):
            for path, costs_of in taken.items():
                with self._runner.children.lease() as uri:
                    statistics = profile(path, uri, self.function, inputs, parameters, seconds=_PROFILE_S)
                costs_of.append(by_symbol(statistics.exports, symbols))
        ratios = {}
        for name, own in self.owned.items():
            times = [
                median(sum(costs[symbol].time_us for symbol in own if symbol in costs) for costs in profiles)
                for profiles in taken.values()
            ]
            if len(times) > 1 and all(times):
                ratios[name] = times[0] / times[1]
        return ratios

    def what_does_not_pay(self, whole: Measurement, ratios: Mapping[str, float] | None) -> dict[str, str]:
        """Find the entries without which the model is no slower.

        Args:
            whole: the model with all entries, compared with its default.
            ratios: each entry's own ratio, if the driver reported one. Otherwise the entries are found by leaving out
                halves, unless the whole is clearly faster.

        Returns:
            The reasons by entry.
        """
        names = list(self.owned)
        if ratios is not None:
            slow = [name for name, ratio in ratios.items() if ratio < 1]
        elif whole.ratio < 1 + NOISE_FLOOR and len(names) > 1:
            slow = self._regressions(names)
        else:
            slow = []
        if slow and len(slow) < len(names) and self._is_no_slower_without(slow):
            return {name: self._no_gain((ratios or {}).get(name)) for name in slow}
        # If dispatches show a gain, it may be too small for the whole to show.
        shows_gain = ratios is not None and any(ratio >= 1 for ratio in ratios.values())
        if whole.ratio_high < 1 or (whole.ratio < 1 and not shows_gain):
            return dict.fromkeys(names, self.no_faster(whole))
        return {}

    def no_faster(self, whole: Measurement) -> str:
        """The reason for dropping all of the spec."""
        low, high = whole.ratio_low, whole.ratio_high
        speed = f"{whole.ratio:.3f} times the default's speed ({low:.3f} to {high:.3f})"
        return f"the whole of {self.source.name} is no faster with the spec: {speed}"

    def _no_gain(self, ratio: float | None) -> str:
        own = f": its dispatch runs at {ratio:.3f} times the default's speed there" if ratio else ""
        return f"the whole of {self.source.name} is no faster with it{own}"

    def _regressions(self, names: Sequence[str]) -> list[str]:
        """Find the entries without which the model is faster: by leaving out halves, and halves of these."""
        middle = len(names) // 2
        halves = {"first": names[:middle], "second": names[middle:]}
        measured = self._compare({half: self._without(left_out) for half, left_out in halves.items()})
        found: list[str] = []
        for half, left_out in halves.items():
            if measured[half].ratio > measured[_ALL].ratio * (1 + NOISE_FLOOR):
                # A half that slows the model down as a whole may have no entry that does so alone.
                found += (self._regressions(left_out) if len(left_out) > 1 else []) or left_out
        return found

    def _is_no_slower_without(self, names: Sequence[str]) -> bool:
        measured = self._compare({_WITHOUT: self._without(names)})
        return measured[_WITHOUT].ratio >= measured[_ALL].ratio * (1 - NOISE_FLOOR)

    def _problem(self, names: Sequence[str]) -> str:
        """Why the model with just these entries fails; empty if its results are the default's."""
        try:
            self._runner.check(self._called, self._with([]), self._with(names))
        except (CandidateFailed, CommandFailed) as error:
            return str(error)
        return ""

    def _compare(self, others: Mapping[str, Path]) -> dict[str, Measurement]:
        """Compare the model with all entries, and ``others``, with the default."""
        tuned = {_ALL: self._with(list(self.owned)), **others}
        return self._runner.compare(self._called, self._with([]), tuned)

    @property
    def _runner(self) -> ModelRunner:
        assert self.models is not None, "without a device no model is run"
        return self.models

    @property
    def _called(self) -> ModelFunction:
        inputs = self.source.functions[self.function]
        source = self.source
        return ModelFunction(
            self.function, inputs, self.tolerance, source.files, source.parameter_arguments, self._disturbed
        )

    def _disturbed(self) -> Path | None:
        """The default with its sums disturbed."""
        self.report(Step(f"asking how {self.source.name} answers to rounding errors", Stage.MODELS))
        changed = [symbol for symbols in self.everything.values() for symbol in symbols]
        return disturbed_model(self.builder, strip(self.application.sources), changed, self.source.form.flags)

    def _without(self, names: Sequence[str]) -> Path:
        self.report(Step(f"trying the whole of {self.source.name} without {', '.join(names)}", Stage.MODELS))
        return self._with([name for name in self.owned if name not in names])

    def _with(self, names: Sequence[str]) -> Path:
        """The model compiled with just these entries; the other executables have their default."""
        default = strip(self.application.sources)
        if not names:
            return self.builder.model(default, self.source.form.flags)
        others = [symbol for name, symbols in self.everything.items() if name not in names for symbol in symbols]
        text = replace_executables(self.application.text, default, others) if others else self.application.text
        return self.builder.model(text, self.source.form.flags)
