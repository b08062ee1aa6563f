"""A landscape recorded from a real run, with workers and without, and searches replayed on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.results.replay import read_landscape
from pytest_shark_tune.search.prior import read_prior
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

SUITE = suite_text("ops.matmul(m=53, n=59, k=61), ops.matmul(m=48, n=32, k=64)")


@pytest.mark.slow
def test_a_run_begins_with_a_prior_that_other_runs_left(make_suite: MakeSuite, tmp_path: Path) -> None:
    known = make_suite({"test_suite.py": SUITE}).tune(
        "-n0", "--tune-trials=30", "--tune-strategy=random", f"--tune-record-landscape={tmp_path / 'run.json'}"
    )
    assert known.status == 0, known.text
    prior = tmp_path / "prior.json"
    recorded = sorted(map(str, tmp_path.glob("run-*.json")))
    trained = CliRunner().invoke(main, ["prior", "train", *recorded, "-o", str(prior), "--seeds", "1"])
    assert trained.exit_code == 0, trained.output
    assert len(read_prior(prior.read_bytes()).test) == len(recorded) == 2
    suite = make_suite({"test_other.py": suite_text("ops.matmul(m=64, n=48, k=53)")})
    outcome = suite.tune("-n0", "--tune-trials=6", f"--tune-prior={prior}")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines([f"*searches begin with the prior {prior}: 2 shapes on CPU with vectors of * bytes"])


def test_a_prior_that_cannot_be_read_is_refused_by_name(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    (tmp_path / "bad.json").write_text("{}")
    for name, words in (("absent.json", "cannot be read"), ("bad.json", "is no prior")):
        outcome = suite.tune("-n0", f"--tune-prior={tmp_path / name}")
        assert outcome.status == 4, outcome.text
        assert f"--tune-prior: {tmp_path / name} {words}" in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_records_what_replay_reads(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "pytest.ini": "[pytest]\ntune_record_landscape = recorded/run.json\n"})
    outcome = suite.tune(workers, "--tune-trials=6", "--tune-strategy=random")
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
