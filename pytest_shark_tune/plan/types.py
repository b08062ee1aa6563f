"""The plan of a run, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import Dispatch, Member, RootOp, Untunable
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.candidates import Candidates, CandidateTable, ids_of, packed
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.search.facts import ProblemFacts, facts_of, on_device
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system.steps import Stage, Step

__all__ = [
    "NOTHING_WANTED",
    "NOT_TRIED",
    "POOL",
    "AnyTask",
    "KernelTask",
    "Plan",
    "Stage",
    "Step",
    "Task",
    "Wanted",
    "WantedOfSuite",
    "renamed",
    "with_data_of",
]

NOT_TRIED = "not_tried"
"""The state of a candidate or a form that the run did not get to."""
POOL = 4096
"""The most candidates of a dispatch. The search chooses from them, and each one is a collected test."""


class _Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A default and the candidates to try instead."""

    default: Candidate
    candidates: Candidates
    space_size: int | None
    """The number of configs that the candidates were drawn from; `None` if they are too many to list."""

    def candidate(self, identifier: str) -> Candidate:
        """Return the candidate, or the default, with that id."""
        return self.default if identifier == self.default.id else self.candidates[self.ids.index(identifier)]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the candidates."""
        return ids_of(self.candidates)

    def label(self, position: int) -> tuple[str, str]:
        """Return the pipeline and the id of the candidate at a position, without making the rest of it."""
        if isinstance(self.candidates, CandidateTable):
            return self.candidates.pipeline(position), self.candidates.ids[position]
        candidate = self.candidates[position]
        return candidate.pipeline, candidate.id


class Task(_Tried, frozen=True, kw_only=True):
    """A dispatch with the candidates to try."""

    dispatch: Dispatch
    near: dict[int, dict[str, int]] = {}
    """The knobs of the compiler's own choice, by the position of a space of its pipeline among the dispatch's."""
    failed_step: str = ""
    """The optional step of the compiler that failed for the dispatch, with the reason."""
    facts: ProblemFacts | None = None
    """Facts that were read by the compiler, for a machine without it."""

    def facts_on(self, device: str) -> ProblemFacts:
        """Return the facts about the dispatch on the device of that name, for the search."""
        if self.facts is None:
            return facts_of(self.dispatch.root, self.dispatch.target, device)
        return on_device(self.facts, self.dispatch.target, device)

    def renamed(self, name: str) -> Task:
        """Return the task with another name for its dispatch."""
        return replace(
            self,
            dispatch=replace(self.dispatch, name=name),
            default=replace(self.default, dispatch=name),
            candidates=packed(name, self.candidates).renamed(name),
        )

    def with_members(self, members: Iterable[Member]) -> Task:
        """Return the task with other members of its group."""
        return replace(self, dispatch=replace(self.dispatch, members=tuple(members)))

    @property
    def name(self) -> str:
        """The dispatch's name."""
        return self.dispatch.name

    @property
    def root(self) -> RootOp | None:
        """The op that a spec entry for the dispatch matches."""
        return self.dispatch.root

    @property
    def weight(self) -> int:
        """The number of calls that a better config makes faster."""
        return self.dispatch.weight


class KernelTask(_Tried, frozen=True, kw_only=True):
    """A client's own kernel with the candidates to try. It is not an IREE dispatch, so it has no spec entry."""

    name: str
    weight: int
    root: ClassVar[None] = None


AnyTask: TypeAlias = Task | KernelTask


_MARGIN, _CHECK_S, _MODEL_RUNS = 1.25, 20.0, 250
"""What follows the finals takes 20 s and 250 runs of a model, by runs of two models, and a quarter more to be safe."""


class FormResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one form of a model, compiled as a whole and untuned."""

    model: str
    """The name of the model."""
    form: Form
    """The form."""
    state: str
    """``measured``, the state of a candidate that failed, or ``not_tried``."""
    reason: str = ""
    """The reason for a state other than ``measured``."""
    duplicate_of: str = ""
    """The form that compiles to the same code."""
    measurement: Measurement | None = None
    """Its time beside the default form's. The default form itself has the ratio 1."""
    estimate_us: float | None = None
    """The time that the model may take once its dispatches are tuned, if that was estimated."""
    is_tuned: bool = False
    """Whether its dispatches are tuned in this run."""
    compile_s: float = 0.0
    """The seconds that the compilation of the whole model took; 0 if it was not compiled for this."""
    wrong_part: str = ""
    """A module with a small part of the model that the form computes wrong; in summaries the name of its file."""

    @property
    def source(self) -> str:
        """The name of its source."""
        return self.form.source_name(self.model)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The dispatches and kernels that one test function, or one model file, tunes."""

    sources: tuple[Source, ...]
    tasks: tuple[Task, ...]
    untunable: tuple[Untunable, ...]
    kernels: tuple[KernelTask, ...] = ()
    profiles: tuple[Profile, ...] = ()
    """Where the time of its models goes."""
    unprofiled: dict[str, str] = {}
    """The models without a profile, with the reason."""
    forms: tuple[FormResult, ...] = ()
    """The forms of its models that were compared, the default form of each model first."""
    defaults: tuple[Task, ...] = ()
    """The untunable dispatches of which there is a benchmark, without candidates: they take their part of the time."""

    @property
    def everything(self) -> tuple[AnyTask, ...]:
        """The dispatches, then the kernels."""
        return (*self.tasks, *self.kernels)

    @property
    def models(self) -> tuple[Source, ...]:
        """The sources that are measured end to end: models with a function to run and a dispatch to tune."""
        tuned = {member.source for task in self.tasks for member in task.dispatch.members}
        return tuple(model for model in self.sources if model.run_whole and not model.is_op and model.name in tuned)

    @property
    def models_s(self) -> float | None:
        """About the seconds from the finals to the end of a run: 0 without models, ``None`` if that is not known.

        Each tuned form is compiled with the spec. Whole models are checked and timed in a few rounds.
        """
        total_s = 0.0
        for name in {model.model_name for model in self.models}:
            results = [result for result in self.forms if result.model == name]
            compile_s = max((result.compile_s for result in results), default=0.0)
            raced_us = [result.measurement.baseline_median_us for result in results if result.measurement]
            if not compile_s or not raced_us:
                return None
            compiled = sum(result.is_tuned for result in results) * compile_s
            total_s += _MARGIN * (compiled + _CHECK_S + _MODEL_RUNS * min(raced_us) / 1e6)
        return total_s

    @property
    def left_out(self) -> tuple[Share, ...]:
        """The tunable dispatches that take too little of a model's time to be tuned, model by model."""
        tuned = {task.name for task in self.tasks}
        shares = (part for profile in self.profiles for part in profile.shares)
        return tuple(part for part in shares if not part.reason and part.dispatch not in tuned)

    def time_us(self, task: AnyTask) -> float | None:
        """Microseconds of all calls of a dispatch in the plan's models; `None` unless all of them were profiled."""
        profiled = {profile.source for profile in self.profiles}
        if not isinstance(task, Task) or any(member.source not in profiled for member in task.dispatch.members):
            return None
        return sum(time_us for _, time_us in self._costs(task)) or None

    def share(self, task: AnyTask) -> float | None:
        """A dispatch's part of the time of all profiled models; `None` if there are none."""
        total = sum(total_us for total_us, _ in self._costs(task))
        return sum(time_us for _, time_us in self._costs(task)) / total if total else None

    def _costs(self, task: AnyTask) -> Iterator[tuple[float, float]]:
        """The time of a model's dispatches and that of ``task`` among them, in the form that has most of it."""
        models = {source.name: source.model_name for source in self.sources}
        of_model: dict[str, list[tuple[float, float]]] = {}
        for profile in self.profiles:
            cost = profile.dispatches_us, profile.time_us(task.name)
            of_model.setdefault(models.get(profile.source, profile.source), []).append(cost)
        return (max(costs, key=lambda cost: cost[1]) for costs in of_model.values())

    def source(self, name: str) -> Source:
        """Return the source of that name."""
        return next(source for source in self.sources if source.name == name)


class Wanted(NamedTuple):
    """A config that is to be among the candidates of a dispatch."""

    key: str
    """The key of the dispatch."""
    pipeline: str
    knobs: dict[str, int]
    compilation_info: str = ""
    """The text of the config. It replaces pipeline and knobs, and may lie outside of all spaces."""

    def is_missing(self, plan: Plan) -> bool:
        """Return whether a dispatch of ``plan`` could have the config, but was drawn without it."""
        tasks = [task for task in plan.tasks if task.dispatch.key == self.key]
        if self.compilation_info:
            infos = ({known.compilation_info for known in task.candidates} for task in tasks)
            return any(self.compilation_info not in known for known in infos)
        return any(
            task.space_size != len(task.candidates)
            and not any(known.pipeline == self.pipeline and known.knobs == self.knobs for known in task.candidates)
            for task in tasks
        )


class WantedOfSuite(NamedTuple):
    """The results of a suite's snapshots for a target, of all devices, which a run tries again."""

    configs: tuple[Wanted, ...] = ()
    """Each is among the candidates of its dispatch."""
    forms: Mapping[str, tuple[Form, ...]] = MappingProxyType({})
    """Each is among the forms of the model of that name."""


NOTHING_WANTED: Final = WantedOfSuite()
"""For tests of no suite, and suites without snapshots."""


def with_data_of(plan: Plan, sources: Sequence[Source]) -> Plan:
    """Replace the data files of a plan from the cache by those of ``sources``, with paths that are valid here."""
    given = {source.model_name: source for source in sources}
    return replace(plan, sources=tuple(_with_files_of(source, given[source.model_name]) for source in plan.sources))


def _with_files_of(source: Source, given: Source) -> Source:
    scopes = {file.scope for file in source.parameters}
    parameters = tuple(file for file in given.parameters if file.scope in scopes)
    return replace(source, data=given.data, path=given.path, parameters=parameters)


def renamed(plan: Plan, names: Mapping[str, str]) -> Plan:
    """Return the plan with other names for some of its dispatches."""

    def rename_shares(profile: Profile) -> Profile:
        shares = (replace(part, dispatch=names.get(part.dispatch, part.dispatch)) for part in profile.shares)
        return replace(profile, shares=tuple(shares))

    tasks = tuple(task.renamed(names.get(task.name, task.name)) for task in plan.tasks)
    return replace(plan, tasks=tasks, profiles=tuple(map(rename_shares, plan.profiles)))
