"""What a run works with, in each of its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_shark_tune.guard.speed import TOLERANCE
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.search_space import SpaceRequest

__all__ = ["RunSettings"]


@dataclass(frozen=True)
class RunSettings:
    """What a run works with. ``exchange`` is a folder of this run alone that all its processes see.

    ``records`` and ``finals`` are the journals in the output folder, written by whoever controls the run. Data is
    rotated through ``rotate_bytes`` of memory, 0 for a dispatch's own alone. A ``fresh`` run measures again what
    earlier ones measured, and tunes what a snapshot holds. Specs are guarded for how they come to their ops in
    production: ``route`` is ``compile`` (``shark-tune compile``) or ``flag`` (iree-compile's own). A guarded entry may
    fall behind its recorded speed by ``tolerance``: 0.04 reads as 4%. ``devices`` may be empty, and ``device_name``
    with it, where only static promises are looked at, and where a run ``stops_after_compile``.

    Of a model the dispatches that make up ``share`` of its time are tuned, all of them with 1. ``models`` is what the
    user says of the models that are read. ``bundle`` is the digest of the bundle that is measured, empty without one.
    user says of the models that are read. ``starter`` is the text of the starter spec, empty without one.
    """

    devices: tuple[str, ...]
    device_name: str
    jobs: int
    seed: int
    records: Path
    finals: Path
    exchange: Path
    request: SpaceRequest
    rotate_bytes: int = 0
    fresh: bool = False
    share: float = 1.0
    route: str = "compile"
    tolerance: float = TOLERANCE
    models: ModelInput = ModelInput()  # noqa: RUF009 - it is frozen
    stops_after_compile: bool = False
    bundle: str = ""
    starter: str = ""

    @classmethod
    def in_folder(
        cls, folder: Path, devices: Sequence[str], device_name: str, *, jobs: int, seed: int = 0
    ) -> RunSettings:
        """For work outside of a run of pytest, which leaves all that it writes down in ``folder``, which exists."""
        exchange = folder / "exchange"
        exchange.mkdir(exist_ok=True)
        return cls(
            devices=tuple(devices),
            device_name=device_name,
            jobs=jobs,
            seed=seed,
            records=folder / "records.jsonl",
            finals=folder / "finals.jsonl",
            exchange=exchange,
            request=SpaceRequest(),
        )
