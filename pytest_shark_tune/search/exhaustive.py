"""Every config, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.search.uniform import OrderedSearch

__all__ = ["ExhaustiveSearch"]


class ExhaustiveSearch(OrderedSearch):
    """Proposes every row of a table of ``count`` rows: those in ``first``, then the others in order."""

    def __init__(self, count: int, first: Sequence[int] = ()) -> None:
        super().__init__([*dict.fromkeys([*first, *range(count)])])
