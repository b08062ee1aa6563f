"""The end of a run: its bundle, spec, snapshots, summary and landscapes, and the end of its terminal output."""

from __future__ import annotations

import os
import shlex
import textwrap
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.plugin.report_files import append_step_summary, write_report
from pytest_shark_tune.plugin.tune.header import describe_spent
from pytest_shark_tune.plugin.tune.next_steps import next_steps
from pytest_shark_tune.plugin.tune.run import TuningRun
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.records.types import FinalRecord, Record
from pytest_shark_tune.report.summary_markdown import summary_markdown
from pytest_shark_tune.report.summary_text import render
from pytest_shark_tune.results.landscape import write_landscapes
from pytest_shark_tune.results.merge_runs import FinishedRun
from pytest_shark_tune.results.store import ResultStore, Summary
from pytest_shark_tune.system import journal
from pytest_shark_tune.tuning.bundle import BUNDLE, Packed, pack

__all__ = ["Finished", "finish_run", "show", "show_nothing_to_tune"]

_NARROWEST = 80
"""The least columns that tables are made for: a narrower terminal breaks their lines."""
_PROGRESS = "progress.jsonl"
_NOTHING_WON = "no spec was written: nothing won"
_NOTHING_TO_TUNE = (
    "nothing was tuned: this run has no test that is marked tune, and no model. Name one, as in "
    "pytest model.onnx --tune, or write a suite for it by shark-tune init model.onnx"
)


@dataclass(frozen=True)
class Finished:
    """The output of a run."""

    summary: Summary | None = None
    packed: Packed | None = None
    landscapes: tuple[str, ...] = ()
    """A line for every landscape."""
    reports: tuple[str, ...] = ()
    """A line for every report that was written."""
    problems: tuple[str, ...] = ()
    """A line for every report that could not be written."""
    spent: str = ""
    """How the time was spent."""


def finish_run(setup: Setup, store: ResultStore, run: TuningRun, *, complete: bool) -> Finished:
    """Derive spec, summary and snapshots from the results so far.

    Args:
        setup: the controller's share of the run.
        store: the results of the run.
        run: the run.
        complete: whether the run came to its end: otherwise the spec has the winners so far, unverified.
    """
    packed = _pack(setup, store, run) if setup.stops_after_compile and not setup.is_dry else None
    if not store.has_results:
        return Finished(packed=packed)
    if run.scheduler is None:
        summary = store.finish(complete=complete)
    else:
        summary = store.finish(
            complete=complete,
            why_stopped=run.scheduler.why_stopped,
            candidates_tried=run.scheduler.candidates_tried,
            verify=setup.session.verifier.verify_draft if complete and setup.bundle is None else None,
        )
    _write_progress(setup, store, run)
    landscapes: list[str] = []
    if setup.options.landscape is not None:
        note = f"chosen by the search {setup.options.search}"
        landscapes = write_landscapes(setup.options.landscape, store, note=note)
    reports, problems = _write_reports(setup, store, summary)
    spent = describe_spent(run.progress.events, run.progress.passed_s)
    return Finished(summary, packed, tuple(landscapes), tuple(reports), tuple(problems), spent)


def _write_reports(setup: Setup, store: ResultStore, summary: Summary) -> tuple[list[str], list[str]]:
    """Write the reports that options name, and the step summary of a GitHub workflow.

    Returns:
        The files that were written, and the problems with those that were not.
    """
    reports, text = setup.options.reports, summary_markdown(summary)
    problems = {"": append_step_summary(text)}
    if reports.markdown is not None:
        problems[f"report: {reports.markdown}"] = write_report("--tune-report-md", reports.markdown, text)
    if reports.page is not None:
        from pytest_shark_tune.report.html.page import tuning_page

        records, finals = journal.read(store.records_path, Record), journal.read(store.finals_path, FinalRecord)
        run = FinishedRun(os.path.relpath(setup.options.out), summary, tuple(records), tuple(finals))
        page = tuning_page([run])
        problems[f"report: {reports.page}"] = write_report("--tune-report-html", reports.page, page)
    written = [line for line, problem in problems.items() if line and not problem]
    return written, [problem for problem in problems.values() if problem]


def _write_progress(setup: Setup, store: ResultStore, run: TuningRun) -> None:
    """Write the events of the run, from which its estimates of the time left can be made again."""
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in run.progress.events)
    try:
        journal.replace_file(setup.options.out / _PROGRESS, lines)
    except OSError as error:
        store.failures.append(error)


def _pack(setup: Setup, store: ResultStore, run: TuningRun) -> Packed | None:
    """Write the compiled candidates to a bundle, even if the run ended early."""
    plans = {key: store.plan(key) for key in run.plans.values()}
    try:
        return pack(setup.options.out / BUNDLE, setup.session, plans, tests=run.plans, tried=run.compiled)
    except OSError as error:
        store.failures.append(error)
        return None


def show(config: pytest.Config, terminalreporter: Any, setup: Setup, store: ResultStore, finished: Finished) -> None:
    """Show the tables, the files that were written, and the answer with the next command."""
    if setup.stops_after_compile and not setup.is_dry:
        reporting.section(terminalreporter, "shark-tune")
        packed = finished.packed.describe() if finished.packed else "no bundle was written: nothing was compiled"
        reporting.write_line(terminalreporter, packed)
    if (summary := finished.summary) is None:
        return
    reporting.section(terminalreporter, "shark-tune")
    sources = [source for plan in store.plans for source in plan.sources]
    steps = next_steps(
        config,
        setup.options,
        summary,
        sources,
        spec=store.spec_path,
        snapshots=store.snapshots,
        forms=store.form_paths,
    )
    text = render(
        summary,
        width=max(terminalreporter._tw.fullwidth, _NARROWEST),
        spec=store.spec_path,
        snapshots=store.snapshots,
        changes={change.path: said for change in store.changes if (said := change.describe())},
        unwritten=[change.path for change in store.changes if change.is_unwritten],
        forms=store.form_paths,
        without_spec=_NOTHING_WON if setup.bundle is None else _merge_advice(setup),
        everything=config.get_verbosity() > 0,
        written=(*finished.landscapes, *finished.reports),
        spent=finished.spent,
        next_steps=() if setup.bundle is not None else tuple(steps),
    )
    reporting.write(terminalreporter, text)


def show_nothing_to_tune(terminalreporter: Any) -> None:
    """Say that no test of the run was one to tune, and what to type instead."""
    text = textwrap.fill(_NOTHING_TO_TUNE, terminalreporter._tw.fullwidth, break_on_hyphens=False)
    reporting.write_line(terminalreporter, text, yellow=True)


def _merge_advice(setup: Setup) -> str:
    """The command that makes the spec of a run without a compiler."""
    command = ["shark-tune", "merge-records", setup.options.out, "--bundle", setup.options.bundle, "-o", "DIR"]
    return f"no spec yet, since that takes the compiler: {shlex.join(map(str, command))} makes it where that is"
