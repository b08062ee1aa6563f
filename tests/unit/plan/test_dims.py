"""Sizes of open dimensions, as a user gives them."""

from __future__ import annotations

import pytest

from pytest_shark_tune.dispatch.types import SizePoint
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.dims import parse_dims, points_of
from pytest_shark_tune.plan.source import ModelInput, Source


def test_sizes_at_one_position_belong_together() -> None:
    dims = parse_dims(["x.0=1,16,128", "a.b=c.1=4", "0.12=7,8,9"])
    assert dims == {"x.0": (1, 16, 128), "a.b=c.1": (4, 4, 4), "0.12": (7, 8, 9)}
    assert parse_dims([]) == {}


@pytest.mark.parametrize("line", ["x.0", "x=1", "x.0=", "x.0=0", "x.0=1,", "x.0=-1", "x.0=1x2", ".0=1", "x.a=1", "=1"])
def test_other_forms_are_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"^--tune-dim: .*is not INPUT\.DIMENSION=SIZES"):
        parse_dims([line])


@pytest.mark.parametrize(
    ("lines", "why"),
    [(["x.0=1", "x.0=2"], "x.0 is given twice"), (["x.0=1,2", "y.0=1,2,3"], "x.0 has 2 sizes, and another .* has 3")],
)
def test_sizes_that_contradict_each_other_are_refused(lines: list[str], why: str) -> None:
    with pytest.raises(InputError, match=f"^--tune-dim: {why}"):
        parse_dims(lines)


def test_a_model_takes_the_sizes_of_its_own_inputs() -> None:
    dims = parse_dims(["x.1=1,16,1", "1.0=4", "other.0=5"])
    assert points_of(dims, ["y", "x"]) == (
        SizePoint(label="x.1=1,1.0=4", sizes=((1, 1, 1), (1, 0, 4)), weight=2),
        SizePoint(label="x.1=16,1.0=4", sizes=((1, 1, 16), (1, 0, 4))),
    )
    assert [point.label for point in points_of(dims, [])] == ["1.0=4"]
    assert points_of({}, ["x"]) == ()


def test_sizes_that_no_model_takes_are_told() -> None:
    onnx = Source(name="net", text="", is_benchmark=False, input_names=("x",))
    opened = Source(name="net", text="", is_benchmark=False, points=points_of(parse_dims(["0.0=1"]), ()))
    assert (
        ModelInput.parse(dims=["z.0=1"]).stray([onnx]).startswith("--tune-dim z: there is no model with an input 'z'")
    )
    told = "--tune-dim x.0: no dispatch of a model depends on this dimension as an open one"
    assert ModelInput.parse(dims=["x.0=1"]).stray([onnx]) == told
    assert not ModelInput.parse(dims=["0.0=1"]).stray([onnx, opened])
