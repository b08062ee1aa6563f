"""The waterfall: from the default time of a model, saving by saving, to its time with the spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import SourceCheck
from pytest_shark_tune.report.html.figure import Figure, Table, us
from pytest_shark_tune.report.html.rows import LEFT, RIGHT, Heading, Rows
from pytest_shark_tune.report.html.scale import Scale, usable
from pytest_shark_tune.report.html.view import gains_of, profiles_of
from pytest_shark_tune.results.summary import Summary
from pytest_shark_tune.system.units import format_us

__all__ = ["Step", "steps_of", "waterfalls"]

_MOST_STEPS = 12


@dataclass(frozen=True)
class Step:
    """A bar: a whole time from 0 on, or the part by which one thing changes it."""

    name: str
    start_us: float
    end_us: float
    kind: str
    """``base``, ``good`` for a saving, ``bad`` for its opposite, ``noise`` for the part that no dispatch explains."""

    @property
    def saved_us(self) -> float:
        """The time that it saves; negative if it costs time, and for a whole time."""
        return self.start_us - self.end_us


def waterfalls(summary: Summary) -> Iterator[Figure]:
    """Yield the waterfall of every model that was profiled, in the form that was chosen."""
    checks = {check.source: check for check in summary.sources}
    forms = {form.source: form for form in summary.forms}
    for profile in profiles_of(summary):
        steps = steps_of(profile, checks.get(profile.source), forms.get(profile.source), gains_of(summary))
        if len(steps) > 1:
            yield _figure(profile.source, steps)


def steps_of(
    profile: Profile, check: SourceCheck | None, form: FormRecord | None, gains: dict[str, float]
) -> list[Step]:
    """Return the steps from a model's default time to its tuned time.

    Args:
        profile: where its time goes.
        check: its measurement as a whole, if there is one.
        form: the record of its form, if forms were compared.
        gains: the ratios of the dispatches with an entry, by name.
    """
    tuned_us = next(iter(usable([form.tuned_us if form else None, check.tuned_us if check else None])), None)
    own_us = next(iter(usable([check.default_us if check else None, profile.model_us, profile.dispatches_us])), 0.0)
    start_us = own_us
    steps = []
    if form is not None and not form.form.is_default and form.default_us:
        start_us = form.default_us
    steps.append(Step("by default", 0.0, start_us, "base"))
    now_us = start_us
    if now_us != own_us and form is not None:
        steps.append(_change(f"the form {form.form.name}", now_us, own_us))
        now_us = own_us
    seen = dict(check.in_model) if check is not None else {}
    savings = [
        (part.dispatch, part.time_us * (1 - 1 / gain))
        for part in profile.shares
        if (gain := seen.get(part.dispatch) or gains.get(part.dispatch)) and gain > 0 and part.dispatch in gains
    ]
    savings.sort(key=lambda saving: -abs(saving[1]))
    shown, rest = savings[:_MOST_STEPS], savings[_MOST_STEPS:]
    if rest:
        shown.append((f"{len(rest)} other dispatches", sum(saved for _, saved in rest)))
    for name, saved_us in shown:
        steps.append(_change(name, now_us, max(0.0, now_us - saved_us)))
        now_us = steps[-1].end_us
    if tuned_us is None:
        return [*steps, Step("with the spec, estimated", 0.0, now_us, "good")]
    steps.append(Step("not explained by dispatches", now_us, tuned_us, "noise"))
    return [*steps, Step("with the spec, measured", 0.0, tuned_us, "good")]


def _change(name: str, start_us: float, end_us: float) -> Step:
    return Step(name, start_us, end_us, "good" if end_us <= start_us else "bad")


def _figure(source: str, steps: Sequence[Step]) -> Figure:
    values = [_value(step, is_whole=_is_whole(position, steps)) for position, step in enumerate(steps)]
    headings = [Heading(step.name, value) for step, value in zip(steps, values, strict=True)]
    rows = Rows(headings, f"from the default time of {source} to its tuned time")
    drawing = rows.drawing
    scale = Scale(0.0, max(max(step.start_us, step.end_us) for step in steps) * 1.02 or 1.0, LEFT, RIGHT)
    rows.add_axis(scale, lambda tick: format_us(tick) if tick else "0")
    for position, step in enumerate(steps[:-1]):
        place = scale(step.end_us)
        drawing.line(place, rows.mark_of(position) + 5, place, rows.mark_of(position + 1) - 5, "link")
    rows.add_headings()
    for position, (step, value) in enumerate(zip(steps, values, strict=True)):
        left, right = map(scale, sorted((step.start_us, step.end_us)))
        tip = f"{step.name}: {value}"
        drawing.rect(left, rows.mark_of(position) - 5, right - left, 10, f"bar {step.kind}", tip)
    table = [
        (step.name, "" if _is_whole(at, steps) else us(-step.saved_us), us(step.end_us))
        for at, step in enumerate(steps)
    ]
    return Figure(
        f"Where the time of {source} went",
        "From the default time to the time with the spec. A dispatch saves its time in the profile less that time "
        "divided by its speedup; the measurement of the whole model has the last word.",
        drawing.markup(),
        Table(("step", "change us", "time then us"), table),
    )


def _is_whole(position: int, steps: Sequence[Step]) -> bool:
    return position in (0, len(steps) - 1)


def _value(step: Step, *, is_whole: bool) -> str:
    if is_whole:
        return format_us(step.end_us)
    return f"{'-' if step.saved_us >= 0 else '+'}{format_us(abs(step.saved_us))}"
