"""Another timer: the kernel times from a trace of `rocprofv3` replace those that the host measures."""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# A stand-in for the profiler, so that the suite runs on any machine. With ROCm installed: PROFILER = ["rocprofv3"].
PROFILER = [sys.executable, str(Path(__file__).with_name("recorded_rocprofv3.py"))]
REPEATS = 20


def kernel_times_us(artifact, device):
    """Time an artifact: return the microseconds of each of its kernels. A failure has the profiler's message."""
    with tempfile.TemporaryDirectory() as directory:
        trace = ["--kernel-trace", "-f", "csv", "-d", directory, "-o", artifact.candidate]
        benchmark = [f"--module={artifact.vmfb}", f"--device={device}", f"--benchmark_min_time={REPEATS}x"]
        command = [*PROFILER, *trace, "--", "iree-benchmark-module", *benchmark]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        (path,) = Path(directory).rglob("*_kernel_trace.csv")
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["Kind"] == "KERNEL_DISPATCH"]
    # The runtime's own kernels fill and copy buffers. Times are nanoseconds.
    own = [row for row in rows if not row["Kernel_Name"].startswith("__amd_rocclr_")]
    return [(int(row["End_Timestamp"]) - int(row["Start_Timestamp"])) / 1000 for row in own]


@pytest.fixture
def measurement(tune_dispatch, artifact):
    """The stage that times. Before that, results are checked as usual."""
    return tune_dispatch.compare(artifact, kernel_times_us)
