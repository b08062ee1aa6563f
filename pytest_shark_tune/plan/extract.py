"""The dispatches of sources, as iree-compile forms them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, why_rejected
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.dispatch.extraction import Flow, function_inputs, read_benchmark, read_flow
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch, Tensor, Untunable
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.parameters import match_parameters
from pytest_shark_tune.plan.source import Source, check_data

__all__ = ["Extracted", "extract_dispatches"]


_NO_BENCHMARK = "iree-compile makes no benchmark of it, as of anything with dynamic dimensions"
_OPEN_SHAPES = f"{_NO_BENCHMARK}: fix the input shapes"
_DATA_DEPENDENT = f"{_NO_BENCHMARK}, though no input has: its sizes depend on the data, and it keeps its default"


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
        for source, parts in compiled:
            report(f"extracting the dispatches of {source.name}")
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
                dispatch = read_benchmark(text, source.name, processors=processors, flags=source.form.codegen_flags)
                if isinstance(dispatch, Untunable):
                    untunable.append(dispatch)
                else:
                    found.append(dispatch)
            read_symbols = {dispatch.symbol for dispatch in found if dispatch.source == source.name}
            read_symbols |= {entry.name for entry in untunable if entry.source == source.name}
            # An ONNX model with an input of open sizes was refused before.
            why = _DATA_DEPENDENT if source.input_names else _OPEN_SHAPES
            untunable += [Untunable(symbol, source.name, why) for symbol in flow.calls if symbol not in read_symbols]
    return Extracted(tuple(read), group_dispatches(found, calls), tuple(untunable))


def _with_functions(source: Source, functions: dict[str, tuple[Tensor, ...]], flow: Flow) -> Source:
    """Add the functions of a source. The function that was asked for may be another model's, and is then dropped."""
    chosen = source.function if source.function in functions else ""
    called = {name: flow.called[name] for name in functions if name in flow.called}
    found = msgspec.structs.replace(source, functions=functions, function=chosen, called=called)
    check_data(source.name, source.data, {name: functions[name] for name in found.run_whole})
    parameters, why = match_parameters(source.name, flow.parameters, source.parameters)
    return msgspec.structs.replace(found, parameters=parameters, why_not_run=why)


class _Compiled(NamedTuple):
    """The compiler's results for a source, from up to three commands at a time."""

    benchmarks: Future[list[str]]
    flow: Future[Flow]
    functions: Future[dict[str, tuple[Tensor, ...]]]

    @classmethod
    def submit(cls, pool: Executor, compiler: Compiler, source: Source) -> _Compiled:
        text, name, compiler = source.text, source.name, compiler.for_models.with_flags(source.form.flags)
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
