"""Tunes IREE dispatches as pytest tests, and guards the tuned configs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_shark_tune.compiler.artifact import Artifact
    from pytest_shark_tune.errors import CandidateFailed, UndecidedWarning
    from pytest_shark_tune.measurement.correctness import Tolerance, tolerance_for
    from pytest_shark_tune.measurement.rounds import combine_rounds
    from pytest_shark_tune.measurement.timing import Measurement
    from pytest_shark_tune.plan.custom import CustomTask
    from pytest_shark_tune.plugin.kernels import Kernel
    from pytest_shark_tune.plugin.stages import DispatchStages
    from pytest_shark_tune.search_space import SearchSpace

    __version__: str

__all__ = [
    "Artifact",
    "CandidateFailed",
    "CustomTask",
    "DispatchStages",
    "Kernel",
    "Measurement",
    "SearchSpace",
    "Tolerance",
    "UndecidedWarning",
    "__version__",
    "combine_rounds",
    "tolerance_for",
]

_MODULES = {
    "Artifact": "pytest_shark_tune.compiler.artifact",
    "CandidateFailed": "pytest_shark_tune.errors",
    "CustomTask": "pytest_shark_tune.plan.custom",
    "DispatchStages": "pytest_shark_tune.plugin.stages",
    "Kernel": "pytest_shark_tune.plugin.kernels",
    "Measurement": "pytest_shark_tune.measurement.timing",
    "SearchSpace": "pytest_shark_tune.search_space",
    "Tolerance": "pytest_shark_tune.measurement.correctness",
    "UndecidedWarning": "pytest_shark_tune.errors",
    "combine_rounds": "pytest_shark_tune.measurement.rounds",
    "tolerance_for": "pytest_shark_tune.measurement.correctness",
}


if not TYPE_CHECKING:  # A type checker refuses a name that is not imported above.

    def __getattr__(name: str) -> Any:
        # Late, because pytest imports this package in every run and the compiler's bindings take a second.
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        if name == "__version__":
            return _version()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    # Late, because every device child imports this package, and `importlib.metadata` is a fifth of its start.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-shark-tune")
    except PackageNotFoundError:  # A checkout on PYTHONPATH, as on a machine that installs nothing.
        return "0+unknown"
