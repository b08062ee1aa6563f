"""Time the enumeration of search spaces beside z3 with blocking clauses: ``python benchmarks/enumeration.py``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import z3
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import emitted_constraints
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.constraints import read_constraints

CASES = (
    ("hip:gfx942", ops.matmul(m=2048, n=10240, k=1280, lhs="f16")),
    (
        "cuda:sm_89",
        ops.conv_2d(
            batch=2, height=32, width=32, channels=1280, filters=1280, kernel_height=3, kernel_width=3, lhs="f16"
        ),
    ),
)


class Listed(NamedTuple):
    """A space, the seconds that it took to read it and to list it, and the compiler's SMT-LIB of it."""

    space: SearchSpace
    read_s: float
    list_s: float
    smtlib: str


class Found(NamedTuple):
    """How many solutions z3 found in how many seconds, and whether there was no other."""

    solutions: int
    seconds: float
    complete: bool


@click.command()
@click.option("--z3-seconds", default=20.0, show_default=True, help="Time limit of z3 for each space; 0 leaves it out.")
def main(z3_seconds: float) -> None:
    """Print, for each space, its size, our seconds to read and list it, and those of z3."""
    for target, op in CASES:
        compiler = Compiler(Target.parse(target))
        (dispatch,) = extract_dispatches([read_source(op, Path())], compiler, processors=2).dispatches
        rows = list(_listed(emitted_constraints(dispatch, compiler)))
        click.echo(f"{target} {op.name}: {len(rows)} spaces")
        for row in rows:
            ours = row.read_s + row.list_s
            click.echo(
                f"  {row.space.pipeline}: {len(row.space)} configs in {ours:.3f} s "
                f"(reading {row.read_s:.3f} s, listing {row.list_s:.3f} s)"
            )
            if z3_seconds > 0:
                click.echo(f"    {_told(_with_z3(row, z3_seconds), len(row.space), ours)}")
        total = sum(row.read_s + row.list_s for row in rows)
        click.echo(f"  together: {sum(len(row.space) for row in rows)} configs in {total:.3f} s")


def _listed(constraints: str) -> Iterator[Listed]:
    with ir.Context() as context:
        context.enable_multithreading(False)
        module = ir.Module.parse(constraints)
        for op in ir.get_ops_of_type(module, iree_codegen.ConstraintsOp):
            started = time.perf_counter()
            space = read_constraints(op)
            read = time.perf_counter()
            len(space)
            listed = time.perf_counter()
            smtlib = str(iree_codegen.convert_constraints_op_to_smtlib(op, emit_reset=False))
            yield Listed(space, read - started, listed - read, smtlib)


def _with_z3(row: Listed, limit_s: float) -> Found:
    """Ask z3 for one solution after the other, each time forbidding the last; every one must be a member."""
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(row.smtlib))
    started = time.perf_counter()
    count = 0
    while (left := limit_s - (time.perf_counter() - started)) > 0:
        solver.set("timeout", max(1, int(left * 1000)))
        verdict = solver.check()
        if verdict != z3.sat:
            return Found(count, time.perf_counter() - started, verdict == z3.unsat)
        knobs = {name: _value(solver.model(), name) for name in row.space.names}
        if reasons := row.space.violated(knobs):
            raise SystemExit(f"z3 finds {knobs}, which is no member: {'; '.join(reasons)}")
        count += 1
        solver.add(z3.Or(*(z3.Int(name) != value for name, value in knobs.items())))
    return Found(count, time.perf_counter() - started, complete=False)


def _value(model: Any, name: str) -> int:
    return int(model.eval(z3.Int(name), model_completion=True).as_long())


def _told(found: Found, size: int, ours_s: float) -> str:
    if found.complete:
        return f"z3: {found.solutions} configs in {found.seconds:.1f} s, {found.seconds / ours_s:.0f} times ours"
    if not found.solutions:
        return f"z3: none in {found.seconds:.1f} s, when it was stopped"
    # A straight line: later solutions tend to take longer, as every clause stays.
    whole = found.seconds * size / found.solutions
    return (
        f"z3: {found.solutions} configs in {found.seconds:.1f} s, when it was stopped; all would take about "
        f"{whole:.0f} s at that pace, {whole / ours_s:.0f} times ours"
    )


if __name__ == "__main__":
    main()
