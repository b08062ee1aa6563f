"""Hostile specs, configs and records are refused by name before anything in them runs; real ones are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from iree.compiler import ir

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import ConfigureFailed, compiler_context, configure, configure_with
from pytest_shark_tune.compiler.flags import check_flags
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.dispatch.foreign.trust import check_source, trusting_specs
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.errors import CommandFailed, InputError, SpecRefused
from pytest_shark_tune.ops.standalone import standalone_op
from pytest_shark_tune.records.snapshot import check_snapshots, snapshot_path, write_text
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.build import SpecEntry, build_spec, single_entry_spec
from pytest_shark_tune.spec.link import SpecPart, check_starter, link_spec, merge_specs
from pytest_shark_tune.spec.read import (
    dropped_prints,
    mark_entries,
    read_spec,
    refused_entries,
    select_entries,
    with_configs,
)
from tests.factories import make_winner
from tests.hostile import CONFIG, MODEL, hostile_config, hostile_specs, spec
from tests.unit.spec.test_spec import contraction

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = tuple(hostile_specs(Path("marker")))
# The others do no harm of their own in this release, or their config does it when it is compiled.
INTERPRETED = ("action runs", "action writes", "include", "sequence", "nested module")
ROOT = contraction("mk,kn->mn", {"m": 48, "n": 80, "k": 56})
WHOLE_PIPELINE = (
    "iree-codegen-tile-and-distribute-to-workgroups-using-forall-op,iree-codegen-bufferize-dispatch-tensor-load-store,"
    "iree-codegen-combine-result-layout-transformation,iree-codegen-config-tracking-canonicalize,cse,"
    "iree-codegen-fuse-tensor-pad-with-consumer,iree-codegen-concretize-pad-result-shape,"
    "iree-codegen-propagate-dispatch-size-bounds,iree-llvmcpu-tile-and-fuse-producer-consumer{anchor-on-root-op=true "
    "only-fuse-producer-input-operands=false tiling-level=vector_common_parallel},"
    "iree-llvmcpu-split-reduction{enable-fp-reduction-reordering=false},iree-llvmcpu-tile{skip-root-op=true "
    "tiling-level=vector_reduction},iree-codegen-forall-to-for,"
    "linalg-fold-unit-extent-dims{use-rank-reducing-slices},canonicalize,iree-codegen-vectorize-tensor-pad,"
    "iree-llvmcpu-tile-to-vector-size,iree-codegen-generic-vectorization{enable-cleanup=true "
    "enable-vector-masking=true fold-cast-into-contract=false generate-contract=true "
    "use-configured-vector-sizes=false vectorize-copies=true},iree-codegen-optimize-tensor-insert-extract-slices,"
    "iree-llvmcpu-verify-vector-size-legality,iree-codegen-optimize-vector-transfer{flatten=true},"
    "iree-eliminate-empty-tensors,empty-tensor-to-alloc-tensor,iree-codegen-iree-comprehensive-bufferize,"
    "iree-codegen-inject-assume-alignment,resolve-shaped-type-result-dims,iree-codegen-canonicalize,"
    "iree-codegen-cleanup-buffer-alloc-view,iree-codegen-remove-single-iteration-loop,"
    "iree-codegen-drop-vector-unit-dims,iree-codegen-fold-memref-alias-ops,iree-codegen-erase-dead-alloc-and-stores,"
    "iree-codegen-hoist-inner-tiled-acc-reshapes,iree-llvmcpu-virtual-vector-lowering{enable-arm-i8mm=false "
    "split-transfers=linalg-copy},iree-codegen-vector-transfer-lowering{enable-scalable-lowerings=true},"
    "iree-llvmcpu-vector-transpose-lowering{lower-vector-transpose-to-avx2=true},iree-llvmcpu-peel,"
    "iree-llvmcpu-vector-shape-cast-lowering"
)


@pytest.fixture(scope="module")
def sources() -> str:
    return Compiler(Target.parse("llvm-cpu")).lower(MODEL, to="executable-sources")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "RAN"


def bytecode(text: str, path: Path) -> Path:
    with compiler_context(), path.open("wb") as file:
        ir.Module.parse(text).operation.write_bytecode(file)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_spec_is_refused_by_name_where_it_would_be_applied(name: str, sources: str, marker: Path) -> None:
    text, named = hostile_specs(marker)[name]
    with pytest.raises(SpecRefused) as refused:
        configure_with(sources, text)
    assert named in str(refused.value)
    assert "--tune-trust-spec" in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_bytecode_is_no_way_around(name: str, sources: str, marker: Path, tmp_path: Path) -> None:
    text, named = hostile_specs(marker)[name]
    path = bytecode(text, tmp_path / "spec.mlirbc")
    with pytest.raises(SpecRefused) as refused:
        configure(sources, path)
    assert named in str(refused.value)
    assert str(path) in str(refused.value)
    assert not marker.exists()


READERS: tuple[Callable[[str], object], ...] = (
    read_spec,
    link_spec,
    mark_entries,
    check_starter,
    lambda text: build_spec([SpecEntry(name="mm", root=ROOT, compilation_info=CONFIG)], text),
    lambda text: select_entries(text, ["match_mm"]),
    lambda text: with_configs(text, {"match_mm": CONFIG}),
    lambda text: merge_specs([SpecPart(text=text, entries={"match_mm": ""})], [(0, "match_mm")]),
)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_everything_that_reads_specs_refuses_it(name: str, reader: Callable[[str], object], marker: Path) -> None:
    text, named = hostile_specs(marker)[name]
    with pytest.raises(SpecRefused) as refused:
        reader(text)
    assert named in str(refused.value)


@pytest.mark.parametrize("name", INTERPRETED)
def test_the_hostile_specs_would_do_it(name: str, sources: str, marker: Path) -> None:
    text, _ = hostile_specs(marker)[name]
    with trusting_specs():
        try:
            configure_with(sources, text)
        except ConfigureFailed:
            assert "runs" in name or "module" in name  # The command's output is no module.
    assert marker.exists()
    with pytest.raises(SpecRefused):  # Trust ends with the run that it was given for.
        configure_with(sources, text)


def test_a_hostile_pipeline_would_write_when_it_is_compiled(sources: str, marker: Path, tmp_path: Path) -> None:
    text, _ = hostile_specs(marker)["pipeline"]
    with trusting_specs():
        configured = configure_with(sources, text).text
    with pytest.raises(CommandFailed):  # It lowers nothing.
        Compiler(Target.parse("llvm-cpu")).compile_sources(configured, tmp_path / "out.vmfb")
    assert marker.exists()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.mlir")), ids=lambda path: path.stem)
def test_real_specs_pass(path: Path) -> None:
    assert read_spec(path.read_text(encoding="utf-8"))


MATCHERS = """
    transform.iree.match.has_no_lowering_config %op : !transform.any_op
    transform.match.operation_name %op ["linalg.generic", "linalg.matmul"] : !transform.any_op
    %in = transform.get_operand %op[0] : (!transform.any_op) -> !transform.any_value
    transform.iree.match.cast_compatible_type %in = tensor<48x?xf32> : !transform.any_value
    %two = transform.param.constant 2 : i64 -> !transform.param<i64>
    transform.match.param.cmpi le %two, %m : !transform.param<i64>
    transform.match.structured %op : !transform.any_op {
    ^bb0(%s: !transform.any_op):
      %rank = transform.match.structured.rank %s : (!transform.any_op) -> !transform.param<i64>
      transform.match.structured.yield
    }"""


def test_all_that_matchers_and_annotations_are_made_of_passes(sources: str) -> None:
    marked = 'transform.annotate %op "__tuning_spec_applied__" : !transform.any_op'
    text = spec(
        matcher=MATCHERS, action=marked, config=hostile_config(options='a = "b", c = [1, true, affine_map<()->()>]')
    )
    (applied,) = (each for each in configure_with(sources, text).applied if each.op != "linalg.fill")
    assert "a = " in applied.compilation_info


SWIZZLE = "#iree_gpu.swizzle_operand<copy_config = {}, swizzle = #iree_codegen.xor_shuffle<128, 16>>"


@pytest.mark.parametrize(
    ("inner", "named"),
    [
        ("#iree_gpu.derived_thread_config", ""),
        ("#iree_gpu.promote_with_cache_swizzle<#iree_gpu.derived_thread_config>", ""),
        (SWIZZLE.format("#iree_gpu.derived_thread_config"), ""),
        ("#iree_gpu.mma_layout<MFMA_F32_16x16x16_F16, col_major = true>", ""),
        ('#iree_gpu.promote_with_cache_swizzle<#iree_codegen.pass_pipeline<"snapshot-op-locations">>', "snapshot"),
        (SWIZZLE.format('#hal.executable.object<{path = "x"}>'), "#hal.executable.object"),
        ('#iree_gpu.lowering_config<{a = {b = [#hal.executable.object<{path = "x"}>]}}>', "#hal.executable.object"),
        ("dense<0> : tensor<2xi8>", "DenseIntElementsAttr"),
    ],
)
def test_what_a_gpu_config_holds(inner: str, named: str) -> None:
    info = (
        f"#iree_codegen.compilation_info<lowering_config = #iree_gpu.lowering_config<{{a = [{inner}]}}>, "
        "translation_info = <pipeline = #iree_gpu.pipeline<TileAndFuse> workgroup_size = [64, 1, 1], "
        "{gpu_pipeline_options = #iree_gpu.pipeline_options<prefetch_num_stages = 2>, "
        'llvm_func_attrs = {"amdgpu-waves-per-eu" = "2"}}>>'
    )
    if not named:
        assert single_entry_spec(ROOT, info)
        return
    with pytest.raises(SpecRefused, match=named):
        single_entry_spec(ROOT, info)


def test_a_pipeline_as_text_passes_with_its_options(sources: str) -> None:
    assert why_not_plain(WHOLE_PIPELINE) == ""
    text = spec(config=hostile_config(f'#iree_codegen.pass_pipeline<"{WHOLE_PIPELINE}">'))
    assert "iree-llvmcpu-peel" in configure_with(sources, text).text


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        ("", ""),
        (" cse , canonicalize{max-iterations=1 top-down}", ""),
        ("func.func(canonicalize,cse),cse", ""),
        ("builtin.module(func.func(linalg-fold-unit-extent-dims{use-rank-reducing-slices}))", ""),
        ("scf-parallel-loop-tiling{parallel-loop-tile-sizes=1,2,4}", ""),
        ("snapshot-op-locations", "the pass snapshot-op-locations"),
        ("cse,func.func(any(snapshot-op-locations{filename=x}))", "the pass snapshot-op-locations"),
        ("hal.executable(cse)", "nested on hal.executable"),
        ("hal.executable(iree-hal-preprocess-executables-with-tool{command=x})", "with-tool"),
        ("canonicalize{top-down=true filter-dialects=x}", "the option filter-dialects of the pass canonicalize"),
        ("cse{filename=x}", "the option filename of the pass cse"),
        ("iree-codegen-gpu-pipelining{transform-file-name=/tmp/x}", "transform-file-name"),
        ("iree-codegen-materialize-tuning-specs{tuning-spec-path=x}", "iree-codegen-materialize-tuning-specs"),
        ("iree-util-fixed-point-iterator{pipeline=cse}", "iree-util-fixed-point-iterator"),
        ("iree-util-dump-module{path=x}", "iree-util-dump-module"),
        ("transform-interpreter", "transform-interpreter"),
        ("iree-codegen-lower-executable-using-transform-dialect", "using-transform-dialect"),
        ("canonicalize{max-iterations='1 2'}", "not in its plain form"),
        ("canonicalize{max-iterations={1}}", "not in its plain form"),
        ("canonicalize{max-iterations=/etc}", "not in its plain form"),
        ("canonicalize snapshot-op-locations", "not in its plain form"),
        ("cse)", "not in its plain form"),
        ("func.func(cse", "not in its plain form"),
        ("cse{", "not in its plain form"),
        ("cse,,cse", "not in its plain form"),
        ("cse;snapshot-op-locations", "not in its plain form"),
    ],
)
def test_the_passes_of_a_pipeline(pipeline: str, named: str) -> None:
    refused = why_not_plain(pipeline)
    assert bool(refused) is bool(named)
    assert named in refused


def test_what_only_prints_is_left_out(sources: str) -> None:
    plain, printing = spec(), spec(action="transform.print %op : !transform.any_op\n transform.print")
    assert dropped_prints(printing) == ("transform.print in @apply is left out: it only prints",)
    assert dropped_prints(plain) == ()
    assert link_spec(printing) == link_spec(plain)
    assert configure_with(sources, printing) == configure_with(sources, plain)
    first = plain.replace("%r = ", "transform.print %v : !transform.any_op\n %r = ")
    # A print in the entrypoint takes IREE's general form.
    assert link_spec(first.replace("iree_codegen.tuning_spec_with_default_entrypoint, ", "")) == link_spec(plain)


def test_which_entries_are_to_blame() -> None:
    other = "transform.named_sequence @bad(%op: !transform.any_op {transform.readonly}) { transform.apply_cse to %op : !transform.any_op\n transform.yield }"  # noqa: E501
    include = "transform.include @bad failures(propagate) (%op) : (!transform.any_op) -> ()"
    (row, said), *rest = refused_entries(spec(sequences=other, action=include))
    assert row.matcher == "match_mm"
    assert "the op transform.apply_cse in @bad" in said
    assert not rest
    ((_, said),) = refused_entries(spec(sequences=other))
    assert said == ""


# What records hold.

HOSTILE = hostile_config('#iree_codegen.pass_pipeline<"snapshot-op-locations{filename=x}">')
PATTERN = """
func.func @pattern(%a: tensor<8x8xf32>, %b: tensor<8xf32>) -> tensor<8xf32> {{
  %0 = linalg.generic {{indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
      iterator_types = ["parallel", "reduction"]}} ins(%a : tensor<8x8xf32>) outs(%b : tensor<8xf32>) attrs = {{{more}}} {{
  ^bb0(%x: f32, %y: f32):
    %z = arith.addf %x, %y : f32
    linalg.yield %z : f32
  }} -> tensor<8xf32>
  return %0 : tensor<8xf32>
}}
"""  # noqa: E501 - an op stands in one line


def reduction(more: str = "") -> RootOp:
    return msgspec.structs.replace(
        contraction("ij,j->i", {"i": 8, "j": 8}), kind="other", pattern=PATTERN.format(more=more)
    )


def test_a_hostile_config_in_a_record_never_becomes_a_spec() -> None:
    with pytest.raises(SpecRefused, match=r"the config of candidate is refused.*snapshot-op-locations"):
        single_entry_spec(ROOT, HOSTILE)
    with pytest.raises(SpecRefused, match="the config of match_mm is refused"):
        with_configs(spec(), {"match_mm": HOSTILE})


def test_a_hostile_op_in_a_record_is_not_compiled() -> None:
    assert standalone_op("sum", reduction()).text
    for more in (f"compilation_info = {HOSTILE}", 'objects = [#hal.executable.object<{path = "x.o"}>]'):
        with pytest.raises(InputError, match=r"the recorded op linalg.generic is refused"):
            standalone_op("sum", reduction(more))
        with pytest.raises(SpecRefused, match=r"the recorded op linalg.generic is refused"):
            single_entry_spec(reduction(more), CONFIG)


def record(root: RootOp, compilation_info: str) -> WinnerRecord:
    return make_winner("c0ffee", dispatch="mm", compilation_info=compilation_info, root=root)


@pytest.mark.parametrize(
    ("text", "records", "named"),
    [
        (spec(), [record(ROOT, CONFIG)], ""),
        ("no MLIR", [record(ROOT, "no attribute")], ""),
        (spec(action="transform.apply_cse to %op : !transform.any_op"), [], "mlir: the spec is refused"),
        (spec(), [record(ROOT, HOSTILE)], "jsonl: the config of mm is refused"),
        (spec(), [record(reduction(f"compilation_info = {HOSTILE}"), CONFIG)], "jsonl: the recorded op"),
    ],
)
def test_a_hostile_snapshot_is_refused_with_its_file(
    text: str, records: list[WinnerRecord], named: str, tmp_path: Path
) -> None:
    path = snapshot_path(tmp_path, "llvm-cpu", "cpu")
    path.parent.mkdir()
    write_text(path, text, records)
    if not named:
        check_snapshots(tmp_path, "llvm-cpu")
        return
    with pytest.raises(InputError, match=f"{path.stem}.{named}"):
        check_snapshots(tmp_path, "llvm-cpu")


@pytest.mark.parametrize(
    "flag",
    [
        "--iree-hal-preprocess-executables-with=touch x",
        "--iree-codegen-tuning-spec-path=x.mlir",
        "--load-pass-plugin=x.so",
        "--iree-llvmcpu-system-linker-path=x",
        "--iree-opt-export-parameters=x",
        "--iree-hal-dump-executable-files-to=x",
        "--iree-preprocessing-pass-pipeline=builtin.module(iree-util-dump-module{path=x})",
        "@flags.txt",
        "x.mlir",
        "-o",
    ],
)
def test_flags_that_no_file_may_bring(flag: str) -> None:
    good = [
        "--iree-opt-level=O2",
        "--iree-global-opt-use-im2col-for-convs",
        "--iree-preprocessing-pass-pipeline=builtin.module(util.func(iree-preprocessing-convert-conv-to-channels-last))",
    ]
    check_flags(good, "--bundle", why_not_plain)
    with pytest.raises(InputError, match="--bundle is refused: it brings the flag"):
        check_flags([*good, flag], "--bundle", why_not_plain)


BAKED_IN = """
hal.executable private @e {
  hal.executable.variant public @v target(<"llvm-cpu", "embedded-elf-x86_64">) {
    builtin.module attributes {iree_codegen.tuning_spec_mlirbc = dense<0> : vector<4xi8>} {}
  }
}
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MODEL, ""),
        (BAKED_IN, "the attribute iree_codegen.tuning_spec_mlirbc"),
        (spec(), "the op transform.annotate"),
        (MODEL.replace("matmul ins", f"matmul {{compilation_info = {CONFIG}}} ins"), ""),
        (
            MODEL.replace(
                "matmul ins",
                'matmul {compilation_info = {a = [#iree_codegen.pass_pipeline<"snapshot-op-locations">]}} ins',
            ),
            "the pass snapshot-op-locations",
        ),
        (MODEL.replace("matmul ins", 'matmul {x = [#hal.executable.object<{path = "x"}>]} ins'), "#hal.executable."),
    ],
)
def test_a_source_from_elsewhere_has_the_compiler_run_nothing(text: str, named: str) -> None:
    if not named:
        check_source(text, "--bundle: m")
        return
    with pytest.raises(SpecRefused, match=f"--bundle: m is refused.*{named}"):
        check_source(text, "--bundle: m")


@pytest.mark.parametrize("deep", [201, 100_000])
def test_what_is_nested_too_deeply_is_refused_before_it_is_parsed(deep: int) -> None:
    text = spec(config=hostile_config(options=f"a = {'[' * deep}1{']' * deep}"))
    with pytest.raises(SpecRefused, match="nested more than"):
        read_spec(text)
    with pytest.raises(SpecRefused, match="nested more than"):
        single_entry_spec(ROOT, hostile_config(options=f"a = {'[' * deep}1{']' * deep}"))
    assert "nested more than" in why_not_plain(f"{'any(' * deep}cse{')' * deep}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"m": (77,)}, "a dimension is none of the loops"),
        ({"inputs": ()}, "1 operands have 3 maps"),
        ({"inputs": (), "maps": ()}, "contraction with 0 inputs and 1 outputs"),
        ({"iterators": ()}, "3 loops have 0 iterators"),
        ({"loops": (10**400, 1, 1)}, "sizes 10000"),
        ({"inputs": ({"shape": (1,), "element": ""}, {"shape": (1,), "element": "f32"})}, "'' is no element type"),
        ({"inputs": ({"shape": (-2,), "element": "f32"}, {"shape": (1,), "element": "f32"})}, "sizes -2 are"),
    ],
)
def test_a_recorded_op_whose_fields_do_not_fit_each_other_is_not_decoded(damage: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(msgspec.to_builtins(ROOT) | damage, type(ROOT))


@pytest.mark.parametrize("damage", [{"maps": ("", *ROOT.maps[1:])}, {"maps": ("1", *ROOT.maps[1:])}])
def test_a_recorded_op_that_is_none_is_told_in_words(damage: dict[str, object]) -> None:
    root = msgspec.structs.replace(ROOT, **damage)
    with pytest.raises(InputError, match="the recorded op"):
        single_entry_spec(root, CONFIG)
    with pytest.raises(InputError, match="record"):
        standalone_op("mm", root)
