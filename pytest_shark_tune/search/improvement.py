"""Expected improvement by the votes of trees, and features in the form for trees."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.features import Column

__all__ = ["expected_improvement", "without_gaps"]

_ABSENT = -8.0
"""The value in trees of a feature that a pipeline lacks, less than any possible value."""


def without_gaps(values: Column) -> npt.NDArray[np.float32]:
    """Return ``values`` in the form for trees."""
    return np.nan_to_num(values, nan=_ABSENT).astype(np.float32)


def expected_improvement(centre: Column, spread: Column, best: float) -> Column:
    """Return the expected excess of a normal variable over ``best``."""
    from scipy.special import ndtr

    distance = (centre - best) / spread
    density = np.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(spread * (distance * ndtr(distance) + density))
