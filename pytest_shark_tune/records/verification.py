"""Verification at the end of a run: what is about to be written is what was verified, or is verified now."""

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
"""Tries the spec of a draft on the sources of a plan, and says what of it does not hold there."""


@dataclass(frozen=True)
class Settled:
    """What is left of a draft where it holds in all plans, and what was dropped for that, with the reasons.

    ``problem`` says why it could not be verified.
    """

    draft: Draft
    dropped: Mapping[str, str]
    problem: str = ""


class Verification:
    """Knows what was verified by the run's tests, and verifies other drafts by ``verify``, if the run may.

    ``checks`` are what the tests found out, by the plan's key and the model's name. A dispatch in ``tasks`` is one that
    the run tunes: its entry matters to the plans that have it, and to no others, since no other op is like it.
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
            # What is measured end to end is verified in that model alone.
            if not model or [source.name for source in plans[key].sources] == [model]:
                self._verified[key].append((record.entries, record.starter))

    def settle(self, draft: Draft, plans: Iterable[str]) -> Settled:
        """Verify a draft in the plans of these keys where it was not yet; drop what does not hold, and go on."""
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
        """The entries that may be in force on an op of a plan."""
        own = {task.name for task in self._plans[key].tasks}
        return {name: config for name, config in entries.items() if name in own or name not in self._tasks}
