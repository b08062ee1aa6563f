"""Steps: messages about the progress of long work, with the stage of the run and the part of it that is done."""

from __future__ import annotations

import json
from enum import StrEnum

__all__ = ["Stage", "Step"]


class Stage(StrEnum):
    """The stages of a run, in their order."""

    EXTRACT = "extract"
    SEARCH = "search"
    FINALS = "finals"
    MODELS = "whole models"
    WRITE = "write"


class Step(str):
    """A message that is out of date once the next step begins. Any other message is for the user to keep.

    Attributes:
        stage: the stage that the step is part of.
        done: how many of the stage's steps of this kind are done.
        of: how many there are; 0 if that is not known.
    """

    __slots__ = ("done", "of", "stage")
    stage: Stage
    done: int
    of: int

    def __new__(cls, text: str, stage: Stage, done: int = 0, of: int = 0) -> Step:
        """Make a step of its text."""
        step = super().__new__(cls, text)
        step.stage, step.done, step.of = stage, done, of
        return step

    def to_json(self) -> str:
        """Return the step as text that `from_json` reads in another process."""
        return json.dumps([str(self), self.stage, self.done, self.of])

    @classmethod
    def from_json(cls, text: str) -> Step:
        """Return the step that `to_json` wrote."""
        message, stage, done, of = json.loads(text)
        return cls(message, Stage(stage), done, of)
