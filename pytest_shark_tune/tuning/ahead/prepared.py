"""Defaults that are prepared on a device: loaded in its child process, beside the reference results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Member
from pytest_shark_tune.measurement import rounds, timing
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.tuning.acceptance import check_result
from pytest_shark_tune.tuning.builder import Builder

__all__ = ["RUN_TIMEOUT_S", "Prepared", "PreparedDefaults", "PreparedSize", "join_sizes", "reference_name"]

RUN_TIMEOUT_S = 30.0
"""The seconds that the check of a default may take."""
_REMEMBERED = 24
"""How many of the default's last samples count as usual: few enough that a lasting change soon is."""
_MOST, _MOST_BYTES = 8, 4 << 30
"""How many dispatches may be prepared on a device, and the size of their buffers together."""


@dataclass
class PreparedSize:
    """What is known of a default at one size of its dispatch; most dispatches have but one."""

    batch: int
    """How many dispatches make up a sample."""
    batch_s: float
    """The seconds that a sample takes."""
    check_s: float
    """The seconds that the check of a result takes."""
    samples_us: tuple[float, ...] = ()
    """Its last samples in the child."""

    def remember(self, measured: timing.Measurement) -> None:
        """Keep the default's samples of a measurement."""
        if not measured.cut_short:
            self.samples_us = (self.samples_us + measured.baseline_samples_us)[-_REMEMBERED:]


@dataclass
class Prepared:
    """A default that is loaded in a child process beside its reference results."""

    generation: int
    """The generation of the child."""
    content: tuple[str, ...]
    """The keys of the default's binaries. Forms of a model may have different dispatches with the same root."""
    slot: int
    """The number that its modules and references have in their keys."""
    bytes: int
    """The size of its buffers."""
    sizes: tuple[PreparedSize, ...]
    """The members on which candidates are tried, in order."""

    def default(self, number: int) -> str:
        """The key of its default at a size."""
        return _default_key(self.slot, number)

    def reference(self, number: int) -> str:
        """The name of its reference at a size."""
        return reference_name(self.slot, number)

    def compare_default(self, child: DeviceChild, number: int) -> timing.Measurement:
        """Time the default beside itself at one size."""
        at, run = self.sizes[number], partial(child.run, self.default(number))
        measured = timing.compare(run, run, batch=at.batch, earlier=at.samples_us)
        at.remember(measured)
        return measured


class PreparedDefaults:
    """Prepares defaults, once for each dispatch and child process while there is room.

    Args:
        builder: compiles the modules that compare results.
        seed: draws the inputs.
        marks: the directory of the run, which gets a mark for each module that was seen to find errors.
        bitwise: whether results have to be the same bit for bit.
    """

    def __init__(self, builder: Builder, seed: int, marks: Path, *, bitwise: bool = False) -> None:
        self._bitwise = bitwise
        self._marks = marks
        self._comparers = builder.comparers
        self._key_of = builder.key
        self._seed = seed
        # On a processor, the memory that others hold may push a dispatch's data out of the cache.
        self._most = 1 if builder.compiler.target.shares_processor else _MOST
        self._held: WeakKeyDictionary[DeviceChild, list[Prepared]] = WeakKeyDictionary()

    def prepare(self, child: DeviceChild, task: Task, default: Artifact) -> Prepared:
        """Load a default and keep its results as the reference, unless that was done."""
        members = task.dispatch.screened
        content = tuple(self._key_of(member.module, task.default) for member in members)
        held = [known for known in self._held.get(child, []) if known.generation == child.generation]
        known = next((known for known in held if known.content == content), None)
        if known is not None:  # The one that was used last is the last.
            self._held[child] = [*(other for other in held if other is not known), known]
            return known
        needed = sum(member.module.buffer_bytes for member in members)
        while held and (len(held) >= self._most or needed + sum(other.bytes for other in held) > _MOST_BYTES):
            evicted = held.pop(0)
            # Stored at once: an interrupt while modules are loaded leaves the child with a part of them.
            self._held[child] = held
            for number in range(len(evicted.sizes)):
                child.unload(evicted.default(number))
        slot = min(set(range(len(held) + 1)) - {other.slot for other in held})
        sizes = []
        for number, member in enumerate(members):
            check_s = self.load_reference(child, task, member, default, slot, number)
            run = partial(child.run, _default_key(slot, number))
            batch = timing.calibrate(run, timing.SCREENING.sample_s, cap=timing.SCREENING.batch_cap)
            sizes.append(PreparedSize(batch, run(batch), check_s))
        prepared = Prepared(child.generation, content, slot, needed, tuple(sizes))
        self._held[child] = [*held, prepared]
        return prepared

    def load_reference(
        self, child: DeviceChild, task: Task, member: Member, default: Artifact, slot: int = 0, number: int = 0
    ) -> float:
        """Load a default and keep its results; return the seconds that the check of a result takes."""
        key, reference = _default_key(slot, number), reference_name(slot, number)
        self.load(child, key, member, default)
        child.store_reference(key, reference, self._seed)
        # The default is its own reference: a result that changes from run to run can verify nothing.
        started = time.perf_counter()
        check_result(child, key, reference, task.dispatch, member, RUN_TIMEOUT_S, bitwise=self._bitwise)
        return time.perf_counter() - started

    def load(self, child: DeviceChild, key: str, member: Member, artifact: Artifact) -> None:
        """Load a compiled candidate, and the module that compares its results."""
        assert artifact.vmfb is not None
        comparer = self._comparers.path(member.module)
        mark = self._marks / f"{comparer.stem}.compares" if comparer is not None else None
        child.load_benchmark(key, Path(artifact.vmfb), member.module, comparer=comparer, mark=mark)


def join_sizes(sizes: Mapping[str, timing.AtSize]) -> timing.Measurement:
    """Join the measurements of a dispatch at its sizes, all from one process."""
    return rounds.join_sizes(sizes, one_process=True)


def _default_key(slot: int, number: int) -> str:
    return f"default/{slot}/{number}"


def reference_name(slot: int = 0, number: int = 0) -> str:
    """The name of the reference of a prepared default, or of the only one in a child."""
    return f"reference/{slot}/{number}"
