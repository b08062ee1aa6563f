"""Workers elsewhere: what their controller hands over, and what they say when it does not hold for them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_shark_tune.plugin.xdist.remote import (
    mark_lost,
    paths_of_worker,
    refuse_each,
    share_of_worker,
    shared_directory,
)
from pytest_shark_tune.plugin.xdist.scheduling import refusal
from pytest_shark_tune.system.directories import make_marked
from tests.thinned import thinned

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_shark_tune.plugin.options import TuneOptions


def given(run_directory: Path, *, remote: bool) -> dict[str, Any]:
    return {
        "shark_tune_run_directory": str(run_directory),
        "shark_tune_is_remote": remote,
        "shark_tune_host": "here",
        "shark_tune_user": "me",
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
    assert first.path != second.path
    assert first.path.is_dir()
    assert first.path.is_relative_to(tmp_path)


def test_a_run_keeps_its_shared_directory_although_a_clock_jumped(tmp_path: Path) -> None:
    held = shared_directory(tmp_path)
    os.utime(held.path, (0, 0))
    for file in held.path.iterdir():
        os.utime(file, (0, 0))
    shared_directory(tmp_path)
    assert held.path.is_dir()
    held.remove()
    assert not held.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_worker_refuses_the_directory_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    with pytest.raises(pytest.UsageError, match=r"^--tune-cache: .* is the directory of a run of user me on here, and"):
        paths_of_worker(given(tmp_path, remote=True))


def test_a_worker_with_another_version_is_refused() -> None:
    options = SimpleNamespace(bundle=None, compiler=SimpleNamespace(version="3.13.0"))
    workerinput = {"shark_tune_versions": {"iree-base-compiler": "3.12.0"}, "shark_tune_host": "there"}
    with pytest.raises(pytest.UsageError, match=r"--tx: .* has iree-base-compiler 3.13.0, and there has 3.12.0: "):
        share_of_worker(workerinput, cast("TuneOptions", options))


@pytest.mark.parametrize(
    ("dist", "tx", "is_refused"), [("each", ["popen"], True), ("load", ["popen"], False), ("each", [], False)]
)
def test_a_run_that_tunes_refuses_to_run_every_test_on_each_worker(dist: str, tx: list[str], is_refused: bool) -> None:
    config = cast("pytest.Config", SimpleNamespace(option=SimpleNamespace(dist=dist, tx=tx)))
    with (
        pytest.raises(pytest.UsageError, match=r"^--dist each: .*: use --dist load, ") if is_refused else nullcontext()
    ):
        refuse_each(config)


_WORKER = """
import sys, time
from pathlib import Path
from pytest_shark_tune.plugin.xdist.remote import end_with_run
end_with_run(Path(sys.argv[1]), "gw3")
print("at work", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", thinned(["lost", "over"], every=2))
def test_a_worker_ends_once_its_controller_does_without_it(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with subprocess.Popen([sys.executable, "-c", _WORKER, directory], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"at work\n"
        mark_lost(directory, "gw2")
        assert worker.poll() is None
        if how == "lost":
            mark_lost(directory, "gw3")
        else:
            shutil.rmtree(directory)
        assert worker.wait(10) == -signal.SIGTERM


def test_a_run_of_days_keeps_its_shared_directory(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    killed, live = make_marked("run-", runs), make_marked("run-", runs)
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
