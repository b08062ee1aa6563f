"""Verifying: the merged spec on the sources that it was made from, before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from pytest_shark_tune.apply import Application, apply_spec
from pytest_shark_tune.bench import Bench
from pytest_shark_tune.builds import Builds
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan import Plan, Source
from pytest_shark_tune.stages.artifact import strip
from pytest_shark_tune.stages.record import FinalRecord, SourceCheck, SpecRecord
from pytest_shark_tune.stages.spec import SpecEntry, build_spec, link_spec

__all__ = ["verify_spec"]


def verify_spec(plan: Plan, finals: Iterable[FinalRecord], builds: Builds, bench: Bench) -> SpecRecord:
    """Try the merged spec on the sources of ``plan``: applied where it should be, same results, no slower.

    Entries that fail are dropped, with the reason, until what is left holds.
    """
    # Two suites may tune equal dispatches: the later final stands, here as in the ledger.
    by_dispatch = {each.dispatch: each for each in finals}
    winners = [each for each in by_dispatch.values() if each.winner and each.root is not None]
    dropped: dict[str, str] = {}
    while True:
        kept = [each for each in winners if each.dispatch not in dropped]
        if not kept:
            return SpecRecord(sources=(), dropped=dropped)
        spec = link_spec(build_spec([_entry(each) for each in kept]))
        checks: list[SourceCheck] = []
        for source in plan.sources:
            check, bad = _verify_source(plan, source, spec, kept, builds, bench)
            if bad:
                dropped |= bad
                break
            checks.append(check)
        else:
            return SpecRecord(sources=tuple(checks), dropped=dropped)


def _verify_source(
    plan: Plan, source: Source, spec: str, finals: Sequence[FinalRecord], builds: Builds, bench: Bench
) -> tuple[SourceCheck, dict[str, str]]:
    """The check of one source, and the entries that it speaks against, by name with the reason."""
    infos = {each.dispatch: each.compilation_info for each in finals}
    names = [
        task.dispatch.name
        for task in plan.tasks
        if task.dispatch.name in infos and any(each.source == source.name for each in task.dispatch.members)
    ]
    if not names:
        return SourceCheck(source=source.name, applied=0, note="nothing in it was tuned"), {}
    application = apply_spec(source, spec, builds.compiler)
    check = SourceCheck(source=source.name, applied=len(application.placed), note=_flag_note(application))
    if bad := _misapplied(plan, source, infos, {(each.symbol, each.compilation_info) for each in application.placed}):
        return check, bad
    if application.flag_error:
        return check, dict.fromkeys(names, f"iree-compile fails on {source.name} with it: {application.flag_error}")
    if not source.functions:
        if not source.is_benchmark:
            note = "no function in it whose inputs can be made up, so it was not run"
            check = msgspec.structs.replace(check, note="; ".join(filter(None, [note, check.note])))
        return check, {}
    paths = [builds.model(strip(application.sources)), builds.model(application.text)]
    reduction = sum(task.dispatch.root.reduction_length for task in plan.tasks)
    for function, inputs in source.functions.items():
        try:
            measured = bench.compare_models(paths, function, inputs, max(reduction, 1))
        except CandidateFailed as error:
            return check, dict.fromkeys(names, f"in the whole of {source.name}: {error}")
        check = msgspec.structs.replace(
            check, ratio=measured.ratio, ratio_low=measured.ratio_low, ratio_high=measured.ratio_high
        )
        if measured.ratio_high < 1:
            reason = (
                f"the whole of {source.name} is slower with it: {measured.ratio:.3f} times the default's speed "
                f"({measured.ratio_low:.3f} to {measured.ratio_high:.3f})"
            )
            return check, dict.fromkeys(names, reason)
    return check, {}


def _entry(final: FinalRecord) -> SpecEntry:
    assert final.root is not None
    return SpecEntry(name=final.dispatch, root=final.root, compilation_info=final.compilation_info)


def _flag_note(application: Application) -> str:
    """Which entries iree-compile's own flag does not apply."""
    missed = sorted({each.entry for each in application.placed if not each.by_flag})
    return f"only shark-tune compile applies {', '.join(missed)}" if missed else ""


def _misapplied(plan: Plan, source: Source, infos: Mapping[str, str], applied: Set[tuple[str, str]]) -> dict[str, str]:
    """The entries that were not applied to exactly their ops in a source, with the reason."""
    bad = {}
    for task in plan.tasks:
        name = task.dispatch.name
        if name not in infos:
            continue
        wanted = {member.symbol for member in task.dispatch.members if member.source == source.name}
        got = {symbol for symbol, info in applied if info == infos[name]}
        if missed := wanted - got:
            bad[name] = f"in the whole of {source.name} it does not apply to {', '.join(sorted(missed))}"
        elif extra := got - wanted - _owners(plan, infos, name):
            bad[name] = f"in the whole of {source.name} it applies to {', '.join(sorted(extra))} as well"
    return bad


def _owners(plan: Plan, infos: Mapping[str, str], name: str) -> set[str]:
    """The executables that take the same config by right: those of dispatches with an equal winner."""
    return {
        member.symbol
        for task in plan.tasks
        if infos.get(task.dispatch.name) == infos[name]
        for member in task.dispatch.members
    }
