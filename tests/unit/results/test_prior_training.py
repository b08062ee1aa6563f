"""Priors trained on recorded landscapes: their test, their files, and the commands."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.results.dispatch_text import facts_of_text
from pytest_shark_tune.results.guides import Guides
from pytest_shark_tune.results.prior_training import load_prior, train_prior, write_prior
from pytest_shark_tune.results.replay import Landscape, read_landscape, write_landscape
from tests.factories import make_task

HERE = Path(__file__).parents[3] / "benchmarks" / "landscapes"
TRAIN = sorted((HERE / "train").glob("*.json"))
UNSEEN = HERE / "h100_matmul_2048x10240x1280_f16.json"
KEPT_BACK = ("2048x10240x1280", "16x11008x4096", "2x32x32x1280", "20x1024x64", "16x2048x128")


def landscapes() -> list[Landscape]:
    return [read_landscape(path) for path in TRAIN]


def test_a_prior_holds_every_result_and_what_it_is_for() -> None:
    made = train_prior(landscapes(), seeds=0)
    assert (made.device_class, made.iree, made.test) == ("NVIDIA 9.0", "3.13.0", ())
    assert [len(shape.table()) for shape in made.shapes] == [len(one.candidates) for one in landscapes()]
    assert max(made.shapes[0].targets()) == 1
    assert "red_i" in made.knobs["TileAndFuse"]
    assert set(made.knobs) == {"TileAndFuse", "VectorDistribute", "VectorDistribute of attention"}


def test_in_its_test_a_shape_is_not_among_those_that_the_prior_knows() -> None:
    two = [one for one in landscapes() if "4096x4096x1024" in one.dispatch]
    assert train_prior(two, seeds=1).test == ()
    more = [*two, next(one for one in landscapes() if "4096x1024x4096" in one.dispatch)]
    test = train_prior(more, seeds=1).test
    assert [left.dispatch for left in test] == [one.dispatch for one in more]
    assert all(left.evals_to_5pct_median is not None and left.configs >= left.evals_to_5pct_median for left in test)


def test_landscapes_of_several_classes_of_devices_or_releases_make_no_prior() -> None:
    one = landscapes()[0]
    for other, words in (
        (msgspec.structs.replace(one, device="AMD Instinct MI300X"), "classes of devices, .* gfx942"),
        (msgspec.structs.replace(one, iree="3.14.0"), "releases of IREE"),
    ):
        with pytest.raises(InputError, match=words):
            train_prior([one, other], seeds=0)


def test_no_prior_in_the_package_knows_what_is_kept_back() -> None:
    shipped = load_prior("default", "NVIDIA 9.0")
    names = [path.stem for path in TRAIN] + [shape.dispatch for shape in (shipped.shapes if shipped else ())]
    assert not [name for name in names for shape in KEPT_BACK if shape in name]


def test_a_prior_that_fits_the_device_is_read_and_another_is_ignored_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    write_prior(train_prior(landscapes(), seeds=0), path)
    assert load_prior(str(path), "NVIDIA 9.0") is not None
    assert load_prior("none", "NVIDIA 9.0") is None
    assert load_prior("default", "a device of no class") is None
    lines: list[str] = []
    task = make_task("a", 16)
    assert Guides(str(path), "a CPU", "3.13.0", lines.append).guide_of(task) is None
    (line,) = lines
    assert "is ignored, since it is for NVIDIA 9.0" in line
    assert Guides("default", "a CPU", "3.13.0", lines.append).guide_of(task) is None
    assert len(lines) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'{"schema":1}'])
def test_a_file_that_is_no_prior_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.json is no prior"):
        load_prior("bad.json", "", tmp_path)
    with pytest.raises(InputError, match=r"absent.json cannot be read"):
        load_prior("absent.json", "", tmp_path)


@pytest.mark.slow
def test_the_commands_train_a_prior_and_replay_with_it(tmp_path: Path) -> None:
    output = tmp_path / "prior.json"
    trained = CliRunner().invoke(main, ["prior", "train", *map(str, TRAIN), "-o", str(output), "--seeds", "0"])
    assert trained.exit_code == 0, trained.output
    assert f"{len(TRAIN)} shapes on NVIDIA 9.0, IREE 3.13.0" in trained.output
    arguments = ["replay", str(UNSEEN), "--seeds", "3", "--budget", "12", "--json"]
    found = CliRunner().invoke(main, [*arguments, "--tune-prior", str(output)])
    assert found.exit_code == 0, found.output
    count = msgspec.json.decode(found.output)["evals_to_5pct_median"]
    # Without a prior it takes 43 in the median over 20 seeds, and with this one 1.
    assert count is not None
    assert count <= 8


def test_a_replay_ignores_a_prior_that_does_not_fit_with_a_line(tmp_path: Path) -> None:
    output = tmp_path / "prior.json"
    write_prior(train_prior(landscapes(), seeds=0), output)
    other = msgspec.structs.replace(read_landscape(TRAIN[0]), device="NVIDIA L4")
    write_landscape(other, tmp_path / "l4.json")
    arguments = ["replay", str(tmp_path / "l4.json"), "--seeds", "1", "--budget", "2"]
    found = CliRunner().invoke(main, [*arguments, "--tune-prior", str(output)])
    assert found.exit_code == 0, found.output
    assert "ignored, since it is for NVIDIA 9.0, and this device is NVIDIA 8.9" in found.output
    refused = CliRunner().invoke(main, [*arguments, "--tune-prior", str(tmp_path / "absent.json")])
    assert refused.exit_code == 2
    assert "absent.json cannot be read" in refused.output


@pytest.mark.parametrize(
    ("text", "loops", "reductions", "spans"),
    [
        ("matmul_like_64x32x16_f16xf16xf32", (64, 32, 16), (2,), [(0, 2), (1, 2)]),
        ("matmul_64x32x16_f32_2", (64, 32, 16), (2,), [(0, 2), (1, 2)]),
        ("batch_matmul_4x64x32x16_bf16xbf16xf32", (4, 64, 32, 16), (3,), [(0, 1, 3), (0, 2, 3)]),
        ("matmul_like_8x16x64x32x128_f16", (8, 16, 64, 32, 128), (4,), []),
        (
            "conv_2d_nhwc_hwcf_2x32x30x128_3x5x64_s2x2_f16xf16xf32",
            (2, 32, 30, 128, 3, 5, 64),
            (4, 5, 6),
            [(0, 1, 2, 4, 5, 6), (3, 4, 5, 6)],
        ),
        (
            "conv_2d_nchw_fchw_1x16x32x30_3x5x8_f32",
            (1, 16, 32, 30, 8, 3, 5),
            (4, 5, 6),
            [(0, 2, 3, 4, 5, 6), (1, 4, 5, 6)],
        ),
        ("attention_20x1024x64_f16", (20, 1024, 64, 64, 1024), (3, 4), [(0, 1, 3), (0, 3, 4), (0, 2, 4)]),
        ("attention_2x64x32_k128x16_f16", (2, 64, 32, 16, 128), (3, 4), [(0, 1, 3), (0, 3, 4), (0, 2, 4)]),
    ],
)
def test_facts_are_read_from_the_names_of_dispatches(
    text: str, loops: tuple[int, ...], reductions: tuple[int, ...], spans: list[tuple[int, ...]]
) -> None:
    facts = facts_of_text(text, 7)
    assert (facts.loops, facts.reductions, facts.processors) == (loops, reductions, 7)
    assert [span for span, _ in facts.operands] == spans


def test_of_other_texts_only_the_processors_are_known() -> None:
    for text in ("pooling_2d_1x2x2x4_3x3_f32", "elementwise_64x64_f32", "conv_2d_hwcn_hwcf_8x8x4x2_3x3x4_f32", ""):
        facts = facts_of_text(text, 7)
        assert (facts.loops, facts.processors) == ((), 7)
