"""Option values: what each parser reads, and a table of what it refuses by name."""

from __future__ import annotations

import pytest

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plugin import parse
from pytest_shark_tune.plugin.option_table import OPTIONS, Mode, Option, add_options, destinations
from pytest_shark_tune.plugin.options import TuneOptions
from pytest_shark_tune.system.machine import last_level_cache_bytes

CPU, GPU = Target("llvm-cpu", "host"), Target("hip", "gfx942")


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("60", 60), (" 007 ", 7), ("999999999", 999_999_999)])
def test_a_count_is_read(text: str, number: int) -> None:
    assert parse.parse_count("--tune-trials", text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0", "00", "-1", "+1", "1.0", "1e3", "0x10", "1_000", "1 000", "ten", "60 s", "٣", "²"),
        *("1000000000", "9" * 5000),
    ],
)
def test_a_bad_count_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_count("--tune-trials", text)
    assert str(caught.value) == f"--tune-trials: {text!r} is not a whole number of at least 1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("  ", None),
        ("90", 90),
        ("90s", 90),
        ("0.5s", 0.5),
        ("30m", 1800),
        ("1.5h", 5400),
        (" 2h ", 7200),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float | None) -> None:
    assert parse.parse_duration("--tune-time", text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0s",
        "0.0h",
        "-1s",
        "+1s",
        "1 h",
        "1d",
        "h",
        "s",
        ".5h",
        "5.",
        "1.5.2s",
        "1h30m",
        "1e3s",
        "nan",
        "inf",
        "१s",
        "9" * 400,
    ],
)
def test_a_bad_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_duration("--tune-time", text)
    assert str(caught.value) == f"--tune-time: {text!r} is not a duration; give for example 90s, 30m or 1h"


@pytest.mark.parametrize(("text", "seed"), [("0", 0), (" 12 ", 12), ("999999999", 999_999_999)])
def test_a_seed_is_read(text: str, seed: int) -> None:
    assert parse.parse_seed("--tune-seed", text) == seed


@pytest.mark.parametrize("text", ["", "-1", "1.0", "0x1", "one", str(2**64), "9" * 5000])
def test_a_bad_seed_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_seed("--tune-seed", text)
    assert str(caught.value) == f"--tune-seed: {text!r} is not a whole number from 0 to 999999999"


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("", 0), (" ", 0), ("1K", 1024), ("256M", 256 << 20), (" 3G ", 3 << 30)]
)
@pytest.mark.parametrize("target", [CPU, GPU])
def test_a_rotation_is_read_as_bytes(text: str, size_bytes: int, target: Target) -> None:
    assert parse.parse_rotation("--tune-rotate", text, target) == size_bytes


def test_an_automatic_rotation_is_larger_than_the_caches() -> None:
    assert parse.parse_rotation("--tune-rotate", "auto", GPU) == 512 << 20
    if cache := last_level_cache_bytes():
        assert parse.parse_rotation("--tune-rotate", "auto", CPU) == 2 * cache
    else:
        with pytest.raises(
            pytest.UsageError, match=r"^--tune-rotate: this system does not report the size of its cach"
        ):
            parse.parse_rotation("--tune-rotate", "auto", CPU)


@pytest.mark.parametrize("text", ["0M", "1", "1.5M", "-1M", "M", "1 M", "1T", "1MB", "1m", "Auto", "off", "٣M"])
def test_a_bad_rotation_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_rotation("--tune-rotate", text, GPU)
    assert str(caught.value) == f"--tune-rotate: {text!r} is not a size; give for example 256M, 1G or auto"


@pytest.mark.parametrize(("text", "size_bytes"), [("1K", 1024), ("500M", 500 << 20), (" 10G ", 10 << 30)])
def test_a_size_is_read_as_bytes(text: str, size_bytes: int) -> None:
    assert parse.parse_size("--tune-cache-size", text) == size_bytes


@pytest.mark.parametrize("text", ["", " ", "0", "0G", "1", "1.5G", "-1G", "G", "1 G", "1T", "1GB", "1g", "auto", "٣G"])
def test_a_bad_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_size("--tune-cache-size", text)
    assert str(caught.value) == f"--tune-cache-size: {text!r} is not a size; give for example 500M or 20G"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("", ()),
        ("--a=1 --b", ("--a=1", "--b")),
        ("--path='a directory/file'", ("--path=a directory/file",)),
    ],
)
def test_flags_of_a_form_are_split_as_in_a_shell(text: str, flags: tuple[str, ...]) -> None:
    assert parse.split_flags("--tune-form", text) == flags


@pytest.mark.parametrize("text", ["'", '--a="b', "--a=b\\"])
def test_flags_that_cannot_be_split_are_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError, match=r"^--tune-form: .*No (closing quotation|escaped character)"):
        parse.split_flags("--tune-form", text)


def test_a_target_is_read() -> None:
    assert parse.parse_target("hip:gfx942") == Target("hip", "gfx942")


@pytest.mark.parametrize("text", ["", "gpu", "LLVM-CPU", "cuda:", "llvm-cpu:", ":sm_89"])
def test_a_bad_target_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_target(text)
    assert str(caught.value).startswith("--tune-target: ")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "share"), [("4%", 0.04), ("0.04", 0.04), (" 2.5% ", 0.025), ("0", 0.0), ("0%", 0.0), ("99%", 0.99)]
)
def test_a_tolerance_is_read_as_a_share(text: str, share: float) -> None:
    assert parse.parse_tolerance("--tune-tolerance", text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "4", "1", "100%", "-4%", "4 %", "%", "four", "0,04", "1e-2", "nan", "४%"])
def test_a_bad_tolerance_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_tolerance("--tune-tolerance", text)
    assert str(caught.value) == f"--tune-tolerance: {text!r} is no share of less than 1; give for example 4% or 0.04"


@pytest.mark.parametrize(("text", "share"), [("90%", 0.9), ("0.9", 0.9), (" 0.5% ", 0.005), ("1", 1.0), ("100%", 1.0)])
def test_a_share_is_read(text: str, share: float) -> None:
    assert parse.parse_share("--tune-coverage", text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0", "0%", "1.01", "101%", "90", "-1", "9 %", "most", "nan"])
def test_a_bad_share_is_refused_by_name(text: str) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        parse.parse_share("--tune-coverage", text)
    assert str(caught.value) == (
        f"--tune-coverage: {text!r} is no share of more than 0 and at most 1; give for example 0.9 or 90%"
    )


@pytest.mark.parametrize("elsewhere", ["--tune-stop-after=compile", "--tune-bundle=bundle.tar"])
def test_a_share_is_refused_where_no_model_is_profiled(pytester: pytest.Pytester, elsewhere: str) -> None:
    def read(*options: str) -> float:
        return TuneOptions.from_pytest_config(pytester.parseconfig("--tune", elsewhere, *options)).share

    with pytest.raises(pytest.UsageError, match=f"^--tune-coverage: with {elsewhere.partition('=')[0]} no model is"):
        read("--tune-coverage=50%")
    pytester.makeini("[pytest]\ntune_share = 50%\n")
    assert (read(), read("--tune-coverage=1")) == (0.5, 1)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.old], ids=lambda option: option.old)
def test_an_old_name_still_works_and_is_not_shown(option: Option) -> None:
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    given = parser.parse_known_args([f"{option.old}=x"])
    assert vars(given)[option.dest] == (["x"] if option.repeats else "x")
    shown = parser.optparser.format_help()
    assert f"{option.flag}=" in shown
    assert f"{option.old}=" not in shown


def test_the_options_come_in_groups() -> None:
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    shown = parser.optparser.format_help()
    for name in ("tune", "model", "device", "cache", "guard", "report"):
        assert f"shark-tune {name}: " in shown


def test_options_about_candidates_are_for_tuning_only() -> None:
    """A run that guards tries no candidates: it refuses them instead of ignoring them."""
    assert {"tune_restrict", "tune_knob", "tune_trials", "tune_strategy"} <= set(destinations(Mode.TUNE))
