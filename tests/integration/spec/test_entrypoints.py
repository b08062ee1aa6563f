"""Specs in every form that iree-compile applies: each has the effect here that it has there, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from iree.compiler import ir

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import read_configs
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.records.snapshot import read_text
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import mark_entries, read_predicates, read_spec
from tests.thinned import thinned

CASES = Path(__file__).parents[2] / "golden" / "cases"
MODEL = CASES / "model_128x128x256_f32.mlir"
TARGET = "llvm-cpu:x86-64-v3"
NO_CONFIG = "transform.iree.match.has_no_lowering_config %op : !transform.any_op"
SEQUENCES = "transform.with_named_sequence"
DEFAULT = f"{SEQUENCES}, iree_codegen.tuning_spec_with_default_entrypoint"
MARK = "attributes {iree_codegen.tuning_spec_entrypoint}"
ACTION = """
transform.named_sequence @apply(%op: !transform.any_op {transform.readonly}, %c: !transform.any_param {transform.readonly}) {
  transform.annotate %op "compilation_info" = %c : !transform.any_op, !transform.any_param
  transform.yield
}
"""  # noqa: E501


def matcher(name: str, tile: int, condition: str = "", m: int = 128) -> str:
    """A matcher of products with ``m`` rows, or of all if it is -1. The config is told by its first tile."""
    return f"""
transform.named_sequence @{name}(%op: !transform.any_op {{transform.readonly}})
    -> (!transform.any_op, !transform.any_param) {{
  {condition}
  %b, %m, %n, %k = transform.iree.match.contraction %op, lhs_type = f32, rhs_type = f32, output_type = f32
    : !transform.any_op -> !transform.param<i64>
  transform.iree.match.dims_equal %m, [{m}] : !transform.param<i64>
  %c = transform.param.constant #iree_codegen.compilation_info<
    lowering_config = #iree_cpu.lowering_config<distribution = [{tile}, 64, 0], vector_common_parallel = [8, 16, 0],
      vector_reduction = [0, 0, 8]>,
    translation_info = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>
    -> !transform.any_param
  transform.yield %op, %c : !transform.any_op, !transform.any_param
}}
"""


def sequence(name: str, body: str, attributes: str = MARK) -> str:
    return f"""
transform.named_sequence @{name}(%v: !transform.any_op {{transform.consumed}}) -> !transform.any_op {attributes} {{
  {body}
}}
"""


def foreach(*matchers: str, before: str = "%v", after: str = "%r") -> str:
    pairs = ", ".join(f"@{name} -> @apply" for name in matchers)
    return f"{after} = transform.foreach_match in {before} {pairs} : (!transform.any_op) -> !transform.any_op\n"


def include(name: str, before: str = "%v", after: str = "%r") -> str:
    return (
        f"{after} = transform.include {name} failures(suppress) ({before}) : (!transform.any_op) -> !transform.any_op\n"
    )


def yielding(value: str) -> str:
    return f"transform.yield {value} : !transform.any_op"


def module(body: str, attributes: str = SEQUENCES, name: str = "@s") -> str:
    return f"module {name} attributes {{{attributes}}} {{ {body} }}\n"


def plain(*tiles: tuple[str, int]) -> str:
    """The plain form: one entrypoint in IREE's default form, with one ``foreach_match``."""
    names = [name for name, _ in tiles]
    return module(
        ACTION
        + "".join(matcher(name, tile) for name, tile in tiles)
        + sequence("__kernel_config", foreach(*names) + yielding("%r")),
        DEFAULT,
    )


ONE = foreach("a") + yielding("%r")
TWO = foreach("a") + foreach("b", before="%r", after="%s") + yielding("%s")
NO_RESULT = f"""
transform.named_sequence @__kernel_config(%v: !transform.any_op {{transform.consumed}}) {{
  {foreach("a").partition("= ")[2]}
  transform.yield
}}
"""
INNER = module(ACTION + matcher("a", 32) + sequence("__kernel_config", ONE, ""), name="@inner")
LINKED = module(ACTION + matcher("a", 32) + matcher("b", 64) + sequence("main", TWO), name="@user_0") + module(
    ACTION + matcher("a", 16, NO_CONFIG) + sequence("__kernel_config_1", ONE), name="@iree_default_1"
)

# The forms, each with the first tile of the config that iree-compile gives the product.
FORMS = {
    "plain": (plain(("a", 32)), 32),
    "no mark": (module(ACTION + matcher("a", 32) + sequence("__kernel_config", ONE, "")), 32),
    "no mark, no result": (module(ACTION + matcher("a", 32) + NO_RESULT), 32),
    "no name": (module(ACTION + matcher("a", 32) + sequence("__kernel_config", ONE, ""), name=""), 32),
    "any name": (module(ACTION + matcher("a", 32) + sequence("main", ONE)), 32),
    "a mark before the name": (
        module(
            ACTION
            + matcher("a", 32)
            + matcher("b", 64)
            + sequence("__kernel_config", foreach("b") + yielding("%r"), "")
            + sequence("main", ONE)
        ),
        32,
    ),
    "a later foreach_match takes over": (
        module(ACTION + matcher("a", 32) + matcher("b", 64) + sequence("main", TWO)),
        64,
    ),
    "unless it asks for an op without config": (
        module(ACTION + matcher("a", 32) + matcher("b", 64, NO_CONFIG) + sequence("main", TWO)),
        32,
    ),
    "a later one that does not match": (
        module(ACTION + matcher("a", 32) + matcher("b", 64, m=96) + sequence("main", TWO)),
        32,
    ),
    "the order within one": (
        module(
            ACTION
            + matcher("x", 16, m=96)
            + matcher("a", 32)
            + matcher("b", 64)
            + sequence("main", foreach("x") + foreach("a", "b", before="%r", after="%s") + yielding("%s"))
        ),
        32,
    ),
    "two entrypoints": (
        module(
            ACTION
            + matcher("a", 32)
            + matcher("b", 64)
            + sequence("main", ONE)
            + sequence("other", foreach("b") + yielding("%r"))
        ),
        64,
    ),
    "sequences that are included": (
        module(
            ACTION
            + matcher("a", 32)
            + matcher("b", 64)
            + sequence("one", ONE, "")
            + sequence("two", foreach("b") + yielding("%r"), "")
            + sequence("main", include("@one") + include("@two", "%r", "%s") + yielding("%s"))
        ),
        64,
    ),
    "root and results": (
        module(
            ACTION
            + matcher("a", 32)
            + sequence("main", ONE.replace("foreach_match in", "foreach_match restrict_root flatten_results in"))
        ),
        32,
    ),
    "printing": (
        module(ACTION + matcher("a", 32) + sequence("main", "transform.print %v : !transform.any_op\n" + ONE)),
        32,
    ),
    "nested": (module(INNER), 32),
    "nested twice": (module(module(INNER, name="@middle")), 32),
    "nested beside an entrypoint": (
        module(INNER + ACTION + matcher("b", 64) + sequence("__kernel_config", foreach("b") + yielding("%r"))),
        64,
    ),
    "linked by IREE": (
        module(
            LINKED
            + sequence(
                "__kernel_config",
                include("@user_0::@main") + include("@iree_default_1::@__kernel_config_1", "%r", "%s") + yielding("%s"),
            )
        ),
        64,
    ),
}
EMPTY = {
    "one that yields": module(sequence("__kernel_config", yielding("%v")).replace("consumed", "readonly")),
    "no mark": module(sequence("__kernel_config", yielding("%v"), "").replace("consumed", "readonly")),
    "no result": module(
        "transform.named_sequence @__kernel_config(%v: !transform.any_op {transform.readonly}) { transform.yield }"
    ),
}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Target.parse(TARGET))


@pytest.fixture(scope="module")
def sources(compiler: Compiler) -> str:
    return compiler.lower(MODEL.read_text(), to="executable-sources", name="model")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env={"COLUMNS": "250"}, catch_exceptions=False)


def binary(directory: Path, spec: str | bytes, suffix: str = ".mlir") -> bytes:
    """The model, compiled with a spec."""
    path, output = directory / f"spec{suffix}", directory / "out.vmfb"
    path.write_bytes(spec.encode() if isinstance(spec, str) else spec)
    result = run("compile", MODEL, "--spec", path, f"--tune-target={TARGET}", "--allow-unmatched", "-o", output)
    assert result.exit_code == 0, result.output
    return output.read_bytes()


@pytest.fixture(scope="module")
def plain_binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """What the plain forms come to, by the first tile."""
    found = {tile: binary(tmp_path_factory.mktemp("plain"), plain(("a", tile))) for tile in (32, 64)}
    assert found[32] != found[64]
    return found


def tiles(configured: str) -> list[str]:
    found = [each.config for each in read_configs(configured) if each.op == "linalg.matmul"]
    return [config.partition("distribution = [")[2].partition(",")[0] for config in found]


@pytest.mark.parametrize("form", thinned(FORMS, every=8))
def test_a_form_has_the_effect_that_it_has_in_iree_compile(
    form: str, compiler: Compiler, sources: str, tmp_path: Path, plain_binaries: dict[int, bytes]
) -> None:
    text, tile = FORMS[form]
    # Without a mark in it, the form goes to iree-compile as it stands.
    assert tiles(compiler.configure_by_flag(sources, text, name="model")) == [str(tile)]
    assert binary(tmp_path, text) == plain_binaries[tile]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_linked_once(form: str) -> None:
    linked = link_spec(FORMS[form][0])
    assert linked.count("transform.foreach_match") == 1
    assert link_spec(linked) == linked
    assert [row.compilation_info for row in read_spec(linked)] == [
        row.compilation_info for row in read_spec(FORMS[form][0])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("form", thinned(["plain", "any name"], every=2))
def test_a_spec_may_be_bytecode(form: str, tmp_path: Path, plain_binaries: dict[int, bytes]) -> None:
    path = tmp_path / "written.mlirbc"
    with ir.Context(), path.open("wb") as file:
        ir.Module.parse(FORMS[form][0]).operation.write_bytecode(file)
    assert binary(tmp_path, path.read_bytes(), ".mlirbc") == plain_binaries[32]
    assert read_spec(read_text(path)) == read_spec(FORMS[form][0])
    assert run("diff", path, path).exit_code == 0


def test_bytecode_that_is_damaged_or_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.mlirbc"
    path.write_bytes(b"ML\xefR and no more")
    assert "is not MLIR that this IREE parses" in run("show", path).stderr
    with ir.Context() as context, path.open("wb") as file, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        outer = ir.Module.create()
        block = outer.body
        for _ in range(300):
            op = ir.Operation.create("a.b", regions=1)
            block.append(op)
            block = op.regions[0].blocks.append()
        outer.operation.write_bytecode(file)
    result = run("show", path)
    assert (result.exit_code, "nested more than 200 deep" in result.stderr) == (2, True)


def test_a_dumped_spec_is_read(
    compiler: Compiler, sources: str, tmp_path: Path, plain_binaries: dict[int, bytes]
) -> None:
    """What iree-compile dumps for a target with a spec of its own holds both, linked."""
    rocm = Compiler(Target.parse("hip:gfx942"), (f"--iree-codegen-dump-tuning-specs-to={tmp_path / 'dump'}",))
    model = rocm.lower(MODEL.read_text(), to="executable-sources", name="model")
    rocm.configure_by_flag(model, FORMS["a later foreach_match takes over"][0], name="model")
    (dumped,) = (tmp_path / "dump").glob("*.mlir")
    assert dumped.read_text().count("module @") > 1
    assert [row.matcher for row in read_spec(dumped.read_text())][:2] == ["b", "a"]
    assert binary(tmp_path, dumped.read_text()) == plain_binaries[64]


@pytest.mark.parametrize("form", thinned(EMPTY, every=3))
def test_an_empty_spec_has_no_entries(form: str, compiler: Compiler, sources: str, tmp_path: Path) -> None:
    empty = EMPTY[form]
    default = compiler.lower(sources, to="executable-configurations", since="executable-sources", name="model")
    assert tiles(compiler.configure_by_flag(sources, empty, name="model")) == tiles(default)
    assert (read_spec(empty), read_predicates(empty)) == ((), ())
    assert mark_entries(empty) == link_spec(empty) == link_spec(link_spec(empty))
    path, other, out = (tmp_path / f"{name}.mlir" for name in ("empty", "other", "out"))
    path.write_text(empty)
    other.write_text(plain(("a", 32)))
    assert run("show", path).exit_code == 0
    assert "a: added" in run("diff", path, other).stdout
    assert run("merge", path, other, "-o", out).stdout.endswith("1 entry, 0 dropped\n")
    assert read_spec(out.read_text()) == read_spec(other.read_text())
    assert run("merge", path, path, "-o", out).stdout.endswith("0 entries, 0 dropped\n")
    assert read_spec(out.read_text()) == ()
    ported = run("port", path, "-o", out, f"--tune-cache={tmp_path / 'cache'}")
    assert (ported.exit_code, read_spec(out.read_text())) == (0, ()), ported.output
    unmatched = module(ACTION + matcher("a", 32, m=96) + sequence("__kernel_config", ONE), DEFAULT)
    assert binary(tmp_path, empty) == binary(tmp_path, unmatched)


@pytest.mark.parametrize("name", thinned(["without_entrypoint_attribute", "two_foreach_match", "printing"], every=3))
def test_the_cases_are_shown_merged_diffed_ported_and_applied(
    name: str, tmp_path: Path, plain_binaries: dict[int, bytes]
) -> None:
    path, out = CASES / f"spec_{name}.mlir", tmp_path / "out.mlir"
    assert run("show", path).exit_code == 0
    assert run("merge", path, "-o", out).exit_code == 0
    assert run("diff", path, out).exit_code == 0
    assert binary(tmp_path, path.read_text()) == plain_binaries[32] == binary(tmp_path, out.read_text())
    result = run("port", path, "-o", out, f"--tune-target={TARGET}", f"--tune-cache={tmp_path / 'cache'}")
    assert result.exit_code == 0, result.output
    assert run("diff", path, out).exit_code == 0
    if name == "printing":
        assert "transform.print in @main is left out" in result.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            sequence("main", "%c = transform.get_parent_op %v : (!transform.any_op) -> !transform.any_op\n" + ONE),
            "@main, which it runs, holds transform.get_parent_op",
        ),
        (sequence("main", include("@main") + yielding("%r")), "recursion not allowed"),
        (sequence("main", include("@absent") + yielding("%r")), "absent"),
        (sequence("main", ONE, ""), "no entrypoint"),
    ],
)
def test_an_entrypoint_that_does_more_is_refused(body: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        link_spec(module(ACTION + matcher("a", 32) + body))


def test_entries_that_have_parts_of_an_effect_each_are_refused() -> None:
    """An attention's decomposition would stay where a later entry writes the config alone."""
    part = ACTION.replace("@apply", "@mark").replace('"compilation_info"', '"decomposition_config"')
    first = foreach("a").replace("@apply", "@mark")
    text = module(
        ACTION
        + part
        + matcher("a", 32)
        + matcher("b", 64)
        + sequence("main", first + foreach("b", before="%r", after="%s") + yielding("%s"))
    )
    with pytest.raises(InputError, match="@b and @a, of different ones, may match the same op"):
        link_spec(text)
