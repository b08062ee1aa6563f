"""The result of a bisection in the terminal, or as JSON: the releases, and the dispatches that explain the slowdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from pytest_shark_tune.commands.output import print_json, print_table, terminal_width
from pytest_shark_tune.guard.bisect import Bisection
from pytest_shark_tune.guard.explain import Explanation
from pytest_shark_tune.report.against_text import parts_table

__all__ = ["print_bisection"]


def print_bisection(
    found: Bisection, explanation: Explanation | None, files: Sequence[Path], out: Path, *, as_json: bool
) -> None:
    """Print a bisection.

    Args:
        found: the bisection.
        explanation: the dispatches that explain the slowdown, if they were found.
        files: their files.
        out: the directory of the files.
        as_json: whether to print JSON.
    """
    if as_json:
        print_json(
            {
                **msgspec.to_builtins(found),
                "explanation": msgspec.to_builtins(explanation),
                "files": [str(path) for path in files],
            }
        )
        return
    rows = [
        (step.version, step.judgement, f"{step.ratio:.3f}" if step.ratio else "", str(step.rounds))
        for step in found.steps
    ]
    print_table(("version", "judgement", "ratio", "rounds"), rows, numbers=("ratio", "rounds"))
    if not found.first_bad:
        click.echo(found.reason)
        return
    click.echo(f"first bad: {found.first_bad}, last good: {found.last_good}; all executables of both: {out}")
    if explanation is not None:
        _print_explanation(explanation, found)
    if files:
        click.echo("files of these dispatches, and of those that only one release has:")
    for path in files:
        click.echo(f"  {path}")


def _print_explanation(explanation: Explanation, found: Bisection) -> None:
    good, bad = found.last_good, found.first_bad
    parts = ([explanation.model] if explanation.model else []) + list(explanation.dispatches)
    for line in parts_table(parts, good, bad, terminal_width()):
        click.echo(line)
    if explanation.unexplained is not None:
        click.echo(f"part of the change that no dispatch explains: {explanation.unexplained:.0%}")
    for version, names in ((good, explanation.unmatched_good), (bad, explanation.unmatched_bad)):
        if names:
            click.echo(f"only with {version}, so not compared alone: {', '.join(names)}")
    for name, reason in explanation.skipped.items():
        click.echo(f"{name} is not timed: {reason}")
    if explanation.slower:
        click.echo(f"slower with {bad}: {', '.join(explanation.slower)}")
    else:
        click.echo(f"no dispatch is slower with {bad} for sure")
