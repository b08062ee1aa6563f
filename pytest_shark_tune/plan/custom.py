"""Kernels that IREE knows nothing of: what a ``tune`` marker says of one."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import SearchSpace

__all__ = ["CustomTask"]


class CustomTask(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel of the client's own, to be tuned over ``space``; the client's fixtures compile and run it.

    ``default`` are the knobs of the baseline, a value for each knob of the space. It need not be a member: what is in
    use today may lie outside. ``name`` is what its tests are called, and ``weight`` how often it runs beside the
    others of a suite.

    Raises:
        InputError: the name is no word, the default leaves a knob out, or the weight is not positive.
    """

    name: str
    space: SearchSpace
    default: Mapping[str, int]
    weight: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.]*", self.name):
            raise InputError(f"a custom task's name is letters, digits, _ and dots, not {self.name!r}")
        if not isinstance(self.space, SearchSpace):
            raise InputError(f"the space of {self.name} is no SearchSpace: {self.space!r}")
        if sorted(self.default) != sorted(self.space.names):
            raise InputError(
                f"the default of {self.name} needs a value for each of {', '.join(self.space.names)}; "
                f"it has {', '.join(self.default) or 'none'}"
            )
        if self.weight < 1:
            raise InputError(f"the weight of {self.name} is {self.weight}; it counts calls, so 1 is the least")
