"""The comparison with other searches on complete landscapes, on two that are made up."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
COUNT = 60


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("hub")
    for name in ("hub", "search"):
        sys.modules.pop(name, None)


@pytest.fixture
def landscapes(tmp_path: Path) -> Path:
    """A cache file, and compressed T4 results. A sixth of the configs fail, and the best is the largest block."""
    directory = tmp_path / "landscapes"
    directory.mkdir()
    names = ["block", "tile", "mode"]
    configs = [dict(zip(names, each, strict=True)) for each in product(range(1, 7), range(1, 6), (0, 1))]
    times = [None if config["block"] == 3 else 10.0 / config["block"] + config["tile"] for config in configs]
    cache = {
        str(row): config | {"time": time or "RuntimeFailedConfig"}
        for row, (config, time) in enumerate(zip(configs, times, strict=True))
    }
    (directory / "cached.json").write_text(json.dumps({"tune_params_keys": names, "cache": cache}))
    results = [
        {
            "configuration": config,
            "invalidity": "correct" if time else "runtime",
            "measurements": [{"name": "time", "value": time, "unit": "ms"}],
            "objectives": ["time"],
        }
        for config, time in zip(configs, times, strict=True)
    ]
    (directory / "t4.json.gz").write_bytes(gzip.compress(json.dumps({"results": results}).encode()))
    return directory


def call(hub: ModuleType, *args: object) -> str:
    found = CliRunner().invoke(hub.main, [str(each) for each in args], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("name", ["cached.json", "t4.json.gz"])
def test_failures_are_proposals_and_a_complete_search_has_no_regret(
    hub: ModuleType, landscapes: Path, name: str
) -> None:
    space = hub.space_of(landscapes / name)
    assert (len(space.table), space.ratios.count(None), space.ratios.count(1.0)) == (COUNT, COUNT // 6, 2)
    found = hub.run(landscapes / name, "random", 3, (1, 8, COUNT))
    assert all(first >= second >= last == 1 for first, second, last in found.regrets)


def test_the_table_names_each_strategy_and_results_are_kept(
    hub: ModuleType, landscapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.json"
    args = (landscapes, "--seeds", 2, "--budget", 8, "--budget", 20, "--output", output)
    chosen = ("--strategy", "model", "--strategy", "random")
    printed = call(hub, *args, *chosen)
    assert "2 landscapes: cached, t4" in printed
    assert printed.count("(") >= 4, "an interval for each strategy and budget"
    assert {*json.loads(output.read_bytes())["runs"]} == {"cached", "t4"}
    monkeypatch.setattr(hub, "run", None)
    assert call(hub, *args, *chosen) == printed, "nothing ran again"


def test_missing_packages_are_named_and_unknown_strategies_refused(
    hub: ModuleType, landscapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda _: None)
    args = (landscapes, "--seeds", 1, "--budget", 4, "--only", "t4", "--output", tmp_path / "results.json")
    printed = call(hub, *args)
    assert "kernel_tuner is not installed" in printed
    assert "optuna is not installed" in printed
    refused = CliRunner().invoke(hub.main, [*map(str, args), "--strategy", "pso"])
    assert "no strategy pso" in refused.output


def runs(hub: ModuleType, *regrets: float) -> Any:
    return hub.Runs([[regret] for regret in regrets], 0.0)


def test_ahead_by_more_than_noise_is_told(hub: ModuleType) -> None:
    each = {
        "model": runs(hub, 1.5, 1.52, 1.48),
        "better": runs(hub, 1.2, 1.22, 1.18),
        "same": runs(hub, 1.5, 1.4, 1.6),
    }
    found = {"first": each, "second": each}
    told = "\n".join(hub.report(found, (16,)))
    assert "better is ahead of model by more than the noise of seeds and landscapes at 16 (0.800 times ours)" in told
    assert "same is ahead" not in told
    told = "\n".join(hub.report({"first": {"model": each["model"]}}, (16,)))
    assert "no strategy is ahead of model" in told


@pytest.mark.parametrize("strategy", ["hybrid_vndx", "adaptive_tabu_greywolf", "pso", "genetic_algorithm"])
def test_a_strategy_of_kernel_tuner_counts_configs_once(hub: ModuleType, landscapes: Path, strategy: str) -> None:
    pytest.importorskip("kernel_tuner")
    space = hub.space_of(landscapes / "cached.json")
    rows = hub.kernel_tuner_rows(space, strategy, 0, 20)
    assert len({*rows}) == len(rows) == 20
    assert rows == hub.kernel_tuner_rows(space, strategy, 0, 20)
    assert rows != hub.kernel_tuner_rows(space, strategy, 1, 20)
