"""Interrupts in processes of their own: when one is raised, when it is told to be in vain, and when it kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

BEGIN = """
import os, signal
from pytest_shark_tune.plugin.interrupts import Interrupts, Terminated
def press(number=signal.SIGINT):
    os.kill(os.getpid(), number)
interrupts = Interrupts(terminate=True)
interrupts.install()
"""


def run(child_env: dict[str, str], body: str) -> subprocess.CompletedProcess[str]:
    code = BEGIN + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code], env=child_env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [("SIGINT", "KeyboardInterrupt", 0), ("SIGTERM", "Terminated", 143), ("SIGHUP", "Terminated", 129)],
)
def test_the_first_one_is_raised(child_env: dict[str, str], number: str, kind: str, status: int) -> None:
    done = run(
        child_env,
        f"""
        try:
            press(signal.{number})
        except KeyboardInterrupt as error:
            print(type(error).__name__, interrupts.status)
        """,
    )
    assert done.stdout == f"{kind} {status}\n", done.stderr


@pytest.mark.parametrize(
    "ending",
    [
        "interrupts.wind_down()\nX",
        "try:\n    press()\nexcept KeyboardInterrupt:\n    X",
        "try:\n    press()\nexcept KeyboardInterrupt:\n    try:\n        raise OSError\n    except OSError:\n        X",
        "try:\n    try:\n        press()\n    finally:\n        X\nexcept KeyboardInterrupt:\n    pass",
    ],
    ids=["told", "handling", "within", "unwinding"],
)
def test_one_while_the_run_is_ending_is_in_vain_and_the_next_kills(child_env: dict[str, str], ending: str) -> None:
    once = run(child_env, ending.replace("X", "press()") + "\nprint('whole')")
    assert (once.returncode, once.stdout) == (0, "whole\n"), once.stderr
    assert once.stderr.count("the run is ending") == 1
    twice = run(child_env, ending.replace("X", "press(); press(signal.SIGTERM); print('never')"))
    assert (twice.returncode, twice.stdout) == (-signal.SIGTERM, "")


def test_one_that_a_test_has_caught_leaves_the_next_in_force(child_env: dict[str, str]) -> None:
    body = "for _ in range(3):\n    try:\n        press()\n    except KeyboardInterrupt:\n        print('raised')"
    assert run(child_env, body).stdout == "raised\n" * 3


def test_what_somebody_else_handles_is_left_alone(child_env: dict[str, str]) -> None:
    done = run(
        child_env,
        """
        interrupts.restore()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.install()
        press()
        print("ignored")
        """,
    )
    assert done.stdout == "ignored\n", done.stderr


@pytest.mark.parametrize("looked_up", [False, True], ids=["classes at hand", "classes looked up"])
def test_one_in_the_bindings_of_the_compiler_is_raised_and_aborts_nothing(
    child_env: dict[str, str], looked_up: bool
) -> None:
    done = run(
        child_env,
        f"""
        import sys, threading, time
        from iree.compiler import ir
        from iree.compiler.dialects import iree_codegen
        from pytest_shark_tune.dispatch.mlir import walk
        if {looked_up}:
            del sys.modules["iree.compiler.dialects.iree_cpu"]
        raised = 0
        with ir.Context():
            info = ir.Attribute.parse(
                "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [64]>, "
                "translation_info = <pipeline = #iree_cpu.pipeline<Default>>>"
            )
            module = ir.Module.parse("func.func @f(%0: i32) -> i32 {{ return %0 : i32 }}")
            for delay in range(60):
                timer = threading.Timer(delay * 1e-4, press, [signal.SIGTERM])
                try:
                    timer.start()
                    while True:
                        for _ in range(50):
                            info.lowering_config, walk(module.operation)
                        time.sleep(1e-5)
                except KeyboardInterrupt:
                    raised += 1
        print(raised)
        """,
    )
    assert done.stdout == "60\n", done.stderr
