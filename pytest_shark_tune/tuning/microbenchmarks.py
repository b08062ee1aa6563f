"""Yardsticks: dispatches of ours that show what a device can reach, compiled and run like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.identity import runtime_version, ways_of_driving
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import BenchmarkModule, Untunable
from pytest_shark_tune.errors import CommandFailed, DeviceChildDied, DeviceRequestFailed
from pytest_shark_tune.measurement.roofline import Limits, Work, why_impossible
from pytest_shark_tune.measurement.timing import MEASUREMENT_VERSION, calibrate
from pytest_shark_tune.system.cache import BINARY, Cache, content_key, file_digest
from pytest_shark_tune.system.machine import processors

__all__ = ["YARDSTICK_VERSION", "Yardstick", "Yardsticks"]

YARDSTICK_VERSION: Final = 1
"""How limits of a device are measured, and the form of a `Yardstick` and of `Limits` in the cache.

Raise it where others would be found.
"""

_TINY, _SMALL, _LARGE = 64, 1 << 15, 1 << 22
"""Elements of the copies: next to nothing, what fits near each processor, and what keeps a whole GPU busy."""
_PRODUCTS_ON_CPU, _PRODUCTS_ON_GPU = (128, 512), (128, 2048)
_ELEMENT_BYTES = 4
_SAMPLE_S, _SAMPLES = 0.002, 5
_LONGEST_S = 0.05
"""A yardstick that would take longer, by the rate of a smaller one, is left out: there are GPUs made of software."""


class Yardstick(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled yardstick and what one dispatch of it does.

    ``vmfb`` is the path of its binary, in the cache its name there; ``sha256`` is the binary's hash.
    """

    module: BenchmarkModule
    vmfb: str
    sha256: str
    bytes: int
    operations: int


class Yardsticks:
    """Limits of the devices of one model, ``device``, measured where first asked for, kept in the cache under ``key``.

    ``uris`` say how they are driven.

    What is asked for is rare (a candidate that is several times as fast as the default), so a usual run pays nothing;
    the first that does pays for compiling five dispatches, others 0.2 s at most. Where they cannot be measured, which
    is tried once, nothing is called impossible, and ``tell`` is told so.
    """

    def __init__(
        self,
        compiler: Compiler,
        cache: Cache,
        device: str,
        tell: Callable[[str], None] = lambda message: None,
        *,
        uris: Sequence[str] = (),
    ) -> None:
        self._compiler = compiler
        self._cache = cache
        self._tell = tell
        self.key = content_key(
            "limits",
            [YARDSTICK_VERSION, MEASUREMENT_VERSION],
            compiler.identity,
            runtime_version(),
            device,
            processors(),
            _sources(compiler),
            *ways_of_driving(uris, compiler.target.driver),
        )
        self._works = True
        self.built_key = content_key("yardsticks", YARDSTICK_VERSION, compiler.identity, _sources(compiler))

    def why_impossible(self, us: float, work: Work, child: DeviceChild) -> str:
        """Why no config can do ``work`` in ``us`` microseconds, in words; empty where one can, or nothing is known.

        Limits that were measured on a busy machine are too low, so nothing is called impossible by old ones: the
        yardsticks are run once more on ``child``'s device, and the better figures count from then on.

        Raises:
            DeviceChildDied: a yardstick crashed or hung.
        """
        known = self._cache.get("limits", self.key, Limits)
        if not self._works or (known is not None and not why_impossible(us, work, known)):
            return ""
        try:
            measured = _measure(child, self.built())
        except DeviceChildDied:
            self._works = False
            raise
        except (CommandFailed, DeviceRequestFailed) as error:
            self._works = False
            self._tell(f"what the device can reach is not known, so nothing is called impossible: {error}")
            return ""
        known = measured if known is None else known.better(measured)
        self._cache.put("limits", self.key, known)
        return why_impossible(us, work, known)

    def built(self) -> list[Yardstick]:
        """The compiled yardsticks, kept in the cache under ``built_key``.

        Raises:
            CommandFailed: they cannot be compiled.
        """
        known = self._cache.get("yardsticks", self.built_key, list[Yardstick])
        found = [placed for each in known or () if (placed := self._placed(each)) is not None]
        if not found or len(found) != len(known or ()):
            found = [self._build(*source) for source in _sources(self._compiler)]
            named = [msgspec.structs.replace(each, vmfb=Path(each.vmfb).name) for each in found]
            self._cache.put("yardsticks", self.built_key, named)
        return found

    def _placed(self, kept: Yardstick) -> Yardstick | None:
        """One from the cache with the path that its binary has here; ``None`` where that is not there, or damaged."""
        path = self._cache.binary("yardsticks", Path(kept.vmfb).stem, kept.sha256)
        return None if path is None else msgspec.structs.replace(kept, vmfb=str(path))

    def _build(self, source: str, moved: int, operations: int) -> Yardstick:
        (text,) = self._compiler.dump_benchmarks(source, "yardstick")
        found = read_benchmark(text, "yardstick", processors=processors())
        if isinstance(found, Untunable):
            raise CommandFailed(f"a yardstick cannot be read: {found.reason}")
        vmfb = self._cache.file("yardsticks", content_key(self.built_key, source), BINARY)
        self._compiler.compile_sources(found.module.text, vmfb, "yardstick")
        digest = file_digest(vmfb)
        return Yardstick(module=found.module, vmfb=str(vmfb), sha256=digest, bytes=moved, operations=operations)


def _sources(compiler: Compiler) -> list[tuple[str, int, int]]:
    """The yardsticks' MLIR, with the bytes and operations of each: one that does next to nothing, then by size."""
    sizes = _PRODUCTS_ON_CPU if compiler.target.shares_processor else _PRODUCTS_ON_GPU
    products = [(_product(size), 3 * _ELEMENT_BYTES * size**2, 2 * size**3) for size in sizes]
    copies = [(_copying(count), 2 * _ELEMENT_BYTES * count, 0) for count in (_TINY, _SMALL, _LARGE)]
    return [*copies, *products]


def _copying(count: int) -> str:
    """Copies with a sign change, since a plain copy would be no dispatch."""
    tensor = f"tensor<{count}xf32>"
    return f"""
        func.func @copying(%from: {tensor}) -> {tensor} {{
          %to = arith.negf %from : {tensor}
          return %to : {tensor}
        }}
    """


def _product(size: int) -> str:
    tensor = f"tensor<{size}x{size}xf32>"
    return f"""
        func.func @product(%lhs: {tensor}, %rhs: {tensor}) -> {tensor} {{
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : {tensor}
          %fill = linalg.fill ins(%zero : f32) outs(%empty : {tensor}) -> {tensor}
          %out = linalg.matmul ins(%lhs, %rhs : {tensor}, {tensor}) outs(%fill : {tensor}) -> {tensor}
          return %out : {tensor}
        }}
    """


def _measure(child: DeviceChild, yardsticks: list[Yardstick]) -> Limits:
    nothing = _best_s(child, yardsticks[0])
    moving = computing = 0.0
    for each in yardsticks[1:]:
        if (computing and each.operations / computing > _LONGEST_S) or (moving and each.bytes / moving > _LONGEST_S):
            continue
        seconds = _best_s(child, each)
        moving, computing = max(moving, each.bytes / seconds), max(computing, each.operations / seconds)
    return Limits(bytes_per_s=moving, operations_per_s=computing, launch_us=nothing * 1e6)


def _best_s(child: DeviceChild, yardstick: Yardstick) -> float:
    """The seconds of one dispatch in the best of a few batches."""
    key = "yardstick"
    child.load_benchmark(key, Path(yardstick.vmfb), yardstick.module)
    try:
        batch = calibrate(lambda count: child.run(key, count), _SAMPLE_S)
        return min(child.run(key, batch) for _ in range(_SAMPLES)) / batch
    finally:
        if child.alive:
            child.unload(key)
