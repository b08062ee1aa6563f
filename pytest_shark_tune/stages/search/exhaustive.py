"""Every config, in the order of the table."""

from __future__ import annotations

from pytest_shark_tune.stages.search.uniform import OrderedSearch

__all__ = ["ExhaustiveSearch"]


class ExhaustiveSearch(OrderedSearch):
    """Every row of a table of ``count``, first to last."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))
