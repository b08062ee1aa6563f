"""Times with units, for people."""

from __future__ import annotations

__all__ = ["format_s", "format_us"]


def format_us(microseconds: float | None) -> str:
    """Format a time with three digits and a fitting unit; ``-`` for none."""
    if microseconds is None:
        return "-"
    rounded = float(f"{microseconds:.3g}")
    unit, scale = ("us", 1.0) if rounded < 1e3 else ("ms", 1e3) if rounded < 1e6 else ("s", 1e6)
    return f"{rounded / scale:.4g} {unit}"


def format_s(seconds: float) -> str:
    """Format the time that a user waits, to the second, the minute or a tenth of an hour."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
