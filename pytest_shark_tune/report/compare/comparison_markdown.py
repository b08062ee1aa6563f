"""A comparison of base and head as Markdown, at most 15 lines: a comment on a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pytest_shark_tune.report.compare.comparison import Comparison, Row
from pytest_shark_tune.report.markdown import markdown_code, markdown_text
from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["comparison_markdown"]

_MOST_ROWS = 8


def comparison_markdown(compared: Comparison) -> str:
    """Return a sentence, and a table of the rows that changed if any did."""
    names = f"from {markdown_code(compared.base)} to {markdown_code(compared.head)}"
    where = f" ({_text(compared.where)})" if compared.where else ""
    if not compared.rows:
        return f"**shark-tune**: nothing changed {names}: {compared.counted}{where}.{_note(compared)}\n"
    counts = Counter(row.verdict for row in compared.sorted_rows)
    verdicts = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items())
    first = f"**shark-tune**: {len(compared.rows)} of {compared.counted} changed {names}: {verdicts}{where}."
    return "\n\n".join([first, "\n".join(_table(compared)), *_rest(compared)]) + "\n"


def _table(compared: Comparison) -> Iterator[str]:
    yield f"| {compared.what[0]} | base | head | speedup, head by base | verdict |"
    yield "|---|---|---|---|---|"
    yield from map(_row, compared.sorted_rows[:_MOST_ROWS])


def _row(row: Row) -> str:
    cells = (
        markdown_code(row.name).replace("|", "\\|"),
        _text(row.base),
        _text(row.head),
        str(row.change) if row.change is not None else "-",
        f"**{row.verdict.value}**",
    )
    return f"| {' | '.join(cells)} |"


def _rest(compared: Comparison) -> Iterator[str]:
    """Yield one line about rows that are left out, and about less than changes."""
    rest = len(compared.rows) - _MOST_ROWS
    line = f"{f'{rest} more changed.' if rest > 0 else ''}{_note(compared)}".strip()
    if line:
        yield line


def _note(compared: Comparison) -> str:
    return f" {_text(compared.note)}" if compared.note else ""


def _text(text: str) -> str:
    return markdown_text(escaped_line(text))
