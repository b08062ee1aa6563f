"""The candidates of a dispatch in columns: a plan may have a hundred thousand, and every process of a run holds them.

The texts of two configs of a space differ in their numbers alone. So the words of such a text are stored once, and its
numbers in a column for each place at which they differ; most of them are the values of a knob.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias, overload

import msgspec

from pytest_shark_tune.search_space.candidate import Candidate

__all__ = ["CandidateTable", "Candidates", "KnobRow", "ids_of", "knob_rows", "packed"]

_NUMBER = re.compile(r"(?<!\d)(0|[1-9]\d{0,17})(?!\d)")
"""A number that is written as Python writes it, and fits into 64 bits."""
_Words: TypeAlias = tuple[str | int, ...]
"""A text: its words, and the positions of the columns that have the numbers between them."""


class _Layout(msgspec.Struct, frozen=True, array_like=True):
    """What some of the candidates have in common."""

    pipeline: str
    space: int
    knobs: tuple[tuple[str, int], ...]
    """The names of the knobs, with the positions of their columns."""
    config: _Words
    info: _Words
    columns: tuple[bytes, ...]
    """The numbers of each column, a row for every candidate."""


class KnobRow(NamedTuple):
    """A candidate without its texts."""

    id: str
    pipeline: str
    space: int
    knobs: dict[str, int]


class CandidateTable(msgspec.Struct, frozen=True):
    """A sequence of candidates, which are made anew whenever they are asked for."""

    dispatch: str
    """The name of the dispatch."""
    ids: tuple[str, ...]
    """The ids of the candidates."""
    layouts: tuple[_Layout, ...]
    places: bytes
    """The position of its layout, and its row there, for every candidate."""

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        """Make the candidate at a position, or those of a part of the table."""
        if isinstance(index, slice):
            return tuple(self[position] for position in range(len(self.ids))[index])
        layout, row = self._place(index)
        return self._made(self.ids[index], layout, [_column(column)[row] for column in layout.columns])

    def index(self, candidate: object) -> int:
        """Return the position of a candidate.

        Raises:
            ValueError: it is not in the table.
        """
        if isinstance(candidate, Candidate) and candidate.id in self.ids:
            position = self.ids.index(candidate.id)
            if self[position] == candidate:
                return position
        raise ValueError(f"{candidate!r} is not in the table")

    def __iter__(self) -> Iterator[Candidate]:
        """Make the candidates, one after the other."""
        for identity, (layout, numbers) in zip(self.ids, self._rows(), strict=True):
            yield self._made(identity, layout, numbers)

    def knob_rows(self) -> Iterator[KnobRow]:
        """Return the knobs of the candidates, without their texts, which take longer to make."""
        for identity, (layout, numbers) in zip(self.ids, self._rows(), strict=True):
            knobs = {name: numbers[column] for name, column in layout.knobs}
            yield KnobRow(identity, layout.pipeline, layout.space, knobs)

    def pipeline(self, index: int) -> str:
        """Return the pipeline of the candidate at a position."""
        return self._place(index)[0].pipeline

    def renamed(self, dispatch: str) -> CandidateTable:
        """Return the candidates with another name for their dispatch."""
        return msgspec.structs.replace(self, dispatch=dispatch)

    def _made(self, identity: str, layout: _Layout, numbers: Sequence[int]) -> Candidate:
        return Candidate(
            id=identity,
            dispatch=self.dispatch,
            pipeline=layout.pipeline,
            knobs={name: numbers[column] for name, column in layout.knobs},
            config=_text(layout.config, numbers),
            compilation_info=_text(layout.info, numbers),
            space=layout.space,
        )

    def _rows(self) -> Iterator[tuple[_Layout, Sequence[int]]]:
        """The layout of each candidate, and its numbers."""
        rows = [list(zip(*map(_column, layout.columns), strict=True)) for layout in self.layouts]
        places = _column(self.places).tolist()
        for layout, row in zip(places[::2], places[1::2], strict=True):
            yield self.layouts[layout], rows[layout][row] if rows[layout] else ()

    def _place(self, index: int) -> tuple[_Layout, int]:
        index = range(len(self.ids))[index]
        places = _column(self.places)
        return self.layouts[places[2 * index]], places[2 * index + 1]


Candidates: TypeAlias = tuple[Candidate, ...] | CandidateTable
"""The candidates of a dispatch."""


def ids_of(candidates: Candidates) -> tuple[str, ...]:
    """Return the ids of candidates."""
    if isinstance(candidates, CandidateTable):
        return candidates.ids
    return tuple(candidate.id for candidate in candidates)


def knob_rows(candidates: Candidates) -> Iterator[KnobRow]:
    """Return the knobs of candidates, without their texts."""
    if isinstance(candidates, CandidateTable):
        return candidates.knob_rows()
    return (KnobRow(found.id, found.pipeline, found.space, found.knobs) for found in candidates)


def packed(dispatch: str, candidates: Candidates | Sequence[Candidate]) -> CandidateTable:
    """Put candidates of a dispatch into a table, in their order."""
    if isinstance(candidates, CandidateTable):
        return candidates
    alike: dict[_Alike, tuple[int, list[list[int]]]] = {}
    places = array("q")
    for candidate in candidates:
        config, info = _NUMBER.split(candidate.config), _NUMBER.split(candidate.compilation_info)
        key = _Alike(candidate.pipeline, candidate.space, (*candidate.knobs,), (*config[::2],), (*info[::2],))
        position, rows = alike.setdefault(key, (len(alike), []))
        places.extend((position, len(rows)))
        rows.append([*candidate.knobs.values(), *map(int, config[1::2]), *map(int, info[1::2])])
    layouts = tuple(_layout(key, rows) for key, (_, rows) in alike.items())
    return CandidateTable(dispatch, tuple(candidate.id for candidate in candidates), layouts, places.tobytes())


class _Alike(NamedTuple):
    """What candidates of one layout have in common, but for the numbers."""

    pipeline: str
    space: int
    names: tuple[str, ...]
    """The names of the knobs."""
    config: tuple[str, ...]
    info: tuple[str, ...]


def _layout(alike: _Alike, rows: list[list[int]]) -> _Layout:
    """Make the layout of such candidates, given all their numbers; equal columns are stored once."""
    pipeline, space, names, config, info = alike
    columns: dict[tuple[int, ...], int] = {}
    found = list(zip(*rows, strict=True))
    knobs = tuple((name, columns.setdefault(column, len(columns))) for name, column in zip(names, found, strict=False))

    def words(texts: Sequence[str], numbers: Sequence[tuple[int, ...]]) -> _Words:
        parts: list[str | int] = [texts[0]]
        for column, text in zip(numbers, texts[1:], strict=True):
            if len(set(column)) > 1 or column in columns:
                parts += [columns.setdefault(column, len(columns)), text]
            else:
                parts[-1] = f"{parts[-1]}{column[0]}{text}"
        return tuple(parts)

    middle = len(names) + len(config) - 1
    texts = words(config, found[len(names) : middle]), words(info, found[middle:])
    return _Layout(pipeline, space, knobs, *texts, tuple(array("q", column).tobytes() for column in columns))


def _column(numbers: bytes) -> memoryview[int]:
    return memoryview(numbers).cast("q")


def _text(words: _Words, numbers: Sequence[int]) -> str:
    return "".join(word if isinstance(word, str) else str(numbers[word]) for word in words)
