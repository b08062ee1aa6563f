"""Claims: which candidate of a run measures a binary that several of them compile to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal

__all__ = ["Claims"]

_FOLDER = "claims"


class Claims:
    """The claims of one run, as files in its ``exchange`` folder, which all its processes see."""

    def __init__(self, exchange: Path) -> None:
        self._exchange = exchange

    @contextmanager
    def held(self, task: Task, candidate: Candidate, artifact: Artifact) -> Iterator[None]:
        """Claim a candidate's binary while the candidate is measured; the claim stays once there is a result.

        Where the test is interrupted (by a time limit on tests, say) nothing is known of the binary, and the next
        candidate that has it is measured.

        Raises:
            CandidateFailed: another candidate has the binary, so that this one is a duplicate.
            OSError: the claim cannot be written.
        """
        owner = self.owner(task, candidate, artifact)
        if owner != candidate.id:
            raise CandidateFailed(State.DUPLICATE, f"its binary equals that of candidate {owner}", owner)
        try:
            yield
        except CandidateFailed:
            raise
        except BaseException:
            with suppress(OSError):
                self._file(task, artifact).unlink()
            raise

    def owner(self, task: Task, candidate: Candidate, artifact: Artifact) -> str:
        """The first candidate in this run that had a binary: ``candidate``, or an earlier one.

        Raises:
            OSError: the claim cannot be written.
        """
        return journal.put_first(self._file(task, artifact), candidate.id.encode()).decode()

    def _file(self, task: Task, artifact: Artifact) -> Path:
        folder = self._exchange / _FOLDER
        folder.mkdir(exist_ok=True)
        return folder / f"{task.dispatch.key}-{artifact.sha256}"
