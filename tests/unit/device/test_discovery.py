"""Which devices a run takes: over lists in the form that drivers give them, CUDA's with a UUID for each GPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import choose_devices, crowding, jobs_of_worker
from pytest_shark_tune.device.identity import ways_of_driving
from pytest_shark_tune.device.protocol import DeviceEntry
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.plugin.preflight import find_devices

CUDA, HIP, VULKAN = (Target.parse(text) for text in ("cuda:sm_89", "hip:gfx942", "vulkan:rdna3"))
A, B = "cuda://GPU-6f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8", "cuda://GPU-9b8a7c6d-5e4f-3021-8493-a2b1c0d9e8f7"


def entry(uri: str, index: int, name: str = "NVIDIA H200") -> DeviceEntry:
    return DeviceEntry(uri=uri, name=name, path=uri.partition("://")[2], index=index)


PAIR = (entry(A, 0), entry(B, 1))


def chosen(
    *asked: str,
    target: Target = CUDA,
    entries: Sequence[DeviceEntry] = PAIR,
    env: dict[str, str] | None = None,
) -> list[str]:
    return choose_devices(asked, target, lambda driver: entries, env or {})["uris"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), [A, B]),
        (("cuda",), [A]),
        (("cuda://1",), [B]),
        (("cuda://1", "cuda://0"), [B, A]),
        (("cuda", "cuda://0", A), [A]),
        ((B, "cuda://1", "cuda"), [B, A]),
        (("cuda://1?x=1",), [f"{B}?x=1"]),
    ],
)
def test_each_device_is_named_once_and_by_its_uuid(asked: tuple[str, ...], expected: list[str]) -> None:
    assert chosen(*asked) == expected


def test_an_index_means_what_the_driver_lists() -> None:
    hidden = (entry(B, 0),)  # CUDA_VISIBLE_DEVICES=1
    assert chosen("cuda://0", entries=hidden) == chosen("cuda://1")


def test_a_driver_without_uuids_goes_by_index() -> None:
    entries = [DeviceEntry("vulkan", "llvmpipe", "", 0), DeviceEntry("vulkan", "llvmpipe", "", 1)]
    assert chosen(target=VULKAN, entries=entries) == ["vulkan", "vulkan://1"]
    assert chosen("vulkan://0", "vulkan", target=VULKAN, entries=entries) == ["vulkan"]


@pytest.mark.parametrize(
    ("asked", "target", "env", "message"),
    [
        ("cuda://1", CUDA, {"CUDA_VISIBLE_DEVICES": "0"}, f"has {A} with CUDA_VISIBLE_DEVICES='0', which hides every"),
        ("cuda://1", CUDA, {"HIP_VISIBLE_DEVICES": "0"}, f"there is no device 'cuda://1'; driver cuda has {A}$"),
        (B, CUDA, {"CUDA_VISIBLE_DEVICES": "GPU-6f1a"}, f"no device '{B}'; .* with CUDA_VISIBLE_DEVICES='GPU-6f1a'"),
        ("hip://1", HIP, {"ROCR_VISIBLE_DEVICES": "0"}, "with ROCR_VISIBLE_DEVICES='0', which"),
        ("hip://1", HIP, dict.fromkeys(("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "0"), "HIP_.* and ROCR_"),
        ("warp://0", CUDA, {}, "there is no driver 'warp'"),
        ("vulkan", CUDA, {}, "code for cuda:sm_89 runs on cuda, not on 'vulkan'"),
        ("cuda://0,cuda://0?x=1", CUDA, {}, f"{A!r} and '{A}\\?x=1' are one device: name it once"),
    ],
)
def test_what_cannot_be_had_is_told(asked: str, target: Target, env: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        chosen(*asked.split(","), target=target, entries=[entry(A, 0)], env=env)
    assert str(raised.value).startswith("--tune-device: ")


def test_hiding_every_device_is_told_too() -> None:
    with pytest.raises(InputError, match=r"there is no device; driver cuda has none with CUDA_VISIBLE_DEVICES=''"):
        chosen(entries=[], env={"CUDA_VISIBLE_DEVICES": ""})


def test_devices_of_two_models_are_refused() -> None:
    with pytest.raises(InputError, match=r"the devices differ \(NVIDIA H200, Tesla T4\)"):
        chosen(entries=[entry(A, 0), entry(B, 1, "Tesla T4")])
    assert chosen("cuda://1", entries=[entry(A, 0), entry(B, 1, "Tesla T4")]) == [B]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("", ["local-task"]), ("local-task,local-task", ["local-task"]), ("local-sync", ["local-sync"])],
)
def test_the_processor_is_one_device(pytester: pytest.Pytester, asked: str, expected: list[str]) -> None:
    options = TuneOptions.from_pytest_config(pytester.parseconfig("--tune", f"--tune-device={asked}"))
    assert find_devices(options)["uris"] == expected


def test_the_processor_driven_in_two_ways_is_refused(pytester: pytest.Pytester) -> None:
    options = TuneOptions.from_pytest_config(pytester.parseconfig("--tune", "--tune-device=local-task,local-sync"))
    with pytest.raises(pytest.UsageError, match="'local-task' and 'local-sync' are one device: name it once"):
        find_devices(options)


@pytest.mark.parametrize(
    ("jobs", "workers", "target", "share"),
    [(32, 2, CUDA, 16), (3, 2, CUDA, 1), (1, 4, CUDA, 1), (8, 1, CUDA, 8), (8, 4, Target.parse("llvm-cpu"), 8)],
)
def test_workers_share_the_compilations_at_a_time(jobs: int, workers: int, target: Target, share: int) -> None:
    assert jobs_of_worker(jobs, workers, target) == share


def test_more_workers_than_devices_are_told() -> None:
    assert crowding(2, [A, B]) == ""
    assert crowding(4, [A, B]).startswith(f"4 workers share 2 devices ({A}, {B}) and measure in turns")
    assert crowding(2, ["local-task"]).startswith("2 workers share 1 device (local-task) ")


@pytest.mark.parametrize(
    ("uris", "ways"),
    [
        ([], []),
        (["cuda"], []),
        ([A, B], []),
        ([f"{A}?x=1", f"{B}?x=1"], ["cuda?x=1"]),
        (["cuda?x=1"], ["cuda?x=1"]),
        ([A, f"{B}?x=1"], ["cuda", "cuda?x=1"]),
        (["other://0"], ["other"]),
    ],
)
def test_how_devices_are_driven_says_nothing_of_which_they_are(uris: list[str], ways: list[str]) -> None:
    assert ways_of_driving(uris, "cuda") == ways
