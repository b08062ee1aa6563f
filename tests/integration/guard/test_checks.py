"""Every way in which a spec rots, told by the real compiler: each is found by the check that it breaks, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import iree.compiler._mlir_libs
import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.guard.plan import GuardPlan
from pytest_shark_tune.guard.session import GuardSession
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.records.snapshot import records_path, write_spec
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.compile_step import CompileStep
from pytest_shark_tune.tuning.settings import RunSettings
from tests.factories import make_winner
from tests.models import BATCH, matmuls

MODEL = matmuls("plain", 64, 32, 48) + BATCH
NEGATED = """
func.func @negated(%a: tensor<64x32xf32>, %b: tensor<32x48xf32>) -> tensor<64x48xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x48xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<64x48xf32>) -> tensor<64x48xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<64x32xf32>, tensor<32x48xf32>)
      outs(%f : tensor<64x48xf32>) -> tensor<64x48xf32>
  %1 = arith.negf %0 : tensor<64x48xf32>
  return %1 : tensor<64x48xf32>
}
"""
PLAIN, BATCH = "matmul_64x48x32_f32", "batch_matmul_3x32x48x64_f32"


def info(levels: str) -> str:
    return (
        f"#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<{levels}>, "
        "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    )


INFOS = {
    PLAIN: info("distribution = [32, 16, 0], vector_common_parallel = [8, 16, 0], vector_reduction = [0, 0, 4]"),
    BATCH: info(
        "distribution = [1, 16, 48, 0], vector_common_parallel = [1, 4, 16, 0], vector_reduction = [0, 0, 0, 8]"
    ),
}

CONVOLUTION_INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [0, 2, 4, 16, 0, 0, 0], "
    "vector_common_parallel = [1, 1, 2, 8, 0, 0, 0], vector_reduction = [0, 0, 0, 0, 1, 1, 2]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<ConvTileAndDecomposeExpert>>>"
)
CUDA_INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_gpu.lowering_config<{"
    "mma_kind = #iree_gpu.mma_layout<NV_MMA_SYNC_F32_16x8x16_F16>, promote_operands = [0, 1], reduction = [0, 0, 4], "
    "subgroup = [4, 4, 0], workgroup = [64, 64, 0]}>, translation_info = <pipeline = #iree_gpu.pipeline<TileAndFuse> "
    "workgroup_size = [64, 1, 1] subgroup_size = 32, {gpu_pipeline_options = #iree_gpu.pipeline_options<"
    "prefetch_num_stages = 2, no_reduce_shared_memory_bank_conflicts = false, use_igemm_convolution = false>}>>"
)


class Workshop:
    """A model whose dispatches are found, and specs for it, each guarded in a file of its own."""

    def __init__(
        self,
        directory: Path,
        compiler: Compiler,
        given: object = "model.mlir",
        *,
        route: str = "compile",
        devices: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.given = given
        (directory / "model.mlir").write_text(MODEL, encoding="utf-8")
        self.session = GuardSession(
            replace(RunSettings.in_directory(directory, devices, "this very CPU", jobs=2), route=route),
            compiler,
            Cache(directory / "cache"),
        )
        (self.directory / "none.mlir").write_text("module {}", encoding="utf-8")
        found = self.guarded(self.directory / "none.mlir").plan.tasks
        self.tasks = {task.name: task for task in found}

    def winner(self, name: str, compilation_info: str = "", **changes: object) -> WinnerRecord:
        """The record of an entry for the dispatch of that name, as tuning writes one, but for ``changes``."""
        task = self.tasks[name]
        record = make_winner(
            "c0ffee",
            dispatch=name,
            device="this very CPU",
            target="llvm-cpu:x86-64-v3",
            iree="3.12.0",
            root=task.dispatch.root,
            compilation_info=compilation_info or INFOS[name],
            ops=tuple(RecordedOp(member.source, member.symbol) for member in task.dispatch.members),
        )
        return msgspec.structs.replace(record, **changes)

    def guarded(self, spec: Path) -> GuardPlan:
        return self.session.guard_plan([self.given], self.directory, spec)

    def spec(self, path: Path, winners: Sequence[WinnerRecord], *, with_records: bool = True) -> GuardPlan:
        write_spec(path, winners)
        if not with_records:
            records_path(path).unlink()
        return self.guarded(path)

    def evaluate(
        self, guarded: GuardPlan, name: str, check: EntryCheck, artifact: Artifact | None = None, alpha: float = 0.002
    ) -> Verdict:
        return self.session.evaluator.evaluate(guarded, guarded.entry(name), check, artifact, alpha=alpha)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    shop = Workshop(tmp_path_factory.mktemp("workshop"), Compiler(Target.parse("llvm-cpu:x86-64-v3")))
    yield shop
    shop.session.close()


def root_of(workshop: Workshop, name: str, **changes: object) -> RootOp:
    return msgspec.structs.replace(workshop.tasks[name].dispatch.root, **changes)


def broken(verdict: Verdict) -> str:
    assert verdict.outcome is CheckOutcome.FAILED, verdict
    return verdict.reason


def rewritten(path: Path, old: str, new: str, *, first: bool = False) -> None:
    """Write ``new`` for ``old`` in a file, as another release of IREE may spell it, or somebody edit it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1 if first else -1), encoding="utf-8")


def test_an_attribute_that_does_not_parse_any_more_is_found_where_it_is(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "spec.mlir"
    write_spec(path, [workshop.winner(PLAIN), workshop.winner(BATCH)])
    rewritten(path, "DoubleTilingExpert", "CPUDoubleTilingExpert")
    rewritten(records_path(path), "#iree_cpu.pipeline<DoubleTilingExpert>", "CPUDoubleTilingExpert", first=True)
    guarded = workshop.guarded(path)
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.PARSES))
    assert f"{PLAIN} of {path}" in reason
    assert "CPUDoubleTilingExpert" in reason
    assert "written by IREE 3.12.0" in reason
    assert "shark-tune port" in reason
    assert f"because of {PLAIN}" in broken(workshop.evaluate(guarded, BATCH, EntryCheck.PARSES))
    later = workshop.evaluate(guarded, BATCH, EntryCheck.APPLIES)
    assert (later.outcome, later.reason) == (CheckOutcome.SKIPPED, f"see [{BATCH}-parses]")


def test_a_spec_that_does_not_parse_is_told_with_and_without_records(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "spec.mlir"
    write_spec(path, [workshop.winner(PLAIN), workshop.winner(BATCH)])
    rewritten(path, "DoubleTilingExpert", "CPUDoubleTilingExpert")
    for name in (PLAIN, BATCH):
        assert "CPUDoubleTilingExpert" in broken(workshop.evaluate(workshop.guarded(path), name, EntryCheck.PARSES))
    rewritten(path, "CPUDoubleTilingExpert", "DoubleTilingExpert")
    rewritten(path, "vector_reduction = [0, 0, 4]", "vector_reduction = [0, 0, 4")
    assert "vector_reduction = [0, 0, 4" in broken(workshop.evaluate(workshop.guarded(path), PLAIN, EntryCheck.PARSES))
    assert f"because of {PLAIN}" in broken(workshop.evaluate(workshop.guarded(path), BATCH, EntryCheck.PARSES))
    records_path(path).unlink()
    guarded = workshop.guarded(path)
    assert "vector_reduction = [0, 0, 4" in broken(workshop.evaluate(guarded, "spec", EntryCheck.PARSES))


def test_an_attribute_that_the_compiler_passes_over_is_named(workshop: Workshop, tmp_path: Path) -> None:
    renamed = INFOS[PLAIN].replace("vector_reduction", "vector_sum")
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(PLAIN, renamed)])
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.ALLOWED))
    assert "this compiler ignores vector_sum in its config" in reason
    assert "vector_reduction" in reason


def test_a_spec_and_its_records_must_agree(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "spec.mlir"
    write_spec(path, [workshop.winner(PLAIN)])
    rewritten(path, "vector_reduction = [0, 0, 4]", "vector_reduction = [0, 0, 8]")
    with records_path(path).open("ab") as records:
        records.write(msgspec.json.encode(workshop.winner(BATCH)) + b"\n")
    guarded = workshop.guarded(path)
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.PARSES))
    assert "spec.mlir has another config than its record in spec.jsonl" in reason
    assert "vector_reduction = [0, 0, 8]" in reason
    assert "vector_reduction = [0, 0, 4]" in reason
    assert "has no such entry any more" in broken(workshop.evaluate(guarded, BATCH, EntryCheck.PARSES))


def test_records_that_cannot_be_read_are_not_taken_for_none(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "spec.mlir"
    write_spec(path, [workshop.winner(PLAIN), workshop.winner(BATCH)])
    whole, _, other = records_path(path).read_bytes().partition(b"\n")
    records_path(path).write_bytes(other)
    assert workshop.evaluate(workshop.guarded(path), PLAIN, EntryCheck.PARSES).outcome is CheckOutcome.PASSED
    records_path(path).write_bytes(b"<<<<<<< ours" + whole + b"\n" + other)
    guarded = workshop.guarded(path)
    assert "spec.jsonl:1 is none" in broken(workshop.evaluate(guarded, PLAIN, EntryCheck.PARSES))
    assert workshop.evaluate(guarded, BATCH, EntryCheck.PARSES).outcome is CheckOutcome.PASSED


def test_a_config_that_breaks_a_constraint_is_told_which(workshop: Workshop, tmp_path: Path) -> None:
    whole = info("distribution = [64, 48, 0], vector_common_parallel = [64, 48, 0], vector_reduction = [0, 0, 32]")
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(PLAIN, whole)])
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.ALLOWED))
    assert "the unrolled vector tile takes 393216 bytes and must take less than 16384" in reason
    assert "the compiler refuses it" in reason


def test_what_is_not_worth_a_try_is_allowed_where_it_compiles(workshop: Workshop, tmp_path: Path) -> None:
    """Which tiles are worth a try depends on how many processors there are, and a suite is guarded on any machine."""
    odd = info("distribution = [8, 48, 0], vector_common_parallel = [1, 48, 0], vector_reduction = [0, 0, 1]")
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(PLAIN, odd)])
    assert workshop.evaluate(guarded, PLAIN, EntryCheck.ALLOWED).outcome is CheckOutcome.PASSED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"loops": (64, 48, 128)}, "its k is 32 instead of 128", id="wrong shape"),
        pytest.param(
            {"inputs": (Tensor((64, 32), "f16"), Tensor((32, 48), "f16"))},
            "its lhs has elements f32 instead of f16",
            id="wrong element type",
        ),
        pytest.param(
            {
                "maps": (
                    "affine_map<(d0, d1, d2) -> (d0, d2)>",
                    "affine_map<(d0, d1, d2) -> (d1, d2)>",
                    "affine_map<(d0, d1, d2) -> (d0, d1)>",
                )
            },
            "rhs",
            id="wrong layout",
        ),
    ],
)
def test_an_op_that_is_missed_is_named_with_how_it_differs(
    workshop: Workshop, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    winner = workshop.winner(PLAIN, root=root_of(workshop, PLAIN, **changes))
    guarded = workshop.spec(tmp_path / "spec.mlir", [winner])
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.APPLIES))
    assert "it does not apply to plain_dispatch_0 in the whole of model" in reason
    assert said in reason
    assert workshop.evaluate(guarded, PLAIN, EntryCheck.CORRECT).reason == f"see [{PLAIN}-applies]"


def test_an_entry_that_matches_nothing_is_named_with_the_nearest_op(workshop: Workshop, tmp_path: Path) -> None:
    stranger = workshop.winner(PLAIN, dispatch="stranger", root=root_of(workshop, PLAIN, loops=(64, 48, 128)), ops=())
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(BATCH), stranger], with_records=False)
    assert not guarded.entry("stranger").tasks
    assert workshop.evaluate(guarded, "stranger", EntryCheck.ALLOWED).outcome is CheckOutcome.SKIPPED
    reason = broken(workshop.evaluate(guarded, "stranger", EntryCheck.APPLIES))
    assert "it never matches: it applies to no op of model" in reason
    assert f"the nearest dispatch is {PLAIN}: its k is 32 instead of 128" in reason


@pytest.mark.parametrize("with_records", [True, False])
def test_an_entry_that_never_gets_its_turn_is_named_with_the_one_before_it(
    workshop: Workshop, tmp_path: Path, *, with_records: bool
) -> None:
    path = tmp_path / "spec.mlir"
    second = INFOS[PLAIN].replace("[0, 0, 4]", "[0, 0, 8]")
    guarded = workshop.spec(
        path,
        [workshop.winner(PLAIN, dispatch="first"), workshop.winner(PLAIN, second, dispatch="second")],
        with_records=with_records,
    )
    reason = broken(workshop.evaluate(guarded, "second", EntryCheck.APPLIES))
    assert f"it is never reached on {PLAIN}: match_first before it in the spec matches the same op" in reason
    assert workshop.evaluate(guarded, "first", EntryCheck.APPLIES).outcome is CheckOutcome.PASSED


def test_ops_are_those_recorded_whatever_they_are_called_by_now(workshop: Workshop, tmp_path: Path) -> None:
    renamed = workshop.winner(PLAIN, ops=(RecordedOp("model", "main_dispatch_7"),))
    verdict = workshop.evaluate(workshop.spec(tmp_path / "renamed.mlir", [renamed]), PLAIN, EntryCheck.APPLIES)
    assert verdict.outcome is CheckOutcome.PASSED
    assert "main_dispatch_7 in model is called plain_dispatch_0 by now" in verdict.note
    ops = (RecordedOp("model", "main_dispatch_7"), RecordedOp("model", "plain_dispatch_0"))
    guarded = workshop.spec(tmp_path / "gone.mlir", [workshop.winner(PLAIN, ops=ops)])
    reason = broken(workshop.evaluate(guarded, PLAIN, EntryCheck.APPLIES))
    assert "it does not apply to main_dispatch_7 in the whole of model: there is no such op any more" in reason
    assert f"the nearest dispatch is {BATCH}" in reason


@pytest.mark.slow
def test_ops_are_held_to_a_record_in_the_sources_that_it_names(tmp_path: Path) -> None:
    """In another source the dispatches of the record's structure are meant."""
    (tmp_path / "twice.mlir").write_text(MODEL + NEGATED, encoding="utf-8")
    shop = Workshop(tmp_path, Compiler(Target.parse("llvm-cpu:x86-64-v3")), "twice.mlir")
    try:
        first, second = sorted(shop.winner(PLAIN).ops, key=lambda op: op.symbol, reverse=True)
        assert (first.symbol, second.symbol) == ("plain_dispatch_0", "negated_dispatch_0")
        looks = {}
        for name, ops_ in (("one", (first,)), ("both", (first, second)), ("elsewhere", (RecordedOp("other", "x"),))):
            guarded = shop.spec(tmp_path / f"{name}.mlir", [shop.winner(PLAIN, ops=ops_)])
            looks[name] = shop.evaluate(guarded, PLAIN, EntryCheck.APPLIES)
    finally:
        shop.session.close()
    assert "in the whole of twice it applies to negated_dispatch_0 as well" in broken(looks["one"])
    assert looks["both"].outcome is CheckOutcome.PASSED
    assert looks["elsewhere"].outcome is CheckOutcome.PASSED


def test_where_an_entry_without_a_record_was_tuned_its_spec_tells(workshop: Workshop, tmp_path: Path) -> None:
    winners = [workshop.winner(PLAIN, device="another CPU"), workshop.winner(BATCH)]
    guarded = workshop.spec(tmp_path / "spec.mlir", winners, with_records=False)
    found = {each.name: (each.record, each.device, each.is_local) for each in guarded.entries}
    assert found == {PLAIN: (None, "another CPU", False), BATCH: (None, "this very CPU", True)}


@pytest.mark.slow
def test_a_static_promise_is_looked_at_anew_with_a_compile_step(workshop: Workshop, tmp_path: Path) -> None:
    guarded = workshop.spec(tmp_path / "spec.mlir", [workshop.winner(PLAIN)])
    assert workshop.evaluate(guarded, PLAIN, EntryCheck.APPLIES).outcome is CheckOutcome.PASSED

    def refuse(text: str) -> str:
        raise OSError("no such pass")

    stepped = workshop.session.with_step(CompileStep("refuse", refuse))
    looks = [
        stepped.evaluator.evaluate(guarded, guarded.entry(PLAIN), check, alpha=0.002)
        for check in (EntryCheck.ALLOWED, EntryCheck.APPLIES)
    ]
    (first, *_) = (each for each in looks if each.outcome is not CheckOutcome.PASSED)
    assert "no such pass" in broken(first)


@pytest.mark.slow
def test_results_are_compared_on_a_device_and_speed_only_where_it_was_recorded(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, Compiler(Target.parse("llvm-cpu")), devices=("local-task",))
    try:
        guarded = shop.spec(tmp_path / "spec.mlir", [shop.winner(PLAIN, device="another CPU"), shop.winner(BATCH)])
        right = shop.evaluate(guarded, PLAIN, EntryCheck.CORRECT)
        (task,) = guarded.entry(PLAIN).tasks
        text = task.dispatch.members[0].module.text
        assert "0.000000e+00" in text
        shop.session.compiler.compile_sources(text.replace("0.000000e+00", "1.000000e+00"), tmp_path / "wrong.vmfb")
        other = Artifact(candidate="c0ffee", state="compiled", vmfb=str(tmp_path / "wrong.vmfb"), sha256="0")
        wrong = shop.evaluate(guarded, PLAIN, EntryCheck.CORRECT, other)
        fast = shop.evaluate(guarded, PLAIN, EntryCheck.FAST)
        elsewhere = shop.winner(PLAIN, device="another CPU")
        bare = shop.evaluate(shop.spec(tmp_path / "bare.mlir", [elsewhere], with_records=False), PLAIN, EntryCheck.FAST)
        late = shop.evaluate(
            guarded, BATCH, EntryCheck.FAST, msgspec.structs.replace(other, vmfb=str(tmp_path / "absent"))
        )
    finally:
        shop.session.close()
    assert right.outcome is CheckOutcome.PASSED, right
    assert f"on {PLAIN}: wrong_result" in broken(wrong)
    assert (fast.outcome, fast.reason) == (CheckOutcome.SKIPPED, "recorded on another CPU, this is this very CPU")
    assert (bare.outcome, bare.reason) == (fast.outcome, fast.reason)
    assert (late.outcome, late.reason) == (CheckOutcome.SKIPPED, f"see [{BATCH}-correct]")


@pytest.mark.slow
def test_an_entry_that_the_flag_does_not_apply_is_told_by_either_route(tmp_path: Path) -> None:
    """A convolution without a batch is rewritten between the points where the flag and where we apply a spec."""
    op = ops.conv_2d(batch=1, height=10, width=10, channels=8, filters=16, kernel_height=3, kernel_width=3)
    outcomes = {}
    for route in ("compile", "flag"):
        shop = Workshop(tmp_path, Compiler(Target.parse("llvm-cpu:x86-64-v3")), op, route=route)
        try:
            (name,) = shop.tasks
            guarded = shop.spec(tmp_path / "spec.mlir", [shop.winner(name, CONVOLUTION_INFO)])
            outcomes[route] = shop.evaluate(guarded, name, EntryCheck.APPLIES)
        finally:
            shop.session.close()
    assert outcomes["compile"].outcome is CheckOutcome.PASSED
    assert "only shark-tune compile applies it" in outcomes["compile"].note
    assert "only shark-tune compile applies it" in broken(outcomes["flag"])


def test_a_gpu_states_constraints_and_may_ignore_the_flag(tmp_path: Path) -> None:
    op, allowed = ops.matmul(m=64, n=64, k=64, lhs="f16"), EntryCheck.ALLOWED
    shop = Workshop(tmp_path, Compiler(Target.parse("cuda:sm_89")), op, route="flag")
    try:
        (name,) = shop.tasks
        guarded = shop.spec(tmp_path / "spec.mlir", [shop.winner(name, CUDA_INFO)])
        reason = broken(shop.evaluate(guarded, name, EntryCheck.APPLIES))
        uneven = CUDA_INFO.replace("workgroup = [64, 64, 0]", "workgroup = [64, 40, 0]")
        violated = broken(
            shop.evaluate(shop.spec(tmp_path / "uneven.mlir", [shop.winner(name, uneven)]), name, allowed)
        )
    finally:
        shop.session.close()
    assert "its config breaks the constraints of TileAndFuse" in violated
    assert "40" in violated
    assert "cuda silently ignores iree-compile --iree-codegen-tuning-spec-path" in reason
    assert "shark-tune compile" in reason


def test_a_backend_that_ignores_configs_makes_the_same_binary(workshop: Workshop, tmp_path: Path) -> None:
    tool = tmp_path / "iree-compile"
    # As the real one, but what it makes of an executable's sources says nothing of the config.
    tool.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--compile-to=*) exec "$REAL" "$@";; esac\n'
        'cat > /dev/null; for last; do :; done; echo code > "$last"\n'.replace("$REAL", iree_compile()),
        encoding="utf-8",
    )
    tool.chmod(0o755)
    shop = Workshop(tmp_path, Compiler(Target.parse("llvm-cpu:x86-64-v3"), tool=str(tool)))
    try:
        guarded = shop.spec(tmp_path / "spec.mlir", [shop.winner(PLAIN)])
        reason = broken(shop.evaluate(guarded, PLAIN, EntryCheck.APPLIES))
    finally:
        shop.session.close()
    assert f"the backend ignores the config: the binary of {PLAIN} is the default's, byte for byte" in reason


def iree_compile() -> str:
    return str(Path(iree.compiler._mlir_libs.__file__).parent / "iree-compile")
