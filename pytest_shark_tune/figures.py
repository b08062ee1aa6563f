"""How figures are written for people."""

from __future__ import annotations

__all__ = ["format_us"]


def format_us(microseconds: float | None) -> str:
    """A time with three digits and a fitting unit."""
    if microseconds is None:
        return "-"
    rounded = float(f"{microseconds:.3g}")
    unit, scale = ("us", 1.0) if rounded < 1e3 else ("ms", 1e3) if rounded < 1e6 else ("s", 1e6)
    return f"{rounded / scale:.4g} {unit}"
