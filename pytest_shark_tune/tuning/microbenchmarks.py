"""Roofline microbenchmarks: dispatches of our own that show the limits of a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.machine_code import machine_code
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.identity import runtime_version, ways_of_driving
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch, Untunable
from pytest_shark_tune.errors import CommandFailed, DeviceChildDied, DeviceRequestFailed, InputError
from pytest_shark_tune.measurement.roofline import SUSPICIOUS_RATIO, Limits, Work, why_impossible, work_of
from pytest_shark_tune.measurement.timing import MEASUREMENT_VERSION, Measurement, SizedMeasurement, calibrate
from pytest_shark_tune.system.cache import BINARY, Cache, content_key, file_digest
from pytest_shark_tune.system.machine import processors

__all__ = ["MICROBENCHMARK_VERSION", "Microbenchmark", "Microbenchmarks"]

MICROBENCHMARK_VERSION: Final = 3
"""How the limits of a device are measured, and the form of a `Microbenchmark` and of `Limits` in the cache.

Raise it if other limits would be found.
"""

_TINY, _SMALL, _LARGE = 64, 1 << 15, 1 << 22
"""The elements of the copies: next to none, as many as fit into caches, and enough to keep a whole GPU busy."""
_PRODUCTS_ON_CPU, _PRODUCTS_ON_GPU = (128, 512), (128, 512, 2048)
"""The sizes of the products, smallest first. The time of each one shows whether the next would take too long."""
_ELEMENT_BYTES = 4
_SAMPLE_S, _SAMPLES = 0.002, 5
_LONGEST_S = 0.05
"""A microbenchmark that would take longer, by the rate of a smaller one, is left out: some GPUs are software."""
_MOST_OPERATIONS = 2 * 512**3
"""A product that calibrates has at most so many operations, since it is timed beside every entry."""
_ATTEMPTS = 3
"""How often limits are measured before they call a time impossible."""


class Microbenchmark(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled microbenchmark."""

    module: BenchmarkModule
    """Its module."""
    vmfb: str
    """The path of its binary; in the cache, the name of it."""
    sha256: str
    """The hash of its binary."""
    bytes: int
    """The bytes that one dispatch moves."""
    operations: int
    """The operations of one dispatch."""


class Microbenchmarks:
    """The limits of the devices of one model, measured when first needed.

    They are needed rarely, for a candidate that is several times as fast as the default, so most runs pay nothing. The
    first one that needs them compiles five dispatches; later ones take at most 0.2 s. If the limits cannot be measured,
    which is tried once, nothing is called impossible.

    Args:
        compiler: compiles the dispatches.
        cache: holds binaries and limits.
        device: the model of the devices.
        report: gets a message if the limits cannot be measured.
        uris: the devices, which say how they are driven.
    """

    def __init__(
        self,
        compiler: Compiler,
        cache: Cache,
        device: str,
        report: Callable[[str], None] = lambda message: None,
        *,
        uris: Sequence[str] = (),
    ) -> None:
        self._compiler = compiler
        self._cache = cache
        self._report = report
        self.key = content_key(
            "limits",
            [MICROBENCHMARK_VERSION, MEASUREMENT_VERSION],
            compiler.identity,
            runtime_version(),
            device,
            processors(),
            _microbenchmark_sources(compiler),
            *ways_of_driving(uris, compiler.target.driver),
        )
        self._works = True
        self._bindings = Lock()
        self.built_key = content_key(
            "yardsticks", MICROBENCHMARK_VERSION, compiler.identity, _microbenchmark_sources(compiler)
        )

    def why_impossible(self, us: float, work: Work, child: DeviceChild, default_us: float = math.inf) -> str:
        """Explain why no config can do ``work`` in ``us`` microseconds, if the default takes ``default_us``.

        Limits that were measured on a busy machine are too low, so stored ones call nothing impossible: they are
        measured afresh on the device of ``child``, three times if need be, and the best ones are stored.

        Returns:
            The reason; empty if a config can, or if nothing is known.

        Raises:
            DeviceChildDied: a microbenchmark crashed or hung.
        """
        known = self._cache.get("limits", self.key, Limits)
        if not self._works or (known is not None and not why_impossible(us, work, known, default_us)):
            return ""
        why = ""
        for _ in range(_ATTEMPTS):
            known = self._measure(child, known)
            why = why_impossible(us, work, known, default_us) if known is not None else ""
            if not why:
                break
        return why

    def why_doubtful(self, dispatch: Dispatch, measured: Measurement, child: DeviceChild) -> str:
        """Explain why a measurement of a dispatch is impossible, as `why_impossible`; empty if nothing is suspicious.

        Raises:
            DeviceChildDied: a microbenchmark crashed or hung.
        """
        # The mean over several sizes is no time of a dispatch of known work.
        is_mean = isinstance(measured, SizedMeasurement)
        if is_mean or measured.cut_short or measured.ratio < SUSPICIOUS_RATIO:
            return ""
        work = work_of(dispatch.root, dispatch.members[0].module)
        return self.why_impossible(measured.median_us, work, child, measured.baseline_median_us)

    def limits(self, child: DeviceChild) -> Limits | None:
        """Return the limits of the device of ``child``; ``None`` if they cannot be measured.

        Raises:
            DeviceChildDied: a microbenchmark crashed or hung.
        """
        known = self._cache.get("limits", self.key, Limits)
        return known if known is not None or not self._works else self._measure(child, None)

    def calibrate(self, child: DeviceChild) -> dict[str, float]:
        """Time the largest copy and the products, to compare the speeds of a machine over time.

        Returns:
            Microseconds by a digest of the microbenchmark's machine code; nothing if they do not compile or run.

        Raises:
            DeviceChildDied: a microbenchmark crashed or hung.
        """
        if not self._works:
            return {}
        try:
            chosen = [built for built in self.built() if built.operations or built.bytes >= _LARGE]
            return {
                machine_code(Path(built.vmfb)): round(_best_s(child, built) * 1e6, 3)
                for built in chosen
                if built.operations <= _MOST_OPERATIONS
            }
        except (CommandFailed, DeviceRequestFailed, InputError) as error:
            self._works = False
            self._report(f"the speed of the machine cannot be measured: {error}")
            return {}

    @cached_property
    def largest(self) -> Microbenchmark:
        """The largest product that calibrates, beside which programs are timed.

        Raises:
            CommandFailed: it cannot be compiled.
        """
        known = (built for built in self.built() if built.operations <= _MOST_OPERATIONS)
        return max(known, key=lambda built: built.operations)

    @cached_property
    def largest_code(self) -> str:
        """The digest of its machine code."""
        return machine_code(Path(self.largest.vmfb))

    def _measure(self, child: DeviceChild, known: Limits | None) -> Limits | None:
        """Measure the limits, and store the better ones of both."""
        try:
            measured = _measure(child, self.built())
        except DeviceChildDied:
            self._works = False
            raise
        except (CommandFailed, DeviceRequestFailed) as error:
            self._works = False
            self._report(f"the limits of the device cannot be measured, so no result is called impossible: {error}")
            return None
        known = measured if known is None else known.better(measured)
        self._cache.put("limits", self.key, known)
        return known

    def built(self) -> list[Microbenchmark]:
        """The compiled microbenchmarks, from the cache or compiled now.

        Raises:
            CommandFailed: they cannot be compiled.
        """
        known = self._cache.get("yardsticks", self.built_key, list[Microbenchmark])
        found = [placed for stored in known or () if (placed := self._placed(stored)) is not None]
        if not found or len(found) != len(known or ()):
            with ThreadPoolExecutor(processors()) as pool:
                found = list(pool.map(lambda source: self._build(*source), _microbenchmark_sources(self._compiler)))
            named = [msgspec.structs.replace(built, vmfb=Path(built.vmfb).name) for built in found]
            self._cache.put("yardsticks", self.built_key, named)
        return found

    def _placed(self, kept: Microbenchmark) -> Microbenchmark | None:
        """A stored one with the path of its binary; ``None`` if the binary is missing or damaged."""
        path = self._cache.binary("yardsticks", Path(kept.vmfb).stem, kept.sha256)
        return None if path is None else msgspec.structs.replace(kept, vmfb=str(path))

    def _build(self, source: str, moved: int, operations: int) -> Microbenchmark:
        texts = self._compiler.dump_benchmarks(source, "yardstick")
        with self._bindings:  # They are not thread-safe.
            read = [read_benchmark(text, "yardstick", processors=processors()) for text in texts]
        # With the user's flags, packing may come before a product (--iree-opt-data-tiling).
        usable = [
            dispatch
            for dispatch in read
            if not isinstance(dispatch, Untunable) and (not operations or dispatch.root.kind == "contraction")
        ]
        if not usable:
            reasons = {dispatch.reason for dispatch in read if isinstance(dispatch, Untunable)}
            raise CommandFailed(
                f"a microbenchmark cannot be read: {'; '.join(sorted(reasons)) or 'it has no benchmark'}"
            )
        found = usable[0]
        vmfb = self._cache.file("yardsticks", content_key(self.built_key, source), BINARY)
        self._compiler.compile_sources(found.module.text, vmfb, "yardstick")
        digest = file_digest(vmfb)
        return Microbenchmark(module=found.module, vmfb=str(vmfb), sha256=digest, bytes=moved, operations=operations)


def _microbenchmark_sources(compiler: Compiler) -> list[tuple[str, int, int]]:
    """The MLIR of the microbenchmarks, with bytes and operations: one that does next to nothing, then by size."""
    sizes = _PRODUCTS_ON_CPU if compiler.target.shares_processor else _PRODUCTS_ON_GPU
    products = [(_product_source(size), 3 * _ELEMENT_BYTES * size**2, 2 * size**3) for size in sizes]
    copies = [(_copying(count), 2 * _ELEMENT_BYTES * count, 0) for count in (_TINY, _SMALL, _LARGE)]
    return [*copies, *products]


def _copying(count: int) -> str:
    """A copy with a sign change, since a plain copy would be no dispatch."""
    tensor = f"tensor<{count}xf32>"
    return f"""
        func.func @copying(%from: {tensor}) -> {tensor} {{
          %to = arith.negf %from : {tensor}
          return %to : {tensor}
        }}
    """


def _product_source(size: int) -> str:
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


def _measure(child: DeviceChild, microbenchmarks: list[Microbenchmark]) -> Limits:
    nothing = _best_s(child, microbenchmarks[0])
    moving = computing = 0.0
    for larger in microbenchmarks[1:]:
        if (computing and larger.operations / computing > _LONGEST_S) or (
            moving and larger.bytes / moving > _LONGEST_S
        ):
            continue
        seconds = _best_s(child, larger)
        moving, computing = max(moving, larger.bytes / seconds), max(computing, larger.operations / seconds)
    return Limits(bytes_per_s=moving, operations_per_s=computing, launch_us=nothing * 1e6)


def _best_s(child: DeviceChild, microbenchmark: Microbenchmark) -> float:
    """The seconds of one dispatch in the best of a few batches."""
    key = "yardstick"
    child.load_benchmark(key, Path(microbenchmark.vmfb), microbenchmark.module)
    try:
        batch = calibrate(lambda count: child.run(key, count), _SAMPLE_S)
        return min(child.run(key, batch) for _ in range(_SAMPLES)) / batch
    finally:
        if child.alive:
            child.unload(key)
