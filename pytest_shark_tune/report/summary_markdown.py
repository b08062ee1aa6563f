"""The summary of a tuning run as Markdown, of a size for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.report.answers import answers, warnings
from pytest_shark_tune.report.markdown import markdown_code, markdown_text
from pytest_shark_tune.results.summary import DispatchSummary, Summary
from pytest_shark_tune.system.terminal import escaped_line
from pytest_shark_tune.system.units import format_us

__all__ = ["summary_markdown"]

_MOST_ROWS = 20


def summary_markdown(summary: Summary) -> str:
    """Return what a run came to: sentences, a table of the dispatches that became faster, and doubts."""
    run = summary.run
    version = run.versions.get("iree-base-compiler", "")
    where = f"{run.target} on {run.device}{f', IREE {version}' if version else ''}"
    first, *others = answers(summary)
    parts = [f"**shark-tune**: {markdown_text(escaped_line(first))} ({markdown_text(escaped_line(where))})"]
    if others:
        parts.append("\n".join(_item(sentence) for sentence in others))
    parts += _table(summary)
    doubts = [_item(sentence) for sentence in warnings(summary)]
    return "\n\n".join([*parts, *(["\n".join(doubts)] if doubts else [])]) + "\n"


def _table(summary: Summary) -> Iterator[str]:
    """Yield the dispatches with an entry in the spec as a table, those that take most of the time first."""
    won = summary.improved
    if not won:
        return
    won.sort(key=lambda row: (-(row.share or 0.0), -(row.speedup or 0.0)))
    lines = ["| dispatch | calls | default | best | speedup | interval |", "|---|---:|---:|---:|---:|---|"]
    yield "\n".join([*lines, *map(_row, won[:_MOST_ROWS])])
    if len(won) > _MOST_ROWS:
        yield f"{len(won) - _MOST_ROWS} more are in summary.json."


def _row(row: DispatchSummary) -> str:
    low, high = row.speedup_low, row.speedup_high
    cells = (
        markdown_code(row.name).replace("|", "\\|"),
        str(row.weight),
        format_us(row.baseline_us),
        format_us(row.fastest_us),
        f"{row.speedup:.2f}x" if row.speedup is not None else "-",
        f"{low:.2f} to {high:.2f}" if low is not None and high is not None else "-",
    )
    return f"| {' | '.join(cells)} |"


def _item(sentence: str) -> str:
    return f"- {markdown_text(escaped_line(sentence))}"
