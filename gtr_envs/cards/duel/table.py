"""Decides what a duel looks like: to a player, and to somebody who watches both.

All lengths are written for a picture of 300 px and scale with its size. A player sees the four cards between two
strips, the opponent's formula above and the own one below. A spectator sees the cards in a row between two panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gtr_envs.cards.artwork import (
    DETAIL_SIZE,
    GOAL_COLOR,
    REFERENCE_SIZE,
    STRIP_BOTTOM,
    STRIP_MARGIN,
    STRIP_TOP,
    TABLE_COLOR,
    TEXT_COLOR,
    draw_card,
)
from gtr_envs.cards.deck import Card
from gtr_envs.rendering import Canvas, Color, Frame

MY_COLOR: Color = (20, 58, 112)
THEIR_COLOR: Color = (122, 36, 32)
SIDE_COLORS: tuple[Color, Color] = (MY_COLOR, THEIR_COLOR)
"""Colours of the first and the second player's panel."""
OUT_COLOR: Color = (66, 72, 70)
FAINT_COLOR: Color = (196, 206, 202)
# As high as the strip of Points24 and as far from the edge, mirrored.
STRIP_HEIGHT = STRIP_BOTTOM - STRIP_TOP
THEIR_STRIP_TOP = REFERENCE_SIZE - STRIP_BOTTOM
VIEW_CARD = (79, 110)
VIEW_CENTERS = ((75, 89), (225, 89), (75, 211), (225, 211))
MATCH_CARD = (63, 88)
MATCH_CENTERS = tuple((48 + 68 * i, 132) for i in range(4))
PANEL_LEFT, PANEL_WIDTH, PANEL_HEIGHT = 8, 284, 62
PANEL_TOPS = (230, 8)
"""The first player sits below, the second above."""
CAPTION_Y = 202


class Side(NamedTuple):
    """What a spectator sees of one player."""

    name: str
    """Who sits here."""
    formula: str
    """The formula so far."""
    is_out: bool = False
    """True after ``=`` with a formula that does not win."""
    won: bool = False
    """True after ``=`` with a formula that wins."""


def draw_view(cards: Sequence[Card], mine: str, theirs: str, size: int) -> Frame:
    """Draw the table as one of the players sees it.

    Args:
        cards: Four cards in table order.
        mine: The player's own formula.
        theirs: The opponent's formula.
        size: Side of the square picture in pixels, at least 64.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    frame = _table(tuple(cards), size, VIEW_CARD, VIEW_CENTERS).copy()
    scale = size / REFERENCE_SIZE
    height = round(STRIP_BOTTOM * scale) - round(STRIP_TOP * scale)
    for label, formula, color, top in (
        ("Them", theirs, THEIR_COLOR, THEIR_STRIP_TOP),
        ("Me", mine, MY_COLOR, STRIP_TOP),
    ):
        start = round(top * scale)
        frame[start : start + height] = _strip(f"{label}: {formula}", size, height, color)
    return frame


def draw_match(cards: Sequence[Card], sides: Sequence[Side], caption: str, size: int, *, over: bool) -> Frame:
    """Draw the table with both players for somebody who watches.

    Args:
        cards: Four cards in table order.
        sides: The first and the second player.
        caption: The state or the result of the game.
        size: Side of the square picture in pixels, at least 64.
        over: True draws the caption as a result.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    scale = size / REFERENCE_SIZE
    frame = _table(tuple(cards), size, MATCH_CARD, MATCH_CENTERS).copy()
    for side, color, top in zip(sides, SIDE_COLORS, PANEL_TOPS, strict=True):
        panel = _panel(side, color, round(PANEL_WIDTH * scale), round(PANEL_HEIGHT * scale))
        _paste(frame, panel, round(PANEL_LEFT * scale), round(top * scale))
    band = _caption(caption, round(PANEL_WIDTH * scale), round(26 * scale), over=over)
    _paste(frame, band, round(PANEL_LEFT * scale), round((CAPTION_Y - 13) * scale))
    return frame


def _paste(frame: Frame, part: Frame, left: int, top: int) -> None:
    """Put a part into a picture that is large enough for it."""
    frame[top : top + part.shape[0], left : left + part.shape[1]] = part


# A few tables are kept because every step of an episode shows the same one; strips return with every token.
@lru_cache(maxsize=32)
def _table(
    cards: tuple[Card, ...], size: int, card_size: tuple[int, int], centers: tuple[tuple[int, int], ...]
) -> Frame:
    """The table with its cards and nothing written."""
    scale = size / REFERENCE_SIZE
    frame = np.empty((size, size, 3), dtype=np.uint8)
    frame[:] = TABLE_COLOR
    width, height = (round(length * scale) for length in card_size)
    for card, (x, y) in zip(cards, centers, strict=True):
        picture = draw_card(card, width, height, detailed=size >= DETAIL_SIZE)
        _paste(frame, picture, round(x * scale - width / 2), round(y * scale - height / 2))
    return frame


@lru_cache(maxsize=256)
def _strip(text: str, width: int, height: int, color: Color) -> Frame:
    """A line of text over the whole width, in smaller letters if it is long."""
    # Strips are drawn at almost every step, and a smaller enlargement takes a quarter of the time.
    canvas = Canvas(width, height, color, enlargement=2 if width >= DETAIL_SIZE else 4)
    margin = STRIP_MARGIN * width / REFERENCE_SIZE
    canvas.write(text, (margin, height / 2), 1.2 * height, width - 2 * margin, TEXT_COLOR)
    return canvas.frame()


@lru_cache(maxsize=64)
def _panel(side: Side, color: Color, width: int, height: int) -> Frame:
    """A player's name and formula on the player's colour; a gold edge for a winner, grey for one who is out."""
    canvas = Canvas(width, height, TABLE_COLOR)
    unit = width / PANEL_WIDTH
    edge = 3 * unit
    canvas.box(0, 0, width, height, GOAL_COLOR if side.won else color, radius=9 * unit)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, OUT_COLOR if side.is_out else color, radius=7 * unit)
    room = width - 24 * unit
    status = "  is right" if side.won else "  is out" if side.is_out else ""
    ink = GOAL_COLOR if side.won else FAINT_COLOR
    canvas.write(side.name + status, (12 * unit, 17 * unit), 22 * unit, room, ink)
    canvas.write(side.formula, (12 * unit, 42 * unit), 34 * unit, room, TEXT_COLOR)
    return canvas.frame()


@lru_cache(maxsize=64)
def _caption(text: str, width: int, height: int, *, over: bool) -> Frame:
    """The line below the cards."""
    canvas = Canvas(width, height, TABLE_COLOR)
    letters, ink = (height * 1.1, GOAL_COLOR) if over else (height * 0.8, FAINT_COLOR)
    canvas.write(text, (width / 2, height / 2), letters, width, ink, centered=True)
    return canvas.frame()
