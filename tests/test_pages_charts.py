"""Charts as markup: what is drawn where, and nothing that a name could smuggle in."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from safemesa.pages.charts import (
    Chart,
    Line,
    Mark,
    Panel,
    Strip,
    bars_svg,
    chart_svg,
    envelope,
    shortened,
    spans_of,
    strips_svg,
    ticks,
)

EVIL = "<script>alert('x')</script>&\""


def chart(lines: list[Line], **more) -> Chart:
    panel = {key: more.pop(key) for key in list(more) if key in Panel.__dataclass_fields__}
    x = np.array([0.0, 10.0])
    return Chart(x=x, x_title="s", panels=[Panel(title="p", lines=lines, **panel)], **more)


def polylines(svg: str) -> list[np.ndarray]:
    """Points `[n, 2]` of each polyline."""
    return [
        np.array([pair.split(",") for pair in points.split()], np.float64)
        for points in re.findall(r'polyline points="([^"]*)"', svg)
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, 22.0, [0.0, 5.0, 10.0, 15.0, 20.0]),
        (0.1, 0.3, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (2.0, 2.0, [2.0]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_the_envelope_keeps_every_peak():
    values = np.zeros(1001)
    values[777], values[5] = 3.0, np.nan
    largest, size = envelope(values, 100)
    assert size == 11
    assert len(largest) == 91
    assert largest[777 // 11] == 3.0
    assert np.nansum(largest) == 3.0
    nothing, size = envelope(np.array([np.nan, np.nan, 1.0]), 2)
    assert size == 2
    np.testing.assert_array_equal(nothing, [np.nan, 1.0])
    assert len(envelope(np.zeros(0), 10)[0]) == 0


def test_spans_are_runs():
    on = np.array([True, True, False, True])
    assert spans_of(np.arange(4) * 0.5, on, 0.5) == [(0.0, 1.0), (1.5, 2.0)]
    assert spans_of(np.zeros(0), np.zeros(0, np.bool_), 0.5) == []


def test_a_gap_parts_a_line_and_a_point_alone_is_a_dot():
    y = np.array([0.0, 1.0, np.nan, 2.0, np.nan, 1.0, 0.0])
    svg = chart_svg(chart([Line(y=y, x=np.linspace(0.0, 10.0, 7))]))
    assert [len(points) for points in polylines(svg)] == [2, 2]
    assert svg.count("<circle") == 1
    assert "nan" not in svg


def test_points_lie_on_a_line_where_the_values_do():
    svg = chart_svg(chart([Line(y=np.arange(3.0), x=np.array([0.0, 5.0, 10.0]))]))
    (points,) = polylines(svg)
    np.testing.assert_allclose(np.diff(points, 2, axis=0), 0.0, atol=0.11)
    assert points[0, 1] > points[-1, 1]  # larger is higher


def test_a_logarithmic_axis_puts_powers_of_ten_at_equal_distances():
    line = Line(y=np.array([1e-3, 1e-2, 1e-1, 0.0]), x=np.arange(4.0))
    svg = chart_svg(chart([line], low=1e-4, high=1.0, logarithmic=True))
    (points,) = polylines(svg)
    first, second, third, lowest = points[:, 1]
    assert first - second == pytest.approx(second - third, abs=0.11)
    assert lowest - first == pytest.approx(first - second, abs=0.11)  # 0 lies at the lower end


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [3.0, 3.0], [1e30, -1e30]])
def test_any_values_give_a_drawing(values):
    y = np.array(values, np.float64)
    for more in ({}, {"logarithmic": True}):
        svg = chart_svg(chart([Line(y=y, x=np.arange(len(y), dtype=np.float64))], **more))
        ElementTree.fromstring(svg)
        assert not re.search(r"nan|inf", svg)


def test_names_are_escaped_and_bounded():
    line = Line(y=np.zeros(2), name=EVIL)
    drawn = [
        chart_svg(
            chart(
                [line],
                levels=[(EVIL, 0.0, "#000")],
                marks=[Mark(x=5.0, name=EVIL)],
                spans=[(1.0, 2.0)],
                span_name=EVIL,
                description=EVIL,
            )
        ),
        strips_svg(EVIL, np.array([0.0, 1.0]), [Strip(name=EVIL, shares=np.ones(1), median=0.5)]),
        bars_svg([(EVIL, 0.5, EVIL)], EVIL),
    ]
    for svg in drawn:
        assert "<script" not in svg
        ElementTree.fromstring(svg)
    assert len(shortened("x" * 10_000)) == 60


def test_a_strip_is_white_where_a_robot_never_was():
    edges = np.array([0.0, 1.0, 2.0])
    svg = strips_svg("s", edges, [Strip(name="a", shares=np.array([1.0, 0.0]), median=0.4)])
    assert svg.count("<rect") == 1
