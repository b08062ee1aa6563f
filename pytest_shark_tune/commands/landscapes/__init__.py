"""Commands on recorded landscapes."""

from pytest_shark_tune.commands.landscapes.prior import prior
from pytest_shark_tune.commands.landscapes.replay import replay

__all__ = ["prior", "replay"]
