"""For the runs of pytest that tests start: quick finals by the same rules, and a device of their own."""

# In a real run a final takes 5 to 10 rounds of up to 1.5 s, which is most of the time of a run on a small op.

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pytest_shark_tune.device import lease
from pytest_shark_tune.measurement import timing


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Change the constants before the modules that import them by name are loaded."""
    timing.GUARD_ROUND = timing.FINAL = timing.Policy(sample_s=0.002, blocks=4, min_blocks=3, budget_s=0.1, width=0.02)
    timing.FINAL_ROUNDS, timing.MOST_ROUNDS = 3, 4
    # Runs of other tests at the same time need not wait: nobody compares their figures.
    lease._HOST_DIRECTORY = Path(tempfile.gettempdir()) / "pytest-device-locks"
    # One thread keeps its speed on a busy machine; the several of local-task wait for one another.
    is_default = not any(config.getoption(name) or config.getini(name) for name in ("tune_device", "tune_bundle"))
    if is_default and (config.getoption("tune_target") or config.getini("tune_target")) == "llvm-cpu":
        config.option.tune_device = "local-sync"
