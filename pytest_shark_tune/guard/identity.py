"""The identity check: whether an entry's dispatches compile to the machine code that was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.machine_code import CodePair, RecordedCode
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.guard.plan import GuardEntry, GuardPlan
from pytest_shark_tune.tuning.builder import code_pairs
from pytest_shark_tune.tuning.session import Session

__all__ = ["IdentityCheck"]


@dataclass(frozen=True)
class IdentityCheck:
    """Compares machine code with recorded code for one process of a run. It needs no device.

    Equal code has the speed that was measured, as far as the device, its driver and IREE's runtime are the same.
    """

    session: Session
    """Compiles the dispatches."""
    replan: Callable[[GuardPlan, Compiler], tuple[Session, GuardPlan]]
    """Makes a plan again with another compiler, and returns the session that did."""

    def why_changed(self, guarded: GuardPlan, entry: GuardEntry, artifact: Artifact | None = None) -> str:
        """Return why the recorded speed need not hold for the code of today; empty if the code is the recorded one.

        Code for ``host`` is compared for the CPU that ``host`` stood for, which need not be the one here.

        Args:
            guarded: the plan.
            entry: its entry.
            artifact: a client's own artifact of the entry's first task, if there is one.
        """
        if entry.record is None or entry.record.code is None:
            return "no machine code is recorded for it: tune it again with --tune"
        recorded = entry.record.code
        try:
            session, found = self._compiled_for(guarded, entry, recorded)
            pairs: set[CodePair] = set()
            given = chain([artifact] if session is self.session else [], repeat(None))
            for task, own in zip(found.tasks, given):  # noqa: B905 - the second has no end
                pairs.update(code_pairs(session.builder, task, task.candidates[0], own))
        except (CandidateFailed, CommandFailed, InputError) as error:
            return f"its machine code cannot be compared: {error}"
        if not pairs:
            return "it is for no dispatch here"
        return _difference(pairs, recorded)

    def _compiled_for(
        self, guarded: GuardPlan, entry: GuardEntry, recorded: RecordedCode
    ) -> tuple[Session, GuardEntry]:
        """The session that compiles for the CPU of the record, and the entry with its dispatches for that CPU.

        Raises:
            CommandFailed: the compiler fails.
            InputError: the compiler does not know the CPU.
        """
        compiler = self.session.compiler
        if not recorded.cpu or compiler.host_cpu == (recorded.cpu, recorded.cpu_features):
            return self.session, entry
        session, plan = self.replan(guarded, compiler.for_cpu(recorded.cpu, recorded.cpu_features))
        return session, plan.entry(entry.name)


def _difference(pairs: set[CodePair], recorded: RecordedCode) -> str:
    known = set(recorded.pairs)
    if pairs <= known:
        return ""
    changed = [
        name
        for name, is_known in (
            ("its own", {pair.tuned for pair in pairs} <= {pair.tuned for pair in known}),
            ("the default's", {pair.default for pair in pairs} <= {pair.default for pair in known}),
        )
        if not is_known
    ]
    return f"{' and '.join(changed) or 'its'} machine code is not the one that was measured"
