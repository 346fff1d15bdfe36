"""Decides which visual styles exist, what each is made of, and which are held out for tests of generalisation.

A style says how a game looks and nothing else: names of a card face, a layout and a font, a palette, and how far things
lie from their places. It is data; how a face or a layout is drawn is decided where cards and tables are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gtr_envs.errors import OptionError, require_known

Rgb = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""
Nudge = tuple[float, float, float]
"""How far something lies from its place: to the right, down, and turned; each -1 to 1, a share of what is allowed."""

FACES = ("pips", "index", "filled", "banner", "corners")
"""Card faces: pips and court figures; a large rank; the same on a card of ink; a band with the rank; two indices."""
LAYOUTS = ("grid", "row", "raised", "diagonal", "diamond")
"""Where things lie; see :mod:`gtr_envs.cards.layouts`."""
FONTS = ("plain", "bold", "narrow", "italic", "segments")
"""Letters: the one font that pygame ships, four variations of it; ``"segments"`` has seven-segment figures."""
STILL: Nudge = (0.0, 0.0, 0.0)
"""Exactly in its place."""
N_NUDGES = 16
"""Different nudges of one episode; more things than this repeat them."""


@dataclass(frozen=True)
class Palette:
    """The colours of a style; ``text`` is written on ``table``, ``strip``, ``me``, ``them`` and ``out``."""

    table: Rgb
    """The table."""
    strip: Rgb
    """The strip with the formula or the moves."""
    text: Rgb
    """What is written on table and strip."""
    accent: Rgb
    """The goal, the result, the frames of court cards."""
    card: Rgb
    """Cards and signs."""
    edge: Rgb
    """Their outline."""
    court: Rgb
    """The panel of a court card."""
    clubs: Rgb
    """Ink of clubs."""
    diamonds: Rgb
    """Ink of diamonds."""
    hearts: Rgb
    """Ink of hearts."""
    spades: Rgb
    """Ink of spades."""
    target: Rgb
    """Ink of the number to reach, on ``card``."""
    current: Rgb
    """Ink of the number where the player stands, on ``card``."""
    back: Rgb = (38, 66, 134)
    """The back of a card."""
    back_pattern: Rgb = (122, 150, 210)
    """The pattern on the back."""
    me: Rgb = (20, 58, 112)
    """The own strip in a duel, and the first player's panel."""
    them: Rgb = (122, 36, 32)
    """The opponent's strip, and the second player's panel."""
    out: Rgb = (66, 72, 70)
    """The panel of a player who is out."""
    faint: Rgb = (196, 206, 202)
    """What is written less prominently than ``text``."""

    def ink(self, suit: str) -> Rgb:
        """Return the colour of a suit.

        Args:
            suit: One of ``CDHS``.

        Returns:
            The colour of its rank and symbols.
        """
        return {"C": self.clubs, "D": self.diamonds, "H": self.hearts, "S": self.spades}[suit]


GREEN = Palette(
    table=(16, 82, 52),
    strip=(9, 54, 34),
    text=(255, 255, 255),
    accent=(233, 200, 106),
    card=(252, 252, 248),
    edge=(120, 130, 120),
    court=(252, 244, 220),
    clubs=(20, 20, 24),
    diamonds=(200, 16, 32),
    hearts=(200, 16, 32),
    spades=(20, 20, 24),
    target=(164, 52, 20),
    current=(24, 62, 128),
)
NAVY = Palette(
    table=(28, 48, 96),
    strip=(15, 28, 60),
    text=(240, 244, 255),
    accent=(255, 190, 92),
    card=(236, 240, 250),
    edge=(120, 132, 168),
    court=(214, 224, 244),
    clubs=(22, 34, 74),
    diamonds=(176, 28, 84),
    hearts=(176, 28, 84),
    spades=(22, 34, 74),
    target=(176, 28, 84),
    current=(22, 34, 74),
    back=(150, 60, 40),
    back_pattern=(226, 160, 120),
    me=(14, 78, 92),
    them=(112, 30, 82),
    out=(70, 74, 90),
)
SAND = Palette(
    table=(224, 204, 162),
    strip=(244, 232, 204),
    text=(62, 40, 20),
    accent=(138, 70, 10),
    card=(255, 253, 246),
    edge=(150, 124, 84),
    court=(250, 236, 206),
    clubs=(8, 104, 52),
    diamonds=(20, 76, 190),
    hearts=(190, 24, 30),
    spades=(30, 26, 24),
    target=(150, 48, 12),
    current=(8, 92, 60),
    back=(140, 92, 40),
    back_pattern=(216, 176, 116),
    me=(176, 206, 232),
    them=(240, 186, 170),
    out=(206, 200, 190),
    faint=(92, 68, 44),
)
PLUM = Palette(
    table=(88, 40, 84),
    strip=(56, 22, 54),
    text=(255, 244, 250),
    accent=(250, 208, 120),
    card=(255, 246, 224),
    edge=(156, 116, 132),
    court=(250, 232, 190),
    clubs=(14, 92, 62),
    diamonds=(186, 70, 0),
    hearts=(184, 20, 50),
    spades=(44, 26, 60),
    target=(160, 60, 0),
    current=(88, 30, 120),
    back=(92, 44, 92),
    back_pattern=(196, 150, 190),
    me=(28, 62, 110),
    them=(130, 34, 30),
    out=(84, 74, 82),
)
NIGHT = Palette(
    table=(18, 20, 26),
    strip=(40, 44, 54),
    text=(226, 232, 240),
    accent=(110, 214, 196),
    card=(52, 57, 70),
    edge=(128, 138, 160),
    court=(36, 40, 50),
    clubs=(226, 232, 240),
    diamonds=(255, 138, 128),
    hearts=(255, 138, 128),
    spades=(226, 232, 240),
    target=(255, 186, 110),
    current=(130, 206, 255),
    back=(84, 92, 116),
    back_pattern=(36, 40, 50),
    me=(16, 70, 104),
    them=(112, 40, 58),
    out=(64, 66, 74),
)
PAPER = Palette(
    table=(246, 245, 240),
    strip=(222, 220, 212),
    text=(34, 34, 36),
    accent=(128, 78, 0),
    card=(255, 255, 255),
    edge=(90, 90, 92),
    court=(238, 236, 228),
    clubs=(40, 40, 42),
    diamonds=(178, 30, 20),
    hearts=(178, 30, 20),
    spades=(40, 40, 42),
    target=(178, 30, 20),
    current=(40, 40, 42),
    back=(96, 98, 104),
    back_pattern=(214, 214, 218),
    me=(196, 216, 240),
    them=(246, 204, 196),
    out=(206, 206, 206),
    faint=(88, 88, 92),
)
ARCADE = Palette(
    table=(0, 0, 0),
    strip=(30, 0, 62),
    text=(132, 255, 140),
    accent=(255, 226, 60),
    card=(255, 226, 60),
    edge=(255, 255, 255),
    court=(255, 242, 170),
    clubs=(0, 84, 40),
    diamonds=(0, 52, 190),
    hearts=(170, 0, 40),
    spades=(52, 0, 96),
    target=(170, 0, 40),
    current=(0, 52, 190),
    back=(170, 0, 110),
    back_pattern=(255, 140, 220),
    me=(0, 48, 120),
    them=(110, 0, 40),
    out=(56, 56, 56),
)


@dataclass(frozen=True)
class Style:
    """How a game looks; a name, four choices and a number."""

    name: str
    """What ``info["style"]`` tells."""
    face: str = "pips"
    """One of :data:`FACES`."""
    colors: Palette = GREEN
    """The colours of everything."""
    layout: str = "grid"
    """One of :data:`LAYOUTS`."""
    font: str = "plain"
    """One of :data:`FONTS`."""
    jitter: float = 0.0
    """0 to 1: how far cards and signs are moved and turned at random, anew in every episode."""

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            UnknownNameError: If there is no such face, layout or font.
            OptionError: If the jitter is no number from 0 to 1.
        """
        for what, choice, known in (
            ("face", self.face, FACES),
            ("layout", self.layout, LAYOUTS),
            ("font", self.font, FONTS),
        ):
            require_known(what, choice, known)
        jitter: object = self.jitter
        if not isinstance(jitter, (int, float)) or not 0 <= jitter <= 1:
            raise OptionError(f"Expected jitter as a number from 0 to 1, got {jitter!r}.")

    def __hash__(self) -> int:
        """Hash the name alone: every kept picture is looked up by its style, and the colours are many numbers."""
        return hash(self.name)


CLASSIC = Style("classic")
"""The look of all games unless another is asked for."""
STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        CLASSIC,
        Style("navy", face="index", colors=NAVY, layout="row", font="bold"),
        Style("desert", face="filled", colors=SAND, layout="raised", font="narrow"),
        Style("parlour", face="pips", colors=PLUM, layout="grid", font="bold", jitter=0.4),
        Style("night", face="banner", colors=NIGHT, layout="diagonal", font="plain"),
        Style("paper", face="pips", colors=PAPER, layout="diamond", font="italic"),
        Style("arcade", face="corners", colors=ARCADE, layout="row", font="segments"),
        Style("windy", face="index", colors=NAVY, layout="grid", font="narrow", jitter=1.0),
    )
}
"""Every style by its name."""
STYLE_SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("classic", "navy", "desert", "parlour"),
    "test": ("night", "paper", "arcade", "windy"),
}
"""Styles to train with, and styles held out to measure generalisation; a split's name deals one of its styles."""


class Look(NamedTuple):
    """A style and its randomness: how a game looks in one episode."""

    style: Style = CLASSIC
    """The style."""
    nudges: tuple[Nudge, ...] = ()
    """Where things lie, repeated if there are more of them; empty without jitter."""

    def nudge(self, place: int) -> Nudge:
        """Return how one of the cards or signs lies.

        Args:
            place: Which one, counted from 0.

        Returns:
            Its nudge.
        """
        return self.nudges[place % len(self.nudges)] if self.nudges else STILL


def styles_of(choice: str | Style) -> tuple[Style, ...]:
    """Find the styles that a choice allows.

    Args:
        choice: The name of a style, the name of a split, or a style.

    Returns:
        One style, or the styles of a split.

    Raises:
        UnknownNameError: If it is neither.
    """
    if isinstance(choice, Style):
        return (choice,)
    require_known("style", choice, (*STYLES, *STYLE_SPLITS))
    return tuple(STYLES[name] for name in STYLE_SPLITS.get(choice, (choice,)))


class Wardrobe:
    """Chooses a look for every episode, without taking anything from the generator that deals the game.

    Random looks come from a child of the game's generator: the seed decides them, and the game is the same in every
    style.
    """

    def __init__(self, choice: str | Style) -> None:
        """Set up; nothing is chosen yet.

        Args:
            choice: See :func:`styles_of`.

        Raises:
            UnknownNameError: If there is no such style.
        """
        self._styles = styles_of(choice)
        self._parent: np.random.Generator | None = None
        self._rng: np.random.Generator | None = None

    def next_look(self, game_rng: np.random.Generator, choice: str | Style | None = None) -> Look:
        """Choose the look of an episode.

        Args:
            game_rng: The generator of the game; it is spawned from when it is new, and its numbers are left alone.
            choice: What this one episode shall look like; see :func:`styles_of`. None keeps to the general choice.

        Returns:
            The look.

        Raises:
            UnknownNameError: If there is no such style.
        """
        styles = self._styles if choice is None else styles_of(choice)
        if len(styles) == 1 and not styles[0].jitter:
            return Look(styles[0])
        if self._rng is None or self._parent is not game_rng:
            self._parent, (self._rng,) = game_rng, game_rng.spawn(1)
        style = styles[int(self._rng.integers(len(styles)))]
        if not style.jitter:
            return Look(style)
        nudges = self._rng.uniform(-1, 1, size=(N_NUDGES, len(STILL))).tolist()
        return Look(style, tuple((right, down, turn) for right, down, turn in nudges))
