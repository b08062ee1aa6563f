"""Records of forms: the form of a model that won, what it was compared with, and the commands that compile it."""

from __future__ import annotations

import msgspec

from pytest_shark_tune.forms.form import DEFAULT_FORM, Form

__all__ = ["FORM_SCHEMA", "ComparedForm", "FormRecord", "KindTime"]

FORM_SCHEMA = 1


class ComparedForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form with the winners of its dispatches, beside the untuned default form in whole-model runs."""

    form: Form
    """The form."""
    predicted_us: float | None = None
    """The time by the profile of the form and the finals of its dispatches."""
    ratio: float | None = None
    """The default form's time by its time; ``None`` if it was not run."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    reason: str = ""
    """The reason why it was not run, or failed."""


class KindTime(msgspec.Struct, frozen=True, kw_only=True):
    """The time of one kind of dispatch in the form that won, by its profile and by the finals."""

    kind: str
    """The kind of the root op: contraction, convolution, …; ``not tuned`` for dispatches without candidates."""
    default_us: float
    """The time of all such dispatches in a call with their defaults, in microseconds."""
    tuned_us: float
    """The same with their winners."""


class FormRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The form that a model is compiled in, and the figures of the whole model."""

    schema: int = FORM_SCHEMA
    model: str
    """The name of the model."""
    form: Form = DEFAULT_FORM
    """The form that won; the default form if none did."""
    target: str
    device: str
    """The model of the device."""
    iree: str
    """The compiler's release."""
    shapes: dict[str, tuple[int, ...]] = {}
    """The sizes that were given for inputs of an ONNX model."""
    default_us: float | None = None
    """The median time of the untuned model in its default form, in microseconds."""
    tuned_us: float | None = None
    """The median time of the model in the form that won, with its spec."""
    ratio: float | None = None
    """``default_us`` divided by ``tuned_us``, from interleaved rounds."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    compared: tuple[ComparedForm, ...] = ()
    """The forms that reached the comparison of whole models."""
    onnxruntime_us: float | None = None
    """The median time of the ONNX model in ONNX Runtime in the same rounds, if it was measured."""
    onnxruntime_ratio: float | None = None
    """``default_us`` divided by that time."""
    kinds: tuple[KindTime, ...] = ()
    """Where the time of the form that won goes, if it was profiled; the kind that takes longest first."""
    note: str = ""
    """The reason for the choice."""
    file: str = ""
    """The name of the model's file."""
    spec: str = ""
    """The name of the spec beside the record; empty without one."""
    stem: str = ""
    """The part of the files' names behind the model's."""
    commands: tuple[str, ...] = ()
    """The commands that compile the model, to be run in the directory of the response file."""
    compile_flags: tuple[str, ...] = ()
    """The user's flags for iree-compile."""
    only_by_shark_tune: bool = False
    """Whether some entries of the spec are applied by ``shark-tune compile`` and not by plain iree-compile."""

    @property
    def source(self) -> str:
        """The name of the model's source in this form."""
        return self.form.source_name(self.model)

    @property
    def shape_lines(self) -> tuple[str, ...]:
        """The sizes as ``--tune-input-shape`` takes them."""
        return tuple(f"{name}={'x'.join(map(str, sizes))}" for name, sizes in self.shapes.items())
