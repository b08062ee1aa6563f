"""The process that holds a device: loads artifacts, fills their inputs, runs and checks them.

Started by `pytest_shark_tune.device.client.DeviceChild`; ``python -m pytest_shark_tune.device.server``
reads requests from stdin and writes replies to what was its stdout. Imports the runtime and numpy, not the
compiler and not pytest, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import iree.runtime as rt
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device import identity, protocol
from pytest_shark_tune.device.buffers import (
    _IMAGES_KEPT,
    _IMAGES_KEPT_BYTES,
    Bytes,
    _comparable,
    _Data,
    _hides_poison,
    _Image,
    _Layout,
    _smallest_step,
    _storage,
    _unwritten,
)
from pytest_shark_tune.device.loaded import _Benchmark, _Function, _Kept, _Result
from pytest_shark_tune.measurement.correctness import (
    Acceptance,
    Check,
    Response,
    Tolerance,
    check_output,
    magnitude,
    merge_checks,
    response,
)
from pytest_shark_tune.system.child import die_with_parent, read_frame, write_frame

__all__ = ["DeviceServer", "main"]


_READ_THROUGH_STAGING = ("vulkan",)
"""Drivers that take a host's memory only from the start of a page on, which IREE's copy to the host ignores."""


class _Reference(msgspec.Struct, frozen=True):
    """What a result is compared with: one ``kept`` for each poison that it takes to see what is never written.

    It is of what is loaded as ``key``.
    """

    key: str
    seed: int
    kept: tuple[_Kept, ...]


class DeviceServer:
    """Answers the requests of one device child. A method per request; what it raises becomes the reply's error."""

    def __init__(self) -> None:
        self.uri = ""
        self.device: Any = None
        self._instance = rt.VmInstance()
        self._hal_module: Any = None
        self._loaded: dict[str, _Benchmark | _Function] = {}
        self._references: dict[str, _Reference] = {}
        self._on_other_data: dict[str, dict[_Data, _Kept]] = {}
        self._unsure: dict[str, list[NDArray[np.bool_] | None]] = {}
        self._responses: dict[str, tuple[Response | None, ...]] = {}
        self._images: dict[tuple[_Layout, _Data], _Image] = {}

    def answer(self, request: protocol.Request) -> Any:
        """The value of the reply to ``request``."""
        match request:
            case protocol.Open(uri):
                self.open(uri)
            case protocol.ListDevices(driver):
                return _list_devices(driver)
            case protocol.Describe():
                return self.describe()
            case protocol.LoadBenchmark(key=key):
                self.unload(key)
                self._loaded[key] = _Benchmark(self, request)
            case protocol.LoadFunction(key=key):
                self.unload(key)
                self._loaded[key] = _Function(self, request)
            case protocol.Fill(key, seed):
                self._get(key).fill(_Data(seed))
            case protocol.RunBatch(key, batch):
                return self.run(key, batch)
            case protocol.KeepReference(key, name, seed):
                self.keep_reference(key, name, seed)
            case protocol.CheckOutputs(key, name, acceptance, edges):
                return self.check_edges(key, name, acceptance) if edges else self.check(key, name, acceptance)
            case protocol.LearnResponse(key, name, relative):
                self.learn_response(key, name, relative)
            case protocol.Read(key):
                return self._get(key).tensors()
            case protocol.Unload(key):
                self.unload(key)
        return None

    def open(self, uri: str) -> None:
        """Hold the device at ``uri`` from here on."""
        self.device = rt.get_device(uri)
        self.uri = uri
        self._hal_module = rt.create_hal_module(self._instance, self.device)

    def describe(self) -> protocol.DeviceInfo:
        """What the device is."""
        driver = self.uri.partition("://")[0]
        if driver.startswith("local"):
            name = identity.cpu_name()
        else:
            entry = identity.find_device(self.uri, _list_devices(driver))
            name = driver if entry is None else entry.name
        return protocol.DeviceInfo(self.uri, driver, name, identity.slug(name), identity.runtime_version())

    def run(self, key: str, batch: int) -> float:
        """Run ``batch`` dispatches; the seconds they took together."""
        loaded = self._get(key)
        if batch < 1:
            raise ValueError(f"a batch has at least one dispatch, not {batch}")
        if not loaded.filled:
            loaded.fill(_Data(0))
        return loaded.run(batch)

    def keep_reference(self, key: str, name: str, seed: int) -> None:
        """Fill from ``seed``, run once and keep the outputs as ``name``."""
        first = _kept(self._run_once(key, _Data(seed))[0])
        kept = [first]
        if any(map(_hides_poison, first.result.outputs, first.values)):
            kept.append(_kept(self._run_once(key, _Data(seed, poison=1))[0]))
        self._references[name] = _Reference(key, seed, tuple(kept))
        for known in (self._on_other_data, self._unsure, self._responses):
            known.pop(name, None)

    def check(self, key: str, name: str, acceptance: Acceptance) -> Check:
        """Fill and run as for reference ``name``, and compare the outputs with it, then on exact data.

        Where they are out of tolerance, it counts how far the reference itself is off if its inputs are.
        """
        reference = self._reference(name)
        for poison, kept in enumerate(reference.kept):
            results = self._run_once(key, _Data(reference.seed, poison))
            check = _check_results(results, kept, reference.seed, acceptance.tolerance, key, name)
            if not check.ok and (responses := self._responses_of(name)):
                check = _check_results(results, kept, reference.seed, acceptance.tolerance, key, name, responses)
            if not check.ok:
                return check
        if acceptance.data is not None and self._loaded.get(reference.key) is not None:
            try:
                for trial in range(acceptance.data.rounds):
                    data = _Data(reference.seed, trial=trial, exact=acceptance.data)
                    kept = self._kept_on(name, data)
                    exact = _check_results(self._run_once(key, data), kept, reference.seed, acceptance.exact, key, name)
                    if not exact.ok:
                        check = exact
                        break
            finally:
                self._restore(key, reference)
        return check

    def check_edges(self, key: str, name: str, acceptance: Acceptance) -> Check:
        """Compare the outputs with the reference's on special values among the inputs.

        The magnitude is that of most elements, as some are very large; those are off in proportion to themselves.
        """
        reference = self._reference(name)
        data = _Data(reference.seed, edges=True)
        try:
            kept = self._kept_on(name, data)
            if name not in self._unsure:
                loaded = self._get(reference.key)
                self._unsure[name] = (
                    loaded.unsure(kept) if isinstance(loaded, _Benchmark) else [None] * len(kept.values)
                )
            tolerance = acceptance.tolerance
            results = self._run_once(key, data)
            return _check_results(
                results, kept, reference.seed, tolerance, key, name, unsure=self._unsure[name], elementwise=True
            )
        finally:
            self._restore(key, reference)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Add how the results of ``key`` differ from reference ``name`` to what is known of its answers."""
        reference = self._reference(name)
        was, now = reference.kept[0], _kept(self._run_once(key, _Data(reference.seed))[0]).values
        if [values.shape for values in was.values] != [values.shape for values in now]:
            raise ValueError(f"outputs of {key!r} cannot be compared with reference {name!r}")
        found = _responses(was, [now], relative / 2**0.5)
        known = self._responses_of(name) or (None,) * len(found)
        self._responses[name] = tuple(map(_larger, known, found))

    def _reference(self, name: str) -> _Reference:
        if name not in self._references:
            raise KeyError(f"no reference {name!r} is kept")
        return self._references[name]

    def _kept_on(self, name: str, data: _Data) -> _Kept:
        """The reference's results on other data than its own."""
        known = self._on_other_data.setdefault(name, {})
        if data not in known:
            known[data] = _kept(self._run_once(self._references[name].key, data)[0])
        return known[data]

    def _restore(self, key: str, reference: _Reference) -> None:
        """Fill with the reference's own data what ran on other data, as timing may depend on it."""
        for filled in {key, reference.key}:
            self._get(filled).fill(_Data(reference.seed))

    def _responses_of(self, name: str) -> tuple[Response | None, ...]:
        """How each output of a reference answers to inputs that are off; empty where none can be."""
        if name not in self._responses:
            reference = self._references[name]
            loaded, was = self._loaded.get(reference.key), reference.kept[0]
            found: tuple[Response | None, ...] = ()
            if loaded is not None and loaded.step:
                runs = []
                started = time.perf_counter()
                for trial in range(_RESPONSE_RUNS):
                    data = _Data(reference.seed, disturbed=loaded.step, trial=trial)
                    runs.append(_kept(self._run_once(reference.key, data)[0]).values)
                    if trial + 1 >= _FEWEST_RESPONSE_RUNS and time.perf_counter() - started > _RESPONSE_S:
                        break
                loaded.fill(_Data(reference.seed))
                found = _responses(was, runs, loaded.step)
            self._responses[name] = found
        return self._responses[name]

    def unload(self, key: str) -> None:
        """Free what ``key`` holds."""
        self._loaded.pop(key, None)

    def works(self) -> bool:
        """Whether the device still copies data, which one that met an illegal access does not."""
        if self.device is None:
            return True
        try:
            probe = np.arange(64, dtype=np.uint8)
            buffer = self.device.allocator.allocate_buffer_copy(
                memory_type=rt.MemoryType.DEVICE_LOCAL,
                allowed_usage=rt.BufferUsage.DEFAULT,
                device=self.device,
                buffer=probe,
            )
            return bool(np.array_equal(self._bytes_of(buffer), probe))
        except Exception:
            return False

    def load(self, path: str) -> tuple[Any, Any]:
        """A context and the module in it."""
        if self.device is None:
            raise RuntimeError("no device has been opened")
        module = rt.VmModule.copy_buffer(self._instance, Path(path).read_bytes())
        return rt.VmContext(self._instance, modules=[self._hal_module, module]), module

    def image(self, layout: _Layout, data: _Data) -> _Image:
        """What such data puts into such a buffer; the last few are kept."""
        key = (layout, data)
        image = self._images.pop(key, None) or _Image(*key)
        while self._images and (
            len(self._images) >= _IMAGES_KEPT
            or sum(kept.size for kept, *_ in self._images) + layout.size > _IMAGES_KEPT_BYTES
        ):
            del self._images[next(iter(self._images))]
        self._images[key] = image
        return image

    def copy(self, source: Any, target: Any) -> None:
        """Copy the whole of ``source`` to the start of ``target`` on the device's queue, and wait."""
        semaphore = self.device.create_semaphore(0)
        self.device.queue_copy(
            source,
            target,
            wait_semaphores=rt.HalFence.create_at(semaphore, 0),
            signal_semaphores=rt.HalFence.create_at(semaphore, 1),
        )
        rt.HalFence.create_at(semaphore, 1).wait()

    def read(self, view: Any) -> Bytes:
        """The bytes of a buffer view, copied to the host."""
        return self._bytes_of(view.get_buffer())

    def _bytes_of(self, buffer: Any) -> Bytes:
        size = buffer.byte_length()
        if self.uri.partition("://")[0] in _READ_THROUGH_STAGING:
            staging = self.device.allocator.allocate_buffer(
                memory_type=rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE,
                allowed_usage=rt.BufferUsage.TRANSFER | rt.BufferUsage.MAPPING,
                allocation_size=size,
            )
            self.copy(buffer, staging)
            return np.array(staging.map().asarray((size,), np.dtype(np.uint8)), np.uint8)
        host = rt.DeviceArray(self.device, rt.HalBufferView(buffer, [size], rt.HalElementType.UINT_8)).to_host()
        copied = host if host.flags.owndata else host.copy()  # What is mapped changes with the next run.
        return np.asarray(copied, np.uint8).reshape(-1)

    def _get(self, key: str) -> _Benchmark | _Function:
        if key not in self._loaded:
            raise KeyError(f"nothing is loaded under {key!r}")
        return self._loaded[key]

    def _run_once(self, key: str, data: _Data) -> tuple[_Result, ...]:
        """Fill, and run one dispatch on each copy of the data."""
        loaded = self._get(key)
        loaded.fill(data)
        loaded.run(loaded.copies)
        return loaded.results()


_RESPONSE_RUNS = 8
_FEWEST_RESPONSE_RUNS = 4
_RESPONSE_S = 10.0
"""No more runs than the fewest are made once they have taken so long."""


def _kept(result: _Result) -> _Kept:
    values = tuple(_comparable(output.raw, output.element, output.shape) for output in result.outputs)
    return _Kept(result, values, tuple(magnitude(part) if part.dtype.kind == "f" else 0.0 for part in values))


def _responses(was: _Kept, runs: Sequence[tuple[Any, ...]], relative: float) -> tuple[Response | None, ...]:
    """How each output answers, ``None`` for integers."""
    return tuple(
        response(part, [run[number] for run in runs], relative) if part.dtype.kind == "f" else None
        for number, part in enumerate(was.values)
    )


def _larger(one: Response | None, other: Response | None) -> Response | None:
    if one is None or other is None:
        return one or other
    return Response(np.maximum(one.elements, other.elements))


def _check_results(
    results: Sequence[_Result],
    kept: _Kept,
    seed: int,
    tolerance: Tolerance,
    key: str,
    name: str,
    responses: Sequence[Response | None] = (),
    *,
    unsure: Sequence[NDArray[np.bool_] | None] = (),
    elementwise: bool = False,
) -> Check:
    """Compare what a run left in the copies of the data that differ with reference ``name``.

    ``responses`` are its outputs', or empty. ``unsure`` says where only finite numbers are compared, ``None`` for
    everywhere; where it is empty all are.
    """
    ours = [(output.element, output.shape) for output in results[0].outputs]
    theirs = [(output.element, output.shape) for output in kept.result.outputs]
    if ours != theirs:
        raise ValueError(f"outputs {ours} cannot be compared with reference {name!r}, which has {theirs}")
    if not ours:
        raise ValueError(f"{key!r} has no outputs to compare")
    merged = []
    for result in results:
        checks = []
        for number, (output, expected) in enumerate(zip(result.outputs, kept.result.outputs, strict=True)):
            allowed = tolerance
            if _storage(output.element, ())[1].kind == "float":
                allowed = tolerance.stored_as(output.element)
            scale = kept.magnitudes[number]
            if elementwise:
                scale = _usual(kept.values[number])
                allowed = msgspec.structs.replace(allowed, rtol=allowed.rtol + allowed.atol_scale)
            check = check_output(
                kept.values[number],
                _comparable(output.raw, output.element, output.shape),
                allowed,
                scale=scale,
                answers=responses[number] if responses else None,
                floor=_smallest_step(output.element),
                finite_only=_finite_only(unsure, number),
                seed=seed,
                output=number,
            )
            left = _unwritten(output, expected) if output.before is not None and not check.ok else 0
            checks.append(msgspec.structs.replace(check, copy=result.copy, poison_left=left))
        # What the reference changes outside its outputs too may be scratch memory.
        stray = 0 if kept.result.stray else result.stray
        one = merge_checks(checks)
        merged.append(msgspec.structs.replace(one, ok=one.ok and not stray, stray_bytes=stray))
    return merge_checks(merged)


def _finite_only(unsure: Sequence[NDArray[np.bool_] | None], number: int) -> NDArray[np.bool_] | bool:
    """Where only finite numbers of an output are compared."""
    if not unsure:
        return False
    places = unsure[number]
    return True if places is None else places


def _usual(values: NDArray[Any]) -> float:
    """The magnitude of most elements: of all but the twentieth that is largest."""
    if values.dtype.kind != "f":
        return 0.0
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _ENOUGH_FOR_A_QUANTILE)]
    finite = np.abs(some[np.isfinite(some)])
    if not finite.size:
        return 0.0
    return magnitude(finite[finite <= np.quantile(finite, 0.95)]) or magnitude(finite)


_ENOUGH_FOR_A_QUANTILE = 1 << 20


def _list_devices(driver: str) -> list[protocol.DeviceEntry]:
    entries = []
    for index, device in enumerate(rt.get_driver(driver).query_available_devices()):
        path = str(device.get("path") or "")
        uri = f"{driver}://{path}" if path else driver
        entries.append(protocol.DeviceEntry(uri, str(device.get("name") or driver), path, index))
    return entries


def main(serve: Callable[[], DeviceServer] = DeviceServer) -> None:
    """Answer requests until stdin ends. Whatever else is printed goes to stderr."""
    die_with_parent()
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    decode = msgspec.msgpack.Decoder(protocol.Request).decode
    encode = msgspec.msgpack.Encoder().encode
    server = serve()
    while (payload := read_frame(requests)) is not None:
        reply: protocol.Reply[Any]
        try:
            reply = protocol.Reply(value=server.answer(decode(payload)))
        except Exception as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            reply = protocol.Reply(error=f"{type(error).__name__}: {text}")
            error.__traceback__ = None
        if reply.error is not None and not server.works():
            reply = msgspec.structs.replace(reply, lost=True)
        write_frame(replies, encode(reply))
    sys.stderr.flush()
    os._exit(0)  # The order in which drivers are torn down is nobody's business any more.


if __name__ == "__main__":
    main()
