"""Keys of the stash of pytest's config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_shark_tune.plugin.guard.evaluation import CaseEvaluator
    from pytest_shark_tune.tuning.session import Session

__all__ = ["GUARD_KEY", "SESSION_KEY"]


SESSION_KEY: pytest.StashKey[Session] = pytest.StashKey()


GUARD_KEY: pytest.StashKey[CaseEvaluator] = pytest.StashKey()
