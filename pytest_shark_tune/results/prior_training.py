"""Training priors on landscapes, with the test that leaves one shape out, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.results.replay import Landscape, replay, summarised
from pytest_shark_tune.search.prior import LeftOut, Prior, PriorConfigs, PriorShape, read_prior
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.files import read_plain

__all__ = ["DEFAULT_PRIOR", "NO_PRIOR", "load_prior", "train_prior", "write_prior"]

DEFAULT_PRIOR = "default"
"""Names the prior in this package for a class of devices."""
NO_PRIOR = "none"
_BUDGET = 128
"""The most evaluations of a search in the test."""


def train_prior(landscapes: Sequence[Landscape], *, seeds: int, jobs: int = 1) -> Prior:
    """Make a prior of landscapes, and test it.

    For each shape, a prior of all the others guides searches on its landscapes. Landscapes with the same loops are one
    shape.

    Args:
        landscapes: The landscapes.
        seeds: The number of searches for each landscape in the test; 0 for no test.
        jobs: The most processes.

    Raises:
        InputError: The landscapes are of several classes of devices or several releases of IREE.
    """
    for what, found in {
        "classes of devices": {landscape.device_class for landscape in landscapes},
        "releases of IREE": {landscape.iree for landscape in landscapes},
    }.items():
        if len(found) > 1:
            raise InputError(f"a prior is for one of the {what}, and the landscapes are of {', '.join(sorted(found))}")
    shapes = [_shape_of(landscape) for landscape in landscapes]
    prior = Prior.of(landscapes[0].device_class, landscapes[0].iree, shapes)
    test = []
    for landscape in landscapes if seeds else ():
        loops = landscape.known_facts().loops
        others = [shape for shape in shapes if shape.facts.loops != loops]
        if others:
            rest = Prior.of(prior.device_class, prior.iree, others)
            test.append(_left_out(landscape, rest, seeds, jobs))
    return msgspec.structs.replace(prior, test=tuple(test))


def write_prior(prior: Prior, path: Path) -> None:
    """Write a prior for `load_prior`.

    Raises:
        OSError: it cannot be written; an older file is then whole.
    """
    journal.replace_file(path, msgspec.json.encode(prior) + b"\n")


def load_prior(name: str, device_class: str, base: Path = Path()) -> Prior | None:
    """Read a prior.

    Args:
        name: The path of a file, `DEFAULT_PRIOR` for the one in this package, or `NO_PRIOR`.
        device_class: The class of the device, by which `DEFAULT_PRIOR` is chosen.
        base: The directory that a path is relative to.

    Returns:
        ``None`` if there is none, as for a class of devices without a prior in this package.

    Raises:
        InputError: The file cannot be read or is no prior.
    """
    if name == NO_PRIOR:
        return None
    if name == DEFAULT_PRIOR:
        shipped = files("pytest_shark_tune.search").joinpath("priors")
        for file in shipped.iterdir() if shipped.is_dir() else ():
            prior = read_prior(file.read_bytes()) if file.name.endswith(".json") else None
            if prior is not None and prior.device_class == device_class:
                return prior
        return None
    path = base / name
    try:
        return read_prior(read_plain(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path} is no prior: {error}") from error


def _shape_of(landscape: Landscape) -> PriorShape:
    table, ratios = landscape.table(), landscape.ratios()
    best = max(ratio for ratio in ratios if ratio is not None)
    parts = []
    for code, pipeline in enumerate(table.pipeline_names):
        rows = [row for row in range(len(table)) if table.pipelines[row] == code]
        names = tuple(dict.fromkeys(name for row in rows for name in table.knobs(row)))
        parts.append(
            PriorConfigs(
                pipeline=pipeline,
                knobs=names,
                values=tuple(tuple(table.knobs(row).get(name) for name in names) for row in rows),
                nearness=tuple(None if (ratio := ratios[row]) is None else round(ratio / best, 4) for row in rows),
            )
        )
    return PriorShape(dispatch=landscape.dispatch, facts=landscape.known_facts(), configs=tuple(parts))


def _left_out(landscape: Landscape, rest: Prior, seeds: int, jobs: int) -> LeftOut:
    guided, alone = (
        summarised(replay(landscape, "model", seeds, budget=_BUDGET, jobs=jobs, prior=prior)).evals_to_5pct_median
        for prior in (rest, None)
    )
    return LeftOut(
        dispatch=landscape.dispatch,
        configs=len(landscape.candidates),
        evals_to_5pct_median=guided,
        without=alone,
    )
