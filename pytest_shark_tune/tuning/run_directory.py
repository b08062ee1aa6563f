"""The run directory: everything that the processes of one run share, as files that all of them see.

Nothing here takes a lock. Journals only grow, and every other file is written whole. If the directory is gone, the run
is over, and nothing makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.records.types import Record, State
from pytest_shark_tune.records.winner import final_threshold
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.lock import FileLock, NoLocks
from pytest_shark_tune.tuning.manifest import TestManifest

__all__ = ["RunDirectory"]

_MANIFEST = "manifest.json"


class RunDirectory:
    """The directory of one run.

    Args:
        path: where it is.
        report: gets a message about a damaged entry of its cache.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = lambda message: None) -> None:
        self.path = path
        """Where it is."""
        self.cache = Cache(path, report)
        """The cache that ends with the run."""
        self._grouped: tuple[int, Mapping[str, Sequence[Record]]] = (0, {})

    @property
    def records(self) -> Path:
        """The journal of the run's records, which the controller writes."""
        return self.path / "records.jsonl"

    def records_by_dispatch(self) -> Mapping[str, Sequence[Record]]:
        """The run's records in the order taken, by the dispatch's name; read again only if the journal has grown.

        Raises:
            InputError: the journal cannot be read.
        """
        size = self.records.stat().st_size if self.records.exists() else 0
        if size != self._grouped[0]:
            grouped: dict[str, list[Record]] = {}
            for record in journal.read(self.records, Record):
                grouped.setdefault(record.dispatch, []).append(record)
            self._grouped = size, grouped
        return self._grouped[1]

    @property
    def finals(self) -> Path:
        """The journal of the run's finals, which the controller writes."""
        return self.path / "finals.jsonl"

    # Thresholds.

    def threshold(self, task: Task) -> float:
        """The ratio that a candidate needs to get into the final, by the measurements of all processes."""
        return final_threshold(journal.read(self._thresholds(task), float))

    def raise_threshold(self, task: Task, ratio_low: float) -> None:
        """Add the lower end of a candidate's ratio.

        Raises:
            OSError: it cannot be written.
        """
        journal.append(self._thresholds(task), round(ratio_low, 5))

    def _thresholds(self, task: Task) -> Path:
        return self._subdirectory("thresholds") / f"{task.dispatch.key}.jsonl"

    # Claims.

    @contextmanager
    def claimed(self, task: Task, candidate: Candidate, artifact: Artifact) -> Iterator[None]:
        """Claim a candidate's binary while the candidate is measured. The claim stays once there is a result.

        If the test is interrupted, by a time limit on tests for instance, nothing is known of the binary, and the next
        candidate that has it is measured.

        Raises:
            CandidateFailed: another candidate has the binary, so this one is a duplicate.
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
                self._claim(task, artifact).unlink()
            raise

    def owner(self, task: Task, candidate: Candidate, artifact: Artifact) -> str:
        """The first candidate in this run that had a binary: ``candidate``, or an earlier one.

        Raises:
            OSError: the claim cannot be written.
        """
        return journal.create_exclusive(self._claim(task, artifact), candidate.id.encode()).decode()

    def _claim(self, task: Task, artifact: Artifact) -> Path:
        return self._subdirectory("claims") / f"{task.dispatch.key}-{artifact.sha256}"

    # The prefetch queue.

    def publish(self, task: AnyTask, candidates: Sequence[str]) -> None:
        """Tell all processes which candidates of ``task`` come next, in order.

        Raises:
            OSError: it cannot be written.
        """
        journal.replace_file(self._queue(task), msgspec.json.encode(candidates))

    def queued(self, task: AnyTask) -> tuple[Candidate, ...]:
        """The candidates of ``task`` that were published last; none if nothing was published."""
        try:
            names = msgspec.json.decode(self._queue(task).read_bytes(), type=list[str])
        except FileNotFoundError:
            return ()
        wanted = {name: task.candidate(name) for name in set(names).intersection(task.ids)}
        return tuple(wanted[name] for name in names)

    def _queue(self, task: AnyTask) -> Path:
        return self.path / "prefetch" / content_key("prefetch", task.name)

    # Incumbents.

    def write_incumbents(self, incumbents: Mapping[str, str], starters: Mapping[str, str]) -> None:
        """Tell the finals each dispatch's winner so far, and the candidate with the starter spec's config, by id.

        Raises:
            OSError: it cannot be written.
        """
        journal.replace_file(self.path / "incumbents.json", msgspec.json.encode(incumbents))
        journal.replace_file(self.path / "starters.json", msgspec.json.encode(starters))

    def incumbent(self, dispatch: str) -> str:
        """The id of a dispatch's winner so far; empty without one."""
        return _read_id(self.path / "incumbents.json", dispatch)

    def starter(self, dispatch: str) -> str:
        """The id of the candidate with the config that the starter spec has for a dispatch; empty without one."""
        return _read_id(self.path / "starters.json", dispatch)

    # The test manifest.

    def write_manifest(self, make: Callable[[], TestManifest]) -> None:
        """Make and write the test manifest. All workers would write the same, so one of them is enough.

        A worker does not wait for the one that writes: the controller reads it after all of them have collected.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path / _MANIFEST
        lock = FileLock(self.path / f"{_MANIFEST}.lock")
        try:
            if path.exists() or not lock.try_acquire():
                return
        except NoLocks:
            pass
        try:
            if not path.exists():
                journal.replace_file(path, msgspec.json.encode(make()))
        finally:
            lock.release()

    def read_manifest(self) -> TestManifest:
        """Read the test manifest that the workers wrote.

        Raises:
            OSError: no worker could write it.
        """
        return msgspec.json.decode((self.path / _MANIFEST).read_bytes(), type=TestManifest)

    def _subdirectory(self, name: str) -> Path:
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        return directory


def _read_id(path: Path, dispatch: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    return msgspec.json.decode(content, type=dict[str, str]).get(dispatch, "")
