"""Tune mode as a pytest plugin: registered only where a run tunes."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_shark_tune import __version__, fixtures
from pytest_shark_tune.custom import CustomTask
from pytest_shark_tune.devices import FoundDevices, crowding, find_devices, jobs_of_worker
from pytest_shark_tune.errors import CandidateFailed, InputError, SharkTuneError
from pytest_shark_tune.fixtures import SESSION_KEY
from pytest_shark_tune.kernels import Built
from pytest_shark_tune.ledger import Finding, Ledger, Summary
from pytest_shark_tune.notes import NoteSender, note_of
from pytest_shark_tune.options import TuneOptions
from pytest_shark_tune.ordering import Phase, RunOrder
from pytest_shark_tune.plan import Plan, renamed
from pytest_shark_tune.session import Session
from pytest_shark_tune.settings import RunSettings
from pytest_shark_tune.stages.artifact import Artifact
from pytest_shark_tune.stages.candidate import DEFAULT_ID
from pytest_shark_tune.stages.measurement import Measurement
from pytest_shark_tune.stages.record import FinalRecord, Record, SpecRecord, State
from pytest_shark_tune.stages.spec import check_starter
from pytest_shark_tune.summary import format_us, render
from pytest_shark_tune.tools.cache import Cache
from pytest_shark_tune.tools.compiler import Compiler, compiler_version
from pytest_shark_tune.tools.runtime import device_slug, runtime_version
from pytest_shark_tune.trial import Role, Trial, trials_of

__all__ = ["TuningPlugin", "finding_of"]

_PROPERTY = "shark_tune"
_ROLES_FILE = "roles.json"


class TuningPlugin:
    """One process's share of a tuning run.

    The process that controls the run (the only one, or xdist's controller) has a ledger; those that run tests
    have a session. Without xdist both are the same process.
    """

    def __init__(self, config: pytest.Config, options: TuneOptions, session: Session, ledger: Ledger | None) -> None:
        self._config = config
        self._options = options
        self._session = session
        self._ledger = ledger
        self._budget = _Budget(options.time_s)
        self._order: Callable[[], RunOrder | None] = lambda: None
        self._best: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._kernels: dict[str, CustomTask] = {}
        self._summary: Summary | None = None
        config.stash[SESSION_KEY] = session

    @classmethod
    def start(cls, config: pytest.Config) -> TuningPlugin:
        """Check what the user asked for and set a run up.

        Raises:
            pytest.UsageError: an option cannot be met; the message names it.
        """
        options = TuneOptions.from_pytest_config(config)
        compiler = Compiler(options.target, options.compile_flags)
        worker = getattr(config, "workerinput", None)
        if worker is None:
            given = _check_inputs(options, compiler)
            exchange = Path(tempfile.mkdtemp(prefix="shark-tune-run-"))
        else:
            given, exchange = worker["shark_tune_devices"], Path(worker["shark_tune_exchange"])
        devices = tuple(given["uris"])
        cache = Cache(options.cache)
        settings = RunSettings(
            devices=devices,
            device_name=given["name"],
            jobs=options.jobs
            if worker is None
            else jobs_of_worker(options.jobs, worker["workercount"], options.target),
            candidates=options.candidates,
            seed=options.seed,
            records=options.out / "records.jsonl",
            finals=options.out / "finals.jsonl",
            exchange=exchange,
            request=options.request,
            rotate_bytes=options.rotate_bytes,
        )
        ledger = None
        if worker is None:
            ledger = Ledger(
                options.out,
                lambda key: _load_plan(cache, key),
                target=str(options.target),
                device=given["name"],
                device_slug=device_slug(devices[0]),
                versions={
                    "pytest-shark-tune": __version__,
                    "iree-base-compiler": compiler_version(),
                    "iree-base-runtime": runtime_version(),
                },
                starter=options.starter.read_text(encoding="utf-8") if options.starter else None,
            )
        session = Session(settings, compiler, cache, tell=_teller(config))
        config.pluginmanager.register(fixtures, "shark-tune-fixtures")
        return cls(config, options, session, ledger)

    # Collecting.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a marked test with its plan's trials."""
        marker = metafunc.definition.get_closest_marker("tune")
        if marker is None:
            return
        if "candidate" not in metafunc.fixturenames:
            pytest.fail(
                f"{metafunc.definition.name} is marked tune and takes none of the fixtures candidate, artifact and "
                "measurement, so nothing would be tuned",
                pytrace=False,
            )
        path = metafunc.definition.path
        suite = str(path.parent) if path.suffix == ".py" else ""
        trials = self._trials(marker, path.parent, suite)
        metafunc.parametrize("candidate", trials, ids=[trial.id for trial in trials], indirect=True)

    def _trials(self, marker: pytest.Mark, folder: Path, suite: str) -> list[Trial]:
        nothing = Plan(sources=(), tasks=(), untunable=())
        try:
            if marker.kwargs:
                raise InputError(
                    f"the marker tune knows no option {', '.join(map(repr, marker.kwargs))}: it takes sources only, "
                    "as in @pytest.mark.tune(ops.matmul(m=512, n=512, k=512), 'model.mlir')"
                )
            if not marker.args:
                raise InputError("the marker tune needs at least one source: an op or a path to a model")
            self._refuse_same_names(marker.args)
            key, plan = self._session.plan(marker.args, folder)
            if not plan.everything:
                reasons = "; ".join(f"{each.name}: {each.reason}" for each in plan.untunable)
                names = ", ".join(dict.fromkeys([source.name for source in plan.sources] + _kernel_names(marker.args)))
                raise InputError(f"there is nothing to tune in {names}: {reasons or 'it has no dispatch'}")
            key, plan = self._named_apart(key, plan)
            return list(trials_of(plan, key, suite))
        except InputError as error:
            return [Trial(Role.INPUT, nothing, problem=str(error))]

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
        return self._session.keep_plan(key, renamed(plan, names)) if names else (key, plan)

    def _refuse_same_names(self, given: tuple[object, ...]) -> None:
        """Records know a task by its name alone."""
        for each in given:
            if isinstance(each, CustomTask) and self._kernels.setdefault(each.name, each) != each:
                raise InputError(f"{each.name} is the name of two different custom tasks in this run")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the controller which test has which part; all workers write the same."""
        if self._ledger is None:
            roles = {item.nodeid: trial.role.phase for item in session.items if (trial := _trial_of(item))}
            exchange = self._session.settings.exchange
            with suppress(FileExistsError), (exchange / _ROLES_FILE).open("x", encoding="utf-8") as file:
                json.dump(roles, file)
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
        phases = [trial.role.phase if (trial := _trial_of(item)) else Phase.ORDINARY for item in session.items]
        order = RunOrder(phases, self._budget.is_spent)
        self._order = lambda: order
        self._budget.start()
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
        from pytest_shark_tune.workers import TuneScheduling

        self._budget.start()
        scheduling = TuneScheduling(config, self._phases, self._budget.is_spent)
        self._order = lambda: scheduling.order
        if note := crowding(scheduling.workers, self._session.settings.devices):
            self._write(f"shark-tune: {note}")
        return scheduling

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand a worker what the controller found out."""
        settings = self._session.settings
        node.workerinput["shark_tune_devices"] = {"uris": list(settings.devices), "name": settings.device_name}
        node.workerinput["shark_tune_exchange"] = str(settings.exchange)

    def _phases(self, names: list[str]) -> list[Phase]:
        roles = json.loads((self._session.settings.exchange / _ROLES_FILE).read_text(encoding="utf-8"))
        return [Phase(roles.get(name, Phase.ORDINARY)) for name in names]

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
        outcome: object = None
        if isinstance(error, SharkTuneError):
            report.longrepr = str(error)
            if isinstance(error, CandidateFailed) and error.state in set(State):
                outcome = error
                if trial.role is Role.CANDIDATE:
                    report.outcome = "skipped"
                    report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {error}")
        elif call.when == "call" and error is None:
            outcome = _funcargs(item).get("measurement")
        finding = self._finding(trial, _funcargs(item).get("artifact"), outcome)
        if finding is not None:
            report.user_properties.append((_PROPERTY, msgspec.json.encode(finding).decode()))
        return report

    def _finding(self, trial: Trial, artifact: object, outcome: object) -> Finding | None:
        match outcome:
            case Measurement() | CandidateFailed() if trial.config is not None:
                built = artifact if isinstance(artifact, Artifact) else None
                compile_s = artifact.compile_s.get(trial.config.id) if isinstance(artifact, Built) else None
                record = self._session.record(trial.known_task, trial.config, built, outcome, compile_s)
                return Finding(plan=trial.plan_key, suite=trial.suite, record=record)
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
        finding = finding_of(report)
        if self._ledger is None or finding is None:
            return
        self._ledger.take(finding)
        if finding.record is not None:
            self._tell_best(finding.record)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show with ``-v`` what a candidate came to."""
        finding = finding_of(report)
        if finding is None or not report.passed:
            return None
        if finding.record is not None and finding.record.ratio is not None:
            took = format_us(_median(finding.record.samples_us))
            return "passed", ".", f"{finding.record.ratio:.2f}x ({took})"
        if finding.final is not None:
            return "passed", ".", f"winner {finding.final.winner}" if finding.final.winner else "no winner"
        return None

    def _tell_best(self, record: Record) -> None:
        best = self._best.get(record.dispatch, 1.0)
        if record.state is not State.MEASURED or record.id == DEFAULT_ID or (record.ratio or 0) <= best * 1.01:
            return
        assert self._ledger is not None
        assert record.ratio is not None
        self._best[record.dispatch] = record.ratio
        tried = len(self._ledger.records(record.dispatch))
        of = len(self._ledger.task(record.dispatch).candidates) + 1
        self._write(
            f"  {record.dispatch}: {tried}/{of} tried, best so far {record.id} with {record.ratio:.2f} times the "
            f"default's speed ({format_us(_median(record.samples_us))})"
        )

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity >= 0:
            _write_line(reporter, line)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> Generator[None, object, object]:
        """Write the results before any other plugin's turn: one that raises does not cost them."""
        self._finish(session, exitstatus)
        return (yield)

    def _finish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        """Derive spec, summary and snapshots from what is known, however the run ended."""
        self._session.close()
        if self._ledger is None or not self._ledger.has_findings:
            return
        order = self._order()
        unfinished = order.unfinished if order is not None else 0
        ended_early = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) or unfinished > 0
        left_out = order.left_out if order is not None else 0
        self._summary = self._ledger.finish(complete=not ended_early, left_out=left_out)
        if ended_early and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table, the funnel and what was written."""
        if self._summary is None or self._ledger is None:
            return
        terminalreporter.section("shark-tune")
        text = render(
            self._summary,
            width=max(terminalreporter._tw.fullwidth, 100),
            spec=self._ledger.spec_path,
            snapshots=self._ledger.snapshots,
        )
        terminalreporter.write(text)
        order = self._order()
        if order is not None and order.left_out:
            terminalreporter.write_line(f"{order.left_out} candidates were not tried: --tune-time was spent")

    def pytest_unconfigure(self) -> None:
        """Remove what only this run needed."""
        self._session.close()
        if self._ledger is not None:
            shutil.rmtree(self._session.settings.exchange, ignore_errors=True)
            with suppress(OSError):
                self._options.out.rmdir()


class _Budget:
    """The time for trying candidates, from the start of the run loop."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end: float | None = None

    def start(self) -> None:
        if self._seconds is not None:
            self._end = time.monotonic() + self._seconds

    def is_spent(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


def _check_inputs(options: TuneOptions, compiler: Compiler) -> FoundDevices:
    """Refuse what cannot be met, before anything is done; return the devices' URIs and their model's name."""
    try:
        compiler.check()
    except InputError as error:
        option = "--iree-compile-flag" if options.compile_flags else "--tune-target"
        raise pytest.UsageError(f"{option}: {error}") from error
    if options.starter is not None:
        try:
            check_starter(options.starter.read_text(encoding="utf-8"), str(options.starter))
        except (InputError, UnicodeDecodeError) as error:
            raise pytest.UsageError(f"--tune-spec: {error}") from error
    devices = find_devices(options)
    # Last, so that a run that is refused leaves no folder behind.
    for option, folder in (("--tune-cache", options.cache), ("--tune-out", options.out)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise pytest.UsageError(f"{option}: cannot write to {folder}: {error.strerror}") from error
    return devices


def _load_plan(cache: Cache, key: str) -> Plan:
    plan = cache.get("plans", key, Plan)
    if plan is None:
        raise SharkTuneError(f"the plan {key} is gone from the cache {cache.folder}: was it cleared during the run?")
    return plan


def _teller(config: pytest.Config) -> Callable[[str], None]:
    """Tells the user what takes long, on the terminal; a worker has it told by the controller."""
    if hasattr(config, "workerinput"):
        sender = NoteSender(config)
        config.pluginmanager.register(sender, "shark-tune-notes")
        return sender.send

    def tell(message: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and reporter.verbosity >= 0:
            _write_line(reporter, f"shark-tune: {message}")

    return tell


def _write_line(reporter: Any, line: str) -> None:
    """Write a line of its own, in the middle of pytest's dots too; with xdist they belong to no file."""
    capturing = reporter.config.pluginmanager.get_plugin("capturemanager")
    # While a test runs, what reaches the terminal's own descriptor would become the test's captured output.
    with capturing.global_and_fixture_disabled() if capturing is not None else nullcontext():
        reporter.ensure_newline()
        if reporter._tw.width_of_current_line:
            reporter.write("\n")
        reporter.write_line(line)
        reporter.flush()  # Into a pipe or a file, too, where it would come with the end of the run.


def _trial_of(item: pytest.Item) -> Trial | None:
    callspec = getattr(item, "callspec", None)
    trial = callspec.params.get("candidate") if callspec is not None else None
    return trial if isinstance(trial, Trial) else None


def _kernel_names(given: tuple[object, ...]) -> list[str]:
    return [each.name for each in given if isinstance(each, CustomTask)]


def _funcargs(item: pytest.Item) -> dict[str, object]:
    return getattr(item, "funcargs", None) or {}


def finding_of(report: pytest.TestReport | pytest.CollectReport) -> Finding | None:
    """What a test found out, from its report."""
    for name, value in getattr(report, "user_properties", ()):  # A report on collecting a file has none.
        if name == _PROPERTY:
            return msgspec.json.decode(str(value), type=Finding)
    return None


def _median(samples: tuple[float, ...]) -> float | None:
    return sorted(samples)[len(samples) // 2] if samples else None
