"""Records: candidates, finals and specs that were tried, with their results; one line of JSON each."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from pytest_shark_tune.compiler.machine_code import RecordedCode
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import Check
from pytest_shark_tune.measurement.roofline import IMPOSSIBLE
from pytest_shark_tune.measurement.timing import AtSize, Measurement

if TYPE_CHECKING:  # Records are plain data: reading them loads no bindings.
    from pytest_shark_tune.plan.types import AnyTask
    from pytest_shark_tune.search_space.candidate import Candidate

__all__ = [
    "NO_ENTRY",
    "SCHEMA",
    "FinalRecord",
    "Finalist",
    "Origin",
    "Record",
    "RecordedOp",
    "SizeRatio",
    "SourceCheck",
    "SpecRecord",
    "State",
    "WinnerRecord",
    "lasts",
]

SCHEMA: Final = 1
"""The version of the records' format; a reader refuses versions that it does not know."""


_OVERHEAD_S = 0.1
"""The time that a candidate takes to be loaded and checked."""
_HUNG_S = 10.0
"""About the time that a candidate takes that is ended because it runs too long; a record does not tell."""


class State(StrEnum):
    """The stage that a candidate reached. Failure is a state with its reason, never a number."""

    COMPILE_FAILED = "compile_failed"
    COMPILE_TIMEOUT = "compile_timeout"
    NOT_APPLIED = "not_applied"
    DUPLICATE = "duplicate"
    RUN_FAILED = "run_failed"
    RUN_TIMEOUT = "run_timeout"
    WRONG_RESULT = "wrong_result"
    MEASURED = "measured"


_TRANSIENT = frozenset({State.COMPILE_TIMEOUT, State.RUN_TIMEOUT, State.RUN_FAILED})


def lasts(state: State, reason: str) -> bool:
    """Return whether a candidate's result stays true, so that a later run need not try it again.

    A time-out, a crash, a lost device, a lack of memory and a linker that fails tell of one machine at one time. So do
    the limits of a device, by which a time is impossible. The compiler's own error about a config stays true.
    """
    if state is State.WRONG_RESULT:
        return not reason.startswith(IMPOSSIBLE)
    if state is State.COMPILE_FAILED:
        return "error:" in reason and "failed to link" not in reason
    return state not in _TRANSIENT


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a measurement."""

    device: str
    """The device's name."""
    target: str
    iree: str
    """The compiler's release."""
    bitwise: bool = False
    """Whether results had to be equal to the default's bit for bit."""


class SizeRatio(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a candidate for a dispatch with open sizes, at one choice of them."""

    ratio: float
    """Baseline time by candidate time."""
    ratio_low: float
    ratio_high: float
    baseline_us: float
    """The default's median time."""
    us: float
    """The candidate's median time."""
    weight: int = 1
    """How often the size counts in the mean of the ratios."""

    @classmethod
    def of(cls, size: AtSize) -> SizeRatio:
        """Return the result that a measurement shows."""
        measured = size.measurement
        return cls(
            ratio=round(measured.ratio, 5),
            ratio_low=round(measured.ratio_low, 5),
            ratio_high=round(measured.ratio_high, 5),
            baseline_us=round(measured.baseline_median_us, 3),
            us=round(measured.median_us, 3),
            weight=size.weight,
        )


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that was tried."""

    schema: Literal[1] = SCHEMA
    id: str
    """The candidate's id."""
    dispatch: str
    """The dispatch's name."""
    pipeline: str
    knobs: dict[str, int]
    config: str
    """The text of the lowering config."""
    state: State
    reason: str = ""
    """The reason for any state but ``measured``."""
    check: Check | None = None
    """The comparison of a wrong result. With its seed the same inputs can be made again."""
    duplicate_of: str = ""
    """The id of the candidate that has the same binary."""
    compile_s: float | None = None
    samples_us: tuple[float, ...] = ()
    """Microseconds of one dispatch, in turn with those of the baseline."""
    baseline_samples_us: tuple[float, ...] = ()
    ratio: float | None = None
    """Baseline time by candidate time: above 1 the candidate is faster."""
    ratio_low: float | None = None
    """The lower bound of the ratio's interval."""
    ratio_high: float | None = None
    """The upper bound of the ratio's interval."""
    batch: int | None = None
    """The number of dispatches in a sample."""
    blocks: int = 0
    """The number of blocks of samples that count."""
    repeated: int = 0
    """The number of blocks that were discarded because the machine changed its speed."""
    note: str = ""
    """A sentence that says by how much the machine changed its speed."""
    sizes: dict[str, SizeRatio] = {}
    """Of a dispatch with open sizes: the results at each of them."""
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
        """Return about how many seconds the candidate cost a run that compiles ``jobs`` at a time."""
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
    sizes: dict[str, SizeRatio] = {}
    """Of a dispatch with open sizes: the results at each of them."""

    @classmethod
    def of(cls, identifier: str, outcome: Measurement | CandidateFailed) -> Finalist:
        """Return the finalist of that id, measured over all rounds or failed in one."""
        if isinstance(outcome, CandidateFailed):
            return cls(id=identifier, state=State(outcome.state), reason=outcome.reason)
        return cls(id=identifier, state=State.MEASURED, **_shared_with(outcome, cls))


class FinalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of a dispatch's finalists."""

    schema: Literal[1] = SCHEMA
    dispatch: str
    root: RootOp | None
    """The op that a spec entry matches; ``None`` for a kernel of the client's own."""
    weight: int
    """The number of the dispatch's calls."""
    finalists: tuple[Finalist, ...]
    baseline_samples_us: tuple[float, ...]
    winner: str | None
    """The winner's id, ``None`` without one."""
    reason: str = ""
    """The reason for there being no winner, or a remark about the one there is."""
    compilation_info: str = ""
    """The winner's config as text; empty without a winner and for a kernel."""
    is_provisional: bool = msgspec.field(default=False, name="provisional")
    """True if no final was held, and the winner is the best candidate so far."""
    code: RecordedCode | None = None
    """The winner's machine code; ``None`` without a winner, and if it is not known."""
    bitwise: bool = False
    """Whether the finalists' results are equal to the default's bit for bit."""
    rounds: int = 0
    """The number of fresh processes that measured the finalists."""
    repeated: int = 0
    note: str = ""
    device: str
    target: str
    iree: str

    def __post_init__(self) -> None:
        """Check that the winner is a finalist."""
        if self.winner is not None and all(finalist.id != self.winner for finalist in self.finalists):
            raise ValueError(f"the winner {self.winner[:40]!r} is no finalist")

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
        """Return the finalist of that id."""
        return next(finalist for finalist in self.finalists if finalist.id == identifier)


NO_ENTRY = "the spec has no entry for it"
"""The note on a source of whose dispatches none won."""


class SourceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The check of the merged spec on one source."""

    source: str
    """The source's name."""
    applied: int
    """The number of dispatches that the spec was applied to."""
    ratio: float | None = None
    """Default time by tuned time of the whole function."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    default_us: float | None = None
    """The median default time."""
    tuned_us: float | None = None
    """The default time divided by the ratio, which belong together: both ran in turns."""
    note: str = ""
    in_model: dict[str, float] = {}
    """The ratio for the dispatches of each entry as they run in the model, if the driver reports it."""
    late: tuple[str, ...] = ()
    """The matchers of entries that only ``shark-tune compile`` applies."""


class SpecRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The verification of the merged spec on its sources."""

    schema: Literal[1] = SCHEMA
    sources: tuple[SourceCheck, ...]
    dropped: dict[str, str]
    """The entries that failed, with the reasons."""
    model: str = ""
    """The source that was measured end to end; empty for the checks of all sources."""
    entries: dict[str, str] = {}
    """The configs of the entries that passed, by name."""
    starter: str = ""
    """The hash of the starter behind them; empty without one."""


class RecordedOp(msgspec.Struct, frozen=True):
    """One op that an entry was made for."""

    source: str
    """The source's name."""
    symbol: str
    """The name of the op's executable in that source."""


class WinnerRecord(Record, frozen=True, kw_only=True):
    """A winner's figures from the final, and everything that its spec entry is made from."""

    root: RootOp | None
    """The op that the entry matches; ``None`` for a kernel, which has no entry."""
    weight: int
    """The number of the dispatch's calls."""
    compilation_info: str
    """The config as text."""
    ops: tuple[RecordedOp, ...] = ()
    """The ops that the entry is applied to."""
    fingerprint: str = msgspec.field(default="", name="setting")
    """The environment fingerprint: a hash of compiler, flags, runtime, device and driver."""
    content: str = ""
    """A hash of the dispatch's modules; empty if it is not known."""
    candidates: int = 0
    """The number of candidates that were tried against it."""
    code: RecordedCode | None = None
    """The machine code that was measured; ``None`` if it is not known."""
    bitwise: bool = False
    """Whether the results are equal to the default's bit for bit, which is then a check of its own."""

    @property
    def winner(self) -> str:
        """The winner's id, as a final has it."""
        return self.id

    @classmethod
    def of(cls, final: FinalRecord, record: Record) -> WinnerRecord:
        """Return the record of a final's winner; ``record`` is its record as a candidate."""
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
            sizes=finalist.sizes,
            device=final.device,
            target=final.target,
            iree=final.iree,
            root=final.root,
            weight=final.weight,
            compilation_info=final.compilation_info,
            code=final.code,
            bitwise=final.bitwise,
        )


def _shared_with(source: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of ``source`` that a struct of ``kind`` has too, with rounded figures."""
    shared = [name for name in source.__struct_fields__ if name in kind.__struct_fields__]
    return {name: _rounded(getattr(source, name)) for name in shared}


def _rounded(value: object) -> object:
    """Microseconds to the nanosecond, ratios to five digits: no clock is more precise, and journals stay readable."""
    if isinstance(value, dict):
        return {name: SizeRatio.of(part) if isinstance(part, AtSize) else part for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(round(sample, 3) for sample in value)
    return round(value, 5) if isinstance(value, float) else value
