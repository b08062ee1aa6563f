"""Takers: which entries of a spec apply to a dispatch, asked of the compiler."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_shark_tune.compiler.configure import Applied, ConfigureFailed, configure_with
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.spec.read import mark_entries, select_entries

__all__ = ["applied_to", "takers"]


def applied_to(dispatch: Dispatch, marked: str) -> list[Applied]:
    """The entries of a marked spec (see `mark_entries`) that are applied to the dispatch's root op, as it was dumped.

    Raises:
        ConfigureFailed: the compiler refuses a config.
    """
    applied = configure_with(dispatch.members[0].module.text, marked).applied
    return [entry for entry in applied if entry.entry and entry.op == dispatch.root.op]


def takers(dispatch: Dispatch, spec: str, matchers: Sequence[str]) -> list[tuple[str, str]]:
    """The matchers that take the dispatch's root op, of ``matchers`` in their order.

    Returns:
        Each matcher, with the config that it attaches; empty if the compiler refuses that.
    """
    try:
        applied = applied_to(dispatch, mark_entries(select_entries(spec, matchers)))
    except ConfigureFailed:
        if len(matchers) == 1:  # It matches, and its config is refused.
            return [(matchers[0], "")]
        return next((found for matcher in matchers if (found := takers(dispatch, spec, [matcher]))), [])
    return [(entry.entry, entry.compilation_info) for entry in applied]
