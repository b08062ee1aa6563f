"""Explanations of knobs, by the names that search spaces of this package and the compiler's constraints give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pytest_shark_tune.search_space.pipeline_options import PIPELINE_OPTIONS

__all__ = ["explain_knob", "explain_knobs"]

_LOOP = r"(?P<loop>[a-z]*\d+)"
_MEANINGS = (
    (rf"dist_{_LOOP}", "tile of loop {loop} that one task of the thread pool computes"),
    (rf"vec_{_LOOP}", "tile of loop {loop} that is unrolled into vectors"),
    (r"peel", "1 computes the rest of a loop apart, so that the main part has whole vectors only"),
    (rf"wg_{_LOOP}", "tile of loop {loop} that a workgroup computes"),
    (rf"red_{_LOOP}", "step of the reduction loop {loop}: the part that is in shared memory or registers at a time"),
    (rf"thr_{_LOOP}", "tile of loop {loop} that a thread computes at a time"),
    (r"thr_(?P<loop>[a-z]+)", "tile along {loop} that a thread computes at a time"),
    (rf"sg_{_LOOP}", "tile of loop {loop} of a subgroup, in tiles of the matrix instruction"),
    (r"sg_(?P<side>[a-z]+\d*)_cnt", "subgroups of a workgroup along {side}"),
    (r"sg_cnt", "subgroups that share a sum"),
    (r"sg_size|subgroup_size", "threads of a subgroup"),
    (r"wg_size_(?P<axis>[xyz])", "threads of a workgroup along {axis}; 0 leaves them to the tiles"),
    (r"lanes", "threads of a subgroup that share a sum"),
    (r"lanes_(?P<side>\w+)", "threads of a subgroup along {side}"),
    (r"mma_idx", "the matrix instruction, by its number among those of the target"),
    (r"use_igemm_idx", "1 computes the convolution as a matrix product of gathered pixels"),
    (r"promote", "the operands that are copied to shared memory, by a number for each choice"),
    (r"depth", "stages of the software pipeline"),
    (r"(?P<side>[mn])_tile", "tile along {side}"),
)


def explain_knob(name: str) -> str:
    """Return the meaning of a knob; empty for a name that spaces of other packages made up."""
    if name in PIPELINE_OPTIONS:
        return PIPELINE_OPTIONS[name].meaning
    for pattern, meaning in _MEANINGS:
        if found := re.fullmatch(pattern, name):
            return meaning.format(**found.groupdict())
    return ""


def explain_knobs(names: Iterable[str]) -> Sequence[tuple[str, str]]:
    """Return knobs with their meanings, those of one kind once, with ``N`` for the number of the loop."""
    meanings: dict[str, str] = {}
    for name in names:
        kind = re.sub(r"(?<=[a-z]_)\d+$", "N", name)
        if meaning := explain_knob(name):
            meanings.setdefault(kind, re.sub(r"loop \d+", "loop N", meaning))
    return list(meanings.items())
