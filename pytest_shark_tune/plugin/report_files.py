"""Writes the reports of a run: files that options name, and the summary of a step of a GitHub workflow."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["append_step_summary", "write_report"]

_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def write_report(option: str, path: Path, text: str) -> str:
    """Write a report; an older file stays whole if that fails.

    Returns:
        The problem in words, with the option that names the file; empty without one.
    """
    from pytest_shark_tune.system import journal

    try:
        journal.replace_file(path, text.encode())
    except OSError as error:
        return f"{option}: cannot write {path}: {error.strerror}"
    return ""


def append_step_summary(text: str) -> str:
    """Append Markdown to the summary of the step that this run is, if it is one of a GitHub workflow.

    Returns:
        The problem in words; empty without one.
    """
    path = os.environ.get(_STEP_SUMMARY)
    if not path:
        return ""
    try:
        # A pipe that nobody reads is an error then, and does not block.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        return f"{_STEP_SUMMARY}: cannot write {path}: {error.strerror}"
    return ""
