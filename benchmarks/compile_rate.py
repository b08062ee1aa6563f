"""Print how many configs sampled from each search space compile: ``python benchmarks/compile_rate.py --count 40``."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from pytest_shark_tune import ops
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.plan import Source, extract, read_source
from pytest_shark_tune.stages.artifact import configure_with
from pytest_shark_tune.stages.candidate import make_candidates
from pytest_shark_tune.stages.dispatch import Dispatch
from pytest_shark_tune.stages.space import SearchSpace, spaces_for
from pytest_shark_tune.stages.spec import single_entry_spec
from pytest_shark_tune.tools.compiler import Compiler, Target, first_error

OPS = (
    ops.matmul(m=512, n=512, k=512, lhs="f32"),
    ops.matmul(m=512, n=512, k=512, lhs="f32", transpose_b=True),
    ops.matmul(m=512, n=512, k=512, lhs="f32", transpose_a=True),
    ops.matmul(m=512, n=512, k=512, lhs="f16"),
    ops.matmul(m=512, n=512, k=512, lhs="bf16"),
    ops.matmul(m=512, n=512, k=512, lhs="i8"),
    ops.matmul(m=127, n=131, k=61, lhs="f32"),
    ops.batch_matmul(batch=12, m=128, n=128, k=64, lhs="f32"),
)


@click.command()
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=20, show_default=True, help="Configs sampled from each space.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--jobs", default=2, show_default=True, help="Compilations at a time.")
@click.option("--target", default="llvm-cpu", show_default=True, help="As pytest's --tune-target.")
@click.option("--at-least", default=0.0, help="Exit with 1 where a space's share is below this (0 to 1).")
def main(models: tuple[Path, ...], count: int, seed: int, jobs: int, target: str, at_least: float) -> None:
    """Print the share of sampled configs that compile, for MODELS or else for a list of single ops."""
    compiler = Compiler(Target.parse(target))
    sources: list[Source] = [read_source(each, Path()) for each in models or OPS]
    shares = [
        _share(dispatch, space, compiler, count, seed, jobs)
        for dispatch in extract(sources, compiler, processors=2).dispatches
        for space in spaces_for(dispatch.root, dispatch.target)
    ]
    if min(shares, default=1.0) < at_least:
        sys.exit(1)


def _share(dispatch: Dispatch, space: SearchSpace, compiler: Compiler, count: int, seed: int, jobs: int) -> float:
    started = time.perf_counter()
    candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(count, seed))
    specs = [single_entry_spec(dispatch.root, each.compilation_info) for each in candidates]
    texts = [configure_with(dispatch.members[0].module.text, spec).text for spec in specs]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        outs = [Path(folder) / f"{each.id}.vmfb" for each in candidates]
        reasons = list(pool.map(lambda pair: _reason(compiler, *pair), zip(texts, outs, strict=True)))
    failed = [(each, reason) for each, reason in zip(candidates, reasons, strict=True) if reason]
    compiled = len(candidates) - len(failed)
    seconds = time.perf_counter() - started
    click.echo(
        f"{dispatch.name} {space.pipeline}: {compiled} of {len(candidates)} compile "
        f"({compiled / len(candidates):.0%}), {len(space)} configs in the space, {seconds:.0f} s"
    )
    for each, reason in failed:
        click.echo(f"  {each.id} {each.config}: {reason}")
    return compiled / len(candidates)


def _reason(compiler: Compiler, text: str, out: Path) -> str:
    try:
        compiler.compile_sources(text, out)
    except CommandFailed as error:
        return first_error(error)
    return ""


if __name__ == "__main__":
    main()
