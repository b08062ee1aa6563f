"""Coverage: the part of its input that a run tunes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.files import decode_json, read_plain

__all__ = ["Collected", "Coverage", "coverage_of_spec"]


class Coverage(StrEnum):
    """The part of its input that a run tunes: all of it, not all files of a suite, or not all tests of a file."""

    WHOLE = "whole"
    FILES = "some files"
    TESTS = "some tests"

    def is_less_than(self, other: Coverage) -> bool:
        """Return whether a run of this coverage leaves out tests that a run of the ``other`` may have tuned."""
        order = list(Coverage)
        return order.index(self) > order.index(other)


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the named suites that runs."""

    whole: tuple[str, ...] = ()
    """The suites of which every test was generated and may run."""
    coverage: Coverage = Coverage.WHOLE


class _EarlierRun(msgspec.Struct, frozen=True):
    spec_coverage: Coverage | None = None


class _EarlierSummary(msgspec.Struct, frozen=True):
    """The part that is read of the summary that an earlier run left."""

    run: _EarlierRun


def coverage_of_spec(spec: Path, summary: Path) -> Coverage | None:
    """Return the coverage of the run that left a spec beside its summary.

    Returns:
        ``None`` without a spec, or without a summary that tells of a run. If the summary does not name
        a coverage, the run is taken to have covered all.
    """
    if not spec.exists():
        return None
    try:
        earlier = decode_json(read_plain(summary), _EarlierSummary)
    except (OSError, InputError):
        return None
    return earlier.run.spec_coverage or Coverage.WHOLE
