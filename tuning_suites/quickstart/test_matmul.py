"""Three dispatches worth tuning on a CPU: run `pytest tuning_suites/quickstart --tune`.

``ppocr_rec_33.mlir`` is a 1x1 convolution of the PP-OCRv4 recognition model, as that model runs it.
"""

import pytest

from pytest_shark_tune import ops


@pytest.mark.tune(
    ops.matmul(m=512, n=512, k=512, lhs="f32"),
    ops.batch_matmul(batch=12, m=128, n=128, k=64, lhs="f32"),
    "ppocr_rec_33.mlir",
)
def test_dispatch(tuned):
    """One test per pair of a dispatch and a candidate config."""
