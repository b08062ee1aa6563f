"""Judges the estimates of the time left: recorded runs are replayed, and the estimate made at half time is compared.

A run of ``pytest --tune`` leaves its events in ``.tune/progress.jsonl``. The bar: at half time the estimate is within
25% of the truth in nine of ten runs.

    python benchmarks/progress.py benchmarks/results/progress/*.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_shark_tune.report.remaining import Event, replay
from pytest_shark_tune.system import journal

WITHIN, RUNS = 0.25, 0.9


def judge(events: list[Event]) -> tuple[float, float | None]:
    """Return the seconds of a run, and its estimate of the whole at half time."""
    total_s = events[-1].s
    left_s = replay(events, total_s / 2)
    return total_s, None if left_s is None else total_s / 2 + left_s


def main() -> int:
    """Print a line for each run; the exit status is 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    within = 0
    runs = parser.parse_args().runs
    for path in runs:
        total_s, estimate_s = judge(journal.read(path, Event))
        left_s = total_s / 2
        if estimate_s is None:
            sys.stdout.write(f"{path.stem}: {total_s:.0f} s, no estimate at half time\n")
            continue
        error = (estimate_s - total_s) / left_s
        within += abs(error) <= WITHIN
        sys.stdout.write(
            f"{path.stem}: {total_s:.0f} s, {left_s:.0f} s left at half time, estimated {estimate_s - left_s:.0f} s "
            f"({error:+.0%})\n"
        )
    sys.stdout.write(f"{within} of {len(runs)} estimates are within {WITHIN:.0%}\n")
    return 0 if within >= RUNS * len(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
