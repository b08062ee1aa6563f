"""``shark-tune merge-records``: what several machines measured, made into one result with a spec."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.flags import check_flags
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.passes import why_not_plain
from pytest_shark_tune.dispatch.trust import check_source, trusts_specs
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.draft import Draft, spec_of
from pytest_shark_tune.records.snapshot import read_spec_file
from pytest_shark_tune.records.types import SpecRecord
from pytest_shark_tune.report.summary_text import render
from pytest_shark_tune.results.merge_runs import Merged, merge_runs, read_run, write_merged
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.bundle import Bundle, read_bundle
from pytest_shark_tune.tuning.verifier import Verifier

__all__ = ["merge_records"]


@click.command(name="merge-records")
@click.argument("outs", metavar="OUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write to.")
@click.option("--bundle", type=click.Path(path_type=Path), help="What the runs measured: its sources try the spec.")
@trust_option
@click.option("--starter", type=click.Path(path_type=Path), help="A spec whose entries stand behind all others.")
@click.option(
    "--iree-compile-flag", "flags", multiple=True, metavar="FLAG", help="One that the bundle was made with; repeatable."
)
def merge_records(
    outs: tuple[Path, ...], output: Path, bundle: Path | None, starter: Path | None, flags: tuple[str, ...]
) -> None:
    """Join what runs of pytest --tune left in their output folders, declare the winners and write the spec.

    The runs are of one target and of devices of one model. Where a candidate was tried twice the record with more
    samples stays. What a run left out of its own spec is left out here, too. With --bundle the spec must apply to just
    the dispatches that it was made for, else an entry is left out.

    The exit status is 1 where an entry is left out, or the default of a dispatch could not be measured.
    """
    try:
        merged = merge_runs([read_run(folder) for folder in outs])
        text = read_spec_file(starter) if starter is not None else None
        if starter is not None and text is not None:
            tell_dropped(starter, text)
        packed = read_bundle(bundle) if bundle is not None else None
        draft, checks = spec_of(merged.recorded, text or ""), list[SpecRecord]()
        if packed is not None:
            draft, checks = _verified(packed, merged, draft, flags)
        try:
            output.mkdir(parents=True, exist_ok=True)
            tasks = _tasks(packed) if packed is not None else {}
            summary = write_merged(output, merged, draft, tasks=tasks, checks=checks)
        except OSError as error:
            raise InputError(f"-o {output}: cannot be written: {error.strerror}") from error
    except InputError as error:
        raise click.UsageError(str(error)) from error
    for note in merged.notes:
        click.echo(note)
    click.echo(render(summary, width=100, spec=output / "spec.mlir", snapshots=()), nl=False)
    if packed is None:
        click.echo("the spec was not tried on what it was made from: give the --bundle for that")
    if merged.failed_defaults or summary.dropped:
        sys.exit(1)


def _tasks(bundle: Bundle) -> dict[str, Task]:
    return {task.name: task for plan in bundle.plans.values() for task in plan.tasks}


def _verified(bundle: Bundle, merged: Merged, draft: Draft, flags: tuple[str, ...]) -> tuple[Draft, list[SpecRecord]]:
    """What holds of a draft in the sources of a bundle, as far as no device is needed, with the checks of it.

    Raises:
        InputError: the runs did not measure this bundle, this is not the compiler that it was made with, or the user
            has not given the same ``flags``: one of a stranger's could have the compiler run a command, and so could a
            source.
    """
    if not trusts_specs():
        check_flags(bundle.flags, "--bundle", why_not_plain)
    for plan in bundle.plans.values():
        for source in plan.sources:
            check_source(source.text, f"--bundle: {source.name}")
    if bundle.flags != flags:
        told = shlex.join(f"--iree-compile-flag={flag}" for flag in bundle.flags) or "no --iree-compile-flag"
        raise InputError(f"--bundle: it was made with {told}: give just that, if you trust whoever made it")
    compiler = Compiler(bundle.target, flags)
    made_by = bundle.versions["iree-base-compiler"]
    if made_by != compiler.version:
        raise InputError(f"--bundle: it was made with IREE {made_by}, this is {compiler.version}")
    if unknown := sorted(set(merged.finals) - _tasks(bundle).keys()):
        raise InputError(f"--bundle: it has no dispatch {unknown[0]}: the runs measured something else")
    dropped: dict[str, str] = {}
    with scratch_folder() as folder:
        builds = Builds(compiler, Cache(folder, click.echo), DeviceLeases(()), jobs=1, tell=click.echo)
        verifier = Verifier(builds, None, tell=click.echo)
        try:
            # The draft that is written is one that holds in all plans, so after a change all are asked again.
            while True:
                checks = [verifier.check(plan, draft) for plan in bundle.plans.values()]
                bad = {name: reason for check in checks for name, reason in check.dropped.items()}
                if not bad:
                    return draft, [*checks, SpecRecord(sources=(), dropped=dropped)]
                dropped |= bad
                draft = draft.without(bad)
        finally:
            builds.close()
