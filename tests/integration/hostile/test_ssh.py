"""Workers on another host, over ssh: its user, its directories, its packages, and a connection that is lost."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import hostile
from tests.integration.hosts import NAME, USER, Host, connections, why_no_host
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

_SUITE = suite_text('ops.matmul(m=64, n=64, k=64, lhs="f32")')
# The host's own: it has no file of the controller's but those that it shares.
_CONFTEST = f"""
import os, platform
import pytest

@pytest.fixture
def measurement(measurement):
    assert (platform.node(), os.getcwd()) == ("{NAME}", "/mnt/checkout")
    return measurement
"""
_WAITS = """
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(20))
def test_wait(number):
    Path("{0}", str(number)).touch()
    time.sleep(0.5)
"""
_NO_COMPILER = ("iree/compiler", "iree_base_compiler*")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why := why_no_host()), reason=f"no other host: {why}")]


@pytest.fixture
def suite(make_suite: MakeSuite, tmp_path: Path) -> Suite:
    suite = make_suite({"suite/test_suite.py": _SUITE, "suite/conftest.py": _CONFTEST})
    suite.cache = tmp_path / "shared"
    suite.cache.mkdir(mode=0o700)
    return suite


@pytest.fixture
def marks() -> Iterator[Path]:
    """A directory in which every user may make files; nobody else enters those of pytest."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def _options(host: Host, candidates: int, **workers: str) -> list[str]:
    return [*host.workers(**workers), "-o", "testpaths=suite", f"--tune-trials={candidates}"]  # type: ignore[arg-type]


def test_workers_on_another_host_tune(suite: Suite, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", suite.directory)
    with host.running():
        outcome = suite.tune(*_options(host, 3), out="out")
    assert outcome.status == 0, outcome.text
    assert {record["state"] for record in outcome.records} <= {"measured", "duplicate"}
    assert len(outcome.records) == 4
    assert "no final" not in outcome.dispatch("matmul_64x64x64_f32")["reason"]
    assert not list(suite.cache.glob("runs/*")), "the directory of the run ends with it"


def test_a_host_without_a_python_is_told(suite: Suite, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", suite.directory)
    with host.running():
        workers = [option.replace("python3", "no-python") for option in _options(host, 3)]
        outcome = suite.tune("--tx=popen", *workers, out="out")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "INTERNALERROR" not in outcome.text
    outcome.lines.fnmatch_lines(["*--tx: a worker on another host ended as it was started (*): does python= name *"])


@pytest.mark.parametrize("fault", ["user", "cache", "compiler"])
def test_a_host_that_cannot_take_part_is_told(suite: Suite, tmp_path: Path, fault: str) -> None:
    lacks = _NO_COMPILER if fault == "compiler" else ()
    hides = (suite.cache,) if fault == "cache" else ()
    host = Host(tmp_path / "host", suite.directory, lacks, hides)
    with host.running():
        outcome = suite.tune(*_options(host, 3, user=USER if fault == "user" else "root"), out="out")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR, outcome.text
    assert "Traceback" not in outcome.text
    assert "INTERNALERROR" not in outcome.text
    expected = {
        "user": f"--tune-cache: *run-* is the directory of a run of user root on *, and this worker on {NAME} runs as "
        f"{USER}: log in there as the user who starts the run",
        "cache": f"--tune-cache: there is no *run-* on {NAME} that can be written to: *under the same path",
        "compiler": f"--tx: the IREE compiler is not installed on {NAME}: *; only --tune-bundle does without it",
    }
    outcome.lines.fnmatch_lines([f"the run ended early: gw?: {expected[fault]}"])


def test_a_bundle_is_measured_on_a_host_without_a_compiler(suite: Suite, tmp_path: Path) -> None:
    (suite.directory / "suite" / "conftest.py").unlink()  # A bundle holds no measurement of a suite's own.
    packed = suite.tune("suite", "--tune-stop-after=compile", "--tune-trials=2", out="packed")
    assert packed.status == 0, packed.text
    host = Host(tmp_path / "host", suite.directory, _NO_COMPILER)
    bundle = f"--tune-bundle={packed.out / 'bundle.tar'}"
    with host.running():
        outcome = suite.tune(*host.workers(), "-o", "testpaths=suite", bundle, out="out")
    assert outcome.status == 0, outcome.text
    assert {record["state"] for record in outcome.records} <= {"measured", "duplicate"}
    assert len(outcome.records) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["closed", "silent"])
def test_a_connection_that_is_lost_costs_a_candidate_of_each_worker(
    suite: Suite, tmp_path: Path, how: signal.Signals
) -> None:
    host = Host(tmp_path / "host", suite.directory)
    with host.running() as server:
        running = suite.start("--tune", *_options(host, 20), out="out")
        running.wait_for_records(3)
        lost = connections(server)
        for process in lost:
            os.kill(process, how)
        outcome = running.finish()
        for process in lost if how is signal.SIGSTOP else ():
            os.kill(process, signal.SIGKILL)
    assert outcome.status == 0, outcome.text
    reasons = [record["reason"] for record in outcome.records if record["state"] == "run_failed"]
    assert 1 <= len(reasons) <= 2
    assert all(reason.endswith(f"crashed (the connection to root@{NAME} was lost)") for reason in reasons)
    assert len({record["id"] for record in outcome.records}) == 21
    assert outcome.summary["run"]["complete"] is True
    # A worker sees within a second that another one has its place.
    assert running.survivors(within_s=10) == []


def test_a_host_that_is_gone_costs_its_workers(make_suite: MakeSuite, suite: Suite, tmp_path: Path) -> None:
    here = make_suite({"suite/test_suite.py": _SUITE})
    here.cache = suite.cache
    host = Host(tmp_path / "host", here.directory)
    with host.running() as server:
        running = here.start("--tune", "--tx=popen", *_options(host, 20), out="out")
        running.wait_for_records(5)
        _end(server)
        outcome = running.finish()
    assert outcome.status == 0, outcome.text
    told = f"shark-tune: --tx: ssh gets no connection to root@{NAME}; the run goes on without gw*, with * worker*"
    outcome.lines.fnmatch_lines([told, told])
    assert len({record["id"] for record in outcome.records}) == 21
    assert sum(record["state"] == "run_failed" for record in outcome.records) <= 2
    assert outcome.summary["run"]["complete"] is True
    assert "no final" not in outcome.dispatch("matmul_64x64x64_f32")["reason"]
    assert running.survivors(within_s=10) == []


def test_a_run_without_any_host_ends_with_its_results(suite: Suite, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", suite.directory)
    with host.running() as server:
        running = suite.start("--tune", *_options(host, 20), out="out")
        running.wait_for_records(3)
        _end(server)
        outcome = running.finish()
    assert outcome.status == 1, outcome.text
    assert "INTERNALERROR" not in outcome.text
    outcome.lines.fnmatch_lines([f"the run ended early: --tx: ssh gets no connection to root@{NAME}; *"])
    assert outcome.summary["run"]["complete"] is False
    assert len(outcome.records) >= 3
    refused = suite.tune(*_options(host, 3), out="again")
    assert refused.status == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in refused.text
    refused.lines.fnmatch_lines([f"*--tx: ssh gets no connection to root@{NAME}*"])


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside a local worker"])
def test_guarding_on_a_host_that_is_gone(make_suite: MakeSuite, tmp_path: Path, marks: Path, is_alone: bool) -> None:
    files = {"test_suite.py": suite_text('"model.mlir"'), "test_wait.py": _WAITS.format(marks)}
    specs = {"model.mlir": hostile.MODEL, "__specs__/llvm-cpu-x.mlir": hostile.spec()}
    suite = make_suite({f"suite/{name}": text for name, text in (files | specs).items()})
    host = Host(tmp_path / "host", suite.directory)
    # Guarding needs neither the same user nor a directory that the hosts share.
    workers = host.workers(user=USER) if is_alone else ["--tx=popen", *host.workers(count=1)]
    suite.cache = marks / "cache"
    # A check that measures may stay undecided on a busy machine.
    options = [*workers, "-o", "testpaths=suite", "--tune-report-md=report.md", "-k", "not fast"]
    with host.running() as server:
        whole = suite.run(*options)
        assert whole.status == 0, whole.text
        whole.lines.fnmatch_lines(["1 entry, checks: 4 kept"])
        for mark in marks.glob("[0-9]*"):
            mark.unlink()
        running = suite.start(*options)
        while len(list(marks.glob("[0-9]*"))) < 8 and running.process.poll() is None:
            time.sleep(0.05)
        _end(server)
        outcome = running.finish()
    assert outcome.status == 1, outcome.text
    assert "INTERNALERROR" not in outcome.text
    lost = f"--tx: ssh gets no connection to root@{NAME}"
    report = (suite.directory / "report.md").read_text(encoding="utf-8")
    if is_alone:
        outcome.lines.fnmatch_lines(["1 entry, checks: * kept*"])
        assert lost.replace("root", USER) in report
    else:
        outcome.lines.fnmatch_lines([f"shark-tune: {lost}; the run goes on without gw1, with 1 worker"])
        assert sum(map(int, re.findall(r"(\d+) (?:passed|failed)", outcome.text.splitlines()[-1]))) == 24
        assert lost not in report


def _end(server: int) -> None:
    """End a host: the server, its connections and what they started, as far as it takes part in them."""
    lost = connections(server)
    # The process that holds the connection of another user than root is a child of that which root has for it.
    for process in (server, *lost, *(child for parent in lost for child in connections(parent))):
        os.kill(process, signal.SIGKILL)
