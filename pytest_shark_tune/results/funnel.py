"""The funnel: how many of a dispatch's candidates reached each stage, and the reasons why the others did not.

A reason is text for people. To count equal causes, the words that differ between candidates (numbers, names, types,
places in a file) are blanked out. Nothing here reads MLIR.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from pytest_shark_tune.plan.types import NOT_TRIED
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.records.winner import FINALISTS

__all__ = ["OTHERS", "Cause", "Funnel", "Loss", "causes_of", "common_run_failures", "funnel_of"]

OTHERS = "others"
"""The reason that stands for all but the most frequent causes."""

_MOST_CAUSES = 3
_MOST_CHARACTERS = 240
_MOST_READ = 2000
_BLANK = "…"

_STAGE_LOST = {
    NOT_TRIED: "tried",
    State.COMPILE_FAILED: "compiled",
    State.COMPILE_TIMEOUT: "compiled",
    State.NOT_APPLIED: "applied",
    State.DUPLICATE: "ran",
    State.RUN_FAILED: "ran",
    State.RUN_TIMEOUT: "ran",
    State.WRONG_RESULT: "correct",
    State.MEASURED: "finalists",
}
"""The first stage that a candidate of each state did not reach, in the order of the stages."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A reason for which candidates were lost."""

    reason: str
    """The reason, with ``…`` in place of the words that differ between candidates."""
    count: int
    """The number of candidates."""
    example: str
    """The id of one of them."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates that ended in one state."""

    stage: str
    """The first stage that they did not reach."""
    state: str
    """A record's state, or ``not_tried``."""
    count: int
    """The number of candidates."""
    causes: tuple[Cause, ...]
    """The causes, most frequent first; their counts add up to ``count``."""


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of candidates that reached each stage, without the default.

    ``generated`` less all losses are ``finalists``.
    """

    generated: int
    tried: int
    compiled: int
    applied: int
    ran: int
    correct: int
    measured: int
    finalists: int
    losses: tuple[Loss, ...]


def funnel_of(
    candidates: Sequence[str], records: Mapping[str, Record], finalists: Collection[str] | None, *, untried: str
) -> Funnel:
    """Return the funnel of a dispatch.

    Args:
        candidates: the ids of its candidates.
        records: their records by id.
        finalists: the ids of the candidates that reached the final; ``None`` if no final was held.
        untried: the reason why some candidates have no record.
    """
    lost: dict[str, list[tuple[str, str]]] = {state: [] for state in _STAGE_LOST}
    for name in candidates:
        record = records.get(name)
        if record is None:
            lost[NOT_TRIED].append((name, untried))
        elif record.state is not State.MEASURED:
            lost[record.state].append((name, record.reason))
        elif finalists is None or name not in finalists:
            lost[State.MEASURED].append((name, _why_no_finalist(record, is_held=finalists is not None)))
    losses = tuple(
        Loss(stage=_STAGE_LOST[state], state=str(state), count=len(reasons), causes=causes_of(reasons))
        for state, reasons in lost.items()
        if reasons
    )
    left = {}
    count = len(candidates)
    for stage in dict.fromkeys(_STAGE_LOST.values()):
        count -= sum(loss.count for loss in losses if loss.stage == stage)
        left[stage] = count
    # A candidate with right results is timed in the same go. If it fails then, it ends as run_failed or run_timeout.
    return Funnel(generated=len(candidates), measured=left["correct"], losses=losses, **left)


def causes_of(reasons: Iterable[tuple[str, str]]) -> tuple[Cause, ...]:
    """Return the most frequent causes among ``(id, reason)`` pairs, then the sum of the others.

    Equally frequent causes come in alphabetical order.
    """
    alike: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for name, reason in reasons:
        parts = _VARIABLE.split(_reason_line(reason))
        alike.setdefault(tuple(parts[::2]), []).append((name, parts))
    causes = sorted(
        (
            Cause(reason=_common([parts for _, parts in members]), count=len(members), example=members[0][0])
            for members in alike.values()
        ),
        key=lambda cause: (-cause.count, cause.reason),
    )
    shown, rest = causes[:_MOST_CAUSES], causes[_MOST_CAUSES:]
    if rest:
        shown.append(Cause(reason=OTHERS, count=sum(cause.count for cause in rest), example=rest[0].example))
    return tuple(shown)


def common_run_failures(losses: Iterable[Loss], tried: int) -> tuple[Cause, ...]:
    """Return the causes for which more than a third of all tried candidates failed at run time, most frequent first.

    Such a cause points at the device, the driver or the default rather than at the configs.

    Args:
        losses: the losses of a dispatch.
        tried: the number of candidates that were tried.
    """
    causes = [
        msgspec.structs.replace(cause, reason=f"{loss.state}: {cause.reason}")
        for loss in losses
        if loss.state in (State.RUN_FAILED, State.RUN_TIMEOUT)
        for cause in loss.causes
        if cause.reason != OTHERS and cause.count * 3 > tried
    ]
    return tuple(sorted(causes, key=lambda cause: -cause.count))


def _why_no_finalist(record: Record, *, is_held: bool) -> str:
    if not is_held:
        return "no final was held"
    if (record.ratio_high or 0) > 1:
        return f"not among the {FINALISTS} fastest"
    return "not faster than the default"


# Text between < and >, in which an arrow ends nothing, with a few levels of the same inside.
_ANGLED = "<(?:->|[^<>])*+>"
for _ in range(4):
    _ANGLED = f"<(?:->|[^<>]|{_ANGLED})*+>"
_VARIABLE = re.compile(
    "("
    + "|".join(
        (
            r"(?<!\w)'[^'\n]*'(?!\w)",
            r'"[^"\n]*"',
            rf"[!#]?[\w.]*+{_ANGLED}",
            r"\[[^\[\]]*\]",
            r"[%@^][\w$.-]*\w(?:#\d+)?",  # SSA values, symbols, blocks
            r"(?<!\w)[0-9a-f]{6,}(?!\w)",  # ids of candidates
            r"(?<![\w.])[-+]?(?:\d+(?:[.,]\d+)*(?:e[-+]?\d+)?|nan|inf)(?!\w)",
            r"\w*\d\w*",  # f32, 4x8, 0x7f
        )
    )
    + ")"
)
_PLACE = re.compile(
    r"^/.*?:\d+:\d+:\s+(?=error:)"  # A path with blanks in it.
    r"|(?<!\S)[\w./<>+-]*[A-Za-z_/>][\w./<>+-]*:\d+(?::\d+)?:\s+"
)
_STDERR_FOLLOWS = re.compile(r"; its stderr ends with:$")


def _reason_line(reason: str) -> str:
    """Return the first line of a reason without places in files and the word error."""
    line = reason.strip().partition("\n")[0].rstrip()[:_MOST_READ]
    line = _PLACE.sub("", _STDERR_FOLLOWS.sub("", line))
    return re.sub(r"\berror:\s+", "", line, count=1) or "no reason was given"


def _common(alike: Sequence[Sequence[str]]) -> str:
    """Return the text of reasons that have equal words, with a blank wherever they differ."""
    text = "".join(texts[0] if len(set(texts)) == 1 else _BLANK for texts in zip(*alike, strict=True))
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + _BLANK
