"""The reasons why a dispatch is not tuned: a class for each, with its remedy."""

from __future__ import annotations

from typing import ClassVar

from pytest_shark_tune.errors import SharkTuneError

__all__ = [
    "AskedTooMuch",
    "CannotTune",
    "CompilerFailed",
    "CopiesBuffers",
    "DataDependentSizes",
    "DefaultIsWrong",
    "DimensionNotCovered",
    "DynamicDimension",
    "ElementNotCovered",
    "EmptyDimension",
    "EmptyTensor",
    "KindNotCovered",
    "NoRootOp",
    "NoSpace",
    "NothingFits",
    "NothingToTile",
    "OpenInput",
    "OpenSizes",
    "PinnedConfig",
    "SeveralReductions",
    "SeveralRootOps",
    "SpaceTooLarge",
    "TooManyElements",
    "UnboundedKnob",
    "UnknownDimensions",
    "UnknownScalar",
    "UnreadableBenchmark",
    "UnreadableConstraints",
    "UnreadableOperand",
    "ValueFromOutside",
]


class CannotTune(SharkTuneError):
    """A dispatch is not tuned. The message gives the facts of the dispatch."""

    remedy: ClassVar[str] = ""
    """What the user can do about it; empty if there is nothing to do."""

    @property
    def kind(self) -> str:
        """The name of the reason's class."""
        return type(self).__name__

    @property
    def advice(self) -> str:
        """The message, with the remedy."""
        return f"{self}: {self.remedy}" if self.remedy else str(self)


class OpenSizes(CannotTune):
    """A size is not fixed when the dispatch is compiled, so there is no benchmark of it."""

    remedy = "fix the input shapes"


class OpenInput(CannotTune):
    """A size depends on open dimensions of inputs; the message names them, and the option that gives sizes."""


class DataDependentSizes(CannotTune):
    """A size depends on the data, though those of the inputs are fixed."""

    remedy = "it keeps its default"


class EmptyTensor(CannotTune):
    """A size is 0, so there is nothing to compute."""


class TooManyElements(CannotTune):
    """An operand has more elements than any device holds."""


class NoRootOp(CannotTune):
    """The compiler attaches no config to any op of the dispatch."""


class PinnedConfig(CannotTune):
    """An op of the model carries a config of its own, which the compiler takes."""

    remedy = "remove it to have the op tuned"


class SeveralRootOps(CannotTune):
    """A config is for one op, and the dispatch has several that take one."""


class CopiesBuffers(CannotTune):
    """The dispatch only copies, and specs are for ops on tensors."""


class UnknownDimensions(CannotTune):
    """The loops of the op, their sizes or their classes are not known."""


class UnknownScalar(CannotTune):
    """A number that is known only at run time has no value that is known to be right."""


class ValueFromOutside(CannotTune):
    """The op uses a value that no matcher can follow."""


class UnreadableOperand(CannotTune):
    """An operand is neither a tensor nor a number, so no data can be made for it."""


class UnreadableBenchmark(CannotTune):
    """The benchmark that the compiler made cannot be filled with data."""


class CompilerFailed(CannotTune):
    """The compiler fails on the dispatch, or on an optional step of it."""

    remedy = "report it to IREE, or leave the op to its default"


class NoSpace(CannotTune):
    """No search space covers an op on a target; the message tells the reason."""


class SeveralReductions(NoSpace):
    """Each of several reductions needs a config of its own, and a spec gives one to the root op."""


class KindNotCovered(NoSpace):
    """No search space is for ops of that kind on the target's backend."""

    remedy = "an entry point in the group pytest_shark_tune.spaces can add one"


class ElementNotCovered(NoSpace):
    """An operand has elements of a type that the space does not know."""


class DimensionNotCovered(NoSpace):
    """The op's dimensions are not of the classes that the space is for."""


class DynamicDimension(NoSpace):
    """A loop has no fixed trip count, and a config is tuned for one."""

    remedy = "fix the input shapes"


class EmptyDimension(NoSpace):
    """A loop has no iterations."""


class NothingToTile(NoSpace):
    """The op has one way to be computed only."""


class NothingFits(NoSpace):
    """No config of the space fits the op and the limits of the target."""


class DefaultIsWrong(NoSpace):
    """The compiler's default gives a wrong result, so there is nothing to compare with."""


class AskedTooMuch(NoSpace):
    """The user's own conditions and knobs leave no config."""

    remedy = "ask for less"


class SpaceTooLarge(CannotTune):
    """A space has too many members to list, or its members are too rare to be drawn; the message tells which."""

    remedy = "--tune-restrict narrows it"


class UnboundedKnob(CannotTune):
    """The constraints leave a knob without a lower or an upper bound, or with millions of values."""


class UnreadableConstraints(CannotTune):
    """A constraints op holds something that no search space can express; the message names it."""
