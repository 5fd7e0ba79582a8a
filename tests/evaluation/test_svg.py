from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from recsys.evaluation.svg import Cloud, Dot, Line, Shares, Stack, bars, dots, lines, points, shares
from recsys.evaluation.svg.axis import Axis, dates, durations, linear, logarithmic


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_marks_are_round_and_hold_the_values() -> None:
    axis = linear([0.031, 0.046], zero=True)
    assert axis.low == 0.0 and axis.high == pytest.approx(0.05)
    assert [text for _, text in axis.ticks] == ["0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]
    assert linear([7.0]).low < 7.0 < linear([7.0]).high
    assert linear([]).low < linear([]).high


def test_a_logarithmic_axis_gives_equal_ratios_equal_room() -> None:
    axis = logarithmic([1, 10_000])
    assert axis.at(100, 0, 400) == pytest.approx(200)
    assert [text for _, text in logarithmic([1, 8]).ticks] == ["1", "2", "5"]
    near = logarithmic([0.21, 0.24])
    assert near.low <= 0.21 and near.high >= 0.24 and len(near.ticks) >= 2


def test_times_are_marked_as_people_write_them() -> None:
    assert [text for _, text in durations([0.5, 100_000]).ticks] == ["1 s", "1 min", "1 h", "1 d"]
    assert next(text for _, text in dates([0, 86_400 * 365 * 20]).ticks) == "1970"


def test_values_beyond_the_axis_stay_at_its_end() -> None:
    assert Axis("", 0, 1, ()).at(5, 10, 20) == 20


def test_dots_stand_at_their_values_with_their_intervals() -> None:
    figure = dots("x", [Dot("a", "s", 0.5, 0.25, 1.0), Dot("b", "s", 1.0)], "v", zero=True)
    (left, _), (right, _) = circles(figure.svg)
    [zero] = re.findall(r'class="zero" x1="([\d.]+)"', figure.svg)
    assert (left - float(zero)) * 2 == pytest.approx(right - float(zero), abs=0.2)
    [(low, high)] = re.findall(r'class="stem" x1="([\d.]+)" x2="([\d.]+)"', figure.svg)
    assert float(high) == pytest.approx(right, abs=0.1)
    assert float(low) - float(zero) == pytest.approx((left - float(zero)) / 2, abs=0.1)
    assert "a, s: 0.5000 [0.2500, 1.0000]" in figure.svg


def test_shares_fill_the_whole_width() -> None:
    figure = shares(
        "x", [Shares("a - b", [0.25, 0.5, 0.25])], ("better", "worse", "equal"), "users"
    )
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="18"', figure.svg)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert "a - b, worse: 50.0%" in figure.svg


def test_stacked_bars_add_up() -> None:
    stacks = [Stack("train", [1.0, 0.0]), Stack("test", [3.0, 4.0])]
    figure = bars("x", stacks, "events", names=["a", "b"])
    rects = re.findall(r'y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', figure.svg)
    (y1, h1), (y2, h2), (_, h3) = [(float(y), float(h)) for y, h in rects]
    assert h2 == pytest.approx(3 * h1, abs=0.2)
    assert y2 + h2 == pytest.approx(y1, abs=0.2)
    assert h3 == pytest.approx(h1 + h2, abs=0.2)


def test_every_chart_is_a_file_of_its_own_that_asks_for_nothing() -> None:
    xs = linear([0, 1])
    figures = [
        dots("a <b>", [Dot("l & m", "s", 1.0, 0.5, 2.0), Dot("l & m", "t", 1.0)], "v"),
        lines("a", [Line("<s>", [(0, 0), (1, 1)], [(0, 0), (1, 1)])], xs, xs),
        bars("a", [Stack("s", [1])], "v", edges=[1, 10], x=logarithmic([1, 10])),
        points("a", [Cloud("c", [(0, 0, "<p>"), (1, 1, "q")], True)], xs, xs),
        shares("a", [Shares("<r>", [1.0])], ("x",), "v"),
    ]
    for figure in figures:
        root = ElementTree.fromstring(figure.file())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.attrib["role"] == "img" and root.attrib["aria-label"]
        assert "prefers-color-scheme: dark" in figure.file()
        assert not re.search(r"href|url\(|<script", figure.file())
        assert "<s>" not in figure.html() and "<p>" not in figure.html()
