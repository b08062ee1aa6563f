"""The plan of a suite's test: its sources, their dispatches and the candidates, made once and read by all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, why_rejected
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.compiler.onnx import import_onnx, onnx_inputs
from pytest_shark_tune.custom import CustomTask
from pytest_shark_tune.dispatch.extraction import (
    EXTRACTION_VERSION,
    Flow,
    function_inputs,
    is_benchmark_module,
    read_benchmark,
    read_flow,
    read_module,
)
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch, Tensor, Untunable
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.model_input import InputFile, ModelInput, check_data
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.search.facts import ProblemFacts, facts_of, on_device
from pytest_shark_tune.search_space import (
    SPACE_VERSIONS,
    NoSpace,
    SearchSpace,
    SpaceRequest,
    SpaceTooLarge,
    UnboundedKnob,
    UnreadableConstraints,
    narrowed,
    opened,
    spaces_for,
    spaces_in,
)
from pytest_shark_tune.search_space.candidate import (
    CANDIDATE_VERSION,
    Candidate,
    default_candidate,
    kernel_candidates,
    kernel_default,
    make_candidates,
)
from pytest_shark_tune.search_space.config_reader import read_config, read_knobs
from pytest_shark_tune.search_space.registry import provided_spaces, providers
from pytest_shark_tune.shares import Profile, Share
from pytest_shark_tune.system.cache import content_key
from pytest_shark_tune.wanted import Wanted, outside_candidates, wanted_knobs

__all__ = [
    "MODEL_SUFFIXES",
    "NO_SPACE",
    "PLAN_VERSION",
    "POOL",
    "AnyTask",
    "Extracted",
    "KernelTask",
    "Plan",
    "Source",
    "Task",
    "Wanted",
    "emitted_constraints",
    "extract",
    "make_plan",
    "plan_key",
    "read_source",
    "renamed",
    "search_spaces",
    "spaces_from",
    "stated_spaces",
    "with_data_of",
]

PLAN_VERSION: Final = 1
"""The form of a plan in the cache.

Raise it where a field of `Plan`, or of what is in it, is added, removed or means something else.
"""

_EMITTING = ("cuda", "hip")
"""Backends for which the compiler emits constraints, at least for some ops."""
NO_SPACE = (CommandFailed, NoSpace, SpaceTooLarge, UnboundedKnob, UnreadableConstraints)
"""What keeps one dispatch from being tuned, and the others not."""
_NO_BENCHMARK = "iree-compile makes no benchmark of it, as of what has dynamic dimensions"
_OPEN_SHAPES = f"{_NO_BENCHMARK}: fix the input shapes"
_NO_PARAMETERS = (
    "it takes parameters from another file (as #flow.parameter.named says), which are not loaded here, so it is not "
    "run whole"
)
_DATA_DEPENDENT = f"{_NO_BENCHMARK}, though no input has: its sizes depend on the data, and it keeps its default"
POOL = 4096
"""The most candidates of a dispatch that a search chooses from: each is a test that is collected."""
_POOLS = 8 * POOL
"""About as many in all: every process of a run holds them. Where dispatches are many, each has its share of them."""
_LEAST_POOL = POOL // 4
MODEL_SUFFIXES = (".mlir", ".mlirbc", ".onnx")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or one executable benchmark module, as MLIR text.

    ``functions`` are the public functions whose inputs can be made up, with their types; a benchmark module
    has none. ``is_op`` says that it holds a single op that was asked for by name, and no model. ``input_names`` are
    those of an ONNX model's inputs. ``function`` is the one that is run whole, where one was asked for, and ``data``
    what it takes, by the input's position; all else is made up.

    ``called`` are the executables that each function calls, as far as that is known. ``why_not_run`` says why none of
    its functions is run, though their inputs can be made up.
    """

    name: str
    text: str
    is_benchmark: bool
    functions: dict[str, tuple[Tensor, ...]] = {}
    is_op: bool = False
    input_names: tuple[str, ...] = ()
    function: str = ""
    data: dict[int, InputFile] = {}
    called: dict[str, tuple[str, ...]] = {}
    why_not_run: str = ""

    @property
    def run_whole(self) -> tuple[str, ...]:
        """The functions that are run: the one that was asked for, or all; none where it cannot be run."""
        if self.why_not_run:
            return ()
        return (self.function,) if self.function else tuple(self.functions)

    @property
    def files(self) -> dict[int, str]:
        """The paths of its data, by the input's position."""
        return {number: file.path for number, file in self.data.items()}

    @property
    def content(self) -> tuple[object, ...]:
        """All that what is found out about it depends on, for content keys."""
        data = sorted((number, file.content) for number, file in self.data.items())
        return (self.name, self.text, self.function, data)


class _Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A default and the candidates to try instead.

    ``space_size`` counts the configs they were drawn from; ``None`` where they are too many to list.
    """

    default: Candidate
    candidates: tuple[Candidate, ...]
    space_size: int | None

    def candidate(self, identifier: str) -> Candidate:
        """The candidate of that id, the default included."""
        return next(each for each in (self.default, *self.candidates) if each.id == identifier)


class Task(_Tried, frozen=True, kw_only=True):
    """A dispatch with the candidates to try.

    ``near`` are the compiler's own choice of knobs, as far as spaces of its pipeline have them: by the position of such
    a space among the dispatch's. ``facts`` are there where the compiler, which reads them, may not be.
    """

    dispatch: Dispatch
    near: dict[int, dict[str, int]] = {}
    facts: ProblemFacts | None = None

    def facts_on(self, device: str) -> ProblemFacts:
        """What a search may know of the dispatch on the device of that name."""
        if self.facts is None:
            return facts_of(self.dispatch.root, self.dispatch.target, device)
        return on_device(self.facts, self.dispatch.target, device)

    @property
    def name(self) -> str:
        """The dispatch's name."""
        return self.dispatch.name

    @property
    def weight(self) -> int:
        """How many calls a better config makes faster."""
        return self.dispatch.weight


class KernelTask(_Tried, frozen=True, kw_only=True):
    """A client's own kernel with the candidates to try: no dispatch of IREE, so no spec entry comes of it."""

    name: str
    weight: int


AnyTask: TypeAlias = Task | KernelTask


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one test function, or one model file, tunes.

    ``profiles`` tell where the time of its models goes; ``unprofiled`` are models of which that could not be told, with
    the reason. ``left_out`` are the dispatches that could be tuned and take too little of the time.
    """

    sources: tuple[Source, ...]
    tasks: tuple[Task, ...]
    untunable: tuple[Untunable, ...]
    kernels: tuple[KernelTask, ...] = ()
    profiles: tuple[Profile, ...] = ()
    unprofiled: dict[str, str] = {}

    @property
    def everything(self) -> tuple[AnyTask, ...]:
        """The dispatches, then the kernels."""
        return (*self.tasks, *self.kernels)

    @property
    def models(self) -> tuple[Source, ...]:
        """The sources that are measured end to end: models with a function to run, and something to tune in them."""
        tuned = {member.source for task in self.tasks for member in task.dispatch.members}
        return tuple(each for each in self.sources if each.run_whole and not each.is_op and each.name in tuned)

    @property
    def left_out(self) -> tuple[Share, ...]:
        """What takes too little of a model's time to be tuned, by model."""
        tuned = {task.name for task in self.tasks}
        return tuple(
            each
            for profile in self.profiles
            for each in profile.shares
            if not each.reason and each.dispatch not in tuned
        )

    def time_us(self, task: AnyTask) -> float | None:
        """Microseconds of all calls of a dispatch in the plan's models; ``None`` unless all of them were profiled."""
        profiled = {profile.source for profile in self.profiles}
        if not isinstance(task, Task) or any(each.source not in profiled for each in task.dispatch.members):
            return None
        return sum(profile.time_us(task.name) for profile in self.profiles) or None

    def share(self, task: AnyTask) -> float | None:
        """The part that a dispatch has in the time of the models that were profiled; ``None`` where none was."""
        total = sum(profile.dispatches_us for profile in self.profiles)
        return sum(profile.time_us(task.name) for profile in self.profiles) / total if total else None

    def source(self, name: str) -> Source:
        """The source of that name."""
        return next(source for source in self.sources if source.name == name)


class Extracted(NamedTuple):
    """The dispatches of some sources, and those of them that cannot be tuned."""

    sources: tuple[Source, ...]
    dispatches: tuple[Dispatch, ...]
    untunable: tuple[Untunable, ...]


def read_source(given: object, folder: Path, asked: ModelInput = ModelInput()) -> Source:  # noqa: B008 - it is frozen
    """Read what a user gave to the marker, or on the command line; a path is relative to ``folder``.

    ``asked`` is what the user says of models, and not of ops.

    Raises:
        InputError: it is no path and no op, the file is absent, or it is not MLIR that this IREE parses.
    """
    if isinstance(given, OpSource):
        return Source(name=given.name, text=given.text, is_benchmark=False, is_op=True)
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"{given!r} is no source: give a path to {', '.join(MODEL_SUFFIXES)}, an op such as "
            "ops.matmul(m=512, n=512, k=512) or a CustomTask"
        )
    path = folder / given
    if path.suffix not in MODEL_SUFFIXES:
        raise InputError(f"{path} is not one of {', '.join(MODEL_SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    names: tuple[str, ...] = ()
    try:
        if path.suffix == ".onnx":
            text = import_onnx(path, asked.shapes)
            names = onnx_inputs(path)
        else:
            text = read_module(path.read_bytes())
    except InputError as error:
        raise InputError(str(error) if path.suffix == ".onnx" else f"{path}: {error}") from error
    except (CommandFailed, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if is_benchmark_module(text):
        return Source(name=path.stem, text=text, is_benchmark=True)
    return Source(
        name=path.stem,
        text=text,
        is_benchmark=False,
        input_names=names,
        function=asked.function,
        data=asked.data_of(names),
    )


def make_plan(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    processors: int,
    count: int,
    seed: int,
    kernels: Sequence[CustomTask] = (),
    request: SpaceRequest = SpaceRequest(),  # noqa: B008 - it is frozen
    rotate_bytes: int = 0,
    wanted: Sequence[Wanted] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> Plan:
    """Extract the dispatches of ``sources`` and draw up to ``count`` candidates for each, and for each kernel.

    What is drawn is what a search chooses from: the whole space where it is no larger. Of more than eight dispatches
    fewer are drawn for each, though a quarter of `POOL` at least.

    ``request`` is what the user asks of every space. Dispatches are measured on data rotated through ``rotate_bytes``
    of memory. ``wanted`` configs are among what is drawn. ``tell`` is told what is under way.

    Raises:
        InputError: the compiler rejects a source.
    """
    extracted = extract(sources, compiler, processors, tell)
    untunable = list(extracted.untunable)
    found: list[tuple[Dispatch, tuple[SearchSpace, ...]]] = []
    for dispatch in extracted.dispatches:
        tell(f"finding the configs of {dispatch.name}")
        try:
            spaces = opened(search_spaces(dispatch, compiler), request, compiler.target.backend)
            found.append((rotated_dispatch(dispatch, rotate_bytes), spaces))
        except NO_SPACE as reason:
            untunable += _all_untunable(dispatch, reason)
    count = min(count, max(_LEAST_POOL, _POOLS // max(1, len(found) + len(kernels))))
    offered = [*(space for _, spaces in found for space in spaces), *(kernel.space for kernel in kernels)]
    known = {name for space in offered for name in space.names}
    tasks, kernel_tasks = [], []
    for dispatch, spaces in found:
        tell(f"drawing candidates for {dispatch.name}")
        try:
            own = [each for each in wanted if each.key == dispatch.key]
            tasks.append(_task(dispatch, narrowed(spaces, request, known), count, seed, own))
        except NO_SPACE as reason:
            untunable += _all_untunable(dispatch, reason)
    for kernel in kernels:
        try:
            (space,) = narrowed([kernel.space], request, known)
            kernel_tasks.append(_kernel_task(kernel, space, count, seed))
        except NO_SPACE as reason:
            untunable.append(Untunable(kernel.name, kernel.name, str(reason)))
    return Plan(sources=extracted.sources, tasks=tuple(tasks), untunable=tuple(untunable), kernels=tuple(kernel_tasks))


def _all_untunable(dispatch: Dispatch, reason: Exception) -> list[Untunable]:
    return [Untunable(member.symbol, member.source, str(reason)) for member in dispatch.members]


def extract(
    sources: Sequence[Source], compiler: Compiler, processors: int, tell: Callable[[str], None] = lambda message: None
) -> Extracted:
    """Find the dispatches of ``sources``, each with its calls, grouped where no matcher tells them apart.

    Raises:
        InputError: the compiler rejects a source, a benchmark module was made for another target, or the data that is
            given for a model is not what it takes.
    """
    found: list[FoundDispatch] = []
    untunable: list[Untunable] = []
    calls: dict[tuple[str, str], int] = {}
    read: list[Source] = []
    with ThreadPoolExecutor(processors) as pool:
        compiled = [(source, _Compiled.submit(pool, compiler, source)) for source in sources]
        for source, parts in compiled:
            tell(f"extracting the dispatches of {source.name}")
            try:
                flow, functions = parts.flow.result(), parts.functions.result()
                # The compiler refuses to make an executable of a module that calls for none.
                texts = parts.benchmarks.result() if flow.calls or source.is_benchmark else []
            except CommandFailed as error:
                raise InputError(f"{source.name}: {why_rejected(error)}") from error
            except InputError as error:
                raise InputError(f"{source.name}: {error}") from error
            read.append(_with_functions(source, functions, flow))
            calls.update({(source.name, symbol): number for symbol, number in flow.calls.items()})
            for text in texts:
                dispatch = read_benchmark(text, source.name, processors=processors)
                if isinstance(dispatch, Untunable):
                    untunable.append(dispatch)
                else:
                    found.append(dispatch)
            read_symbols = {each.symbol for each in found if each.source == source.name}
            read_symbols |= {each.name for each in untunable if each.source == source.name}
            # No ONNX model comes here with an input of open sizes.
            why = _DATA_DEPENDENT if source.input_names else _OPEN_SHAPES
            untunable += [Untunable(symbol, source.name, why) for symbol in flow.calls if symbol not in read_symbols]
    return Extracted(tuple(read), group_dispatches(found, calls), tuple(untunable))


def _with_functions(source: Source, functions: dict[str, tuple[Tensor, ...]], flow: Flow) -> Source:
    """The source with the functions that it turns out to have; one that was asked for may be another model's."""
    chosen = source.function if source.function in functions else ""
    called = {name: flow.called[name] for name in functions if name in flow.called}
    found = msgspec.structs.replace(source, functions=functions, function=chosen, called=called)
    check_data(source.name, source.data, {name: functions[name] for name in found.run_whole})
    return msgspec.structs.replace(found, why_not_run=_NO_PARAMETERS) if flow.takes_parameters else found


def with_data_of(plan: Plan, sources: Sequence[Source]) -> Plan:
    """``plan`` with the files of ``sources``, its own: who put it into the cache may have had them elsewhere."""
    data = {source.name: source.data for source in sources}
    here = tuple(msgspec.structs.replace(source, data=data[source.name]) for source in plan.sources)
    return msgspec.structs.replace(plan, sources=here)


def renamed(plan: Plan, names: Mapping[str, str]) -> Plan:
    """The plan with other names for some of its dispatches."""

    def rename(task: Task) -> Task:
        name = names.get(task.dispatch.name, task.dispatch.name)
        return msgspec.structs.replace(
            task,
            dispatch=msgspec.structs.replace(task.dispatch, name=name),
            default=msgspec.structs.replace(task.default, dispatch=name),
            candidates=tuple(msgspec.structs.replace(each, dispatch=name) for each in task.candidates),
        )

    def rename_share(share: Share) -> Share:
        return msgspec.structs.replace(share, dispatch=names.get(share.dispatch, share.dispatch))

    return msgspec.structs.replace(
        plan,
        tasks=tuple(map(rename, plan.tasks)),
        profiles=tuple(
            msgspec.structs.replace(profile, shares=tuple(map(rename_share, profile.shares)))
            for profile in plan.profiles
        ),
    )


def plan_key(
    sources: Sequence[Source],
    compiler: Compiler,
    *,
    kernels: Sequence[CustomTask] = (),
    request: SpaceRequest = SpaceRequest(),  # noqa: B008 - it is frozen
    **settings: int | str,
) -> str:
    """The content key of the plan that ``make_plan`` makes: all that it depends on, our versions included."""
    registered = [
        (entry.name, entry.value, entry.dist.version if entry.dist else "") for entry in providers() if sources
    ]
    return content_key(
        "plan",
        [PLAN_VERSION, EXTRACTION_VERSION, CANDIDATE_VERSION],
        SPACE_VERSIONS,
        [source.content for source in sources],
        kernels,
        request,
        registered,
        compiler.identity,
        sorted(settings.items()),
    )


class _Compiled(NamedTuple):
    """What the compiler makes of a source, three commands beside each other."""

    benchmarks: Future[list[str]]
    flow: Future[Flow]
    functions: Future[dict[str, tuple[Tensor, ...]]]

    @classmethod
    def submit(cls, pool: Executor, compiler: Compiler, source: Source) -> _Compiled:
        text, name, compiler = source.text, source.name, compiler.for_models
        if source.is_benchmark:

            def mark() -> list[str]:
                stripped = strip(text)
                flags = ["--iree-codegen-add-tuner-attributes"]
                phases = {"since": "executable-sources", "to": "executable-configurations"}
                return [compiler.lower(stripped, name=name, flags=flags, **phases)]

            return cls(pool.submit(mark), pool.submit(Flow), pool.submit(dict))
        return cls(
            pool.submit(compiler.dump_benchmarks, text, name),
            pool.submit(lambda: read_flow(compiler.lower(text, to="flow", name=name))),
            pool.submit(lambda: function_inputs(compiler.lower(text, to="input", name=name))),
        )


def _task(dispatch: Dispatch, spaces: Sequence[SearchSpace], count: int, seed: int, wanted: Sequence[Wanted]) -> Task:
    """Draw from each space in turn, an even share each, what one space lacks going to the next."""
    candidates: list[Candidate] = []
    for position, space in enumerate(spaces):
        share = -(-(count - len(candidates)) // (len(spaces) - position))
        taken = {each.id for each in candidates}
        knob_sets = _drawn(space, share, seed, wanted_knobs(space, wanted))
        candidates += make_candidates(dispatch.name, dispatch.root, space, knob_sets, taken=taken, position=position)
    outside = outside_candidates(dispatch, candidates, wanted, position=len(spaces))
    return Task(
        dispatch=dispatch,
        default=default_candidate(dispatch),
        candidates=(*candidates, *outside),
        space_size=_size(spaces),
        near=_default_knobs(dispatch, spaces),
    )


def _default_knobs(dispatch: Dispatch, spaces: Sequence[SearchSpace]) -> dict[int, dict[str, int]]:
    """What each space of the default's pipeline reads in the default; nothing of a config in a form of its own."""
    try:
        config = read_config(dispatch.default_info) if dispatch.default_info else None
        return {
            position: knobs
            for position, space in enumerate(spaces)
            if config is not None and space.pipeline == config.pipeline and space.knob_dictionary
            if (knobs := _in_use(space, read_knobs(space, config).knobs))
        }
    except InputError:
        return {}


def _in_use(space: SearchSpace, knobs: Mapping[str, int]) -> dict[str, int]:
    """``knobs`` without those that say 'off' where the space knows no off: a tile of 0 is no small tile."""
    domains = {knob.name: knob.domain for knob in space.knobs}
    return {name: value for name, value in knobs.items() if value or 0 in domains[name]}


def _drawn(space: SearchSpace, count: int, seed: int, wanted: Sequence[dict[str, int]]) -> Sequence[Mapping[str, int]]:
    """Up to ``count`` members of a space, those of ``wanted`` that are members among them."""
    drawn = space.sample(count, seed)
    held = [knobs for knobs, is_member in zip(wanted, space.holds(wanted), strict=True) if is_member]
    missing = [knobs for place, knobs in enumerate(held) if knobs not in drawn and knobs not in held[:place]]
    return [*missing, *drawn][:count] if missing else drawn


def _kernel_task(kernel: CustomTask, space: SearchSpace, count: int, seed: int) -> KernelTask:
    # One more is drawn, since the default may be among them.
    others = [knobs for knobs in space.sample(count + 1, seed) if knobs != kernel.default][:count]
    return KernelTask(
        name=kernel.name,
        weight=kernel.weight,
        default=kernel_default(kernel.name, space, kernel.default),
        candidates=kernel_candidates(kernel.name, space, others),
        space_size=_size([space]),
    )


def _size(spaces: Sequence[SearchSpace]) -> int | None:
    try:
        return sum(len(space) for space in spaces)
    except SpaceTooLarge:
        return None


def search_spaces(dispatch: Dispatch, compiler: Compiler) -> tuple[SearchSpace, ...]:
    """The spaces of a dispatch: those of another package, else the compiler's own, else those that we build.

    Raises:
        NoSpace: there is none of them, and why.
        InputError: another package's entry point is broken.
    """
    if (provided := provided_spaces(dispatch.root, dispatch.target)) is not None:
        return provided
    return spaces_from(dispatch, emitted_constraints(dispatch, compiler))


def emitted_constraints(dispatch: Dispatch, compiler: Compiler) -> str:
    """The module in which the compiler states the constraints of a dispatch; empty for backends that state none.

    Raises:
        CommandFailed: the compiler rejects the dispatch.
    """
    if compiler.target.backend not in _EMITTING:
        return ""
    return compiler.lower(
        dispatch.members[0].module.text,
        since="executable-sources",
        to="executable-configurations",
        name=dispatch.name,
        flags=["--iree-codegen-add-tuner-attributes", "--iree-codegen-emit-pipeline-constraints"],
    )


def stated_spaces(constraints: str) -> tuple[SearchSpace, ...]:
    """The spaces that ``constraints`` state, a module or nothing; none of them is empty."""
    return tuple(space for space in spaces_in(constraints) if space) if constraints else ()


def spaces_from(dispatch: Dispatch, constraints: str) -> tuple[SearchSpace, ...]:
    """The spaces that ``constraints`` state, a module or nothing, else those that this package builds.

    Raises:
        NoSpace: there is neither, and why.
    """
    return stated_spaces(constraints) or spaces_for(dispatch.root, dispatch.target)
