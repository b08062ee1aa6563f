"""The contract of forms, as tests to run on every new form.

In a test module, derive a class with a name that pytest collects, and override the fixtures::

    class TestMyForm(FormContract):
        @pytest.fixture
        def form(self) -> Form:
            return Form(name="mine", flags=("--iree-opt-level=O3",))

        @pytest.fixture
        def target(self) -> Target:
            return Target.parse("llvm-cpu")
"""

from __future__ import annotations

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.flags import check_flags
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.forms.mlir_rewrites import mlir_rewrite_names
from pytest_shark_tune.forms.onnx_rewrites import REWRITES

__all__ = ["FormContract"]


class FormContract:
    """The tests, with the fixtures ``form`` and ``target`` to override."""

    @pytest.fixture
    def form(self) -> Form:
        """The form under test."""
        raise NotImplementedError("override the fixture form")

    @pytest.fixture
    def target(self) -> Target:
        """A target that the form is for."""
        raise NotImplementedError("override the fixture target")

    def test_it_changes_something(self, form: Form) -> None:
        """A form without flags and rewrites is the default form, which is always tried."""
        assert not form.is_default

    def test_the_compiler_takes_its_flags(self, form: Form, target: Target) -> None:
        """A flag that the installed compiler does not know would fail every model."""
        Compiler(target).with_flags(form.flags).check()

    def test_a_record_may_bring_its_flags(self, form: Form) -> None:
        """The record of a form that won is data, and is refused if a flag may do more than choose how code is made."""
        check_flags(form.flags, f"form {form.name}", why_not_plain)

    def test_its_rewrites_exist(self, form: Form) -> None:
        """An unknown rewrite would fail every model."""
        assert [name for name in form.rewrites if name not in {*REWRITES, *mlir_rewrite_names()}] == []
