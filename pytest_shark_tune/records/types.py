"""Records: what was tried and what came of it, one line of JSON each."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.measurement.correctness import Check

__all__ = [
    "SCHEMA",
    "FinalRecord",
    "Finalist",
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
    provisional: bool = False
    rounds: int = 0
    repeated: int = 0
    note: str = ""
    device: str
    target: str
    iree: str

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
