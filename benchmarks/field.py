"""Print how a directory of inputs fares: ``python benchmarks/field.py DIRECTORY --target hip:gfx942``.

Inputs are models (.mlir, .mlirbc, .onnx) and lists of driver commands (.txt). A dispatch is tuned if candidates of it
compile, left out if there is a reason to, and failed otherwise. No device is needed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import msgspec
from compile_rate import why_not_compiled

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.refusals import InputRefused
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.ops.driver_commands import read_commands
from pytest_shark_tune.plan.benchmark_file import IsSpec
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import MODEL_SUFFIXES, Source, read_sources
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.machine import processors

_TARGETS = ("llvm-cpu", "cuda:sm_89", "hip:gfx942")
_LISTS = ".txt"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one input fares on one target."""

    input: str
    target: str
    tuned: dict[str, str] = {}
    """The dispatches with candidates, each with the share of the sampled ones that compiled."""
    left_out: dict[str, str] = {}
    """The other dispatches, and the lines of a list that are not read, with the class of the reason and the reason."""
    failed: dict[str, str] = {}
    """The dispatches of which no candidate compiles, or the whole input, with the reason (and its class)."""


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--target", "targets", multiple=True, default=_TARGETS, help="As pytest's --tune-target; repeatable.")
@click.option("--iree-compile-flag", "flags", multiple=True, help="A flag for iree-compile; repeatable.")
@click.option("--count", default=4, show_default=True, help="Candidates of each dispatch that are compiled.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Print the dispatches, too.")
def main(
    directory: Path, targets: Sequence[str], flags: Sequence[str], count: int, seed: int, as_json: bool, verbose: bool
) -> None:
    """Print what is tuned, left out (with the reason) and failed of each input in DIRECTORY, by target.

    The exit status is 1 if something failed.
    """
    outcomes = []
    for path in sorted(path for path in directory.iterdir() if path.suffix in (*MODEL_SUFFIXES, _LISTS)):
        for target in targets:
            outcome = _try(path, target, flags, count, seed)
            outcomes.append(outcome)
            if not as_json:
                _show(outcome, verbose=verbose)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(outcomes), indent=1))
    else:
        _show_total(outcomes)
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def _try(path: Path, target: str, flags: Sequence[str], count: int, seed: int) -> Outcome:
    """Plan an input for a target, and compile a sample of each dispatch's candidates."""
    compiler = Compiler(Target.parse(target), flags)
    found = Outcome(input=path.name, target=target)
    try:
        sources, unread = _read(path)
        plan = make_plan(sources, compiler, processors=processors(), count=count, seed=seed)
    except IsSpec as error:
        return msgspec.structs.replace(found, left_out={path.name: f"spec: {error}"})
    except InputRefused as error:
        return msgspec.structs.replace(found, failed={path.name: f"{error.kind}: {error}"})
    except (SharkTuneError, UnicodeDecodeError) as error:
        return msgspec.structs.replace(found, failed={path.name: str(error)})
    left_out = {each.name: f"{each.kind}: {each.reason}" for each in plan.untunable}
    tuned: dict[str, str] = {}
    failed: dict[str, str] = {}
    for task in plan.tasks:
        reasons = _compile(task, compiler)
        compiled = reasons.count("")
        if compiled:
            tuned[task.name] = f"{compiled} of {len(reasons)}"
        else:
            failed[task.name] = Counter(reasons).most_common(1)[0][0]
    return msgspec.structs.replace(found, tuned=tuned, left_out=unread | left_out, failed=failed)


def _read(path: Path) -> tuple[tuple[Source, ...], dict[str, str]]:
    """Return the sources in a file, and the lines of a list that are not read."""
    if path.suffix != _LISTS:
        return read_sources([path.absolute()], path.parent), {}
    commands = read_commands(path.read_text(encoding="utf-8"), path.name)
    unread = dict(problem.split(": ", 1) for problem in commands.problems)
    return read_sources(commands.sources, path.parent), {line: f"command: {why}" for line, why in unread.items()}


def _compile(task: Task, compiler: Compiler) -> list[str]:
    """Return why each candidate does not compile; empty where it does."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(processors()) as pool:
        return list(
            pool.map(lambda each: why_not_compiled(task.dispatch, each, compiler, Path(directory)), task.candidates)
        )


def _show(outcome: Outcome, *, verbose: bool) -> None:
    click.echo("  ".join(_row(outcome)))
    for word, dispatches in (("tuned", outcome.tuned), ("left out", outcome.left_out), ("failed", outcome.failed)):
        if verbose or word != "tuned":
            for name, why in dispatches.items():
                click.echo(f"    {word}: {name}: {why}")


def _row(outcome: Outcome) -> Iterator[str]:
    yield f"{outcome.input:40}"
    yield f"{outcome.target:12}"
    for name, dispatches in (("tuned", outcome.tuned), ("left out", outcome.left_out), ("failed", outcome.failed)):
        yield f"{len(dispatches):3} {name}"


def _show_total(outcomes: Sequence[Outcome]) -> None:
    tuned, left_out, failed = (
        sum(len(getattr(outcome, name)) for outcome in outcomes) for name in ("tuned", "left_out", "failed")
    )
    kinds = Counter(why.partition(":")[0] for outcome in outcomes for why in outcome.left_out.values())
    reasons = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    click.echo(f"in all: {tuned} tuned, {left_out} left out{f' ({reasons})' if reasons else ''}, {failed} failed")


if __name__ == "__main__":
    main()
