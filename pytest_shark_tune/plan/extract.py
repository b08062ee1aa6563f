"""The dispatches of sources, as iree-compile forms them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.dispatch.extraction import benchmarked_symbol, read_benchmark
from pytest_shark_tune.dispatch.flow import Flow, function_inputs, read_flow, why_not_fed
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.open_sizes import OpenDimension, fix_sizes
from pytest_shark_tune.dispatch.reasons import CannotTune, DataDependentSizes, OpenInput, OpenSizes, UnknownScalar
from pytest_shark_tune.dispatch.scalars import bind_scalars
from pytest_shark_tune.dispatch.types import Argument, Dispatch, FoundDispatch, Untunable
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.benchmark_file import check_benchmark_target
from pytest_shark_tune.plan.dims import DIM
from pytest_shark_tune.plan.parameters import match_parameters
from pytest_shark_tune.plan.source import Source, check_data
from pytest_shark_tune.system.steps import Stage, Step

__all__ = ["Extracted", "extract_dispatches"]


_NO_BENCHMARK = "iree-compile makes no benchmark of it, as of anything with dynamic dimensions"
_DATA_DEPENDENT = f"{_NO_BENCHMARK}, though no input has: its sizes depend on the data"
_EXECUTABLES = "executable-sources"
"""The phase after which dispatches are formed and have no configs yet."""
_CONFIG = "#iree_codegen.compilation_info<"
"""How the text of a source begins a config that the source sets itself."""


class Extracted(NamedTuple):
    """The dispatches of some sources."""

    sources: tuple[Source, ...]
    """The sources, with the functions that the compiler found in them."""
    dispatches: tuple[Dispatch, ...]
    untunable: tuple[Untunable, ...]
    """The dispatches that cannot be tuned, with the reason."""


def extract_dispatches(
    sources: Sequence[Source], compiler: Compiler, processors: int, report: Callable[[str], None] = lambda message: None
) -> Extracted:
    """Find the dispatches of ``sources`` with their calls. Dispatches that no matcher distinguishes are grouped.

    Raises:
        InputError: the compiler rejects a source, a benchmark module was made for another target, or the data or
            the parameters for a model do not fit it.
    """
    found: list[FoundDispatch] = []
    untunable: list[Untunable] = []
    calls: dict[tuple[str, str], int] = {}
    read: list[Source] = []
    with ThreadPoolExecutor(processors) as pool:
        compiled = [(source, _Compiled.submit(pool, compiler, source)) for source in sources]
        for number, (source, parts) in enumerate(compiled):
            report(Step(f"extracting the dispatches of {source.name}", Stage.EXTRACT, number, len(sources)))
            try:
                if source.is_benchmark:
                    check_benchmark_target(source.text, compiler)
                flow, (functions, unfed) = parts.flow(), parts.functions()
                # The compiler refuses to make an executable of a module that calls for none.
                texts = parts.benchmarks() if flow.calls or source.is_benchmark else []
            except CommandFailed as error:
                raise source.refused(error) from error
            except InputError as error:
                raise InputError(f"{source.label}: {error}") from error
            calls.update({(source.name, symbol): number for symbol, number in flow.calls.items()})
            dispatches = _read_all(texts, source, processors)
            opened = _Opened()
            if missing := flow.calls.keys() - map(_symbol, dispatches):
                try:
                    lowered = _Lowered.of(source, compiler)
                    bound, reasons = _bound_benchmarks(lowered)
                    dispatches += [each for each in _read_all(bound, source, processors) if _symbol(each) in missing]
                    if left := [symbol for symbol in flow.calls if symbol not in set(map(_symbol, dispatches))]:
                        opened = _open_dispatches(lowered, left, processors, reasons)
                except CommandFailed as error:
                    raise source.refused(error) from error
            dispatches.sort(key=_natural_order)
            points = source.points if opened.found else ()
            source = msgspec.structs.replace(source, points=points, why_not_run=unfed)
            read.append(_with_functions(source, functions, flow))
            for dispatch in (*dispatches, *opened.found, *opened.untunable):
                if isinstance(dispatch, Untunable):
                    untunable.append(dispatch)
                else:
                    found.append(dispatch)
    return Extracted(tuple(read), group_dispatches(found, calls), tuple(untunable))


def _read_all(texts: Sequence[str], source: Source, processors: int) -> list[FoundDispatch | Untunable]:
    flags, has_configs = source.form.codegen_flags, _CONFIG in source.text
    return [
        read_benchmark(text, source.name, processors=processors, flags=flags, has_configs=has_configs) for text in texts
    ]


def _natural_order(dispatch: FoundDispatch | Untunable) -> list[tuple[int, str]]:
    """Sort ``dispatch_2`` before ``dispatch_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", _symbol(dispatch))]


def _symbol(dispatch: FoundDispatch | Untunable) -> str:
    """Return the name of a dispatch's executable."""
    return dispatch.name if isinstance(dispatch, Untunable) else dispatch.symbol


class _Lowered(NamedTuple):
    """A source whose dispatches are formed, and what makes benchmarks of it."""

    source: Source
    text: str
    """Its executable sources."""
    compiler: Compiler
    """The compiler with the flags of the source's form."""

    @classmethod
    def of(cls, source: Source, compiler: Compiler) -> _Lowered:
        """Lower a source.

        Raises:
            CommandFailed: the compiler rejects it.
        """
        compiler = compiler.for_models.with_flags(source.form.flags)
        return cls(source, compiler.lower(source.text, to=_EXECUTABLES, name=source.name), compiler)

    def benchmarks(self, text: str) -> list[str]:
        """Dump the benchmarks of an edited ``text``.

        Raises:
            CommandFailed: the compiler rejects it.
        """
        return self.compiler.dump_benchmarks(text, self.source.name, since=_EXECUTABLES)


def _bound_benchmarks(lowered: _Lowered) -> tuple[list[str], dict[str, CannotTune]]:
    """Dump the benchmarks of a source with seeded values for scalars that are known only at run time.

    Returns:
        The benchmarks, none if there is no such scalar; and the executables with such scalars that have no benchmark,
        with the reason.

    Raises:
        CommandFailed: the compiler rejects the values.
    """
    bound = bind_scalars(lowered.text)
    texts = lowered.benchmarks(bound.text) if bound.bound else []
    return texts, {symbol: UnknownScalar(reason) for symbol, reason in bound.unbound.items()}


class _Opened(NamedTuple):
    """The dispatches of a source that iree-compile makes no benchmark of by itself."""

    found: tuple[FoundDispatch | Untunable, ...] = ()
    """The dispatches that have a benchmark with the sizes that were given."""
    untunable: tuple[Untunable, ...] = ()
    """The others."""


def _open_dispatches(
    lowered: _Lowered, missing: Sequence[str], processors: int, reasons: Mapping[str, CannotTune]
) -> _Opened:
    """Read the dispatches ``missing`` of a source, which have no benchmark, at the sizes that were given.

    Args:
        lowered: The source.
        missing: The names of the executables.
        processors: The number of workers that share a dispatch on the target.
        reasons: The reasons of those that have no benchmark for another reason than open sizes.

    Raises:
        CommandFailed: the compiler rejects the sizes.
    """
    source = lowered.source
    sized = fix_sizes(lowered.text, [point.by_dimension for point in source.points])
    calls = {symbol: sized.calls[symbol] for symbol in missing if symbol in sized.calls}
    texts = lowered.benchmarks(sized.text) if calls else []
    found: list[FoundDispatch | Untunable] = []
    for text in texts:
        of_calls = calls.get(benchmarked_symbol(text), ())
        if of_calls:
            pairs = [(source.points[call.point], call) for call in of_calls]
            flags = source.form.codegen_flags
            found.append(read_benchmark(text, source.name, processors=processors, flags=flags, sized=pairs))
    left = [symbol for symbol in missing if symbol not in set(map(_symbol, found))]
    why = {symbol: reasons.get(symbol) or _why_open(source, sized.open.get(symbol, ())) for symbol in left}
    return _Opened(tuple(found), tuple(Untunable.of(symbol, source.name, reason) for symbol, reason in why.items()))


def _why_open(source: Source, dimensions: Sequence[OpenDimension]) -> CannotTune:
    """Why a dispatch has no benchmark, by the open dimensions on which its sizes depend."""
    if not dimensions:
        # An ONNX model with an input of open sizes was refused before.
        return DataDependentSizes(_DATA_DEPENDENT) if source.input_names else OpenSizes(_NO_BENCHMARK)
    names = dict(enumerate(source.input_names))
    labels = [f"{names.get(found.input, found.input)}.{found.dimension}" for found in dimensions]
    spoken = [
        f"dimension {found.dimension} of input {names.get(found.input, found.input)} of {found.function}"
        for found in dimensions
    ]
    given = " ".join(f"{DIM} {label}=1,16,128" for label in dict.fromkeys(labels))
    return OpenInput(
        f"its sizes depend on {' and '.join(dict.fromkeys(spoken))}, which is open: give sizes, as in {given}"
    )


def _with_functions(source: Source, functions: dict[str, tuple[Argument, ...]], flow: Flow) -> Source:
    """Add the functions of a source. The function that was asked for may be another model's, and is then dropped."""
    chosen = source.function if source.function in functions else ""
    called = {name: flow.called[name] for name in functions if name in flow.called}
    found = msgspec.structs.replace(source, functions=functions, function=chosen, called=called)
    check_data(source.name, source.data, {name: functions[name] for name in found.run_whole})
    parameters, why = match_parameters(source.name, flow.parameters, source.parameters)
    return msgspec.structs.replace(found, parameters=parameters, why_not_run=why or source.why_not_run)


class _Compiled(NamedTuple):
    """The compiler's results for a source, from up to three commands at a time. Each field waits for its result."""

    benchmarks: Callable[[], list[str]]
    flow: Callable[[], Flow]
    functions: Callable[[], tuple[dict[str, tuple[Argument, ...]], str]]
    """The functions that data can be made for, and the reason if there is none."""

    @classmethod
    def submit(cls, pool: Executor, compiler: Compiler, source: Source) -> _Compiled:
        text, name, compiler = source.text, source.name, compiler.for_models.with_flags(source.form.flags)
        if source.is_benchmark:

            def mark() -> list[str]:
                stripped = strip(text)
                flags = ["--iree-codegen-add-tuner-attributes"]
                phases = {"since": _EXECUTABLES, "to": "executable-configurations"}
                return [compiler.lower(stripped, name=name, flags=flags, **phases)]

            return cls(pool.submit(mark).result, Flow, lambda: ({}, ""))
        if source.is_op:  # A list of commands has hundreds, and most of a command's time is its start.
            dumped = pool.submit(compiler.dump_phases, text, name, "flow", "input")
            return cls(
                lambda: dumped.result()[0],
                lambda: read_flow(dumped.result()[1][0]),
                lambda: _functions_of(dumped.result()[1][1], source),
            )
        return cls(
            pool.submit(compiler.dump_benchmarks, text, name).result,
            pool.submit(lambda: read_flow(compiler.lower(text, to="flow", name=name))).result,
            pool.submit(lambda: _functions_of(compiler.lower(text, to="input", name=name), source)).result,
        )


def _functions_of(input_text: str, source: Source) -> tuple[dict[str, tuple[Argument, ...]], str]:
    """Return the functions of a source that data can be made for, and the reason if there is none."""
    return function_inputs(input_text, source.largest), why_not_fed(input_text, source.largest)
