"""Shares: where the time of a model goes, as plain data."""

from __future__ import annotations

import msgspec

__all__ = ["Profile", "Share"]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one dispatch costs in one call of the model: ``time_us`` of all its ``calls`` together.

    ``dispatch`` is its NAME, or the executable's where it cannot be tuned, for which ``reason`` says why. ``op`` says
    what it computes, ``pipeline`` is the compiler's own choice. ``share`` is its part of the sum over all dispatches.
    """

    dispatch: str
    op: str = ""
    pipeline: str = ""
    calls: int
    time_us: float
    share: float
    reason: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a source's function goes, what takes longest first.

    ``model_us`` is the time of a call as it was measured, ``None`` where only the dispatches were; ``measured`` says
    what was measured, and ``unknown`` names dispatches whose time nobody could tell, with the reason.
    """

    source: str
    function: str
    model_us: float | None
    shares: tuple[Share, ...]
    measured: str
    unknown: dict[str, str] = {}

    @property
    def dispatches_us(self) -> float:
        """The time of all dispatches together, in microseconds."""
        return sum(each.time_us for each in self.shares)

    def time_us(self, dispatch: str) -> float:
        """The time of that dispatch in a call of the model; 0 where it is not told."""
        return sum(each.time_us for each in self.shares if each.dispatch == dispatch)

    def hot(self, share: float) -> tuple[str, ...]:
        """The names of the fewest dispatches that make up ``share`` of the time, those that take longest first."""
        names = []
        so_far = 0.0
        for each in self.shares:
            if so_far >= share:
                break
            so_far += each.share
            names.append(each.dispatch)
        return tuple(names)
