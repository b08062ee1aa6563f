"""The best config of a dispatch beside the default, knob by knob."""

from __future__ import annotations

from collections.abc import Mapping

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
    known = view.row.default_knobs or (default.knobs if default is not None else {})
    rows = [
        ("pipeline", default.pipeline if default else "", record.pipeline),
        *((name, _knob(known, name), str(value)) for name, value in sorted(record.knobs.items())),
        ("config", default.config if default else "", record.config),
    ]
    remark = "" if known else " The default is not of this search space, so it has no knobs: its config is below."
    return Figure(
        f"The default and {record.id}",
        f"The compiler's own choice beside the best config.{remark}",
        "",
        Table(
            ("", "default", record.id),
            rows,
            words=frozenset({0, 1, 2}),
            strong=frozenset(at for at, (_, old, new) in enumerate(rows) if old != new and old),
        ),
    )


def _knob(knobs: Mapping[str, int], name: str) -> str:
    return str(knobs.get(name, 0)) if knobs else ""
