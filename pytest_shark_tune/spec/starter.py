"""The starter spec of a run: its config for a dispatch is tried like a snapshot's entry."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_shark_tune.plan.types import Task, Wanted
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.spec.takers import takers

__all__ = ["Starter"]


class Starter:
    """A starter spec, by its ``text``, which is empty without one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._matchers = [row.matcher for row in read_spec(text)] if text else []
        self._configs: dict[str, str] = {}

    def config_for(self, task: Task) -> str:
        """The compilation info that the starter applies to a dispatch's root op; empty without one."""
        if not self._matchers:
            return ""
        key = task.dispatch.key
        if key not in self._configs:
            found = [info for _, info in takers(task.dispatch, self._text, self._matchers) if info]
            self._configs[key] = found[0] if found else ""
        return self._configs[key]

    def candidate_for(self, task: Task) -> str:
        """The id of the candidate with that config; empty without one."""
        config = self.config_for(task)
        if not config:
            return ""
        return next((candidate.id for candidate in task.candidates if candidate.compilation_info == config), "")

    def wanted(self, tasks: Iterable[Task]) -> list[Wanted]:
        """The starter's configs for dispatches, in the form in which they become candidates."""
        configs = ((task.dispatch.key, self.config_for(task)) for task in tasks)
        return [Wanted(key, "", {}, config) for key, config in configs if config]
