"""Guard mode as a pytest plugin: registered once a marked test is collected that has something to guard."""

from __future__ import annotations

import os
import shlex
import tempfile
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.device.discovery import FoundDevices, find_devices, jobs_of_worker
from pytest_shark_tune.device.identity import device_slug, runtime_version
from pytest_shark_tune.errors import CandidateFailed, InputError, SharkTuneError, UndecidedWarning
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.speed import RUN_ALPHA, Terms, judge
from pytest_shark_tune.guard.verdict import Outcome, Promise, Verdict
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.plugin.cases import Guarded, Trial, guard_trials
from pytest_shark_tune.plugin.guard.reporter import EXCHANGE, FAILURE, PROPERTY
from pytest_shark_tune.plugin.interrupts import TERMINATED, Interrupts
from pytest_shark_tune.plugin.kernels import as_failure
from pytest_shark_tune.plugin.keys import GUARD_KEY, SESSION_KEY
from pytest_shark_tune.plugin.options import GuardOptions, TuneOptions, given_options
from pytest_shark_tune.plugin.preflight import check_cache, check_compiler, refuse_strays
from pytest_shark_tune.plugin.stages import DispatchStages
from pytest_shark_tune.plugin.xdist.messages import teller
from pytest_shark_tune.records.snapshot import find_snapshots, recorded_targets, snapshot_path
from pytest_shark_tune.report.guard_text import GuardFailure, GuardFinding, said_first
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.disk_errors import Storage
from pytest_shark_tune.system.folders import is_marked
from pytest_shark_tune.system.terminal import escaped
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["GuardingPlugin", "guard_trials_of"]

_NOTHING = Plan(sources=(), tasks=(), untunable=())
_VERDICT = pytest.StashKey[Verdict]()


def guard_trials_of(metafunc: pytest.Metafunc, sources: Sequence[object]) -> list[Trial]:
    """What a marked test looks at, as parameters; none where there is no spec for it."""
    problem = ""
    try:
        plugin = GuardingPlugin.of(metafunc.config)
    except pytest.UsageError as error:  # In a run without anything to guard nobody minds, so it is told only here.
        problem = str(error)
    if problem:
        pytest.fail(problem, pytrace=False)
    return plugin.trials(sources, metafunc.definition.path)


class GuardingPlugin:
    """One test process's share of a guard run."""

    def __init__(self, config: pytest.Config, options: TuneOptions, guard: GuardOptions, session: GuardSession) -> None:
        self._config = config
        self._options = options
        self._guard = guard
        self._session = session
        self._interrupts = Interrupts(terminate=not hasattr(config, "workerinput"))
        self._alpha = RUN_ALPHA
        self._plans: dict[str, list[GuardPlan]] = {}
        self._storage = Storage({"--tune-cache": options.cache, "TMPDIR": Path(tempfile.gettempdir())})
        config.stash[SESSION_KEY] = session
        config.stash[GUARD_KEY] = self
        self._interrupts.install()

    @classmethod
    def of(cls, config: pytest.Config) -> GuardingPlugin:
        """The plugin of this process, which starts with the first test that has something to guard.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        if GUARD_KEY in config.stash:
            return config.stash[GUARD_KEY]
        options, guard = TuneOptions.from_pytest_config(config), GuardOptions.from_pytest_config(config)
        compiler = options.compiler
        check_compiler(options, compiler)
        check_cache(options.cache)
        cleanup.sweep()
        tell = teller(config)
        session = GuardSession(_settings(config, options, guard), compiler, Cache(options.cache, tell), tell=tell)
        plugin = cls(config, options, guard, session)
        config.pluginmanager.register(plugin, "shark-tune-guard")
        return plugin

    # Collecting.

    def trials(self, given: Sequence[object], path: Path) -> list[Trial]:
        """The trials of a test in the file ``path`` that is marked with ``given``; none without a spec to guard."""
        suite = str(path.parent) if path.suffix == ".py" else ""
        sources = [each for each in given if not isinstance(each, CustomTask)]
        found: list[Trial] = []
        try:
            for spec, slug in self._specs(path) if sources else ():
                guarded = self._session.guard_plan(sources, path.parent, spec)
                if not guarded.entries:
                    raise InputError(f"{spec} has no entry to guard; pytest --tune writes it anew, or remove it")
                self._refuse_same_models(guarded)
                self._plans.setdefault(guarded.spec_path, []).append(guarded)
                found += guard_trials(guarded, suite, slug)
        except InputError as error:
            return [Trial(Role.INPUT, _NOTHING, problem=str(error))]
        return found

    def _refuse_same_models(self, guarded: GuardPlan) -> None:
        """Records know a model by its name alone, so that one's ops would be missed in another of its name."""
        recorded = {op.source for entry in guarded.entries if entry.record for op in entry.record.ops}
        plans = self._plans.get(guarded.spec_path, [])
        known = {source.name: source.text for each in plans for source in each.plan.sources if not source.is_op}
        for source in guarded.plan.sources:
            if source.name in recorded and known.get(source.name, source.text) != source.text:
                raise InputError(
                    f"{source.name} is the name of two different models here, and records beside {guarded.spec_path} "
                    "tell models by their names: rename one of the files and tune again with --tune"
                )

    def _specs(self, path: Path) -> Iterator[tuple[Path, str]]:
        """The specs to guard for the test in the file ``path``, each with what tells it apart in ids.

        This device's snapshot; where there is none those of all other devices, which can be looked at without it.

        Raises:
            InputError: the spec that is named is for another target.
        """
        if self._guard.spec is not None:
            self._check_target(self._guard.spec)
            yield self._guard.spec, ""
            return
        target, devices = str(self._options.target), self._session.settings.devices
        own = snapshot_path(path.parent, target, device_slug(devices[0])) if devices else None
        if own is not None and own.exists():
            yield own, ""
            return
        others = find_snapshots(path.parent, target)
        prefix = snapshot_path(path.parent, target, "").stem
        for other in others:
            yield other, other.stem.removeprefix(prefix) if len(others) > 1 else ""

    def _check_target(self, spec: Path) -> None:
        """Make sure that a spec is held against the target that it was tuned for, unless another one is asked for.

        Raises:
            InputError: it is not; the message names the option.
        """
        options, targets = self._options, recorded_targets(spec)
        if targets and str(options.target) not in targets and not options.target_is_given:
            known = " or ".join(f"--tune-target={each}" for each in sorted(targets))
            raise InputError(f"--tune-guard: by its records {spec} is not for {options.target}: give {known}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Leave each entry to the tests that it is for, and share out the false alarms, before anybody deselects."""
        refuse_strays(self._config, self._session, items)
        ours = {item: guarded for item in items if (guarded := _guarded_of(item)) is not None}
        unread = {item.path.parent for item in items if (trial := _trial_of(item)) and trial.role is Role.INPUT}
        dropped = _strangers(ours, lambda folder: self._sees_all(folder, unread, session))
        items[:] = [item for item in items if item not in dropped]
        measured = [each for item, each in ours.items() if item not in dropped and each.promise is Promise.FAST]
        self._alpha = RUN_ALPHA / max(1, len(measured))

    def _sees_all(self, folder: Path, unread: Collection[Path], session: pytest.Session) -> bool:
        """Whether all that the spec of a folder's tests is for is known; ``unread`` are folders with a bad input."""
        if session.testsfailed:  # A file could not be collected.
            return False
        if self._guard.spec is not None:
            return not unread
        return folder not in unread and _is_whole(folder, session.config)

    # Running.

    def artifact(self, trial: Trial, session: GuardSession) -> Artifact | None:
        """The entry's config compiled; ``None`` where an earlier promise is broken, which is then told of instead.

        ``session`` compiles as the suite wants it.

        Raises:
            CandidateFailed: it cannot be compiled, and nothing has told so yet.
        """
        assert trial.guarded is not None
        assert isinstance(trial.task, Task)
        try:
            return session.builder.artifact(trial.task, trial.candidate)
        except CandidateFailed:
            plan, entry = trial.guarded.plan, trial.guarded.entry
            earlier = session.look(plan, entry, Promise.APPLIES, alpha=self._alpha)
            if earlier.outcome is Outcome.KEPT:
                raise
            return None

    def look(self, guarded: Guarded, artifact: object, session: GuardSession) -> Verdict:
        """What became of a promise; ``artifact`` is what the fixture of that name gives.

        ``session`` compiles as the suite wants it.

        Raises:
            InputError: it is none that our measuring can run.
        """
        if artifact is not None and not isinstance(artifact, Artifact):
            raise InputError(
                f"the suite's own artifact gives a {type(artifact).__name__}, which only the suite can run: override "
                "the fixture measurement in its conftest.py, too"
            )
        verdict = session.look(guarded.plan, guarded.entry, guarded.promise, artifact, alpha=self._alpha)
        if verdict.outcome is not Outcome.BROKEN or guarded.promise is not Promise.APPLIES or guarded.entry.tasks:
            return verdict
        # No dispatch is its own, and in a model that another test has it may still apply, to what is rewritten later.
        elsewhere = (
            session.look(plan, plan.entry(guarded.entry.name), Promise.APPLIES, alpha=self._alpha)
            for plan in self._others(guarded)
        )
        return next((each for each in elsewhere if each.outcome is Outcome.KEPT), verdict)

    def _others(self, guarded: Guarded) -> Iterator[GuardPlan]:
        """The plans of the same spec for other tests."""
        plans = self._plans[guarded.plan.spec_path]
        return (plan for plan in plans if plan is not guarded.plan)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Hold the test to what became of its promise, before its own body has a say."""
        guarded = _guarded_of(pyfuncitem)
        if guarded is not None:
            verdict = self._verdict(guarded, pyfuncitem.funcargs)
            pyfuncitem.stash[_VERDICT] = verdict
            self._heed(verdict)
        return (yield)

    def _verdict(self, guarded: Guarded, funcargs: Mapping[str, object]) -> Verdict:
        """What became of a promise, from the fixtures; where none has looked at it, this does."""
        stages = funcargs.get("tune_dispatch")
        session = stages.session if isinstance(stages, DispatchStages) else self._session
        assert isinstance(session, GuardSession)
        match funcargs.get("measurement"):
            case Verdict() as verdict:
                return verdict
            case Measurement() if guarded.promise is not Promise.FAST:
                return Verdict(entry=guarded.entry.name, promise=guarded.promise, outcome=Outcome.KEPT)
            case Measurement() as measured if guarded.entry.is_local:
                verdict = judge(guarded.entry.name, measured, self._terms(guarded.entry))
                return msgspec.structs.replace(verdict, reason=verdict.reason and _named(guarded, verdict.reason))
            case Measurement():  # Of another device than was recorded: it says nothing, and that is told as of ours.
                return self.look(guarded, None, session)
            case _:
                return self.look(guarded, funcargs.get("artifact"), session)

    def _terms(self, entry: GuardEntry) -> Terms:
        settings = self._session.settings
        return Terms(
            alpha=self._alpha,
            device=settings.device_name,
            iree=compiler_version(),
            record=entry.record,
            tolerance=settings.tolerance,
            setting=self._session.setting,
        )

    def _heed(self, verdict: Verdict) -> None:
        match verdict.outcome:
            case Outcome.BROKEN:
                pytest.fail(verdict.reason, pytrace=False)
            case Outcome.SKIPPED:
                pytest.skip(verdict.reason)
            case Outcome.UNDECIDED if self._guard.strict:
                pytest.fail(f"{verdict.reason}\n(--tune-strict)", pytrace=False)
            case Outcome.UNDECIDED:
                warnings.warn(UndecidedWarning(escaped(verdict.reason)), stacklevel=2)

    # Reporting.

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a candidate's failure a verdict, and send what a test found out along with its report."""
        report = yield
        trial = _trial_of(item)
        if trial is None:
            return report
        if trial.guarded is not None and call.when != "teardown":
            self._conclude(item, trial.guarded, call, report)
        if report.failed and all(name != PROPERTY for name, _ in report.user_properties):
            failure = GuardFailure(
                test=item.nodeid, file=str(item.path), line=_line_of(item), reason=said_first(str(report.longrepr))
            )
            report.user_properties.append((FAILURE, msgspec.json.encode(failure).decode()))
        return report

    def _conclude(
        self, item: pytest.Item, guarded: Guarded, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        """Put what became of a promise into its test's report; a failure of another kind is left as one."""
        verdict = item.stash.get(_VERDICT, None)
        error = as_failure(call.excinfo.value if call.excinfo else None)
        if problem := self._storage.explain(error):
            report.longrepr = item.session.shouldstop = problem
            return
        if isinstance(error, CandidateFailed) and verdict is None:
            verdict = _verdict_on(guarded, error)
            report.when = "call"  # What is said of the entry while its test is set up is a failure, and no error.
            report.outcome = "skipped" if verdict.outcome is Outcome.SKIPPED else "failed"
            report.longrepr = verdict.reason
        elif isinstance(error, SharkTuneError):
            report.longrepr = str(error)
        if verdict is not None and not (report.failed and verdict.outcome is Outcome.KEPT):  # Then its body failed.
            self._report(item, guarded, report, verdict)

    def _report(self, item: pytest.Item, guarded: Guarded, report: pytest.TestReport, verdict: Verdict) -> None:
        path, line = str(item.path), _line_of(item)
        if report.skipped and verdict.outcome is Outcome.SKIPPED:
            report.longrepr = (path, item.location[1] or 0, f"Skipped: {verdict.reason}")
        elif report.failed and verdict.outcome in (Outcome.BROKEN, Outcome.UNDECIDED):
            report.longrepr = f"{report.longrepr}\nreproduce with: {self._command(item)}"
        finding = GuardFinding(
            verdict=verdict,
            spec=os.path.relpath(guarded.plan.spec_path, self._config.invocation_params.dir),
            file=path,
            line=line,
            where=self._where(),
        )
        report.user_properties.append((PROPERTY, msgspec.json.encode(finding).decode()))
        facts = {"entry": verdict.entry, "promise": str(verdict.promise), "outcome": str(verdict.outcome)}
        # These go on with the item, to the report of its end: --junitxml reads that one.
        item.user_properties += [*facts.items(), *verdict.figures.items()]

    def _where(self) -> str:
        settings = self._session.settings
        device = settings.device_name or "no device"
        return f"{self._options.target} on {device}, IREE {compiler_version()} (runtime {runtime_version()})"

    def _command(self, item: pytest.Item) -> str:
        """What looks at the promise of ``item`` again."""
        file = os.path.relpath(item.path, self._config.invocation_params.dir)
        test = item.nodeid.partition("::")[2]
        return shlex.join(["pytest", f"{file}::{test}", *given_options(self._config)])

    # Ending.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """End the children."""
        self._interrupts.wind_down()
        self._session.close()
        if self._interrupts.terminated:
            session.exitstatus = TERMINATED
        return (yield)

    def pytest_keyboard_interrupt(self) -> None:
        """From here on the run is ending."""
        self._interrupts.wind_down()

    def pytest_unconfigure(self) -> None:
        """Remove what only this run needed."""
        self._session.close()
        cleanup.clear()
        self._interrupts.restore()


def _settings(config: pytest.Config, options: TuneOptions, guard: GuardOptions) -> RunSettings:
    """What a guard run works with.

    Its processes share ``exchange``, by whose name leases know them.
    """
    worker = getattr(config, "workerinput", None)
    devices = _devices(options)
    shared = Path(worker.get(EXCHANGE, "")) if worker is not None else Path()
    # Workers on other hosts do not see their controller's.
    exchange = shared if is_marked(shared) else cleanup.new_folder("guard")
    return RunSettings(
        devices=tuple(devices["uris"]),
        device_name=devices["name"],
        jobs=options.jobs if worker is None else jobs_of_worker(options.jobs, worker["workercount"], options.target),
        seed=options.seed,
        exchange=exchange,
        request=options.request,
        rotate_bytes=options.rotate_bytes,
        route=guard.route,
        tolerance=guard.tolerance,
        models=options.models,
    )


def _devices(options: TuneOptions) -> FoundDevices:
    """The devices to measure on, none where the target has none here: then only what needs none is looked at.

    Raises:
        pytest.UsageError: a device that is named is not there.
    """
    try:
        return find_devices(options)
    except pytest.UsageError:
        if options.devices:
            raise
        return {"uris": [], "name": ""}


def _strangers(items: Mapping[pytest.Item, Guarded], is_whole: Callable[[Path], bool]) -> set[pytest.Item]:
    """The tests of entries that are for other tests.

    A suite's tests share its snapshots, so each collects all entries. One that is for no test at all is left to the
    first, where all of the suite's tests were collected; else nobody knows.
    """
    owners: dict[tuple[str, str], list[str]] = {}
    first: dict[str, str] = {}
    for item, guarded in items.items():
        spec, test = guarded.plan.spec_path, item.nodeid.partition("[")[0]
        first.setdefault(spec, test)
        if _is_for(guarded):
            owners.setdefault((spec, guarded.entry.name), []).append(test)
    dropped = set()
    for item, guarded in items.items():
        spec, test = guarded.plan.spec_path, item.nodeid.partition("[")[0]
        orphaned_to = [first[spec]] if is_whole(item.path.parent) else []
        if test not in owners.get((spec, guarded.entry.name), orphaned_to):
            dropped.add(item)
    return dropped


def _is_for(guarded: Guarded) -> bool:
    """Whether an entry is for what a test tunes: it has dispatches there, or its record names one of the sources."""
    record, sources = guarded.entry.record, {source.name for source in guarded.plan.plan.sources}
    return bool(guarded.entry.tasks) or (record is not None and any(op.source in sources for op in record.ops))


def _is_whole(folder: Path, config: pytest.Config) -> bool:
    """Whether all test files of a folder are named, they or folders around them, in this run."""
    named = [Path(config.invocation_params.dir, each) for each in config.args if "::" not in each]
    patterns = config.getini("python_files")
    files = (file for file in folder.glob("*.py") if any(fnmatch(file.name, pattern) for pattern in patterns))
    return all(any(file.is_relative_to(os.path.abspath(each)) for each in named) for file in files)  # noqa: PTH100


def _guarded_of(item: pytest.Item) -> Guarded | None:
    trial = _trial_of(item)
    return trial.guarded if trial is not None else None


def _trial_of(item: pytest.Item) -> Trial | None:
    """What an item of ours is about: a promise, or an input that cannot be read."""
    callspec = getattr(item, "callspec", None)
    trial = callspec.params.get("candidate") if callspec is not None else None
    return trial if isinstance(trial, Trial) else None


def _line_of(item: pytest.Item) -> int:
    """The line of a test, counted from 1; 0 for that of a model."""
    line = item.location[1]
    return line + 1 if line is not None and item.path.suffix == ".py" else 0


def _verdict_on(guarded: Guarded, failure: CandidateFailed) -> Verdict:
    """A candidate that came to nothing breaks the promise of its result, and leaves nothing to say of its speed."""
    name = guarded.entry.name
    if guarded.promise is Promise.FAST:
        reason = f"see [{name}-{Promise.CORRECT}]: {failure}"
        return Verdict(entry=name, promise=Promise.FAST, outcome=Outcome.SKIPPED, reason=reason)
    return Verdict(
        entry=name,
        promise=guarded.promise,
        outcome=Outcome.BROKEN,
        reason=_named(guarded, str(failure)),
    )


def _named(guarded: Guarded, reason: str) -> str:
    return f"{guarded.entry.name} of {guarded.plan.spec_path}: {reason}"
