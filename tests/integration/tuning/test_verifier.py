"""The merged spec in whole models: what is wrong there or does not pay is dropped by name, and the rest stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import replace_executables
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import ModelInput, Source, read_source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.records.draft import Draft, spec_of
from pytest_shark_tune.records.types import Finalist, State
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.model.runner import ModelRunner
from pytest_shark_tune.tuning.model.tuned import failing_entries
from pytest_shark_tune.tuning.settings import RunSettings
from pytest_shark_tune.tuning.verifier import Verifier
from tests.factories import make_final
from tests.models import matmuls
from tests.parameters import parameter_model, random_parameters, write_parameters
from tests.thinned import thinned

INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{0}, {0}, 0], "
    "vector_common_parallel = [{1}, {1}, 0], vector_reduction = [0, 0, {1}]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
GOOD, BAD = INFO.format(64, 8), INFO.format(1, 1)
# With it the defaults have 1,024 workgroups: some five times slower than GOOD, and five times faster than BAD.
POOR_DEFAULTS = "--iree-llvmcpu-distribution-size=4"
FIRST, SECOND = "matmul_128x128x128_f32", "matmul_128x64x128_f32"
MODEL = matmuls("main", 128, 128, 128, 64)


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"), (POOR_DEFAULTS,))


@pytest.fixture(scope="module")
def plan(compiler: Compiler) -> Plan:
    plan = make_plan(
        [Source(name="the model", text=MODEL, is_benchmark=False)], compiler, processors=2, count=1, seed=0
    )
    assert [task.name for task in plan.tasks] == [FIRST, SECOND]
    return plan


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def stages(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Builder, ModelRunner]]:
    directory = tmp_path_factory.mktemp("verify")
    settings = RunSettings.in_directory(directory, ["local-task"], "cpu", jobs=2)
    # With locks of its own this waits for no other run on the machine.
    leases = DeviceLeases(settings.devices, directory=directory / "locks")
    builder = Builder(compiler, Cache(directory / "cache"), leases, jobs=2, report=print)
    children = DeviceChildren(leases, print)
    yield builder, ModelRunner(children, settings.seed)
    builder.close()
    children.close()


def verifier(stages: tuple[Builder, ModelRunner], told: list[str], *, asks_driver: bool = True) -> Verifier:
    return Verifier(*stages, report=told.append, asks_driver=asks_driver)


def finals(plan: Plan, *, starter: str = "", **infos: str) -> Draft:
    """The draft of a spec in which each dispatch of the plan that ``infos`` has a config of got that."""
    won = [
        make_final(
            Finalist(id="winner", state=State.MEASURED),
            dispatch=task.name,
            root=task.dispatch.root,
            weight=task.weight,
            winner="winner",
            compilation_info=infos[task.name],
        )
        for task in plan.tasks
        if task.name in infos
    ]
    return spec_of(won, starter)


@pytest.mark.parametrize(
    ("blamed", "expected"),
    [({"a"}, ["a"]), ({"e"}, ["e"]), ({"b", "d"}, ["b", "d"]), (set("abcde"), list("abcde"))],
)
def test_whoever_is_to_blame_is_found_by_halves(blamed: set[str], expected: list[str]) -> None:
    tried: list[Sequence[str]] = []

    def fails(names: Sequence[str]) -> bool:
        tried.append(names)
        return bool(blamed & set(names))

    assert failing_entries(list("abcde"), fails) == expected
    assert [] not in tried


def test_those_that_fail_only_together_are_all_to_blame() -> None:
    assert failing_entries(list("abcd"), lambda names: {"a", "d"} <= set(names)) == list("abcd")


@pytest.mark.slow
def test_only_the_entry_that_is_wrong_in_the_whole_is_blamed(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str], starting_at_one: Callable[[str], str]
) -> None:
    won = finals(plan, **{FIRST: GOOD, SECOND: GOOD})
    (model,) = verifier(stages, told).models(plan, plan.sources[0], won)
    assert model.wrong() == ("", {})
    application = model.application
    broken = replace_executables(application.text, starting_at_one(application.text), model.owned[SECOND])
    note, bad = replace(model, application=msgspec.structs.replace(application, text=broken)).wrong()
    assert not note
    assert list(bad) == [SECOND]
    assert bad[SECOND].startswith("in the whole of the model: wrong_result: ")


@pytest.mark.slow
def test_a_model_that_cannot_be_run_by_default_costs_no_entry(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str]
) -> None:
    (model,) = verifier(stages, told).models(plan, plan.sources[0], finals(plan, **{FIRST: GOOD, SECOND: GOOD}))
    source = msgspec.structs.replace(model.source, functions={"absent": model.source.functions["main"]})
    note, bad = replace(model, source=source, function="absent").wrong()
    assert bad == {}
    assert note.startswith("by default it cannot be run as a whole, so its results were not compared: run_failed: ")


@pytest.mark.slow
@pytest.mark.parametrize("asks_driver", [True, False], ids=["by-statistics", "by-halves"])
def test_what_is_slower_in_the_whole_is_dropped_by_name(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str], asks_driver: bool
) -> None:
    judge = verifier(stages, told, asks_driver=asks_driver)
    won = finals(plan, **{FIRST: GOOD, SECOND: BAD})
    checked = judge.check(plan, won)
    assert checked.dropped == {}, "it is slow, not wrong"
    assert [(each.applied, each.ratio) for each in checked.sources] == [(2, None)]
    measured = judge.measure(plan, plan.sources[0], won)
    assert list(measured.dropped) == [SECOND]
    assert measured.dropped[SECOND].startswith("the whole of the model is no faster with it")
    assert measured.model == "the model"
    (source,) = measured.sources
    assert source.applied == 1
    assert source.ratio is not None
    assert source.ratio > 1
    assert source.default_us is not None
    assert source.tuned_us is not None
    assert source.default_us > source.tuned_us
    assert list(source.in_model) == ([FIRST] if asks_driver else [])
    assert any(line == f"trying the whole of the model without {SECOND}" for line in told)


@pytest.mark.slow
def test_where_nothing_pays_nothing_is_left(plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str]) -> None:
    measured = verifier(stages, told).measure(plan, plan.sources[0], finals(plan, **{FIRST: BAD, SECOND: BAD}))
    assert list(measured.dropped) == [FIRST, SECOND]
    assert measured.dropped[FIRST].startswith("the whole of the model is no faster with the spec: 0.")
    (source,) = measured.sources
    assert (source.ratio, source.note) == (None, "no entry of the spec pays in the whole of it")


# Beside the model a function that calls nothing which is tuned, and one that calls the second of its products alone.
THREE_FUNCTIONS = f"""{MODEL}
func.func @untouched(%a: tensor<64xf32>) -> tensor<64xf32> {{
  %0 = math.absf %a : tensor<64xf32>
  return %0 : tensor<64xf32>
}}
{matmuls("second", 128, 128, 64)}"""


@pytest.mark.slow
def test_a_function_judges_only_what_it_calls(
    compiler: Compiler, stages: tuple[Builder, ModelRunner], told: list[str], starting_at_one: Callable[[str], str]
) -> None:
    source = Source(name="three", text=THREE_FUNCTIONS, is_benchmark=False)
    plan = make_plan([source], compiler, processors=2, count=1, seed=0)
    (source,) = plan.sources
    judge = verifier(stages, told)
    won = finals(plan, **{FIRST: GOOD, SECOND: GOOD})
    models = {model.function: model for model in judge.models(plan, source, won)}
    assert {name: list(model.owned) for name, model in models.items()} == {
        "main": [FIRST, SECOND],
        "untouched": [],
        "second": [SECOND],
    }
    # What is wrong elsewhere is no fault of what a function calls.
    application = models["main"].application
    text = replace_executables(application.text, starting_at_one(application.text), models["main"].owned[FIRST])
    broken = {
        name: replace(model, application=msgspec.structs.replace(application, text=text))
        for name, model in models.items()
    }
    assert list(broken["main"].wrong()[1]) == [FIRST]
    assert broken["second"].wrong() == ("", {})
    note = "no entry is for a dispatch of 'untouched', so that was not run"
    (checked,) = judge.check(plan, won).sources
    assert checked.note == note
    measured = judge.measure(plan, source, won)
    assert measured.dropped == {}
    (check,) = measured.sources
    assert check.note == note
    assert check.ratio is not None
    assert set(check.in_model) == {FIRST, SECOND}, "the metrics of a function that it applies to"


@pytest.mark.slow
def test_where_no_function_calls_what_is_tuned_nothing_is_dropped(
    compiler: Compiler, stages: tuple[Builder, ModelRunner], told: list[str]
) -> None:
    source = Source(name="three", text=THREE_FUNCTIONS, is_benchmark=False, function="untouched")
    plan = make_plan([source], compiler, processors=2, count=1, seed=0)
    measured = verifier(stages, told).measure(plan, plan.sources[0], finals(plan, **{FIRST: BAD, SECOND: BAD}))
    assert measured.dropped == {}
    (check,) = measured.sources
    assert (check.ratio, check.note) == (None, "no entry is for a dispatch of 'untouched', so that was not run")


@pytest.mark.slow
def test_a_model_of_parameters_is_judged_like_any_other(
    compiler: Compiler, stages: tuple[Builder, ModelRunner], told: list[str], tmp_path: Path
) -> None:
    (tmp_path / "net.mlir").write_text(parameter_model(128, 128, 128, 64), encoding="utf-8")
    write_parameters(tmp_path / "w.safetensors", random_parameters(128, 128, 64))

    def plan_with(*lines: str) -> Plan:
        source = read_source("net.mlir", tmp_path, ModelInput.parse(parameters=lines, base=tmp_path))
        return make_plan([source], compiler, processors=2, count=1, seed=0)

    judge, bare = verifier(stages, told), plan_with()
    record = judge.check(bare, finals(bare, **{FIRST: GOOD, SECOND: GOOD}))
    (check,) = record.sources
    assert (record.dropped, check.applied, check.note) == ({}, 2, bare.sources[0].why_not_run)

    plan = plan_with("model=w.safetensors")
    won = finals(plan, **{FIRST: GOOD, SECOND: BAD})
    assert judge.check(plan, won).dropped == {}
    measured = judge.measure(plan, plan.sources[0], won)
    assert list(measured.dropped) == [SECOND]
    (check,) = measured.sources
    assert check.note == ""
    assert check.ratio is not None
    assert FIRST in check.in_model


def broad(info: str, name: str = "match_any") -> str:
    """A spec, as somebody may write one by hand, that gives a config to every matmul and every generic op."""
    return f"""
module attributes {{transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint}} {{
  transform.named_sequence @apply(%op: !transform.any_op {{transform.readonly}},
      %config: !transform.any_param {{transform.readonly}}) {{
    transform.annotate %op "compilation_info" = %config : !transform.any_op, !transform.any_param
    transform.yield
  }}
  transform.named_sequence @{name}(%op: !transform.any_op {{transform.readonly}})
      -> (!transform.any_op, !transform.any_param) {{
    transform.match.operation_name %op ["linalg.matmul", "linalg.generic"] : !transform.any_op
    %config = transform.param.constant {info} -> !transform.any_param
    transform.yield %op, %config : !transform.any_op, !transform.any_param
  }}
  transform.named_sequence @__kernel_config(%op: !transform.any_op {{transform.consumed}}) -> !transform.any_op
      attributes {{iree_codegen.tuning_spec_entrypoint}} {{
    %0 = transform.foreach_match in %op @{name} -> @apply : (!transform.any_op) -> !transform.any_op
    transform.yield %0 : !transform.any_op
  }}
}}
"""


# The first is refused when configs are verified, the second only when code is made of it.
REFUSED = GOOD.replace("vector_reduction = [0, 0, 8]", "vector_reduction = [0, 8, 0]")
TOO_LARGE = INFO.format(128, 128)


@pytest.mark.parametrize("info", thinned([REFUSED, TOO_LARGE], every=2, ids=["refused", "too-large"]))
def test_an_entry_of_the_starter_that_the_compiler_fails_with_is_dropped_by_name(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str], info: str
) -> None:
    """It matches what no winner is for, so that winners alone tell nothing of it."""
    judge = verifier(stages, told)
    draft = finals(plan, starter=broad(info), **{FIRST: GOOD})
    record = judge.check(plan, draft)
    assert list(record.dropped) == ["@match_any"]
    assert "the model" in record.dropped["@match_any"]
    assert [check.applied for check in record.sources] == [1]
    left = draft.without(record.dropped)
    assert (record.entries, record.starter) == (left.configs, left.starter_key) == ({FIRST: GOOD}, "")


def test_an_entry_of_the_starter_that_holds_is_in_what_is_verified(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str]
) -> None:
    draft = finals(plan, starter=broad(GOOD), **{FIRST: GOOD})
    assert draft.names == (FIRST, "@match_any")
    record = verifier(stages, told).check(plan, draft)
    assert (record.dropped, record.entries, record.starter) == ({}, draft.configs, draft.starter_key)
    assert [check.applied for check in record.sources] == [2]


def test_an_entry_that_shows_once_a_winner_is_dropped_is_verified_as_well(
    plan: Plan, stages: tuple[Builder, ModelRunner], told: list[str]
) -> None:
    """The winners take all ops from it until one of them has to go."""
    draft = finals(plan, starter=broad(REFUSED), **{FIRST: GOOD, SECOND: TOO_LARGE})
    record = verifier(stages, told).check(plan, draft)
    assert set(record.dropped) == {SECOND, "@match_any"}
    assert record.entries == {FIRST: GOOD}


def test_entries_of_a_starter_are_known_by_their_own_names(plan: Plan) -> None:
    """Matchers of one name are renamed where specs are joined, and those that ask the same are left out."""
    same = finals(plan, **{FIRST: BAD, SECOND: BAD}).text
    draft = finals(plan, starter=same, **{SECOND: GOOD})
    assert draft.names == (SECOND, f"@match_{FIRST}")
    left = draft.without([SECOND])
    assert left.names == (f"@match_{FIRST}", f"@match_{SECOND}")
    assert draft.only([f"@match_{SECOND}"]).names == (f"@match_{SECOND}",)
    clashing = finals(plan, starter=broad(GOOD, name=f"match_{SECOND}"), **{SECOND: GOOD})
    assert clashing.by_matcher == {f"match_{SECOND}": SECOND, f"match_{SECOND}_2": f"@match_{SECOND}"}
    assert clashing.without([f"@match_{SECOND}"]).starter == ""
