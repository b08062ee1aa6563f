"""The one door to what pytest shows of ours: lines, reports and errors, all of them escaped.

Names, records and messages come from outside, see `tools.terminal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from pytest_shark_tune.system.terminal import escaped, escaped_line

__all__ = ["EscapedReports", "end_run", "escaping_errors", "section", "write", "write_annotations", "write_line"]


def write(reporter: Any, text: str) -> None:
    """Write text as it is."""
    reporter.write(escaped(text))


def write_line(reporter: Any, line: str, **markup: bool) -> None:
    """Write a line, or several; ``markup`` is pytest's."""
    reporter.write_line(escaped(line), **markup)


def write_annotations(reporter: Any, annotations: Iterable[str]) -> None:
    """Write commands of a CI system, which have to reach it as they are; `guard_text.github_lines` makes them."""
    for annotation in annotations:
        reporter.write_line(annotation)


def section(reporter: Any, title: str) -> None:
    """Begin a section of the terminal's summary."""
    reporter.section(escaped_line(title))


def end_run(reason: str, returncode: int) -> NoReturn:
    """End the run at once, for a reason that pytest shows."""
    pytest.exit(escaped(reason), returncode=returncode)


@contextmanager
def escaping_errors() -> Iterator[None]:
    """Within it a usage error is escaped, which pytest shows as it is."""
    try:
        yield
    except pytest.UsageError as error:
        # Without its causes: of a worker pytest-xdist shows the traceback.
        raise pytest.UsageError(*(escaped(str(each)) for each in error.args)) from None


class EscapedReports:
    """Escapes what reports on our tests say, before anybody shows it, and why a file could not be collected.

    Of other tests it leaves the reports alone: their authors may want colors.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Escape the report of a marked test, or of one that took its worker along, of which nobody knows."""
        if "tune" in report.keywords or not report.keywords:
            _escape(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Escape why a file could not be collected."""
        if report.failed:
            _escape(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: Any) -> None:
        """Escape an error that nobody expects, if there is something to escape."""
        text = str(excrepr)
        if escaped(text) != text:
            excrepr.toterminal = lambda writer: writer.line(escaped(text))


def _escape(report: pytest.TestReport | pytest.CollectReport) -> None:
    match report.longrepr:
        case None:
            pass
        case (path, line, reason):
            report.longrepr = (escaped_line(str(path)), line, escaped(str(reason)))
        case said:
            text = str(said)
            # What is harmless keeps its colors and its form.
            if isinstance(said, str) or escaped(text) != text:
                report.longrepr = escaped(text)
    report.sections = [(escaped_line(name), escaped(content)) for name, content in report.sections]
