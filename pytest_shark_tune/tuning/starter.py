"""The starter spec of a run: what it has for a dispatch, which is tried like a snapshot's entry."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_shark_tune.guard.plan import takers
from pytest_shark_tune.plan.types import Task, Wanted
from pytest_shark_tune.spec.read import read_spec

__all__ = ["Starter"]


class Starter:
    """A starter spec by its ``text``, empty where there is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._matchers = [row.matcher for row in read_spec(text)] if text else []
        self._configs: dict[str, str] = {}

    def config_for(self, task: Task) -> str:
        """The compilation info that the starter applies to a dispatch's root op; empty where it applies none."""
        if not self._matchers:
            return ""
        key = task.dispatch.key
        if key not in self._configs:
            found = [info for _, info in takers(task, self.text, self._matchers) if info]
            self._configs[key] = found[0] if found else ""
        return self._configs[key]

    def candidate_for(self, task: Task) -> str:
        """The id of the candidate with that config; empty where there is none."""
        config = self.config_for(task)
        return next((each.id for each in task.candidates if config and each.compilation_info == config), "")

    def wanted(self, tasks: Iterable[Task]) -> list[Wanted]:
        """The starter's configs for dispatches, as what is to be among their candidates."""
        configs = ((task.dispatch.key, self.config_for(task)) for task in tasks)
        return [Wanted(key, "", {}, config) for key, config in configs if config]
