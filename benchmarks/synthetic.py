"""Made-up landscapes over real search spaces, on which settings of the search are chosen and its cost is timed.

The times come from a plain cost model with parts drawn from a seed: workgroups in waves over the processors, bytes
and multiply-adds of a step, how well parts of a tile suit the machine, spilled registers, shared memory that does
not suffice, and noise that belongs to the config. No measurement went into it, least of all one of the recorded
landscapes, so what does well here and there has not been fitted to either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.replay import Landscape, LandscapeCandidate
from pytest_shark_tune.search import ConfigTable, ProblemFacts, table_of_spaces
from pytest_shark_tune.search.facts import facts_of
from pytest_shark_tune.search.features import Features, features_of

__all__ = ["CASES", "synthetic_landscape"]

CASES: Sequence[tuple[str, str, OpSource]] = (
    ("llvm-cpu", "made-up CPU", ops.matmul(m=384, n=512, k=256, lhs="f32")),
    (
        "llvm-cpu",
        "made-up CPU",
        ops.conv_2d(batch=1, height=28, width=28, channels=64, filters=128, kernel_height=3, kernel_width=3, lhs="f32"),
    ),
    ("cuda:sm_89", "made-up L40", ops.matmul(m=1024, n=4096, k=2048, lhs="f16")),
    ("hip:gfx942", "made-up MI300X", ops.matmul(m=2048, n=2048, k=512, lhs="f16")),
    ("cuda:sm_89", "made-up L40", ops.matmul(m=512, n=512, k=512, lhs="f32")),
)
"""Targets with the name of a device and an op: spaces of 1,000 to 20,000 configs."""


def synthetic_landscape(target: str, device: str, op: OpSource, seed: int, most: int) -> Landscape:
    """The landscape of a uniform sample of at most ``most`` configs of an op's spaces."""
    compiler = Compiler(Target.parse(target))
    (dispatch,) = extract_dispatches([read_source(op, Path())], compiler, processors=2).dispatches
    table = table_of_spaces(search_spaces(dispatch, compiler), most=most, seed=seed)
    facts = facts_of(dispatch.root, dispatch.target, device)
    return landscape_of(table, facts, np.random.default_rng(seed), f"{op.name}, made up from seed {seed}", target)


def landscape_of(
    table: ConfigTable, facts: ProblemFacts, random: np.random.Generator, name: str, target: str
) -> Landscape:
    """Times of the configs of ``table`` by the cost model, with its parts drawn from ``random``."""
    features = features_of(table, facts)
    times, failed = _times(features, random)
    for code in range(len(table.pipeline_names)):
        times[table.pipelines == code] *= random.uniform(1.0, 1.5)
    baseline = float(np.quantile(times[~failed], 0.15))
    return Landscape(
        dispatch=name,
        device="made-up",
        target=target,
        iree="",
        facts=facts,
        baseline_samples_us=((baseline,),),
        candidates=tuple(
            LandscapeCandidate(
                pipeline=table.pipeline(row),
                knobs=table.knobs(row),
                state=State.COMPILE_FAILED if failed[row] else State.MEASURED,
                samples_us=() if failed[row] else (float(times[row]),),
            )
            for row in range(len(table))
        ),
    )


def _times(features: Features, random: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    columns = dict(zip(features.names, features.values.T, strict=True))

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.asarray(np.nan_to_num(columns.get(name, np.zeros(len(features.values)))))

    log_time = np.zeros(len(features.values))
    kept = column("results per thread") + column("vector volume") + column("part volume") / 2
    room = np.quantile(kept, random.uniform(0.5, 0.9))
    log_time += random.uniform(0.2, 0.8) * np.maximum(kept - room, 0)  # spills
    log_time += random.uniform(0.1, 0.4) * np.maximum(room - 1 - kept, 0)  # too little to hide latency behind
    intensity = column("intensity")
    log_time += random.uniform(0.2, 0.6) * np.maximum(np.quantile(intensity, random.uniform(0.5, 0.9)) - intensity, 0)
    log_time += column("last wave") + column("ragged")
    bytes_taken = column("operand bytes")
    cache = np.quantile(bytes_taken, random.uniform(0.6, 0.9))
    log_time += random.uniform(0.1, 0.5) * np.maximum(bytes_taken - cache, 0)
    for name in features.names:
        if name.startswith(("aspect", "split", "steps")):
            values = column(name)
            liked = random.choice(values)
            log_time += random.uniform(0, 0.15) * np.abs(values - liked)
    # Cliffs: certain values of certain knobs cost a fixed factor, as bank conflicts and unaligned loads do.
    for name in random.permutation(features.names)[:4]:
        values = column(str(name))
        log_time += random.uniform(0, 0.6) * (values == random.choice(np.unique(values)))
    log_time += random.normal(0, 0.08, len(log_time))
    demand = kept + bytes_taken + random.normal(0, 0.3, len(log_time))
    return 100 * np.exp2(log_time), demand > np.quantile(demand, random.uniform(0.75, 0.95))
