"""The versions in keys: each is raised with the behaviour that it stands for, and nothing else empties a cache.

A digest of what can be observed is pinned beside each number, never one of source text: comments and names are free.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import pytest_shark_tune
from pytest_shark_tune import ops
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.device.profiler import Cost
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.types import FoundDispatch, Numerics, RootOp, Sum, TargetFacts
from pytest_shark_tune.guard import plan
from pytest_shark_tune.measurement.acceptance import acceptance_for, tolerance_in_model
from pytest_shark_tune.measurement.correctness import check_output, tolerance_for
from pytest_shark_tune.measurement.roofline import Limits
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import FINAL, Policy, calibrate, compare
from pytest_shark_tune.plan import make
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.records.draft import Draft
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, SpecRecord, State
from pytest_shark_tune.records.winner import declare_winner, simplicity
from pytest_shark_tune.search.facts import facts_of
from pytest_shark_tune.search_space import SPACE_VERSIONS, SearchSpace, spaces_for, spaces_in
from pytest_shark_tune.search_space.candidate import default_candidate, make_candidates
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning import builder, database, microbenchmarks
from pytest_shark_tune.tuning import settings as run_settings
from pytest_shark_tune.tuning.model.profile import by_symbol
from pytest_shark_tune.tuning.model.tuned import failing_entries
from pytest_shark_tune.tuning.settings import RunSettings

pytestmark = pytest.mark.compiler

PACKAGE = Path(pytest_shark_tune.__file__).parent
GOLDEN = Path(__file__).parent.parent / "golden" / "behaviour"
SPACES = "search_space"

PINNED: dict[str, tuple[int, str]] = {
    "guard/plan.py GUARD_VERSION": (7, "92f105cc947ffc60"),
    "plan/make.py PLAN_VERSION": (7, "61c27db3091d9717"),
    "tuning/model/profile.py PROFILE_VERSION": (4, "25a55421f8972cb2"),
    "tuning/database.py DATABASE_VERSION": (4, "0768281a2016607c"),
    "compiler/configure.py ARTIFACT_VERSION": (1, "23cf668e643781bb"),
    "search_space/candidate.py CANDIDATE_VERSION": (1, "0f1224cf658170e5"),
    "measurement/correctness.py CHECK_VERSION": (3, "a2e9c67045104cea"),
    "dispatch/extraction.py EXTRACTION_VERSION": (4, "b6892664110b7bdf"),
    "measurement/timing.py MEASUREMENT_VERSION": (1, "c946e4e682ed97a1"),
    "search/facts.py FACTS_VERSION": (1, "7d608d7480220e31"),
    "search_space/constraints.py VERSION": (1, "8733043662f4cdf4"),
    "search_space/cpu/attention.py VERSION": (1, "aecaf2010705c8cb"),
    "search_space/cpu/contraction.py VERSION": (1, "40957d88f0afbb4f"),
    "search_space/cpu/convolution.py VERSION": (2, "f6640aa4af584b2d"),
    "search_space/cpu/generic.py VERSION": (2, "8b2965bf41bd573f"),
    "search_space/cpu/mmt4d.py VERSION": (1, "7a18cb16c9e9e346"),
    "search_space/cpu/register_tiling.py VERSION": (2, "72126532d93bc8de"),
    "search_space/gpu/attention.py VERSION": (1, "c985a5b4639d6a1a"),
    "search_space/gpu/contraction.py VERSION": (2, "edf5d5ba90a609d0"),
    "search_space/gpu/convolution.py VERSION": (1, "beaf1f4df5e25cff"),
    "search_space/gpu/generic.py VERSION": (2, "07790bcb28a97495"),
    "search_space/gpu/mma.py VERSION": (2, "4222147dd4194ee8"),
    "search_space/gpu/pooling.py VERSION": (1, "22524692c533da0f"),
    "search_space/gpu/reduction.py VERSION": (1, "12cc965334b68c0e"),
    "search_space/spirv/contraction.py VERSION": (1, "4b323b23fe833bd7"),
    "search_space/spirv/convolution.py VERSION": (1, "a7ffbcc0c85b9866"),
    "spec/build.py SPEC_VERSION": (1, "2e7cbf7e0604988a"),
    "records/winner.py WINNER_VERSION": (1, "6be8e0aa2033669d"),
    "tuning/verifier.py VERIFY_VERSION": (1, "fdcc9589d7a823f7"),
    "tuning/microbenchmarks.py MICROBENCHMARK_VERSION": (3, "edf6f2e1c08492bc"),
}
"""By file and constant: its number, and the digest of the behaviour that has it."""


@cache
def roots() -> dict[str, tuple[RootOp, TargetFacts]]:
    """A small op for each space, and what it is compiled for, as IREE 3.13 dumped them."""
    return msgspec.json.decode((GOLDEN / "roots.json").read_bytes(), type=dict[str, tuple[RootOp, TargetFacts]])


def benchmark() -> FoundDispatch:
    found = read_benchmark((GOLDEN / "benchmark.mlir").read_text(), "single", processors=2)
    assert isinstance(found, FoundDispatch)
    return found


def form(kind: object) -> object:
    """The JSON schema of a type, without what is written for people and without the names of classes."""
    schema = msgspec.json.schema(kind)
    definitions = schema.get("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return plain(definitions[node["$ref"].rpartition("/")[2]])
        return {name: plain(each) for name, each in node.items() if name not in ("title", "description", "$defs")}

    return plain(schema)


def members(spaces: tuple[SearchSpace, ...]) -> object:
    return [[space.pipeline, space.names, space.members().tolist()] for space in spaces]


def members_of(name: str) -> Callable[[], object]:
    return lambda: members(spaces_for(*roots()[name]))


def emitted() -> object:
    return members(spaces_in((GOLDEN / "emitted.mlir").read_text()))


def extraction() -> object:
    (dispatch,) = group_dispatches([benchmark()], {("single", benchmark().symbol): 2})
    return [dispatch, rotated_dispatch(dispatch, 1 << 20)]


def candidates() -> object:
    spaces = msgspec.json.decode((GOLDEN / "spaces.json").read_bytes(), type=dict[str, SearchSpace])
    return [make_candidates("name", roots()[name][0], space, space.sample(3, seed=0)) for name, space in spaces.items()]


def specs() -> list[str]:
    configs = msgspec.json.decode((GOLDEN / "configs.json").read_bytes(), type=dict[str, str])
    texts = [
        build_spec([SpecEntry(name=name, root=roots()[name][0], compilation_info=config)])
        for name, config in configs.items()
    ]
    return [*texts, link_spec(texts[0])]


def configured() -> object:
    return [configure_with((GOLDEN / "benchmark.mlir").read_text(), specs()[0]), form(Artifact)]


def checked() -> object:
    """Verdicts on errors of all sizes, for the types that are tuned."""
    verdicts = []
    for element, result in (("f32", "f32"), ("f16", "f32"), ("bf16", "bf16"), ("f16", "f16"), ("i8", "i32")):
        for length in (1, 768, 4096):
            tolerance = tolerance_for(element, result, length)
            kind = np.int32 if result == "i32" else np.float32
            right = np.arange(1, 65, dtype=kind)
            for error in (0.0, 1e-7, 1e-5, 1e-3, 1e-2, 1e-1, 1.0, np.nan, np.inf):
                wrong = right.copy()
                wrong[3] = wrong[3] + error if kind is np.float32 else wrong[3] + int(np.nan_to_num(error) > 0.5)
                verdicts.append(check_output(right, wrong, tolerance).ok)
    numerics = [
        Numerics(sums=(Sum(kept, 768),), widest="f32", rounded=rounded, spread=spread, exact=exact, products=True)
        for kept in ("f32", "f16", "bf16", "i32")
        for rounded in ((), ("bf16",))
        for spread in ((), ("f16",))
        for exact in (False, True)
    ]
    allowed = [acceptance_for(each, elements=100) for each in numerics]
    models = [tolerance_in_model(["f32", kind], [("f32", 768, 3)]) for kind in ("f32", "f16", "bf16")]
    return [verdicts, allowed, models]


def measured() -> object:
    """What comes of synthetic times, some of them disturbed."""
    policy = Policy(sample_s=0.005, blocks=8, min_blocks=3, budget_s=60.0, cutoff=2.0)

    def kernel(seconds: float, seed: int) -> Callable[[int], float]:
        noise = random.Random(seed)
        return lambda batch: seconds * batch * (1 + noise.random() / 50 + (noise.random() < 0.05))

    compared = [
        compare(kernel(seconds, seed), kernel(1e-3, seed + 100), policy, batch=5)
        for seed, seconds in enumerate((0.5e-3, 0.9e-3, 1e-3, 1.1e-3, 3e-3))
    ]
    batches = [calibrate(kernel(seconds, 0), 0.005) for seconds in (1e-2, 1e-3, 1e-5)]
    return [compared, batches, combine_rounds(compared[:4]), FINAL]


def winners() -> object:
    def finalist(name: str, low: float, ratio: float, high: float) -> Finalist:
        return Finalist(id=name, state=State.MEASURED, ratio=ratio, ratio_low=low, ratio_high=high)

    fields = {
        "clear": [finalist("a", 1.2, 1.3, 1.4), finalist("b", 1.0, 1.1, 1.2)],
        "close": [finalist("a", 1.2, 1.3, 1.4), finalist("b", 1.25, 1.31, 1.4)],
        "within the noise": [finalist("a", 1.005, 1.015, 1.02)],
        "slower": [finalist("a", 0.8, 0.9, 0.95)],
        "failed": [Finalist(id="a", state=State.RUN_FAILED), finalist("b", 1.05, 1.1, 1.2)],
        "none": [],
    }
    knobs = {"a": {"x": 4}, "b": {"x": 2}}
    return {name: declare_winner(each, lambda one: simplicity(knobs[one]))[0] for name, each in fields.items()}


def shares() -> object:
    times = {"one": 70.0, "two": 20.0, "three": 10.0}
    profile = Profile(
        source="s",
        function="f",
        model_us=110.0,
        shares=tuple(Share(dispatch=name, calls=1, time_us=us, share=us / 100) for name, us in times.items()),
        measured="",
    )
    exports = {"one_dispatch_0_matmul": Cost(time_us=1.0, calls=1), "one_dispatch_1_x": Cost(time_us=2.0, calls=3)}
    return [
        by_symbol(exports, ["one_dispatch_0", "one_dispatch_1"]),
        [profile.hot_dispatches(each / 10) for each in range(11)],
    ]


def kept() -> object:
    return [form(each) for each in (Record, FinalRecord, SpecRecord, Profile)]


def blamed() -> object:
    return [
        failing_entries("abcdef", lambda names: "c" in names),
        failing_entries("abcdef", lambda names: "a" in names and "f" in names),
        failing_entries("abcdef", lambda names: len(names) > 2),
    ]


def guarded() -> object:
    """What entries of specs are for, in a plan with one dispatch."""
    (dispatch,) = group_dispatches([benchmark()], {("single", benchmark().symbol): 1})
    task = Task(dispatch=dispatch, default=default_candidate(dispatch), candidates=(), space_size=None)
    found = Plan(sources=(), tasks=(task,), untunable=())
    entries: list[plan.GuardEntry] = []
    with tempfile.TemporaryDirectory() as directory:
        for text in (specs()[0], specs()[1], "no spec"):
            path = Path(directory, "spec.mlir")
            path.write_text(text)
            entries += plan.make_guard_plan(found, "key", path, device_name="a cpu").entries
    told = [msgspec.structs.replace(each, problem=str(bool(each.problem))) for each in entries]
    return [told, form(plan.GuardPlan)]


def space_file(name: str) -> str:
    """Where a space is made, by its name in the registry: ``cpu_attention`` in ``cpu/attention.py``."""
    return f"{SPACES}/{name.replace('_', '/', 1)}.py"


OBSERVED: dict[str, Callable[[], object]] = {
    "guard/plan.py GUARD_VERSION": guarded,
    "plan/make.py PLAN_VERSION": lambda: form(Plan),
    "tuning/model/profile.py PROFILE_VERSION": shares,
    "tuning/database.py DATABASE_VERSION": kept,
    "compiler/configure.py ARTIFACT_VERSION": configured,
    "search_space/candidate.py CANDIDATE_VERSION": candidates,
    "measurement/correctness.py CHECK_VERSION": checked,
    "dispatch/extraction.py EXTRACTION_VERSION": extraction,
    "measurement/timing.py MEASUREMENT_VERSION": measured,
    "search/facts.py FACTS_VERSION": lambda: [facts_of(*each, "NVIDIA H100 PCIe") for each in roots().values()],
    "search_space/constraints.py VERSION": emitted,
    **{f"{space_file(name)} VERSION": members_of(name) for name in SPACE_VERSIONS if name != "emitted"},
    "spec/build.py SPEC_VERSION": specs,
    "records/winner.py WINNER_VERSION": winners,
    "tuning/verifier.py VERIFY_VERSION": blamed,
    "tuning/microbenchmarks.py MICROBENCHMARK_VERSION": lambda: [form(microbenchmarks.Microbenchmark), form(Limits)],
}
COMPILED = (
    "guard/plan",
    "compiler/configure",
    "search_space/",
    "dispatch/extraction",
    "spec/build",
)
"""What holds texts that IREE prints, in its own way in each release."""


def digest_of(behaviour: object) -> str:
    """Figures count to six digits: the rest is left to each machine's mathematics."""

    def plain(node: Any) -> Any:
        if isinstance(node, float):
            return f"{node:.6g}"
        if isinstance(node, list | tuple):
            return [plain(each) for each in node]
        return {str(name): plain(each) for name, each in node.items()} if isinstance(node, dict) else node

    built = plain(msgspec.to_builtins(behaviour, str_keys=True))
    return hashlib.sha256(msgspec.json.encode(built, order="deterministic")).hexdigest()[:16]


def constant(name: str) -> int:
    file, _, attribute = name.partition(" ")
    module = f"pytest_shark_tune.{file.removesuffix('.py').replace('/', '.')}"
    number: int = getattr(importlib.import_module(module), attribute)
    return number


@pytest.mark.parametrize("name", OBSERVED)
def test_who_changes_a_behaviour_raises_its_number(name: str) -> None:
    if name.startswith(COMPILED) and not compiler_version().startswith("3.13."):
        pytest.skip("pinned with the texts of IREE 3.13")
    number, pinned = PINNED[name]
    now, found = constant(name), digest_of(OBSERVED[name]())
    if found != pinned and now == number:
        pytest.fail(
            f"what {name} stands for changed: raise it to {number + 1}, since caches hold what was found out in the "
            f'old way, and pin ({number + 1}, "{found}") here'
        )
    assert (now, found) == (number, pinned), f'{name} was raised: pin ({now}, "{found}") here'


def test_every_number_is_pinned() -> None:
    there = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id.endswith("VERSION")
            ):
                there.add(f"{path.relative_to(PACKAGE)} {node.target.id}")
    assert there == set(PINNED) == set(OBSERVED)
    spaces = {f"{space_file(name)} VERSION" for name in SPACE_VERSIONS if name != "emitted"}
    assert spaces == {name for name in there if name.startswith(f"{SPACES}/") and name.count("/") > 1}


def test_a_form_is_of_what_is_kept_and_not_of_what_it_is_called() -> None:
    class One(msgspec.Struct):
        """What it is."""

        number: int = 1

    class Other(msgspec.Struct):
        """Something else."""

        number: int = 1

    class Longer(Other):
        more: str = ""

    assert form(One) == form(Other) != form(Longer)


def keys(directory: Path, task: Task) -> dict[str, str]:
    """A key of each kind that a run has."""
    compiler = Compiler(Target.parse("llvm-cpu"))
    kept = Cache(directory / "cache")
    settings = RunSettings.in_directory(directory, [], "a cpu", jobs=1)
    known = database.TuningDatabase(kept, compiler, settings)
    maker = builder.Builder(compiler, kept, DeviceLeases(()), jobs=1, report=print)
    source = read_source(ops.matmul(m=4, n=4, k=4, lhs="f32"), directory)
    whole = Plan(sources=(source,), tasks=(task,), untunable=())
    spec = directory / "spec.mlir"
    spec.write_text("module {}")
    benches = microbenchmarks.Microbenchmarks(compiler, kept, "a cpu")
    maker.close()
    return {
        "plan": make.plan_key([source], compiler),
        "guard": plan.guard_key("plan", spec, "a cpu"),
        "artifact": maker.key(task.dispatch.members[0].module, task.default),
        "records": known._key(task),
        "index": known._index(task).name,
        "final": known._final_key(task, [], ""),
        "check": known.check_key(whole, Draft(())),
        "profile": known.profile_key(whole, source),
        "limits": benches.key,
        "yardsticks": benches.built_key,
        "setting": known.fingerprint,
    }


MEASURED = {"records", "index", "final", "check", "profile"}


@pytest.mark.parametrize(
    ("name", "emptied"),
    [
        ("PLAN_VERSION", {"plan"}),
        ("EXTRACTION_VERSION", {"plan"}),
        ("CANDIDATE_VERSION", {"plan"}),
        ("SPACE_VERSIONS", {"plan"}),
        ("GUARD_VERSION", {"guard"}),
        ("ARTIFACT_VERSION", {"artifact", "guard", *MEASURED}),
        ("SPEC_VERSION", {"artifact", "guard", *MEASURED}),
        ("DATABASE_VERSION", MEASURED),
        ("CHECK_VERSION", MEASURED),
        ("MEASUREMENT_VERSION", {"limits", *MEASURED}),
        ("FACTS_VERSION", {"index"}),
        ("WINNER_VERSION", {"final"}),
        ("VERIFY_VERSION", {"check"}),
        ("PROFILE_VERSION", {"profile"}),
        ("MICROBENCHMARK_VERSION", {"limits", "yardsticks"}),
    ],
)
def test_a_number_that_is_raised_empties_what_rests_on_it(
    name: str, emptied: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dispatch,) = group_dispatches([benchmark()], {("single", benchmark().symbol): 1})
    task = Task(dispatch=dispatch, default=default_candidate(dispatch), candidates=(), space_size=None)
    before = keys(tmp_path, task)
    for module in (make, database, builder, microbenchmarks, plan, run_settings):
        if hasattr(module, name):
            old = getattr(module, name)
            monkeypatch.setattr(
                module, name, old | {"cpu_generic": old["cpu_generic"] + 1} if isinstance(old, dict) else old + 1
            )
    after = keys(tmp_path, task)
    assert {kind for kind in before if before[kind] != after[kind]} == emptied


KEYS = """
import importlib.util, msgspec, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("versions", sys.argv[1])
versions = importlib.util.module_from_spec(spec)
sys.modules["versions"] = versions
spec.loader.exec_module(versions)
(dispatch,) = versions.group_dispatches([versions.benchmark()], {("single", versions.benchmark().symbol): 1})
task = versions.Task(dispatch=dispatch, default=versions.default_candidate(dispatch), candidates=(), space_size=None)
print(versions.PACKAGE)
print(msgspec.json.encode(versions.keys(Path(sys.argv[2]), task)).decode())
"""


def test_a_comment_in_our_code_empties_nothing(tmp_path: Path, child_env: dict[str, str]) -> None:
    shutil.copytree(PACKAGE, tmp_path / "site" / PACKAGE.name)
    for path in (tmp_path / "site").rglob("*.py"):
        path.write_text(f"{path.read_text()}\n# A comment more.\n")
    found = []
    for site in (PACKAGE.parent, tmp_path / "site"):
        (tmp_path / "run").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", KEYS, __file__, tmp_path / "run"],
            cwd=tmp_path / "run",
            env={**child_env, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=True,
        )
        package, told = done.stdout.splitlines()
        assert package == str(site / PACKAGE.name)
        found.append(told)
    assert found[0] == found[1]
