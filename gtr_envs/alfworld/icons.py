"""Decides what household things look like: a small drawing for every class, made at the size it is shown in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from gtr_envs.rendering import Canvas, Color, Frame

WHITE: Color = (250, 250, 250)
DARK: Color = (52, 52, 58)
GREY: Color = (150, 154, 160)
LIGHT: Color = (208, 212, 216)
STEEL: Color = (176, 184, 194)
WOOD: Color = (150, 104, 62)
RED: Color = (206, 52, 48)
ORANGE: Color = (232, 136, 42)
YELLOW: Color = (244, 206, 66)
GREEN: Color = (84, 158, 74)
DARK_GREEN: Color = (40, 98, 60)
BLUE: Color = (58, 112, 190)
SKY: Color = (150, 204, 236)
PURPLE: Color = (126, 82, 160)
PINK: Color = (232, 150, 172)
BROWN: Color = (120, 78, 44)
CREAM: Color = (242, 226, 190)
EDGE: Color = (70, 66, 62)

Shape = Callable[["_Pen"], None]


class _Pen:
    """Draws in a square of side 1."""

    def __init__(self, canvas: Canvas, side: int) -> None:
        self._canvas, self._side = canvas, side

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        self._canvas.circle((x * self._side, y * self._side), radius * self._side, color)

    def bar(self, left: float, top: float, right: float, bottom: float, color: Color, radius: float = 0.0) -> None:
        side = self._side
        self._canvas.box(
            left * side, top * side, (right - left) * side, (bottom - top) * side, color, radius=radius * side
        )

    def area(self, color: Color, *points: tuple[float, float]) -> None:
        self._canvas.polygon([(x * self._side, y * self._side) for x, y in points], color)


# --- families of shapes ---------------------------------------------------------------------------------------------


def _fruit(color: Color, leaf: Color | None = GREEN) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.disc(0.5, 0.56, 0.37, EDGE)
        pen.disc(0.5, 0.56, 0.34, color)
        pen.disc(0.39, 0.45, 0.07, WHITE)
        if leaf:
            pen.bar(0.48, 0.08, 0.53, 0.26, BROWN)
            pen.area(leaf, (0.52, 0.2), (0.66, 0.06), (0.74, 0.18))

    return draw


def _lump(color: Color, spots: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.bar(0.1, 0.3, 0.9, 0.8, EDGE, 0.25)
        pen.bar(0.13, 0.33, 0.87, 0.77, color, 0.22)
        for x, y in ((0.32, 0.48), (0.55, 0.62), (0.68, 0.45)):
            pen.disc(x, y, 0.04, spots)

    return draw


def _cup(color: Color, *, handle: bool) -> Shape:
    def draw(pen: _Pen) -> None:
        if handle:
            pen.disc(0.74, 0.52, 0.2, EDGE)
            pen.disc(0.74, 0.52, 0.11, LIGHT)
        pen.area(EDGE, (0.14, 0.16), (0.78, 0.16), (0.7, 0.9), (0.22, 0.9))
        pen.area(color, (0.18, 0.2), (0.74, 0.2), (0.67, 0.86), (0.25, 0.86))
        pen.bar(0.18, 0.2, 0.74, 0.3, LIGHT)

    return draw


def _bowl(color: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.area(EDGE, (0.05, 0.38), (0.95, 0.38), (0.72, 0.84), (0.28, 0.84))
        pen.area(color, (0.11, 0.42), (0.89, 0.42), (0.69, 0.8), (0.31, 0.8))
        pen.bar(0.05, 0.34, 0.95, 0.44, LIGHT, 0.04)

    return draw


def _plate(pen: _Pen) -> None:
    pen.disc(0.5, 0.5, 0.42, EDGE)
    pen.disc(0.5, 0.5, 0.39, WHITE)
    pen.disc(0.5, 0.5, 0.26, LIGHT)
    pen.disc(0.5, 0.5, 0.24, WHITE)


def _pan(pen: _Pen) -> None:
    pen.bar(0.6, 0.46, 0.98, 0.56, DARK, 0.04)
    pen.disc(0.38, 0.52, 0.35, DARK)
    pen.disc(0.38, 0.52, 0.27, GREY)


def _pot(pen: _Pen) -> None:
    pen.bar(0.04, 0.42, 0.96, 0.52, DARK, 0.04)
    pen.bar(0.16, 0.34, 0.84, 0.86, DARK, 0.08)
    pen.bar(0.2, 0.38, 0.8, 0.82, STEEL, 0.06)
    pen.bar(0.14, 0.24, 0.86, 0.36, DARK, 0.05)
    pen.disc(0.5, 0.2, 0.07, DARK)


def _kettle(pen: _Pen) -> None:
    pen.area(EDGE, (0.66, 0.5), (0.98, 0.3), (0.98, 0.42), (0.76, 0.7))
    pen.disc(0.46, 0.58, 0.34, EDGE)
    pen.disc(0.46, 0.58, 0.3, RED)
    pen.bar(0.28, 0.12, 0.64, 0.2, DARK, 0.03)
    pen.bar(0.26, 0.14, 0.34, 0.34, DARK)
    pen.bar(0.58, 0.14, 0.66, 0.34, DARK)


def _tool(head: Shape, handle: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.bar(0.44, 0.42, 0.56, 0.97, EDGE, 0.05)
        pen.bar(0.46, 0.44, 0.54, 0.95, handle, 0.04)
        head(pen)

    return draw


def _fork(pen: _Pen) -> None:
    for left in (0.3, 0.46, 0.62):
        pen.bar(left, 0.03, left + 0.08, 0.36, STEEL)
    pen.bar(0.3, 0.3, 0.7, 0.46, STEEL, 0.06)


def _spoon(pen: _Pen) -> None:
    pen.disc(0.5, 0.24, 0.21, EDGE)
    pen.disc(0.5, 0.24, 0.17, STEEL)


def _blade(width: float) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.area(EDGE, (0.42, 0.02), (0.44 + width, 0.2), (0.44 + width, 0.52), (0.42, 0.52))
        pen.area(LIGHT, (0.45, 0.1), (0.41 + width, 0.22), (0.41 + width, 0.49), (0.45, 0.49))

    return draw


def _spatula(pen: _Pen) -> None:
    pen.bar(0.3, 0.04, 0.7, 0.44, EDGE, 0.06)
    for left in (0.38, 0.48, 0.58):
        pen.bar(left, 0.1, left + 0.04, 0.36, LIGHT)


def _bottle(color: Color, cap: Color, *, slim: bool = False) -> Shape:
    def draw(pen: _Pen) -> None:
        half = 0.15 if slim else 0.23
        pen.bar(0.43, 0.04, 0.57, 0.36, EDGE, 0.02)
        pen.bar(0.41, 0.03, 0.59, 0.15, cap, 0.02)
        pen.bar(0.5 - half, 0.3, 0.5 + half, 0.96, EDGE, 0.1)
        pen.bar(0.53 - half, 0.33, 0.47 + half, 0.93, color, 0.08)
        pen.bar(0.53 - half, 0.54, 0.47 + half, 0.74, CREAM)

    return draw


def _shaker(color: Color, top: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.area(EDGE, (0.34, 0.3), (0.66, 0.3), (0.76, 0.95), (0.24, 0.95))
        pen.area(color, (0.37, 0.33), (0.63, 0.33), (0.72, 0.92), (0.28, 0.92))
        pen.bar(0.32, 0.08, 0.68, 0.32, top, 0.1)
        for x in (0.42, 0.5, 0.58):
            pen.disc(x, 0.18, 0.025, DARK)

    return draw


def _block(color: Color, band: Color, *, tall: bool = False) -> Shape:
    def draw(pen: _Pen) -> None:
        left, right, top, bottom = (0.26, 0.74, 0.06, 0.94) if tall else (0.08, 0.92, 0.28, 0.78)
        pen.bar(left, top, right, bottom, EDGE, 0.06)
        pen.bar(left + 0.03, top + 0.03, right - 0.03, bottom - 0.03, color, 0.04)
        pen.bar(left + 0.12, top + 0.12, right - 0.12, top + 0.24, band)

    return draw


def _book(color: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.bar(0.16, 0.1, 0.86, 0.92, EDGE, 0.04)
        pen.bar(0.19, 0.13, 0.83, 0.89, color, 0.03)
        pen.bar(0.24, 0.13, 0.29, 0.89, EDGE)
        pen.bar(0.38, 0.26, 0.74, 0.36, CREAM)

    return draw


def _sheet(color: Color, ink: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.bar(0.1, 0.16, 0.9, 0.86, EDGE)
        pen.bar(0.12, 0.18, 0.88, 0.84, color)
        for top in (0.28, 0.42, 0.56, 0.7):
            pen.bar(0.2, top, 0.8, top + 0.05, ink)

    return draw


def _cloth(color: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.area(EDGE, (0.08, 0.2), (0.92, 0.12), (0.94, 0.84), (0.5, 0.74), (0.1, 0.9))
        pen.area(color, (0.12, 0.24), (0.88, 0.17), (0.9, 0.78), (0.5, 0.69), (0.14, 0.84))
        pen.area(WHITE, (0.12, 0.34), (0.89, 0.27), (0.89, 0.33), (0.12, 0.4))

    return draw


def _stick(color: Color, tip: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.area(EDGE, (0.76, 0.06), (0.94, 0.22), (0.28, 0.86), (0.1, 0.7))
        pen.area(color, (0.76, 0.1), (0.9, 0.22), (0.28, 0.82), (0.14, 0.7))
        pen.area(tip, (0.22, 0.62), (0.36, 0.75), (0.06, 0.94))

    return draw


def _roll(pen: _Pen) -> None:
    pen.bar(0.18, 0.2, 0.82, 0.86, EDGE, 0.1)
    pen.bar(0.21, 0.23, 0.79, 0.83, WHITE, 0.08)
    pen.disc(0.5, 0.3, 0.2, LIGHT)
    pen.disc(0.5, 0.3, 0.09, BROWN)


def _egg(pen: _Pen) -> None:
    pen.disc(0.5, 0.6, 0.32, EDGE)
    pen.disc(0.5, 0.42, 0.24, EDGE)
    pen.disc(0.5, 0.6, 0.29, CREAM)
    pen.disc(0.5, 0.42, 0.21, CREAM)


def _lettuce(pen: _Pen) -> None:
    for x, y in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.3), (0.36, 0.66), (0.64, 0.66)):
        pen.disc(x, y, 0.24, DARK_GREEN)
        pen.disc(x, y, 0.2, GREEN)
    pen.disc(0.5, 0.52, 0.18, (176, 214, 120))


def _candle(pen: _Pen) -> None:
    pen.area(ORANGE, (0.5, 0.02), (0.6, 0.2), (0.5, 0.3), (0.4, 0.2))
    pen.bar(0.34, 0.32, 0.66, 0.95, EDGE, 0.04)
    pen.bar(0.37, 0.35, 0.63, 0.92, CREAM, 0.03)


def _watch(pen: _Pen) -> None:
    pen.bar(0.38, 0.02, 0.62, 0.98, BROWN, 0.05)
    pen.disc(0.5, 0.5, 0.28, DARK)
    pen.disc(0.5, 0.5, 0.22, WHITE)
    pen.bar(0.48, 0.34, 0.52, 0.52, DARK)
    pen.bar(0.48, 0.48, 0.64, 0.52, DARK)


def _clock(pen: _Pen) -> None:
    for x in (0.28, 0.72):
        pen.disc(x, 0.18, 0.13, RED)
        pen.disc(x, 0.9, 0.06, DARK)
    pen.disc(0.5, 0.54, 0.38, RED)
    pen.disc(0.5, 0.54, 0.3, WHITE)
    pen.bar(0.48, 0.32, 0.52, 0.56, DARK)
    pen.bar(0.48, 0.52, 0.68, 0.56, DARK)


def _disc(pen: _Pen) -> None:
    pen.disc(0.5, 0.5, 0.42, EDGE)
    pen.disc(0.5, 0.5, 0.39, SKY)
    pen.area(WHITE, (0.5, 0.5), (0.2, 0.22), (0.4, 0.12))
    pen.disc(0.5, 0.5, 0.1, DARK)


def _screen(color: Color) -> Shape:
    def draw(pen: _Pen) -> None:
        pen.bar(0.12, 0.1, 0.88, 0.66, DARK, 0.04)
        pen.bar(0.17, 0.15, 0.83, 0.61, color)
        pen.area(GREY, (0.12, 0.68), (0.88, 0.68), (0.99, 0.9), (0.01, 0.9))

    return draw


def _key(pen: _Pen) -> None:
    pen.disc(0.3, 0.34, 0.24, EDGE)
    pen.disc(0.3, 0.34, 0.2, YELLOW)
    pen.disc(0.3, 0.34, 0.09, WHITE)
    pen.area(EDGE, (0.42, 0.46), (0.5, 0.38), (0.94, 0.82), (0.86, 0.9))
    pen.area(YELLOW, (0.64, 0.78), (0.72, 0.7), (0.8, 0.78), (0.72, 0.86))


def _ball(pen: _Pen) -> None:
    pen.disc(0.5, 0.5, 0.42, EDGE)
    pen.disc(0.5, 0.5, 0.39, ORANGE)
    pen.bar(0.48, 0.11, 0.52, 0.89, EDGE)
    pen.bar(0.11, 0.48, 0.89, 0.52, EDGE)


def _bear(pen: _Pen) -> None:
    for x in (0.26, 0.74):
        pen.disc(x, 0.2, 0.14, BROWN)
    pen.disc(0.5, 0.4, 0.3, BROWN)
    pen.bar(0.22, 0.6, 0.78, 0.96, BROWN, 0.16)
    pen.disc(0.5, 0.48, 0.13, CREAM)
    for x in (0.4, 0.6):
        pen.disc(x, 0.34, 0.04, DARK)


def _pillow(pen: _Pen) -> None:
    pen.bar(0.06, 0.2, 0.94, 0.82, EDGE, 0.2)
    pen.bar(0.09, 0.23, 0.91, 0.79, SKY, 0.18)
    pen.bar(0.24, 0.38, 0.76, 0.64, WHITE, 0.12)


def _vase(pen: _Pen) -> None:
    pen.disc(0.5, 0.66, 0.28, EDGE)
    pen.disc(0.5, 0.66, 0.25, BLUE)
    pen.area(EDGE, (0.34, 0.1), (0.66, 0.1), (0.58, 0.48), (0.42, 0.48))
    pen.area(BLUE, (0.38, 0.13), (0.62, 0.13), (0.56, 0.48), (0.44, 0.48))


def _statue(pen: _Pen) -> None:
    pen.bar(0.22, 0.8, 0.78, 0.96, DARK)
    pen.disc(0.5, 0.2, 0.15, GREY)
    pen.area(GREY, (0.4, 0.3), (0.6, 0.3), (0.72, 0.8), (0.28, 0.8))


def _lamp(pen: _Pen) -> None:
    pen.bar(0.46, 0.4, 0.54, 0.86, DARK)
    pen.bar(0.24, 0.84, 0.76, 0.95, DARK, 0.05)
    pen.area(EDGE, (0.34, 0.06), (0.66, 0.06), (0.88, 0.48), (0.12, 0.48))
    pen.area(YELLOW, (0.37, 0.1), (0.63, 0.1), (0.82, 0.44), (0.18, 0.44))


def _unknown(pen: _Pen) -> None:
    pen.bar(0.12, 0.2, 0.88, 0.92, EDGE, 0.06)
    pen.bar(0.15, 0.23, 0.85, 0.89, CREAM, 0.05)
    pen.bar(0.46, 0.23, 0.54, 0.89, WOOD)
    pen.bar(0.15, 0.5, 0.85, 0.57, WOOD)


ICONS: dict[str, Shape] = {
    "apple": _fruit(RED),
    "tomato": _fruit((224, 72, 40), DARK_GREEN),
    "potato": _lump((200, 158, 98), BROWN),
    "bread": _lump((214, 154, 84), (176, 112, 52)),
    "egg": _egg,
    "lettuce": _lettuce,
    "mug": _cup(BLUE, handle=True),
    "cup": _cup(SKY, handle=False),
    "bowl": _bowl(ORANGE),
    "plate": _plate,
    "pan": _pan,
    "pot": _pot,
    "kettle": _kettle,
    "fork": _tool(_fork, STEEL),
    "spoon": _tool(_spoon, STEEL),
    "ladle": _tool(_spoon, WOOD),
    "knife": _tool(_blade(0.22), DARK),
    "butterknife": _tool(_blade(0.14), YELLOW),
    "spatula": _tool(_spatula, RED),
    "winebottle": _bottle(DARK_GREEN, RED, slim=True),
    "glassbottle": _bottle(SKY, GREY, slim=True),
    "soapbottle": _bottle(PINK, WHITE),
    "spraybottle": _bottle(BLUE, ORANGE),
    "peppershaker": _shaker(DARK, STEEL),
    "saltshaker": _shaker(WHITE, STEEL),
    "soapbar": _block(PINK, WHITE),
    "dishsponge": _block(YELLOW, GREEN),
    "tissuebox": _block(SKY, WHITE),
    "box": _block(WOOD, CREAM),
    "creditcard": _block(BLUE, YELLOW),
    "cellphone": _block(DARK, SKY, tall=True),
    "remotecontrol": _block(DARK, RED, tall=True),
    "book": _book(RED),
    "newspaper": _sheet(LIGHT, DARK),
    "towel": _cloth(GREEN),
    "handtowel": _cloth(PINK),
    "cloth": _cloth(ORANGE),
    "pencil": _stick(YELLOW, DARK),
    "pen": _stick(BLUE, DARK),
    "baseballbat": _stick(WOOD, BROWN),
    "toiletpaper": _roll,
    "papertowel": _roll,
    "papertowelroll": _roll,
    "candle": _candle,
    "watch": _watch,
    "alarmclock": _clock,
    "cd": _disc,
    "laptop": _screen(SKY),
    "television": _screen(DARK_GREEN),
    "keychain": _key,
    "basketball": _ball,
    "teddybear": _bear,
    "pillow": _pillow,
    "vase": _vase,
    "statue": _statue,
    "desklamp": _lamp,
    "floorlamp": _lamp,
}
"""Class in lower case -> its drawing; others get a parcel."""
MARK_COLORS: dict[str, Color] = {
    "hot": RED,
    "cold": BLUE,
    "clean": (70, 190, 190),
    "sliced": PURPLE,
    "on": YELLOW,
}
"""What is true of a thing -> the colour of its badge; the letter on it is the first of the word (``K`` for clean)."""
_LETTERS = {"hot": "H", "cold": "C", "clean": "K", "sliced": "S", "on": "I"}


@lru_cache(maxsize=512)
def draw_icon(kind: str, marks: tuple[str, ...], side: int, ground: Color) -> Frame:
    """Draw a thing.

    Args:
        kind: Its class in lower case.
        marks: What is true of it: ``"clean"``, ``"cold"``, ``"hot"``, ``"on"``, ``"sliced"``.
        side: Side of the picture in pixels.
        ground: What it lies on.

    Returns:
        The drawing, uint8 [side, side, 3], read-only.
    """
    canvas = Canvas(side, side, ground)
    if "on" in marks:
        canvas.circle((side / 2, side * 0.4), side * 0.5, (255, 240, 160))
    ICONS.get(kind, _unknown)(_Pen(canvas, side))
    for place, mark in enumerate(marks):
        center, radius = (side * 0.83, side * (0.17 + 0.33 * place)), side * 0.16
        canvas.circle(center, radius, WHITE)
        canvas.circle(center, radius * 0.88, MARK_COLORS[mark])
        canvas.letters(_LETTERS[mark], center, radius * 1.1, radius * 1.1, DARK if mark in ("on", "clean") else WHITE)
    frame = canvas.frame()
    frame.setflags(write=False)
    return frame
