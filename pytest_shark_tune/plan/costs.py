"""The costs of dispatches in a model with several forms, as better configs are found for them.

A dispatch that only a slow form has is worth less: what it saves counts for nothing unless that form becomes the
fastest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.types import Plan

__all__ = ["DispatchCost", "ModelCosts", "model_costs", "slow_sources"]


@dataclass(frozen=True)
class DispatchCost:
    """The time of all calls of a dispatch in a model."""

    time_us: float
    """With the default config, in microseconds; less if only forms have it that are behind the fastest one."""
    least_us: float
    """The least time that the device's limits leave; 0 if it is not known."""


class ModelCosts:
    """The costs in one model, of which each profile is one form."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._profiles = tuple(profiles)

    def costs(self, ratios: Mapping[str, float]) -> dict[str, DispatchCost]:
        """Weigh the time of each dispatch by what a form needs not to catch up.

        With T the time of a form now, F that of the fastest form and L the least time that the form can reach, the
        weight is ``1 - (T - F) / (T - L)``, and 0 if that is negative: then the form cannot win.

        Args:
            ratios: The best speed so far of each dispatch that is tuned, relative to its default, at least 1.
        """
        now = [_time_us(profile, ratios) for profile in self._profiles]
        fastest = min(now, default=0.0)
        found: dict[str, DispatchCost] = {}
        for profile, time_us in zip(self._profiles, now, strict=True):
            possible = time_us - profile.outside_us - sum(_least_us(part, ratios) for part in profile.shares)
            behind = (time_us - fastest) / possible if possible > 0 else float(time_us > fastest)
            weight = max(0.0, 1.0 - behind)
            for part in profile.shares:
                cost = DispatchCost(weight * part.time_us, weight * _least_us(part, ratios))
                known = found.get(part.dispatch)
                if known is None or cost.time_us > known.time_us:
                    found[part.dispatch] = cost
        return found


def model_costs(plan: Plan) -> list[ModelCosts]:
    """The costs in each profiled model of a plan."""
    return [ModelCosts(profiles) for profiles in _by_model(plan)]


def slow_sources(plan: Plan, ratios: Mapping[str, float], behind: float) -> set[str]:
    """The forms of models that are slower than the fastest form by a factor of more than ``behind``, by source.

    Args:
        plan: The plan.
        ratios: The best speed so far of each dispatch that is tuned, relative to its default.
        behind: The factor.
    """
    slow = set()
    for profiles in _by_model(plan):
        times = {profile.source: _time_us(profile, ratios) for profile in profiles}
        slow |= {source for source, time_us in times.items() if time_us > behind * min(times.values())}
    return slow


def _by_model(plan: Plan) -> list[list[Profile]]:
    """The profiles of each model, one for each of its forms."""
    models = {source.name: source.model_name for source in plan.sources}
    found: dict[str, list[Profile]] = {}
    for profile in plan.profiles:
        found.setdefault(models.get(profile.source, profile.source), []).append(profile)
    return list(found.values())


def _time_us(profile: Profile, ratios: Mapping[str, float]) -> float:
    return profile.outside_us + sum(part.time_us / ratios.get(part.dispatch, 1.0) for part in profile.shares)


def _least_us(part: Share, ratios: Mapping[str, float]) -> float:
    """The least time of a part of a model: that of a dispatch that is not tuned stays."""
    return min(part.time_us, part.least_us or 0.0) if part.dispatch in ratios else part.time_us
