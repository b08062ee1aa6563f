"""Models with disturbed sums, which show how their results respond to rounding errors."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from pytest_shark_tune.compiler.disturbance import with_disturbed_sums
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.tuning.builder import Builder

__all__ = ["disturbed_model"]

_logger = logging.getLogger(__name__)


def disturbed_model(
    builder: Builder, text: str, symbols: Collection[str] | None, flags: Sequence[str] = ()
) -> Path | None:
    """Compile a whole model with the sums of some executables disturbed.

    Args:
        builder: compiles it.
        text: its executable sources.
        symbols: the executables; all of them if `None`.
        flags: the flags of its form.

    Returns:
        The compiled model; ``None`` if it does not compile.
    """
    try:
        return builder.model(with_disturbed_sums(text, symbols), flags)
    except (CandidateFailed, CommandFailed) as error:
        _logger.info("the model with disturbed sums does not compile: %s", error)
        return None
