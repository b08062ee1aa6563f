"""Memory of a device that is used up: what can be made again makes room."""

from __future__ import annotations

import pytest

from pytest_shark_tune.device.hal_device import HalDevice


def test_copies_make_room_once() -> None:
    device = HalDevice("local-sync")
    freed: list[str] = []
    device.frees.append(lambda: freed.append("results"))
    attempts: list[int] = []

    def make() -> str:
        attempts.append(1)
        if not freed:
            raise RuntimeError("RESOURCE_EXHAUSTED; out of device memory")
        return "made"

    assert device._with_room(make) == "made"
    assert (freed, len(attempts)) == (["results"], 2)


def test_other_errors_free_nothing() -> None:
    device = HalDevice("local-sync")
    freed: list[str] = []
    device.frees.append(lambda: freed.append("results"))

    def make() -> str:
        raise RuntimeError("INVALID_ARGUMENT; no such thing")

    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        device._with_room(make)
    assert not freed
