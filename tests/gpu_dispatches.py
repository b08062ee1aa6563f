"""Dispatches for GPUs, and whether candidates for them compile, with the real compiler and without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.spec.build import single_entry_spec


@cache
def extracted(target: str, op: OpSource) -> tuple[Compiler, Dispatch]:
    """Return the compiler for a target, and the one dispatch of an op."""
    compiler = Compiler(Target.parse(target))
    (dispatch,) = extract_dispatches([read_source(op, Path())], compiler, processors=1).dispatches
    return compiler, dispatch


def compiles(compiler: Compiler, dispatch: Dispatch, candidate: Candidate, directory: Path) -> bool:
    """Apply a candidate's config, which has to succeed, and return whether the result compiles."""
    spec = single_entry_spec(dispatch.root, candidate.compilation_info)
    configured = configure_with(dispatch.members[0].module.text, spec)
    assert why_not_applied(configured, candidate.compilation_info) is None
    try:
        compiler.compile_sources(configured.text, directory / "candidate.vmfb")
    except CommandFailed:
        return False
    return True


def failing(compiler: Compiler, dispatch: Dispatch, candidates: Sequence[Candidate], directory: Path) -> list[str]:
    """Return the configs of the candidates that do not compile."""
    return [each.config for each in candidates if not compiles(compiler, dispatch, each, directory)]
