"""Recorded searches of other tuners: T4 results and Kernel Tuner's cache files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.interchange import read_any_landscape
from pytest_shark_tune.results.replay import read_landscape

OURS = Path(__file__).parents[3] / "benchmarks" / "landscapes" / "h100_matmul_2048x10240x1280_f16.json"


def entry(x: object, mode: object, time: object) -> dict[str, Any]:
    return {"block_size_x": x, "mode": mode, "time": time, "times": [1.0], "compile_time": 600.5, "GFLOP/s": 2.5}


def cache(**entries: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": "1.0.0",
        "device_name": "NVIDIA A100-PCIE-40GB",
        "kernel_name": "convolution_kernel",
        "problem_size": [4096, 4096],
        "tune_params_keys": ["block_size_x", "mode"],
        "tune_params": {"block_size_x": [16, 32], "mode": ["fast", "slow"]},
        "objective": "time",
        "cache": entries,
    }


ENTRIES = {
    "a": entry(16, "slow", 2.0),
    "b": entry(32, "slow", 0.5),
    "c": entry(64, "fast", 1.0),
    "d": entry(128, "fast", "CompilationFailedConfig"),
    "e": entry(256, "fast", "RuntimeFailedConfig"),
    "f": entry(512, "fast", "InvalidConfig"),
}


def result(x: object, value: object, invalidity: str = "correct", unit: str = "ms") -> dict[str, Any]:
    return {
        "timestamp": "2023-12-21 10:44:42.236642+00:00",
        "configuration": {"block_size_x": x, "padded": x == 16},
        "times": {"compilation": 661.5, "runtimes": [1.0]},
        "invalidity": invalidity,
        "correctness": 1,
        "measurements": [{"name": "time", "value": value, "unit": unit}, {"name": "GFLOP/s", "value": 6.5, "unit": ""}],
        "objectives": ["time"],
    }


def written(directory: Path, content: object) -> Path:
    path = directory / "recorded.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_cache_of_kernel_tuner_is_a_landscape(tmp_path: Path) -> None:
    found = read_any_landscape(written(tmp_path, cache(**ENTRIES)))
    assert (found.dispatch, found.device) == ("convolution_kernel [4096, 4096]", "NVIDIA A100-PCIE-40GB")
    assert found.ratios() == (0.5, 2.0, 1.0, None, None), "the median time is the baseline"
    assert [one.knobs["mode"] for one in found.candidates] == [1, 1, 0, 0, 0]
    assert [one.state for one in found.candidates][3:] == [State.COMPILE_FAILED, State.RUN_FAILED]
    assert found.candidates[1].samples_us == (500.0,)
    assert found.known_facts().processors == 108


@pytest.mark.parametrize("end", ["}}", ",\n", "", " "])
def test_the_cache_of_a_run_that_goes_on_is_read_too(tmp_path: Path, end: str) -> None:
    text = json.dumps(cache(**ENTRIES)).removesuffix("}}") + end
    assert len(read_any_landscape(written(tmp_path, text)).candidates) == 5


def test_t4_results_are_a_landscape(tmp_path: Path) -> None:
    results = [
        result(16, 3.0),
        result(32, 1.0),
        result(32, 9.0),
        result(64, 2000.0, unit="us"),
        result(8, 1e20, "compile"),
        result(4, "", "correctness"),
        result(2, 0, "constraints"),
    ]
    found = read_any_landscape(written(tmp_path, {"results": results, "schema_version": "1.0.0"}))
    assert [one.samples_us for one in found.candidates] == [(3000.0,), (1000.0,), (2000.0,), (), ()]
    assert found.candidates[0].knobs == {"block_size_x": 16, "padded": 1}
    assert [one.state for one in found.candidates][3:] == [State.COMPILE_FAILED, State.WRONG_RESULT]
    assert found.ratios()[:3] == pytest.approx((2 / 3, 2.0, 1.0))


@pytest.mark.parametrize("content", [cache(**ENTRIES), {"results": [result(16, 3.0), result(32, 1.0)]}])
def test_compressed_files_are_read_as_the_plain_ones(tmp_path: Path, content: object) -> None:
    plain = written(tmp_path, content)
    packed = tmp_path / "recorded.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_any_landscape(packed).candidates == read_any_landscape(plain).candidates


def test_damaged_compressed_files_are_refused(tmp_path: Path) -> None:
    packed = tmp_path / "recorded.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(cache(**ENTRIES)).encode())[:-20])
    with pytest.raises(InputError, match=r"recorded.json.gz cannot be decompressed: "):
        read_any_landscape(packed)


def test_fractions_are_numbered_in_their_order(tmp_path: Path) -> None:
    entries = {"a": entry(0.5, True, 1.0), "b": entry(0.25, False, 2.0), "c": entry(4, False, 2.5)}
    found = read_any_landscape(written(tmp_path, cache(**entries)))
    assert [one.knobs for one in found.candidates] == [
        {"block_size_x": 1, "mode": 1},
        {"block_size_x": 0, "mode": 0},
        {"block_size_x": 2, "mode": 0},
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (cache(), "no config was measured"),
        (cache(a=entry(1, "fast", "InvalidConfig")), "no config was measured"),
        (cache(**ENTRIES) | {"objective": "GFLOP/s"}, "objective GFLOP/s is no time"),
        ({"results": []}, "no config was measured"),
        ({"results": [result(1, 2.0, unit="J")]}, "objective time in 'J' is no time"),
        ({"results": [{"configuration": {"x": [1]}}]}, "is no landscape"),
        ("[]", "is no landscape"),
        ("", "is no landscape"),
    ],
)
def test_what_holds_no_time_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_any_landscape(written(tmp_path, content))


def test_our_own_landscapes_are_read_as_ever(tmp_path: Path) -> None:
    assert read_any_landscape(OURS) == read_landscape(OURS)
    with pytest.raises(InputError, match="cannot be read"):
        read_any_landscape(tmp_path / "absent.json")


def test_the_command_replays_a_search_on_them(tmp_path: Path) -> None:
    path = written(tmp_path, cache(**ENTRIES))
    found = CliRunner().invoke(main, ["replay", str(path), "--search", "exhaustive", "--seeds", "1", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["evals_to_5pct_median"] == 2
