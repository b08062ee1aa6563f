"""Porting: a spec that another release of IREE wrote, made anew for this one.

Configs are carried over as knobs. They are read from the entry's attribute, or from its record if this release does not
parse the attribute. The constraints that this release states for the same op tell whether those knobs are still a
config, and which config is nearest if they are not.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.port.check import check_ported
from pytest_shark_tune.port.find import find_in_models, recorded_op
from pytest_shark_tune.port.fit import PortedEntry, PortStatus, keep_unplaced, port_entry
from pytest_shark_tune.port.read_old import OldEntry, OldSpec
from pytest_shark_tune.records.snapshot import read_records, write_spec, write_text
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import with_configs
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cleanup import scratch_directory

__all__ = ["port", "tune_lost"]

_TUNE_TIMEOUT_S = 24 * 3600.0


def port(
    old: OldSpec,
    new: Path,
    models: Sequence[object],
    session: GuardSession,
    *,
    processors: int,
    report: Callable[[str], None] = lambda message: None,
) -> tuple[PortedEntry, ...]:
    """Write the port of ``old`` to ``new``, with records beside it.

    The new spec is checked like a guarded one. An entry that fails a check is lost.

    Args:
        old: the old spec.
        new: the path of the new one.
        models: the models to find the entries' dispatches in, each as `plan.source.read_source` takes it. Without any,
            the op of a recorded entry is compiled by itself, and an entry without a record is kept if it parses.
        session: compiles, and measures if it has a device and there are models.
        processors: the number of processors to compile for.
        report: gets messages about long steps.

    Raises:
        InputError: a model cannot be read or compiled, or an option names no model.
    """
    sources = [read_source(model, Path(), session.settings.models) for model in models]
    extracted = extract_dispatches(sources, session.compiler, processors, report)
    if problem := session.settings.models.stray(extracted.sources):
        raise InputError(problem)
    dispatches = extracted.dispatches
    ops: list[object] = []

    def ported(entry: OldEntry) -> PortedEntry:
        report(f"porting {entry.name}")
        try:
            if models:
                dispatch = find_in_models(entry, old, dispatches)
            elif (found := recorded_op(entry, session.compiler, processors)) is not None:
                ops.append(found[0])
                dispatch = found[1]
            else:
                return keep_unplaced(entry, session.compiler.target)
        except InputError as reason:
            return PortedEntry.not_ported(entry, str(reason))
        if dispatch is None:
            return PortedEntry.not_ported(entry, "it matches no dispatch of the models")
        return port_entry(entry, dispatch, session)

    drafts = tuple(map(ported, old.entries))
    with scratch_directory() as directory:
        draft = directory / new.name
        _write_port(draft, drafts, old)
        if drafts and draft.exists():
            drafts = tuple(check_ported(drafts, draft, models or ops, session, report, has_models=bool(models)))
    _write_port(new, drafts, old)
    return drafts


def _write_port(path: Path, ported: Iterable[PortedEntry], old: OldSpec) -> None:
    """Write the spec of the entries that are not lost, recorded ones first.

    An empty spec stays empty. If no entry is left there is no file, unless it is the old spec itself, which then stays.
    """
    if not old.entries:
        write_text(path, link_spec(old.text), ())
        return
    kept = [entry for entry in ported if entry.status is not PortStatus.NOT_PORTED]
    if not kept and path.exists() and path.samefile(old.path):
        return
    winners = [entry.record for entry in kept if entry.record]
    others = {entry.matcher: entry.compilation_info for entry in kept if not entry.record}
    starter = with_configs(old.text, others) if others else None
    if starter and not winners:
        write_text(path, link_spec(starter), ())
    else:
        write_spec(path, winners, starter)


def tune_lost(
    ported: Sequence[PortedEntry],
    new: Path,
    old: OldSpec,
    models: Sequence[Path],
    target: str,
    options: Sequence[str],
    report: Callable[[str], None],
) -> tuple[PortedEntry, ...]:
    """Tune the dispatches of lost entries with ``pytest --tune``, and write the winners into ``new`` too.

    Args:
        ported: the entries after porting.
        new: the path of the new spec.
        old: the old spec.
        models: the models that have the dispatches.
        target: the target to tune for.
        options: further options of pytest.
        report: gets a message before tuning.

    Raises:
        InputError: pytest failed or ran out of time.
    """
    not_ported = sorted(
        {entry.dispatch for entry in ported if entry.status is PortStatus.NOT_PORTED and entry.dispatch}
    )
    if not not_ported:
        return tuple(ported)
    with scratch_directory() as directory:
        out = directory / "tuned"
        command = [sys.executable, "-m", "pytest", *map(str, models), "--tune", "--tune-target", target]
        chosen = [*(f"[{name}-" for name in not_ported), "[spec]"]  # With the bracket: names may end others.
        command += ["--tune-out", str(out), "-k", " or ".join(chosen)]
        command += options
        report(f"tuning {', '.join(not_ported)} anew; this takes a while")
        try:
            process.run(command, timeout_s=_TUNE_TIMEOUT_S)
        except CommandFailed as error:
            raise InputError(f"--retune: {error}; to see why: {shlex.join(command)}") from error
        winners = {record.dispatch: record for record in read_records(out / "spec.mlir")}

    def retuned(entry: PortedEntry) -> PortedEntry:
        if entry.status is not PortStatus.NOT_PORTED or not entry.dispatch:
            return entry
        return _with_winner(entry, winners.get(entry.dispatch))

    result = tuple(map(retuned, ported))
    _write_port(new, result, old)
    return result


def _with_winner(entry: PortedEntry, winner: WinnerRecord | None) -> PortedEntry:
    if winner is None:
        return entry.as_not_ported(f"{entry.reason}; tuned anew, nothing was faster than the default")
    return msgspec.structs.replace(
        entry, status=PortStatus.RETUNED, record=winner, changes=(), reason="", compilation_info=winner.compilation_info
    )
