"""What a dispatch has to do at least, and from which time on that is impossible."""

from __future__ import annotations

import pytest

from pytest_shark_tune.dispatch.types import BenchmarkModule, BufferView, RootOp, Tensor
from pytest_shark_tune.measurement.roofline import Limits, Rates, Work, rates_of, why_impossible, work_of

M, N, K = 64, 32, 128
LIMITS = Limits(bytes_per_s=1e12, operations_per_s=1e13, launch_us=2.0)


def view(*shape: int, element: str = "f32", reads: bool = True, writes: bool = False) -> BufferView:
    return BufferView(offset_bytes=0, shape=shape, element=element, reads=reads, writes=writes)


def module(*views: BufferView) -> BenchmarkModule:
    return BenchmarkModule(text="", run_function="", buffer_function="", buffer_bytes=0, views=views)


def root(kind: str, loops: tuple[int, ...], *inputs: Tensor, strides: tuple[int, ...] = ()) -> RootOp:
    return RootOp(
        op="linalg.generic",
        kind=kind,
        loops=loops,
        iterators=("parallel",) * len(loops),
        maps=(),
        inputs=inputs,
        outputs=(Tensor((1,), "f32"),),
        strides=strides,
    )


@pytest.mark.parametrize(("element", "bits"), [("f32", 32), ("f16", 16), ("f8E4M3FN", 8), ("i4", 4), ("index", 32)])
def test_the_work_of_a_matmul(element: str, bits: int) -> None:
    lhs, rhs = Tensor((M, K), element), Tensor((K, N), element)
    views = view(M, K, element=element), view(K, N, element=element), view(M, N, reads=False, writes=True)
    work = work_of(root("contraction", (M, N, K), lhs, rhs), module(*views))
    assert work == Work(bytes=(M * K + K * N) * bits // 8 + M * N * 4, operations=2 * M * N * K, bits=bits)


def test_the_speed_of_a_matmul() -> None:
    product = root("contraction", (512, 512, 512), *[Tensor((512, 512), "f32")] * 2)
    rates = rates_of(product, us=1000.0, least=800.0)
    assert rates.gflops == pytest.approx(2 * 512**3 / 1e6)
    assert rates.gb_per_s == pytest.approx((2 * 512 * 512 + 1) * 4 / 1e6)
    assert rates.of_limit == pytest.approx(0.8)


def test_operations_that_are_not_known_have_no_speed() -> None:
    assert rates_of(root("other", (M, N), Tensor((M, N), "f16")), us=1.0) == Rates(gflops=None, gb_per_s=4.1)


@pytest.mark.parametrize(
    ("views", "moved"),
    [
        pytest.param((view(M, N), view(M, N, reads=False, writes=True)), 2 * M * N * 4, id="whole"),
        pytest.param((view(10 * M, N), view(M, N, reads=False, writes=True)), M * N * 4, id="slice"),
        pytest.param((view(N), view(M, N, reads=False, writes=True)), M * N * 4, id="broadcast"),
        pytest.param((view(M, N), view(10 * M, N, writes=True)), M * N * 4, id="written in part"),
        pytest.param((view(M * N, element="i8"), view(M, N, reads=False, writes=True)), M * N * 5, id="widened"),
    ],
)
def test_only_what_surely_moves_counts(views: tuple[BufferView, ...], moved: int) -> None:
    assert work_of(root("other", (M, N), Tensor((M, N), "f32")), module(*views)) == Work(bytes=moved)


def test_what_a_stride_skips_does_not_count() -> None:
    image, filters, out = view(1, 8, 8, 4), view(1, 1, 4, 16), view(1, 4, 4, 16, reads=False, writes=True)
    loops, inputs = (1, 4, 4, 16, 1, 1, 4), (Tensor(image.shape, "f32"), Tensor(filters.shape, "f32"))
    dense = work_of(root("convolution", loops, *inputs, strides=(1, 1)), module(image, filters, out))
    strided = work_of(root("convolution", loops, *inputs, strides=(2, 2)), module(image, filters, out))
    assert dense.bytes == 4 * (256 + 64 + 256)
    assert strided.bytes == 4 * 256
    assert strided.operations == dense.operations == 2 * 4 * 4 * 16 * 4


@pytest.mark.parametrize(
    ("work", "least_us", "words"),
    [
        # 4 times 1 TB/s, 8 times 10 TFLOP/s, 16 * 2 times that for f16, a quarter of 2 us.
        (Work(bytes=40_000_000), 10.0, "moving its 40 MB takes at least 10 us, at 4 times the 1 TB/s that copying"),
        (
            Work(bytes=1, operations=8 * 10**9),
            100.0,
            "its 8e+09 operations take at least 100 us, at 8 times the 1e+13 f32",
        ),
        (
            Work(bytes=1, operations=256 * 10**9, bits=16),
            100.0,
            "operations take at least 100 us, at 256 times the 1e+13",
        ),
        (Work(bytes=1), 0.5, "a dispatch that does nothing takes 2 us"),
    ],
)
def test_what_is_impossible_and_why(work: Work, least_us: float, words: str) -> None:
    reason = why_impossible(0.99 * least_us, work, LIMITS)
    assert reason.startswith(f"impossibly fast: {0.99 * least_us:.3g} us a dispatch, where ")
    assert words in reason
    assert why_impossible(1.01 * least_us, work, LIMITS) == ""


def test_what_the_default_reaches_is_possible_on_the_device() -> None:
    product = Work(bytes=3 * 512 * 512 * 4, operations=2 * 512**3)
    slow = Limits(bytes_per_s=1e12, operations_per_s=1e11, launch_us=2.0)  # The microbenchmark suits the device badly.
    assert "take at least 336 us" in why_impossible(37.0, product, slow)
    assert why_impossible(37.0, product, slow, default_us=188.0) == ""
    assert "impossibly fast" in why_impossible(23.0, product, slow, default_us=188.0)
    assert "impossibly fast" in why_impossible(23.0, product, slow, default_us=1e6)


def test_a_busy_machine_lowers_no_limit() -> None:
    busy = Limits(bytes_per_s=1e11, operations_per_s=2e13, launch_us=9.0)
    assert LIMITS.better(busy) == busy.better(LIMITS) == Limits(bytes_per_s=1e12, operations_per_s=2e13, launch_us=2.0)
