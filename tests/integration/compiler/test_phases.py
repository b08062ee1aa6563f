"""One command dumps what several commands would."""

from __future__ import annotations

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.flow import function_inputs, read_flow
from pytest_shark_tune.ops.sdpa import Sdpa, sdpa

CAUSAL = sdpa(Sdpa(batch=1, heads=2, groups=2, queries=8, keys=8, head=4, value_head=4, element="f32", causal=True))


def test_one_command_for_an_op_reads_as_one_for_each_phase() -> None:
    compiler = Compiler(Target.parse("llvm-cpu"))
    for source in (ops.matmul(m=8, n=8, k=8), CAUSAL):
        benchmarks, (flow, inputs) = compiler.dump_phases(source.text, source.name, "flow", "input")
        assert benchmarks == compiler.dump_benchmarks(source.text, source.name)
        assert read_flow(flow) == read_flow(compiler.lower(source.text, to="flow"))
        assert function_inputs(inputs) == function_inputs(compiler.lower(source.text, to="input"))
        assert function_inputs(inputs)["main"]
