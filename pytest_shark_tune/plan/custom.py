"""Kernels that are not IREE's, as a ``tune`` marker describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import SearchSpace

__all__ = ["CustomTask"]


class CustomTask(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel of the client's own. The client's fixtures compile and run it.

    Raises:
        InputError: the name is not a word, the default leaves out a knob, or the weight is not positive.
    """

    name: str
    """The kernel's name in the ids of its tests."""
    space: SearchSpace
    default: Mapping[str, int]
    """The knobs of the baseline, a value for each knob of the space. They need not be a member of the space."""
    weight: int = 1
    """How often the kernel runs, relative to the other kernels of a suite."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.]*", self.name):
            raise InputError(f"CustomTask(name={self.name!r}): a name has letters, digits, _ and dots only")
        if not isinstance(self.space, SearchSpace):
            raise InputError(f"the space of {self.name} must be a SearchSpace, not {self.space!r}")
        if sorted(self.default) != sorted(self.space.names):
            raise InputError(
                f"the default of {self.name} needs a value for each of {', '.join(self.space.names)}; "
                f"it has {', '.join(self.default) or 'none'}"
            )
        if self.weight < 1:
            raise InputError(f"the weight of {self.name} is {self.weight}: it counts calls, so give 1 or more")
