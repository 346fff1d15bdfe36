"""Decides what tables look like: cards and a goal where the layout of a style wants them, and a strip with a text.

All lengths are written for a picture of 300 px and scale with its size. Every game asks this module for its table, its
strip and the parts it puts between, always for a :class:`gtr_envs.styles.Look`: the style, and how things lie.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    write_strip(frame, f"Formula: {formula_text}", size, look.style)
    return frame


# A table takes 270 kB at 300 px; a few are kept because every step of an episode shows the same one.
@lru_cache(maxsize=32)
def _table(cards: tuple[Card, ...], size: int, goal: int | None, look: Look) -> Frame:
    """The table with its cards and an empty strip."""
    layout = layout_of(look.style)
    frame = empty_table(size, look.style)
    if len(cards) == 4:
        lay_out(frame, cards, layout.four, layout.four_size, look, top=layout.field_top)
    else:
        lay_out(frame, cards, layout.pair, (CARD_WIDTH, CARD_HEIGHT), look, top=layout.field_top)
    if goal is not None:
        scale = size / REFERENCE_SIZE
        (x, y), (width, height) = layout.goal, layout.goal_size
        sign = _goal_sign(goal, round(width * scale), round(height * scale), look.style)
        paste(frame, sign, round((x - width / 2) * scale), round((y - height / 2 + layout.field_top) * scale))
    return frame


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
    (top, bottom), margin = _strip_rows(size, style), round(STRIP_MARGIN * size / REFERENCE_SIZE)
    colors = style.colors
    room = size - 2 * margin
    largest, smallest = bottom - top, max(6, (bottom - top) // 2)
    for height in range(largest, smallest - 1, -1):
        letters = [_letter(character, height, colors.text, colors.strip, style.font) for character in text]
        width = sum(letter.shape[1] for letter in letters)
        if width <= room:
            break
    while width > room:
        width -= letters.pop(0).shape[1]
    left, top = margin, top + (largest - height) // 2
    for letter in letters:
        frame[top : top + height, left : left + letter.shape[1]] = letter
        left += letter.shape[1]
