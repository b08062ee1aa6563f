"""Finalists in the whole model: the one that wins alone need not be the one that makes the model fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.measurement.correctness import Tolerance
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.compile_step import command_failure
from pytest_shark_tune.tuning.runner import Bench

__all__ = ["ModelFinal", "compare_apart", "model_of"]


def model_of(plan: Plan, task: Task) -> tuple[Source, str]:
    """The source that a dispatch is part of, and its function.

    Raises:
        InputError: there is none whose inputs can be made up, or more than one.
    """
    names = {member.source for member in task.dispatch.members}
    functions = [(source, name) for source in plan.sources if source.name in names for name in source.run_whole]
    if len(functions) != 1:
        told = ", ".join(f"{name} of {source.name}" for source, name in functions) or "none whose inputs can be made up"
        raise InputError(
            f"the finalists of {task.name} can be compared in a model that has one function, and this dispatch is "
            f"part of {told}: name one with --tune-function, or tune that in a test of its own"
        )
    return functions[0]


@dataclass(frozen=True)
class ModelFinal:
    """Compares the finalists of a dispatch in one function of a model, which has its default elsewhere.

    ``tolerance`` is what its results may differ by.
    """

    task: Task
    source: Source
    function: str
    tolerance: Tolerance
    builds: Builds
    bench: Bench

    def play(self, names: Sequence[str], failed: dict[str, CandidateFailed]) -> dict[str, Measurement]:
        """The measurement of the model with each finalist in it; whoever fails is put into ``failed``."""
        models: dict[str, Path] = {}
        default = ""
        for name in names:
            try:
                models[name], default = self._built(name)
            except CandidateFailed as failure:
                failed[name] = failure
        if not default:
            return {}
        compare = partial(
            self.bench.compare_models,
            self.builds.model(default),
            function=self.function,
            inputs=self.source.functions[self.function],
            tolerance=self.tolerance,
            files=self.source.files,
            disturbed=partial(self.builds.disturbed_model, default, self._symbols),
        )
        return compare_apart(compare, models, failed)

    @property
    def _symbols(self) -> list[str]:
        """The executables of the dispatch in the model."""
        return [member.symbol for member in self.task.dispatch.members if member.source == self.source.name]

    def _built(self, name: str) -> tuple[Path, str]:
        """The model with a finalist in it, and the sources of its default.

        Raises:
            CandidateFailed: the config is not in force in each of the dispatch's ops, or does not compile there.
        """
        info = self.task.candidate(name).compilation_info
        entry = SpecEntry(name=self.task.name, root=self.task.dispatch.root, compilation_info=info)
        try:
            application = apply_spec(self.source, link_spec(build_spec([entry])), self.builds.compiler)
        except InputError as error:
            raise CandidateFailed(State.COMPILE_FAILED, str(error)) from error
        wanted = set(self._symbols)
        if missed := sorted(wanted - {each.symbol for each in application.placed}):
            raise CandidateFailed(
                State.NOT_APPLIED, f"in the whole of {self.source.name} it does not apply to {', '.join(missed)}"
            )
        try:
            return self.builds.model(application.text), strip(application.sources)
        except CommandFailed as error:
            raise command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT) from error


def compare_apart(
    compare: Callable[[Mapping[str, Path]], dict[str, Measurement]],
    models: Mapping[str, Path],
    failed: dict[str, CandidateFailed],
) -> dict[str, Measurement]:
    """What ``compare`` gives of those that do not fail, together or, where one fails, each alone beside the default.

    It does not tell whose failure that was.
    """
    try:
        return compare(models)
    except CandidateFailed as failure:
        if len(models) == 1:
            failed.update(dict.fromkeys(models, failure))
            return {}
    alone: dict[str, Measurement] = {}
    for name, path in models.items():
        alone |= compare_apart(compare, {name: path}, failed)
    return alone
