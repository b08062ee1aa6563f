"""The reasons why a whole input is refused: a class for each, with its remedy."""

from __future__ import annotations

import re
from typing import ClassVar

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.errors import CommandFailed, InputError

__all__ = [
    "CompilerCrashes",
    "CompilerRejects",
    "CompilerTooSlow",
    "ImporterRejects",
    "InputRefused",
    "InvalidOnnxModel",
    "MissingWeights",
    "NoOnnxPackage",
    "NotAnOnnxModel",
    "OnnxModelRejected",
    "OpenOnnxInputs",
    "OperatorNotLowered",
    "TypeNotLowered",
    "UnknownOperator",
    "refusal",
    "refused_by_importer",
    "why_rejected",
]

_LEFT_OVER = re.compile(r"failed to legalize operation 'torch\.operator'.*?\bname = \"onnx\.(?P<op>\w+)\"")
_OTHER_TYPE = re.compile(r"unhandled torch type: '!torch\.(?P<type>list|optional|dict|tuple)<")
_UNKNOWN_OPERATOR = re.compile(r"No Op registered for (?P<op>\S+)|No opset import for domain '?(?P<domain>[^'\s]*)")
_VALIDATION = "ValidationError: "
_NO_WEIGHTS = "should be stored in "


class InputRefused(InputError):
    """An input cannot be tuned at all. The message gives the input, the reason and the remedy.

    Args:
        label: The name of the input in messages.
        why: The reason.
    """

    remedy: ClassVar[str] = ""
    """What the user can do about it; empty where the reason says it."""

    def __init__(self, label: object, why: str) -> None:
        super().__init__(f"{label}: {why}: {self.remedy}" if self.remedy else f"{label}: {why}")

    @property
    def kind(self) -> str:
        """The name of the reason's class."""
        return type(self).__name__


class NoOnnxPackage(InputRefused):
    """It takes the package onnx to read the model; the message gives the command that installs it."""


class NotAnOnnxModel(InputRefused):
    """The file is no ONNX model, or a part of one."""

    remedy = "export the model again, or copy the whole file"


class OpenOnnxInputs(InputRefused):
    """An input of an ONNX model has no fixed shape; the message names the options that give one."""


class InvalidOnnxModel(InputRefused):
    """An ONNX model breaks ONNX's own rules."""

    remedy = "export it again until onnx.checker.check_model takes it"


class MissingWeights(InputRefused):
    """A file with weights that an ONNX model names is absent."""

    remedy = "copy the file with the weights there, or export the model again with the weights in it"


class UnknownOperator(InputRefused):
    """An ONNX model has an operator that neither ONNX nor IREE knows."""

    remedy = "export the model with the operators of ONNX's own opsets"


class ImporterRejects(InputRefused):
    """IREE's importer of ONNX fails on a model that ONNX takes."""

    remedy = "export it for opset 17, or report it to IREE"


class OperatorNotLowered(InputRefused):
    """IREE's compiler does not know an ONNX operator, or not with these attributes and types."""

    remedy = "onnxsim or the optimizer of ONNX Runtime may fold it away"


class TypeNotLowered(InputRefused):
    """A model has values that are no tensors."""

    remedy = "IREE takes tensors only: export the model without sequences and optional values"


class OnnxModelRejected(InputRefused):
    """The compiler rejects what it made of an ONNX model itself."""

    remedy = "onnxsim or the optimizer of ONNX Runtime may simplify the model; otherwise report it to IREE"


class CompilerRejects(InputRefused):
    """The compiler rejects a module as it was given."""

    remedy = "mend it, or make it anew with this release of IREE if another one made it"


class CompilerCrashes(InputRefused):
    """The compiler crashes on an input."""

    remedy = "report it to IREE"


class CompilerTooSlow(InputRefused):
    """The compiler takes longer than it may; the message names the option that gives it more time."""


def refusal(label: object, error: CommandFailed, *, is_onnx: bool = False) -> InputRefused:
    """Return the reason why iree-compile does not compile a source.

    Args:
        label: The name of the source in messages.
        error: The failure of iree-compile.
        is_onnx: Whether the source is an imported ONNX model.
    """
    kind, why = _judge(error)
    return (OnnxModelRejected if is_onnx and kind is CompilerRejects else kind)(label, why)


def why_rejected(error: CommandFailed) -> str:
    """Return the reason why iree-compile does not compile a source, without its remedy."""
    return _judge(error)[1]


def _judge(error: CommandFailed) -> tuple[type[InputRefused], str]:
    if error.timed_out:
        return CompilerTooSlow, str(error)
    said = first_error(error)
    if said == str(error):
        return CompilerCrashes, f"the compiler crashes on it: {said}"
    place = said.partition(": ")[0]
    if onnx := _LEFT_OVER.search(said):
        why = f"iree-compile cannot lower the ONNX operator {onnx['op']} as this model uses it ({place})"
        return OperatorNotLowered, why
    if other := _OTHER_TYPE.search(said):
        return TypeNotLowered, f"iree-compile has no values of the type {other['type']} ({place})"
    return CompilerRejects, f"iree-compile rejects it: {said}"


def refused_by_importer(label: object, error: CommandFailed) -> InputRefused:
    """Return the reason why IREE's importer does not import an ONNX model.

    Args:
        label: The name of the model in messages.
        error: The failure of the importer.
    """
    said = error.lines[-1]
    if unknown := _UNKNOWN_OPERATOR.search(error.stderr):
        name = unknown["op"] or f"of the domain {unknown['domain']!r}"
        return UnknownOperator(label, f"IREE cannot import it: there is no operator {name}")
    # A message of several lines begins on the line of the exception.
    _, found, message = error.stderr.rpartition(_VALIDATION)
    if found:
        said = " ".join(message.split())
        return (MissingWeights if _NO_WEIGHTS in said else InvalidOnnxModel)(label, f"IREE cannot import it: {said}")
    return ImporterRejects(label, f"IREE cannot import it: {said}")
