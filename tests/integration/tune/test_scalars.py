"""Dispatches that take scalars known only at run time, through a whole run: tuned, checked and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scalar_models import ROWS, ZERO_POINTS, scaled
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

MODELS = {"factors": scaled("f32"), "rows": ROWS, "zero_points": ZERO_POINTS}


@pytest.mark.parametrize("name", thinned(MODELS, every=3))
def test_candidates_are_checked_and_measured(name: str, make_suite: MakeSuite) -> None:
    suite = make_suite({f"{name}.mlir": MODELS[name]})
    outcome = suite.tune(f"{name}.mlir", "--tune-trials=2", "-k", "matmul and not final")
    assert outcome.status == 0, outcome.text
    states = {record["state"] for record in outcome.records}
    assert states <= {"measured", "duplicate"}
    assert "measured" in states
    assert all(record["dispatch"].startswith("matmul_64x128x96") for record in outcome.records)
