"""From the marker to the plan: the cases that a marked test is parametrized with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.custom import CustomTask
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import NOTHING_WANTED, Plan, Task, renamed
from pytest_shark_tune.plugin.cases import NO_PLAN, TuningCase, cases_of
from pytest_shark_tune.plugin.marker import TuneMarks
from pytest_shark_tune.plugin.tune.setup import Setup
from pytest_shark_tune.records.reconcile import wanted_of
from pytest_shark_tune.records.snapshot import check_snapshots

__all__ = ["CaseCollector"]


class CaseCollector:
    """Makes the plan of every marked test, and makes sure that the names in all plans of a run are unique.

    Records, snapshots and the spec know dispatches, models and custom tasks by their names alone.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._structures: dict[str, str] = {}
        self._kernels: dict[str, CustomTask] = {}
        self._models: dict[tuple[str, str], str] = {}

    def cases(self, marks: TuneMarks, path: Path, test: str) -> list[TuningCase]:
        """Return the cases of a marked test function; a single one with the problem if its input cannot be tuned.

        Args:
            marks: the marks of the function.
            path: the file of the function.
            test: the id of the function.
        """
        suite = self._suite(path.parent) if path.suffix == ".py" else ""
        try:
            if self._setup.bundle is not None:
                key = self._setup.bundle.plan_of(test)
                packed = cases_of(self._setup.load_plan(key), key, suite)
                # Making a spec, and trying it, takes the compiler.
                return [case for case in packed if case.role not in (Role.SPEC, Role.END_TO_END)]
            key, plan = self._plan(marks, path.parent, suite)
            cases = list(cases_of(plan, key, suite))
            if self._setup.stops_after_compile:
                return [case for case in cases if case.place is not None and isinstance(case.task, Task)]
            return cases
        except InputError as error:
            problem = str(error)
        except OSError as error:
            explained = self._setup.storage.explain(error)
            if not explained:
                raise
            problem = explained
        return [TuningCase(Role.INPUT, NO_PLAN, problem=problem)]

    def _suite(self, directory: Path) -> str:
        """The directory of a suite as all processes of the run name it, wherever they have the suite."""
        root = self._setup.root
        return directory.relative_to(root).as_posix() if directory.is_relative_to(root) else str(directory)

    def _plan(self, marks: TuneMarks, directory: Path, suite: str) -> tuple[str, Plan]:
        """The plan for a test's marks, and its key in the cache.

        Raises:
            InputError: there is nothing that can be tuned.
        """
        if marks.options:
            raise InputError(
                f"the marker tune knows no option {', '.join(map(repr, marks.options))}: it takes sources only, "
                "as in @pytest.mark.tune(ops.matmul(m=512, n=512, k=512), 'model.mlir')"
            )
        if marks.is_bare:
            raise InputError("the marker tune needs at least one source: an op or a path to a model")
        kernels = [source for source in marks.sources if isinstance(source, CustomTask)]
        for kernel in kernels:
            if self._kernels.setdefault(kernel.name, kernel) != kernel:
                raise InputError(f"{kernel.name} is the name of two different custom tasks in this run")
        target = str(self._setup.options.target)
        if suite:
            check_snapshots(self._setup.root / suite, target)
        wanted = wanted_of(self._setup.root / suite, target) if suite else NOTHING_WANTED
        key, plan = self._setup.session.planner.plan(marks.sources, directory, wanted)
        if not plan.everything:
            raise InputError(_why_nothing(plan, [kernel.name for kernel in kernels], self._setup.options.share))
        if suite:
            self._refuse_same_models(suite, plan.sources)
        return self._with_unique_names(key, plan)

    def _refuse_same_models(self, suite: str, sources: Sequence[Source]) -> None:
        for source in sources:
            if not source.is_op and self._models.setdefault((suite, source.name), source.text) != source.text:
                raise InputError(
                    f"{source.name} is the name of two different models of this suite, whose snapshot tells models by "
                    "their names: rename one of the files, or put its test into another directory"
                )

    def _with_unique_names(self, key: str, plan: Plan) -> tuple[str, Plan]:
        """Add a hash to the name of a dispatch if a dispatch of another structure in another test has that name.

        Every process collects in the same order, so all processes give the same names.
        """
        names: dict[str, str] = {}
        for task in plan.tasks:
            name, structure = task.dispatch.name, task.dispatch.key
            if self._structures.setdefault(name, structure) != structure:
                names[name] = f"{name}_{structure[:4]}"
                self._structures[names[name]] = structure
        return self._setup.session.planner.store_derived(key, renamed(plan, names)) if names else (key, plan)


def _why_nothing(plan: Plan, kernels: Sequence[str], share: float) -> str:
    """Why nothing in a plan can be tuned, in words."""
    reasons = "; ".join(f"{dispatch.name}: {dispatch.reason}" for dispatch in plan.untunable)
    if plan.left_out:
        models = ", ".join(profile.source for profile in plan.profiles)
        return (
            f"the dispatches that take {share:.0%} of the time of {models} cannot be tuned: {reasons}; a larger "
            "--tune-coverage adds others that can"
        )
    names = ", ".join(dict.fromkeys([*(source.name for source in plan.sources), *kernels]))
    return f"there is nothing to tune in {names}: {reasons or 'it has no dispatch'}"
