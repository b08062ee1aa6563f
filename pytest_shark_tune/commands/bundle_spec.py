"""A spec tried in the sources of a bundle, as far as that needs no device."""

from __future__ import annotations

import shlex

import click

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.flags import check_flags
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.dispatch.foreign.trust import check_source, trusts_specs
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import SpecRecord
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.bundle import Bundle
from pytest_shark_tune.tuning.verifier import Verifier

__all__ = ["tasks_of_bundle", "try_spec"]


def tasks_of_bundle(bundle: Bundle) -> dict[str, Task]:
    """The dispatches of a bundle by name."""
    return {task.name: task for plan in bundle.plans.values() for task in plan.tasks}


def try_spec(bundle: Bundle, draft: Draft, flags: tuple[str, ...]) -> tuple[Draft, list[SpecRecord]]:
    """Try a draft in the sources of a bundle; return it without the entries that fail, and the checks.

    The user repeats the bundle's ``flags`` on the command line: a flag that a stranger chose could have the compiler
    run a command, as could a source.

    Raises:
        InputError: the bundle was made by another compiler or with other flags, or holds something that could do harm.
    """
    compiler = _compiler_of(bundle, flags)
    dropped: dict[str, str] = {}
    with scratch_directory() as directory:
        builder = Builder(compiler, Cache(directory, click.echo), DeviceLeases(()), jobs=1, report=click.echo)
        verifier = Verifier(builder, None, report=click.echo)
        try:
            # The written draft has to hold in all plans, so a draft that has changed is tried in all of them again.
            while True:
                checks = [verifier.check(plan, draft) for plan in bundle.plans.values()]
                failing = {name: reason for check in checks for name, reason in check.dropped.items()}
                if not failing:
                    return draft, [*checks, SpecRecord(sources=(), dropped=dropped)]
                dropped |= failing
                draft = draft.without(failing)
        finally:
            builder.close()


def _compiler_of(bundle: Bundle, flags: tuple[str, ...]) -> Compiler:
    if not trusts_specs():
        check_flags(bundle.flags, "--bundle", why_not_plain)
    for plan in bundle.plans.values():
        for source in plan.sources:
            check_source(source.text, f"--bundle: {source.name}")
    if bundle.flags != flags:
        given = shlex.join(f"--iree-compile-flag={flag}" for flag in bundle.flags) or "no --iree-compile-flag"
        raise InputError(f"--bundle: it was made with {given}: give just that, if you trust whoever made it")
    compiler = Compiler(bundle.target, flags)
    made_by = bundle.versions["iree-base-compiler"]
    if made_by != compiler.version:
        raise InputError(f"--bundle: it was made with IREE {made_by}, this is {compiler.version}")
    return compiler
