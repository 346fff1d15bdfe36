"""Decides what tables look like: cards and a goal where the layout of a style wants them, and a strip with a text.

All lengths are written for a picture of 300 px and scale with its size. Every game asks this module for its table, its
strip and the parts it puts between, always for a :class:`gtr_envs.styles.Look`: the style, and how things lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import lru_cache

import numpy as np

from gtr_envs.cards.deck import Card
from gtr_envs.cards.faces import draw_card
from gtr_envs.cards.layouts import (
    CARD_HEIGHT,
    CARD_WIDTH,
    LAYOUTS,
    REFERENCE_SIZE,
    STRIP_HEIGHT,
    STRIP_MARGIN,
    Layout,
    Place,
)
from gtr_envs.rendering import Canvas, Color, Frame, text_frame
from gtr_envs.styles import CLASSIC, Look, Style

LABEL = "Formula: "
"""What stands before a formula in the strip."""
DETAIL_SIZE = 180
"""Pictures below this size show a large rank and one suit symbol instead of pips, which would be a few pixels."""
PLAIN = Look(CLASSIC)
"""The look of every picture for which none is asked."""


def layout_of(style: Style) -> Layout:
    """Return where things lie in a style.

    Args:
        style: The style.

    Returns:
        Its layout.
    """
    return LAYOUTS[style.layout]


def draw_table(
    cards: Sequence[Card], formula_text: str, size: int, goal: int | None = None, look: Look = PLAIN
) -> Frame:
    """Draw the table as the player sees it.

    Args:
        cards: Two or four cards in table order, which is the order of reading in every layout.
        formula_text: The formula so far.
        size: Side of the square picture in pixels, at least 64.
        goal: The value to reach; drawn large on a table of two cards, where there is room.
        look: The style, and how the cards lie.

    Returns:
        A new picture, uint8 [size, size, 3]; it shares no memory with any other.
    """
    frame = _table(tuple(cards), size, goal if len(cards) == 2 else None, look).copy()
    _labelled(size, look.style)[1].on(frame).write(LABEL + formula_text)
    return frame


# A table takes 270 kB at 300 px; a few are kept because every step of an episode shows the same one.
@lru_cache(maxsize=32)
def _table(cards: tuple[Card, ...], size: int, goal: int | None, look: Look) -> Frame:
    """The table with its cards and an empty formula."""
    frame = _labelled(size, look.style)[0].copy()
    _lay_hand(frame, cards, goal, look)
    return frame


def _lay_hand(frame: Frame, cards: Sequence[Card], goal: int | None, look: Look) -> None:
    """Draw the cards, and the goal if there is one, where they lie on a table."""
    layout = layout_of(look.style)
    if len(cards) == 4:
        lay_out(frame, cards, layout.four, layout.four_size, look, top=layout.field_top)
    else:
        lay_out(frame, cards, layout.pair, (CARD_WIDTH, CARD_HEIGHT), look, top=layout.field_top)
    if goal is not None:
        scale = len(frame) / REFERENCE_SIZE
        (x, y), (width, height) = layout.goal, layout.goal_size
        sign = _goal_sign(goal, round(width * scale), round(height * scale), look.style)
        paste(frame, sign, round((x - width / 2) * scale), round((y - height / 2 + layout.field_top) * scale))


def lay_out(
    frame: Frame,
    cards: Sequence[Card],
    centers: Sequence[Place],
    card_size: tuple[int, int],
    look: Look,
    *,
    top: float = 0,
) -> None:
    """Put cards of one size where they belong.

    Args:
        frame: The picture, uint8 [size, size, 3]; it is written to.
        cards: The cards.
        centers: The centre of each, at 300 px.
        card_size: Width and height of each, at 300 px.
        look: The style, and how the cards lie.
        top: How far the centres are moved down, at 300 px.
    """
    scale = len(frame) / REFERENCE_SIZE
    width, height = (round(length * scale) for length in card_size)
    for place, (card, (x, y)) in enumerate(zip(cards, centers, strict=True)):
        detailed = len(frame) >= DETAIL_SIZE
        picture = draw_card(card, width, height, detailed=detailed, style=look.style, nudge=look.nudge(place))
        paste(frame, picture, round(x * scale - width / 2), round((y + top) * scale - height / 2))


def paste(frame: Frame, part: Frame, left: int, top: int) -> None:
    """Put a part into a picture that is large enough for it.

    Args:
        frame: The picture, uint8 [H, W, 3]; it is written to.
        part: uint8 [h, w, 3].
        left: Left edge of the part in pixels.
        top: Upper edge of the part in pixels.
    """
    frame[top : top + part.shape[0], left : left + part.shape[1]] = part


def empty_table(size: int, style: Style = CLASSIC) -> Frame:
    """Draw a table with an empty strip and nothing else.

    Args:
        size: Side of the square picture in pixels.
        style: What it looks like.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    return _empty_table(size, style).copy()


@lru_cache(maxsize=16)
def _empty_table(size: int, style: Style) -> Frame:
    """Kept, because copying is several times faster than filling with a colour."""
    frame = np.empty((size, size, 3), dtype=np.uint8)
    frame[:] = style.colors.table
    top, bottom = _strip_rows(size, style)
    frame[top:bottom] = style.colors.strip
    return frame


def _strip_rows(size: int, style: Style) -> tuple[int, int]:
    """First row of the strip, and the row after its last."""
    top = layout_of(style).strip_top
    return round(top * size / REFERENCE_SIZE), round((top + STRIP_HEIGHT) * size / REFERENCE_SIZE)


@lru_cache(maxsize=16)
def _goal_sign(goal: int, width: int, height: int, style: Style) -> Frame:
    """The goal in large figures."""
    canvas = Canvas(width, height, style.colors.table, font=style.font)
    canvas.letters(f"= {goal}", (width / 2, height / 2), width * 0.9, height * 0.5, style.colors.accent)
    return canvas.frame()


@lru_cache(maxsize=1024)
def _letter(character: str, height: int, ink: Color, ground: Color, font: str) -> Frame:
    """One letter of the strip; kept, because writing letter by letter is ten times faster than a font."""
    return text_frame(character, height, ink, ground, font)


def write_strip(frame: Frame, text: str, size: int, style: Style = CLASSIC) -> None:
    """Write into the strip, in smaller letters if the text is long; its beginning gives way at the smallest.

    Args:
        frame: The picture, uint8 [size, size, 3], whose strip is empty; it is written to.
        text: What to write; no newline.
        size: Side of the picture in pixels.
        style: What the strip and its letters look like.
    """
    Strip(frame, size, style).write(text)


class Strip:
    """The strip of one picture, for a text that mostly grows: what stands there already is not written again."""

    def __init__(self, frame: Frame, size: int, style: Style = CLASSIC) -> None:
        """Begin with an empty strip.

        Args:
            frame: The picture, uint8 [size, size, 3], whose strip is empty; it is written to.
            size: Side of the picture in pixels.
            style: What the strip and its letters look like.
        """
        self._colors = (style.colors.text, style.colors.strip)
        self._font = style.font
        self._top, self._bottom = _strip_rows(size, style)
        self._margin = round(STRIP_MARGIN * size / REFERENCE_SIZE)
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
            self._lines[:] = self._colors[1]
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
        return [_letter(character, self._height, *self._colors, self._font) for character in text]

    def _put(self, letters: Sequence[Frame], left: int) -> None:
        """Draw letters side by side."""
        for letter in letters:
            right = left + letter.shape[1]
            self._row[:, left:right] = letter
            left = right


@lru_cache(maxsize=16)
def _labelled(size: int, style: Style) -> tuple[Frame, Strip]:
    """A table without cards whose strip shows the label, and that strip; neither is written to."""
    frame = empty_table(size, style)
    strip = Strip(frame, size, style)
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
        self._look = PLAIN
        self._strip = Strip(frame, self._size)

    def show(self, cards: tuple[Card, ...], formula_text: str, look: Look = PLAIN) -> None:
        """Make the picture the one that :func:`draw_table` would draw.

        Args:
            cards: Two or four cards in table order.
            formula_text: The formula so far.
            look: The style, and how the cards lie.
        """
        if cards != self._cards or look != self._look:
            table, strip = _labelled(self._size, look.style)
            np.copyto(self._frame, table)
            _lay_hand(self._frame, cards, self._goal if len(cards) == 2 else None, look)
            self._cards, self._look, self._strip = cards, look, strip.on(self._frame)
        self._strip.write(LABEL + formula_text)
