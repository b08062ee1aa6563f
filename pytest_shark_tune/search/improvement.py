"""Expected improvement by the votes of trees."""

from __future__ import annotations

import math

import numpy as np

from pytest_shark_tune.search.features import Column

__all__ = ["expected_improvement"]


def expected_improvement(centre: Column, spread: Column, best: float) -> Column:
    """Return the expected excess of a normal variable over ``best``."""
    from scipy.special import ndtr

    distance = (centre - best) / spread
    density = np.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(spread * (distance * ndtr(distance) + density))
