"""Whether the constraints of our search spaces exclude configs that are faster than all inside.

    python benchmarks/outside.py
    python benchmarks/outside.py --only depthwise --count 100

Of each space, configs are drawn at random from inside, and from outside: combinations of the same values of knobs that
break at least one constraint. All are compiled, checked and timed in turns with the default. A row gives how many of
each ran, the best ratios to the default, and by how much the best from outside exceeds the best from inside. The exit
status is 1 if that is more than 5% somewhere.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.configure import ConfigureFailed, configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.measurement.timing import Policy, compare_finalists
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import NO_SPACE, search_spaces
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import Candidate, make_candidates
from pytest_shark_tune.spec.build import single_entry_spec
from pytest_shark_tune.tuning.acceptance import acceptance_of

_POLICY = Policy(sample_s=0.005, blocks=5, min_blocks=3, budget_s=0.5, width=0.02)
_FASTER = 1.05
_DRAWS = 200
"""Draws for one config from outside, since a space without constraints has none."""


def convolution(name: str, op: str, image: str, kernel: str, result: str, stride: int) -> OpSource:
    """A named convolution of linalg, with f32 tensors of these shapes."""
    types = [f"tensor<{shape}xf32>" for shape in (image, kernel, result)]
    strides = f"dense<{stride}> : tensor<{1 if '1d' in op else 2}xi64>"
    return OpSource(
        name,
        f"""
func.func @main(%a: {types[0]}, %b: {types[1]}) -> {types[2]} {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {types[2]}
  %init = linalg.fill ins(%zero : f32) outs(%empty : {types[2]}) -> {types[2]}
  %result = linalg.{op} {{strides = {strides}, dilations = {strides.replace(str(stride), "1", 1)}}}
    ins(%a, %b : {types[0]}, {types[1]}) outs(%init : {types[2]}) -> {types[2]}
  return %result : {types[2]}
}}
""",
    )


CASES: Mapping[str, OpSource] = {
    "matmul": ops.matmul(m=256, n=256, k=256, lhs="f32"),
    "matmul, odd sizes": ops.matmul(m=127, n=131, k=61, lhs="f32"),
    "matmul, transposed": ops.matmul(m=196, n=256, k=256, lhs="f32", transpose_b=True),
    "batch matmul": ops.batch_matmul(batch=8, m=64, n=64, k=64, lhs="f32"),
    "convolution": ops.conv_2d(batch=1, height=28, width=28, channels=64, filters=64, kernel_height=3, kernel_width=3),
    "depthwise": convolution("depthwise", "depthwise_conv_2d_nchw_chw", "1x64x58x58", "64x3x3", "1x64x56x56", 1),
    "depthwise, stride 2": convolution(
        "strided", "depthwise_conv_2d_nchw_chw", "1x64x57x57", "64x3x3", "1x64x28x28", 2
    ),
    "depthwise, channels last": convolution(
        "last", "depthwise_conv_2d_nhwc_hwc", "1x58x58x64", "3x3x64", "1x56x56x64", 1
    ),
    "convolution 1-D": convolution("conv1d", "conv_1d_nwc_wcf", "1x258x64", "3x64x128", "1x256x128", 1),
    "attention": ops.attention(batch=4, queries=128, keys=128, head=64, element="f32"),
    "softmax": ops.softmax(rows=128, columns=512),
    "layer norm": ops.layer_norm(rows=128, columns=256),
    "transpose": ops.transpose(rows=512, columns=384),
}


class Found(NamedTuple):
    """The configs of one sample that ran with right results."""

    tried: int
    ratios: tuple[float, ...]
    best: dict[str, int]

    @property
    def best_ratio(self) -> float:
        """The best default-to-candidate ratio; 0 if none ran."""
        return max(self.ratios, default=0.0)


def outside(space: SearchSpace, count: int, seed: int) -> list[dict[str, int]]:
    """Draw combinations of knobs that break a constraint of the space."""
    generator = random.Random(seed)
    found: dict[tuple[int, ...], dict[str, int]] = {}
    for _ in range(count * _DRAWS):
        if len(found) == count:
            break
        knobs = {knob.name: generator.choice(knob.domain) for knob in space.knobs}
        if knobs not in space:
            found[tuple(knobs.values())] = knobs
    return list(found.values())


@click.command()
@click.option("--count", default=40, show_default=True, help="Configs drawn from inside and from outside.")
@click.option("--seed", default=0, show_default=True, help="Seed of the samples.")
@click.option("--jobs", default=2, show_default=True, help="Compilations at a time.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--device", default="", help="The device's URI (default: that of the target's driver).")
@click.option("--only", default="", help="Only ops whose name holds this.")
def main(count: int, seed: int, jobs: int, target: str, device: str, only: str) -> None:
    """Compare samples from inside and outside of each space."""
    compiler = Compiler(Target.parse(target), timeout_s=30)
    worse = []
    for name, op in CASES.items():
        if only not in name:
            continue
        for dispatch in extract_dispatches([read_source(op, Path())], compiler, processors=2).dispatches:
            try:
                spaces = search_spaces(dispatch, compiler)
            except NO_SPACE as reason:
                click.echo(f"{name}, {dispatch.name}: {reason}")
                continue
            for space in spaces:
                samples = (list(space.sample(count, seed)), outside(space, count, seed))
                inside, beyond = (
                    _measured(dispatch, space, knobs, compiler, device or compiler.target.driver, jobs)
                    for knobs in samples
                )
                excess = beyond.best_ratio / inside.best_ratio if inside.best_ratio else 0.0
                click.echo(
                    f"{name}, {dispatch.name}, {space.pipeline}: inside {len(inside.ratios)} of {inside.tried} ran, "
                    f"best {inside.best_ratio:.2f}; outside {len(beyond.ratios)} of {beyond.tried} ran, best "
                    f"{beyond.best_ratio:.2f}: {excess:.2f} of the best inside"
                )
                if excess > _FASTER:
                    worse.append(name)
                    click.echo(f"  {beyond.best} breaks {'; '.join(space.violated(beyond.best))}")
    click.echo(f"{len(worse)} spaces exclude a config that is faster than their best by more than 5%")
    sys.exit(bool(worse))


def _measured(
    dispatch: Dispatch, space: SearchSpace, knobs: Sequence[dict[str, int]], compiler: Compiler, uri: str, jobs: int
) -> Found:
    free = msgspec.structs.replace(space, constraints=(), helpers=())
    candidates = make_candidates(dispatch.name, dispatch.root, free, knobs) if knobs else ()
    module = dispatch.members[0].module
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        directory = Path(name)
        default = directory / "default.vmfb"
        compiler.compile_sources(module.text, default)
        built = list(pool.map(lambda candidate: _built(dispatch, candidate, compiler, directory), candidates))
        ratios = dict(_ratios(dispatch, default, [pair for pair in built if pair is not None], uri))
    best = max(ratios, key=lambda candidate: ratios[candidate], default=None)
    by_id = {candidate.id: candidate.knobs for candidate in candidates}
    return Found(len(candidates), tuple(ratios.values()), by_id[best] if best else {})


def _built(dispatch: Dispatch, candidate: Candidate, compiler: Compiler, directory: Path) -> tuple[str, Path] | None:
    out = directory / f"{candidate.id}.vmfb"
    try:
        spec = single_entry_spec(dispatch.root, candidate.compilation_info)
        configured = configure_with(dispatch.members[0].module.text, spec)
        if why_not_applied(configured, candidate.compilation_info):
            return None
        compiler.compile_sources(configured.text, out)
    except (CommandFailed, ConfigureFailed) as error:
        click.echo(
            f"    {candidate.knobs}: {first_error(error) if isinstance(error, CommandFailed) else error}", err=True
        )
        return None
    return candidate.id, out


def _ratios(
    dispatch: Dispatch, default: Path, built: Sequence[tuple[str, Path]], uri: str
) -> Iterator[tuple[str, float]]:
    """Run each config in a child of its own, since one from outside may crash it."""
    member = dispatch.members[0]
    for identifier, path in built:
        try:
            with DeviceChild(uri) as child:
                child.load_benchmark("default", default, member.module)
                child.store_reference("default", "reference", 0)
                child.load_benchmark("it", path, member.module)
                if not child.check("it", "reference", acceptance_of(dispatch, member)).ok:
                    continue
                runs = {"it": partial(child.run, "it")}
                yield identifier, compare_finalists(runs, partial(child.run, "default"), _POLICY, seed=0)["it"].ratio
        except CandidateFailed:
            continue


if __name__ == "__main__":
    main()
