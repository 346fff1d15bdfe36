"""Decides how a view is laid out: the task, the places before the agent, what it carries, and a map.

A place is drawn with its things by :func:`_place`, which is kept, so that a step draws only what has changed. All
lengths are written for a picture of 300 px and scale with its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np

from gtr_envs.alfworld.icons import draw_icon
from gtr_envs.alfworld.situation import MapMark, SeenReceptacle, SeenThing, View
from gtr_envs.rendering import Canvas, Color, Frame, Point, line_frame, wrap_text
from gtr_envs.styles import GREEN, Look, Style

INK: Color = (36, 34, 32)
PALE: Color = (250, 250, 250)
INSIDE: Color = (250, 244, 226)
LINING: Color = (216, 206, 190)
PLAIN = Look()


class Decor(NamedTuple):
    """What a style changes in a room: its colours, the letters, how far things lie from their places."""

    wall: Color = (236, 230, 218)
    floor: Color = (196, 176, 150)
    strip: Color = (38, 44, 56)
    """Behind the task and the names of places."""
    strip_ink: Color = PALE
    panel: Color = LINING
    """Behind map and hand."""
    ink: Color = INK
    """Written on wall and panel; what is written on furniture is dark in every style."""
    reachable: Color = (246, 240, 228)
    """Where the agent can stand, on the map."""
    agent: Color = (210, 44, 60)
    font: str = "plain"
    jitter: float = 0.0


@lru_cache(maxsize=16)
def decor_of(style: Style) -> Decor:
    """Find how a style furnishes a room. Faces and layouts concern cards; the green of card tables means a plain room.

    Args:
        style: The style.

    Returns:
        Colours of the palette for walls, floor, strip and panels; the font; the jitter.
    """
    p = style.colors
    room = Decor() if p is GREEN else Decor(p.card, p.table, p.strip, p.text, p.court, p.spades, p.card, p.hearts)
    return room._replace(font=style.font, jitter=style.jitter)


REFERENCE_SIZE = 300
STRIP_HEIGHT, STAGE_BOTTOM, MARGIN = 30, 206, 4
MAP_SIDE = 88
LINE_HEIGHT = 13
LEAST_LINE = 7
"""Letters below this height in pixels are left out: nobody could read them."""

_CASE = {
    "fridge": (226, 230, 234),
    "microwave": (92, 98, 108),
    "safe": (104, 110, 116),
    "cabinet": (168, 118, 70),
    "drawer": (186, 138, 90),
    "box": (190, 150, 100),
}
"""Classes with a door or drawer, and their colours."""
_TOP = {
    "countertop": (206, 204, 200),
    "diningtable": (172, 122, 76),
    "coffeetable": (150, 104, 66),
    "sidetable": (186, 142, 96),
    "desk": (160, 118, 80),
    "dresser": (142, 98, 62),
    "shelf": (190, 150, 106),
    "tvstand": (104, 92, 84),
    "cart": (150, 156, 164),
    "stoveburner": (70, 72, 78),
    "coffeemachine": (84, 78, 76),
    "toaster": (170, 174, 180),
}
"""Classes with a flat top, and their colours."""
_SOFT = {"bed": (104, 138, 190), "sofa": (150, 92, 92), "armchair": (110, 140, 104), "ottoman": (168, 120, 150)}
"""Classes to sit or lie on."""
_BASIN = {
    "sinkbasin": (196, 214, 226),
    "bathtubbasin": (206, 220, 230),
    "toilet": (236, 238, 242),
    "sink": (196, 214, 226),
}
"""Classes that hold water."""
_BIN = {"garbagecan": (112, 122, 118), "laundryhamper": (150, 140, 110)}
"""Classes that things are thrown into."""
_OTHER: Color = (176, 170, 160)


def draw_view(view: View, size: int, *, labels: bool = True, look: Look = PLAIN) -> Frame:
    """Draw what the agent sees.

    Args:
        view: All that may be seen; nothing else can get into the picture.
        size: Side of the square picture in pixels, at least 64.
        labels: False writes no names of things and places.
        look: The style; with jitter, things lie beside their places.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    scale, decor = size / REFERENCE_SIZE, decor_of(look.style)
    frame = _ground(size, decor).copy()
    top, bottom, margin = (round(edge * scale) for edge in (STRIP_HEIGHT, STAGE_BOTTOM, MARGIN))
    _paste(
        frame,
        _paragraph(view.sentence, size - 2 * margin, top - 2, decor, max(LEAST_LINE, round(15 * scale))),
        margin,
        1,
    )
    stage = (margin, top + margin, size - 2 * margin, bottom - top - 2 * margin)
    if view.near:
        _draw_places(frame, view.near, stage, scale, look, labels=labels)
    else:
        _draw_overview(frame, view, stage, scale, decor, labels=labels)
    side = round(MAP_SIDE * scale)
    _paste(frame, _map_with_agent(view, side, decor), margin, bottom + round(2 * scale))
    left = side + 2 * margin
    panel = (left, bottom + round(2 * scale), size - left - margin, side)
    _draw_hand(frame, view.held, panel, scale, decor, labels=labels)
    return frame


# --- the stage --------------------------------------------------------------------------------------------------------


def _draw_places(
    frame: Frame,
    near: Sequence[SeenReceptacle],
    stage: tuple[int, int, int, int],
    scale: float,
    look: Look,
    *,
    labels: bool,
) -> None:
    """Put the places side by side, in two rows if there are many."""
    left, top, width, height = stage
    n_rows = 1 if len(near) <= 3 else 2
    n_columns = ceil(len(near) / n_rows)
    gap = max(1, round(3 * scale))
    cell_width, cell_height = (width - gap * (n_columns - 1)) // n_columns, (height - gap * (n_rows - 1)) // n_rows
    for i, place in enumerate(near):
        picture = _place(place, cell_width, cell_height, scale, look, labels=labels)
        _paste(
            frame, picture, left + (i % n_columns) * (cell_width + gap), top + (i // n_columns) * (cell_height + gap)
        )


@lru_cache(maxsize=64)
def _place(place: SeenReceptacle, width: int, height: int, scale: float, look: Look, *, labels: bool) -> Frame:
    """A receptacle with what lies in or on it."""
    decor = decor_of(look.style)
    body, (left, top, room_width, room_height), ground = _furniture(place.kind, place.door, width, height, decor)
    frame = body.copy()
    line = round(LINE_HEIGHT * scale) if labels else 0
    if labels and line >= LEAST_LINE:
        said = f"{place.name}{f' ({place.door})' if place.door else ''}"
        _paste_centered(
            frame, _line(said, line, width - 2, decor.strip_ink, decor.strip, decor.font), width // 2, height - line
        )
    if place.things:
        n_columns, side, label = _grid(len(place.things), room_width, room_height, line)
        n_rows = ceil(len(place.things) / n_columns)
        cell_width, cell_height = room_width // n_columns, room_height // n_rows
        for i, thing in enumerate(place.things):
            x = left + (i % n_columns) * cell_width + cell_width // 2
            y = top + (i // n_columns) * cell_height + max(0, (cell_height - side - label) // 2)
            if decor.jitter:
                right, down, _ = look.nudge(i)
                x += round(right * decor.jitter * max(0, cell_width - side) / 2)
                y += round(down * decor.jitter * max(0, cell_height - side - label) / 2)
            _paste_centered(frame, draw_icon(thing.kind, thing.marks, side, ground), x, y)
            if label >= LEAST_LINE:
                _paste_centered(frame, _line(thing.name, label, cell_width - 1, INK, ground, decor.font), x, y + side)
    frame.setflags(write=False)
    return frame


def _grid(n_things: int, width: int, height: int, line: int) -> tuple[int, int, int]:
    """Columns, side of an icon and height of a label, such that icons are as large as they can be."""
    best = (1, 6, 0)
    for n_columns in range(1, n_things + 1):
        cell_width, cell_height = width // n_columns, height // ceil(n_things / n_columns)
        label = min(line, max(LEAST_LINE, cell_height // 4)) if line else 0
        side = min(cell_width, cell_height - label) - 2
        if side > best[1]:
            best = (n_columns, side, label)
    n_columns, side, label = best
    return n_columns, min(side, max(24, height // 2)), label


@lru_cache(maxsize=128)
def _furniture(
    kind: str, door: str, width: int, height: int, decor: Decor
) -> tuple[Frame, tuple[int, int, int, int], Color]:
    """An empty piece of furniture, the room for things in it (left, top, width, height), and the colour behind them."""
    canvas = Canvas(width, height, decor.wall, enlargement=2)
    w, h = float(width), float(height)
    foot = h * 0.9
    canvas.box(0, h * 0.72, w, h * 0.28, decor.floor)
    if kind in _CASE or door:
        return _case(canvas, kind, door, w, foot)
    if kind in _BASIN:
        color = _BASIN[kind]
        canvas.box(w * 0.04, foot * 0.08, w * 0.92, foot * 0.88, PALE, radius=h * 0.1)
        canvas.box(w * 0.09, foot * 0.15, w * 0.82, foot * 0.74, color, radius=h * 0.09)
        return canvas.frame(), _room(w * 0.13, foot * 0.19, w * 0.74, foot * 0.66), color
    if kind in _SOFT:
        color = _SOFT[kind]
        canvas.box(w * 0.03, foot * 0.02, w * 0.94, foot * 0.3, _darker(color), radius=h * 0.06)
        canvas.box(w * 0.03, foot * 0.16, w * 0.94, foot * 0.74, color, radius=h * 0.07)
        for x in (0.06, 0.86):
            canvas.box(w * x, foot * 0.88, w * 0.08, foot * 0.1, INK)
        return canvas.frame(), _room(w * 0.07, foot * 0.2, w * 0.86, foot * 0.66), color
    if kind == "garbagecan" or kind == "laundryhamper":
        canvas.polygon(
            [(w * 0.12, foot * 0.06), (w * 0.88, foot * 0.06), (w * 0.78, foot), (w * 0.22, foot)], (112, 122, 118)
        )
        canvas.box(w * 0.08, foot * 0.02, w * 0.84, foot * 0.08, (84, 92, 90), radius=3)
        canvas.polygon(
            [(w * 0.2, foot * 0.14), (w * 0.8, foot * 0.14), (w * 0.73, foot * 0.9), (w * 0.27, foot * 0.9)], LINING
        )
        return canvas.frame(), _room(w * 0.28, foot * 0.16, w * 0.44, foot * 0.7), LINING
    color = _TOP.get(kind, _OTHER)
    for x in (0.08, 0.84):
        canvas.box(w * x, foot * 0.7, w * 0.08, foot * 0.3, _darker(color))
    canvas.box(w * 0.01, foot * 0.78, w * 0.98, foot * 0.08, _darker(color), radius=2)
    canvas.box(w * 0.01, foot * 0.03, w * 0.98, foot * 0.78, color, radius=h * 0.03)
    light = _lighter(color)
    canvas.box(w * 0.03, foot * 0.06, w * 0.94, foot * 0.7, light, radius=h * 0.02)
    return canvas.frame(), _room(w * 0.05, foot * 0.08, w * 0.9, foot * 0.66), light


def _case(
    canvas: Canvas, kind: str, door: str, w: float, foot: float
) -> tuple[Frame, tuple[int, int, int, int], Color]:
    """Furniture with a door or a drawer; closed it shows its front and nothing else."""
    color = _CASE.get(kind, _OTHER)
    canvas.box(w * 0.02, foot * 0.02, w * 0.96, foot * 0.96, _darker(color), radius=foot * 0.03)
    if door != "open":
        canvas.box(w * 0.06, foot * 0.07, w * 0.88, foot * 0.86, color, radius=foot * 0.03)
        if kind == "drawer":
            canvas.box(w * 0.36, foot * 0.45, w * 0.28, foot * 0.08, INK, radius=foot * 0.03)
        elif kind == "safe":
            canvas.circle((w * 0.5, foot * 0.5), foot * 0.16, INK)
            canvas.circle((w * 0.5, foot * 0.5), foot * 0.09, PALE)
        elif kind == "microwave":
            canvas.box(w * 0.1, foot * 0.2, w * 0.6, foot * 0.6, INK, radius=foot * 0.03)
            for y in (0.24, 0.44, 0.64):
                canvas.circle((w * 0.83, foot * (y + 0.06)), foot * 0.05, PALE)
        else:
            canvas.box(w * 0.82, foot * 0.34, w * 0.05, foot * 0.3, INK, radius=foot * 0.02)
            if kind == "fridge":
                canvas.box(w * 0.06, foot * 0.29, w * 0.88, foot * 0.02, _darker(color))
        return canvas.frame(), _room(0, 0, w, foot), color
    # The door stands open at the right edge; a drawer is seen from above.
    canvas.box(w * 0.05, foot * 0.06, w * 0.8, foot * 0.88, INSIDE, radius=foot * 0.02)
    canvas.polygon(
        [(w * 0.87, foot * 0.06), (w * 0.99, foot * 0.01), (w * 0.99, foot * 0.99), (w * 0.87, foot * 0.94)], color
    )
    return canvas.frame(), _room(w * 0.06, foot * 0.08, w * 0.78, foot * 0.84), INSIDE


def _room(left: float, top: float, width: float, height: float) -> tuple[int, int, int, int]:
    return round(left), round(top), max(8, int(width)), max(8, int(height))


def _draw_overview(
    frame: Frame, view: View, stage: tuple[int, int, int, int], scale: float, decor: Decor, *, labels: bool
) -> None:
    """Show the whole room large, beside what can be gone to."""
    left, top, width, height = stage
    _paste(frame, _map_with_agent(view, height, decor), left, top)
    line = max(LEAST_LINE, round(LINE_HEIGHT * scale))
    if not labels or not view.map_marks:
        return
    counts = Counter(mark.kind for mark in view.map_marks)
    n_lines = height // line
    n_columns = ceil(len(counts) / n_lines)
    x = left + height + round(4 * scale)
    column = (left + width - x) // n_columns
    for i, (kind, count) in enumerate(sorted(counts.items())):
        text = f"{kind} {count}" if count > 1 else kind
        place = (x + (i // n_lines) * column, top + (i % n_lines) * line)
        _paste(frame, _colored(kind, line, decor), *place)
        _paste(
            frame, _line(text, line, column - line - 2, decor.ink, decor.wall, decor.font), place[0] + line, place[1]
        )


@lru_cache(maxsize=128)
def _colored(kind: str, side: int, decor: Decor) -> Frame:
    """The mark of a class on the map."""
    canvas = Canvas(side, side, decor.wall)
    canvas.box(side * 0.18, side * 0.18, side * 0.64, side * 0.64, decor.ink, radius=side * 0.1)
    canvas.box(side * 0.24, side * 0.24, side * 0.52, side * 0.52, _color_of(kind), radius=side * 0.06)
    return canvas.frame()


# --- map and hand -----------------------------------------------------------------------------------------------------


def _map_with_agent(view: View, side: int, decor: Decor) -> Frame:
    """The map with an arrow where the agent stands."""
    ground, to_pixel = _map(view.map_marks, view.grid, (view.pose.x, view.pose.z), side, decor)
    frame = ground.copy()
    reach = max(5, side // 7)
    arrow = _arrow(reach, view.pose.rotation, decor)
    x, y = (round(edge) - reach // 2 for edge in _scaled(to_pixel, (view.pose.x, view.pose.z)))
    x, y = (min(max(edge, 0), side - reach) for edge in (x, y))
    spot = frame[y : y + reach, x : x + reach]
    drawn = (arrow != np.array(decor.reachable, dtype=np.uint8)).any(axis=2)
    spot[drawn] = arrow[drawn]
    return frame


@lru_cache(maxsize=64)
def _map(
    marks: tuple[MapMark, ...], grid: tuple[Point, ...], agent: Point, side: int, decor: Decor
) -> tuple[Frame, tuple[float, float, float, float]]:
    """The map without the agent, and how metres become its pixels."""
    points = [*((mark.x, mark.z) for mark in marks), *grid, agent]
    xs, zs = [x for x, _ in points], [z for _, z in points]
    extent = max(max(xs) - min(xs), max(zs) - min(zs), 1.0) + 0.8
    unit = side / extent
    # North is up: z grows towards the upper edge.
    to_pixel = (unit, side / 2 - unit * (max(xs) + min(xs)) / 2, -unit, side / 2 + unit * (max(zs) + min(zs)) / 2)
    canvas = Canvas(side, side, decor.panel, enlargement=3)
    for point in grid:
        x, y = _scaled(to_pixel, point)
        canvas.box(x - unit * 0.14, y - unit * 0.14, unit * 0.28, unit * 0.28, decor.reachable)
    for mark in marks:
        x, y = _scaled(to_pixel, (mark.x, mark.z))
        reach = max(2.2, unit * 0.14)
        canvas.box(x - reach, y - reach, 2 * reach, 2 * reach, decor.ink)
        canvas.box(x - reach + 0.7, y - reach + 0.7, 2 * reach - 1.4, 2 * reach - 1.4, _color_of(mark.kind))
    return canvas.frame(), to_pixel


def _scaled(to_pixel: tuple[float, float, float, float], point: Point) -> Point:
    x_unit, x_start, z_unit, z_start = to_pixel
    return x_start + x_unit * point[0], z_start + z_unit * point[1]


@lru_cache(maxsize=64)
def _arrow(side: int, rotation: int, decor: Decor) -> Frame:
    """An arrow in the direction the agent looks."""
    canvas = Canvas(side, side, decor.reachable, enlargement=3)
    ways: dict[int, tuple[Point, Point, Point]] = {
        0: ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
        90: ((1.0, 0.5), (0.0, 1.0), (0.0, 0.0)),
        180: ((0.5, 1.0), (0.0, 0.0), (1.0, 0.0)),
        270: ((0.0, 0.5), (1.0, 0.0), (1.0, 1.0)),
    }
    canvas.polygon([(x * side, y * side) for x, y in ways[rotation % 360 // 90 * 90]], decor.agent)
    return canvas.frame()


def _draw_hand(
    frame: Frame,
    held: SeenThing | None,
    panel: tuple[int, int, int, int],
    scale: float,
    decor: Decor,
    *,
    labels: bool,
) -> None:
    """Show what the agent carries on an open hand."""
    left, top, width, height = panel
    line = round(LINE_HEIGHT * scale)
    _paste(frame, _hand(width, height, decor), left, top)
    if held is not None:
        side = round(height * 0.6)
        icon = draw_icon(held.kind, held.marks, side, decor.panel)
        _paste_centered(frame, icon, left + width // 2, top + round(2 * scale))
    if labels and line >= LEAST_LINE:
        said = f"{' '.join(held.marks)} {held.name}".strip() if held else "empty hand"
        written = _line(said, line, width - 4, decor.ink, decor.panel, decor.font)
        _paste_centered(frame, written, left + width // 2, top + height - line)


@lru_cache(maxsize=8)
def _hand(width: int, height: int, decor: Decor) -> Frame:
    """A panel with an open hand."""
    canvas = Canvas(width, height, decor.panel, enlargement=2)
    middle, skin = width / 2, (226, 178, 138)
    canvas.box(middle - height * 0.42, height * 0.66, height * 0.84, height * 0.14, skin, radius=height * 0.07)
    canvas.polygon(
        [(middle - height * 0.2, height * 0.74), (middle + height * 0.2, height * 0.74),
         (middle + height * 0.12, height * 0.86), (middle - height * 0.12, height * 0.86)], skin,
    )  # fmt: skip
    return canvas.frame()


# --- small things -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _ground(size: int, decor: Decor) -> Frame:
    """Strip, wall and floor."""
    scale = size / REFERENCE_SIZE
    frame = np.empty((size, size, 3), dtype=np.uint8)
    frame[:] = decor.wall
    frame[: round(STRIP_HEIGHT * scale)] = decor.strip
    frame[round(STAGE_BOTTOM * scale) :] = decor.panel
    return frame


@lru_cache(maxsize=64)
def _paragraph(text: str, width: int, height: int, decor: Decor, largest: int) -> Frame:
    """A text in as many lines as there is room for, in smaller letters if need be."""
    for line in range(max(min(largest, height), LEAST_LINE), LEAST_LINE - 1, -1):
        lines = wrap_text(text, line, width)
        if len(lines) * line <= height:
            break
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[:] = decor.strip
    for i, said in enumerate(lines[: max(1, height // line)]):
        _paste(frame, _line(said, line, width, decor.strip_ink, decor.strip, decor.font), 0, i * line)
    return frame


@lru_cache(maxsize=2048)
def _line(text: str, height: int, width: int, ink: Color, ground: Color, font: str) -> Frame:
    """A line of text that is not wider than there is room; what is too wide is squeezed."""
    for line in range(max(height, LEAST_LINE), LEAST_LINE - 1, -1):
        frame = line_frame(text, line, ink, ground, font)
        if frame.shape[1] <= width:
            break
    return frame[:, : max(1, width)]


def _paste(frame: Frame, picture: Frame, left: int, top: int) -> None:
    """Put a picture into a frame; what lies outside is cut off."""
    place = frame[top : top + picture.shape[0], left : left + picture.shape[1]]
    place[:] = picture[: place.shape[0], : place.shape[1]]


def _paste_centered(frame: Frame, picture: Frame, middle: int, top: int) -> None:
    _paste(frame, picture, max(0, middle - picture.shape[1] // 2), top)


def _color_of(kind: str) -> Color:
    return next((table[kind] for table in (_CASE, _TOP, _SOFT, _BASIN, _BIN) if kind in table), _OTHER)


def _darker(color: Color) -> Color:
    return (round(color[0] * 0.72), round(color[1] * 0.72), round(color[2] * 0.72))


def _lighter(color: Color) -> Color:
    return (round(color[0] * 0.5 + 127), round(color[1] * 0.5 + 127), round(color[2] * 0.5 + 127))
