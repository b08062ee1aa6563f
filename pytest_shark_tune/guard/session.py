"""The guard session: a tuning session that also plans and evaluates the checks of spec entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.guard.against import Rivals, rival_plan
from pytest_shark_tune.guard.baseline import Baselines, baseline_plan
from pytest_shark_tune.guard.checks import EntryEvaluator
from pytest_shark_tune.guard.identity import IdentityCheck
from pytest_shark_tune.guard.plan import GuardedForm, GuardPlan, guard_key, make_guard_plan
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.make import found_dispatches, plan_key
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session

__all__ = ["GuardSession"]


class GuardSession(Session):
    """A session that guards specs."""

    @cached_property
    def evaluator(self) -> EntryEvaluator:
        """The evaluator of this process's checks."""
        return EntryEvaluator(
            self, self._defaults, IdentityCheck(self, self._replan), Baselines(self, self._rivals).verdict
        )

    @cached_property
    def _rivals(self) -> Rivals:
        """The other compilers of the run."""
        return Rivals()

    @cached_property
    def _defaults(self) -> dict[str, Source]:
        """The models with forms, as they are, by name."""
        return {}

    def guard_plan(self, given: Sequence[object], directory: Path, spec_path: Path) -> GuardPlan:
        """The plan for guarding a spec; one process makes it, the others read it from the cache.

        Args:
            given: the sources, as a marker has them. Custom tasks have no entry in any spec, and are left out.
            directory: relative paths start here.
            spec_path: the spec.

        Raises:
            InputError: a source cannot be read or compiled, or the spec cannot be read.
        """
        sources, forms = self._formed(self.planner.read(given, directory), spec_path)
        return self._plan_of(sources, forms, spec_path)

    def rival_plan(self, given: Sequence[object], directory: Path, release: str, releases: Path) -> GuardPlan:
        """The plan for comparing this compiler with another one on the dispatches and models of some sources.

        Args:
            given: the sources, as a marker has them.
            directory: relative paths start here.
            release: the other compiler, as the user gave it.
            releases: the directory for releases that pip installs.

        Raises:
            InputError: there is no such release, or a source cannot be read or compiled.
        """
        compiler = self._rivals.add(self, release, releases).compiler
        sources = self.planner.read(given, directory)
        plan = self._found(sources)
        rival = self.with_compiler(compiler)._found(sources) if compiler.reads_dispatches else None
        return rival_plan(compiler, plan, rival)

    def baseline_plan(
        self, given: Sequence[object], directory: Path, path: Path | None, golden: Path | None = None
    ) -> GuardPlan:
        """The plan for comparing dispatches and models with recorded times, or models with golden times.

        Args:
            given: the sources, as a marker has them.
            directory: relative paths start here.
            path: the file of the baseline, if there is one to compare with; it need not exist.
            golden: the file with golden times of the only model, if any.

        Raises:
            InputError: a source, the baseline or the golden times cannot be read.
        """
        target, device = str(self.compiler.target), self.settings.device_name
        return baseline_plan(self.plan_of(given, directory), target, device, path, golden)

    def plan_of(self, given: Sequence[object], directory: Path) -> Plan:
        """The dispatches of some sources, without candidates.

        Raises:
            InputError: a source cannot be read or compiled.
        """
        plan = self._found(self.planner.read(given, directory))
        self.planner.add_models(plan.sources)
        return plan

    def _found(self, sources: Sequence[Source]) -> Plan:
        """The dispatches of sources without candidates; one process finds them, the others read them from the cache."""
        find = partial(
            found_dispatches,
            sources,
            self.compiler,
            processors=processors(),
            rotate_bytes=self.settings.rotate_bytes,
            report=self.report,
        )
        return self.planner.stored(self._plan_key(sources), find, sources)

    def _plan_key(self, sources: Sequence[Source]) -> str:
        rotate_bytes = self.settings.rotate_bytes
        return plan_key(sources, self.compiler, processors=processors(), rotate_bytes=rotate_bytes)

    def _replan(self, guarded: GuardPlan, compiler: Compiler) -> tuple[Session, GuardPlan]:
        """Plan the same sources and spec with another compiler, in the session that has it.

        Raises:
            InputError: the compiler refuses a source.
        """
        session = self.with_compiler(compiler)
        return session, session._plan_of(guarded.plan.sources, {}, Path(guarded.spec_path))

    def _plan_of(self, sources: Sequence[Source], forms: Mapping[str, GuardedForm], spec_path: Path) -> GuardPlan:
        device_name = self.settings.device_name
        key = self._plan_key(sources)
        plan = self._found(sources)
        self.planner.add_models(plan.sources)
        make = partial(make_guard_plan, plan, key, spec_path, device_name=device_name, forms=forms)
        found = self.cache.get_or_make("plans", guard_key(key, spec_path, device_name, forms), GuardPlan, make)
        return msgspec.structs.replace(found, plan=plan)

    def _formed(self, sources: Sequence[Source], spec_path: Path) -> tuple[tuple[Source, ...], dict[str, GuardedForm]]:
        """The sources in the forms that the records beside a spec have, and these forms by the model's name.

        If this compiler refuses a form, the form's problem says why, and the model keeps its default form.

        Raises:
            InputError: a record cannot be read, or brings a flag that no file may bring.
        """
        records = {record.model: record for record in find_forms(spec_path)}
        formed: list[Source] = []
        forms: dict[str, GuardedForm] = {}
        for source in sources:
            record = records.get(source.name) if source.is_model else None
            if record is None:
                formed.append(source)
                continue
            self._defaults[source.name] = source
            found, problem = self._in_form(source, record)
            formed.append(found)
            forms[source.name] = GuardedForm(record=record, problem=problem)
        return tuple(formed), forms

    def _in_form(self, source: Source, record: FormRecord) -> tuple[Source, str]:
        """The model in the form of a record, and why that is not possible, if it is not."""
        if record.form.is_default:
            return source, ""
        try:
            self.compiler.with_flags(record.form.flags).check()
            found = form_source(source, record.form)
        except (CommandFailed, InputError) as error:
            return source, f"form {record.form.name}: {error}"
        if found is None:
            return source, f"form {record.form.name}: its rewrites change nothing in the model any more"
        return found, ""
