"""The process that holds a device: loads artifacts, fills their inputs, runs and checks them.

`pytest_shark_tune.device.client.DeviceChild` starts it as ``python -m pytest_shark_tune.device.server``. It reads
requests from stdin and writes replies to its original stdout. It imports the runtime and numpy but neither the compiler
nor pytest, so it starts in a fraction of a second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from pytest_shark_tune.device import protocol
from pytest_shark_tune.device.hal_device import HalDevice, driver_entries
from pytest_shark_tune.device.inputs import InputData
from pytest_shark_tune.device.loaded import Loaded, LoadedBenchmark, LoadedFunction
from pytest_shark_tune.device.parameters import parameter_sizes
from pytest_shark_tune.device.references import References
from pytest_shark_tune.system.child import die_with_parent, read_frame, write_frame

__all__ = ["DeviceServer", "main"]


class _LoadedModules(dict[str, Loaded]):
    """The loaded modules by key."""

    def __missing__(self, key: str) -> Loaded:
        raise KeyError(f"nothing is loaded under {key!r}")


class DeviceServer:
    """Answers the requests of one device child. An exception becomes the reply's error."""

    def __init__(self) -> None:
        self._device: HalDevice | None = None
        self._loaded = _LoadedModules()
        self._references = References(self._loaded)

    def answer(self, request: protocol.Request) -> Any:
        """Carry out a request, and return the value of the reply."""
        match request:
            case protocol.Open(uri):
                self._device = HalDevice(uri)
                self._device.frees.append(self._references.free_staged)
            case protocol.ListDevices(driver):
                return driver_entries(driver)
            case protocol.ListParameters(path):
                return parameter_sizes(path)
            case protocol.Describe():
                return self._opened().describe()
            case protocol.LoadBenchmark(key=key):
                self.unload(key)
                self._loaded[key] = LoadedBenchmark(self._opened(), request)
            case protocol.LoadFunction(key=key):
                self.unload(key)
                self._loaded[key] = LoadedFunction(self._opened(), request)
            case protocol.Fill(key, seed):
                self._loaded[key].fill(InputData(seed))
            case protocol.RunBatch(key, batch):
                return self.run(key, batch)
            case protocol.StoreReference(key, name, seed, outputs):
                self._references.keep(key, name, seed, outputs)
            case protocol.CheckOutputs(key, name, acceptance, edges):
                check = self._references.check_edges if edges else self._references.check
                return check(key, name, acceptance)
            case protocol.LearnResponse(key, name, relative):
                self._references.learn_response(key, name, relative)
            case protocol.Read(key):
                return self._loaded[key].tensors()
            case protocol.Unload(key):
                self.unload(key)
        return None

    def run(self, key: str, batch: int) -> float:
        """Run a batch of dispatches, and return the seconds that they took."""
        loaded = self._loaded[key]
        if batch < 1:
            raise ValueError(f"a batch has at least one dispatch, not {batch}")
        if not loaded.filled:
            loaded.fill(InputData(0))
        return loaded.run(batch)

    def unload(self, key: str) -> None:
        """Unload the module of ``key``, if there is one."""
        self._loaded.pop(key, None)

    def works(self) -> bool:
        """Whether the device works, if it has been opened."""
        return self._device is None or self._device.works()

    def _opened(self) -> HalDevice:
        if self._device is None:
            raise RuntimeError("no device has been opened")
        return self._device


def main(serve: Callable[[], DeviceServer] = DeviceServer) -> None:
    """Answer requests until stdin ends. Other output goes to stderr."""
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
    os._exit(0)  # Without tearing drivers down, in whatever order.


if __name__ == "__main__":
    main()
