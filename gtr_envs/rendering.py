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


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    """The font that pygame ships, so that no font of the system is needed."""
    return (resources.files(pygame) / pygame.font.get_default_font()).read_bytes()


@lru_cache(maxsize=128)
def _font(height_px: int) -> pygame.font.Font:
    """A font out of memory: of an open file, forked workers would move the place that the others read at."""
    pygame.font.init()
    # By this factor pygame makes the letters of its own font smaller.
    return pygame.font.Font(BytesIO(_font_file()), max(1, int(height_px * 0.6875)))


@lru_cache(maxsize=512)
def _glyphs(text: str, color: Color) -> pygame.Surface:
    """A text in large letters, cut to its ink."""
    surface = _font(256).render(text, True, color)
    return surface.subsurface(surface.get_bounding_rect()).copy()


class Canvas:
    """A picture that is drawn enlarged and shrunk at the end, which smooths every edge."""

    def __init__(self, width: int, height: int, color: Color, *, enlargement: int = 4) -> None:
        """Make a canvas of one colour.

        Args:
            width: Width of the finished picture in pixels.
            height: Height of the finished picture in pixels.
            color: Background.
            enlargement: How many times larger the picture is drawn.
        """
        self._size = (width, height)
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
        ink = _glyphs(text, color)
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
        line = _font(round(height * self._scale)).render(text, True, color)
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


def wrap_text(text: str, height_px: int, width_px: float) -> list[str]:
    """Break a text at blanks into lines that fit.

    Args:
        text: What is to be written.
        height_px: Height of a line in pixels, as :meth:`Canvas.write` takes it.
        width_px: Largest width of a line in pixels.

    Returns:
        Lines in order; a word that is wider stands alone on its line.

    >>> wrap_text("The cards are 3, 3, 8 and 8.", 20, 100)
    ['The cards are', '3, 3, 8 and 8.']
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(height_px).size(longer)[0] > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def text_frame(text: str, height_px: int, color: Color, background: Color) -> Frame:
    """Draw one line of text.

    Args:
        text: What to write; no newline.
        height_px: Height of the line in pixels.
        color: Colour of the ink.
        background: Colour behind it.

    Returns:
        The line, uint8 [height_px, W, 3], as wide as the text.
    """
    written = _font(height_px).render(text, True, color, background)
    line = pygame.Surface((written.get_width(), height_px))
    line.fill(background)
    line.blit(written, (0, (height_px - written.get_height()) // 2))
    return surface_frame(line)


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
