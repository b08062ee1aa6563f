"""Two runs at once that share a cache and a snapshot; an output directory is never shared (`tune/test_faults.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.spec.read import read_spec
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

# The default for prime sizes is many times slower than nearly any other config.
_OPS = {"one": "matmul_53x59x61_f32", "two": "matmul_47x59x61_f32"}
_SUITE = suite_text("ops.matmul(m=53, n=59, k=61), ops.matmul(m=47, n=59, k=61)")


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["apart", "same"])
def test_two_runs_share_a_cache_and_a_snapshot(make_suite: MakeSuite, parts: str) -> None:
    suite = make_suite({"test_suite.py": _SUITE})
    suite.cache = suite.directory / "cache"
    chosen = [["-k", f"{name} or spec"] if parts == "apart" else [] for name in _OPS.values()]
    runs = [suite.start("--tune", "--tune-trials=6", *words, out=out) for out, words in zip(_OPS, chosen, strict=True)]
    for outcome in [run.finish() for run in runs]:
        assert outcome.status == 0, outcome.text
        assert outcome.summary["run"]["complete"] is True
    (snapshot,) = (suite.directory / "__specs__").glob("*.mlir")
    matchers = [entry.matcher for entry in read_spec(snapshot.read_text(encoding="utf-8"))]
    assert sorted(matchers) == sorted(f"match_{name}" for name in _OPS.values())
    guarded = suite.run("-k", "parses or applies")
    assert guarded.status == 0, guarded.text
