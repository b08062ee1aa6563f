"""The stages of a kernel that is not IREE's: `cc` compiles it, ctypes loads it, and the plugin compares."""

import ctypes
import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from pytest_shark_tune import Kernel, tolerance_for

SOURCE = Path(__file__).with_name("matmul.c")
N = 256


def compile_matmul(knobs, directory):
    """Compile a shared library from knobs. If `cc` fails, its message becomes the candidate's reason."""
    defines = [f"-DN={N}", *(f"-D{name.upper()}={value}" for name, value in sorted(knobs.items()))]
    # A loaded library stays loaded under its path, so every library has a path of its own.
    out = directory / f"matmul-{hashlib.sha256(' '.join(defines).encode()).hexdigest()[:16]}.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, *defines, "-o", out, SOURCE], check=True, capture_output=True, text=True, timeout=60)
    return out


def load_matmul(library, seed):
    """Load a library as a kernel to run, on inputs made from the seed."""
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal((N, N), dtype=np.float32) for _ in range(2))
    # Reused memory may hold the right result of an earlier candidate: a NaN shows elements that were not written.
    c = np.full((N, N), np.nan, dtype=np.float32)
    function = ctypes.CDLL(str(library)).matmul
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, c)]

    def run(count):
        started = time.perf_counter()
        for _ in range(count):
            function(*pointers)
        return time.perf_counter() - started

    # The arrays must live as long as the pointers to them.
    run.arrays = (a, b, c)
    return Kernel(run=run, result=lambda: c)


@pytest.fixture
def artifact(tune_kernel, tmp_path_factory):
    """The stage that compiles."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler: cc is not on PATH")
    return tune_kernel.build(lambda knobs: compile_matmul(knobs, tmp_path_factory.mktemp("matmul")))


@pytest.fixture
def measurement(tune_kernel, artifact):
    """The stage that times and checks."""
    return tune_kernel.compare(artifact, load_matmul, tolerance_for("f32", "f32", N))
