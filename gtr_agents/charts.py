"""Small SVG charts for the report: coloured by CSS classes, so that they follow light and dark, and escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 46, 14, 10, 26
MAX_HOVER = 240
"""At most so many points of a chart can be read off with the pointer; it keeps long runs small."""
SMOOTH_FROM = 16
"""Shorter series are shown as they are; longer ones faintly, with their moving mean on top."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    label: str
    """What the legend calls it."""
    role: str
    """CSS class that gives the colour: ``student``, ``teacher``, ``greedy``, ``rollout``, ``start`` or ``conflict``."""
    xs: tuple[float, ...]
    """Positions, ascending."""
    ys: tuple[float, ...]
    """Finite values, one a position."""
    intervals: tuple[tuple[float, float], ...] = ()
    """95% interval of each value; empty if there are none."""
    marked: bool = False
    """True draws a dot at each value: a few measurements rather than a stream."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How values are placed and written."""

    percent: bool = False
    """True for shares from 0 to 1, written in percent."""
    log: bool = False
    """True for a logarithmic axis; values of 0 or less are left out."""

    def write(self, value: float) -> str:
        """Write one value for a reader.

        Args:
            value: Any finite number.

        Returns:
            E.g. ``39.2%``, ``0.0123`` or ``1.2e-06``.
        """
        if self.percent:
            return f"{value:.1%}"
        return f"{value:.1e}" if self.log else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison figure: a rate with its interval."""

    label: str
    """Whose rate it is."""
    role: str
    """CSS class that gives the colour."""
    value: float
    """The rate, 0 to 1."""
    interval: tuple[float, float] | None = None
    """Its 95% interval; None if unknown."""
    greedy: float | None = None
    """The same model without sampling, drawn hollow; None if not measured."""


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Choose round tick values inside a range.

    Args:
        low: Lower end.
        high: Upper end, above ``low``.
        n: About how many.

    Returns:
        Ascending multiples of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Write a count briefly.

    Args:
        value: A number.

    Returns:
        E.g. ``20k`` or ``1.5M``.

    >>> short(0), short(2500), short(1_500_000)
    ('0', '2.5k', '1.5M')
    """
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.4g}"


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Take the mean of each value and its neighbours; at the ends, of those that exist.

    Args:
        values: Any numbers.
        window: Neighbours on each side.

    Returns:
        As many values.

    >>> smoothed([0.0, 3.0, 6.0], 1)
    [1.5, 3.0, 4.5]
    """
    spans = [values[max(0, i - window) : i + window + 1] for i in range(len(values))]
    return [sum(span) / len(span) for span in spans]


def line_chart(
    series: Sequence[Series],
    axis: Axis,
    *,
    label: str,
    size: tuple[int, int] = (360, 190),
    level: float | None = None,
    head: Callable[[float], str] = short,
) -> Markup:
    """Draw values over environment steps.

    Args:
        series: The lines; at least one value in all of them together.
        axis: How values are placed and written.
        label: What the chart shows, for readers who cannot see it.
        size: Width and height in pixels.
        level: A value to mark with a dashed line.
        head: Writes a position as the heading of what the pointer reads.

    Returns:
        An ``<svg>`` element.
    """
    place_x, place_y, y_ticks = _scales(series, axis, size, level)
    width, height = size
    parts = [_y_grid(y_ticks, place_y, axis, width)]
    left, right = min(s.xs[0] for s in series), max(s.xs[-1] for s in series)
    x_ticks = ticks(left, right, max(2, width // 110)) if right > left else [left]
    parts += [_text(place_x(tick), height - 8, short(tick), "tick middle") for tick in x_ticks]
    if level is not None:
        y = place_y(level)
        parts.append(
            Markup('<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                MARGIN_LEFT, width - MARGIN_RIGHT, y, y
            )
        )
    parts += [_draw_series(line, place_x, place_y) for line in series]
    return _svg(Markup("").join(parts), size, label, json.dumps(_hover(series, axis, place_x, place_y, head)))


def interval_chart(rows: Sequence[Row], *, label: str, size: tuple[int, int]) -> Markup:
    """Draw rates as dots with their intervals, one row each: what a reader compares first.

    Args:
        rows: From top to bottom.
        label: What the figure shows, for readers who cannot see it.
        size: Width and height in pixels.

    Returns:
        An ``<svg>`` element.
    """
    width, height = size
    ends = [float(end) for row in rows for end in (*(row.interval or ()), row.value, row.greedy or row.value)]
    low, high = max(0.0, min(ends) - 0.04), min(1.0, max(ends) + 0.04)
    left, right = 96, width - 24

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = []
    for tick in ticks(low, high, max(3, width // 130)):
        x = place(tick)
        parts.append(Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="8" y2="{}"/>').format(x, x, height - 26))
        parts.append(_text(x, height - 8, f"{tick:.0%}", "tick middle"))
    row_height = (height - 34) / len(rows)
    parts += [_draw_row(row, 8 + row_height * (i + 0.5), left, place) for i, row in enumerate(rows)]
    return _svg(Markup("").join(parts), size, label)


def _scales(
    series: Sequence[Series], axis: Axis, size: tuple[int, int], level: float | None
) -> tuple[Callable[[float], float], Callable[[float], float], list[float]]:
    """Return the functions that place x and y, and the ticks of y."""
    width, height = size
    left, right = min(s.xs[0] for s in series), max(s.xs[-1] for s in series)
    values = [v for s in series for v in (*s.ys, *(end for pair in s.intervals for end in pair))]
    values += [] if level is None else [level]
    if axis.log:
        values = [math.log10(v) for v in values if v > 0] or [0.0]
    low, high = _y_range(values, axis)
    y_ticks = ticks(low, high, 4)
    if axis.log:
        step = max(1, math.ceil((high - low) / 4))
        y_ticks = [10.0**e for e in range(math.ceil(low), math.floor(high) + 1, step)]

    def place_x(x: float) -> float:
        share = (x - left) / (right - left) if right > left else 0.5
        return MARGIN_LEFT + share * (width - MARGIN_LEFT - MARGIN_RIGHT)

    def place_y(y: float) -> float:
        shown = (math.log10(y) if y > 0 else low) if axis.log else y
        return height - MARGIN_BOTTOM - (shown - low) / (high - low) * (height - MARGIN_TOP - MARGIN_BOTTOM)

    return place_x, place_y, y_ticks


def _y_range(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """Leave air around the values, and never blow up noise: a flat line should look flat."""
    low, high = min(values), max(values)
    if axis.log:
        return math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    at_least = 0.04 if axis.percent else max(abs(low), abs(high), 1e-9) * 0.4
    air = max((high - low) * 0.08, (at_least - (high - low)) / 2)
    low, high = low - air, high + air
    return (max(0.0, low), min(1.0, high)) if axis.percent else (low, high)


def _y_grid(y_ticks: Sequence[float], place_y: Callable[[float], float], axis: Axis, width: int) -> Markup:
    parts = []
    digits = 0 if len(y_ticks) < 2 or y_ticks[1] - y_ticks[0] >= 0.00999 else 1
    for tick in y_ticks:
        y = place_y(tick)
        written = f"{tick:.{digits}%}" if axis.percent else f"{tick:.0e}" if axis.log else short(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                MARGIN_LEFT, width - MARGIN_RIGHT, y, y
            )
        )
        parts.append(_text(MARGIN_LEFT - 6, y + 4, written, "tick end"))
    return Markup("").join(parts)


def _draw_series(line: Series, place_x: Callable[[float], float], place_y: Callable[[float], float]) -> Markup:
    xs = [place_x(x) for x in line.xs]
    parts = [_draw_intervals(line, xs, place_y)]
    smooth = len(line.ys) >= SMOOTH_FROM and not line.marked
    parts.append(_path(xs, [place_y(y) for y in line.ys], "line faint" if smooth else "line"))
    if smooth:
        means = smoothed(line.ys, max(2, len(line.ys) // 24))
        parts.append(_path(xs, [place_y(y) for y in means], "line"))
    if line.marked or len(xs) == 1:
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.2"/>')
        parts += [dot.format(x, place_y(y)) for x, y in zip(xs, line.ys, strict=True)]
    return Markup('<g class="{}">{}</g>').format(line.role, Markup("").join(parts))


def _draw_intervals(line: Series, xs: Sequence[float], place_y: Callable[[float], float]) -> Markup:
    ends = [(place_y(low), place_y(high)) for low, high in line.intervals]
    if len(ends) > 1:
        upper = [f"{x:.1f},{high:.1f}" for x, (_, high) in zip(xs, ends, strict=True)]
        lower = [f"{x:.1f},{low:.1f}" for x, (low, _) in zip(xs, ends, strict=True)]
        return Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower[::-1]))
    whisker = Markup('<path class="whisker" d="M{:.1f} {:.1f}V{:.1f}"/>')
    return Markup("").join(whisker.format(xs[0], low, high) for low, high in ends)


def _draw_row(row: Row, y: float, left: int, place: Callable[[float], float]) -> Markup:
    x = place(row.value)
    parts = [_text(left - 12, y + 4, row.label, "name end")]
    if row.interval is not None:
        parts.append(
            Markup('<path class="whisker thick" d="M{:.1f} {:.1f}H{:.1f}"/>').format(
                place(row.interval[0]), y, place(row.interval[1])
            )
        )
    if row.greedy is not None:
        ring = Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="5"><title>greedy: {:.1%}</title></circle>')
        parts.append(ring.format(place(row.greedy), y, row.greedy))
    parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="6.5"/>').format(x, y))
    parts.append(_text(x, y - 12, f"{row.value:.1%}", "value middle"))
    return Markup('<g class="{}">{}</g>').format(row.role, Markup("").join(parts))


def _hover(
    series: Sequence[Series],
    axis: Axis,
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
    head: Callable[[float], str],
) -> list[dict[str, object]]:
    """List what the pointer reads at each position: the heading and one row a series that has a value there."""
    columns: dict[float, list[list[object]]] = {}
    for line in series:
        for i, (x, y) in enumerate(zip(line.xs, line.ys, strict=True)):
            written = axis.write(y)
            if line.intervals:
                written += " ({} to {})".format(*map(axis.write, line.intervals[i]))
            columns.setdefault(x, []).append([line.label, line.role, written, round(place_y(y), 1)])
    # Positions with the most series are the evaluations, and stay readable however long the run is.
    stride = math.ceil(len(columns) / MAX_HOVER)
    most = max(len(rows) for rows in columns.values())
    return [
        {"x": round(place_x(x), 1), "head": head(x), "rows": columns[x]}
        for i, x in enumerate(sorted(columns))
        if i % stride == 0 or (len(columns[x]) == most and most > 1)
    ]


def _path(xs: Sequence[float], ys: Sequence[float], style: str) -> Markup:
    points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    return Markup('<path class="{}" d="M{}"/>').format(style, points)


def _text(x: float, y: float, text: str, style: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(style, x, y, text)


def _svg(content: Markup, size: tuple[int, int], label: str, hover: str = "") -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}" '
        'data-hover="{3}">{4}</svg>'
    ).format(*size, label, hover, content)
