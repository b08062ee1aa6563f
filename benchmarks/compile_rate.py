"""Print how many configs sampled from each search space compile: ``python benchmarks/compile_rate.py --count 40``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.configure import ConfigureFailed, configure_with, why_not_applied
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source, read_source
from pytest_shark_tune.plan.spaces import NO_SPACE, search_spaces
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import Candidate, make_candidates
from pytest_shark_tune.spec.build import single_entry_spec


def _conv(size: int, channels: int, filters: int, lhs: str, **given: Any) -> OpSource:
    window = {"kernel_height": 3, "kernel_width": 3} | given
    return ops.conv_2d(batch=1, height=size, width=size, channels=channels, filters=filters, lhs=lhs, **window)


_CPU = (
    ops.matmul(m=512, n=512, k=512, lhs="f32"),
    ops.matmul(m=512, n=512, k=512, lhs="f32", transpose_b=True),
    ops.matmul(m=512, n=512, k=512, lhs="f32", transpose_a=True),
    ops.matmul(m=512, n=512, k=512, lhs="f16"),
    ops.matmul(m=512, n=512, k=512, lhs="bf16"),
    ops.matmul(m=512, n=512, k=512, lhs="i8"),
    ops.matmul(m=127, n=131, k=61, lhs="f32"),
    ops.batch_matmul(batch=12, m=128, n=128, k=64, lhs="f32"),
    _conv(28, 64, 128, "f32"),
    _conv(28, 64, 128, "f16"),
    _conv(29, 15, 33, "f32", layout="nchw"),
    ops.attention(batch=8, queries=256, keys=256, head=64, element="f32"),
    ops.attention(batch=3, queries=100, keys=77, head=40, element="f16"),
)
_HALF = (
    ops.matmul(m=2048, n=10240, k=1280, lhs="f16"),
    ops.matmul(m=127, n=131, k=61, lhs="f16"),
    ops.conv_2d(batch=2, height=32, width=32, channels=1280, filters=1280, kernel_height=3, kernel_width=3, lhs="f16"),
    ops.attention(batch=20, queries=1024, keys=1024, head=64),
)
_SINGLE = (
    ops.matmul(m=512, n=512, k=512, lhs="f32"),
    ops.matmul(m=512, n=512, k=512, lhs="f32", transpose_b=True),
    ops.matmul(m=127, n=131, k=61, lhs="f32"),
    ops.batch_matmul(batch=12, m=128, n=128, k=64, lhs="f32"),
    _conv(32, 64, 96, "f32"),
    _conv(32, 64, 96, "f32", layout="nchw"),
    _conv(11, 7, 13, "f32", stride=2),
)
_ATTENTION = (
    ops.attention(batch=3, queries=77, keys=77, head=40),
    ops.attention(batch=4, queries=128, keys=256, head=64, element="f32"),
)
CASES: Mapping[str, Sequence[OpSource]] = {
    "llvm-cpu": _CPU,
    **dict.fromkeys(("hip:gfx942", "hip:gfx950", "hip:gfx90a", "hip:gfx1201"), _HALF),
    "hip:gfx1100": (*_HALF, *_SINGLE),
    **dict.fromkeys(("cuda:sm_80", "cuda:sm_86"), _HALF),
    "cuda:sm_89": (*_HALF, *_SINGLE, *_ATTENTION),
    "cuda:sm_60": (*_SINGLE, *_ATTENTION, _HALF[-1]),
    "vulkan:rdna3": (*_SINGLE, ops.matmul(m=512, n=1024, k=256, lhs="f16")),
    "vulkan:vp_android_baseline_2022": _SINGLE,
}
"""Single ops by target: every space that there is, on sizes that divide well and on odd ones."""


@click.command()
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=20, show_default=True, help="Configs sampled from each space.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--jobs", default=2, show_default=True, help="Compilations at a time.")
@click.option("--target", "targets", multiple=True, help="As pytest's --tune-target; repeatable (default: all).")
@click.option("--at-least", default=0.0, help="Exit with 1 where a space's share is below this (0 to 1).")
def main(models: tuple[Path, ...], count: int, seed: int, jobs: int, targets: tuple[str, ...], at_least: float) -> None:
    """Print the share of sampled configs that compile, for MODELS or else for a list of single ops."""
    shares = []
    for target in targets or tuple(CASES):
        compiler = Compiler(Target.parse(target))
        sources: list[Source] = [read_source(each, Path()) for each in models or CASES.get(target, _SINGLE)]
        click.echo(target)
        for dispatch in extract_dispatches(sources, compiler, processors=2).dispatches:
            try:
                spaces = search_spaces(dispatch, compiler)
            except NO_SPACE as reason:
                click.echo(f"  {dispatch.name}: {reason}")
                continue
            shares += [_share(dispatch, space, compiler, count, seed, jobs) for space in spaces]
    click.echo(f"lowest share of {len(shares)} spaces: {min(shares, default=1.0):.1%}")
    if min(shares, default=1.0) < at_least:
        sys.exit(1)


def _share(dispatch: Dispatch, space: SearchSpace, compiler: Compiler, count: int, seed: int, jobs: int) -> float:
    started = time.perf_counter()
    candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(count, seed))
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(jobs) as pool:
        reasons = list(pool.map(lambda each: why_not_compiled(dispatch, each, compiler, Path(directory)), candidates))
    failed = [(each, reason) for each, reason in zip(candidates, reasons, strict=True) if reason]
    compiled = len(candidates) - len(failed)
    seconds = time.perf_counter() - started
    click.echo(
        f"  {dispatch.name} {space.pipeline}: {compiled} of {len(candidates)} compile "
        f"({compiled / len(candidates):.1%}), {len(space)} configs in the space, {seconds:.0f} s"
    )
    for each, reason in failed:
        click.echo(f"    {each.id} {each.knobs}: {reason}")
    return compiled / len(candidates)


def why_not_compiled(dispatch: Dispatch, candidate: Candidate, compiler: Compiler, directory: Path) -> str:
    """Why a candidate does not compile; empty where it does."""
    try:
        spec = single_entry_spec(dispatch.root, candidate.compilation_info)
        configured = configure_with(dispatch.members[0].module.text, spec)
        if missing := why_not_applied(configured, candidate.compilation_info):
            return missing
        compiler.compile_sources(configured.text, directory / f"{candidate.id}.vmfb")
    except CommandFailed as error:
        return first_error(error)
    except ConfigureFailed as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
