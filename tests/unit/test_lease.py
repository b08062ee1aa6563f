"""Device leases between real processes: no device is held twice, and whoever dies lets go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pytest_shark_tune.tools import lease
from pytest_shark_tune.tools.lease import DeviceLeases

# Leases a device ROUNDS times. While it holds one, it owns a file that nobody else may have.
CONTENDER = """
import os, sys, time
from pathlib import Path
from pytest_shark_tune.tools.lease import DeviceLeases

folder, rounds, *uris = sys.argv[1:]
leases = DeviceLeases(uris, folder=Path(folder))
sys.stdin.readline()
for _ in range(int(rounds)):
    with leases.acquire() as uri:
        held = Path(folder, uri.replace("local-task", "cpu").replace("local-sync", "cpu").replace("/", "-") + ".held")
        os.close(os.open(held, os.O_CREAT | os.O_EXCL))
        time.sleep(0.01)
        held.unlink()
        print(uri, flush=True)
"""

HOLDER = """
import sys, time
from pathlib import Path
from pytest_shark_tune.tools.lease import DeviceLeases

with DeviceLeases([sys.argv[2]], folder=Path(sys.argv[1])).acquire() as uri:
    print(uri, flush=True)
    sys.stdin.readline()
"""


def contend(folder: Path, env: dict[str, str], *uri_lists: Sequence[str], rounds: int = 8) -> list[list[str]]:
    """Let one process for each list of URIs lease at the same time; what each of them held, in order."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(folder), str(rounds), *uris],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
        )
        for uris in uri_lists
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60) for child in children]
    for child, (_, errors) in zip(children, outputs, strict=True):
        assert child.returncode == 0, errors
    return [out.split() for out, _ in outputs]


@contextmanager
def holding(folder: Path, env: dict[str, str], uri: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a device until it is told to let go, or killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == uri
        try:
            yield child
        finally:
            child.kill()


def is_free(folder: Path, uri: str) -> bool:
    """Whether this process gets the device at once."""
    try:
        with DeviceLeases([uri], folder=folder).acquire(_give_up):
            return True
    except _GaveUp:
        return False


class _GaveUp(Exception):
    pass


def _give_up(message: str) -> None:
    raise _GaveUp(message)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_TELL_AFTER_S", 0.0)


def test_two_processes_never_hold_one_device_together(tmp_path: Path, child_env: dict[str, str]) -> None:
    held = contend(tmp_path, child_env, ["local-task"], ["local-task"])
    assert held == [["local-task"] * 8] * 2


def test_every_uri_of_the_processor_is_one_device(tmp_path: Path, child_env: dict[str, str]) -> None:
    held = contend(tmp_path, child_env, ["local-task"], ["local-sync"], ["local-task://0"], rounds=5)
    assert held == [["local-task"] * 5, ["local-sync"] * 5, ["local-task://0"] * 5]


def test_a_free_device_is_taken_where_another_is_held(tmp_path: Path, child_env: dict[str, str]) -> None:
    with (
        holding(tmp_path, child_env, "cuda://0"),
        DeviceLeases(["cuda://0", "cuda://1"], folder=tmp_path).acquire() as uri,
    ):
        assert uri == "cuda://1"


def test_two_devices_are_shared_by_three_processes(tmp_path: Path, child_env: dict[str, str]) -> None:
    uris = ["cuda://0", "cuda://1"]
    held = contend(tmp_path, child_env, uris, uris, uris, rounds=6)
    assert [len(each) for each in held] == [6, 6, 6]
    assert {uri for each in held for uri in each} == set(uris)


def test_a_held_device_is_waited_for_and_the_wait_is_told(tmp_path: Path, child_env: dict[str, str]) -> None:
    told: list[str] = []
    with holding(tmp_path, child_env, "local-task") as holder:
        assert not is_free(tmp_path, "local-task")
        assert not is_free(tmp_path, "local-sync")
        assert is_free(tmp_path, "cuda://0")

        def let_go(message: str) -> None:
            told.append(message)
            holder.communicate("go\n")

        with DeviceLeases(["local-task"], folder=tmp_path).acquire(let_go) as uri:
            assert uri == "local-task"
    assert told == ["waiting for a device: local-task is in use by another process"]


def test_a_killed_holder_frees_its_device(tmp_path: Path, child_env: dict[str, str]) -> None:
    with holding(tmp_path, child_env, "local-task") as holder:
        assert not is_free(tmp_path, "local-task")
        holder.kill()
        holder.wait()
        assert is_free(tmp_path, "local-task")


def test_a_lease_ends_with_its_block_also_when_it_fails(tmp_path: Path) -> None:
    leases = DeviceLeases(["local-task"], folder=tmp_path)
    with suppress(LookupError), leases.acquire():
        assert not is_free(tmp_path, "local-task")
        raise LookupError
    assert is_free(tmp_path, "local-task")
    with leases.acquire() as uri:
        assert uri == "local-task"


def test_leases_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with DeviceLeases(["local-task"], folder=tmp_path).acquire():
        assert not is_free(tmp_path, "local-task")


def test_locks_lie_outside_of_any_run() -> None:
    first, second = DeviceLeases(["vulkan://test"]), DeviceLeases(["vulkan://test"])
    with first.acquire(), pytest.raises(_GaveUp), second.acquire(_give_up):
        pass
