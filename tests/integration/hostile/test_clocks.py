"""A clock that jumps by two days in the middle of a run: it is no measure of the run's time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
# The library lets no process sleep until a time of a clock that it leaves alone, which is how Python sleeps.
_SLEEP = """
import select
import time

def sleep(seconds, wait=select.select):
    wait([], [], [], max(0.0, seconds))

time.sleep = sleep
"""
_LIMIT_S = 20


@pytest.mark.slow
@pytest.mark.skipif(_LIBRARY is None, reason="libfaketime is not installed (Debian's package faketime)")
@pytest.mark.parametrize("jump", ["+2d", "-2d"])
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_clock_that_jumps_changes_nothing(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: str, workers: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SLEEP, encoding="utf-8")
    clock = tmp_path / "clock"
    clock.write_text("+0", encoding="utf-8")
    environment = {
        "LD_PRELOAD": str(_LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # Nobody can set this one.
        "PYTHONPATH": str(tmp_path),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value, prepend=":" if name == "PYTHONPATH" else None)
    suite = make_suite({"test_suite.py": suite_text('ops.matmul(m=64, n=64, k=64, lhs="f32")')})
    suite.cache = tmp_path / "cache"
    began_s = time.monotonic()
    running = suite.start("--tune", workers, "--tune-trials=500", f"--tune-time={_LIMIT_S}s")
    running.wait_for_records(3)
    clock.write_text(jump, encoding="utf-8")
    outcome = running.finish()
    seconds = time.monotonic() - began_s
    assert outcome.status == 0, outcome.text
    assert outcome.summary["run"]["complete"] is True
    assert {record["state"] for record in outcome.records} <= {"measured", "duplicate"}
    assert _LIMIT_S / 2 < seconds < 3 * _LIMIT_S
    # The next run uses the results of this one, whatever their time.
    again = suite.start("--tune", "--tune-trials=1", "-k", "default", out="again").finish()
    assert again.status == 0, again.text
