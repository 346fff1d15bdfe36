"""Decides what a duel looks like: to a player, and to somebody who watches both.

All lengths are written for a picture of 300 px and scale with its size. A player sees the four cards between two
strips, the opponent's formula above and the own one below. A spectator sees the cards in a row between two panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gtr_envs.cards.artwork import DETAIL_SIZE, PLAIN, lay_out, layout_of, paste
from gtr_envs.cards.deck import Card
from gtr_envs.cards.layouts import FIELD_HEIGHT, REFERENCE_SIZE, STRIP_EDGE, STRIP_HEIGHT, STRIP_MARGIN, Place
from gtr_envs.rendering import Canvas, Color, Frame
from gtr_envs.styles import Look, Style

MATCH_CARD = (63, 88)
MATCH_CENTERS: tuple[Place, ...] = tuple((48 + 68 * i, 132) for i in range(4))
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


def draw_view(cards: Sequence[Card], mine: str, theirs: str, size: int, look: Look = PLAIN) -> Frame:
    """Draw the table as one of the players sees it.

    Args:
        cards: Four cards in table order.
        mine: The player's own formula.
        theirs: The opponent's formula.
        size: Side of the square picture in pixels, at least 64.
        look: The style, and how the cards lie; the own formula is below in all of them.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    style, layout = look.style, layout_of(look.style)
    frame = _table(tuple(cards), size, layout.duel_size, layout.duel, look).copy()
    scale = size / REFERENCE_SIZE
    height = round((FIELD_HEIGHT + STRIP_HEIGHT) * scale) - round(FIELD_HEIGHT * scale)
    for label, formula, color, top in (
        ("Them", theirs, style.colors.them, STRIP_EDGE),
        ("Me", mine, style.colors.me, FIELD_HEIGHT),
    ):
        paste(frame, _strip(f"{label}: {formula}", size, height, color, style), 0, round(top * scale))
    return frame


def draw_match(
    cards: Sequence[Card], sides: Sequence[Side], caption: str, size: int, *, over: bool, look: Look = PLAIN
) -> Frame:
    """Draw the table with both players for somebody who watches.

    Args:
        cards: Four cards in table order.
        sides: The first and the second player.
        caption: The state or the result of the game.
        size: Side of the square picture in pixels, at least 64.
        over: True draws the caption as a result.
        look: The style, and how the cards lie; they lie in a row in all of them.

    Returns:
        A new picture, uint8 [size, size, 3].
    """
    scale = size / REFERENCE_SIZE
    style = look.style
    frame = _table(tuple(cards), size, MATCH_CARD, MATCH_CENTERS, look).copy()
    width = round(PANEL_WIDTH * scale)
    for side, color, top in zip(sides, (style.colors.me, style.colors.them), PANEL_TOPS, strict=True):
        panel = _panel(side, color, width, round(PANEL_HEIGHT * scale), style)
        paste(frame, panel, round(PANEL_LEFT * scale), round(top * scale))
    band = _caption(caption, width, round(26 * scale), style, over=over)
    paste(frame, band, round(PANEL_LEFT * scale), round((CAPTION_Y - 13) * scale))
    return frame


# A few tables are kept because every step of an episode shows the same one; strips return with every token.
@lru_cache(maxsize=32)
def _table(
    cards: tuple[Card, ...], size: int, card_size: tuple[int, int], centers: tuple[Place, ...], look: Look
) -> Frame:
    """The table with its cards and nothing written."""
    frame = np.empty((size, size, 3), dtype=np.uint8)
    frame[:] = look.style.colors.table
    lay_out(frame, cards, centers, card_size, look)
    return frame


@lru_cache(maxsize=256)
def _strip(text: str, width: int, height: int, color: Color, style: Style) -> Frame:
    """A line of text over the whole width, in smaller letters if it is long."""
    # Strips are drawn at almost every step, and a smaller enlargement takes a quarter of the time.
    canvas = Canvas(width, height, color, enlargement=2 if width >= DETAIL_SIZE else 4, font=style.font)
    margin = STRIP_MARGIN * width / REFERENCE_SIZE
    canvas.write(text, (margin, height / 2), 1.2 * height, width - 2 * margin, style.colors.text)
    return canvas.frame()


@lru_cache(maxsize=64)
def _panel(side: Side, color: Color, width: int, height: int, style: Style) -> Frame:
    """A player's name and formula on the player's colour; an edge for a winner, grey for one who is out."""
    colors = style.colors
    canvas = Canvas(width, height, colors.table, font=style.font)
    unit = width / PANEL_WIDTH
    edge = 3 * unit
    canvas.box(0, 0, width, height, colors.accent if side.won else color, radius=9 * unit)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, colors.out if side.is_out else color, radius=7 * unit)
    room = width - 24 * unit
    status = "  is right" if side.won else "  is out" if side.is_out else ""
    ink = colors.accent if side.won else colors.faint
    canvas.write(side.name + status, (12 * unit, 17 * unit), 22 * unit, room, ink)
    canvas.write(side.formula, (12 * unit, 42 * unit), 34 * unit, room, colors.text)
    return canvas.frame()


@lru_cache(maxsize=64)
def _caption(text: str, width: int, height: int, style: Style, *, over: bool) -> Frame:
    """The line below the cards."""
    colors = style.colors
    canvas = Canvas(width, height, colors.table, font=style.font)
    letters, ink = (height * 1.1, colors.accent) if over else (height * 0.8, colors.faint)
    canvas.write(text, (width / 2, height / 2), letters, width, ink, centered=True)
    return canvas.frame()
