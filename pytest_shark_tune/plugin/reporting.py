"""The only module that writes to pytest's terminal: lines, reports and errors, all of them escaped.

Names, records and messages come from outside, see `system.terminal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.errors import UntestedReleaseWarning
from pytest_shark_tune.system.terminal import escaped, escaped_line

__all__ = [
    "EscapedReports",
    "end_run",
    "escaping_errors",
    "section",
    "warn_of_release",
    "write",
    "write_annotations",
    "write_line",
]


def write(reporter: Any, text: str) -> None:
    """Write text without a line break."""
    reporter.write(escaped(text))


def write_line(reporter: Any, line: str, **markup: bool) -> None:
    """Write one or more lines; ``markup`` is that of pytest's terminal writer."""
    reporter.write_line(escaped(line), **markup)


def write_annotations(reporter: Any, annotations: Iterable[str]) -> None:
    """Write commands of a CI system unescaped, as it expects them; `guard_text.github_lines` makes them."""
    for annotation in annotations:
        reporter.write_line(annotation)


def section(reporter: Any, title: str) -> None:
    """Begin a section of the terminal summary."""
    reporter.section(escaped_line(title))


def warn_of_release(config: pytest.Config) -> None:
    """Warn, in the process that controls the run, if the installed release of IREE is not tested."""
    from pytest_shark_tune.compiler.versions import why_untested

    if not hasattr(config, "workerinput") and (why := why_untested(compiler_version())):
        config.issue_config_time_warning(UntestedReleaseWarning(escaped(why)), stacklevel=2)


def end_run(reason: str, returncode: int) -> NoReturn:
    """End the run at once; pytest shows the reason."""
    pytest.exit(escaped(reason), returncode=returncode)


@contextmanager
def escaping_errors() -> Iterator[None]:
    """Escape the usage errors of a block: pytest shows them as they are."""
    try:
        yield
    except pytest.UsageError as error:
        # Without its causes, since xdist shows the traceback of a worker's error.
        raise pytest.UsageError(*(escaped(str(argument)) for argument in error.args)) from None


class EscapedReports:
    """Escapes the reports of our tests, and the errors of files that could not be collected, before they are shown.

    Reports of other tests are left alone: their authors may want colors.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Escape the report of a marked test, or of a test that crashed its worker: its marks are not known."""
        if "tune" in report.keywords or not report.keywords:
            _escape(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Escape the error of a file that could not be collected."""
        if report.failed:
            _escape(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: Any) -> None:
        """Escape an internal error, if it has something to escape."""
        text = str(excrepr)
        if escaped(text) != text:
            excrepr.toterminal = lambda writer: writer.line(escaped(text))


def _escape(report: pytest.TestReport | pytest.CollectReport) -> None:
    match report.longrepr:
        case None:
            pass
        case (path, line, reason):
            report.longrepr = (escaped_line(str(path)), line, escaped(str(reason)))
        case longrepr:
            text = str(longrepr)
            # A harmless one keeps its colors and its form.
            if isinstance(longrepr, str) or escaped(text) != text:
                report.longrepr = escaped(text)
    report.sections = [(escaped_line(name), escaped(content)) for name, content in report.sections]
