"""The time budget of a run, by a clock that all its processes share, and the parts of it that belong to each phase."""

from __future__ import annotations

import math
import time

import msgspec

__all__ = ["TimeBudget"]

_FORMS, _TRYING, _FINALS = 0.25, 0.6, 0.8
"""The parts of the time after which each phase ends, in a run with whole models.

What follows the finals compiles each model about twice and runs it for some seconds. If that is known to take less, the
search and the finals get the rest.
"""
_TRYING_OPS, _FINALS_OPS = 0.75, 0.95
"""The same without whole models."""


class TimeBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a run may take, and when it began."""

    total_s: float | None = None
    """The seconds that the run may take; ``None`` for no limit."""
    began_s: float = 0.0
    """When it began, by the monotonic clock that all processes of this host share: nobody can set it."""

    @classmethod
    def starting_now(cls, total_s: float | None) -> TimeBudget:
        """The budget of a run that begins now."""
        return cls(total_s=total_s, began_s=time.monotonic())

    @property
    def spent_s(self) -> float:
        """The seconds that have passed since the run began."""
        return time.monotonic() - self.began_s

    @property
    def shares(self) -> dict[str, float]:
        """The parts of the time of a run with whole models, by the stage that ends there."""
        return {"forms": _FORMS, "search": _TRYING, "finals": _FINALS}

    @property
    def left_s(self) -> float:
        """The seconds that are left of the whole run; negative once they are used up."""
        return self._until_s(1.0)

    @property
    def for_forms_s(self) -> float:
        """The seconds that are left for compiling and timing forms of models."""
        return self._until_s(_FORMS)

    def for_trying_s(self, models_s: float | None) -> float:
        """The seconds that are left for trying candidates: at least half of what is left of the run.

        Args:
            models_s: The seconds that whole models are expected to take, 0 without models; ``None`` if unknown.
        """
        until = self._finals_until(models_s) * _TRYING / _FINALS if models_s != 0 else _TRYING_OPS
        return max(self._until_s(until), self.left_s / 2)

    def for_finals_s(self, models_s: float | None) -> float:
        """The seconds that are left for the finals of dispatches: at least half of what is left of the run.

        Args:
            models_s: The seconds that whole models are expected to take, 0 without models; ``None`` if unknown.
        """
        return max(self._until_s(self._finals_until(models_s)), self.left_s / 2)

    def _finals_until(self, models_s: float | None) -> float:
        """The part of the time after which the finals end."""
        if models_s is None or self.total_s is None:
            return _FINALS
        return min(max(1 - models_s / self.total_s, _FINALS), _FINALS_OPS)

    def _until_s(self, part: float) -> float:
        if self.total_s is None:
            return math.inf
        return part * self.total_s - self.spent_s
