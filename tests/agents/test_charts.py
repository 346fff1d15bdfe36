"""Charts put values where they belong, write axes a person reads, and escape what they are given."""

from __future__ import annotations

import json
import re
from html import unescape
from xml.etree import ElementTree as ET

import pytest

from gtr_agents.charts import MAX_HOVER, Axis, Row, Series, interval_chart, line_chart, short, smoothed, ticks


def line(ys: list[float], **options: object) -> Series:
    return Series("training", "rollout", tuple(float(i) for i in range(len(ys))), tuple(ys), **options)  # type: ignore[arg-type]


def hover(chart: str) -> list[dict[str, object]]:
    found = re.search(r'data-hover="([^"]*)"', chart)
    assert found is not None
    columns: list[dict[str, object]] = json.loads(unescape(found[1]))
    return columns


def test_a_chart_is_well_formed_and_spans_its_margins() -> None:
    chart = line_chart([line([0.0, 1.0])], Axis(percent=True), label="Success", size=(360, 190))
    root = ET.fromstring(chart)  # noqa: S314 - our own output
    assert root.attrib["aria-label"] == "Success"
    # Shares end at 0 and 1: the lowest value lies on the bottom margin, the highest on the top one.
    assert 'd="M46.0 164.0L346.0 10.0"' in chart


def test_a_higher_value_lies_higher_on_a_logarithmic_axis_by_decades() -> None:
    chart = line_chart([line([1e-6, 1e-5, 1e-4])], Axis(log=True), label="Error", level=1e-4)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", re.findall(r'class="line" d="([^"]*)"', chart)[0])]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[0] > heights[1] > heights[2]
    assert ">1e-05<" in chart
    assert f'class="level" x1="46" x2="346" y1="{heights[2]:.1f}"' in chart


def test_a_zero_on_a_logarithmic_axis_does_not_fail() -> None:
    assert "<svg" in line_chart([line([0.0, 0.0])], Axis(log=True), label="Error")


def test_a_single_value_is_drawn_as_a_dot() -> None:
    assert line_chart([line([0.5])], Axis(), label="x").count("<circle") == 1


def test_a_flat_line_is_not_blown_up() -> None:
    chart = line_chart([line([0.99, 0.991])], Axis(percent=True), label="x", size=(360, 190))
    first, second = (float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", chart))
    assert 0 < first - second < 8


def test_long_series_are_shown_faintly_under_their_moving_mean() -> None:
    assert 'class="line faint"' in line_chart([line([0.1, 0.2] * 8)], Axis(), label="x")
    assert 'class="line faint"' not in line_chart([line([0.1, 0.2] * 7)], Axis(), label="x")


def test_one_interval_is_a_whisker_and_several_are_a_band() -> None:
    one = line_chart([line([0.5], intervals=((0.4, 0.6),))], Axis(), label="x")
    two = line_chart([line([0.5, 0.5], intervals=((0.4, 0.6), (0.4, 0.6)))], Axis(), label="x")
    assert ("whisker" in one, "band" in one) == (True, False)
    assert ("whisker" in two, "band" in two) == (False, True)


def test_the_pointer_reads_position_value_and_interval() -> None:
    chart = line_chart(
        [line([0.25, 0.5], intervals=((0.2, 0.3), (0.4, 0.6)))],
        Axis(percent=True),
        label="x",
        head=lambda x: f"update {x:g}",
    )
    second = hover(chart)[1]
    assert second["head"] == "update 1"
    assert second["rows"][0][:3] == ["training", "rollout", "50.0% (40.0% to 60.0%)"]  # type: ignore[index]


def test_a_long_run_is_read_at_few_positions_and_at_all_evaluations() -> None:
    evaluated = Series("student", "student", (7.0, 501.0), (0.5, 0.6), marked=True)
    columns = hover(line_chart([line([0.5] * 2000), evaluated], Axis(), label="x", head=str))
    assert len(columns) <= MAX_HOVER + 2
    assert [c["head"] for c in columns if len(c["rows"]) == 2] == ["7.0", "501.0"]  # type: ignore[arg-type]


def test_labels_are_escaped() -> None:
    series = Series('<b onload="x">', "rollout", (0.0,), (0.0,))
    chart = line_chart([series], Axis(), label='"><script>')
    assert "<script>" not in chart
    assert "<b" not in chart
    ET.fromstring(chart)  # noqa: S314 - our own output


def test_the_comparison_draws_a_row_with_interval_and_greedy_ring() -> None:
    rows = [Row("Start", "start", 0.2), Row("Student", "student", 0.4, (0.35, 0.45), greedy=0.5)]
    chart = interval_chart(rows, label="Rates", size=(380, 152))
    assert chart.count('class="dot"') == 2
    assert chart.count('class="ring"') == chart.count("thick") == 1
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', chart)]
    assert dots[0] < dots[1]
    assert ">40.0%<" in chart


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.19, 0.52, 4) == [0.2, 0.3, 0.4, 0.5]
    assert ticks(-3.0, 7.0, 4) == [-2.5, 0.0, 2.5, 5.0]


def test_counts_are_written_briefly() -> None:
    assert [short(v) for v in (0, 950, 2500, 100_000, 1_500_000, 0.0001)] == [
        "0",
        "950",
        "2.5k",
        "100k",
        "1.5M",
        "0.0001",
    ]


def test_a_moving_mean_uses_the_neighbours_that_exist() -> None:
    assert smoothed([0.0, 3.0, 6.0, 9.0], 1) == [1.5, 3.0, 6.0, 7.5]
