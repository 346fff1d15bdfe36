"""Decides what a playing card looks like in each face; own drawings, made at the size they are shown in and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import cos, pi, sin
from typing import NamedTuple

from gtr_envs.cards.deck import Card
from gtr_envs.cards.layouts import CARD_HEIGHT, CARD_WIDTH
from gtr_envs.rendering import Canvas, Color, Frame, Point, turned_frame
from gtr_envs.styles import CLASSIC, STILL, Nudge, Palette, Style

_LEFT, _MID, _RIGHT = 40.0, 54.8, 69.6
_ROWS = {"top": 16.0, "high": 36.5, "third": 43.3, "mid": 57.0, "two thirds": 70.7, "low": 77.5, "bottom": 98.0}


def _both(row: str) -> tuple[Point, Point]:
    """The two outer pips of a row."""
    return ((_LEFT, _ROWS[row]), (_RIGHT, _ROWS[row]))


def _one(row: str) -> tuple[Point]:
    """The middle pip of a row."""
    return ((_MID, _ROWS[row]),)


_FOUR = (*_both("top"), *_both("bottom"))
_EIGHT = (*_FOUR, *_both("third"), *_both("two thirds"))
PIPS: dict[int, tuple[Point, ...]] = {
    2: (*_one("top"), *_one("bottom")),
    3: (*_one("top"), *_one("mid"), *_one("bottom")),
    4: _FOUR,
    5: (*_FOUR, *_one("mid")),
    6: (*_FOUR, *_both("mid")),
    7: (*_FOUR, *_both("mid"), *_one("high")),
    8: (*_FOUR, *_both("mid"), *_one("high"), *_one("low")),
    9: (*_EIGHT, *_one("mid")),
    10: (*_EIGHT, (_MID, 29.6), (_MID, 84.4)),
}
"""Centres of the pips on a card of 82 x 114."""


@lru_cache(maxsize=1024)
def draw_card(
    card: Card, width: int, height: int, *, detailed: bool, style: Style = CLASSIC, nudge: Nudge = STILL
) -> Frame:
    """Draw one card on the colour of the table.

    Args:
        card: The card.
        width: Width of its place in pixels.
        height: Height of its place in pixels.
        detailed: True draws the style's face in full, False one that can be read when it is small.
        style: What it looks like.
        nudge: How it lies in its place; without jitter in the style it fills the place.

    Returns:
        The place with the card, uint8 [height, width, 3], read-only.
    """
    return lay(partial(_flat_card, card, detailed, style), width, height, style, nudge)


@lru_cache(maxsize=1024)
def _flat_card(card: Card, detailed: bool, style: Style, width: int, height: int) -> Frame:
    """A card that fills its place."""
    face = FACES[style.face]
    ink, paper = style.colors.ink(card.suit), style.colors.card
    if face.inked:
        ink, paper = paper, ink
    pen = _blank(width, height, style, paper, ink, card.suit)
    (face.draw if detailed else face.draw_small)(pen, card)
    return pen.finished()


@lru_cache(maxsize=64)
def draw_card_back(width: int, height: int, *, style: Style = CLASSIC, nudge: Nudge = STILL) -> Frame:
    """Draw a card that lies face down, on the colour of the table; all backs of a style are alike.

    Args:
        width: Width of its place in pixels.
        height: Height of its place in pixels.
        style: What it looks like.
        nudge: How it lies in its place.

    Returns:
        The place with the card, uint8 [height, width, 3], read-only.
    """
    return lay(partial(_flat_back, style), width, height, style, nudge)


@lru_cache(maxsize=32)
def _flat_back(style: Style, width: int, height: int) -> Frame:
    """A back that fills its place."""
    colors = style.colors
    pen = _blank(width, height, style, colors.card, colors.back, "D")
    pen.panel(6, 6, 70, 102, colors.back)
    for row in range(9):
        for column in range(6 - row % 2):
            pen.polygon(_diamond(13.5 + 11 * (column + row % 2 / 2), 13 + 11 * row, 4.2), colors.back_pattern)
    return pen.finished()


def _blank(width: int, height: int, style: Style, paper: Color, ink: Color, suit: str) -> _Pen:
    """An empty card and a pen to draw on it."""
    scale = height / CARD_HEIGHT
    canvas = Canvas(width, height, style.colors.table, font=style.font)
    canvas.box(0, 0, width, height, style.colors.edge, radius=8 * scale)
    edge = max(0.6, 0.9 * scale)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, paper, radius=7.4 * scale)
    return _Pen(canvas, width / CARD_WIDTH, scale, ink, paper, suit, style.colors)


def _diamond(x: float, y: float, reach: float) -> tuple[Point, ...]:
    """A square on its corner around a centre."""
    return ((x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y))


class _Pen:
    """Draws on a card in the coordinates of a card of 82 x 114."""

    def __init__(
        self, canvas: Canvas, x_scale: float, y_scale: float, ink: Color, paper: Color, suit: str, colors: Palette
    ) -> None:
        self._canvas, self._x, self._y, self._suit = canvas, x_scale, y_scale, suit
        self.ink, self.paper, self.colors = ink, paper, colors

    def letters(self, text: str, x: float, y: float, width: float, height: float, color: Color | None = None) -> None:
        """Write large letters around a centre, in the ink of the card unless another colour is given."""
        place, room = (x * self._x, y * self._y), width * self._x
        self._canvas.letters(text, place, room, height * self._y, color or self.ink)

    def finished(self) -> Frame:
        """Return the drawing, read-only."""
        frame = self._canvas.frame()
        frame.setflags(write=False)
        return frame

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self._canvas.polygon([(x * self._x, y * self._y) for x, y in points], color)

    def circle(self, x: float, y: float, radius: float, color: Color) -> None:
        """Fill a circle."""
        self._canvas.circle((x * self._x, y * self._y), radius * self._y, color)

    def panel(self, left: float, top: float, width: float, height: float, color: Color) -> None:
        """Fill a rounded rectangle."""
        x, y = self._x, self._y
        self._canvas.box(left * x, top * y, width * x, height * y, color, radius=4 * y)

    def suit(self, x: float, y: float, size: float, *, upside_down: bool = False) -> None:
        """Draw the suit symbol around a centre."""
        flip = -1 if upside_down else 1
        for outline in SUIT_SHAPES[self._suit]:
            self.polygon([(x + size * px, y + flip * size * py) for px, py in outline], self.ink)


def _circle(x: float, y: float, radius: float) -> tuple[Point, ...]:
    """A circle as a polygon."""
    return tuple((x + radius * cos(2 * pi * i / 24), y + radius * sin(2 * pi * i / 24)) for i in range(24))


def _heart(scale: float, up: float, shift: float) -> tuple[Point, ...]:
    """A heart as a polygon; ``up`` is -1 for a heart and 1 for the leaf of a spade."""
    angles = [2 * pi * i / 48 for i in range(48)]
    bend = [13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a) for a in angles]
    return tuple((scale * 16 * sin(a) ** 3, shift + up * scale * b) for a, b in zip(angles, bend, strict=True))


_STEM: tuple[Point, ...] = ((-0.06, 0.0), (0.06, 0.0), (0.1, 0.34), (0.22, 0.5), (-0.22, 0.5), (-0.1, 0.34))
SUIT_SHAPES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "D": (((0, -0.54), (0.4, 0), (0, 0.54), (-0.4, 0)),),
    "H": (_heart(0.0315, -1, -0.07),),
    "S": (_heart(0.0285, 1, -0.03), _STEM),
    "C": (_circle(0, -0.25, 0.235), _circle(-0.25, 0.1, 0.235), _circle(0.25, 0.1, 0.235), _circle(0, 0, 0.12), _STEM),
}
"""Outlines of the suit symbols around their centre, for a symbol of size 1."""


def _letters(card: Card) -> str:
    """The rank as it is printed."""
    return {1: "A", 11: "J", 12: "Q", 13: "K"}.get(card.rank, str(card.rank))


def _draw_pips(pen: _Pen, card: Card) -> None:
    """Draw the corner index, and the pips, the large ace or the court figure."""
    pen.letters(_letters(card), 16.5, 22, 25, 28)
    pen.suit(16, 51, 20)
    if card.rank == 1:
        pen.suit(54, 60, 44)
    elif card.rank <= 10:
        for x, y in PIPS[card.rank]:
            pen.suit(x, y, 18 if card.rank < 9 else 16, upside_down=y > 60)
    else:
        _draw_court(pen, card)


def _draw_index(pen: _Pen, card: Card) -> None:
    """Draw a large rank over one suit symbol."""
    pen.letters(_letters(card), 41, 42, 66, 64)
    pen.suit(41, 93, 27)


def _draw_banner(pen: _Pen, card: Card) -> None:
    """Draw a large suit symbol over the rank on a band of ink."""
    pen.suit(41, 26, 36)
    pen.panel(5, 48, 72, 61, pen.ink)
    pen.letters(_letters(card), 41, 78.5, 60, 46, pen.paper)


def _draw_corners(pen: _Pen, card: Card) -> None:
    """Draw the rank in two corners and a suit symbol in each of the others."""
    pen.letters(_letters(card), 26, 32, 38, 44)
    pen.letters(_letters(card), 56, 82, 38, 44)
    pen.suit(62, 24, 22)
    pen.suit(20, 90, 22, upside_down=True)


def _draw_court(pen: _Pen, card: Card) -> None:
    """Draw a framed panel with a large letter under a crown (king, queen) or a plumed cap (jack)."""
    pen.panel(33, 10, 42, 94, pen.colors.accent)
    pen.panel(35.5, 12.5, 37, 89, pen.colors.court)
    pen.letters(_letters(card), 54, 61, 32, 46)
    pen.suit(54, 93, 13)
    base = 33.0
    if card.rank == 11:
        pen.polygon([(41, base), (67, base), (62, 24), (46, 24)], pen.ink)
        pen.polygon([(60, 26), (70, 15), (65, 28)], pen.colors.accent)
    else:
        peaks = 5 if card.rank == 13 else 3
        width = 26 / peaks
        for i in range(peaks):
            left = 41 + i * width
            pen.polygon([(left, base), (left + width / 2, 18), (left + width, base)], pen.colors.accent)
            pen.circle(left + width / 2, 18, 2, pen.ink)
        pen.polygon([(41, base - 4), (67, base - 4), (67, base), (41, base)], pen.ink)


class Face(NamedTuple):
    """How cards are drawn."""

    draw: Callable[[_Pen, Card], None]
    """Draws on an empty card."""
    draw_small: Callable[[_Pen, Card], None]
    """Draws on a card on which details would be a few pixels."""
    inked: bool = False
    """True exchanges the colours of ink and card."""


FACES: dict[str, Face] = {
    "pips": Face(_draw_pips, _draw_index),
    "index": Face(_draw_index, _draw_index),
    "filled": Face(_draw_index, _draw_index, inked=True),
    "banner": Face(_draw_banner, _draw_banner),
    "corners": Face(_draw_corners, _draw_index),
}
"""Every face by its name."""

MOST_DEGREES = 7.0
"""How far a card is turned at most; a sign that is wider than high is turned less, so that it stays as large."""
SHRINKAGE = 0.22
"""How much smaller things are drawn with full jitter: the room in which they are moved."""
OVERSIZE = 2
"""How many times larger things are drawn before they are turned."""


def lay(draw: Callable[[int, int], Frame], width: int, height: int, style: Style, nudge: Nudge) -> Frame:
    """Draw a card or a sign with the jitter of its style; it never leaves its place.

    Args:
        draw: Draws it so that it fills a place of the given width and height in pixels; should keep what it draws.
        width: Width of the place in pixels.
        height: Height of the place in pixels.
        style: Says how much it may be moved and turned.
        nudge: How it lies.

    Returns:
        The place, uint8 [height, width, 3].
    """
    if not style.jitter:
        return draw(width, height)
    right, down, turn = nudge
    frame = turned_frame(
        draw(OVERSIZE * width, OVERSIZE * height),
        (width, height),
        1 - SHRINKAGE * style.jitter,
        MOST_DEGREES * style.jitter * turn * min(1.0, height / width),
        (right, down),
        style.colors.table,
    )
    frame.setflags(write=False)
    return frame
