"""The results of forms by earlier runs: how forms compare untuned, and which form of a model was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import FormResult, Plan
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import State, lasts
from pytest_shark_tune.system.cache import content_key

if TYPE_CHECKING:
    from pytest_shark_tune.tuning.database import TuningDatabase

__all__ = ["FormDatabase"]


@dataclass(frozen=True)
class FormDatabase:
    """The part of the tuning database that is about forms."""

    database: TuningDatabase
    """The database."""
    reference: str = "default"
    """What results are compared with, see `RunSettings`."""
    compare: str = ""
    """What is timed beside the forms, see `RunSettings`."""

    def key(self, plan: Plan, source: Source, forms: Sequence[Form]) -> str:
        """A hash of everything that the comparison of a model's forms depends on."""
        names = [task.name for task in plan.tasks]
        return content_key("forms", self.database.base, source.content, names, forms, self.reference)

    def compared(self, key: str, compare: Callable[[], tuple[FormResult, ...]]) -> tuple[FormResult, ...]:
        """The results of a model's forms; compared now if that was not done before, or came to no end."""
        return self.database.reused("forms", key, tuple[FormResult, ...], compare, _is_whole)

    def chosen(self, key: str, choose: Callable[[], tuple[FormRecord, ...]]) -> tuple[FormRecord, ...]:
        """The chosen forms of models; chosen now if no earlier run compared them as whole models."""
        key = content_key("chosen forms", self.database.base, key, self.reference, self.compare)
        return self.database.reused(
            "forms", key, tuple[FormRecord, ...], choose, lambda forms: all(form.ratio is not None for form in forms)
        )


def _is_whole(results: Sequence[FormResult]) -> bool:
    """Whether every form has a result that stays true."""
    return all(result.state in set(State) and lasts(State(result.state), result.reason) for result in results)
