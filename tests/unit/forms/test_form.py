from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.cpu import CPU_FORMS
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form, combined, with_incumbents
from pytest_shark_tune.forms.registry import GROUP, forms_for
from pytest_shark_tune.testing.form_contract import FormContract

CPU, CUDA = Target.parse("llvm-cpu"), Target.parse("cuda:sm_89")
MINE = Form(name="mine", flags=("--iree-opt-level=O2",))


def mine(target: Target) -> list[Form]:
    return [MINE] if target == CPU else []


def broken(target: Target) -> list[Form]:
    raise RuntimeError(f"no forms for {target}")


def wrong(target: Target) -> list[str]:
    return [str(target)]


def clashing(target: Target) -> list[Form]:
    return [Form(name="im2col", flags=("--iree-opt-level=O2",))]


def entry(function: str) -> EntryPoint:
    return EntryPoint(name="theirs", value=f"{__name__}:{function}", group=GROUP)


OURS = {f"{target}-{form.name}": (target, form) for target in (CPU, CUDA) for form in forms_for(target, ())}


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> tuple[Target, Form]:
    """A target with one of our forms for it."""
    return OURS[request.param]


class TestOurForms(FormContract):
    @pytest.fixture
    def target(self, ours: tuple[Target, Form]) -> Target:
        return ours[0]

    @pytest.fixture
    def form(self, ours: tuple[Target, Form]) -> Form:
        return ours[1]


def test_an_incumbent_comes_first_under_a_name_of_its_own() -> None:
    same = Form(name="renamed", flags=MINE.flags)
    other = Form(name="mine", flags=("--iree-opt-level=O3",))
    both = Form(name="both", flags=MINE.flags, rewrites=("products",))
    assert with_incumbents([MINE], [same, DEFAULT_FORM, other, both, both]) == (
        Form(name="mine-2", flags=other.flags),
        both,
        MINE,
    )


@pytest.mark.parametrize("name", ["", "a b", "../up", "-first", "x" * 81, "new\nline"])
def test_a_name_is_part_of_ids_and_of_files(name: str) -> None:
    with pytest.raises(InputError, match="no name of a form"):
        Form(name=name)


def test_a_flag_begins_with_dashes() -> None:
    with pytest.raises(InputError, match="form mine: '@file' is not a flag"):
        Form(name="mine", flags=("@file",))


def test_only_some_flags_change_the_code_of_a_dispatch() -> None:
    form = Form(name="both", flags=("--iree-opt-data-tiling", "--iree-llvmcpu-enable-ukernels=all"))
    assert form.codegen_flags == ("--iree-llvmcpu-enable-ukernels=all",)
    assert not form.is_default
    assert DEFAULT_FORM.is_default


def test_forms_combine_unless_they_set_the_same() -> None:
    products, _, im2col, channels_last, transposed = CPU_FORMS[:5]
    both = combined(products, im2col)
    assert both == Form(name="products+im2col", flags=im2col.flags, rewrites=products.rewrites)
    assert combined(channels_last, transposed) is None, "both set the preprocessing pipeline"
    assert combined(products, products) is None


def test_forms_of_other_packages_come_after_ours() -> None:
    assert forms_for(CPU, ()) == CPU_FORMS
    assert forms_for(CPU, [entry("mine")]) == (*CPU_FORMS, MINE)
    assert MINE not in forms_for(CUDA, [entry("mine")])


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("missing", "cannot be loaded: AttributeError"),
        ("broken", "failed for llvm-cpu: RuntimeError: no forms for llvm-cpu"),
        ("wrong", "gave 'llvm-cpu' for llvm-cpu, which is no Form"),
        ("clashing", "gave a form 'im2col', and there is another of that name"),
    ],
)
def test_a_broken_entry_point_is_named(function: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"^the entry point theirs = '{__name__}:{function}' of {GROUP} {problem}"):
        forms_for(CPU, [entry(function)])
