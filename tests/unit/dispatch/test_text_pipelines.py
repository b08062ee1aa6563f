"""Pipelines as text: their names, and that the compiler and our own list of passes know them."""

from __future__ import annotations

import pytest
from iree.compiler import ir, passmanager

from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.dispatch.mlir import pipeline_name
from pytest_shark_tune.dispatch.text_pipelines import REGISTER_TILING, Pass, pass_text, text_attribute, text_name


def test_a_pass_is_written_with_its_options() -> None:
    options: dict[str, bool | str | None] = {
        "tiling-level": "vector_reduction",
        "skip-root-op": True,
        "use-rank-reducing-slices": None,
    }
    written = "iree-llvmcpu-tile{tiling-level=vector_reduction skip-root-op=true use-rank-reducing-slices}"
    assert str(Pass("iree-llvmcpu-tile", options)) == written
    assert str(Pass("cse")) == "cse"


def test_the_compiler_knows_every_pass_and_a_stranger_may_bring_it() -> None:
    text = pass_text(REGISTER_TILING)
    with ir.Context():
        passmanager.PassManager.parse(f"func.func({text})")
        attribute = ir.Attribute.parse(text_attribute(REGISTER_TILING) or "")
        assert pipeline_name(attribute) == REGISTER_TILING
    assert why_not_plain(text) == ""


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ('#iree_codegen.pass_pipeline<"canonicalize,cse">', "passes-abd642"),
        ("#iree_cpu.pipeline<DoubleTilingExpert>", None),
    ],
)
def test_a_text_without_a_description_is_named_by_its_digest(attribute: str, name: str | None) -> None:
    assert text_name(attribute) == name


def test_other_pipelines_have_no_text() -> None:
    assert text_attribute("DoubleTilingExpert") is None
