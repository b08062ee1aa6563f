"""The session: runs the stages in order, on whichever process holds it, and knows nothing of pytest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed, InputError, SharkTuneError
from pytest_shark_tune.guard.checks import Promises
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan, found_dispatches, guard_key, make_guard_plan
from pytest_shark_tune.guard.speed import RUN_ALPHA
from pytest_shark_tune.guard.verdict import Promise, Verdict
from pytest_shark_tune.measurement.timing import FINAL_ROUNDS, MOST_ROUNDS, Measurement, combine_rounds, is_decided
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.make import make_plan, plan_key
from pytest_shark_tune.plan.profile import Profile, drop_cold, worth_profiling
from pytest_shark_tune.plan.source import Source, read_sources
from pytest_shark_tune.plan.types import POOL, AnyTask, Plan, Task, Wanted, with_data_of
from pytest_shark_tune.records.draft import Draft, spec_of
from pytest_shark_tune.records.reconcile import incumbent_of, starter_of
from pytest_shark_tune.records.types import Finalist, FinalRecord, Origin, Record, SpecRecord, State
from pytest_shark_tune.records.winner import choose_finalists, declare_winner, simplicity
from pytest_shark_tune.search import PriorResult
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.bundle import Packed, pack
from pytest_shark_tune.tuning.compile_step import CompileStep
from pytest_shark_tune.tuning.database import Recall
from pytest_shark_tune.tuning.microbenchmarks import Yardsticks
from pytest_shark_tune.tuning.model_final import ModelFinal, model_of
from pytest_shark_tune.tuning.model_profile import PROFILE_VERSION, function_of, profile_source
from pytest_shark_tune.tuning.prefetch import coming
from pytest_shark_tune.tuning.runner import Bench, model_tolerance
from pytest_shark_tune.tuning.settings import RunSettings
from pytest_shark_tune.tuning.starter import Starter
from pytest_shark_tune.tuning.verifier import Verifier

__all__ = ["Session"]


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a source goes, or why nobody can tell."""

    profile: Profile | None = None
    problem: str = ""


class Session:
    """Plans, compiles, measures and verifies for one process of a run.

    ``tell`` is told in words what takes long. ``close`` ends the children. ``kernels`` keeps what clients' own
    compilers made, by plan, task and candidate. ``models`` are those that plans were made of so far. With a ``step`` of
    a client's own all that is compiled goes through it. ``results`` keeps what is measured, where that is another
    cache than the one for all else.
    """

    def __init__(
        self,
        settings: RunSettings,
        compiler: Compiler,
        cache: Cache,
        *,
        tell: Callable[[str], None] = lambda message: None,
        step: CompileStep | None = None,
        results: Cache | None = None,
    ) -> None:
        self.results = results or cache
        self.settings = settings
        self.compiler = compiler
        self.cache = cache
        self._tell = tell
        leases = DeviceLeases(settings.devices, run=str(settings.exchange))
        self._of_run = Cache(settings.exchange, tell)
        self._builds = Builds(
            compiler,
            cache,
            leases,
            jobs=settings.jobs,
            tell=tell,
            coming=partial(coming, settings.exchange),
            step=step,
            of_run=self._of_run,
        )
        self._yardsticks = Yardsticks(compiler, cache, settings.device_name, tell, uris=settings.devices)
        self._bench = Bench(settings, self._builds, leases, tell=tell, yardsticks=self._yardsticks)
        self._verifier = Verifier(self._builds, self._bench, tell=tell)
        key = step.key if step else ""
        self._recall = Recall(self.results, compiler, settings, step=key)
        self._promises = Promises(settings, cache, self._builds, self._bench, setting=self.setting, step=key)
        self._starter = Starter(settings.starter)
        self._origin = Origin(device=settings.device_name, target=str(compiler.target), iree=compiler.version)
        self._stepped: dict[str, Session] = {}
        self.kernels: dict[tuple[str, str, str], tuple[Any, float]] = {}
        self.models: list[Source] = []

    def close(self) -> None:
        """End whatever this session started."""
        self._builds.close()
        self._bench.close()
        for session in self._stepped.values():
            session.close()

    def with_step(self, step: CompileStep) -> Session:
        """One like this whose modules go through ``step`` before they are compiled; the same for equal keys."""
        if step.key not in self._stepped:
            self._stepped[step.key] = Session(
                self.settings, self.compiler, self.cache, tell=self._tell, step=step, results=self.results
            )
        return self._stepped[step.key]

    # Planning.

    def plan(self, given: Sequence[object], folder: Path, wanted: Sequence[Wanted] = ()) -> tuple[str, Plan]:
        """The plan for the sources that a marker names, and its key in the cache; made by one process only.

        Of a model it holds the dispatches that make up the share of its time that is to be tuned. Configs in ``wanted``
        are among the candidates, also where not all of a space are.

        Raises:
            InputError: a source cannot be read or compiled.
        """
        kernels = [each for each in given if isinstance(each, CustomTask)]
        if again := [name for name, number in Counter(kernel.name for kernel in kernels).items() if number > 1]:
            raise InputError(f"{again[0]} is the name of two custom tasks")
        sources = self._read(given, folder)
        key, plan = self._plan(sources, kernels, ())
        wanted = (*wanted, *self._starter.wanted(plan.tasks))
        missing = tuple(each for each in wanted if each.is_missing(plan))
        self._note_models(plan.sources)
        for source in plan.sources:
            if source.why_not_run:
                self._tell(f"{source.name}: {source.why_not_run}")
        if missing:
            key, plan = self._plan(sources, kernels, missing)
        return self._without_cold(key, plan)

    def _plan(
        self, sources: Sequence[Source], kernels: Sequence[CustomTask], wanted: Sequence[Wanted]
    ) -> tuple[str, Plan]:
        settings = self.settings
        key = plan_key(
            sources,
            self.compiler,
            kernels=kernels,
            request=settings.request,
            processors=processors(),
            count=POOL,
            seed=settings.seed,
            rotate_bytes=settings.rotate_bytes,
            wanted=content_key(wanted),
        )

        def make() -> Plan:
            return make_plan(
                sources,
                self.compiler,
                processors=processors(),
                count=POOL,
                seed=settings.seed,
                kernels=kernels,
                request=settings.request,
                rotate_bytes=settings.rotate_bytes,
                wanted=wanted,
                tell=self._tell,
            )

        return key, self._kept_plan(key, make, sources)

    def _read(self, given: Sequence[object], folder: Path) -> tuple[Source, ...]:
        own = [each for each in given if not isinstance(each, CustomTask)]
        return read_sources(own, folder, self.settings.models)

    def _without_cold(self, key: str, plan: Plan) -> tuple[str, Plan]:
        """The plan with only the dispatches in which its models spend their time, as far as that can be told."""
        sources = worth_profiling(plan)
        if not sources or self.settings.share >= 1 or self.settings.stops_after_compile:
            return key, plan
        told = {source.name: self._told(plan, source) for source in sources}
        profiles = [each.profile for each in told.values() if each.profile]
        unprofiled = {name: each.problem for name, each in told.items() if each.problem}
        share = self.settings.share
        # Its key says what is in it: a profile that is measured again may choose others.
        key = content_key("plan", PROFILE_VERSION, key, share, told)
        return key, self._kept_plan(key, lambda: drop_cold(plan, profiles, share, unprofiled), plan.sources)

    def _told(self, plan: Plan, source: Source) -> _Told:
        """Where the time of a source goes, or why nobody can tell; all processes of the run are told the same."""

        def make() -> _Told:
            try:
                return _Told(profile=self.profile(plan, source))
            except SharkTuneError as error:
                return _Told(problem=str(error))

        return self._of_run.get_or_make("profiles", self._recall.profile_key(plan, source), _Told, make)

    def profile(self, plan: Plan, source: Source) -> Profile:
        """Where the time of a source of a plan goes.

        Raises:
            SharkTuneError: it cannot be told.
        """
        function = function_of(source)
        known = self._recall.profile(plan, source)
        if known is None:
            self._tell(f"measuring where the time of {source.name} goes")
            known = profile_source(source, plan.tasks, plan.untunable, self._builds, self._bench, function)
            self._recall.keep_profile(plan, source, known)
        return known

    def guard_plan(self, given: Sequence[object], folder: Path, spec_path: Path) -> GuardPlan:
        """What guarding the spec in the sources that a marker names looks at; made by one process only.

        Custom tasks have no entry in any spec, and are left out.

        Raises:
            InputError: a source cannot be read or compiled, or the spec cannot be read.
        """
        sources = self._read(given, folder)
        settings = self.settings
        key = plan_key(sources, self.compiler, processors=processors(), rotate_bytes=settings.rotate_bytes)

        def find() -> Plan:
            return found_dispatches(
                sources,
                self.compiler,
                processors=processors(),
                rotate_bytes=settings.rotate_bytes,
                tell=self._tell,
            )

        plan = self._kept_plan(key, find, sources)
        self._note_models(plan.sources)

        def make() -> GuardPlan:
            return make_guard_plan(plan, key, spec_path, device_name=settings.device_name)

        found = self.cache.get_or_make("plans", guard_key(key, spec_path, settings.device_name), GuardPlan, make)
        return msgspec.structs.replace(found, plan=plan)

    def _note_models(self, sources: Iterable[Source]) -> None:
        self.models += [source for source in sources if not source.is_op and not source.is_benchmark]

    def keep_plan(self, origin: str, plan: Plan) -> tuple[str, Plan]:
        """Keep a plan that was made from the one of key ``origin``; return its key too."""
        key = content_key("plan", origin, [task.dispatch.name for task in plan.tasks])
        return key, self._kept_plan(key, lambda: plan, plan.sources)

    def _kept_plan(self, key: str, make: Callable[[], Plan], sources: Sequence[Source]) -> Plan:
        """The plan of that key, from the cache or made now, with the files of ``sources`` as this process has them."""
        return with_data_of(self.cache.get_or_make("plans", key, Plan, make), sources)

    # Compiling and measuring.

    def artifact(self, task: Task, candidate: Candidate) -> Artifact:
        """The compiled candidate.

        Raises:
            CandidateFailed: the candidate cannot be compiled, or its config is not applied.
        """
        return self._builds.artifact(task, candidate)

    def prepare(self, task: Task, candidate: Candidate) -> None:
        """Compile all that measuring the candidate elsewhere takes: it and the default, in each dispatch of the group.

        Raises:
            CandidateFailed: one cannot be compiled, or its config is not applied.
        """
        for each in (task.default, candidate):
            for member in range(len(task.dispatch.members)):
                self._builds.artifact(task, each, member)

    def pack(
        self, path: Path, plans: Mapping[str, Plan], *, tests: Mapping[str, str], tried: Collection[tuple[str, str]]
    ) -> Packed | None:
        """Write what was ``tried`` of ``plans`` to a bundle; see `bundle.pack`."""
        return pack(
            path,
            self._builds,
            plans,
            tests=tests,
            tried=tried,
            yardsticks=self._yardsticks,
            rotate_bytes=self.settings.rotate_bytes,
        )

    def processor(self) -> AbstractContextManager[object]:
        """Holds the device while a compiler runs, where both are the same processor."""
        return self._builds.processor()

    def device(self) -> AbstractContextManager[str]:
        """Holds a device, whose URI it gives, until it is free."""
        return self._bench.device()

    def measure(self, task: Task, candidate: Candidate, artifact: Artifact) -> Measurement:
        """Time a candidate beside the default on a leased device, once its result is found right.

        Raises:
            CandidateFailed: it is a duplicate, cannot be run, runs too long, or its result is wrong.
        """
        return self._bench.measure(task, candidate, artifact)

    def check(self, task: Task, candidate: Candidate, artifact: Artifact | None = None) -> None:
        """Compare a candidate's results with the default's; ``artifact`` is its own, if a client made it.

        Raises:
            CandidateFailed: a result is wrong, or it cannot be compiled or run.
        """
        self._bench.check_members(task, candidate, artifact)

    def final(self, task: Task) -> FinalRecord:
        """Measure the fastest again, beside the default and each other, in fresh processes; declare a winner.

        Every finalist is checked, on new inputs each time, in every dispatch that the spec entry will match.
        """
        finalists, incumbent = self.finalists(task), self._incumbent(task)
        known = self._recall.final(task, finalists, incumbent)
        if known is None:
            known = self.hold_final(task, partial(self._bench.round, task))
            self._recall.keep_final(task, finalists, incumbent, known)
        return known

    def final_in_model(self, task: Task, plan: Plan) -> FinalRecord:
        """Compare the fastest in the model of ``plan`` that the dispatch is part of; declare a winner.

        Raises:
            InputError: it is not part of one function that can be run.
        """
        source, function = model_of(plan, task)
        symbols = [member.symbol for member in task.dispatch.members if member.source == source.name]
        tolerance = model_tolerance(source, function, plan.tasks, symbols)
        final = ModelFinal(task, source, function, tolerance, self._builds, self._bench)
        failed: dict[str, CandidateFailed] = {}
        names = self.finalists(task)
        record = self._declared(task, names, final.play(names, failed), failed)
        note = f"compared in the whole of {source.name}"
        return msgspec.structs.replace(record, note="; ".join(filter(None, [note, record.note])))

    def finalists(self, task: AnyTask) -> tuple[str, ...]:
        """The ids of those that are measured again, fastest first."""
        known = {each.id for each in task.candidates}  # Another suite, with the same dispatch, may have drawn others.
        records = journal.read(self.settings.records, Record)
        own = (each for each in records if each.dispatch == task.name and each.id in known)
        starter = starter_of(self.settings.exchange, task.name)
        return choose_finalists(own, incumbent=self._incumbent(task), starter=starter)

    def _incumbent(self, task: AnyTask) -> str:
        """The id of the config that the snapshot has for ``task``; empty without one."""
        return incumbent_of(self.settings.exchange, task.name)

    def hold_final(
        self,
        task: AnyTask,
        play: Callable[[Sequence[str], dict[str, CandidateFailed], int], Iterable[tuple[str, Measurement]]],
    ) -> FinalRecord:
        """Play rounds until they tell enough, and declare a winner.

        ``play`` takes the ids of those still in, those that failed, to which it adds, and the round's number; it
        gives the measurement of each that did not fail.
        """
        rounds: dict[str, list[Measurement]] = {name: [] for name in self.finalists(task)}
        failed: dict[str, CandidateFailed] = {}
        for number in range(MOST_ROUNDS):
            going = [name for name in rounds if name not in failed]
            for name, measurement in play(going, failed, number):
                rounds[name].append(measurement)
            if number + 1 >= FINAL_ROUNDS and is_decided(rounds[name] for name in going if name not in failed):
                break
        joined = {name: combine_rounds(measured) for name, measured in rounds.items() if name not in failed}
        return self._declared(task, tuple(rounds), joined, failed)

    def _declared(
        self,
        task: AnyTask,
        names: Sequence[str],
        joined: Mapping[str, Measurement],
        failed: Mapping[str, CandidateFailed],
    ) -> FinalRecord:
        """The record of a final of ``names``, each of which was measured or failed."""
        finalists = [Finalist.of(name, failed[name] if name in failed else joined[name]) for name in names]
        incumbent = self._incumbent(task)
        # Among equals the snapshot's own comes first: it changes for a reason only.
        verdict = declare_winner(finalists, lambda name: (name != incumbent, *simplicity(task.candidate(name).knobs)))
        return FinalRecord.from_rounds(
            task,
            finalists,
            next(iter(joined.values()), None),
            verdict,
            self._origin,
        )

    def record(
        self,
        task: AnyTask,
        candidate: Candidate,
        artifact: Artifact | None,
        outcome: Measurement | CandidateFailed,
        compile_s: float | None = None,
    ) -> Record:
        """The record of a candidate that was tried; ``compile_s`` is for kernels, which have no artifact of ours."""
        if isinstance(task, Task):
            known = artifact or self._builds.known(task.dispatch.members[0].module, candidate)
            compile_s = known.compile_s or None if known else None
        return Record.of_outcome(candidate, outcome, self._origin, compile_s)

    def verify(self, plan: Plan) -> SpecRecord:
        """Try the spec of what won, and the starter, on the sources of ``plan``: applied where it should be, same
        results, ops no slower.
        """
        draft = self._draft()
        # Where nothing won, nothing is written.
        return self.verify_draft(plan, draft) if draft.entries else SpecRecord(sources=(), dropped={})

    def verify_draft(self, plan: Plan, draft: Draft) -> SpecRecord:
        """Try the spec of a draft on the sources of ``plan``."""

        def make() -> SpecRecord:
            known = self._recall.checked(plan, draft)
            if known is None:
                known = self._verifier.check(plan, draft)
                self._recall.keep_checked(plan, draft, known)
            return known

        # Whoever measures one of the models asks again.
        return self._of_run.get_or_make("checks", self._recall.check_key(plan, draft), SpecRecord, make)

    def end_to_end(self, plan: Plan, name: str) -> SpecRecord:
        """Measure the model ``name`` of ``plan`` with what is left of the merged spec; drop what does not pay there.

        Raises:
            CandidateFailed: the model cannot be run.
        """
        bad = self.verify(plan).dropped
        draft = self._draft().without(bad)
        known = self._recall.checked(plan, draft, model=name)
        if known is None:
            known = self._verifier.measure(plan, plan.source(name), draft)
            self._recall.keep_checked(plan, draft, known, model=name)
        return msgspec.structs.replace(known, dropped=bad | known.dropped)

    def _draft(self) -> Draft:
        """The spec to be, as far as this run knows."""
        return spec_of(journal.read(self.settings.finals, FinalRecord), self._starter.text)

    def starter_candidate(self, task: Task) -> str:
        """The id of the candidate with the config that the starter spec has for a dispatch; empty without one."""
        return self._starter.candidate_for(task)

    def look(
        self,
        guarded: GuardPlan,
        entry: GuardEntry,
        promise: Promise,
        artifact: Artifact | None = None,
        *,
        alpha: float = RUN_ALPHA,
    ) -> Verdict:
        """What became of a promise of a spec's entry; ``artifact`` is that of its first task, if a client made it.

        ``alpha`` is the probability of a false alarm that this entry's speed promise has, of the whole run's.
        """
        return self._promises.look(guarded, entry, promise, artifact, alpha=alpha)

    @property
    def setting(self) -> str:
        """A hash of what figures depend on besides the dispatch, and of what the user asks of search spaces."""
        return content_key(self._recall.setting, self.settings.request)

    def known_records(self, task: Task) -> list[Record]:
        """What earlier runs found out about the candidates of ``task`` on this device."""
        return self._recall.records(task)

    def damaged_records(self, task: Task) -> list[str]:
        """The lines of what earlier runs found out about ``task`` that cannot be read, as FILE:NUMBER."""
        return self._recall.damaged(task)

    def reserve(self, task: Task, records: Iterable[Record]) -> None:
        """Let no other candidate measure the binary of one that was measured earlier, as ``records`` say.

        Raises:
            OSError: it cannot be written down.
        """
        measured = {record.id for record in records if record.state is State.MEASURED}
        for candidate in (task.default, *task.candidates):
            if candidate.id in measured:
                self._bench.reserve(task, candidate)

    def similar(self, task: AnyTask) -> list[PriorResult]:
        """What earlier runs found out about other dispatches like ``task`` on this device; kernels have none."""
        return self._recall.similar(task) if isinstance(task, Task) else []

    def keep_record(self, task: Task, record: Record) -> None:
        """Keep what this run found out for later ones."""
        self._recall.keep(task, record)
