"""Which forms of a model are tuned, which one is kept, and which entries go with the others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.measurement.roofline import Limits
from pytest_shark_tune.measurement.timing import Measurement
from pytest_shark_tune.plan.forms import joined_plan, part_of
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import FormResult, Plan, Task
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.tuning.model.form_choice import between_us, choose_forms, contenders, estimated_us
from pytest_shark_tune.tuning.model.form_final import losing_entries
from tests.factories import make_task

IM2COL = Form(name="im2col", flags=("--iree-global-opt-use-im2col-for-convs",))
LIMITS = Limits(bytes_per_s=1e9, operations_per_s=1e9, launch_us=1.0)


def measured(form: Form, ratio: float | None) -> FormResult:
    measurement = None
    if ratio is not None:
        samples = (100.0 / ratio, 100.0 / ratio)
        measurement = replace(Measurement.of_samples(samples, (100.0, 100.0)), ratio=ratio)
    return FormResult(model="model", form=form, state="measured", measurement=measurement)


def named(*ratios: tuple[str, float]) -> list[FormResult]:
    rest = [measured(Form(name=name, flags=(f"--iree-opt-{name}",)), ratio) for name, ratio in ratios]
    return [measured(DEFAULT_FORM, None), *rest]


def source(name: str, form: Form = DEFAULT_FORM) -> Source:
    return Source(name=name, text="", is_benchmark=False, form=form, model="" if form.is_default else "model")


def of_source(task: Task, *sources: str) -> Task:
    (member,) = task.dispatch.members
    members = tuple(replace(member, source=name) for name in sources)
    return replace(task, dispatch=replace(task.dispatch, members=members))


def plan(*tasks: Task, sources: tuple[Source, ...] = ()) -> Plan:
    return Plan(sources=sources, tasks=tasks, untunable=())


def test_slow_and_failed_forms_are_no_contenders() -> None:
    results = named(("fast", 2.0), ("near", 1.5), ("slow", 0.9))
    failed = FormResult(model="model", form=IM2COL, state="wrong_result", reason="off")
    assert [result.form.name for result in contenders([*results, failed])] == ["fast", "near"]


def test_the_fastest_form_without_flags_is_a_contender_beside_faster_ones() -> None:
    flagged = [measured(Form(name=name, flags=(f"--{name}",)), ratio) for name, ratio in (("a", 2.0), ("b", 1.9))]
    flagged += [measured(Form(name=name, flags=(f"--{name}",)), ratio) for name, ratio in (("c", 1.8), ("d", 1.7))]
    products = measured(Form(name="products", rewrites=("pointwise-convolutions",)), 1.4)
    results = [measured(DEFAULT_FORM, None), *flagged, products]
    assert [result.form.name for result in contenders(results)] == ["a", "b", "c", "products"]
    assert [result.form.name for result in contenders(results, is_short=True)] == ["a", "b", "products"]


def test_the_fastest_form_and_the_best_estimates_are_tuned() -> None:
    results = named(("fast", 2.0), ("promising", 1.5), ("other", 1.4))
    chosen = choose_forms(results, {"fast": 90.0, "promising": 40.0, "other": 47.0})
    assert {result.form.name for result in chosen if result.is_tuned} == {"fast", "promising", "other"}
    assert next(result for result in chosen if result.form.name == "fast").estimate_us == 90.0
    assert [result.form.name for result in choose_forms(results, {}) if result.is_tuned] == ["fast"]
    alone = choose_forms(named(("worse", 0.8)), {"default": 10.0})
    assert [result.form.name for result in alone if result.is_tuned] == ["default"]


def test_a_form_that_shares_no_dispatch_has_to_be_better_for_sure() -> None:
    alone = Form(name="O3", flags=("--iree-opt-level=O3",))
    for ratio, first in ((2.1, "im2col"), (2.5, "O3")):
        results = [measured(DEFAULT_FORM, None), measured(IM2COL, 2.0), measured(alone, ratio)]
        assert contenders(results)[0].form.name == first
    results = [measured(DEFAULT_FORM, None), measured(IM2COL, 2.0), measured(alone, 1.9)]
    for estimate, is_tuned in ((108.0, True), (110.0, False)):
        chosen = choose_forms(results, {"im2col": 100.0, "O3": estimate})
        assert [result.is_tuned for result in chosen] == [False, True, is_tuned]


STRIDES = Form(name="strides", rewrites=("strided-convolutions",))


def test_a_form_that_pays_once_it_is_tuned_goes_with_the_one_that_it_is_added_to() -> None:
    both = Form(name="strides+im2col", flags=IM2COL.flags, rewrites=STRIDES.rewrites)
    slower = [measured(DEFAULT_FORM, None), measured(IM2COL, 3.0), measured(both, 0.8), measured(STRIDES, 0.5)]
    assert [result.form.name for result in contenders(slower)] == ["im2col", "strides+im2col"]
    for times, tuned in (((50.0, 40.0), "strides+im2col"), ((40.0, 50.0), "im2col")):
        chosen = choose_forms(slower, dict(zip(("im2col", "strides+im2col"), times, strict=True)))
        assert [result.form.name for result in chosen if result.is_tuned] == [tuned]


def test_a_convolution_whose_results_lie_along_a_stride_stays_slow() -> None:
    results, image = (1, 8, 16, 16), (1, 8, 33, 33)
    text = "(n, y, x, c, j, i) -> "
    maps = (f"{text}(n, c, y * {{s}} + j, x * {{s}} + i)", f"{text}(c, j, i)", f"{text}(n, c, y, x)")
    times = {}
    for stride in (1, 2):
        root = RootOp(
            op="linalg.depthwise_conv_2d_nchw_chw",
            kind="convolution",
            loops=(1, 16, 16, 8, 3, 3),
            iterators=("parallel",) * 4 + ("reduction",) * 2,
            maps=tuple(f"affine_map<{one.format(s=stride)}>" for one in maps),
            inputs=(Tensor(image, "f32"), Tensor((8, 3, 3), "f32")),
            outputs=(Tensor(results, "f32"),),
            output_image=(1, 2),
            strides=(stride, stride),
            depth=(3,),
        )
        task = make_task("conv", 64)
        task = replace(task, dispatch=replace(task.dispatch, root=root))
        shares = (Share(dispatch=task.name, calls=1, time_us=1e6, share=1.0),)
        profile = Profile(source="model", function="main", model_us=None, shares=shares, measured="")
        times[stride] = estimated_us(plan(task), profile, LIMITS)
    assert times[2] / times[1] == pytest.approx(0.3 / 0.05)


def test_an_estimate_never_exceeds_the_measured_time() -> None:
    task = make_task("matmul", 64)
    tunable = Share(dispatch="matmul", calls=2, time_us=5000.0, share=0.5)
    fixed = Share(dispatch="pack", calls=1, time_us=300.0, share=0.5, reason="it cannot be tuned")
    profile = Profile(source="model", function="main", model_us=6000.0, shares=(tunable, fixed), measured="")
    rest_us, floor_us = 700.0, 2 * 2 * 64**3 / 1e3
    assert estimated_us(plan(task), profile, LIMITS) == rest_us + 300.0 + floor_us
    assert estimated_us(plan(task), profile, LIMITS, raced_us=3000.0) == (rest_us + 300.0) / 2 + floor_us
    assert estimated_us(plan(task), profile, LIMITS, between=50.0) == (tunable.calls + 1) * 50.0 + 300.0 + floor_us
    others = [replace(profile, model_us=5300.0 + outside) for outside in (0.0, 90.0)]
    assert between_us([profile, *others]) == 90.0 / (tunable.calls + 1)
    quick = replace(profile, shares=(replace(tunable, time_us=10.0), fixed), model_us=None)
    assert estimated_us(plan(task), quick, LIMITS) == 310.0


def test_equal_dispatches_of_two_forms_are_one_task() -> None:
    default = plan(
        of_source(make_task("a", 64), "model"), of_source(make_task("b", 32), "model"), sources=(source("model"),)
    )
    formed = plan(
        of_source(make_task("a", 64), "model-im2col"),
        of_source(make_task("b", 16), "model-im2col"),
        sources=(source("model-im2col", IM2COL),),
    )
    joined = joined_plan(default, [part_of(default, ["model"]), formed])
    assert [task.name for task in joined.tasks] == ["a", "b", "b_2"], "a name stands for one structure"
    assert [member.source for member in joined.tasks[0].dispatch.members] == ["model", "model-im2col"]
    assert {candidate.dispatch for candidate in joined.tasks[2].candidates} <= {"b_2"}
    assert [found.name for found in joined.sources] == ["model", "model-im2col"]


def test_a_root_op_with_a_pack_fused_into_it_is_a_task_of_its_own() -> None:
    plain, packed = make_task("a", 64), make_task("a", 64)
    scattering = """
    func.func private @f(%x: tensor<4xf32>, %y: tensor<8xf32>) -> tensor<8xf32> {
      %z = iree_linalg_ext.map_store %x into %y {
      ^bb0(%i: index):
        %true = arith.constant true
        iree_linalg_ext.yield %i, %true : index, i1
      } : tensor<4xf32> into tensor<8xf32> -> tensor<8xf32>
      return %z : tensor<8xf32>
    }"""
    (member,) = packed.dispatch.members
    with_pack = replace(member, module=replace(member.module, text=scattering))
    packed = packed.with_members([with_pack])
    default = plan(of_source(plain, "model"), sources=(source("model"),))
    formed = plan(of_source(packed, "model-im2col"), sources=(source("model-im2col", IM2COL),))
    joined = joined_plan(default, [part_of(default, ["model"]), formed])
    assert [task.name for task in joined.tasks] == ["a", "a_2"]
    other = plan(of_source(packed, "other"), sources=(source("other"),))
    assert [task.name for task in joined_plan(default, [default, other]).tasks] == ["a"], "one spec holds for both"


def test_entries_of_a_form_that_lost_are_dropped() -> None:
    both, only, other = (make_task(name, size) for name, size in (("both", 64), ("only", 32), ("other", 16)))
    joined = plan(
        of_source(both, "model", "model-im2col"),
        of_source(only, "model"),
        of_source(other, "elsewhere"),
        sources=(source("model"), source("model-im2col", IM2COL), source("elsewhere")),
    )
    record = FormRecord(model="model", form=IM2COL, target="llvm-cpu", device="", iree="")
    lost = losing_entries(joined, [record], ["both", "only", "other"])
    assert lost == {"only": "model is compiled in the form im2col, which has no such dispatch"}


def test_the_time_of_whole_models_is_known_from_the_race_of_their_forms() -> None:
    sources = (replace(source("model"), functions={"main": ()}), source("model-im2col", IM2COL))
    task = of_source(make_task("matmul", 64), "model", "model-im2col")
    raced = replace(measured(IM2COL, 2.0), is_tuned=True, compile_s=8.0)
    tuned = replace(plan(task, sources=sources), forms=(measured(DEFAULT_FORM, None), raced))
    assert tuned.models_s == pytest.approx(1.25 * (8.0 + 20.0 + 250 * 100e-6))
    assert replace(tuned, forms=()).models_s is None
    assert replace(tuned, tasks=()).models_s == 0.0
