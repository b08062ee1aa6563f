"""Directories of others in ``TMPDIR`` and in place of the cache: they stay, and nothing is loaded from them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.device.identity import device_slug
from pytest_shark_tune.records.snapshot import snapshot_path, write_spec
from tests.integration.commands.test_merge import winner

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=32, n=32, k=32, lhs="f32"))
def test_dispatch(candidate, artifact, measurement, tune_session):
    directory = tune_session.settings.run_directory
    assert (directory / "x").write_text("x")
    assert not {each.stat().st_mode & 0o77 for each in (directory, directory.parent) if "shark-tune" in each.name} - {0}
"""
RUN = "a-run-that-can-be-guessed"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--tune", "--tune-trials=1", "-k", "default"), id="tune"),
        pytest.param((), id="guard"),
        pytest.param(("-n2", f"--testrunuid={RUN}"), id="guard with workers", marks=pytest.mark.slow),
    ],
)
def test_what_others_keep_in_the_temporary_directory_is_neither_used_nor_removed(
    make_suite: MakeSuite, arguments: tuple[str, ...]
) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.habits = ()
    write_spec(snapshot_path(suite.directory, "llvm-cpu", device_slug("local-task")), [winner(64)])
    temporary = suite.directory.with_name(f"{suite.directory.name}-tmp")
    notes, planted = temporary / "shark-tune-messages", temporary / f"shark-tune-guard-{RUN}"
    for directory in (notes, planted):
        directory.mkdir(parents=True)
        (directory / "lock").touch()
        directory.chmod(0o777)
        os.utime(directory, (0, 0))
    running = suite.start(*arguments)
    outcome = running.finish()
    assert outcome.status in (0, 1), outcome.text
    assert sorted(running.litter(within_s=0.0)) == sorted([notes.name, planted.name])
    assert [each.name for each in planted.iterdir()] == ["lock"]


@pytest.mark.parametrize("mode", [("--tune",), ("--tune", "--tune-cache-clear"), (), ("--tune-cache-clear",)])
def test_a_cache_that_everybody_may_fill_is_refused(make_suite: MakeSuite, mode: tuple[str, ...]) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.habits = ()
    write_spec(snapshot_path(suite.directory, "llvm-cpu", device_slug("local-task")), [winner(64)])
    cache = suite.directory / "open"
    (cache / "artifacts").mkdir(parents=True)
    cache.chmod(0o777)
    outcome = suite.run(f"--tune-cache={cache}", *mode)
    assert outcome.status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    assert f"--tune-cache: every user may write to {cache}" in outcome.text
    assert [path.name for path in cache.iterdir()] == ["artifacts"]
