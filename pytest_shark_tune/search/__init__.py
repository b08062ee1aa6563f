"""Search strategies, which choose the configs of a dispatch to try next, one strategy per module.

A strategy works over a `ConfigTable` and uses the indices of its rows. It knows neither tests nor devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pytest_shark_tune.search.exhaustive import ExhaustiveSearch
from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.guided import GuidedSearch
from pytest_shark_tune.search.model import ModelSearch, PriorResult
from pytest_shark_tune.search.prior import Prior
from pytest_shark_tune.search.protocol import Outcome, Search
from pytest_shark_tune.search.table import ConfigTable, pipeline_label, table_of_spaces
from pytest_shark_tune.search.uniform import UniformSearch

__all__ = [
    "STRATEGIES",
    "ConfigTable",
    "ExhaustiveSearch",
    "GuidedSearch",
    "ModelSearch",
    "Outcome",
    "Prior",
    "PriorResult",
    "ProblemFacts",
    "Search",
    "UniformSearch",
    "make_search",
    "pipeline_label",
    "table_of_spaces",
]

STRATEGIES = ("model", "random", "exhaustive")
"""The names of the strategies for users, the default first."""


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
    guide: Prior | None = None,
) -> Search:
    """Make a search strategy.

    The arguments ``facts`` to ``by_time``, and ``guide``, are for ``model`` only; see `ModelSearch`. Pipelines have the
    names that the table gives them.

    Args:
        name: The strategy, one of `STRATEGIES`.
        table: The configs.
        seed: The seed of random choices.
        facts: The facts of the problem and the device.
        near: Configs of known time.
        prior: Returns results of similar dispatches.
        budget: The number of configs that will be asked for.
        by_time: Whether time is the limit instead of the number of configs.
        first: The rows to begin with.
        guide: A prior that fits the device. It is used as far as it has results of the table's pipelines.
    """
    if name == "exhaustive":
        return ExhaustiveSearch(len(table), first)
    if name == "random":
        return UniformSearch(len(table), seed, first)
    assert name == "model", name
    own = ModelSearch(table, seed, facts=facts, near=near, prior=prior, budget=budget, by_time=by_time, first=first)
    if guide is None or facts is None or not guide.fitting_rows(table, facts).any():
        return own
    return GuidedSearch(own, guide, table, facts, seed=seed, first=first)
