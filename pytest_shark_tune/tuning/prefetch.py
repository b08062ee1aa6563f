"""What comes next: the candidates that the search has chosen, told by the controller to whoever compiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.plan.types import AnyTask
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import content_key

__all__ = ["announce", "coming"]

_FOLDER = "coming"


def announce(exchange: Path, task: AnyTask, identifiers: Sequence[str]) -> None:
    """Say which candidates of ``task`` come next, in order."""
    path = _path(exchange, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    journal.replace_file(path, msgspec.json.encode(identifiers))


def coming(exchange: Path, task: AnyTask) -> tuple[Candidate, ...]:
    """The candidates of ``task`` that were announced last; none where nobody has announced any."""
    try:
        names = msgspec.json.decode(_path(exchange, task).read_bytes(), type=list[str])
    except FileNotFoundError:
        return ()
    wanted = {each.id: each for each in task.candidates if each.id in names}
    return tuple(wanted[name] for name in names)


def _path(exchange: Path, task: AnyTask) -> Path:
    return exchange / _FOLDER / content_key("coming", task.name)
