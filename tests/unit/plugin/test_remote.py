"""Workers elsewhere: what their controller hands over, and what they say when it does not hold for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.plugin.xdist.remote import paths_of_worker, shared_directory
from pytest_shark_tune.plugin.xdist.scheduling import refusal

if TYPE_CHECKING:
    from pathlib import Path


def given(run_directory: Path, *, remote: bool) -> dict[str, Any]:
    return {
        "shark_tune_run_directory": str(run_directory),
        "shark_tune_is_remote": remote,
        "shark_tune_host": "here",
        "shark_tune_cache": "/shared/cache",
        "shark_tune_out": "/shared/out",
        "shark_tune_bundle": "",
    }


def test_a_worker_takes_its_controllers_paths(tmp_path: Path) -> None:
    paths = paths_of_worker(given(tmp_path, remote=True))
    assert {name: str(path) for name, path in paths.items()} == {
        "cache": "/shared/cache",
        "out": "/shared/out",
        "bundle": "None",
    }


@pytest.mark.parametrize(("remote", "option"), [(True, "--tune-cache"), (False, "TMPDIR")])
def test_a_worker_that_does_not_see_the_runs_directory_names_the_option(
    tmp_path: Path, remote: bool, option: str
) -> None:
    with pytest.raises(pytest.UsageError, match=rf"^{option}: there is no .*/gone on .*{option} has to name .* here,"):
        paths_of_worker(given(tmp_path / "gone", remote=remote))


def test_every_run_has_a_shared_directory_of_its_own(tmp_path: Path) -> None:
    first, second = shared_directory(tmp_path), shared_directory(tmp_path)
    assert first != second
    assert first.is_dir()
    assert first.is_relative_to(tmp_path)


def test_a_run_of_days_keeps_its_shared_directory(tmp_path: Path) -> None:
    killed, live = shared_directory(tmp_path), shared_directory(tmp_path)
    for directory in (killed, live):
        (directory / "records.jsonl").write_text("{}\n")
        for each in (*directory.iterdir(), directory):
            os.utime(each, (0, 0))
    with (live / "records.jsonl").open("a") as file:  # as a record comes
        file.write("{}\n")
    assert live.stat().st_mtime == 0
    shared_directory(tmp_path)
    assert live.is_dir()
    assert not killed.exists()


def test_what_somebody_else_keeps_beside_the_shared_directories_stays(tmp_path: Path) -> None:
    own = tmp_path / "runs/run-of-mine"
    own.mkdir(parents=True)
    (own / "results.txt").write_text("a week's work")
    for each in (own / "results.txt", own):
        os.utime(each, (0, 0))
    shared_directory(tmp_path)
    assert (own / "results.txt").is_file()


def test_what_a_worker_refused_is_told_from_a_crash() -> None:
    trace = "Traceback (most recent call last):\n  File x\npytest.UsageError: --tune-cache: it is\nnot there\n"
    assert refusal(trace) == "--tune-cache: it is\nnot there"
    assert refusal("Traceback\nValueError: pytest.UsageError: no") == ""
    assert refusal("Not properly terminated") == ""
