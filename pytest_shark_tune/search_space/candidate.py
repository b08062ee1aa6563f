"""Candidates: members of a search space as the compiler takes them, with ids that stay the same from run to run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune.dispatch.mlir import pipeline_name
from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.errors import InputError, SharkTuneError
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
"""Which members are drawn of a space, with which ids and configs.

Raise it where other candidates come of the same space and seed, or another config of the same knobs: plans are then
made anew.
"""

DEFAULT_ID = "default"

_SHORTEST_ID = 6


class NotInSpace(SharkTuneError):
    """Knobs that a candidate was asked for are no member of the space; the message says why."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of one dispatch.

    ``id`` is made of the content: equal ids in one space mean equal candidates. ``dispatch`` is the dispatch's
    name, ``pipeline`` the pipeline's without its dialect. ``config`` is the canonical text of the lowering
    config attribute, ``compilation_info`` that of the attribute that applies it; the compiler's own choice,
    whose id is ``default``, has no knobs and an empty ``compilation_info``, as nothing is applied. A kernel of the
    client's own has knobs alone, its default included. ``space`` is the position of its space among the dispatch's:
    two of them may be of one pipeline.
    """

    id: str
    dispatch: str
    pipeline: str
    knobs: dict[str, int]
    config: str
    compilation_info: str
    space: int = 0


def make_candidates(
    dispatch_name: str,
    root: RootOp,
    space: SearchSpace,
    knob_sets: Iterable[Mapping[str, int]],
    *,
    taken: Collection[str] = (),
    position: int = 0,
) -> tuple[Candidate, ...]:
    """The candidates of ``knob_sets``, members of ``space``, the dispatch's at ``position``, in their order.

    An id is the first six hexadecimal digits of a digest of the root op's structure, the pipeline and the
    knobs, and as many more as are needed to tell it from the others made in the same call and from ``taken``, the
    ids of the dispatch's candidates from other spaces.

    Raises:
        NotInSpace: a knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(dispatch_name, space, knob_sets)
    ids = _unique_prefixes([_digest(root, space.pipeline, knobs) for knobs in members], taken)
    candidates = []
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
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
    """The compiler's own choice for ``dispatch``, against which the others are measured."""
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
    """The candidate whose ``compilation_info`` a spec applies; ``identifier`` and ``knobs`` are its record's.

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    if not compilation_info:
        raise InputError("it attaches no compilation_info")  # IREE would crash on the empty text
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        try:
            info = iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info))
        except (ir.MLIRError, ValueError) as error:
            raise InputError(f"not a compilation_info that this IREE parses: {compilation_info}: {error}") from error
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
    """The candidate of a config that lies outside of all spaces, or is in none of them as it stands; it has no knobs.

    Its id is made like those of the others, and differs from those ``taken``. ``position`` comes after those of the
    dispatch's spaces.

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    made = applied_candidate(dispatch_name, compilation_info, identifier="", knobs={})
    content = msgspec.json.encode((root, made.compilation_info))
    (identity,) = _unique_prefixes([hashlib.sha256(content).hexdigest()], taken)
    return msgspec.structs.replace(made, id=identity, space=position)


def kernel_candidates(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> tuple[Candidate, ...]:
    """The candidates of a kernel that IREE knows nothing of: knobs alone, with ids made as by `make_candidates`.

    Raises:
        NotInSpace: a knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(name, space, knob_sets)
    ids = _unique_prefixes([_digest(name, space.pipeline, knobs) for knobs in members])
    return tuple(_kernel_candidate(identity, name, space, knobs) for identity, knobs in zip(ids, members, strict=True))


def kernel_default(name: str, space: SearchSpace, knobs: Mapping[str, int]) -> Candidate:
    """The baseline of such a kernel: unlike a dispatch's default, it has knobs."""
    return _kernel_candidate(DEFAULT_ID, name, space, dict(sorted(knobs.items())))


def _kernel_candidate(identity: str, name: str, space: SearchSpace, knobs: dict[str, int]) -> Candidate:
    return Candidate(id=identity, dispatch=name, pipeline=space.pipeline, knobs=knobs, config="", compilation_info="")


def _members(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> list[dict[str, int]]:
    members = [dict(sorted(knobs.items())) for knobs in knob_sets]
    for knobs, is_member in zip(members, space.holds(members), strict=True):
        if not is_member:
            raise NotInSpace(f"{knobs} is no candidate of {name}: {'; '.join(space.violated(knobs))}")
    return members


def _digest(root: RootOp | str, pipeline: str, knobs: Mapping[str, int]) -> str:
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
