"""Commands, against real children that sleep, fork, eat memory and write a lot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.system import process

LONG_S = 30.0


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + LONG_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + LONG_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} is not there"
        time.sleep(0.01)
    return path.read_text()


# Writes the pid of a child of its own, which sleeps like itself, into the file that is named.
FAMILY = """
    import os, subprocess, sys, time
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], **nothing)
    with open(sys.argv[1] + ".part", "w") as file:
        file.write(str(child.pid))
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    print("said before", file=sys.stderr, flush=True)
    time.sleep(60)
"""


def test_what_a_command_prints_comes_back() -> None:
    done = process.run(python("import sys; print('out'); print('err', file=sys.stderr)"), timeout_s=LONG_S)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert 0 < done.seconds < LONG_S


def test_stdin_is_fed_whole() -> None:
    text = "äöü" * 200_000
    done = process.run(python("import sys; sys.stdout.write(sys.stdin.read()[::-1])"), stdin=text, timeout_s=LONG_S)
    assert done.stdout == text[::-1]


def test_a_command_that_reads_no_stdin_is_no_error() -> None:
    assert process.run(python("print('done')"), stdin="x" * 1_000_000, timeout_s=LONG_S).stdout == "done\n"


def test_stderr_is_kept_whole() -> None:
    code = "import sys\nfor i in range(50_000): print('line', i, file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(CommandFailed, match=f"^{Path(sys.executable).name} exited with status 3$") as caught:
        process.run(python(code), timeout_s=LONG_S)
    assert caught.value.stderr == "".join(f"line {i}\n" for i in range(50_000))
    assert not caught.value.timed_out


def test_output_that_is_no_text_is_replaced() -> None:
    done = process.run(python("import sys; sys.stdout.buffer.write(b'a\\xffb')"), timeout_s=LONG_S)
    assert done.stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandFailed, match="was ended by SIGSEGV"):
        process.run(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), timeout_s=LONG_S)


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(CommandFailed, match=r"^no-such-command could not be started: .* is no program"):
        process.run(["/nowhere/no-such-command"], timeout_s=LONG_S)


def test_the_environment_is_replaced_where_given() -> None:
    code = "import os; print(os.environ.get('MARK'), 'HOME' in os.environ)"
    assert process.run(python(code), env={"MARK": "here"}, timeout_s=LONG_S).stdout == "here False\n"


def test_a_time_out_kills_the_whole_group_and_keeps_stderr(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(CommandFailed, match=r"ran longer than 1\.5 s and was stopped") as caught:
        process.run(python(FAMILY, str(pid_file)), timeout_s=1.5)
    assert caught.value.timed_out
    assert caught.value.stderr == "said before\n"
    wait_until_gone(int(pid_file.read_text()))


def test_an_exception_in_the_caller_kills_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    caller = threading.main_thread().ident
    assert caller is not None

    def interrupt() -> None:
        wait_for(pid_file)
        signal.pthread_kill(caller, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        process.run(python(FAMILY, str(pid_file)), timeout_s=LONG_S)
    thread.join()
    wait_until_gone(int(pid_file.read_text()))


def test_stop_all_ends_commands_of_other_threads(tmp_path: Path) -> None:
    failures: list[CommandFailed] = []

    def work(name: str) -> None:
        try:
            process.run(python(FAMILY, str(tmp_path / name)), timeout_s=LONG_S)
        except CommandFailed as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    grandchildren = [int(wait_for(tmp_path / name)) for name in ("one", "two")]
    process.stop_all()
    for thread in threads:
        thread.join(LONG_S)
    assert [str(failure) for failure in failures] == [f"{Path(sys.executable).name} was ended by SIGKILL"] * 2
    for pid in grandchildren:
        wait_until_gone(pid)


def test_stop_all_without_commands_does_nothing() -> None:
    process.stop_all()
    assert process.run(python("print(1)"), timeout_s=LONG_S).stdout == "1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process")
def test_memory_beyond_the_limit_is_refused() -> None:
    code = "import sys; sys.stdin.read(); block = bytearray(1 << 28); print(len(block))"
    assert process.run(python(code), timeout_s=LONG_S, memory_bytes=1 << 30).stdout == f"{1 << 28}\n"
    with pytest.raises(CommandFailed) as caught:
        process.run(python(code), timeout_s=LONG_S, memory_bytes=1 << 28)
    assert "MemoryError" in caught.value.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process")
def test_a_limit_of_the_caller_stays_in_force(child_env: dict[str, str]) -> None:
    show = "import resource, sys; sys.stdin.read(); print(*resource.getrlimit(resource.RLIMIT_AS))"
    code = f"""
        import resource, sys
        from pytest_shark_tune.system import process
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        for limit in (8 << 30, 2 << 30):
            print(process.run([sys.executable, "-c", {show!r}], timeout_s=30, memory_bytes=limit).stdout, end="")
    """
    done = subprocess.run(python(code), env=child_env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{4 << 30} {4 << 30}\n{2 << 30} {2 << 30}\n"


def test_stopping_a_group_that_has_gone_is_no_error() -> None:
    gone = subprocess.Popen(python("pass"), start_new_session=True)
    gone.wait()
    process.stop_group(gone)
    assert gone.returncode == 0


def test_a_command_leads_a_group_of_its_own() -> None:
    done = process.run(python("import os; print(os.getpgid(0), os.getpid())"), timeout_s=LONG_S)
    group, pid = map(int, done.stdout.split())
    assert group == pid != os.getpgid(0)


# Is killed as soon as its command has been started, before anybody else can know of it.
GONE_AT_ONCE = """
    import os
    from pytest_shark_tune.system import cleanup, process

    def end(pid):
        print(pid, flush=True)
        os._exit(0)

    cleanup.watch_group = end
    process.run(["sleep", "120"], timeout_s=120)
"""


def test_a_command_does_not_start_once_whoever_wants_it_has_ended() -> None:
    done = subprocess.run(python(GONE_AT_ONCE), capture_output=True, text=True, check=True, timeout=LONG_S)
    wait_until_gone(int(done.stdout))
