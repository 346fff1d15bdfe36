"""Decides where things lie in the frames of the compatibility environments: the public layout with our own drawings.

All lengths are pixels of a frame of 300 x 300. Frames are not those of the public package pixel by pixel: cards and
letters have another shape, and a long formula is written in smaller letters instead of leaving the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gtr_envs.cards import faces
from gtr_envs.cards.deck import Card
from gtr_envs.rendering import Color, Frame, text_frame
from gtr_envs.styles import CLASSIC

FRAME_SIZE = 300
TABLE_COLOR: Color = (53, 101, 77)
WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)

TEXT_LEFT = 10
LINE_PER_POINT = 1.45
"""Height of a line of the font that pygame ships by the font size in pixels that the public package names."""
MIN_FONT_SIZE = 8
BLACKJACK_CARD = (70, 98)


def draw_points24(cards: tuple[Card, ...], tokens: Sequence[int | str]) -> Frame:
    """Draw four cards in a row over the formula.

    Args:
        cards: The hand in table order.
        tokens: The formula so far, with a blank for every illegal number.

    Returns:
        A new picture, uint8 [300, 300, 3].
    """
    frame = _row(cards).copy()
    _write(frame, "Formula:", TEXT_LEFT, 210, 16, WHITE, TABLE_COLOR)
    _write(frame, " ".join(map(str, tokens)), TEXT_LEFT, 240, 16, WHITE, TABLE_COLOR)
    return frame


def draw_ezpoints(cards: tuple[Card, ...], tokens: Sequence[int | str]) -> Frame:
    """Draw two large cards over the formula.

    Args:
        cards: The hand in table order.
        tokens: The formula so far, with a blank for every illegal number.

    Returns:
        A new picture, uint8 [300, 300, 3].
    """
    frame = _row(cards).copy()
    _write(frame, f"Formula: {' '.join(map(str, tokens))}", TEXT_LEFT, 258, 20, WHITE, TABLE_COLOR)
    return frame


def draw_number_line(current: int, target: int) -> Frame:
    """Write the two numbers.

    Args:
        current: Where the player is.
        target: Where the player has to go.

    Returns:
        A new picture, uint8 [300, 300, 3].
    """
    frame = _empty(WHITE)
    _write(frame, f"Target: {target}", 30, 60, 36, BLACK, WHITE)
    _write(frame, f"Current: {current}", 30, 180, 36, BLACK, WHITE)
    return frame


def draw_blackjack(dealer: Card, player: Sequence[Card]) -> Frame:
    """Draw the dealer's open card beside a card back, and the player's cards below.

    A row takes five cards, and the fifth lies outside of the frame, as in the public package: with five cards the
    picture is that of the first four. The second row is cut off by the lower edge.

    Args:
        dealer: The open card.
        player: The player's cards in the order of the deal.

    Returns:
        A new picture, uint8 [300, 300, 3].
    """
    frame = _empty(TABLE_COLOR)
    width, height = BLACKJACK_CARD
    _write(frame, "Dealer", 5, 5, 16, WHITE, TABLE_COLOR)
    _paste(frame, _card(dealer, width, height), 5, 25)
    _paste(frame, _card_back(width, height), 78, 25)
    _write(frame, "Player", 5, 130, 16, WHITE, TABLE_COLOR)
    for i, card in enumerate(player):
        row, column = (0, i) if i < 5 else (1, i - 5)
        left, top = 5 + column * (width + 4), 150 + row * (height + 4)
        _paste(frame, _card(card, width, height), left, top)
    return frame


@lru_cache(maxsize=64)
def _row(cards: tuple[Card, ...]) -> Frame:
    """Cards side by side at half height, as wide as there is room."""
    frame = _empty(TABLE_COLOR)
    width = int(FRAME_SIZE / len(cards) * 0.9)
    height = int(width * 7 / 5)
    for i, card in enumerate(cards):
        left, top = 5 + int(i * width * 1.1), (FRAME_SIZE - height) // 2
        _paste(frame, _card(card, width, height), left, top)
    return frame


@lru_cache(maxsize=256)
def _card(card: Card, width: int, height: int) -> Frame:
    """A card on this table."""
    return _on_this_table(faces.draw_card(card, width, height, detailed=True))


@lru_cache(maxsize=1)
def _card_back(width: int, height: int) -> Frame:
    """The back of a card on this table."""
    return _on_this_table(faces.draw_card_back(width, height))


def _on_this_table(card: Frame) -> Frame:
    """Let the rounded corners of a card show this table and not that of the other games."""
    picture = card.copy()
    picture[(picture == CLASSIC.colors.table).all(axis=-1)] = TABLE_COLOR
    return picture


def _empty(color: Color) -> Frame:
    """A new frame of one colour."""
    return _ground(color).copy()


# Copying a frame is far faster than filling one with a colour.
@lru_cache(maxsize=2)
def _ground(color: Color) -> Frame:
    """The frame that is copied."""
    frame = np.empty((FRAME_SIZE, FRAME_SIZE, 3), dtype=np.uint8)
    frame[:] = color
    return frame


def _paste(frame: Frame, picture: Frame, left: int, top: int) -> None:
    """Put a picture into a frame; what lies outside is cut off."""
    place = frame[top : top + picture.shape[0], left : left + picture.shape[1]]
    place[:] = picture[: place.shape[0], : place.shape[1]]


def _write(frame: Frame, text: str, left: int, top: int, font_size: int, ink: Color, background: Color) -> None:
    """Write a line with its upper left corner at a place, in smaller letters if it would leave the frame."""
    for size in range(font_size, MIN_FONT_SIZE - 1, -1):
        line = _line(text, round(size * LINE_PER_POINT), ink, background)
        if left + line.shape[1] <= FRAME_SIZE:
            break
    _paste(frame, line, left, top)


# Kept because most steps write what an earlier step or episode has written.
@lru_cache(maxsize=512)
def _line(text: str, height: int, ink: Color, background: Color) -> Frame:
    """A line of text."""
    return text_frame(text, height, ink, background)
