"""Decides where cards, goal and strip lie in each layout; pure data.

All lengths are written for a picture of 300 px and scale with its size. Things are placed on a field that is 300 wide
and 272 high, above the strip or below it. Cards are listed in table order, which is the order of reading: from the
left within a row, the upper row first.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE_SIZE = 300
CARD_WIDTH, CARD_HEIGHT = 82, 114
STRIP_HEIGHT, STRIP_EDGE, STRIP_MARGIN = 26, 2, 8
"""Height of the strip, its distance from the edge of the picture, and the room left and right of its text."""
FIELD_HEIGHT = REFERENCE_SIZE - STRIP_HEIGHT - STRIP_EDGE

Place = tuple[float, float]
"""A centre."""


@dataclass(frozen=True)
class Layout:
    """Where things lie."""

    four: tuple[Place, ...]
    """Four cards."""
    four_size: tuple[int, int]
    """Width and height of each of them."""
    pair: tuple[Place, Place]
    """Two cards, which are as large as those of the grid."""
    goal: Place
    """The goal beside two cards."""
    goal_size: tuple[int, int]
    """Width and height of its room."""
    duel: tuple[Place, ...]
    """Four cards between two strips, in the whole picture."""
    duel_size: tuple[int, int]
    """Width and height of each of them."""
    strip_on_top: bool = False
    """True puts the strip above the field."""
    swapped: bool = False
    """True puts the second of two hands or signs above the first."""
    from_right: bool = False
    """True fills hands and signs from the right."""

    @property
    def strip_top(self) -> int:
        """Upper edge of the strip."""
        return STRIP_EDGE if self.strip_on_top else FIELD_HEIGHT

    @property
    def field_top(self) -> int:
        """Upper edge of the field."""
        return STRIP_EDGE + STRIP_HEIGHT if self.strip_on_top else 0


_COLUMNS = (39, 113, 187, 261)
GRID = Layout(
    four=((75, 77), (225, 77), (75, 211), (225, 211)),
    four_size=(CARD_WIDTH, CARD_HEIGHT),
    pair=((75, 77), (225, 77)),
    goal=(150, 207),
    goal_size=(150, 90),
    duel=((75, 89), (225, 89), (75, 211), (225, 211)),
    duel_size=(79, 110),
)
LAYOUTS: dict[str, Layout] = {
    "grid": GRID,
    "row": Layout(
        four=tuple((x, 136) for x in _COLUMNS),
        four_size=(68, 95),
        pair=((55, 136), (149, 136)),
        goal=(246, 136),
        goal_size=(96, 90),
        duel=tuple((x, 150) for x in _COLUMNS),
        duel_size=(68, 95),
        swapped=True,
    ),
    "raised": Layout(
        four=((75, 69), (225, 69), (75, 203), (225, 203)),
        four_size=GRID.four_size,
        pair=((75, 195), (225, 195)),
        goal=(150, 66),
        goal_size=(150, 90),
        duel=GRID.duel,
        duel_size=GRID.duel_size,
        strip_on_top=True,
    ),
    "diagonal": Layout(
        four=tuple((x, 52 + 56 * step) for step, x in enumerate(_COLUMNS)),
        four_size=(66, 92),
        pair=((56, 70), (148, 136)),
        goal=(246, 216),
        goal_size=(100, 80),
        duel=tuple((x, 75 + 50 * step) for step, x in enumerate(_COLUMNS)),
        duel_size=(61, 85),
        from_right=True,
    ),
    "diamond": Layout(
        four=((150, 71), (53, 136), (247, 136), (150, 201)),
        four_size=(CARD_WIDTH, CARD_HEIGHT),
        pair=((150, 71), (247, 136)),
        goal=(84, 206),
        goal_size=(140, 80),
        duel=((150, 87), (53, 150), (247, 150), (150, 213)),
        duel_size=(76, 106),
        strip_on_top=True,
        swapped=True,
        from_right=True,
    ),
}
"""Every layout by its name."""
