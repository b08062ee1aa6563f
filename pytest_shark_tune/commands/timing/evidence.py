"""The files of a dispatch as one release of IREE compiles it: its source, its config and its assembly."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_shark_tune.compiler.versions import OtherCompiler
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cleanup import scratch_directory

__all__ = ["leave_dispatch"]

_ASSEMBLY = (".s", ".rocmasm", ".ptx", ".spvasm")
"""The suffixes of assembly, as the backends dump it."""
_DUMPS = ("configurations", "intermediates", "binaries")


def leave_dispatch(name: str, task: Task, compiler: OtherCompiler, out: Path) -> Iterator[Path]:
    """Write the benchmark module of a dispatch, the same with the release's config, and the release's assembly of it.

    Args:
        name: the name of the dispatch, with which the names of files begin.
        task: the dispatch as the release has it.
        compiler: the release.
        out: the directory.

    Yields:
        The files.
    """
    module = task.dispatch.members[0].module
    flags = [*module.flags, *compiler.target.flags, *compiler.flags]
    stem = out / f"{name}-{compiler.version}"
    source = stem.with_name(f"{stem.name}.mlir")
    command = ["iree-compile", "--compile-from=executable-sources", *flags, source.name, "-o", f"{stem.name}.vmfb"]
    out.mkdir(parents=True, exist_ok=True)
    source.write_text(
        f"// IREE {compiler.version}: {shlex.join(command)}\n"
        f"// iree-benchmark-module --module={stem.name}.vmfb --function={module.run_function} --input=100\n"
        f"{compiler.as_written(module.text)}",
        encoding="utf-8",
    )
    yield source
    with scratch_directory() as directory:
        dumps = [f"--iree-hal-dump-executable-{kind}-to={directory}" for kind in _DUMPS]
        try:
            compiler.with_flags([*dumps, *module.flags]).compile_sources(module.text, directory / "out.vmfb")
        except CommandFailed:  # The source shows why.
            return
        for path in sorted(directory.iterdir()):
            suffix = ".configured.mlir" if "configured" in path.name else path.suffix
            if suffix == ".configured.mlir" or suffix in _ASSEMBLY:
                kept = stem.with_name(f"{stem.name}{suffix}")
                shutil.copyfile(path, kept)
                yield kept
