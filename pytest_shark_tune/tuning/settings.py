"""The settings of a run, in each of its processes, and a fingerprint of the environment that it measures in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import ARTIFACT_VERSION
from pytest_shark_tune.device.identity import runtime_version, ways_of_driving
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.measurement.change_points import Spread
from pytest_shark_tune.measurement.correctness import CHECK_VERSION
from pytest_shark_tune.measurement.timing import MEASUREMENT_VERSION
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.search_space import SpaceRequest
from pytest_shark_tune.spec.build import SPEC_VERSION
from pytest_shark_tune.system.budget import TimeBudget
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.system.machine import driver_version, processors

__all__ = ["TOLERANCE", "RunSettings"]

TOLERANCE: Final = 0.04
"""How far a ratio may fall below the lower end of the recorded one."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run."""

    devices: tuple[str, ...]
    """The URIs of the devices; empty where only static checks run, and in a run that stops after compiling."""
    device_name: str
    """The model of the devices; empty without any."""
    jobs: int
    """How many candidates are compiled at a time."""
    seed: int
    """Draws candidates and inputs."""
    run_directory: Path
    """The directory of this run alone that all its processes see."""
    request: SpaceRequest
    """What the user asks of every search space."""
    rotate_bytes: int = 0
    """Data is rotated through that much memory; 0 for a dispatch's own data alone."""
    fresh: bool = False
    """Whether to measure again what earlier runs measured, and to tune what a snapshot has."""
    share: float = 1.0
    """Of a model, the dispatches that make up this share of its time are tuned; all of them with 1."""
    route: str = "compile"
    """How specs come to their ops in production: ``compile`` (``shark-tune compile``) or ``flag`` (iree-compile's)."""
    tolerance: float = TOLERANCE
    """How far a guarded entry may fall below its recorded speed."""
    spread: Spread | None = None
    """How far the ratios of unchanged entries differ from session to session; ``None`` if no history is kept."""
    bitwise: bool = False
    """Whether results have to be equal to the default's bit for bit."""
    updates_baseline: bool = False
    """Whether all times of a baseline are recorded anew."""
    trusts_identity: bool = False
    """Whether a guarded entry's speed holds where its machine code is the measured one, though a device is here."""
    models: ModelInput = ModelInput()  # noqa: RUF009 - it is frozen
    """What the user says of the models that are read."""
    forms: tuple[Form, ...] = ()
    """The forms in which models are tried, besides their default form; none to tune models as they are."""
    reference: str = "default"
    """What the results of a model's forms are compared with: ``default``, or ``onnx`` for the ONNX model's own."""
    compare: str = ""
    """``ort`` to time ONNX models in ONNX Runtime as well."""
    stops_after_compile: bool = False
    """Whether nothing is measured."""
    bundle: str = ""
    """The digest of the bundle that is measured; empty without one."""
    budget: TimeBudget = TimeBudget()  # noqa: RUF009 - it is frozen
    """The time that the run may take."""
    starter: str = ""
    """The text of the starter spec; empty without one."""

    @classmethod
    def in_directory(
        cls, directory: Path, devices: Sequence[str], device_name: str, *, jobs: int, seed: int = 0
    ) -> RunSettings:
        """The settings for work outside of pytest, which writes everything to ``directory``. The directory exists."""
        run_directory = directory / "run"
        run_directory.mkdir(exist_ok=True)
        return cls(
            devices=tuple(devices),
            device_name=device_name,
            jobs=jobs,
            seed=seed,
            run_directory=run_directory,
            request=SpaceRequest(),
        )

    def fingerprint(self, compiler: Compiler) -> str:
        """A hash of everything that measurements depend on besides the dispatch."""
        return content_key(
            "setting",
            compiler.identity,
            runtime_version(),
            self.device_name,
            processors(),
            driver_version(compiler.target.driver),
            self.rotate_bytes,
            *ways_of_driving(self.devices, compiler.target.driver),
        )

    def results_key(self, compiler: Compiler, form: int, step: str) -> str:
        """A hash of everything that results depend on besides the dispatch, our own versions included.

        Args:
            compiler: the compiler.
            form: the version of the form in which they are stored.
            step: the key of a client's compile step; empty without one.
        """
        versions = [form, MEASUREMENT_VERSION, CHECK_VERSION, ARTIFACT_VERSION, SPEC_VERSION]
        bits = "bitwise" if self.bitwise else ""
        return content_key(self.fingerprint(compiler), versions, *filter(None, (step, self.bundle, bits)))
