"""Decides what cards and tables look like; own drawings, made at the size they are shown in and kept.

All lengths are written for a picture of 300 px and scale with its size. A table is four cards in a 2x2 grid, each
fully inside its quadrant, or two cards in the upper quadrants over a large goal, with the formula in a strip below.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from math import cos, pi, sin

import numpy as np

from gtr_envs.cards.deck import Card
from gtr_envs.rendering import Canvas, Color, Frame, Point, text_frame

TABLE_COLOR: Color = (16, 82, 52)
STRIP_COLOR: Color = (9, 54, 34)
CARD_COLOR: Color = (252, 252, 248)
EDGE_COLOR: Color = (120, 130, 120)
BACK_COLOR: Color = (38, 66, 134)
BACK_PATTERN_COLOR: Color = (122, 150, 210)
TEXT_COLOR: Color = (255, 255, 255)
GOAL_COLOR: Color = (233, 200, 106)
INK: dict[str, Color] = {"C": (20, 20, 24), "S": (20, 20, 24), "D": (200, 16, 32), "H": (200, 16, 32)}

REFERENCE_SIZE = 300
CARD_WIDTH, CARD_HEIGHT = 82, 114
CARD_CENTERS: tuple[Point, ...] = ((75, 77), (225, 77), (75, 211), (225, 211))
STRIP_TOP, STRIP_BOTTOM, STRIP_MARGIN = 272, 298, 8
LABEL = "Formula: "
"""What stands before a formula in the strip."""
DETAIL_SIZE = 180
"""Pictures below this size show a large rank and one suit symbol instead of pips, which would be a few pixels."""

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


def draw_table(cards: Sequence[Card], formula_text: str, size: int, goal: int | None = None) -> Frame:
    """Draw the table as the player sees it.

    Args:
        cards: Two or four cards in table order: left to right, upper row first.
        formula_text: The formula so far.
        size: Side of the square picture in pixels, at least 64.
        goal: The value to reach; drawn large on a table of two cards, where there is room.

    Returns:
        A new picture, uint8 [size, size, 3]; it shares no memory with any other.
    """
    frame = _table(tuple(cards), size, goal if len(cards) == 2 else None).copy()
    _labelled(size)[1].on(frame).write(LABEL + formula_text)
    return frame


@lru_cache(maxsize=1024)
def draw_card(card: Card, width: int, height: int, *, detailed: bool) -> Frame:
    """Draw one card on the colour of the table.

    Args:
        card: The card.
        width: Width in pixels.
        height: Height in pixels.
        detailed: True draws pips and court figures, False a large rank and one suit symbol.

    Returns:
        The card, uint8 [height, width, 3], read-only.
    """
    scale = height / CARD_HEIGHT
    canvas = Canvas(width, height, TABLE_COLOR)
    canvas.box(0, 0, width, height, EDGE_COLOR, radius=8 * scale)
    edge = max(0.6, 0.9 * scale)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, CARD_COLOR, radius=7.4 * scale)
    pen = _Pen(canvas, width / CARD_WIDTH, scale, INK[card.suit], card.suit)
    if detailed:
        _draw_details(pen, card)
    else:
        pen.letters(_letters(card), 41, 42, 66, 64)
        pen.suit(41, 93, 27)
    frame = canvas.frame()
    frame.setflags(write=False)
    return frame


@lru_cache(maxsize=32)
def draw_card_back(width: int, height: int) -> Frame:
    """Draw a card that lies face down, on the colour of the table; all backs are alike.

    Args:
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        The back, uint8 [height, width, 3], read-only.
    """
    scale = height / CARD_HEIGHT
    canvas = Canvas(width, height, TABLE_COLOR)
    canvas.box(0, 0, width, height, EDGE_COLOR, radius=8 * scale)
    edge = max(0.6, 0.9 * scale)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, CARD_COLOR, radius=7.4 * scale)
    pen = _Pen(canvas, width / CARD_WIDTH, scale, BACK_COLOR, "D")
    pen.panel(6, 6, 70, 102, BACK_COLOR)
    for row in range(9):
        for column in range(6 - row % 2):
            pen.polygon(_diamond(13.5 + 11 * (column + row % 2 / 2), 13 + 11 * row, 4.2), BACK_PATTERN_COLOR)
    frame = canvas.frame()
    frame.setflags(write=False)
    return frame


def _diamond(x: float, y: float, reach: float) -> tuple[Point, ...]:
    """A square on its corner around a centre."""
    return ((x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y))


class _Pen:
    """Draws on a card in the coordinates of a card of 82 x 114."""

    def __init__(self, canvas: Canvas, x_scale: float, y_scale: float, ink: Color, suit: str) -> None:
        self._canvas, self._x, self._y, self.ink, self._suit = canvas, x_scale, y_scale, ink, suit

    def letters(self, text: str, x: float, y: float, width: float, height: float) -> None:
        """Write large letters around a centre."""
        self._canvas.letters(text, (x * self._x, y * self._y), width * self._x, height * self._y, self.ink)

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


def _draw_details(pen: _Pen, card: Card) -> None:
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


def _draw_court(pen: _Pen, card: Card) -> None:
    """Draw a framed panel with a large letter under a crown (king, queen) or a plumed cap (jack)."""
    pen.panel(33, 10, 42, 94, GOAL_COLOR)
    pen.panel(35.5, 12.5, 37, 89, (252, 244, 220))
    pen.letters(_letters(card), 54, 61, 32, 46)
    pen.suit(54, 93, 13)
    base = 33.0
    if card.rank == 11:
        pen.polygon([(41, base), (67, base), (62, 24), (46, 24)], pen.ink)
        pen.polygon([(60, 26), (70, 15), (65, 28)], GOAL_COLOR)
    else:
        peaks = 5 if card.rank == 13 else 3
        width = 26 / peaks
        for i in range(peaks):
            left = 41 + i * width
            pen.polygon([(left, base), (left + width / 2, 18), (left + width, base)], GOAL_COLOR)
            pen.circle(left + width / 2, 18, 2, pen.ink)
        pen.polygon([(41, base - 4), (67, base - 4), (67, base), (41, base)], pen.ink)


# A table takes 270 kB at 300 px; a few are kept because every step of an episode shows the same one.
@lru_cache(maxsize=32)
def _table(cards: tuple[Card, ...], size: int, goal: int | None) -> Frame:
    """The table with its cards and an empty formula."""
    frame = _labelled(size)[0].copy()
    _lay(frame, cards, size, goal)
    return frame


def _lay(frame: Frame, cards: Sequence[Card], size: int, goal: int | None) -> None:
    """Draw the cards, and the goal if there is one, where they lie on a table."""
    scale = size / REFERENCE_SIZE
    width, height = round(CARD_WIDTH * scale), round(CARD_HEIGHT * scale)
    for card, (x, y) in zip(cards, CARD_CENTERS, strict=False):
        left, top = round(x * scale - width / 2), round(y * scale - height / 2)
        frame[top : top + height, left : left + width] = draw_card(card, width, height, detailed=size >= DETAIL_SIZE)
    if goal is not None:
        sign = _goal_sign(goal, round(150 * scale), round(90 * scale))
        left, top = round(75 * scale), round(162 * scale)
        frame[top : top + sign.shape[0], left : left + sign.shape[1]] = sign


def empty_table(size: int) -> Frame:
    """Draw a table with an empty strip and nothing else.

    Args:
        size: Side of the square picture in pixels.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    return _empty_table(size).copy()


@lru_cache(maxsize=8)
def _empty_table(size: int) -> Frame:
    """Kept, because copying is several times faster than filling with a colour."""
    scale = size / REFERENCE_SIZE
    frame = np.empty((size, size, 3), dtype=np.uint8)
    frame[:] = TABLE_COLOR
    frame[round(STRIP_TOP * scale) : round(STRIP_BOTTOM * scale)] = STRIP_COLOR
    return frame


@lru_cache(maxsize=16)
def _goal_sign(goal: int, width: int, height: int) -> Frame:
    """The goal in large figures."""
    canvas = Canvas(width, height, TABLE_COLOR)
    canvas.letters(f"= {goal}", (width / 2, height / 2), width * 0.9, height * 0.5, GOAL_COLOR)
    return canvas.frame()


@lru_cache(maxsize=1024)
def _letter(character: str, height: int) -> Frame:
    """One letter of the strip; kept, because writing letter by letter is ten times faster than a font."""
    return text_frame(character, height, TEXT_COLOR, STRIP_COLOR)


def write_strip(frame: Frame, text: str, size: int) -> None:
    """Write into the strip, in smaller letters if the text is long; its beginning gives way at the smallest.

    Args:
        frame: The picture, uint8 [size, size, 3], whose strip is empty; it is written to.
        text: What to write; no newline.
        size: Side of the picture in pixels.
    """
    Strip(frame, size).write(text)


class Strip:
    """The strip of one picture, for a text that mostly grows: what stands there already is not written again."""

    def __init__(self, frame: Frame, size: int) -> None:
        """Begin with an empty strip.

        Args:
            frame: The picture, uint8 [size, size, 3], whose strip is empty; it is written to.
            size: Side of the picture in pixels.
        """
        scale = size / REFERENCE_SIZE
        self._size = size
        self._top, self._bottom, self._margin = (round(e * scale) for e in (STRIP_TOP, STRIP_BOTTOM, STRIP_MARGIN))
        self._room = size - 2 * self._margin
        self._lines = frame[self._top : self._bottom]
        self._set_height(len(self._lines))
        self._text = ""
        self._width = 0

    def on(self, frame: Frame) -> Strip:
        """Go on writing on a copy of the picture.

        Args:
            frame: A picture, uint8 [size, size, 3], whose strip shows what this one shows; it is written to.

        Returns:
            A strip of its own.
        """
        strip = copy(self)
        strip._lines = frame[self._top : self._bottom]
        strip._set_height(self._height)
        return strip

    def write(self, text: str) -> None:
        """Make the strip show a text.

        Args:
            text: What to write; no newline.
        """
        if text == self._text:
            return
        if text.startswith(self._text):
            # What stands there did not fit in larger letters, so what is longer does not either.
            added = self._letters(text[len(self._text) :])
            width = self._width + sum([letter.shape[1] for letter in added])
            if width <= self._room:
                self._put(added, self._margin + self._width)
                self._text, self._width = text, width
                return
        if self._text:
            self._lines[:] = _empty_table(self._size)[self._top : self._bottom]
        self._write_anew(text)

    def _write_anew(self, text: str) -> None:
        """Choose the size of the letters and write all of them."""
        largest = len(self._lines)
        for height in range(largest, max(6, largest // 2) - 1, -1):
            self._set_height(height)
            letters = self._letters(text)
            width = sum(letter.shape[1] for letter in letters)
            if width <= self._room:
                break
        self._text, self._width = text, width
        while width > self._room:
            width -= letters.pop(0).shape[1]
        self._put(letters, self._margin)

    def _set_height(self, height: int) -> None:
        """Choose letters, which stand in the middle of the strip's height."""
        top = (len(self._lines) - height) // 2
        self._height, self._row = height, self._lines[top : top + height]

    def _letters(self, text: str) -> list[Frame]:
        """The letters of a text."""
        return [_letter(character, self._height) for character in text]

    def _put(self, letters: Sequence[Frame], left: int) -> None:
        """Draw letters side by side."""
        for letter in letters:
            right = left + letter.shape[1]
            self._row[:, left:right] = letter
            left = right


@lru_cache(maxsize=8)
def _labelled(size: int) -> tuple[Frame, Strip]:
    """A table without cards whose strip shows the label, and that strip; neither is written to."""
    frame = empty_table(size)
    strip = Strip(frame, size)
    strip.write(LABEL)
    return frame, strip


class KeptTable:
    """A picture of a table that is kept up to date: only what has changed is drawn again."""

    def __init__(self, frame: Frame, goal: int) -> None:
        """Take a picture over; nothing is drawn yet.

        Args:
            frame: The picture, uint8 [size, size, 3], at least 64 px; it is written to.
            goal: The value to reach; see :func:`draw_table`.
        """
        self._frame, self._size, self._goal = frame, len(frame), goal
        self._cards: tuple[Card, ...] = ()
        self._strip = Strip(frame, self._size)

    def show(self, cards: tuple[Card, ...], formula_text: str) -> None:
        """Make the picture the one that :func:`draw_table` would draw.

        Args:
            cards: Two or four cards in table order.
            formula_text: The formula so far.
        """
        if cards != self._cards:
            table, strip = _labelled(self._size)
            np.copyto(self._frame, table)
            _lay(self._frame, cards, self._size, self._goal if len(cards) == 2 else None)
            self._cards, self._strip = cards, strip.on(self._frame)
        self._strip.write(LABEL + formula_text)
