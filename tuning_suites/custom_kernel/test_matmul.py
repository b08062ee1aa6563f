"""A blocked C kernel, tuned by its block sizes: run `pytest tuning_suites/custom_kernel --tune`.

Nothing here is IREE's: conftest.py compiles and loads the kernel.
"""

import pytest

from pytest_shark_tune import CustomTask, SearchSpace

BLOCKS = (8, 16, 32, 64, 128, 256)

SPACE = SearchSpace.of(
    "Blocked",
    {"bi": BLOCKS, "bj": BLOCKS, "bk": BLOCKS, "unroll": (1, 4, 8)},
    "4 * (bi * bk + bk * bj + bi * bj) <= 262144",  # The three blocks fit into a second-level cache.
    "unroll <= bj // 8",
)


# Three plain loops, which are not a member of the space.
UNBLOCKED = {"bi": 256, "bj": 256, "bk": 256, "unroll": 1}


@pytest.mark.tune(CustomTask(name="matmul_256", space=SPACE, default=UNBLOCKED))
def test_kernel(candidate, artifact, measurement):
    """One test per pair of a kernel and a candidate; the fixtures are the stages."""
