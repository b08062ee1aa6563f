"""Tune mode as a pytest plugin: registered only where a run tunes."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_shark_tune import __version__
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.discovery import FoundDevices, crowding, find_devices, jobs_of_worker
from pytest_shark_tune.device.identity import device_slug, runtime_version
from pytest_shark_tune.errors import CandidateFailed, InputError, SharkTuneError
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.roles import Phase, Role
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task, renamed
from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.cases import Trial, trials_of
from pytest_shark_tune.plugin.collected import CollectionWatch
from pytest_shark_tune.plugin.dry_run import is_dry
from pytest_shark_tune.plugin.interrupts import TERMINATED, Interrupts
from pytest_shark_tune.plugin.kernels import Built, as_failure
from pytest_shark_tune.plugin.keys import SESSION_KEY
from pytest_shark_tune.plugin.marker import TuneMarks, marks_of
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import check_cache, check_compiler, check_folder, hold_folder, refuse_strays
from pytest_shark_tune.plugin.xdist.messages import note_of, teller, write_line
from pytest_shark_tune.plugin.xdist.order import RunOrder
from pytest_shark_tune.plugin.xdist.remote import (
    devices_of_worker,
    hand_over,
    is_remote,
    paths_of_worker,
    shared_folder,
)
from pytest_shark_tune.records.reconcile import Requirements, Subject, Update, look_back, wanted_of
from pytest_shark_tune.records.snapshot import check_snapshots
from pytest_shark_tune.records.types import FinalRecord, Record, SourceCheck, SpecRecord, State
from pytest_shark_tune.report.progress_text import RunProgress
from pytest_shark_tune.report.summary_text import render
from pytest_shark_tune.results.finding import Finding
from pytest_shark_tune.results.landscape import write_landscapes
from pytest_shark_tune.results.store import Ledger, Summary
from pytest_shark_tune.spec.link import check_starter
from pytest_shark_tune.spec.read import dropped_prints
from pytest_shark_tune.system import cleanup, journal
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.disk_errors import Storage
from pytest_shark_tune.system.terminal import escaped_line
from pytest_shark_tune.system.units import format_us
from pytest_shark_tune.tuning.bundle import BUNDLE, Bundle, Packed, PackedCompiler, check_machine, pack, read_bundle
from pytest_shark_tune.tuning.manifest import Part, Roster
from pytest_shark_tune.tuning.scheduler import Campaign, make_quarry
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["TuningPlugin", "finding_of"]

_PROPERTY = "shark_tune"
_RESULTS = "results"
"""Where in the output folder a run keeps what it found out about a bundle, so that it measures nothing twice."""
_SHORTEST_STRETCH, _LONGEST_STRETCH = 4, 16
"""How many candidates are chosen together: so many are compiled at a time, and the last know nothing of the first."""


class TuningPlugin:
    """One process's share of a tuning run.

    The process that controls the run (the only one, or xdist's controller) has a ledger; those that run tests
    have a session. Without xdist both are the same process.
    """

    def __init__(
        self,
        config: pytest.Config,
        options: TuneOptions,
        session: Session,
        ledger: Ledger | None,
        bundle: Bundle | None = None,
    ) -> None:
        self._config = config
        self._options = options
        self._session = session
        self._ledger = ledger
        self._progress = RunProgress(options.time_s)
        self._order: Callable[[], RunOrder | None] = lambda: None
        self._bundle = bundle
        self._plan_of_test: dict[str, str] = {}
        self._compiled: set[tuple[str, str]] = set()
        self._packed: Packed | None = None
        self._names: dict[str, str] = {}
        self._kernels: dict[str, CustomTask] = {}
        self._models: dict[tuple[str, str], str] = {}
        self._summary: Summary | None = None
        self._campaign: Campaign | None = None
        self._recalled = 0
        self._tests: pytest.Session | None = None
        self._landscapes: list[str] = []
        self._interrupts = Interrupts(terminate=ledger is not None)
        self._storage = _storage_of(options, session.settings.exchange)
        self._roster: Roster | None = None
        self._watch = CollectionWatch()
        self._is_dry = is_dry(config)
        self._ended = ""
        self._lost = 0
        self._lost_in_a_row = 0
        config.stash[SESSION_KEY] = session
        config.pluginmanager.register(self._watch, "shark-tune-watch")

    @classmethod
    def start(cls, config: pytest.Config) -> TuningPlugin:
        """Check what the user asked for and set a run up.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        options = TuneOptions.from_pytest_config(config)
        worker = getattr(config, "workerinput", None)
        if worker is not None:
            options = replace(options, **paths_of_worker(worker))
        bundle = _read_bundle(options) if options.bundle is not None else None
        if bundle is None:
            compiler = options.compiler
        else:
            compiler = PackedCompiler(bundle)
            options = replace(options, target=bundle.target, rotate_bytes=bundle.rotate_bytes)
        if worker is None:
            cleanup.sweep()
            try:
                given = _check_inputs(options, compiler, writes=not is_dry(config))
                if not is_dry(config):
                    _hold_out(config, options.out)
                exchange = shared_folder(options.cache) if is_remote(config) else cleanup.new_folder("run")
            except OSError as error:
                folder = Path(tempfile.gettempdir())
                raise pytest.UsageError(_storage_of(options, folder).explain(error) or str(error)) from error
            _raise_worker_limit(config)
        else:
            given, exchange = devices_of_worker(worker, options), Path(worker["shark_tune_exchange"])
        devices = tuple(given["uris"])
        tell = teller(config)
        if bundle is None:
            cache = results = Cache(options.cache, tell)
        else:  # What it holds, and what is found out about it, is kept where no other run looks.
            cache = Cache(exchange, tell)
            leaves_out = worker["shark_tune_is_remote"] if worker is not None else is_remote(config)
            results = cache if leaves_out else Cache(options.out / _RESULTS, tell)
        if worker is None and options.clears_cache and not is_dry(config):
            Cache(options.cache).clear()
            results.clear()
        starter = journal.read_plain(options.starter).decode() if options.starter else ""
        settings = RunSettings(
            devices=devices,
            device_name=given["name"],
            jobs=options.jobs
            if worker is None
            else jobs_of_worker(options.jobs, worker["workercount"], options.target, measures=not options.stop_after),
            seed=options.seed,
            exchange=exchange,
            request=options.request,
            rotate_bytes=options.rotate_bytes,
            share=options.share,
            fresh=options.fresh,
            models=options.models,
            stops_after_compile=options.stop_after == "compile",
            bundle=bundle.digest if bundle is not None else "",
            starter=starter,
        )
        if worker is None and bundle is not None and options.bundle is not None:
            _unpack(bundle, options.bundle, cache)
        session = Session(settings, compiler, cache, tell=tell, results=results)
        ledger = None
        if worker is None:
            ledger = Ledger(
                options.out,
                lambda key: _load_plan(cache, key),
                target=str(options.target),
                device=given["name"],
                device_slug=device_slug(devices[0]) if devices else "",
                versions={
                    "pytest-shark-tune": __version__,
                    "iree-base-compiler": compiler.version,
                    "iree-base-runtime": runtime_version(),
                },
                starter=starter,
                setting=session.setting,
                makes_specs=bundle is None,
                root=config.rootpath,
                mirror=exchange,
            )
        return cls(config, options, session, ledger, bundle)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """From here on an interrupt ends the run with what is known."""
        self._tests = session
        self._interrupts.install()

    # Collecting.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a marked test with its plan's trials."""
        marks = marks_of(metafunc.definition)
        if marks is None:
            return
        if "candidate" not in metafunc.fixturenames:
            pytest.fail(
                f"{metafunc.definition.name} is marked tune and takes none of the fixtures candidate, artifact and "
                "measurement, so nothing would be tuned",
                pytrace=False,
            )
        path = metafunc.definition.path
        suite = self._portable(path.parent) if path.suffix == ".py" else ""
        trials = self._trials(marks, path.parent, suite, metafunc.definition.nodeid)
        self._watch.add(path, trials)
        metafunc.parametrize("candidate", trials, ids=[escaped_line(trial.id) for trial in trials], indirect=True)

    def _trials(self, marks: TuneMarks, folder: Path, suite: str, test: str) -> list[Trial]:
        nothing = Plan(sources=(), tasks=(), untunable=())
        try:
            if self._bundle is not None:
                key = self._bundle.plan_of(test)
                trials = trials_of(_load_plan(self._session.cache, key), key, suite)
                # To make a spec, and to try it, takes the compiler.
                return [trial for trial in trials if trial.role not in (Role.SPEC, Role.END_TO_END)]
            if marks.options:
                raise InputError(
                    f"the marker tune knows no option {', '.join(map(repr, marks.options))}: it takes sources only, "
                    "as in @pytest.mark.tune(ops.matmul(m=512, n=512, k=512), 'model.mlir')"
                )
            if marks.is_bare:
                raise InputError("the marker tune needs at least one source: an op or a path to a model")
            self._refuse_same_names(marks.sources)
            if suite:
                check_snapshots(self._config.rootpath / suite, str(self._options.target))
            wanted = wanted_of(self._config.rootpath / suite, str(self._options.target)) if suite else ()
            key, plan = self._session.planner.plan(marks.sources, folder, wanted)
            if not plan.everything:
                reasons = "; ".join(f"{each.name}: {each.reason}" for each in plan.untunable)
                if plan.left_out:
                    models = ", ".join(profile.source for profile in plan.profiles)
                    share = f"what takes {self._options.share:.0%} of the time of {models} cannot be tuned"
                    raise InputError(f"{share}: {reasons}; a larger --tune-share takes in what can")
                names = ", ".join(
                    dict.fromkeys([source.name for source in plan.sources] + _kernel_names(marks.sources))
                )
                raise InputError(f"there is nothing to tune in {names}: {reasons or 'it has no dispatch'}")
            self._refuse_same_models(suite, plan.sources)
            key, plan = self._named_apart(key, plan)
            trials = trials_of(plan, key, suite)
            if self._session.settings.stops_after_compile:
                return [each for each in trials if each.config is not None and isinstance(each.task, Task)]
            return list(trials)
        except InputError as error:
            return [Trial(Role.INPUT, nothing, problem=str(error))]
        except OSError as error:
            if problem := self._storage.explain(error):
                return [Trial(Role.INPUT, nothing, problem=problem)]
            raise

    def _portable(self, suite: Path) -> str:
        """A suite's folder as all processes of the run name it, wherever each of them has the suite."""
        root = self._config.rootpath
        return suite.relative_to(root).as_posix() if suite.is_relative_to(root) else str(suite)

    def _named_apart(self, key: str, plan: Plan) -> tuple[str, Plan]:
        """Give a hash to the name of a dispatch that another test's has too, though it differs in structure.

        Records and the spec tell dispatches by their names; every process collects in the same order.
        """
        names: dict[str, str] = {}
        for task in plan.tasks:
            name, structure = task.dispatch.name, task.dispatch.key
            if self._names.setdefault(name, structure) != structure:
                names[name] = f"{name}_{structure[:4]}"
                self._names[names[name]] = structure
        return self._session.planner.store_derived(key, renamed(plan, names)) if names else (key, plan)

    def _refuse_same_names(self, given: tuple[object, ...]) -> None:
        """Records know a task by its name alone."""
        for each in given:
            if isinstance(each, CustomTask) and self._kernels.setdefault(each.name, each) != each:
                raise InputError(f"{each.name} is the name of two different custom tasks in this run")

    def _refuse_same_models(self, suite: str, sources: Sequence[Source]) -> None:
        """The records of a suite's snapshot know a model by its name alone."""
        for each in sources if suite else ():
            if not each.is_op and self._models.setdefault((suite, each.name), each.text) != each.text:
                raise InputError(
                    f"{each.name} is the name of two different models of this suite, whose snapshot tells models by "
                    "their names: rename one of the files, or put its test into another folder"
                )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tune nothing where something is said of no model that was collected."""
        refuse_strays(self._config, self._session, items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the controller which test has which part, and what was collected; all workers write the same."""
        trials = [trial for item in session.items if (trial := _trial_of(item))]
        patterns = session.config.getini("python_files")
        collected = self._watch.seen(trials, session.config.args, patterns)
        if self._ledger is None:
            parts = {item.nodeid: part for item in session.items if (part := _part_of(item))}
            with suppress(OSError):  # The controller misses it, and says so once for all workers.
                self._session.run.write_manifest(Roster(parts, collected))
        else:
            self._ledger.add_collected(collected)
        for item in session.items:
            if self._ledger is not None and (trial := _trial_of(item)) and trial.plan_key:
                self._ledger.add_plan(trial.plan_key, trial.suite)

    # Running.

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run the tests in the order of the phases, where xdist does not."""
        if self._config.pluginmanager.has_plugin("dsession") or self._ledger is None:
            return None
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None
        if session.config.option.collectonly:
            return None
        order = self._begin([_part_of(item) for item in session.items])
        self._order = lambda: order
        index = order.take()
        while index is not None:
            following = order.take()
            nextitem = session.items[following] if following is not None else None
            item = session.items[index]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            order.complete(index)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            index = following
        return True

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Let xdist hand out the tests in the order of the phases."""
        from pytest_shark_tune.plugin.xdist.scheduling import TuneScheduling

        scheduling = TuneScheduling(config, self._begin_with_workers)
        self._order = lambda: scheduling.order
        if note := crowding(scheduling.workers, self._session.settings.devices):
            self._write(f"shark-tune: {note}")
        return scheduling

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand a worker what the controller found out."""
        hand_over(node.workerinput, self._options, self._session.settings, is_remote(self._config))

    def _begin(self, parts: Sequence[Part | None]) -> RunOrder:
        """The order of a run whose tests have these parts, which begins now."""
        assert self._ledger is not None
        by_dispatch: dict[str, dict[int, Part]] = {}
        for index, part in enumerate(parts):
            if part is not None and part.plan and part.dispatch:
                self._ledger.add_plan(part.plan, part.suite)
                by_dispatch.setdefault(part.dispatch, {})[index] = part
        options = self._options
        update = self._look_back(by_dispatch)
        kept = {index for name in update.kept for index in by_dispatch.pop(name)}
        quarries = [
            make_quarry(
                self._ledger.task(name),
                tests,
                strategy=options.search,
                seed=options.seed,
                most=options.candidates,
                device=self._session.settings.device_name,
                jobs=options.jobs,
                by_time=options.time_s is not None,
                prior=partial(self._session.database.similar, self._ledger.task(name)),
                first=update.first.get(name, ()),
                in_model_us=self._ledger.time_us(name),
            )
            for name, tests in by_dispatch.items()
        ]
        self._campaign = Campaign(
            quarries,
            stretch=min(max(options.jobs, _SHORTEST_STRETCH), _LONGEST_STRETCH),
            is_spent=self._progress.is_spent,
            announce=self._announce,
        )
        if not self._is_dry:
            self._recall(by_dispatch)
        self._progress.start()
        phases = [part.phase if part else Phase.ORDINARY for part in parts]
        needless = [index for index in kept if phases[index] is not Phase.CANDIDATE]
        if self._tests is not None and parts:
            # What pytest's progress is a part of: most of what was collected is there to be chosen from. Without any
            # pytest would take the run for an empty one.
            chosen_from = phases.count(Phase.CANDIDATE)
            expected = len(parts) - chosen_from - len(needless) + self._campaign.expected
            self._tests.testscollected = max(expected, 1)
        return RunOrder(phases, self._campaign, needless)

    def _look_back(self, by_dispatch: Mapping[str, Mapping[int, Part]]) -> Update:
        """Keep what still holds of the snapshots beside the suites, and say why the rest is tuned again."""
        assert self._ledger is not None
        if self._bundle is not None:  # Snapshots are brought up to date where specs are made.
            return Update()
        settings, options = self._session.settings, self._options
        required = Requirements(
            target=str(options.target),
            setting=self._session.setting,
            iree=self._session.compiler.version,
            device=settings.device_name,
            candidates=options.candidates,
            fresh=options.fresh,
        )
        update = look_back(self._subjects(by_dispatch), required, self._ledger.snapshot_of)
        for name, record in update.kept.items() if not self._is_dry else ():
            self._ledger.keep(next(iter(by_dispatch[name].values())).plan, record)
        own_of = self._session.planner.starter.candidate_for
        for name in by_dispatch:
            task = self._ledger.task(name)
            if isinstance(task, Task) and name not in update.kept and (own := own_of(task)):
                update.add_starter(name, own)
        if update.incumbents or update.starters:
            try:
                self._session.run.write_incumbents(update.incumbents, update.starters)
            except OSError as error:
                reporting.end_run(self._storage.explain(error) or str(error), returncode=1)
        starter = journal.read_plain(options.starter).decode() if options.starter is not None else ""
        for line in (*(f"{options.starter}: {sentence}" for sentence in dropped_prints(starter)), *update.words()):
            self._write(f"shark-tune: {line}")
        return update

    def _subjects(self, by_dispatch: Mapping[str, Mapping[int, Part]]) -> Iterator[Subject]:
        """The dispatches of the suites, each as every suite that has it sees it."""
        assert self._ledger is not None
        suites = {part.suite for parts in by_dispatch.values() for part in parts.values()} - {""}
        tasks = {suite: self._ledger.tasks_of(suite) for suite in suites}
        for name, parts in by_dispatch.items():
            for suite in dict.fromkeys(part.suite for part in parts.values()):
                if task := tasks.get(suite, {}).get(name):
                    is_ours = all(part.is_ours for part in parts.values() if part.suite == suite)
                    yield Subject(task, str(self._config.rootpath / suite), is_ours=is_ours)

    def _recall(self, by_dispatch: Mapping[str, Mapping[int, Part]]) -> None:
        """Take in what earlier runs found out, as if it had been found out now."""
        assert self._ledger is not None
        assert self._campaign is not None
        damaged: list[str] = []
        for name, tests in by_dispatch.items():
            task = self._ledger.task(name)
            collected = {part.candidate: part for part in tests.values()}
            if not isinstance(task, Task) or not all(part.is_ours for part in tests.values()):
                continue
            damaged += self._session.database.damaged(task)
            records = [record for record in self._session.database.records(task) if record.id in collected]
            for record in records:
                part = collected[record.id]
                self._ledger.take(Finding(plan=part.plan, suite=part.suite, record=record))
                self._campaign.tell(record)
                self._progress.note(record)
            self._recalled += len(records)
            with suppress(OSError):  # Then a binary may be measured twice.
                self._session.runner.reserve(task, records)
        self._tell_damaged(damaged)
        if self._recalled:
            self._write(
                f"shark-tune: {self._recalled} results of earlier runs are taken from {self._session.results.folder}"
            )

    def _tell_damaged(self, places: Sequence[str]) -> None:
        """Say which lines were left out: a log is shown by nobody at this point of a run."""
        if places:
            lines = "1 line is" if len(places) == 1 else f"{len(places)} lines are"
            self._write(
                f"shark-tune: of the results of earlier runs {lines} damaged, as where a run was killed, and left out: "
                f"{places[0]}{', ...' if places[1:] else ''}"
            )

    def _announce(self, dispatch: str, coming: Sequence[str]) -> None:
        """Let whoever compiles know what comes next; it is only a hint, so a full disk ends nothing here."""
        assert self._ledger is not None
        with suppress(OSError):
            self._session.run.publish(self._ledger.task(dispatch), coming)

    def _begin_with_workers(self, names: Sequence[str]) -> RunOrder:
        assert self._ledger is not None
        exchange = self._session.settings.exchange
        try:
            self._roster = self._session.run.read_manifest()
        except OSError as error:
            reporting.end_run(
                f"TMPDIR: the workers cannot write to {exchange}: {error.strerror}; is it full?", returncode=1
            )
        self._ledger.add_collected(self._roster.collected)
        return self._begin([self._roster.parts.get(name) for name in names])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Count the workers that are lost; those that never get to run a test would be replaced for ever."""
        if not error or self._interrupts.is_ending:
            return
        from pytest_shark_tune.plugin.xdist.scheduling import MOST_LOST_IN_A_ROW, how_it_ended, refusal

        if why := refusal(error):  # Whoever takes its place would refuse as well.
            reporting.end_run(f"{node.gateway.id}: {why}", returncode=pytest.ExitCode.USAGE_ERROR)
        self._lost += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row > MOST_LOST_IN_A_ROW * node.workerinput["workercount"]:
            reporting.end_run(
                f"{self._lost_in_a_row} workers in a row were lost before they had run a test, the last one by "
                f"{how_it_ended(node) or error}: run pytest with -n 0 to see why",
                returncode=1,
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Record the candidate that a lost worker was trying; with any other test's worker something is wrong."""
        from pytest_shark_tune.plugin.xdist.scheduling import how_it_ended

        part = self._roster.parts.get(crashitem) if self._roster is not None else None
        node: Any = report.node
        if part is None or not part.plan:
            return
        reason = f"the worker {node.gateway.id} that ran it crashed ({how_it_ended(node) or 'it is not known how'})"
        path, _, test = crashitem.partition("::")
        report.when, report.location = "call", (path, None, test)
        report.longrepr = f"{State.RUN_FAILED}: {reason}; run pytest with -n 0 and -k to see why"
        if part.role is Role.CANDIDATE:
            report.outcome = "skipped"
            # Without a line, which nobody here knows; pytest then shows none.
            report.longrepr = (path, None, f"Skipped: {State.RUN_FAILED}: {reason}")  # type: ignore[assignment]
        if part.candidate and not self._session.settings.stops_after_compile:
            finding = self._lost_candidate(part, CandidateFailed(State.RUN_FAILED, reason))
            report.user_properties.extend(_property(finding) if finding else ())
        self._heed_maxfail(report)

    def _lost_candidate(self, part: Part, failure: CandidateFailed) -> Finding | None:
        """The finding on a candidate whose worker is gone, unless it was found out before."""
        assert self._ledger is not None
        self._ledger.add_plan(part.plan, part.suite)
        if any(record.id == part.candidate for record in self._ledger.records(part.dispatch)):
            return None
        task = self._ledger.task(part.dispatch)
        record = self._session.runner.record(task, task.candidate(part.candidate), failure)
        return Finding(plan=part.plan, suite=part.suite, record=record, is_ours=part.is_ours)

    def _heed_maxfail(self, report: pytest.TestReport) -> None:
        """Let ``-x`` and ``--maxfail`` count a lost worker's test, which xdist leaves out."""
        controller = self._config.pluginmanager.get_plugin("dsession")
        if report.failed and controller is not None:
            controller.countfailures += 1
            if 0 < (controller.maxfail or 0) <= controller.countfailures and not controller.shouldstop:
                controller.shouldstop = f"stopping after {controller.countfailures} failures"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out of a bundle what only its suite can compile or measure."""
        if self._session.settings.stops_after_compile and _trial_of(item) and not _is_ours(item):
            pytest.skip("its suite has an artifact or measurement of its own, which no bundle can hold")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run no test's own lines where there is no measurement for them to look at."""
        return True if self._session.settings.stops_after_compile and _trial_of(pyfuncitem) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a candidate's failure data, and send what a test found out along with its report."""
        report = yield
        trial = _trial_of(item)
        if trial is None or not trial.plan_key:
            return report
        error = call.excinfo.value if call.excinfo else None
        if trial.config is not None:
            error = as_failure(error)
        outcome: object = None
        if problem := self._storage.explain(error):
            report.outcome, report.longrepr = "failed", problem
            item.session.shouldstop = problem
            return report
        if isinstance(error, SharkTuneError):
            report.longrepr = str(error)
            if isinstance(error, CandidateFailed) and error.state in set(State):
                outcome = error
                if trial.role is Role.CANDIDATE:
                    report.outcome = "skipped"
                    report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {error}")
        elif call.when == "call" and error is None:
            outcome = _funcargs(item).get("measurement")
        if self._session.settings.stops_after_compile:
            finding = self._compiled_finding(trial) if call.when == "call" or outcome is not None else None
        else:
            finding = self._finding(trial, _funcargs(item).get("artifact"), outcome, is_ours=_is_ours(item))
        report.user_properties.extend(_property(finding) if finding else ())
        return report

    def _compiled_finding(self, trial: Trial) -> Finding | None:
        if trial.config is None:
            return None
        compiled = (trial.known_task.name, trial.config.id)
        return Finding(plan=trial.plan_key, suite=trial.suite, compiled=compiled)

    def _finding(self, trial: Trial, artifact: object, outcome: object, *, is_ours: bool) -> Finding | None:
        match outcome:
            case Measurement() | CandidateFailed() if trial.config is not None:
                built = artifact if isinstance(artifact, Artifact) else None
                compile_s = artifact.compile_s.get(trial.config.id) if isinstance(artifact, Built) else None
                case = trial.known_task, trial.config, outcome
                record = self._session.runner.record(*case, artifact=built, compile_s=compile_s)
                return Finding(plan=trial.plan_key, suite=trial.suite, record=record, is_ours=is_ours)
            case FinalRecord():
                return Finding(plan=trial.plan_key, suite=trial.suite, final=outcome)
            case SpecRecord():
                return Finding(plan=trial.plan_key, suite=trial.suite, spec=outcome)
            case _:
                return None

    # Reporting.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what a test found out, as it comes; tell of a new best, and what a worker has to tell."""
        if self._ledger is not None and (note := note_of(report)):
            self._write(f"shark-tune: {note}")
        self._lost_in_a_row = 0
        finding = finding_of(report)
        if self._ledger is None or finding is None or self._is_dry:
            return
        if finding.compiled is not None:
            self._compiled.add(finding.compiled)
            self._plan_of_test[_function_of(report.nodeid)] = finding.plan
            if self._campaign is not None:
                self._campaign.pass_over(*finding.compiled)
            return
        if finding.record is not None and finding.is_ours:
            self._keep(finding, finding.record)
        failures = len(self._ledger.failures)
        self._ledger.take(finding)
        if len(self._ledger.failures) > failures:
            # A final reads what is on record: to go on would be to go by half of it.
            reporting.end_run("what is found out cannot be kept", returncode=1)
        if finding.record is not None:
            if self._campaign is not None:
                self._campaign.tell(finding.record)
            self._tell_progress(finding.record)

    def _keep(self, finding: Finding, record: Record) -> None:
        """Keep a record for later runs, before it is this run's: one that is killed in between loses no measurement."""
        assert self._ledger is not None
        self._ledger.add_plan(finding.plan, finding.suite)
        task = self._ledger.task(record.dispatch)
        if isinstance(task, Task):
            try:
                self._session.database.add(task, record)
            except OSError as error:  # This run has its record all the same; a later one measures again.
                self._ledger.failures.append(error)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show with ``-v`` what a candidate came to."""
        finding = finding_of(report)
        if finding is None or not report.passed:
            return None
        if finding.record is not None and finding.record.ratio is not None:
            took = format_us(_median(finding.record.samples_us))
            return "passed", ".", f"{finding.record.ratio:.2f}x ({took})"
        if finding.spec is not None and finding.spec.model:
            return "passed", ".", escaped_line("; ".join(_in_whole(each) for each in finding.spec.sources))
        if finding.final is not None:
            winner = finding.final.winner
            return "passed", ".", escaped_line(f"winner {winner}") if winner else "no winner"
        return None

    def _tell_progress(self, record: Record) -> None:
        assert self._ledger is not None
        line = self._progress.line(
            record,
            tried=len(self._ledger.records(record.dispatch)),
            of=min(self._options.candidates, len(self._ledger.task(record.dispatch).candidates)) + 1,
            waiting=self._campaign.expected if self._campaign is not None else 0,
        )
        if line:
            self._write(f"  {line}")

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity >= 0:
            write_line(reporter, line)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, object, object]:
        """Write the results before any other plugin's turn: one that raises does not cost them."""
        self._finish(session, exitstatus)
        return (yield)

    def _finish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        """Derive spec, summary and snapshots from what is known, however the run ended."""
        self._interrupts.wind_down()
        if self._ledger is None:
            self._session.close()
            return
        order = self._order()
        unfinished = order.unfinished if order is not None else 0
        ended_early = bool(self._ended or unfinished) or exitstatus == pytest.ExitCode.INTERNAL_ERROR
        if ended_early:
            self._session.close()
        if self._session.settings.stops_after_compile and not self._is_dry:
            self._pack()
        if self._ledger.has_findings:
            complete = not ended_early
            if self._campaign is None:
                self._summary = self._ledger.finish(complete=complete)
            else:
                self._summary = self._ledger.finish(
                    complete=complete,
                    why_stopped=self._campaign.why_stopped,
                    effort=self._campaign.effort,
                    verify=self._session.verifier.verify_draft if complete and self._bundle is None else None,
                )
            if self._options.landscape is not None:
                note = f"chosen by the search {self._options.search}"
                self._landscapes = write_landscapes(self._options.landscape, self._ledger, note=note)
        self._session.close()
        if ended_early:
            left = f"; {unfinished} of its tests were not run to their end" if unfinished else ""
            self._ended = f"the run ended early: {self._why_ended(session)}{left}"
        stuck = any(change.problem for change in self._ledger.changes)
        if (ended_early or self._ledger.failures or stuck) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._interrupts.terminated:
            session.exitstatus = TERMINATED

    def _pack(self) -> None:
        """Leave what was compiled as a bundle, also of a run that ended early."""
        assert self._ledger is not None
        tests = self._plan_of_test
        plans = {key: self._ledger.plan(key) for key in tests.values()}
        try:
            self._packed = pack(self._options.out / BUNDLE, self._session, plans, tests=tests, tried=self._compiled)
        except OSError as error:
            self._ledger.failures.append(error)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """From here on the run is ending; ``excinfo`` may say why."""
        self._interrupts.wind_down()
        self._ended = str(excinfo.value) or "Ctrl-C"

    def _why_ended(self, session: pytest.Session) -> str:
        limit = getattr(self._config.option, "maxworkerrestart", None)
        if self._ended or session.shouldfail or session.shouldstop:
            return self._ended or str(session.shouldfail or session.shouldstop)
        if limit is not None and self._lost > int(limit):
            crashed = "1 worker" if self._lost == 1 else f"{self._lost} workers"
            return f"{crashed} crashed, and --max-worker-restart={limit} lets no more be replaced; raise it"
        return "see above"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table, the funnel, what was written and what was not."""
        if self._ledger is None:
            return
        self._show_summary(terminalreporter)
        problems = [self._storage.explain(error) or str(error) for error in self._ledger.failures]
        for line in dict.fromkeys([*problems, *filter(None, [self._ended])]):
            reporting.write_line(terminalreporter, line, red=True)

    def _show_summary(self, terminalreporter: Any) -> None:
        if self._session.settings.stops_after_compile and not self._is_dry:
            reporting.section(terminalreporter, "shark-tune")
            packed = self._packed.words() if self._packed is not None else "no bundle was written: nothing was compiled"
            reporting.write_line(terminalreporter, packed)
        if self._summary is None or self._ledger is None:
            return
        reporting.section(terminalreporter, "shark-tune")
        text = render(
            self._summary,
            width=max(terminalreporter._tw.fullwidth, 100),
            spec=self._ledger.spec_path,
            snapshots=self._ledger.snapshots,
            changes={change.path: said for change in self._ledger.changes if (said := change.words())},
            unwritten=[change.path for change in self._ledger.changes if change.is_unwritten],
            **({} if self._bundle is None else {"without_spec": self._who_makes_the_spec()}),
        )
        reporting.write(terminalreporter, text)
        for line in self._landscapes:
            reporting.write_line(terminalreporter, line)

    def _who_makes_the_spec(self) -> str:
        command = ["shark-tune", "merge-records", self._options.out, "--bundle", self._options.bundle, "-o", "DIR"]
        return f"no spec yet, since that takes the compiler: {shlex.join(map(str, command))} makes it where that is"

    def pytest_unconfigure(self) -> None:
        """Remove what only this run needed."""
        self._session.close()
        cleanup.clear()
        if self._ledger is not None:
            if is_remote(self._config):
                shutil.rmtree(self._session.settings.exchange, ignore_errors=True)
            Cache(self._options.cache).evict(self._options.cache_bytes)
        self._interrupts.restore()


def _check_inputs(options: TuneOptions, compiler: Compiler, *, writes: bool) -> FoundDevices:
    """Refuse what cannot be met, before anything is done; return the devices' URIs and their model's name.

    A run that ``writes`` nothing needs no folder but the cache.
    """
    if options.bundle is None:
        check_compiler(options, compiler)
    if options.starter is not None:
        try:
            check_starter(journal.read_plain(options.starter).decode(), str(options.starter))
        except (InputError, UnicodeDecodeError) as error:
            raise pytest.UsageError(f"--tune-spec: {error}") from error
    devices: FoundDevices = {"uris": [], "name": ""} if options.stop_after else find_devices(options)
    # Last, so that a run that is refused leaves no folder behind.
    check_cache(options.cache)
    folders = [("--tune-out", options.out)] * writes
    if options.landscape is not None and writes:
        folders.append(("--tune-record-landscape", options.landscape.parent))
    for option, folder in folders:
        check_folder(option, folder)
    return devices


def _hold_out(config: pytest.Config, out: Path) -> None:
    """Keep other runs out of the output folder until this one is over."""
    lock = hold_folder("--tune-out", out)

    def let_go() -> None:
        lock.release()
        with suppress(OSError):  # It stays unless it is empty.
            out.rmdir()

    config.add_cleanup(let_go)


def _read_bundle(options: TuneOptions) -> Bundle:
    assert options.bundle is not None
    try:
        bundle = read_bundle(options.bundle)
        check_machine(bundle)
    except InputError as error:
        raise pytest.UsageError(f"--tune-bundle: {error}") from error
    if options.target_is_given and options.target != bundle.target:
        raise pytest.UsageError(f"--tune-target: the bundle {options.bundle} is for {bundle.target}: leave it out")
    return bundle


def _unpack(bundle: Bundle, path: Path, cache: Cache) -> None:
    try:
        bundle.unpack(path, cache)
    except InputError as error:
        raise pytest.UsageError(f"--tune-bundle: {error}") from error
    except OSError as error:
        raise pytest.UsageError(f"--tune-bundle: {path} cannot be unpacked into {cache.folder}: {error}") from error


def _storage_of(options: TuneOptions, temporary: Path) -> Storage:
    folders = {"--tune-out": options.out, "--tune-cache": options.cache, "TMPDIR": temporary}
    # Last: it may lie in any of the others, or around them.
    return Storage(folders | ({"--tune-record-landscape": options.landscape.parent} if options.landscape else {}))


def _raise_worker_limit(config: pytest.Config) -> None:
    """Let xdist replace more workers than it does by default, unless the user said how many."""
    if getattr(config.option, "maxworkerrestart", "") is None and config.option.numprocesses:
        from pytest_shark_tune.plugin.xdist.scheduling import MOST_LOST

        config.option.maxworkerrestart = str(MOST_LOST)


def _load_plan(cache: Cache, key: str) -> Plan:
    plan = cache.get("plans", key, Plan)
    if plan is None:
        raise SharkTuneError(f"the plan {key} is gone from the cache {cache.folder}: was it cleared during the run?")
    return plan


def _trial_of(item: pytest.Item) -> Trial | None:
    callspec = getattr(item, "callspec", None)
    trial = callspec.params.get("candidate") if callspec is not None else None
    return trial if isinstance(trial, Trial) else None


def _function_of(test: str) -> str:
    """The id of the function that a test's id is of."""
    path, _, rest = test.partition("::")
    return f"{path}::{rest.partition('[')[0]}"


def _part_of(item: pytest.Item) -> Part | None:
    trial = _trial_of(item)
    return None if trial is None else Part.of(trial, is_ours=_is_ours(item))


def _is_ours(item: pytest.Item) -> bool:
    """Whether no fixture of the suite's own stands in for one of our stages."""
    fixtures_of = getattr(item, "_fixtureinfo", None)
    definitions = fixtures_of.name2fixturedefs if fixtures_of is not None else {}
    return all(len(definitions.get(name, ())) <= 1 for name in ("artifact", "measurement"))


def _kernel_names(given: tuple[object, ...]) -> list[str]:
    return [each.name for each in given if isinstance(each, CustomTask)]


def _funcargs(item: pytest.Item) -> dict[str, object]:
    return getattr(item, "funcargs", None) or {}


def _property(finding: Finding) -> list[tuple[str, object]]:
    return [(_PROPERTY, msgspec.json.encode(finding).decode())]


def finding_of(report: pytest.TestReport | pytest.CollectReport) -> Finding | None:
    """What a test found out, from its report."""
    for name, value in getattr(report, "user_properties", ()):  # A report on collecting a file has none.
        if name == _PROPERTY:
            return msgspec.json.decode(str(value), type=Finding)
    return None


def _in_whole(source: SourceCheck) -> str:
    if source.ratio is None:
        return source.note
    return f"{source.ratio:.2f}x ({format_us(source.default_us)} -> {format_us(source.tuned_us)})"


def _median(samples: tuple[float, ...]) -> float | None:
    return sorted(samples)[len(samples) // 2] if samples else None
