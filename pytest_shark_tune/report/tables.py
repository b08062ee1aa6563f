"""Tables and paragraphs of plain text that fit the width of a terminal.

The tables are not rich's: their cells must stay whole, and names and notes take lines of their own between the rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["INDENT", "named_rows", "wrapped"]

INDENT = 4


def wrapped(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Return a text in lines of ``width`` columns; a word that is longer stays whole."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + INDENT),
        break_long_words=False,
        break_on_hyphens=False,
    )


def named_rows(
    names: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Iterable[Sequence[str]],
    width: int,
    *,
    tails: Sequence[str] = (),
) -> Iterator[str]:
    """Yield a row for each name, with its notes below; a name too long for its column gets a line of its own.

    Args:
        names: the names, in the first column.
        headings: the headings of the other columns, and of the tail if there is one.
        rows: their cells, which are aligned to the right.
        notes: lines below each row.
        width: the columns of the terminal.
        tails: a last cell for each row, aligned to the left. A row may end before the last columns: its tail begins
            where they do.
    """
    columns = headings[:-1] if tails else headings
    ends = list(tails) or [""] * len(rows)
    widths = [
        max([len(heading), *(len(row[place]) for row in rows if place < len(row))])
        for place, heading in enumerate(columns)
    ]
    heads = (columns, headings[-1] if tails else "")

    def taken(gap: int) -> int:
        """The columns that all but the names take."""
        return max(
            sum(gap + wide for wide in widths[: len(row)]) + (gap + len(end) if end else 0)
            for row, end in [heads, *zip(rows, ends, strict=True)]
        )

    longest = max(len("dispatch"), *map(len, names))
    gap = 2 if longest + taken(2) <= width else 1
    first = max(len("dispatch"), min(longest, width - taken(gap)))

    def line(label: str, values: Sequence[str], end: str) -> str:
        cells = "".join(f"{'':{gap}}{value:>{wide}}" for value, wide in zip(values, widths, strict=False))
        return f"{label:{first}}{cells}{' ' * gap + end if end else ''}".rstrip()

    yield line("dispatch", *heads)
    yield "─" * (first + taken(gap))
    for name, values, end, below in zip(names, rows, ends, notes, strict=True):
        if len(name) > first:
            yield name
        yield line("" if len(name) > first else name, values, end)
        yield from below
