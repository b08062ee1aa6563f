"""Records: what was tried and what came of it, one line of JSON each."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import Check
from pytest_shark_tune.measurement.timing import Measurement

if TYPE_CHECKING:  # Records are plain data: reading them loads no bindings.
    from pytest_shark_tune.plan.types import AnyTask
    from pytest_shark_tune.search_space.candidate import Candidate

__all__ = [
    "SCHEMA",
    "FinalRecord",
    "Finalist",
    "Origin",
    "Record",
    "RecordedOp",
    "SourceCheck",
    "SpecRecord",
    "State",
    "WinnerRecord",
    "lasts",
]

SCHEMA: Final = 1
"""The version of the records' format; a reader refuses what it does not know."""


_OVERHEAD_S = 0.1
"""What a candidate takes besides being compiled and timed: to be loaded and checked."""
_HUNG_S = 10.0
"""What one takes that is ended because it runs too long, about; a record does not say."""


class State(StrEnum):
    """How far a candidate came. Failure is a state with its reason, never a number."""

    COMPILE_FAILED = "compile_failed"
    COMPILE_TIMEOUT = "compile_timeout"
    NOT_APPLIED = "not_applied"
    DUPLICATE = "duplicate"
    RUN_FAILED = "run_failed"
    RUN_TIMEOUT = "run_timeout"
    WRONG_RESULT = "wrong_result"
    MEASURED = "measured"


_PASSING = frozenset({State.COMPILE_TIMEOUT, State.RUN_TIMEOUT, State.RUN_FAILED})


def lasts(state: State, reason: str) -> bool:
    """Whether what came of a candidate is true of it, so that a later run need not try it again.

    A time-out, a crash, a device that is lost, a lack of memory, a linker that fails: these tell of one machine at one
    time. What the compiler itself says of a config stays true.
    """
    if state is State.COMPILE_FAILED:
        return "error:" in reason and "failed to link" not in reason
    return state not in _PASSING


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where figures were taken: a device's name, a target and a release of IREE."""

    device: str
    target: str
    iree: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that was tried.

    ``samples_us`` and ``baseline_samples_us`` are microseconds of one dispatch, taken in turn; ``ratio`` is
    baseline time by candidate time, so that above 1 is faster, with its interval where it was measured. A sample ran
    ``batch`` dispatches; ``blocks`` count, ``repeated`` were thrown away because the machine changed its speed, and
    ``note`` says by how much. ``check`` is kept where the result was wrong: with its seed the same inputs can be made
    again. ``duplicate_of`` is the id of the one that has the same binary.
    """

    schema: Literal[1] = SCHEMA
    id: str
    dispatch: str
    pipeline: str
    knobs: dict[str, int]
    config: str
    state: State
    reason: str = ""
    check: Check | None = None
    duplicate_of: str = ""
    compile_s: float | None = None
    samples_us: tuple[float, ...] = ()
    baseline_samples_us: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    batch: int | None = None
    blocks: int = 0
    repeated: int = 0
    note: str = ""
    device: str
    target: str
    iree: str

    @classmethod
    def of_outcome(
        cls,
        candidate: Candidate,
        outcome: Measurement | CandidateFailed,
        origin: Origin,
        compile_s: float | None = None,
    ) -> Record:
        """Return the record of a candidate that was measured or failed; ``compile_s`` is the time to compile it."""
        if isinstance(outcome, CandidateFailed):
            detail = outcome.detail
            tried: dict[str, Any] = {
                "state": State(outcome.state),
                "reason": outcome.reason,
                "check": detail if isinstance(detail, Check) else None,
                "duplicate_of": detail if isinstance(detail, str) else "",
            }
        else:
            tried = {"state": State.MEASURED, **_shared_with(outcome, cls)}
        about = _shared_with(candidate, cls) | _shared_with(origin, cls)
        return cls(compile_s=compile_s, **about, **tried)

    def cost_s(self, jobs: int) -> float:
        """About what the candidate cost a run that compiles ``jobs`` at a time, in seconds of the run."""
        batch = self.batch or 1
        timed_s = batch * (sum(self.samples_us) + sum(self.baseline_samples_us)) / 1e6
        hung_s = _HUNG_S if self.state is State.RUN_TIMEOUT else 0.0
        return (self.compile_s or 0.0) / jobs + timed_s + hung_s + _OVERHEAD_S


class Finalist(msgspec.Struct, frozen=True, kw_only=True):
    """A finalist measured again, against the default and the other finalists."""

    id: str
    state: State
    reason: str = ""
    samples_us: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None

    @classmethod
    def of(cls, identifier: str, outcome: Measurement | CandidateFailed) -> Finalist:
        """Return the finalist of that id, measured over all rounds or failed in one."""
        if isinstance(outcome, CandidateFailed):
            return cls(id=identifier, state=State(outcome.state), reason=outcome.reason)
        return cls(id=identifier, state=State.MEASURED, **_shared_with(outcome, cls))


class FinalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the comparison of a dispatch's finalists: a winner's id, or the reason for none.

    ``compilation_info`` is the winner's, as text, and empty without one. A kernel of the client's own has neither it
    nor a ``root``. ``rounds`` fresh processes were measured in; ``repeated`` and ``note`` are as a record's, over all.
    """

    schema: Literal[1] = SCHEMA
    dispatch: str
    root: RootOp | None
    weight: int
    finalists: tuple[Finalist, ...]
    baseline_samples_us: tuple[float, ...]
    winner: str | None
    reason: str = ""
    compilation_info: str = ""
    is_provisional: bool = msgspec.field(default=False, name="provisional")
    rounds: int = 0
    repeated: int = 0
    note: str = ""
    device: str
    target: str
    iree: str

    @classmethod
    def from_rounds(
        cls,
        task: AnyTask,
        finalists: Sequence[Finalist],
        combined: Measurement | None,
        verdict: tuple[str | None, str],
        origin: Origin,
    ) -> FinalRecord:
        """Return the final of a task.

        Args:
            task: the dispatch or kernel.
            finalists: the candidates that were measured again.
            combined: one finalist's measurement over all rounds. It has the default's samples of all of them, and saw
                every block that was repeated. ``None`` if every finalist failed.
            verdict: the winner's id, or ``None`` and the reason for there being no winner.
            origin: the device, target and release of IREE.
        """
        winner, reason = verdict
        return cls(
            dispatch=task.name,
            root=task.root,
            weight=task.weight,
            finalists=tuple(finalists),
            winner=winner,
            reason=reason,
            compilation_info=task.candidate(winner).compilation_info if winner else "",
            **{"baseline_samples_us": (), **(_shared_with(combined, cls) if combined else {})},
            **_shared_with(origin, cls),
        )

    @classmethod
    def provisional(cls, record: Record, task: AnyTask) -> FinalRecord:
        """Return the final that stands in for one that was never held: ``record`` has the best figures so far."""
        info = task.candidate(record.id).compilation_info
        won = WinnerRecord(**msgspec.structs.asdict(record), root=task.root, weight=task.weight, compilation_info=info)
        reason = "provisional: the run ended before the finalists were measured again"
        return cls._of_winner(won, reason, is_provisional=True)

    @classmethod
    def kept(cls, record: WinnerRecord) -> FinalRecord:
        """Return the final that the entry of a snapshot won in an earlier run, as far as its record tells."""
        return cls._of_winner(record, f"kept: nothing changed since it was tuned (IREE {record.iree})")

    @classmethod
    def _of_winner(cls, record: WinnerRecord, reason: str, *, is_provisional: bool = False) -> FinalRecord:
        """Return a final with the winner as its one finalist."""
        return cls(
            dispatch=record.dispatch,
            root=record.root,
            weight=record.weight,
            finalists=(msgspec.convert(record, Finalist, from_attributes=True),),
            baseline_samples_us=record.baseline_samples_us,
            winner=record.id,
            reason=reason,
            compilation_info=record.compilation_info,
            is_provisional=is_provisional,
            device=record.device,
            target=record.target,
            iree=record.iree,
        )

    def finalist(self, identifier: str) -> Finalist:
        """The finalist of that id."""
        return next(each for each in self.finalists if each.id == identifier)


class SourceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How one source fares with the merged spec; ``ratio`` is default time by tuned time of the whole function.

    ``default_us`` and ``tuned_us`` are the medians of those times. ``in_model`` has the ratio for the dispatches of
    each entry as they run in the model, where the driver tells.
    """

    source: str
    applied: int
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    default_us: float | None = None
    tuned_us: float | None = None
    note: str = ""
    in_model: dict[str, float] = {}


class SpecRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What verifying the merged spec on its sources gave; ``dropped`` are entries' names with the reason.

    With ``model`` it is what measuring that source end to end gave. What held is the spec of ``entries``, configs by
    name, before the starter with the hash ``starter``, empty without one.
    """

    schema: Literal[1] = SCHEMA
    sources: tuple[SourceCheck, ...]
    dropped: dict[str, str]
    model: str = ""
    entries: dict[str, str] = {}
    starter: str = ""


class RecordedOp(msgspec.Struct, frozen=True):
    """One op that an entry was made for: its executable's name in the source of that name."""

    source: str
    symbol: str


class WinnerRecord(Record, frozen=True, kw_only=True):
    """A winner's figures from the final, and all that makes its spec entry anew; without a ``root`` it has none.

    ``ops`` are those that the entry is in force on. ``setting`` is a hash of what its figures depend on besides the
    dispatch: compiler, flags, runtime, device and driver. ``content`` is a hash of the dispatch's modules, empty where
    it is not known. ``candidates`` is how many had their chance against it.
    """

    root: RootOp | None
    weight: int
    compilation_info: str
    ops: tuple[RecordedOp, ...] = ()
    setting: str = ""
    content: str = ""
    candidates: int = 0

    @property
    def winner(self) -> str:
        """The winner's id, as a final has it."""
        return self.id

    @classmethod
    def of(cls, final: FinalRecord, record: Record) -> WinnerRecord:
        """What ``final`` says of its winner, of which ``record`` says what was tried."""
        finalist = final.finalist(record.id)
        return cls(
            id=record.id,
            dispatch=final.dispatch,
            pipeline=record.pipeline,
            knobs=record.knobs,
            config=record.config,
            state=State.MEASURED,
            reason=final.reason,
            compile_s=record.compile_s,
            samples_us=finalist.samples_us,
            baseline_samples_us=final.baseline_samples_us,
            ratio=finalist.ratio,
            ratio_low=finalist.ratio_low,
            ratio_high=finalist.ratio_high,
            device=final.device,
            target=final.target,
            iree=final.iree,
            root=final.root,
            weight=final.weight,
            compilation_info=final.compilation_info,
        )


def _shared_with(source: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of ``source`` that a struct of ``kind`` has too, with rounded figures."""
    shared = [name for name in source.__struct_fields__ if name in kind.__struct_fields__]
    return {name: _rounded(getattr(source, name)) for name in shared}


def _rounded(value: object) -> object:
    """Microseconds to the nanosecond, ratios to five digits: no clock is more precise, and journals stay readable."""
    if isinstance(value, tuple):
        return tuple(round(sample, 3) for sample in value)
    return round(value, 5) if isinstance(value, float) else value
