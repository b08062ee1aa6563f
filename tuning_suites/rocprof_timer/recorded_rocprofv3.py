"""A stand-in for `rocprofv3`: takes the same arguments, and copies a recorded trace to the same place."""

import argparse
import shutil
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded")

parser = argparse.ArgumentParser()
parser.add_argument("--kernel-trace", action="store_true", required=True)
parser.add_argument("-f", choices=["csv"], required=True)
parser.add_argument("-d", type=Path, required=True)
parser.add_argument("-o", required=True)
parser.add_argument("program", nargs="+")
given = parser.parse_args()
name = given.o if given.o == "default" else "candidate"
shutil.copy(RECORDED / f"{name}_kernel_trace.csv", given.d / f"{given.o}_kernel_trace.csv")
