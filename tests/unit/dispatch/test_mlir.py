from __future__ import annotations

import pytest
from iree.compiler import ir
from iree.compiler.dialects import iree_gpu

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.mlir import pipeline_name, shared_context


def test_a_context_is_used_again_but_not_inside_itself_or_forever() -> None:
    with shared_context() as first:
        assert ir.Context.current == first
        with shared_context() as nested:
            assert nested != first
    with shared_context() as again:
        assert again in (first, nested)
    seen = [again]
    for _ in range(2 * mlir._USES):
        with shared_context() as context:
            seen += [context] if context not in seen else []
    assert 2 <= len(seen) <= 4


def test_a_block_that_fails_leaves_its_context_behind() -> None:
    with pytest.raises(ir.MLIRError), shared_context() as failed:
        ir.Module.parse("module {")
    with shared_context() as context:
        assert context != failed


@pytest.mark.parametrize(
    "text",
    ["#iree_cpu.pipeline<DoubleTilingExpert>", "#iree_codegen< CPUDoubleTilingExpert>", "CPUDoubleTilingExpert"],
)
def test_a_pipeline_has_one_name_in_all_releases(text: str) -> None:
    assert pipeline_name(text) == "DoubleTilingExpert"


def test_the_bindings_of_linalg_and_of_gpus_are_imported_together() -> None:
    """They are not with 3.11, unless `dispatch.mlir` has been imported."""
    from iree.compiler.dialects import linalg

    assert {module.__name__.rpartition(".")[2] for module in (iree_gpu, linalg)} == {"iree_gpu", "linalg"}
