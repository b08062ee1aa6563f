"""Scales: places, ticks, and ratios whose intervals are far too wide."""

from __future__ import annotations

import itertools

import pytest

from pytest_shark_tune.report.html.scale import Scale, ratio_scale, usable
from pytest_shark_tune.report.html.svg import TEXT, Drawing, fit

ENDS = (1e-3, 0.3, 0.97, 1.0, 1.7, 42.0, 999.0, 1.3e6)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(ENDS, 2)))
def test_ticks_lie_on_the_scale_in_order_and_are_few(low: float, high: float, is_log: bool) -> None:
    scale = Scale(low, high, 10.0, 400.0, is_log)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    places = [scale(tick) for tick in ticks]
    assert places == sorted(places)
    assert all(10.0 <= place <= 400.0 for place in places)


def test_values_beyond_the_scale_are_drawn_at_its_ends() -> None:
    scale = Scale(1.0, 4.0, 0.0, 100.0, is_log=True)
    assert [scale(value) for value in (0.1, 1.0, 2.0, 4.0, 1e9)] == pytest.approx([0, 0, 50, 100, 100])


def test_a_scale_of_one_value_has_it_in_its_middle() -> None:
    assert Scale(2.0, 2.0, 0.0, 100.0)(2.0) == 50
    assert Scale(2.0, 2.0, 0.0, 100.0).ticks() == [2.0]


@pytest.mark.parametrize("ratios", [[], [1.0], [0.2, 1.1], [14.9, 3.3], [1.21]])
def test_a_scale_of_ratios_holds_1_and_every_ratio(ratios: list[float]) -> None:
    scale = ratio_scale(ratios, [0.01, 1e4], 0.0, 100.0)
    for ratio in [*ratios, 1.0]:
        assert scale.low < ratio < scale.high
    assert scale.high <= max([*ratios, 1.0]) * 2.1, "a wide interval does not squeeze the ratios together"


def test_only_what_has_a_logarithm_has_a_place() -> None:
    assert usable([None, 0.0, -1.0, float("inf"), float("nan"), 0.5]) == [0.5]


@pytest.mark.parametrize("text", ["", "short", "depthwise_conv_2d_nchw_chw_1x16x320x320_3x3_f32" * 3])
def test_a_name_is_cut_in_its_middle(text: str) -> None:
    shown = fit(text, 100)
    assert len(shown) <= 100 / TEXT
    assert shown == text or (text.startswith(shown.partition("…")[0]) and text.endswith(shown.partition("…")[2]))


def test_a_drawing_escapes_what_it_is_given() -> None:
    drawing = Drawing(20, "<a> & 'b'\x00")
    drawing.text(1, 2, "</text><script>\x1b", tip="]]>&lt;")
    assert drawing.markup() == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 440 20" role="img" '
        "aria-label=\"&lt;a&gt; &amp; 'b'\\x00\">"
        '<text x="1" y="2">&lt;/text&gt;&lt;script&gt;\\x1b<title>]]&gt;&amp;lt;</title></text></svg>'
    )
