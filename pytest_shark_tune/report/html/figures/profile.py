"""The time of each dispatch in a model before and after, beside the least time that the device's limits leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.measurement.roofline import rates_of
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.report.html.figure import Figure, Table, us
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import Scale
from pytest_shark_tune.report.html.view import DispatchView, gains_of, profiles_of
from pytest_shark_tune.results.summary import Summary
from pytest_shark_tune.system.units import format_us

__all__ = ["times_in_models"]

_MOST_ROWS = 25


def times_in_models(summary: Summary, views: Sequence[DispatchView]) -> Iterator[Figure]:
    """Yield a figure for every model that was profiled."""
    roots = {view.name: view.final.root for view in views if view.final is not None and view.final.root is not None}
    for profile in profiles_of(summary):
        shares = [share for share in profile.shares if share.time_us > 0]
        if shares:
            yield _figure(profile, shares, gains_of(summary), roots)


def _figure(
    profile: Profile, shares: Sequence[Share], gains: Mapping[str, float], roots: Mapping[str, RootOp]
) -> Figure:
    shown = shares[:_MOST_ROWS]
    rows = Rows(
        [_heading(share, gains.get(share.dispatch)) for share in shown],
        f"time of each dispatch of {profile.source} before and after",
    )
    drawing = rows.drawing
    scale = Scale(0.0, max(share.time_us for share in shown) * 1.02, LEFT, RIGHT)
    rows.add_axis(scale, lambda tick: format_us(tick) if tick else "0")
    rows.add_headings()
    for position, share in enumerate(shown):
        middle, after_us = rows.mark_of(position), share.time_us / gains.get(share.dispatch, 1.0)
        is_faster = share.dispatch in gains
        tip = f"{share.dispatch}: {share.reason or _heading(share, gains.get(share.dispatch)).value}"
        drawing.rect(scale(0), middle - 6, scale(share.time_us) - scale(0), 12, f"bar {_kind(share)}", tip)
        if is_faster:
            drawing.rect(scale(0), middle - 6, scale(after_us) - scale(0), 12, "bar good", tip)
        if share.least_us:
            place = scale(share.least_us)
            drawing.line(
                place, middle - 8, place, middle + 8, "limit", f"the device's limit: {format_us(share.least_us)}"
            )
    rest = len(shares) - len(shown)
    return Figure(
        f"Dispatches of {profile.source} and the device's limits",
        "Grey: by default. Blue: with the spec. Light: not tunable. The red mark is the least time by what "
        "microbenchmarks reach on this device (roofline); it is absent where it is not known. "
        f"Measured in {profile.measured}.{f' {rest} more are in the table.' if rest > 0 else ''}",
        drawing.markup(),
        Table(
            (
                *("dispatch", "calls", "share", "default us", "with spec us", "limit us", "of the limit"),
                *("GFLOP/s", "GB/s", "op", "why not tuned"),
            ),
            [_row(share, gains.get(share.dispatch), roots.get(share.dispatch)) for share in shares],
            words=frozenset({0, 9, 10}),
            note="GFLOP/s count a multiplication and an addition of a contraction or convolution as two operations, "
            "GB/s every operand of the root op once. Both are with the spec.",
        ),
    )


def _kind(share: Share) -> str:
    return "untunable" if share.reason else "base"


def _heading(share: Share, gain: float | None) -> Heading:
    if gain is None:
        return Heading(share.dispatch, format_us(share.time_us))
    return Heading(share.dispatch, f"{format_us(share.time_us)} to {format_us(share.time_us / gain)}", "good")


def _row(share: Share, gain: float | None, root: RootOp | None) -> tuple[str, ...]:
    after_us = share.time_us / (gain or 1.0)
    rates = rates_of(root, after_us / share.calls) if root is not None and after_us else None
    return (
        share.dispatch,
        str(share.calls),
        f"{share.share:.1%}",
        us(share.time_us),
        us(after_us) if gain else "",
        us(share.least_us),
        f"{min(share.least_us / after_us, 9.99):.0%}" if share.least_us else "",
        f"{rates.gflops:.3g}" if rates is not None and rates.gflops is not None else "",
        f"{rates.gb_per_s:.3g}" if rates is not None else "",
        share.op,
        share.reason,
    )
