"""A decomposition of an attention that a spec hands on beside the config, as IREE's own spec for gfx942 does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.flags import SPEC_FLAG
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import read_spec, with_configs

CASES = Path(__file__).parents[2] / "golden" / "cases"
SPEC = (CASES / "spec_with_decomposition.mlir").read_text()
MODEL = (CASES / "attention_f16.mlir").read_text()
TARGET = Target.parse("hip:gfx942")


def test_it_is_part_of_the_entry() -> None:
    attention, product = read_spec(SPEC)
    assert attention.config.count("col_major = true") == 2
    assert "decomposition_config" not in product.config
    linked = link_spec(SPEC)
    assert link_spec(linked) == linked
    assert read_spec(linked) == (attention, product)


def test_an_entry_keeps_it_with_another_config() -> None:
    attention, _ = read_spec(SPEC)
    other = attention.compilation_info.replace("col_major = true", "col_major = false")
    text = with_configs(SPEC, {attention.matcher: other})
    # Both places changed: the one in the config, and the one that the compiler reads.
    assert "col_major = true" not in text
    (row,) = read_spec(text)
    assert "decomposition_config" in row.config
    assert "col_major = true" not in row.config


@pytest.mark.slow
def test_its_binary_is_that_of_the_spec_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "spec.mlir"
    path.write_text(SPEC)
    compiler = Compiler(TARGET).for_models
    application = apply_spec(Source(name="model", text=MODEL, is_benchmark=False), SPEC, compiler)
    (placement,) = application.placements
    assert placement.by_flag

    def binary(name: str, text: str, *flags: str) -> bytes:
        """The kernel's binary; the rest of a .vmfb file holds locations too."""
        dump = tmp_path / name
        made = compiler.with_flags([f"--iree-hal-dump-executable-binaries-to={dump}", *flags])
        made.compile_sources(text, tmp_path / "out.vmfb")
        (kernel,) = dump.iterdir()
        return kernel.read_bytes()

    ours, default = binary("ours", application.text), binary("default", application.sources)
    theirs = binary("theirs", application.sources, f"{SPEC_FLAG}={path}", "--mlir-disable-threading")
    assert ours == theirs != default
