"""The best config of a dispatch beside the default, knob by knob."""

from __future__ import annotations

from pytest_shark_tune.records.types import Record
from pytest_shark_tune.report.html.figure import Figure, Table
from pytest_shark_tune.report.html.view import DispatchView

__all__ = ["compare_configs"]


def compare_configs(view: DispatchView) -> Figure | None:
    """Return the best config beside the default; ``None`` if no candidate was in a final."""
    best = view.best
    record = next((found for found in view.candidates if best is not None and found.id == best.id), None)
    if record is None:
        return None
    default = view.default
    rows = [
        ("pipeline", default.pipeline if default else "", record.pipeline),
        *((name, _knob(default, name), str(value)) for name, value in sorted(record.knobs.items())),
        ("config", default.config if default else "", record.config),
    ]
    return Figure(
        f"The default and {record.id}",
        "The compiler's own choice beside the best config. The default has no knobs on record: its config is below.",
        "",
        Table(("", "default", record.id), rows, words=frozenset({0, 1, 2})),
    )


def _knob(record: Record | None, name: str) -> str:
    return str(record.knobs.get(name, "")) if record is not None else ""
