"""The reports of guarding tests: verdicts and failures on their way to the process that controls the run."""

from __future__ import annotations

import os
import platform
import shlex

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.device.identity import runtime_version
from pytest_shark_tune.errors import CandidateFailed, SharkTuneError
from pytest_shark_tune.guard.history import HistoryPoint
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.plugin.cases import Guarded
from pytest_shark_tune.plugin.guard.evaluation import verdict_on_failure
from pytest_shark_tune.plugin.guard.reporter import FAILURE, PROPERTY
from pytest_shark_tune.plugin.guard.setup import GuardSetup
from pytest_shark_tune.plugin.kernels import as_failure
from pytest_shark_tune.plugin.options import given_options
from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult, said_first
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.system.machine import driver_version, processors

__all__ = ["VERDICT", "attach_failure", "conclude"]

_DIGITS = 12
VERDICT = pytest.StashKey[Verdict]()
"""The verdict on the check of a test, in the stash of its item."""


def conclude(
    setup: GuardSetup, item: pytest.Item, guarded: Guarded, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Put the verdict on a check into its test's report; a failure of another kind is left as one."""
    verdict = item.stash.get(VERDICT, None)
    error = as_failure(call.excinfo.value if call.excinfo else None)
    if problem := setup.storage.explain(error):
        report.longrepr = item.session.shouldstop = problem
        return
    if isinstance(error, CandidateFailed) and verdict is None:
        verdict = verdict_on_failure(guarded, error)
        report.when = "call"  # During the setup of a test, pytest would report an error instead of a failure.
        report.outcome = "skipped" if verdict.outcome is CheckOutcome.SKIPPED else "failed"
        report.longrepr = verdict.reason
    elif isinstance(error, SharkTuneError):
        report.longrepr = str(error)
    if verdict is not None and not (report.failed and verdict.outcome is CheckOutcome.PASSED):  # Then its body failed.
        _attach(setup, item, guarded, report, verdict)


def _attach(
    setup: GuardSetup, item: pytest.Item, guarded: Guarded, report: pytest.TestReport, verdict: Verdict
) -> None:
    path = str(item.path)
    if report.skipped and verdict.outcome is CheckOutcome.SKIPPED:
        report.longrepr = (path, item.location[1] or 0, f"Skipped: {verdict.reason}")
    elif report.failed and verdict.outcome in (CheckOutcome.FAILED, CheckOutcome.UNDECIDED):
        report.longrepr = f"{report.longrepr}\nreproduce with: {_command(item)}"
    result = GuardResult(
        verdict=verdict,
        spec=os.path.relpath(guarded.plan.spec_path, item.config.invocation_params.dir),
        file=path,
        line=_line_of(item),
        where=_where(setup),
        point=_point(setup, guarded, verdict),
    )
    report.user_properties.append((PROPERTY, msgspec.json.encode(result).decode()))
    facts = {"entry": verdict.entry, "promise": str(verdict.check), "outcome": str(verdict.outcome)}
    # These go on with the item, to the report of its end: --junitxml reads that one.
    item.user_properties += [*facts.items(), *verdict.metrics.items()]


def attach_failure(item: pytest.Item, report: pytest.TestReport) -> None:
    """Have the report of a test that failed without a verdict carry the first line of its failure."""
    if report.failed and all(name != PROPERTY for name, _ in report.user_properties):
        failure = GuardFailure(
            test=item.nodeid, file=str(item.path), line=_line_of(item), reason=said_first(str(report.longrepr))
        )
        report.user_properties.append((FAILURE, msgspec.json.encode(failure).decode()))


def _point(setup: GuardSetup, guarded: Guarded, verdict: Verdict) -> HistoryPoint | None:
    """The measured speed for the history; ``None`` if nothing was measured, or nobody keeps a history."""
    metrics, settings, entry = verdict.metrics, setup.settings, guarded.entry
    if setup.guard.history is None or verdict.check is not EntryCheck.FAST or "ratio" not in metrics:
        return None
    driver = driver_version(setup.options.target.driver)
    return HistoryPoint(
        run="",
        time="",
        entry=entry.name,
        config=content_key(entry.form.form if entry.form else entry.compilation_info)[:_DIGITS],
        outcome=str(verdict.outcome),
        us=metrics["tuned_us"],
        default_us=metrics["baseline_us"],
        ratio=metrics["ratio"],
        ratio_low=metrics["ratio_low"],
        ratio_high=metrics["ratio_high"],
        rounds=int(metrics["rounds"]),
        calibration=verdict.calibration,
        target=str(setup.options.target),
        device=settings.device_name,
        processors=processors(),
        machine=content_key(platform.node(), settings.device_name, driver, processors())[:_DIGITS],
        driver=driver,
        iree=compiler_version(),
        runtime=runtime_version(),
    )


def _where(setup: GuardSetup) -> str:
    device = setup.settings.device_name or "no device"
    return f"{setup.options.target} on {device}, IREE {compiler_version()} (runtime {runtime_version()})"


def _command(item: pytest.Item) -> str:
    """The command that runs the check of ``item`` again."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    test = item.nodeid.partition("::")[2]
    return shlex.join(["pytest", f"{file}::{test}", *given_options(item.config)])


def _line_of(item: pytest.Item) -> int:
    """The line of a test, counted from 1; 0 for a model."""
    line = item.location[1]
    return line + 1 if line is not None and item.path.suffix == ".py" else 0
