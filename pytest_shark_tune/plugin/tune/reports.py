"""The result of a test, on its way from the process that runs it to the controller: pytest's report carries it."""

from __future__ import annotations

import math
from statistics import median, median_high

import msgspec
import pytest

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed, SharkTuneError
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.plugin.items import is_ours
from pytest_shark_tune.plugin.kernels import Built, as_failure
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.plugin.xdist.messages import property_of
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, SourceCheck, SpecRecord, State
from pytest_shark_tune.report.form_text import describe_form
from pytest_shark_tune.results.result import TestResult
from pytest_shark_tune.system.terminal import escaped_line
from pytest_shark_tune.system.units import format_us

__all__ = ["attach", "conclude", "properties_of", "result_of", "result_status"]

_PROPERTY = "shark_tune"


def attach(report: pytest.TestReport, result: TestResult | None) -> None:
    """Have ``report`` carry the result of its test, if there is one."""
    if result is not None:
        report.user_properties.append((_PROPERTY, msgspec.json.encode(result).decode()))


def result_of(report: pytest.TestReport | pytest.CollectReport) -> TestResult | None:
    """Return the result that a report carries, if any."""
    carried = property_of(report, _PROPERTY)
    return msgspec.json.decode(carried, type=TestResult) if carried is not None else None


def conclude(
    setup: Setup, item: pytest.Item, case: TuningCase, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """Make the failure of a candidate data, and attach the result of ``case`` to its report.

    A full disk fails the test and ends the run.
    """
    error = call.excinfo.value if call.excinfo else None
    if case.config is not None:
        error = as_failure(error)
    if problem := setup.storage.explain(error):
        report.outcome, report.longrepr = "failed", problem
        item.session.shouldstop = problem
        return
    funcargs: dict[str, object] = getattr(item, "funcargs", None) or {}
    measured = funcargs.get("measurement") if call.when == "call" and error is None else None
    if isinstance(measured, Measurement) and (why := _why_unusable(measured)):
        error = CandidateFailed(State.RUN_FAILED, f"the measurement of {item.name} has {why}")
        report.outcome = "failed"
    outcome: object = None
    if isinstance(error, SharkTuneError):
        report.longrepr = str(error)
        is_of_form = case.role is Role.FORM
        if isinstance(error, CandidateFailed) and (error.state in set(State) or is_of_form):
            outcome = error
            # A model whose own results are wrong is worth a failure.
            if case.role is Role.CANDIDATE or (is_of_form and not case.form_result.form.is_default):
                report.outcome = "skipped"
                report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {error}")
    elif call.when == "call" and error is None:
        outcome = measured
    if not setup.stops_after_compile:
        result = _measured(setup, case, funcargs.get("artifact"), outcome, is_ours=is_ours(item))
        attach(report, result)
        if result is not None:  # These go on with the item, to the report of its end: --junitxml reads that one.
            item.user_properties += properties_of(result)
    elif case.config is not None and (call.when == "call" or outcome is not None):
        attach(
            report,
            TestResult(plan=case.plan_key, suite=case.suite, compiled=(case.known_task.name, case.config_id)),
        )


def _why_unusable(measured: Measurement) -> str:
    """What is wrong with a measurement, which a suite's own fixture may have made; empty if nothing is."""
    if not 0 < measured.ratio < math.inf:
        return f"the ratio {measured.ratio!r}, which is no positive number"
    for sample in (*measured.samples_us, *measured.baseline_samples_us):
        if not 0 < sample < math.inf:
            return f"a sample of {sample!r} us, which is no positive number"
    if math.isnan(measured.ratio_low) or math.isnan(measured.ratio_high):
        return "an interval that is not a number"
    return ""


def _measured(setup: Setup, case: TuningCase, artifact: object, outcome: object, *, is_ours: bool) -> TestResult | None:
    match outcome:
        case Measurement() | CandidateFailed() if case.config is not None:
            built = artifact if isinstance(artifact, Artifact) else None
            compile_s = artifact.compile_s.get(case.config_id) if isinstance(artifact, Built) else None
            tried = case.known_task, case.config, outcome
            record = setup.session.runner.record(*tried, artifact=built, compile_s=compile_s)
            return TestResult(plan=case.plan_key, suite=case.suite, record=record, is_ours=is_ours)
        case FinalRecord():
            return TestResult(plan=case.plan_key, suite=case.suite, final=outcome)
        case FormRecord():
            return TestResult(plan=case.plan_key, suite=case.suite, form=outcome)
        case SpecRecord():
            return TestResult(plan=case.plan_key, suite=case.suite, spec=outcome)
        case _:
            return None


def properties_of(result: TestResult) -> list[tuple[str, object]]:
    """Return the facts about a result that JUnit's XML has as properties of its test."""
    figures: dict[str, object] = {}
    if (record := result.record) is not None:
        figures = {"dispatch": record.dispatch, "candidate": record.id, "state": str(record.state)}
        figures |= _ratio_of(record) if record.state is State.MEASURED else {}
        if record.samples_us and record.baseline_samples_us:
            figures |= {"tuned_us": median(record.samples_us), "baseline_us": median(record.baseline_samples_us)}
    elif (final := result.final) is not None:
        figures = {"dispatch": final.dispatch, "winner": final.winner or "none"}
        figures |= _ratio_of(final.finalist(final.winner)) if final.winner is not None else {}
    elif (form := result.form) is not None:
        figures = {"model": form.model, "form": form.form.name, **_ratio_of(form)}
    elif result.spec is not None and result.spec.model:
        for source in result.spec.sources:
            figures |= {"model": source.source, **_ratio_of(source)}
    return [(name, value) for name, value in figures.items() if value is not None]


def _ratio_of(measured: Record | Finalist | FormRecord | SourceCheck) -> dict[str, object]:
    return {"ratio": measured.ratio, "ratio_low": measured.ratio_low, "ratio_high": measured.ratio_high}


def result_status(result: TestResult) -> str:
    """Return the text that ``pytest -v`` shows for a test that passed; empty if there is nothing to say."""
    if result.record is not None and result.record.ratio is not None:
        samples_us = result.record.samples_us  # A suite's own fixture may leave them out.
        return f"{result.record.ratio:.2f}x ({format_us(median_high(samples_us) if samples_us else None)})"
    if result.form is not None:
        return escaped_line(describe_form(result.form))
    if result.spec is not None and result.spec.model:
        return escaped_line("; ".join(map(_model_text, result.spec.sources)))
    if result.final is not None:
        return escaped_line(f"winner {result.final.winner}") if result.final.winner else "no winner"
    return ""


def _model_text(source: SourceCheck) -> str:
    if source.ratio is None:
        return source.note
    return f"{source.ratio:.2f}x ({format_us(source.default_us)} -> {format_us(source.tuned_us)})"
