"""What a legitimate reordering of a sum may change passes, and what a wrong candidate gets wrong fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.dispatch.types import Numerics, Sum
from pytest_shark_tune.measurement.acceptance import ExactData, acceptance_for, tolerance_in_model
from pytest_shark_tune.measurement.correctness import (
    EXACT,
    Check,
    Tolerance,
    check_output,
    magnitude,
    merge_checks,
    response,
    tolerance_for,
)

Array = NDArray[Any]

F8 = ml_dtypes.float8_e4m3fnuz
TYPES = [
    pytest.param("f32", "f32", np.float32, np.float32, id="f32"),
    pytest.param("f16", "f16", np.float16, np.float16, id="f16"),
    pytest.param("bf16", "bf16", ml_dtypes.bfloat16, ml_dtypes.bfloat16, id="bf16"),
    pytest.param("f16", "f32", np.float16, np.float32, id="f16-f32"),
    pytest.param("bf16", "f32", ml_dtypes.bfloat16, np.float32, id="bf16-f32"),
    pytest.param("f8E4M3FNUZ", "f32", F8, np.float32, id="f8-f32"),
]


def inputs(k: int, dtype: Any, size: int = 128) -> tuple[Array, Array]:
    rng = np.random.default_rng(k)
    shapes = ((size, k), (k, size))
    lhs, rhs = ((rng.random(shape, dtype=np.float32) * 2 - 1).astype(dtype) for shape in shapes)
    return lhs, rhs


def accumulate(lhs: Array, rhs: Array, order: list[int], dtype: Any, step: int = 1) -> Array:
    """The matmul with its sums made in ``dtype``, ``step`` products at a time, in the given order of k."""
    total = np.zeros((lhs.shape[0], rhs.shape[1]), dtype)
    for start in range(0, len(order), step):
        ks = order[start : start + step]
        products = lhs[:, ks].astype(np.float32) @ rhs[ks].astype(np.float32)
        total = (total + products.astype(dtype)).astype(dtype)
    return total.astype(np.float32)


@pytest.mark.parametrize("k", [16, 64, 512])
@pytest.mark.parametrize(("name_in", "name_out", "dtype_in", "dtype_out"), TYPES)
def test_other_orders_of_a_sum_pass(name_in: str, name_out: str, dtype_in: Any, dtype_out: Any, k: int) -> None:
    lhs, rhs = inputs(k, dtype_in)
    order = list(range(k))
    expected = accumulate(lhs, rhs, order, dtype_out)
    shuffled = [int(i) for i in np.random.default_rng(k).permutation(k)]
    tolerance = tolerance_for(name_in, name_out, k)
    for other, step in ((order[::-1], 1), (shuffled, 1), (order, 16)):
        check = check_output(expected, accumulate(lhs, rhs, other, dtype_out, step), tolerance)
        assert check.ok, check.reason
        # A hundred thousand times more elements reach 1.5 times as far (normal deviations: 4.0 and 6.1).
        assert check.worst < 1 / 1.5


@pytest.mark.parametrize("k", [64, 512])
@pytest.mark.parametrize(("name_in", "name_out", "dtype_in", "dtype_out"), TYPES)
def test_a_missing_reduction_step_fails(name_in: str, name_out: str, dtype_in: Any, dtype_out: Any, k: int) -> None:
    lhs, rhs = inputs(k, dtype_in)
    order = list(range(k))
    expected = accumulate(lhs, rhs, order, dtype_out)
    check = check_output(expected, accumulate(lhs, rhs, order[:-16], dtype_out), tolerance_for(name_in, name_out, k))
    assert not check.ok
    assert check.first_bad is not None
    assert check.wrong > 0


@pytest.mark.parametrize(("name_in", "name_out", "dtype_in", "dtype_out"), TYPES)
@pytest.mark.parametrize("left", [0.0, math.nan])
def test_an_unwritten_tile_fails(name_in: str, name_out: str, dtype_in: Any, dtype_out: Any, left: float) -> None:
    lhs, rhs = inputs(128, dtype_in)
    expected = accumulate(lhs, rhs, list(range(128)), dtype_out)
    actual = expected.copy()
    actual[32:40, 64:72] = left
    check = check_output(expected, actual, tolerance_for(name_in, name_out, 128), seed=5)
    assert not check.ok
    assert check.first_bad is not None
    assert 32 <= check.first_bad[0] < 40
    assert 64 <= check.first_bad[1] < 72
    assert check.nans == (64 if math.isnan(left) else 0)
    assert check.seed == 5
    assert "seed 5" in check.reason


def test_two_swapped_rows_fail() -> None:
    lhs, rhs = inputs(256, np.float16)
    expected = accumulate(lhs, rhs, list(range(256)), np.float16)
    actual = expected.copy()
    actual[[3, 4]] = actual[[4, 3]]
    check = check_output(expected, actual, tolerance_for("f16", "f16", 256))
    assert not check.ok
    assert check.first_bad is not None
    assert check.first_bad[0] == 3


def disturbed(array: Array, relative: float, seed: int) -> Array:
    signs = np.random.default_rng(seed).integers(0, 2, array.shape) * 2 - 1
    return np.asarray((array.astype(np.float64) * (1 + relative * signs)).astype(array.dtype))


@pytest.mark.parametrize("k", [16, 512])
@pytest.mark.parametrize(("name", "dtype"), [("f32", np.float32), ("f16", np.float16)])
def test_a_sum_answers_to_its_inputs_as_a_sum_does(name: str, dtype: Any, k: int) -> None:
    lhs, rhs = inputs(k, dtype)
    step = 2 * unit_roundoff(name)
    expected = lhs.astype(np.float64) @ rhs.astype(np.float64)
    others = [
        disturbed(lhs, step, seed).astype(np.float64) @ disturbed(rhs, step, seed + 1).astype(np.float64)
        for seed in range(0, 16, 2)
    ]
    found = response(expected, others, step)
    assert math.sqrt(np.mean(np.square(found.elements))) == pytest.approx(magnitude(expected), rel=0.1)
    # A missing step shows nearly as well as before.
    fewer = lhs[:, 1:].astype(np.float64) @ rhs[1:].astype(np.float64)
    tolerance = tolerance_for(name, "f32", k)
    before, after = (check_output(expected, fewer, tolerance, answers=answers) for answers in (None, found))
    assert 0.5 < after.worst / before.worst < 1.001


def test_large_results_of_channels_with_a_factor_of_their_own_are_off_in_proportion() -> None:
    k = 96
    lhs, rhs = inputs(k, np.float32)
    factor = np.where(np.arange(128) == 17, 20, 1).astype(np.float32)
    order = list(range(k))
    step = 2 * unit_roundoff("f32")
    moved = [
        accumulate(disturbed(lhs, step, seed), disturbed(rhs, step, seed + 1), order, np.float32) * factor
        for seed in range(0, 16, 2)
    ]
    expected = accumulate(lhs, rhs, order, np.float32) * factor
    backwards = accumulate(lhs, rhs, order[::-1], np.float32) * factor
    tolerance = tolerance_for("f32", "f32", k)
    plain = check_output(expected, backwards, tolerance)
    after = check_output(expected, backwards, tolerance, answers=response(expected, moved, step))
    assert after.worst < 0.6 * plain.worst


def test_one_run_of_disturbed_sums_tells_of_each_element() -> None:
    """A single run leaves some elements nearly where they were: they are taken to answer as the others do."""
    rng = np.random.default_rng(3)
    expected = np.exp(rng.normal(0, 3, 10_000)).astype(np.float32)
    relative = 1e-4
    moved = expected * np.exp(rng.normal(0, 10 * relative, expected.size))
    found = response(expected, [moved.astype(np.float32)], relative / math.sqrt(2)).elements
    assert (found > 3 * expected).all()
    assert found.min() < 0.1 * expected.max()


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def test_a_tail_that_amplifies_is_allowed_what_it_makes_of_rounding() -> None:
    k, away = 512, -25.0
    lhs, rhs = inputs(k, np.float32)
    order = list(range(k))
    logits = accumulate(lhs, rhs, order, np.float32)
    expected = sigmoid(logits + away)
    step = 2 * unit_roundoff("f32")
    moved = [
        sigmoid(accumulate(disturbed(lhs, step, seed), disturbed(rhs, step, seed + 1), order, np.float32) + away)
        for seed in range(0, 16, 2)
    ]
    found = response(expected, moved, step)
    gain = np.median(found.elements / expected)
    assert 5 < gain < 30, "that of the exponential of sums whose magnitude is 7.5"
    tolerance = tolerance_for("f32", "f32", k)
    backwards = sigmoid(accumulate(lhs, rhs, order[::-1], np.float32) + away)
    assert not check_output(expected, backwards, tolerance).ok
    assert check_output(expected, backwards, tolerance, answers=found).ok
    for wrong in (
        sigmoid(accumulate(lhs, rhs, order[:-1], np.float32) + away),
        sigmoid(np.roll(logits, 1, axis=0) + away),
        np.zeros_like(expected),
    ):
        check = check_output(expected, wrong, tolerance, answers=found)
        assert check.worst > 10, check.reason


def test_results_that_are_not_finite_tell_nothing() -> None:
    nothing = np.full(4, np.nan, np.float32)
    assert (response(nothing, [nothing], 1e-7).elements == 0).all()


def sums(*kept: tuple[str, int], **told: Any) -> Numerics:
    return Numerics(sums=tuple(Sum(*one) for one in kept), widest="f32", **told)


def stored(values: Array, dtype: Any) -> Array:
    return np.asarray(values.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("k", [64, 2048, 4096])
@pytest.mark.parametrize(("name", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_one_missing_product_shows_in_sums_that_are_stored_in_a_coarser_type(name: str, dtype: Any, k: int) -> None:
    lhs, rhs = inputs(k, dtype, 64)
    order = list(range(k))
    acceptance = acceptance_for(sums(("f32", k), exact=True, products=True), elements=64 * 64)
    assert acceptance.data is None, "sums in f32 show it"
    allowed = acceptance.tolerance.stored_as(name)
    expected = stored(accumulate(lhs, rhs, order, np.float32, 16), dtype)
    for backwards in (order[::-1], [*order[7:], *order[:7]]):
        check = check_output(expected, stored(accumulate(lhs, rhs, backwards, np.float32, 16), dtype), allowed)
        assert check.ok, check.reason
    check = check_output(expected, stored(accumulate(lhs, rhs, order[:-1], np.float32, 16), dtype), allowed)
    assert not check.ok
    assert check.worst > (30 if name == "f16" else 4)


@pytest.mark.parametrize("k", [16, 512])
def test_sums_that_are_kept_in_the_stored_type_are_told_from_those_that_are_only_stored_in_it(k: int) -> None:
    lhs, rhs = inputs(k, np.float16, 64)
    order = list(range(k))
    allowed = acceptance_for(sums(("f32", k)), elements=64 * 64).tolerance.stored_as("f16")
    expected = stored(accumulate(lhs, rhs, order, np.float32), np.float16)
    assert not check_output(expected, accumulate(lhs, rhs, order, np.float16), allowed).ok


def test_few_elements_may_be_rounded_the_other_way_and_no_more() -> None:
    expected = stored(np.random.default_rng(0).normal(size=10_000), ml_dtypes.bfloat16)
    allowed = acceptance_for(sums(("f32", 512)), elements=10_000).tolerance.stored_as("bf16")
    neighbours = expected.astype(ml_dtypes.bfloat16).view(np.uint16) + np.uint16(1)
    up = neighbours.view(ml_dtypes.bfloat16).astype(np.float32)
    few, many = expected.copy(), expected.copy()
    few[:100] = up[:100]
    many[:1000] = up[:1000]
    jumps = int(np.count_nonzero(np.abs(up[:1000] - expected[:1000]) > 1e-5))
    assert check_output(expected, few, allowed).ok
    check = check_output(expected, many, allowed)
    assert (check.ok, check.wrong, check.jumped, check.first_bad) == (False, jumps, jumps, (0,))
    assert f"{jumps} elements are off by a rounding, more than chance explains" in check.reason


def test_sums_in_a_coarse_type_are_checked_on_integers_that_make_them_exact() -> None:
    k = 512
    acceptance = acceptance_for(sums(("bf16", k), exact=True, products=True), elements=64 * 64)
    assert acceptance.data == ExactData(amplitude=1, density=1.0, rounds=1)
    rng = np.random.default_rng(0)
    lhs, rhs = (rng.integers(-1, 2, shape).astype(ml_dtypes.bfloat16) for shape in ((64, k), (k, 64)))
    order = list(range(k))
    expected = accumulate(lhs, rhs, order, ml_dtypes.bfloat16)
    assert (expected == lhs.astype(np.float64) @ rhs.astype(np.float64)).all()
    assert check_output(expected, accumulate(lhs, rhs, order[::-1], ml_dtypes.bfloat16), acceptance.exact).ok
    assert not check_output(expected, accumulate(lhs, rhs, order[:-1], ml_dtypes.bfloat16), acceptance.exact).ok
    # On random numbers it hides among the rounding errors.
    lhs, rhs = inputs(k, ml_dtypes.bfloat16, 64)
    expected, fewer = (accumulate(lhs, rhs, part, ml_dtypes.bfloat16) for part in (order, order[:-1]))
    assert check_output(expected, fewer, acceptance.tolerance).ok


@pytest.mark.parametrize(("kept", "largest"), [("bf16", 256), ("f16", 2048)])
@pytest.mark.parametrize("k", [4, 300, 4096, 100_000])
@pytest.mark.parametrize("products", [True, False])
def test_exact_data_stays_exact(kept: str, largest: int, k: int, products: bool) -> None:
    data = acceptance_for(sums((kept, k), exact=True, products=products), elements=16).data
    assert data is not None
    assert 1 <= data.rounds <= 8
    rng = np.random.default_rng(k)

    def terms() -> Array:
        signs = 1 - 2 * rng.integers(0, 2, (200, k), np.int8)
        values = rng.integers(1, data.amplitude + 1, (200, k), np.int32) * signs
        return np.asarray(values * (rng.random((200, k), np.float32) < data.density))

    made = terms() * terms() if products else np.square(terms())
    assert np.abs(np.cumsum(made, axis=1, dtype=np.int64)).max() <= largest


def test_what_is_not_exact_is_not_checked_as_if_it_were() -> None:
    assert acceptance_for(sums(("bf16", 512)), elements=16).data is None
    integers = acceptance_for(Numerics(sums=(Sum("i32", 512),)), elements=16)
    assert (integers.tolerance, integers.data) == (EXACT, None)
    # Integer sums with floats behind them: those are off by what follows on the sum.
    assert acceptance_for(sums(("i32", 512)), elements=16).tolerance == tolerance_for("f32", "f32", 1)


def test_few_integers_that_floats_were_rounded_to_may_be_off_by_one() -> None:
    allowed = acceptance_for(sums(("f32", 512), to_integers=True), elements=100_000).tolerance
    expected = np.zeros(100_000, np.int8)
    few, many, far = expected.copy(), expected.copy(), expected.copy()
    few[:50], many[:500], far[3] = 1, 1, 2
    assert check_output(expected, few, allowed).ok
    assert not check_output(expected, many, allowed).ok
    assert not check_output(expected, far, allowed).ok
    assert not check_output(expected, few, acceptance_for(sums(("f32", 512)), elements=100_000).tolerance).ok


def test_several_sums_and_roundings_between_them_add_up() -> None:
    one, two = (acceptance_for(sums(*[("f32", 512)] * count), elements=16).tolerance for count in (1, 2))
    last = 2 * unit_roundoff("f32")
    assert two.atol_scale - last == pytest.approx(math.sqrt(2) * (one.atol_scale - last))
    spread = acceptance_for(sums(("f32", 512), spread=("f16",)), elements=16).tolerance
    assert spread.atol_scale == pytest.approx(one.atol_scale + 2 * unit_roundoff("f16"))
    assert spread.jump == 0
    rounded = acceptance_for(sums(("f32", 512), rounded=("bf16", "bf16")), elements=16).tolerance
    assert (rounded.atol_scale, rounded.roundings) == (one.atol_scale, 2)
    assert rounded.jump == pytest.approx(4 * unit_roundoff("bf16"))


@pytest.mark.parametrize(
    ("elements", "made", "expected"),
    [
        (("i64", "f32", "f32"), [("f32", 512, 1)], tolerance_for("f32", "f32", 512)),
        (("i64", "i1"), [("i32", 512, 1)], tolerance_for("f32", "f32", 1)),
        (("f64",), [("f64", 512, 1)], tolerance_for("f64", "f64", 512)),
        (("f32", "f8E4M3FN"), [("f32", 512, 1)], tolerance_for("f32", "f32", 512)),
        (("f32", "f8E8M0FNU"), [("f32", 512, 1)], tolerance_for("f32", "f32", 512)),
        (("f32",), [], tolerance_for("f32", "f32", 1)),
        (("i64", "f32"), [("f32", 512, 6), ("f32", 3072, 2)], tolerance_for("f32", "f32", 6 * 512 + 2 * 3072)),
        (("f16",), [("f16", 512, 2)], tolerance_for("f16", "f16", 1024)),
    ],
    ids=["integers-first", "integers", "f64", "f8", "scales", "nothing", "deep", "f16-sums"],
)
def test_a_model_is_allowed_what_its_sums_are(
    elements: Sequence[str], made: Sequence[tuple[str, int, int]], expected: Tolerance
) -> None:
    found = tolerance_in_model(elements, made)
    assert (found.rtol, found.atol_scale) == pytest.approx((expected.rtol, expected.atol_scale))


def test_integers_are_exact() -> None:
    assert tolerance_for("i8", "i32", 4096) == EXACT
    expected = np.arange(12, dtype=np.int32).reshape(3, 4)
    actual = expected.copy()
    assert check_output(expected, actual, Tolerance(1.0, 1.0)).ok
    actual[1, 2] += 1
    check = check_output(expected, actual, Tolerance(1.0, 1.0), output=2)
    assert not check.ok
    assert (check.first_bad, check.expected, check.actual, check.output) == ((1, 2), "6", "7", 2)
    assert check.max_abs_error == 1


def test_values_that_are_not_finite_must_agree() -> None:
    expected = np.array([1.0, math.nan, math.inf, -math.inf, 2.0, 3.0], np.float32)
    assert check_output(expected, expected.copy(), tolerance_for("f32", "f32", 8)).ok
    for place, value, nans, infs in (
        (0, math.nan, 1, 0),
        (0, math.inf, 0, 1),
        (1, 1.0, 0, 0),
        (2, 1.0, 0, 0),
        (2, -math.inf, 0, 1),
        (3, math.nan, 1, 0),
    ):
        actual = expected.copy()
        actual[place] = value
        check = check_output(expected, actual, tolerance_for("f32", "f32", 8))
        assert not check.ok
        assert (check.wrong, check.first_bad, check.nans, check.infs) == (1, (place,), nans, infs)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [(np.float16, 65504.0), (ml_dtypes.bfloat16, 3.38e38), (np.float32, 3.4e38), (np.float64, 1.79e308)],
)
def test_a_sum_that_overflows_is_wrong_where_the_reference_does_not(dtype: Any, largest: float) -> None:
    wide = np.float64 if dtype is np.float64 else np.float32
    expected = np.array([largest, -largest, 1.0], dtype)
    with np.errstate(over="ignore"):
        actual = (expected * np.array([2, 2, 1], dtype)).astype(wide)
    assert np.isinf(actual[:2]).all()
    check = check_output(expected.astype(wide), actual, tolerance_for("f16", "f16", 4096))
    assert (check.ok, check.wrong, check.infs, check.nans, check.first_bad) == (False, 2, 2, 0, (0,))
    assert check_output(actual, actual.copy(), tolerance_for("f16", "f16", 4096)).ok
    back = check_output(actual, expected.astype(wide), tolerance_for("f16", "f16", 4096))
    assert (back.ok, back.wrong, back.infs) == (False, 2, 0)


def test_a_reference_of_nothing_but_nans_has_no_magnitude() -> None:
    expected = np.full((3, 4), math.nan, np.float32)
    assert check_output(expected, expected.copy(), tolerance_for("f32", "f32", 8)).ok
    check = check_output(expected, np.zeros_like(expected), tolerance_for("f32", "f32", 8))
    assert (check.ok, check.wrong, check.nans, check.magnitude) == (False, 12, 0, 0.0)


def test_squares_of_large_numbers_do_not_make_everything_right() -> None:
    expected = np.array([1e300, -1e300, math.inf], np.float64)
    assert magnitude(expected) == pytest.approx(1e300)
    assert not check_output(expected, np.array([1e299, -1e300, math.inf]), tolerance_for("f64", "f64", 8)).ok


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64])
@pytest.mark.parametrize("value", [0, 100])
def test_a_check_survives_json(dtype: Any, value: int) -> None:
    """JSON has neither NaN nor infinity, and a record that cannot be read back is lost."""
    expected = np.array([0, 0, value], dtype)
    check = check_output(expected, expected + np.asarray(7, dtype), EXACT, seed=5)
    assert not check.ok
    assert msgspec.json.decode(msgspec.json.encode(check), type=Check) == check
    assert (check.seed, check.first_bad, check.max_abs_error) == (5, (0,), 7.0)


def test_the_place_is_found_far_into_a_large_output() -> None:
    expected = np.ones((300, 1000), np.float32)
    actual = expected.copy()
    actual[250, 7] = 1.5
    actual[251, 8] = 3
    check = check_output(expected, actual, tolerance_for("f32", "f32", 64))
    assert (check.first_bad, check.wrong, check.compared, check.max_abs_error) == ((250, 7), 2, 300_000, 2.0)
    assert check.worst > 1


def test_the_allowance_follows_the_data() -> None:
    expected = np.full(100, 1e6, np.float32)
    tolerance = tolerance_for("f32", "f32", 100)
    assert check_output(expected, expected + np.float32(1), tolerance).ok
    assert not check_output(expected / np.float32(1e6), expected / np.float32(1e6) + np.float32(1e-3), tolerance).ok


def test_magnitude_is_of_finite_elements() -> None:
    assert magnitude(np.array([3.0, math.nan, -4.0, math.inf], np.float32)) == pytest.approx(math.sqrt(12.5))
    assert magnitude(np.array([math.nan], np.float32)) == 0.0
    assert magnitude(np.zeros((0, 3), np.float32)) == 0.0


def test_arrays_of_different_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        check_output(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), EXACT)


@pytest.mark.parametrize(
    ("element", "digits"),
    [
        ("f64", 53),
        ("f32", 24),
        ("tf32", 11),
        ("f16", 11),
        ("bf16", 8),
        ("f8E4M3FNUZ", 4),
        ("f8E5M2", 3),
        ("f4E2M1FN", 2),
    ],
)
def test_unit_roundoff_is_half_an_ulp(element: str, digits: int) -> None:
    assert unit_roundoff(element) == 2.0**-digits


@pytest.mark.parametrize("element", ["i1", "i8", "si32", "ui8", "index"])
def test_integers_have_no_roundoff(element: str) -> None:
    assert unit_roundoff(element) == 0.0


def test_complex_numbers_round_like_their_parts() -> None:
    assert unit_roundoff("complex<f32>") == unit_roundoff("f32")


@pytest.mark.parametrize(("element", "length"), [("q4", 8), ("", 8), ("f32", 0)])
def test_unknown_types_and_lengths_are_refused(element: str, length: int) -> None:
    with pytest.raises(ValueError, match=r"roundoff|reduction length"):
        tolerance_for(element, "f32", length)


def test_merged_checks_name_the_first_wrong_output() -> None:
    fine = Check(ok=True, compared=4, max_abs_error=0.5, worst=0.1)
    wrong = Check(ok=False, output=1, first_bad=(2,), expected="1", actual="2", wrong=1, compared=4, worst=9.0)
    merged = merge_checks([fine, wrong])
    assert not merged.ok
    assert (merged.output, merged.first_bad, merged.compared, merged.worst) == (1, (2,), 8, 9.0)
    assert merged.max_abs_error == 0.5
    assert "1 of 8 elements are wrong, first at [2] of output 1: expected 1, got 2" in merged.reason
    assert merge_checks([fine, fine]).reason == ""
