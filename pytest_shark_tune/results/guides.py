"""The prior of a run: whether it fits the device and each of the dispatches."""

from __future__ import annotations

from collections.abc import Callable

from pytest_shark_tune.plan.types import AnyTask, Task
from pytest_shark_tune.results.prior_training import DEFAULT_PRIOR, load_prior
from pytest_shark_tune.search import Prior
from pytest_shark_tune.search.facts import device_class

__all__ = ["Guides"]


class Guides:
    """Chooses the prior for the searches of a run.

    Args:
        name: The path of a prior, or one of the names that `load_prior` knows.
        device: The model of the device; empty without one.
        iree: The version of the compiler.
        report: Gets a line where a prior is used, or one that the user names is ignored.
    """

    def __init__(self, name: str, device: str, iree: str, report: Callable[[str], None]) -> None:
        self._name = name
        self._device = device
        self._iree = iree
        self._report = report
        self._loaded: dict[str, Prior | None] = {}

    def guide_of(self, task: AnyTask) -> Prior | None:
        """Return the prior for a dispatch, or ``None`` if there is none that fits. Kernels have none.

        Raises:
            InputError: The prior cannot be read.
        """
        if not isinstance(task, Task):
            return None
        found = device_class(self._device, task.dispatch.target.cpu_vector_bytes)
        if found not in self._loaded:
            self._loaded[found] = self._load(found)
        return self._loaded[found]

    def _load(self, found: str) -> Prior | None:
        prior = load_prior(self._name, found)
        misfit = prior.misfit(found, self._iree) if prior is not None else ""
        if prior is None:
            return None
        if not misfit:
            self._report(f"searches begin with the prior {self._name}: {len(prior.shapes)} shapes on {found}")
            return prior
        if self._name != DEFAULT_PRIOR:
            self._report(f"--tune-prior: {self._name} is ignored, since {misfit}")
        return None
