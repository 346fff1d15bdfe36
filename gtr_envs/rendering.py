"""Decides how pixels are made: an off-screen canvas, and a window; the only door to pygame.

Only the font part of pygame is started for the canvas, and the display part for a window; never the mixer. Everything
but :class:`Window` works on a machine without a display.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gtr_envs.errors import DependencyError, DisplayError

# pygame prints a greeting when it is imported unless this variable is set.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

_REMEDY = "Run: pip uninstall -y pygame pygame-ce && pip install pygame-ce"

try:
    import pygame
except ImportError as missing:
    raise DependencyError(f"Drawing needs the package pygame-ce, which is not installed. {_REMEDY}") from missing


def require_community_edition(module: object) -> None:
    """Check that the imported pygame is pygame-ce; both distributions install the same folder.

    Args:
        module: The imported module ``pygame``.

    Raises:
        DependencyError: If it is the other distribution.
    """
    if not getattr(module, "IS_CE", False):
        version = getattr(module, "__version__", "unknown version")
        raise DependencyError(f"Expected pygame-ce behind 'import pygame', got pygame {version}. {_REMEDY}")


require_community_edition(pygame)

Color = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""
Point = tuple[float, float]
"""x to the right and y downwards, in pixels."""
Frame = NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""


class Typeface(NamedTuple):
    """How letters are made from the font that pygame ships, so that no font of the system is needed."""

    bold: bool = False
    """True for thicker lines."""
    italic: bool = False
    """True for slanted letters."""
    stretch: float = 1.0
    """Factor of the width."""
    segments: bool = False
    """True for figures of seven segments."""


TYPEFACES: dict[str, Typeface] = {
    "plain": Typeface(),
    "bold": Typeface(bold=True),
    "narrow": Typeface(stretch=0.74),
    "italic": Typeface(italic=True),
    "segments": Typeface(bold=True, segments=True),
}
"""Every kind of letters by its name."""
_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
"""The segments that make each figure: a, b ... f clockwise from the top, g in the middle."""
_LEAST_VARIED_HEIGHT = 14
"""Lines of text below this height in pixels are plain: there are too few pixels for another shape of the letters."""
_LEAST_SHRUNK_HEIGHT = 8
"""Lines below this height are not shrunk from larger ones: strokes of less than a pixel would fade."""


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    """The font that pygame ships, so that no font of the system is needed."""
    return (resources.files(pygame) / pygame.font.get_default_font()).read_bytes()


@lru_cache(maxsize=128)
def _font(height_px: int, font: str = "plain") -> pygame.font.Font:
    """A font out of memory: of an open file, forked workers would move the place that the others read at."""
    pygame.font.init()
    # By this factor pygame makes the letters of its own font smaller.
    made = pygame.font.Font(BytesIO(_font_file()), max(1, int(height_px * 0.6875)))
    made.bold, made.italic = TYPEFACES[font].bold, TYPEFACES[font].italic
    return made


def _legible(font: str, height_px: float) -> str:
    """The typeface for a line of this height in the finished picture."""
    return font if height_px >= _LEAST_VARIED_HEIGHT else "plain"


def _written(text: str, height_px: int, color: Color, font: str) -> pygame.Surface:
    """A line of text on a transparent ground."""
    typeface = TYPEFACES[font]
    if typeface.segments:
        return _segment_line(text, height_px, color, font)
    line = _font(height_px, font).render(text, True, color)
    if typeface.stretch == 1:
        return line
    return pygame.transform.smoothscale(line, (round(line.get_width() * typeface.stretch), line.get_height()))


def _segment_line(text: str, height_px: int, color: Color, font: str) -> pygame.Surface:
    """A line of text with segment figures, as high as the others of the same font."""
    letters = _font(height_px, font)
    ink = letters.render("8", True, color).get_bounding_rect()
    parts = [
        _segment_figure(int(character), ink.height, letters.get_height(), ink.top, color)
        if character.isdigit()
        else letters.render(character, True, color)
        for character in text
    ]
    line = pygame.Surface((sum(part.get_width() for part in parts), letters.get_height()), pygame.SRCALPHA)
    line.fill((*color, 0))
    left = 0
    for part in parts:
        line.blit(part, (left, 0))
        left += part.get_width()
    return line


def _segment_figure(figure: int, ink_height: int, line_height: int, top: int, color: Color) -> pygame.Surface:
    """One figure on a transparent ground, drawn enlarged and shrunk."""
    enlargement = 4
    height, thick = ink_height * enlargement, 0.2 * ink_height * enlargement
    gap = 0.2 * height
    # The two bars of a 1 are not set off to the right, as a display would: a gap could be taken for a blank.
    width = thick if figure == 1 else 0.66 * height
    middle, half, slit = (height - thick) / 2, (height + thick) / 2, 0.12 * thick
    bars = {
        "a": (slit, 0, width - 2 * slit, thick),
        "b": (width - thick, slit, thick, half - 2 * slit),
        "c": (width - thick, middle + slit, thick, half - 2 * slit),
        "d": (slit, height - thick, width - 2 * slit, thick),
        "e": (0, middle + slit, thick, half - 2 * slit),
        "f": (0, slit, thick, half - 2 * slit),
        "g": (thick / 2, middle, width - thick, thick),
    }
    surface = pygame.Surface((round(width + gap), line_height * enlargement), pygame.SRCALPHA)
    surface.fill((*color, 0))
    for segment in _SEGMENTS[figure]:
        x, y, long, high = bars[segment]
        bar = pygame.Rect(*(round(edge) for edge in (x + gap / 2, y + top * enlargement, long, high)))
        pygame.draw.rect(surface, color, bar, border_radius=round(thick / 4))
    return pygame.transform.smoothscale(surface, (max(1, round((width + gap) / enlargement)), line_height))


@lru_cache(maxsize=512)
def _glyphs(text: str, color: Color, font: str) -> pygame.Surface:
    """A text in large letters, cut to its ink."""
    surface = _written(text, 256, color, font)
    return surface.subsurface(surface.get_bounding_rect()).copy()


class Canvas:
    """A picture that is drawn enlarged and shrunk at the end, which smooths every edge."""

    def __init__(self, width: int, height: int, color: Color, *, enlargement: int = 4, font: str = "plain") -> None:
        """Make a canvas of one colour.

        Args:
            width: Width of the finished picture in pixels.
            height: Height of the finished picture in pixels.
            color: Background.
            enlargement: How many times larger the picture is drawn.
            font: The letters; one of :data:`TYPEFACES`.
        """
        self._size = (width, height)
        self._font = font
        self._scale = enlargement
        self._surface = pygame.Surface((width * enlargement, height * enlargement))
        self._surface.fill(color)

    def box(self, left: float, top: float, width: float, height: float, color: Color, radius: float = 0) -> None:
        """Fill a rectangle with rounded corners.

        Args:
            left: Left edge in pixels.
            top: Upper edge in pixels.
            width: Width in pixels.
            height: Height in pixels.
            color: Fill colour.
            radius: Radius of the corners in pixels.
        """
        rectangle = pygame.Rect(*(round(edge * self._scale) for edge in (left, top, width, height)))
        pygame.draw.rect(self._surface, color, rectangle, border_radius=round(radius * self._scale))

    def circle(self, center: Point, radius: float, color: Color) -> None:
        """Fill a circle.

        Args:
            center: Centre in pixels.
            radius: Radius in pixels.
            color: Fill colour.
        """
        x, y = center
        pygame.draw.circle(self._surface, color, (x * self._scale, y * self._scale), radius * self._scale)

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon.

        Args:
            points: Corners in pixels.
            color: Fill colour.
        """
        pygame.draw.polygon(self._surface, color, [(x * self._scale, y * self._scale) for x, y in points])

    def letters(self, text: str, center: Point, width: float, height: float, color: Color) -> None:
        """Write a text so that its ink is exactly ``height`` high, narrowed if it would exceed ``width``.

        Args:
            text: What to write.
            center: Centre of the ink in pixels.
            width: Largest width in pixels.
            height: Height of the ink in pixels.
            color: Colour of the ink.
        """
        ink = _glyphs(text, color, self._font)
        ink_height = height * self._scale
        ink_width = min(width * self._scale, ink.get_width() * ink_height / ink.get_height())
        scaled = pygame.transform.smoothscale(ink, (max(1, round(ink_width)), max(1, round(ink_height))))
        middle = (round(center[0] * self._scale), round(center[1] * self._scale))
        self._surface.blit(scaled, scaled.get_rect(center=middle))

    def write(
        self, text: str, place: Point, height: float, width: float, color: Color, *, centered: bool = False
    ) -> None:
        """Write a line of text as a font sets it, in smaller letters if it would exceed ``width``.

        Args:
            text: What to write; no newline.
            place: Middle of the left edge of the line in pixels, or its centre.
            height: Height of the line in pixels, with the room above and below the letters.
            width: Largest width in pixels.
            color: Colour of the ink.
            centered: True takes ``place`` as the centre.
        """
        line = _written(text, round(height * self._scale), color, _legible(self._font, height))
        factor = min(1.0, width * self._scale / max(1, line.get_width()))
        line = pygame.transform.smoothscale(line, (round(line.get_width() * factor), round(line.get_height() * factor)))
        anchor = (round(place[0] * self._scale), round(place[1] * self._scale))
        self._surface.blit(line, line.get_rect(center=anchor) if centered else line.get_rect(midleft=anchor))

    def frame(self) -> Frame:
        """Shrink the drawing to its finished size.

        Returns:
            The picture, uint8 [H, W, 3].
        """
        return surface_frame(pygame.transform.smoothscale(self._surface, self._size))


def surface_frame(surface: pygame.Surface) -> Frame:
    """Copy a surface into an array.

    Args:
        surface: Any surface.

    Returns:
        The picture, uint8 [H, W, 3].
    """
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).transpose(1, 0, 2))


def turned_frame(
    drawing: Frame, size: tuple[int, int], scale: float, degrees: float, shift: Point, background: Color
) -> Frame:
    """Turn a drawing and put it into a picture, made smaller so that it fits.

    Args:
        drawing: uint8 [h, w, 3], larger than the picture, whose upper left pixel has the colour of the background.
        size: Width and height of the picture in pixels.
        scale: The largest size of the drawing, 1 for all of the picture; it is smaller if turning takes more room.
        degrees: How far it is turned, counterclockwise.
        shift: Where it lies in the free room to the right and downwards, each from -1 to 1; 0 is the middle.
        background: Colour of the rest.

    Returns:
        The picture, uint8 [H, W, 3].
    """
    # Rotating fills the corners with the colour of the upper left pixel.
    turned = pygame.transform.rotate(pygame.image.frombuffer(drawing.data, drawing.shape[1::-1], "RGB"), degrees)
    largest = min(
        scale * size[0] / drawing.shape[1],
        *(room / length for room, length in zip(size, turned.get_size(), strict=True)),
    )
    small = pygame.transform.smoothscale(turned, [max(1, int(length * largest)) for length in turned.get_size()])
    picture = pygame.Surface(size)
    picture.fill(background)
    free = [room - length for room, length in zip(size, small.get_size(), strict=True)]
    picture.blit(small, [round(room * (1 + part) / 2) for room, part in zip(free, shift, strict=True)])
    return surface_frame(picture)


def wrap_text(text: str, height_px: int, width_px: float) -> list[str]:
    """Break a text at blanks into lines that fit.

    Args:
        text: What is to be written.
        height_px: Height of a line in pixels, as :func:`line_frame` and :meth:`Canvas.write` take it.
        width_px: Largest width of a line in pixels.

    Returns:
        Lines in order; a word that is wider stands alone on its line.

    >>> wrap_text("The cards are 3, 3, 8 and 8.", 20, 100)
    ['The cards are', '3, 3, 8 and 8.']
    """
    lines, times = [""], _enlargement(height_px)
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(times * height_px).size(longer)[0] > times * width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def text_frame(text: str, height_px: int, color: Color, background: Color, font: str = "plain") -> Frame:
    """Draw one line of text.

    Args:
        text: What to write; no newline.
        height_px: Height of the line in pixels.
        color: Colour of the ink.
        background: Colour behind it.
        font: The letters; one of :data:`TYPEFACES`.

    Returns:
        The line, uint8 [height_px, W, 3], as wide as the text.
    """
    font = _legible(font, height_px)
    typeface = TYPEFACES[font]
    if typeface.stretch == 1 and not typeface.segments:
        # The font blends its edges with a background it knows a little more exactly than a later blit does.
        written = _font(height_px, font).render(text, True, color, background)
    else:
        written = _written(text, height_px, color, font)
    line = pygame.Surface((written.get_width(), height_px))
    line.fill(background)
    line.blit(written, (0, (height_px - written.get_height()) // 2))
    return surface_frame(line)


def line_frame(text: str, height_px: int, color: Color, background: Color, font: str = "plain") -> Frame:
    """Draw one line of words: larger and then shrunk, so that letters stand where the font wants them.

    A font puts letters at whole pixels. In small words that leaves gaps, and words run together.

    Args:
        text: What to write; no newline.
        height_px: Height of the line in pixels; below 8 it is drawn as :func:`text_frame` does.
        color: Colour of the ink.
        background: Colour behind it.
        font: The letters; one of :data:`TYPEFACES`.

    Returns:
        The line, uint8 [height_px, W, 3], as wide as the text.
    """
    times = _enlargement(height_px)
    large = text_frame(text, times * height_px, color, background, _legible(font, height_px))
    if times == 1:
        return large
    width = -(-large.shape[1] // times)
    wide = np.empty((len(large), times * width, 3), dtype=np.float32)
    wide[:] = background
    wide[:, : large.shape[1]] = large
    shrunk: Frame = np.rint(wide.reshape(height_px, times, width, times, 3).mean(axis=(1, 3))).astype(np.uint8)
    return shrunk


def _enlargement(height_px: int) -> int:
    """How much larger a line is drawn than it is shown."""
    return 4 if height_px >= _LEAST_SHRUNK_HEIGHT else 1


class Event(NamedTuple):
    """Something a person did in a window."""

    kind: str
    """``"quit"``, ``"key"`` or ``"click"``."""
    key: str = ""
    """The typed character, or ``"return"``, ``"escape"``, ``"backspace"``, ``"tab"``; for ``"key"`` only."""
    position: tuple[int, int] = (0, 0)
    """Where the mouse was, in pixels; for ``"click"`` only."""


class Window:
    """A window on the screen that shows frames and reports what a person does."""

    def __init__(self, title: str, width: int, height: int) -> None:
        """Open the window.

        Args:
            title: Text of the title bar.
            width: Width in pixels.
            height: Height in pixels.

        Raises:
            DisplayError: If there is no display; a driver named in ``SDL_VIDEODRIVER`` is taken as it is.
        """
        try:
            pygame.display.init()
        except pygame.error as error:
            raise DisplayError(_NO_DISPLAY) from error
        if pygame.display.get_driver() in _UNSEEN_DRIVERS and not os.environ.get("SDL_VIDEODRIVER"):
            pygame.display.quit()
            raise DisplayError(_NO_DISPLAY)
        self._surface = pygame.display.set_mode((width, height))
        pygame.display.set_caption(title)
        self._clock = pygame.time.Clock()

    def show(self, frame: Frame, fps: int) -> None:
        """Put a frame on the screen and wait so that at most ``fps`` frames appear a second.

        Args:
            frame: uint8 [H, W, 3], as large as the window.
            fps: Frames a second.
        """
        pygame.surfarray.blit_array(self._surface, frame.transpose(1, 0, 2))
        pygame.display.flip()
        # Without reading its events a window is reported as not responding by the desktop.
        pygame.event.pump()
        self._clock.tick(fps)

    def events(self) -> list[Event]:
        """Return what happened since the last call.

        Returns:
            Events in order; other kinds than quit, key and click are dropped.
        """
        happened = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                happened.append(Event("quit"))
            elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                happened.append(Event("click", position=(int(event.pos[0]), int(event.pos[1]))))
            elif event.type == pygame.KEYDOWN:
                name = pygame.key.name(event.key)
                named = name.removeprefix("keypad ") if name in _NAMED_KEYS else event.unicode
                happened.append(Event("key", key="return" if named == "enter" else named))
        return happened

    def close(self) -> None:
        """Close the window; closing twice is allowed."""
        pygame.display.quit()


# SDL falls back to these where it finds no display, and the program would wait for a person who sees nothing.
_UNSEEN_DRIVERS = frozenset({"offscreen", "dummy"})
_NO_DISPLAY = (
    "Expected a display to open a window on, found none. Commands take --terminal instead; in code pass "
    "render_mode='rgb_array' for frames. SDL_VIDEODRIVER=dummy opens a window that nobody sees."
)
_NAMED_KEYS = frozenset(
    {"return", "enter", "keypad enter", "escape", "backspace", "tab", "left", "right", "up", "down"}
)
