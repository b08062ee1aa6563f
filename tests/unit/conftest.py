"""What several test modules share: a compiler, the real dispatches of one model, and a small plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

import pytest_shark_tune
from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Plan
from tests.models import MODEL


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and {"compiler", "sources"} & set(item.fixturenames):
        item.add_marker("compiler")


@pytest.fixture(scope="session")
def child_env() -> dict[str, str]:
    """The environment of a Python child that is to import this very package."""
    return {**os.environ, "PYTHONPATH": os.fspath(Path(pytest_shark_tune.__file__).parent.parent)}


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """For one and the same processor on every machine."""
    return Compiler(Target.parse("llvm-cpu:x86-64-v3"))


@pytest.fixture(scope="session")
def model() -> str:
    """A source of many dispatches; the dispatch of a function @f is ``f_dispatch_0``."""
    return MODEL


@pytest.fixture(scope="session")
def dumps(compiler: Compiler) -> Mapping[str, str]:
    """The executable benchmark modules of the model, by function."""
    texts = compiler.dump_benchmarks(MODEL, "model.mlir")
    names = [line.partition("@")[2].partition("_dispatch")[0] for text in texts for line in _executables(text)]
    return dict(zip(names, texts, strict=True))


@pytest.fixture(scope="session")
def plan(compiler: Compiler) -> Plan:
    """A plan of one matmul with three candidates."""
    source = read_source(ops.matmul(m=64, n=96, k=128), Path())
    return make_plan([source], compiler, processors=2, count=3, seed=0)


def _executables(text: str) -> list[str]:
    return [line for line in text.splitlines() if "hal.executable private @" in line]
