"""The command line ``shark-tune``: what is no test."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
import pytest
from rich.console import Console
from rich.table import Table

from pytest_shark_tune import __version__
from pytest_shark_tune.apply import Application, apply_spec, read_spec_file
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.options import CACHE_SIZE, default_cache, parse_size
from pytest_shark_tune.plan import emitted_constraints, extract, read_source, spaces_from
from pytest_shark_tune.replay import BATCH, Replay, read_landscape, summarised
from pytest_shark_tune.replay import replay as replay_seeds
from pytest_shark_tune.stages.search import STRATEGIES
from pytest_shark_tune.stages.space import NoSpace, SearchSpace, SpaceTooLarge
from pytest_shark_tune.tools.cache import KINDS, Cache, Kind
from pytest_shark_tune.tools.compiler import Compiler, Target, first_error
from pytest_shark_tune.tools.machine import processors

__all__ = ["main"]

_SPEC_FLAG = "--iree-codegen-tuning-spec-path"
_COMPILE_TIMEOUT_S = 1800.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shark-tune")
def main() -> None:
    """Look at what pytest --tune works with."""


@main.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def space(source: Path, tune_target: str, as_json: bool) -> None:
    """Print the search spaces of the dispatches of INPUT, a .mlir, .mlirbc or .onnx file."""
    try:
        compiler = Compiler(Target.parse(tune_target))
        extracted = extract([read_source(source, Path())], compiler, processors())
    except InputError as error:
        raise click.UsageError(str(error)) from error
    rows = []
    reasons = [(each.name, each.reason) for each in extracted.untunable]
    for dispatch in extracted.dispatches:
        compiling = time.perf_counter()
        try:
            constraints = emitted_constraints(dispatch, compiler)
            started = time.perf_counter()
            spaces = spaces_from(dispatch, constraints)
        except (CommandFailed, NoSpace) as reason:
            reasons.append((dispatch.name, str(reason)))
            continue
        shared = (time.perf_counter() - started) / len(spaces)
        for each in spaces:
            started_listing = time.perf_counter()
            size = _size(each)
            seconds = shared + time.perf_counter() - started_listing
            rows.append(
                {
                    "dispatch": dispatch.name,
                    "pipeline": each.pipeline,
                    "configs": size,
                    "seconds": round(seconds, 4),
                    "knobs": {knob.name: list(knob.domain) for knob in each.knobs},
                    "kind": dispatch.root.kind,
                    "loops": list(dispatch.root.loops),
                    "compiler_seconds": round(started - compiling, 4),
                }
            )
    for name, why in reasons:
        click.echo(f"{name}: {why}", err=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    table = Table()
    for heading in ("dispatch", "kind", "pipeline", "configs", "seconds", "knobs"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        knobs = row["knobs"]
        assert isinstance(knobs, dict)
        shown = ", ".join(f"{name} ({len(domain)})" for name, domain in knobs.items())
        table.add_row(*(str(row[name]) for name in ("dispatch", "kind", "pipeline", "configs", "seconds")), shown)
    Console().print(table)


@main.command(name="compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--spec", required=True, type=click.Path(path_type=Path), help="The tuning spec to apply.")
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .vmfb file to write.")
@click.option(
    "--iree-compile-flag", "flags", multiple=True, metavar="FLAG", help="A flag for iree-compile; repeatable."
)
@click.option("--allow-unmatched", is_flag=True, help="Succeed even if an entry of the spec applies nowhere.")
def compile_model(
    model: Path, spec: Path, tune_target: str, output: Path, flags: tuple[str, ...], allow_unmatched: bool
) -> None:
    """Compile MODEL, a .mlir, .mlirbc or .onnx file, with a tuning spec, on any target.

    IREE itself loads specs on llvm-cpu and ROCm only, and misses ops that it rewrites later. What is printed is read
    from the configured module: for each executable the entry in force. The exit status is 1, and OUTPUT is written all
    the same, if an entry is in force nowhere.
    """
    try:
        _check_flags(flags)
        compiler = Compiler(Target.parse(tune_target), flags, timeout_s=_COMPILE_TIMEOUT_S)
        if not output.absolute().parent.is_dir():
            raise InputError(f"-o {output}: there is no folder {output.parent}")
        text = read_spec_file(spec)
        source = read_source(model, Path())
        compiler.check()
        application = apply_spec(source, text, compiler)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    try:
        compiler.compile_sources(application.text, output, source.name)
    except CommandFailed as error:
        raise click.ClickException(f"{model}: a config of {spec} cannot be compiled: {first_error(error)}") from error
    _report(application, flag_works=compiler.target.loads_specs)
    if application.unmatched and not allow_unmatched:
        raise SystemExit(1)


@main.command()
@click.argument("landscape", type=click.Path(path_type=Path))
@click.option(
    "--search",
    "strategy",
    type=click.Choice(STRATEGIES),
    default=STRATEGIES[0],
    show_default=True,
    help="The strategy.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=50, show_default=True, help="Searches, seeded from 0 on.")
@click.option("--budget", type=click.IntRange(min=1), help="Most evaluations of a search (default: until it succeeds).")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=BATCH,
    show_default=True,
    help="Configs asked for at a time; 2 is what one worker has in hand.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(landscape: Path, strategy: str, seeds: int, budget: int | None, batch: int, as_json: bool) -> None:
    """Run a search against the recorded measurements of LANDSCAPE, a .json file, without a device.

    An evaluation is a config that the search proposes, whether or not it could be measured. Printed are the
    evaluations until the best so far is within 5% and 1% of the best recorded, as median and 90th percentile over
    the seeds, and the median over them of the best recorded time by the best so far.
    """
    try:
        recorded = read_landscape(landscape)
        found = summarised(replay_seeds(recorded, strategy, seeds, budget=budget, batch=batch, jobs=processors()))
    except InputError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _print_replay(found, f"{recorded.dispatch}: {strategy}, {seeds} seeds")


@main.command()
@click.argument("kinds", metavar="[KIND]...", nargs=-1, type=click.Choice(KINDS))
@click.option("--clear", is_flag=True, help="Remove what is kept, of these kinds or of all.")
@click.option(
    "--tune-cache",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="As pytest's option of that name (default: your cache folder).",
)
@click.option(
    "--tune-cache-size", default=CACHE_SIZE, metavar="SIZE", show_default=True, help="As pytest's option of that name."
)
def cache(kinds: tuple[Kind, ...], clear: bool, folder: Path | None, tune_cache_size: str) -> None:
    """Show what is kept between runs, or remove it.

    A KIND is plans, artifacts (compiled candidates), models (whole ones, compiled), records, finals, checks (of specs),
    limits (of devices) or yardsticks. The limit holds after each run: what was not used for longest is removed, but
    nothing that was used within an hour.
    """
    try:
        limit = parse_size("--tune-cache-size", tune_cache_size)
    except pytest.UsageError as error:
        raise click.UsageError(str(error)) from error
    kept = Cache(folder or default_cache())
    if clear:
        removed = kept.clear(kinds or KINDS)
        click.echo(f"{kept.folder}: {removed.number} removed, {_bytes_text(removed.bytes)}")
        if removed.busy:
            click.echo(f"{removed.busy} stay: they are being made, or are another user's", err=True)
            raise SystemExit(1)
        return
    usage = kept.usage()
    click.echo(kept.folder)
    click.echo(f"{'kind':<12}{'number':>9}{'size':>9}  {'oldest use':<18}newest use")
    for each in usage:
        if not kinds or each.kind in kinds:
            oldest, newest = _time_text(each.oldest_s), _time_text(each.newest_s)
            click.echo(f"{each.kind:<12}{each.number:>9}{_bytes_text(each.bytes):>9}  {oldest:<18}{newest}")
    number, size = sum(each.number for each in usage), sum(each.bytes for each in usage)
    click.echo(f"{'all kinds':<12}{number:>9}{_bytes_text(size):>9}  of {_bytes_text(limit)} at most after a run")


def _bytes_text(size: int) -> str:
    """A size in powers of 1024, as ``--tune-cache-size`` takes them."""
    exponent = min(max(size.bit_length() - 1, 0) // 10, 3)
    shown = size / (1 << 10 * exponent)
    return f"{shown:.{1 if exponent and shown < 10 else 0}f}{'BKMG'[exponent]}"


def _time_text(time_s: float | None) -> str:
    return "-" if time_s is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))


def _print_replay(found: Replay, title: str) -> None:
    def told(count: float | None) -> str:
        return "not reached" if count is None else f"{count:g}"

    click.echo(title)
    click.echo(
        f"evaluations to within 5% of the best: {told(found.evals_to_5pct_median)} (median), "
        f"{told(found.evals_to_5pct_p90)} (90th percentile); to within 1%: {told(found.evals_to_1pct_median)} (median)"
    )
    shares = ", ".join(f"{ratio:.3f} after {count}" for count, ratio in found.best_ratio_at.items())
    click.echo(f"best recorded time by the best so far (median): {shares}")


def _check_flags(flags: tuple[str, ...]) -> None:
    for flag in flags:
        if flag.partition("=")[0] == _SPEC_FLAG:
            raise InputError(f"--iree-compile-flag={flag}: the spec is given with --spec")
        if flag.startswith(("--compile-to", "--compile-from", "-o")):
            raise InputError(f"--iree-compile-flag={flag}: shark-tune compile sets this one itself")


def _report(application: Application, *, flag_works: bool) -> None:
    """Print a line for each executable that a spec touched; what needs attention goes to stderr."""
    for each in application.placed:
        notes = [each.op] + ["late"] * each.late
        if flag_works and not each.by_flag:
            notes.append(f"{_SPEC_FLAG} does not apply it")
        click.echo(f"{each.symbol}: {each.entry} ({', '.join(notes)})")
    for each in application.lost:
        click.echo(f"{each.symbol}: {each.entry} matches, but the compiler drops its config: default config", err=True)
    for entry in application.unmatched:
        click.echo(f"{entry} is in force nowhere", err=True)


def _size(space: SearchSpace) -> int | None:
    """The number of a space's configs, or None where there are too many to list."""
    try:
        return len(space)
    except SpaceTooLarge:
        return None
