"""From the marker to the checks of committed specs: the cases that a marked test is parametrized with."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pytest_shark_tune.device.identity import device_slug
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.guard.plan import GuardPlan
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plugin.cases import NO_PLAN, Guarded, TuningCase, guard_cases
from pytest_shark_tune.plugin.guard.setup import GuardSetup
from pytest_shark_tune.plugin.items import case_of
from pytest_shark_tune.records.form_files import find_forms
from pytest_shark_tune.records.snapshot import find_snapshots, recorded_targets, snapshot_path
from pytest_shark_tune.system.cache import RELEASES

__all__ = ["GuardCollector", "drop_strangers"]


class GuardCollector:
    """Finds the specs to guard for every marked test.

    ``plans`` has the guard plans of the run by the path of their spec.
    """

    def __init__(self, setup: GuardSetup) -> None:
        self._setup = setup
        self.plans: dict[str, list[GuardPlan]] = {}

    def cases(self, given: Sequence[object], path: Path) -> list[TuningCase]:
        """Return the cases of a test that is marked with ``given`` in the file ``path``; none without a spec to guard.

        If an input cannot be used, a single case has the problem.
        """
        suite = str(path.parent) if path.suffix == ".py" else ""
        sources = [source for source in given if not isinstance(source, CustomTask)]
        found: list[TuningCase] = []
        try:
            if sources and self._setup.guard.needs_no_spec:
                return list(self._without_spec(sources, path, suite))
            for spec, slug in self._specs(path) if sources else ():
                plan = self._setup.session.guard_plan(sources, path.parent, spec)
                if not plan.entries and self._setup.guard.spec is None:
                    raise InputError(f"{spec} has no entry to guard; pytest --tune writes it anew, or remove it")
                self._refuse_same_models(plan)
                self.plans.setdefault(plan.spec_path, []).append(plan)
                found += guard_cases(plan, suite, slug)
        except InputError as error:
            return [TuningCase(Role.INPUT, NO_PLAN, problem=str(error))]
        return found

    def _without_spec(self, sources: Sequence[object], path: Path, suite: str) -> Iterator[TuningCase]:
        """The comparisons with other compilers, without and with the spec if there is one, and with a baseline.

        Raises:
            InputError: a source, another compiler or the baseline cannot be used.
        """
        guard, session = self._setup.guard, self._setup.session
        for rival in guard.against:
            plan = session.rival_plan(sources, path.parent, rival, self._setup.options.cache / RELEASES)
            self.plans.setdefault(plan.spec_path, []).append(plan)
            yield from guard_cases(plan, suite, Path(rival).name)
            if (tuned := self._spec_against(plan, sources, path, rival)) is not None:
                self.plans.setdefault(tuned.spec_path, []).append(tuned)
                yield from guard_cases(tuned, suite, f"{Path(rival).name}-spec")
        if guard.baseline is not None:
            plan = session.baseline_plan(sources, path.parent, guard.baseline)
            self.plans.setdefault(plan.spec_path, []).append(plan)
            yield from guard_cases(plan, suite)

    def _spec_against(self, pairs: GuardPlan, sources: Sequence[object], path: Path, rival: str) -> GuardPlan | None:
        """The plan for the same comparison with the spec that is in use here; ``None`` without one.

        Raises:
            InputError: the spec is for another target, or cannot be read.
        """
        specs, session = [spec for spec, _ in self._specs(path)], self._setup.session
        # Of the specs of several other devices none is in use here.
        found = session.spec_against(pairs, sources, path.parent, specs[0]) if len(specs) == 1 else None
        if specs and found is None:
            names = ", ".join(spec.name for spec in specs)
            session.report(f"{rival} is compared without a spec: {names} is for none of the dispatches here")
        return found

    def golden_cases(self, given: Sequence[object], path: Path, golden: str) -> list[TuningCase]:
        """Return the cases of a test in the file ``path`` that is marked to guard ``given``.

        Args:
            given: the sources of the marker.
            path: the file of the test.
            golden: the file with golden times, relative to the test's; empty without one.
        """
        suite, file = str(path.parent), path.parent / golden if golden else None
        try:
            plan = self._setup.session.baseline_plan(given, path.parent, self._setup.guard.baseline, file)
        except InputError as error:
            return [TuningCase(Role.INPUT, NO_PLAN, problem=str(error))]
        self.plans.setdefault(plan.spec_path, []).append(plan)
        return list(guard_cases(plan, suite))

    def _refuse_same_models(self, guarded: GuardPlan) -> None:
        """Refuse two models of one name: records know a model by its name alone, so ops of one would be missed.

        Raises:
            InputError: another test has another model of a recorded name.
        """
        recorded = {op.source for entry in guarded.entries if entry.record for op in entry.record.ops}
        plans = self.plans.get(guarded.spec_path, [])
        known = {source.name: source.text for plan in plans for source in plan.plan.sources if not source.is_op}
        for source in guarded.plan.sources:
            if source.name in recorded and known.get(source.name, source.text) != source.text:
                raise InputError(
                    f"{source.name} is the name of two different models here, and records beside {guarded.spec_path} "
                    "tell models by their names: rename one of the files and tune again with --tune"
                )

    def _specs(self, path: Path) -> Iterator[tuple[Path, str]]:
        """The specs to guard for a test in the file ``path``, with the parts of ids that tell them apart.

        These are this device's snapshot, which may consist of forms alone, or, without one, the snapshots of all other
        devices: their static checks need no device.

        Raises:
            InputError: the spec that is named is for another target.
        """
        if self._setup.guard.spec is not None:
            self._check_target(self._setup.guard.spec)
            yield self._setup.guard.spec, ""
            return
        target, devices = str(self._setup.options.target), self._setup.settings.devices
        own = snapshot_path(path.parent, target, device_slug(devices[0])) if devices else None
        if own is not None and (own.exists() or find_forms(own)):
            yield own, ""
            return
        others = find_snapshots(path.parent, target)
        prefix = snapshot_path(path.parent, target, "").stem
        for other in others:
            yield other, other.stem.removeprefix(prefix) if len(others) > 1 else ""

    def _check_target(self, spec: Path) -> None:
        """Make sure that a spec is guarded for the target that it was tuned for, unless another one is asked for.

        Raises:
            InputError: it is not; the message names the option.
        """
        options, targets = self._setup.options, recorded_targets(spec)
        if targets and str(options.target) not in targets and not options.target_is_given:
            known = " or ".join(f"--tune-target={target}" for target in sorted(targets))
            raise InputError(f"--tune-guard: by its records {spec} is not for {options.target}: give {known}")


def drop_strangers(items: list[pytest.Item], session: pytest.Session, spec: Path | None) -> None:
    """Remove the tests of entries that are for other tests from ``items``.

    The tests of a suite share its snapshots, so every test collects all entries. An entry that is for no test at all
    is left to the first test, if all tests of the suite were collected; otherwise nobody knows.

    Args:
        items: the items of the run.
        session: the session that collected them.
        spec: the spec that is guarded instead of the snapshots, if any.
    """
    cases = {item: case for item in items if (case := case_of(item)) is not None}
    ours = {item: case.guarded for item, case in cases.items() if case.guarded is not None}
    unread = {item.path.parent for item, case in cases.items() if case.role is Role.INPUT}
    owners: dict[tuple[str, str], list[str]] = {}
    first: dict[str, str] = {}
    for item, guarded in ours.items():
        test = _function_of(item)
        first.setdefault(guarded.plan.spec_path, test)
        if _is_for(guarded):
            owners.setdefault((guarded.plan.spec_path, guarded.entry.name), []).append(test)

    def is_stranger(item: pytest.Item) -> bool:
        if (guarded := ours.get(item)) is None:
            return False
        path = guarded.plan.spec_path
        orphaned_to = [first[path]] if _sees_all(item.path.parent, unread, session, spec) else []
        return _function_of(item) not in owners.get((path, guarded.entry.name), orphaned_to)

    items[:] = [item for item in items if not is_stranger(item)]


def _function_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _is_for(guarded: Guarded) -> bool:
    """Whether an entry is for a source of the test: it has dispatches there, or its record names one of them."""
    record, sources = guarded.entry.record, {source.name for source in guarded.plan.plan.sources}
    if guarded.entry.form is not None or guarded.entry.needs_no_spec:
        return True
    return bool(guarded.entry.tasks) or (record is not None and any(op.source in sources for op in record.ops))


def _sees_all(directory: Path, unread: Collection[Path], session: pytest.Session, spec: Path | None) -> bool:
    """Whether all tests that share the spec of a directory were collected, and all inputs could be read."""
    if session.testsfailed:  # A file could not be collected.
        return False
    if spec is not None:
        return not unread
    return directory not in unread and _is_fully_named(directory, session.config)


def _is_fully_named(directory: Path, config: pytest.Config) -> bool:
    """Whether all test files of a directory, or directories around them, are named in this run."""
    named = [Path(config.invocation_params.dir, argument) for argument in config.args if "::" not in argument]
    patterns = config.getini("python_files")
    files = (file for file in directory.glob("*.py") if any(fnmatch(file.name, pattern) for pattern in patterns))
    return all(any(file.is_relative_to(os.path.abspath(path)) for path in named) for file in files)  # noqa: PTH100
