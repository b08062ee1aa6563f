from __future__ import annotations

import pytest
from iree.compiler import ir

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.mlir import shared_context


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
