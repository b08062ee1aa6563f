"""Search: which configs of a dispatch's spaces to try next, one strategy in each module.

A strategy works over a `ConfigTable` and speaks in its rows' indices; it knows neither tests nor devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pytest_shark_tune.search.exhaustive import ExhaustiveSearch
from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.model import ModelSearch, PriorResult
from pytest_shark_tune.search.protocol import Outcome, Search
from pytest_shark_tune.search.table import ConfigTable, pipeline_label, table_of_spaces
from pytest_shark_tune.search.uniform import UniformSearch

__all__ = [
    "STRATEGIES",
    "ConfigTable",
    "ExhaustiveSearch",
    "ModelSearch",
    "Outcome",
    "PriorResult",
    "ProblemFacts",
    "Search",
    "UniformSearch",
    "make_search",
    "pipeline_label",
    "table_of_spaces",
]

STRATEGIES = ("model", "random", "exhaustive")
"""The names of the strategies as users give them, the default first."""


def make_search(
    name: str,
    table: ConfigTable,
    *,
    seed: int = 0,
    facts: ProblemFacts | None = None,
    near: Sequence[tuple[str, Mapping[str, int]]] = (),
    prior: Callable[[], Sequence[PriorResult]] = tuple,
    budget: int | None = None,
    by_time: bool = False,
    first: Sequence[int] = (),
) -> Search:
    """The strategy of that name, one of `STRATEGIES`, over ``table``; it begins with the rows in ``first``.

    All but ``seed`` and ``first`` serve ``model`` only, as `ModelSearch` says. Pipelines are called what the table
    calls them.
    """
    if name == "exhaustive":
        return ExhaustiveSearch(len(table), first)
    if name == "random":
        return UniformSearch(len(table), seed, first)
    assert name == "model", name
    return ModelSearch(table, seed, facts=facts, near=near, prior=prior, budget=budget, by_time=by_time, first=first)
