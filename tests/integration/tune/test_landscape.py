"""A landscape recorded from a real run, with workers and without, and searches replayed on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.results.replay import read_landscape
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

SUITE = suite_text("ops.matmul(m=53, n=59, k=61), ops.matmul(m=48, n=32, k=64)")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_records_what_replay_reads(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "pytest.ini": "[pytest]\ntune_record_landscape = recorded/run.json\n"})
    outcome = suite.tune(workers, "--tune-candidates=6", "--tune-search=random")
    assert outcome.status == 0, outcome.text
    for name in ("matmul_53x59x61_f32", "matmul_48x32x64_f32"):
        path = suite.directory / "recorded" / f"run-{name}.json"
        outcome.lines.fnmatch_lines([f"landscape: {path}"])
        landscape = read_landscape(path)
        records = {json.dumps(each["knobs"]): each for each in outcome.records if each["dispatch"] == name}
        assert len(landscape.candidates) == len(records) - 1 == 6
        assert all(records[json.dumps(each.knobs)]["state"] == each.state for each in landscape.candidates)
        assert landscape.known_facts().loops == tuple(int(size) for size in name.split("_")[1].split("x"))
        result = CliRunner().invoke(main, ["replay", str(path), "--seeds", "2", "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["best_ratio_at"]["16"] == 1
