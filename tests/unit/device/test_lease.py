"""Device leases between real processes: no device is held twice, and whoever dies lets go."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pytest_shark_tune.device import lease
from pytest_shark_tune.device.lease import DeviceLeases, device_key
from pytest_shark_tune.errors import InputError

# Leases a device ROUNDS times. While it holds one, it owns a file that nobody else may have.
CONTENDER = """
import os, sys, time
from pathlib import Path
from pytest_shark_tune.device.lease import DeviceLeases

directory, rounds, *uris = sys.argv[1:]
leases = DeviceLeases(uris, directory=Path(directory))
sys.stdin.readline()
for _ in range(int(rounds)):
    with leases.acquire() as uri:
        name = uri.replace("local-task", "cpu").replace("local-sync", "cpu").replace("/", "-")
        held = Path(directory, name + ".held")
        os.close(os.open(held, os.O_CREAT | os.O_EXCL))
        time.sleep(0.01)
        held.unlink()
        print(uri, flush=True)
"""

HOLDER = """
import sys
from pathlib import Path
from pytest_shark_tune.device.lease import DeviceLeases

with DeviceLeases([sys.argv[2]], directory=Path(sys.argv[1]), run=sys.argv[3]).acquire() as uri:
    print(uri, flush=True)
    sys.stdin.readline()
"""


def contend(directory: Path, env: dict[str, str], *uri_lists: Sequence[str], rounds: int = 8) -> list[list[str]]:
    """Let one process for each list of URIs lease at the same time; what each of them held, in order."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(directory), str(rounds), *uris],
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
def holding(directory: Path, env: dict[str, str], uri: str, run: str = "another") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a device until it is told to let go, or killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), uri, run],
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


def is_free(directory: Path, uri: str) -> bool:
    """Whether this process gets the device at once."""
    try:
        with DeviceLeases([uri], directory=directory).acquire(_give_up):
            return True
    except _GaveUp:
        return False


class _GaveUp(Exception):
    pass


def _give_up(message: str) -> None:
    raise _GaveUp(message)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_REPORT_AFTER_S", 0.0)
    monkeypatch.setattr(lease, "_RECHECK_S", 0.0)


def test_two_processes_never_hold_one_device_together(tmp_path: Path, child_env: dict[str, str]) -> None:
    held = contend(tmp_path, child_env, ["local-task"], ["local-task"])
    assert held == [["local-task"] * 8] * 2


def test_every_uri_of_the_processor_is_one_device(tmp_path: Path, child_env: dict[str, str]) -> None:
    held = contend(tmp_path, child_env, ["local-task"], ["local-sync"], ["local-task://0"], rounds=5)
    assert held == [["local-task"] * 5, ["local-sync"] * 5, ["local-task://0"] * 5]


def test_a_free_device_is_taken_where_another_is_held(tmp_path: Path, child_env: dict[str, str]) -> None:
    with (
        holding(tmp_path, child_env, "cuda://0"),
        DeviceLeases(["cuda://0", "cuda://1"], directory=tmp_path).acquire() as uri,
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

        with DeviceLeases(["local-task"], directory=tmp_path).acquire(let_go) as uri:
            assert uri == "local-task"
    (message,) = told
    who = f"held by process {holder.pid} \\({re.escape(shlex.quote(sys.executable))} -c .*…\\) for [0-9]+ s"
    assert re.fullmatch(f"waiting for local-task: {who}", message), message


def test_a_killed_holder_frees_its_device(tmp_path: Path, child_env: dict[str, str]) -> None:
    with holding(tmp_path, child_env, "local-task") as holder:
        assert not is_free(tmp_path, "local-task")
        holder.kill()
        holder.wait()
        assert is_free(tmp_path, "local-task")


def told_while(directory: Path, holder: subprocess.Popen[str]) -> list[str]:
    """The messages about a wait for the device of ``holder``, which ends with the first of them."""
    told: list[str] = []

    def let_go(message: str) -> None:
        told.append(message)
        holder.kill()

    with DeviceLeases(["local-task"], directory=directory).acquire(let_go):
        return told


def test_what_a_killed_holder_wrote_is_not_told_of_the_next_one(tmp_path: Path, child_env: dict[str, str]) -> None:
    with holding(tmp_path, child_env, "local-task") as killed:
        killed.kill()
        killed.wait()
    assert f'"pid":{killed.pid}' in (tmp_path / "cpu.lock").read_text()
    with holding(tmp_path, child_env, "local-task") as holder:
        told = told_while(tmp_path, holder)
    assert f"process {holder.pid} " in told[0]
    assert f"process {killed.pid} " not in told[0]


def test_a_note_of_a_process_that_is_not_seen_names_nobody(tmp_path: Path, child_env: dict[str, str]) -> None:
    with holding(tmp_path, child_env, "local-task") as killed:
        killed.kill()
        killed.wait()
    stale = (tmp_path / "cpu.lock").read_bytes()
    with holding(tmp_path, child_env, "local-task") as holder:
        # As a holder in another container leaves it, whose processes have ids that mean nothing here.
        (tmp_path / "cpu.lock").write_bytes(stale)
        assert told_while(tmp_path, holder) == ["waiting for local-task: held by another process"]


def test_a_holder_that_left_no_note_is_told_of_too(tmp_path: Path, child_env: dict[str, str]) -> None:
    with holding(tmp_path, child_env, "local-task") as holder:
        (tmp_path / "cpu.lock").write_bytes(b"")
        assert told_while(tmp_path, holder) == ["waiting for local-task: held by another process"]


def test_a_long_wait_is_told_again(tmp_path: Path, child_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_REPORT_EVERY_S", 0.2)
    told: list[float] = []
    with holding(tmp_path, child_env, "local-task") as holder:

        def let_go_at_the_third(_: str) -> None:
            told.append(time.monotonic())
            if len(told) == 3:
                holder.kill()

        with DeviceLeases(["local-task"], directory=tmp_path).acquire(let_go_at_the_third):
            pass
    assert len(told) == 3
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(told))


def test_waiting_for_another_process_of_the_run_is_not_told(tmp_path: Path, child_env: dict[str, str]) -> None:
    uris = ["cuda://GPU-a", "cuda://GPU-b"]
    told: list[str] = []
    with (
        holding(tmp_path, child_env, uris[0], run="ours"),
        holding(tmp_path, child_env, uris[1], run="theirs") as other,
    ):

        def let_go(message: str) -> None:
            told.append(message)
            other.kill()

        with DeviceLeases(uris, directory=tmp_path, run="ours").acquire(let_go) as uri:
            assert uri == uris[1]
    assert len(told) == 1
    assert told[0].startswith(f"waiting for {uris[1]}: held by process {other.pid} ")


def test_the_device_held_last_comes_first(tmp_path: Path) -> None:
    uris = ["cuda://GPU-a", "cuda://GPU-b"]
    mine, others = DeviceLeases(uris, directory=tmp_path), DeviceLeases(uris, directory=tmp_path)
    with others.acquire() as first, mine.acquire() as second:
        assert (first, second) == (uris[0], uris[1])
    with mine.acquire() as again:
        assert again == uris[1], "what was loaded there is still loaded"


@pytest.mark.parametrize("uris", [["cuda://GPU-a"], ["cuda://GPU-a", "cuda://GPU-b"]], ids=["one", "two"])
def test_who_waits_comes_before_who_wants_a_device_again(tmp_path: Path, uris: list[str]) -> None:
    order: list[str] = []
    greedy = DeviceLeases(uris, directory=tmp_path)

    def be_patient() -> None:
        with DeviceLeases(uris, directory=tmp_path).acquire():
            order.append("patient")

    with ExitStack() as others:
        for _ in uris[1:]:
            others.enter_context(DeviceLeases(uris, directory=tmp_path).acquire())
        patient = threading.Thread(target=be_patient)
        with greedy.acquire():
            patient.start()
            time.sleep(0.2)
        with greedy.acquire():
            order.append("greedy")
        patient.join()
    assert order == ["patient", "greedy"]


@pytest.mark.parametrize(
    ("uri", "other", "same"),
    [
        ("local-task", "local-sync", True),
        ("local-task", "local-task://0?task_topology_group_count=1", True),
        ("cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8", "vulkan://6F1A2B3C-0D4E-5F60-7182-93A4B5C6D7E8", True),
        ("cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8", "hip://GPU-6f1a2b3c0d4e5f60718293a4b5c6d7e8", True),
        (
            "cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8?x=1",
            "cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8",
            True,
        ),
        ("cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8", "cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e9", False),
        ("vulkan://0", "vulkan://1", False),
        ("vulkan", "local-task", False),
    ],
)
def test_one_device_has_one_key(uri: str, other: str, same: bool) -> None:
    assert (device_key(uri) == device_key(other)) is same


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_other_users_can_lock_what_one_user_made(tmp_path: Path, umask: int) -> None:
    directory = tmp_path / "locks"
    before = os.umask(umask)
    try:
        with DeviceLeases(["local-task"], directory=directory).acquire():
            pass
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o666}


def test_a_directory_that_cannot_be_written_to_is_told_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    directory = tmp_path / "file" / "locks"
    remedy = f"{re.escape(str(directory))} cannot be written: Not a directory.*: chmod 1777 {re.escape(str(directory))}"
    with pytest.raises(InputError, match=remedy):
        DeviceLeases(["local-task"], directory=directory)


def test_a_lock_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("cpu.lock").symlink_to(tmp_path / "elsewhere")
    leases = DeviceLeases(["local-task"], directory=tmp_path)
    with pytest.raises(InputError, match=r"cpu\.lock cannot be written: .*chmod 1777"):
        leases.check()
    with pytest.raises(InputError, match=r"cpu\.lock cannot be written: .*chmod 1777"), leases.acquire():
        pass
    assert not tmp_path.joinpath("elsewhere").exists()


def test_a_lease_ends_with_its_block_also_when_it_fails(tmp_path: Path) -> None:
    leases = DeviceLeases(["local-task"], directory=tmp_path)
    with suppress(LookupError), leases.acquire():
        assert not is_free(tmp_path, "local-task")
        raise LookupError
    assert is_free(tmp_path, "local-task")
    with leases.acquire() as uri:
        assert uri == "local-task"


def test_leases_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with DeviceLeases(["local-task"], directory=tmp_path).acquire():
        assert not is_free(tmp_path, "local-task")


def test_locks_lie_outside_of_any_run() -> None:
    first, second = DeviceLeases(["vulkan://test"]), DeviceLeases(["vulkan://test"])
    with first.acquire(), pytest.raises(_GaveUp), second.acquire(_give_up):
        pass


def test_a_link_in_place_of_the_directory_of_locks_is_not_followed(tmp_path: Path) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "locks"
    victim.mkdir()
    directory.symlink_to(victim)
    with pytest.raises(InputError, match="it is a link that somebody put there"):
        DeviceLeases(["local-task"], directory=directory).check()
    assert list(victim.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_users_share_the_directory_of_locks(tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    DeviceLeases(["local-task"], directory=directory).check()
    assert directory.stat().st_mode & 0o7777 == 0o1777
    os.chown(directory, 12345, 12345)
    assert is_free(directory, "local-task")
