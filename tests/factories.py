"""Ops, tasks and records as tests need them: what a test says nothing of is the same everywhere."""

from __future__ import annotations

from typing import Any

import z3
from iree.compiler import ir
from iree.compiler.dialects import arith

from pytest_shark_tune.dispatch.mlir import ops_named
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch, Member, RootOp, TargetFacts, Tensor
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State, WinnerRecord
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import Candidate

INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{}, 32, 0], "
    "vector_common_parallel = [8, 32, 0], vector_reduction = [0, 0, 8]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
_RECORD: dict[str, Any] = {
    "dispatch": "matmul",
    "pipeline": "DoubleTilingExpert",
    "knobs": {},
    "config": "",
    "state": State.MEASURED,
    "device": "Some CPU",
    "target": "llvm-cpu",
    "iree": "3.13.0",
}
_WINNER: dict[str, Any] = {**_RECORD, "root": None, "weight": 1, "compilation_info": ""}


def matmul_root(
    m: int,
    n: int,
    k: int,
    element: str = "f32",
    *,
    out: str = "f32",
    op: str = "linalg.matmul",
    kind: str = "contraction",
) -> RootOp:
    """The root op of a matmul of ``m`` x ``k`` by ``k`` x ``n`` elements."""
    return RootOp(
        op=op,
        kind=kind,
        loops=(m, n, k),
        iterators=("parallel", "parallel", "reduction"),
        maps=tuple(f"affine_map<(d0, d1, d2) -> ({dims})>" for dims in ("d0, d2", "d2, d1", "d0, d1")),
        inputs=(Tensor((m, k), element), Tensor((k, n), element)),
        outputs=(Tensor((m, n), out),),
        m=(0,),
        n=(1,),
        k=(2,),
    )


def make_task(name: str, size: int, *, calls: int = 1) -> Task:
    """The task of a square matmul on a CPU, with two candidates, ``aaaaaa`` and ``bbbbbb``."""

    def candidate(identity: str, tile: int) -> Candidate:
        return Candidate(
            id=identity,
            dispatch=name,
            pipeline="DoubleTilingExpert",
            knobs={"dist_0": tile} if tile else {},
            config=f"config {tile}",
            compilation_info=INFO.format(tile) if tile else "",
        )

    module = BenchmarkModule(text="", run_function="run", buffer_function="buffer", buffer_bytes=0, views=())
    return Task(
        dispatch=Dispatch(
            name=name,
            root=matmul_root(size, size, size),
            target=TargetFacts(backend="llvm-cpu"),
            default_pipeline="DoubleTilingExpert",
            default_config="config 0",
            members=(Member(symbol=f"{name}_0", source="model", calls=calls, module=module),),
        ),
        default=candidate("default", 0),
        candidates=(candidate("aaaaaa", 8), candidate("bbbbbb", 16)),
        space_size=2,
    )


def make_record(identity: str, **fields: Any) -> Record:
    """The record of a candidate that was measured, unless ``fields`` say something else."""
    return Record(id=identity, **(_RECORD | fields))


def make_winner(identity: str, **fields: Any) -> WinnerRecord:
    """The record of a winner with these ``fields``."""
    return WinnerRecord(id=identity, **(_WINNER | fields))


def make_final(*finalists: Finalist, **fields: Any) -> FinalRecord:
    """The record of a final; its default took 10 us."""
    given = {name: _WINNER[name] for name in ("dispatch", "root", "weight", "device", "target", "iree")}
    return FinalRecord(finalists=finalists, **(given | {"baseline_samples_us": (10.0,)} | fields))


def running(text: str, dispatches: int) -> str:
    """A benchmark that runs so many dispatches, whatever it is asked for."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        (loop,) = ops_named(module.operation, "scf.for")
        with ir.InsertionPoint(loop):
            loop.operands[1] = arith.constant(ir.IndexType.get(), dispatches)
        return str(module)


def solutions(space: SearchSpace) -> set[tuple[int, ...]]:
    """All solutions that z3 finds of a space's own SMT-LIB, each excluded once it is found."""
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(space.smtlib()))
    found = set()
    while solver.check() == z3.sat:
        model = solver.model()
        values = tuple(model.eval(z3.Int(name)).as_long() for name in space.names)
        found.add(values)
        solver.add(z3.Or(*(z3.Int(name) != value for name, value in zip(space.names, values, strict=True))))
    return found
