"""Verification at the end of a run: a draft that the run's tests did not verify is verified before it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import SpecRecord

__all__ = ["Settled", "Verification", "Verify"]

Verify = Callable[[Plan, Draft], SpecRecord]
"""Tries the spec of a draft on the sources of a plan, and returns the record, with the entries that fail there."""


@dataclass(frozen=True)
class Settled:
    """A draft that passed in all plans."""

    draft: Draft
    """The entries that are left."""
    dropped: Mapping[str, str]
    """The entries that were dropped, with the reasons."""
    problem: str = ""
    """The reason why the draft could not be verified."""


class Verification:
    """Knows the drafts that the run's tests verified, and verifies others.

    Args:
        plans: the plans of the run by key.
        tasks: the dispatches that the run tunes. Such a dispatch's entry matters only to the plans that have it, since
            no other op is like it.
        checks: the results of the run's tests, by the plan's key and the model's name.
        verify: verifies a draft in a plan; ``None`` if the run must not.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        tasks: Collection[str],
        checks: Mapping[tuple[str, str], SpecRecord],
        verify: Verify | None,
    ) -> None:
        self._plans = plans
        self._tasks = tasks
        self._verify = verify
        self._verified: defaultdict[str, list[tuple[Mapping[str, str], str]]] = defaultdict(list)
        for (key, model), record in checks.items():
            # A measurement end to end verifies the draft in that model alone.
            if not model or [source.name for source in plans[key].sources] == [model]:
                self._verified[key].append((record.entries, record.starter))

    def settle(self, draft: Draft, plans: Iterable[str]) -> Settled:
        """Verify a draft in all plans of these keys that have not verified it, and drop entries until it passes."""
        keys = list(plans)
        dropped: dict[str, str] = {}
        while self._verify is not None and (draft.entries or draft.starter):
            for key in keys:
                if self._is_verified(key, draft):
                    continue
                try:
                    record = self._verify(self._plans[key], draft)
                except SharkTuneError as error:
                    return Settled(draft, dropped, str(error))
                if record.dropped:
                    dropped |= record.dropped
                    draft = draft.without(record.dropped)
                    break
                self._verified[key].append((draft.configs, draft.starter_key))
            else:
                break
        return Settled(draft, dropped)

    def _is_verified(self, key: str, draft: Draft) -> bool:
        wanted = self._relevant(key, draft.configs), draft.starter_key
        return any((self._relevant(key, entries), starter) == wanted for entries, starter in self._verified[key])

    def _relevant(self, key: str, entries: Mapping[str, str]) -> dict[str, str]:
        """Return the entries that may be applied to an op of a plan."""
        own = {task.name for task in self._plans[key].tasks}
        return {name: config for name, config in entries.items() if name in own or name not in self._tasks}
