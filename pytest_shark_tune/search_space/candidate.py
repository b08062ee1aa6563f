"""Candidates: members of a search space in the compiler's form, with ids that do not change between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from pytest_shark_tune.dispatch.mlir import pipeline_name, shared_context
from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.search_space.config_reader import parse_info
from pytest_shark_tune.search_space.config_writer import compilation_info_of
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = [
    "CANDIDATE_VERSION",
    "DEFAULT_ID",
    "Candidate",
    "NotInSpace",
    "applied_candidate",
    "default_candidate",
    "kernel_candidates",
    "kernel_default",
    "make_candidates",
    "outside_candidate",
]

CANDIDATE_VERSION: Final = 1
"""The version of drawing members, of their ids and of their configs.

Raise it if the same space and seed yield other candidates, or the same knobs another config. Plans are then made again.
"""

DEFAULT_ID = "default"

_SHORTEST_ID = 6


class NotInSpace(SharkTuneError):
    """The knobs of a candidate are no member of the space; the message tells the reason."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One config of one dispatch.

    The compiler's own choice has the id ``default``, no knobs and an empty ``compilation_info``, since nothing is
    applied. The candidates of a client's own kernel, its default included, have knobs only.
    """

    id: str
    """A digest of the content: equal ids in one space mean equal candidates."""
    dispatch: str
    """The name of the dispatch."""
    pipeline: str
    """The name of the pipeline, without its dialect."""
    knobs: dict[str, int]
    config: str
    """The canonical text of the lowering config."""
    compilation_info: str
    """The text of the attribute that applies the config."""
    space: int = 0
    """The position of its space among the dispatch's spaces, of which two may have the same pipeline."""


def make_candidates(
    dispatch_name: str,
    root: RootOp,
    space: SearchSpace,
    knob_sets: Iterable[Mapping[str, int]],
    *,
    taken: Collection[str] = (),
    position: int = 0,
) -> tuple[Candidate, ...]:
    """Make candidates of members of a space.

    An id is the first six hexadecimal digits of a digest of the root op's structure, the pipeline and the knobs. It is
    longer if another id of the same call or in ``taken`` has the same digits.

    Args:
        dispatch_name: The name of the dispatch.
        root: The root op of the dispatch.
        space: The space.
        knob_sets: The members.
        taken: The ids of the dispatch's candidates from other spaces.
        position: The position of the space among the dispatch's spaces.

    Returns:
        The candidates in the order of ``knob_sets``.

    Raises:
        NotInSpace: A knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(dispatch_name, space, knob_sets)
    ids = _unique_prefixes([_config_digest(root, space.pipeline, knobs) for knobs in members], taken)
    candidates = []
    with shared_context():
        for identity, knobs in zip(ids, members, strict=True):
            info = compilation_info_of(space, knobs)
            candidates.append(
                Candidate(
                    id=identity,
                    dispatch=dispatch_name,
                    pipeline=space.pipeline,
                    knobs=knobs,
                    config=str(info.lowering_config),
                    compilation_info=str(info),
                    space=position,
                )
            )
    return tuple(candidates)


def default_candidate(dispatch: Dispatch) -> Candidate:
    """Return the compiler's own choice for ``dispatch``, the baseline of all others."""
    return Candidate(
        id=DEFAULT_ID,
        dispatch=dispatch.name,
        pipeline=dispatch.default_pipeline,
        knobs={},
        config=dispatch.default_config,
        compilation_info="",
    )


def applied_candidate(
    dispatch_name: str, compilation_info: str, *, identifier: str, knobs: Mapping[str, int]
) -> Candidate:
    """Return the candidate that a spec applies, with the id and the knobs from its record.

    Raises:
        InputError: ``compilation_info`` is no text that this IREE parses.
    """
    if not compilation_info:
        raise InputError("it attaches no compilation_info")  # IREE would crash on the empty text.
    with shared_context():
        info = parse_info(compilation_info)
        return Candidate(
            id=identifier,
            dispatch=dispatch_name,
            pipeline=pipeline_name(info.translation_info.pass_pipeline),
            knobs=dict(knobs),
            config=str(info.lowering_config),
            compilation_info=str(info),
        )


def outside_candidate(
    dispatch_name: str, root: RootOp, compilation_info: str, *, taken: Collection[str], position: int
) -> Candidate:
    """Return a candidate without knobs for a config that no space contains.

    Args:
        dispatch_name: The name of the dispatch.
        root: The root op of the dispatch.
        compilation_info: The text of the config.
        taken: The ids of the dispatch's other candidates.
        position: A position after those of the dispatch's spaces.

    Raises:
        InputError: ``compilation_info`` is no text that this IREE parses.
    """
    made = applied_candidate(dispatch_name, compilation_info, identifier="", knobs={})
    content = msgspec.json.encode((root, made.compilation_info))
    (identity,) = _unique_prefixes([hashlib.sha256(content).hexdigest()], taken)
    return msgspec.structs.replace(made, id=identity, space=position)


def kernel_candidates(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> tuple[Candidate, ...]:
    """Make candidates of a kernel that IREE does not know: they have only knobs, and ids like `make_candidates`.

    Raises:
        NotInSpace: A knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(name, space, knob_sets)
    ids = _unique_prefixes([_config_digest(name, space.pipeline, knobs) for knobs in members])
    return tuple(_kernel_candidate(identity, name, space, knobs) for identity, knobs in zip(ids, members, strict=True))


def kernel_default(name: str, space: SearchSpace, knobs: Mapping[str, int]) -> Candidate:
    """Return the baseline of such a kernel, which has knobs, unlike a dispatch's default."""
    return _kernel_candidate(DEFAULT_ID, name, space, dict(sorted(knobs.items())))


def _kernel_candidate(identity: str, name: str, space: SearchSpace, knobs: dict[str, int]) -> Candidate:
    return Candidate(id=identity, dispatch=name, pipeline=space.pipeline, knobs=knobs, config="", compilation_info="")


def _members(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> list[dict[str, int]]:
    members = [dict(sorted(knobs.items())) for knobs in knob_sets]
    for knobs, is_member in zip(members, space.holds(members), strict=True):
        if not is_member:
            raise NotInSpace(f"{knobs} is no candidate of {name}: {'; '.join(space.violated(knobs))}")
    return members


def _config_digest(root: RootOp | str, pipeline: str, knobs: Mapping[str, int]) -> str:
    content = msgspec.json.encode((root, pipeline, sorted(knobs.items())))
    return hashlib.sha256(content).hexdigest()


def _unique_prefixes(digests: list[str], taken: Collection[str] = ()) -> list[str]:
    if len(set(digests)) < len(digests):
        raise NotInSpace("the same knobs are given twice")
    lengths = dict.fromkeys(digests, _SHORTEST_ID)
    while True:
        groups: dict[str, list[str]] = {}
        for digest, length in lengths.items():
            groups.setdefault(digest[:length], []).append(digest)
        clashing = [digest for prefix, group in groups.items() if len(group) > 1 or prefix in taken for digest in group]
        if not clashing:
            return [digest[: lengths[digest]] for digest in digests]
        for digest in clashing:
            lengths[digest] += 1
