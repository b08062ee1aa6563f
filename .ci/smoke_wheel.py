"""Shows that the installed wheel works on its own: run it with the Python that has the wheel, in an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest_shark_tune

SUITE = """\
import pytest
from pytest_shark_tune import ops


@pytest.mark.tune(ops.matmul(m=64, n=64, k=64, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    pass
"""


def run(*arguments: str) -> str:
    """What pytest prints, also shown; any exit status but 0 ends this script."""
    env = {**os.environ, "XDG_CACHE_HOME": str(Path("cache").absolute())}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\npytest {' '.join(arguments)} exited with {done.returncode}")
    return done.stdout


def main() -> None:
    """Check where the package lies, that pytest knows it, and that it tunes."""
    package = Path(pytest_shark_tune.__file__).parent
    assert package.is_relative_to(sys.prefix), f"{package} is not what the wheel installed"
    assert (package / "py.typed").is_file(), "the wheel holds no py.typed"
    assert "--tune-trials" in run("--help"), "pytest --help does not name --tune-trials"

    suite = Path("suite", "test_smoke.py")
    suite.parent.mkdir()
    suite.write_text(SUITE, encoding="utf-8")
    print(run("suite", "--tune", "--tune-trials", "3"))
    lines = Path(".tune", "records.jsonl").read_text(encoding="utf-8").splitlines()
    tried = {json.loads(line)["id"]: json.loads(line)["state"] for line in lines}
    assert tried, "no candidate was recorded"
    assert "measured" in tried.values(), f"no candidate was measured: {tried}"
    print(f"the wheel tunes: {tried}")


if __name__ == "__main__":
    main()
