"""Forms of models as text."""

from __future__ import annotations

from pytest_shark_tune.records.form import ComparedForm, FormRecord
from pytest_shark_tune.system.units import format_us

__all__ = ["describe_form"]


def describe_form(record: FormRecord) -> str:
    """Describe the chosen form of a model with its figures, and the forms that it was compared with."""
    if record.ratio is None:
        return f"form {record.form.name}: {record.note}"
    figures = f"{record.ratio:.2f}x ({record.ratio_low:.2f} to {record.ratio_high:.2f})"
    times = f"{format_us(record.default_us)} -> {format_us(record.tuned_us)}"
    others = [_described(row) for row in record.compared if row.form != record.form]
    parts = [f"form {record.form.name} with its spec: {figures}, {times}", *filter(None, [record.note]), *others]
    if record.onnxruntime_us is not None and record.tuned_us is not None:
        part = record.tuned_us / record.onnxruntime_us
        parts.append(f"ONNX Runtime {format_us(record.onnxruntime_us)}: the model takes {part:.2f} of its time")
    if record.kinds:
        kinds = (f"{one.kind} {format_us(one.default_us)} -> {format_us(one.tuned_us)}" for one in record.kinds)
        parts.append(f"its dispatches: {', '.join(kinds)}")
    return "; ".join(parts)


def _described(row: ComparedForm) -> str:
    if row.ratio is None:
        return f"{row.form.name} was not run: {row.reason}"
    return f"{row.form.name} {row.ratio:.2f}x"
