"""Reading configs: the knobs of a space that a compilation info was made with."""

from __future__ import annotations

from pytest_shark_tune.stages.space.search_space import SearchSpace

__all__ = ["knobs_of"]


def knobs_of(space: SearchSpace, compilation_info: str) -> dict[str, int] | str:
    """The knobs for which ``space`` makes this very compilation info, or why there are none, in words.

    The knobs need not be a member: ``space.violated`` says what they violate. Knobs that change nothing in the
    attribute take the value that the space has for "off".

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    raise NotImplementedError
