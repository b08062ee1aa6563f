"""The session: one process's share of a run, made of a builder, runners, finals, a verifier and a database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Self

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.builder import Builder, with_code
from pytest_shark_tune.tuning.children import DeviceChildren, driver_compiler
from pytest_shark_tune.tuning.compile_step import CompileStep
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.finals import Finals
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from pytest_shark_tune.tuning.model import (
    FormDatabase,
    FormFinals,
    FormPlanner,
    FormRace,
    ModelFinal,
    ModelRunner,
    Profiler,
    UntunedModels,
)
from pytest_shark_tune.tuning.planner import Planner
from pytest_shark_tune.tuning.run_directory import RunDirectory
from pytest_shark_tune.tuning.runner import Runner
from pytest_shark_tune.tuning.settings import RunSettings
from pytest_shark_tune.tuning.verifier import RunVerifier, Verifier

__all__ = ["Session"]


class Session:
    """The tools of one process of a run, set up to work together. It knows nothing of pytest.

    Args:
        settings: the settings of the run.
        compiler: compiles everything.
        cache: holds plans and compiled modules.
        report: gets a message about work that takes long.
        step: a client's own compile step, through which everything goes that is compiled.
        results: holds results for later runs, if that is another cache.
    """

    def __init__(
        self,
        settings: RunSettings,
        compiler: Compiler,
        cache: Cache,
        *,
        report: Callable[[str], None] = lambda message: None,
        step: CompileStep | None = None,
        results: Cache | None = None,
    ) -> None:
        self.settings = settings
        self.compiler = compiler
        self.cache = cache
        self.results = results or cache
        self.step = step.key if step else ""
        """The key of the compile step; empty without one."""
        self.run = RunDirectory(settings.run_directory, report)
        """The directory that all processes of the run share."""
        leases = DeviceLeases(settings.devices, run=str(settings.run_directory))
        driver = driver_compiler(compiler.target.driver, settings)
        self.builder = Builder(
            compiler,
            cache,
            leases,
            jobs=settings.jobs,
            report=report,
            prefetch_queue=self.run.queued,
            step=step,
            of_run=self.run.cache,
            before_loading=driver.compile,
        )
        self.microbenchmarks = Microbenchmarks(compiler, cache, settings.device_name, report, uris=settings.devices)
        self.children = DeviceChildren(leases, report, driver, starts_ahead=not compiler.target.shares_processor)
        self.runner = Runner(settings, self.builder, self.children, microbenchmarks=self.microbenchmarks)
        self.database = TuningDatabase(self.results, compiler, settings, step=self.step)
        self.models = models = ModelRunner(self.children, settings.seed)
        self.untuned = untuned = UntunedModels(self.builder, asks_onnx=settings.reference == "onnx")
        profiler = Profiler(self.builder, untuned, self.runner, self.children, self.microbenchmarks, self.run.cache)
        known_forms = FormDatabase(self.database, settings.reference, settings.compare)
        race = FormRace(self.builder, untuned, models, report)
        forms = FormPlanner(settings, self.run.cache, race, known_forms, profiler)
        self.planner = Planner(settings, cache, self.run, self.builder, self.database, profiler, forms, report)
        model_final = ModelFinal(self.builder, models)
        self.finals = Finals(
            self.run,
            self.database,
            self.runner,
            model_final,
            settings.budget,
            len(settings.devices),
            report,
            partial(with_code, self.builder),
        )
        self.form_finals = FormFinals(
            untuned,
            models,
            known_forms.chosen,
            self.run,
            self.runner.origin,
            settings.budget,
            report,
            compares_onnx=settings.compare == "ort",
        )
        verifier = Verifier(self.builder, models, report=report)
        self.verifier = RunVerifier(verifier, self.run, self.database, self.form_finals, settings.starter)
        self.kernels: dict[tuple[str, str, str], tuple[Any, float]] = {}
        """Kernels that clients compiled, and the seconds that took, by plan, task and candidate."""
        self.report = report
        self._stepped: dict[str, Self] = {}
        self._retargeted: dict[tuple[str, ...], Self] = {}

    def close(self) -> None:
        """End everything that this session started."""
        self.builder.close()
        self.children.close()
        for session in (*self._stepped.values(), *self._retargeted.values()):
            session.close()

    def with_step(self, step: CompileStep) -> Self:
        """A session like this with a client's own compile step; the same one for equal keys."""
        if step.key not in self._stepped:
            self._stepped[step.key] = type(self)(
                self.settings, self.compiler, self.cache, report=self.report, step=step, results=self.results
            )
        return self._stepped[step.key]

    def with_compiler(self, compiler: Compiler) -> Self:
        """A session like this with another compiler; the same one for equal identities."""
        if compiler.identity not in self._retargeted:
            self._retargeted[compiler.identity] = type(self)(
                self.settings, compiler, self.cache, report=self.report, results=self.results
            )
        return self._retargeted[compiler.identity]

    def processor(self) -> AbstractContextManager[object]:
        """Hold the device while a compiler runs, if both are the same processor."""
        return self.builder.processor()

    def device(self) -> AbstractContextManager[str]:
        """Hold a device; the context gives its URI."""
        return self.children.lease()

    @property
    def fingerprint(self) -> str:
        """A hash of everything that winners depend on besides the dispatch: measurements, and the user's choices."""
        return self.fingerprint_of(bitwise=self.settings.bitwise)

    def fingerprint_of(self, *, bitwise: bool) -> str:
        """The fingerprint of a session that asks for equal bits, or does not, and else is like this one."""
        return content_key(self.database.fingerprint, self.settings.request, *(["bitwise"] if bitwise else []))
