"""Decides what a person sees in a window beside the picture, and what clicks and keys do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gtr_envs.play.game import NO_UNDO, Game
from gtr_envs.play.typed import complete_typing
from gtr_envs.rendering import Canvas, Color, Event, Frame, Window, wrap_text

LEAST_HEIGHT = 480
"""Smaller pictures are enlarged by a whole number until they are as high, in pixels: the panel needs the room."""
PANEL_WIDTH = 340
MARGIN = 14
EDGE = 5
TITLE_MIDDLE, WORDS_TOP, TYPED_MIDDLE, BUTTONS_TOP = 28, 50, 214, 232
BUTTONS_BOTTOM, COMMANDS_TOP, KEYS_MIDDLE = 74, 66, 12
"""Places of the lower parts of the panel, in pixels from its lower edge."""
LETTERS = (26, 24, 22, 20, 18, 16)
"""Heights of the lines of a message in pixels; the first at which it fits is taken."""
ACTION_LETTERS, COMMAND_LETTERS = 32, 25
MOST_BUTTONS = 24
"""Games with more actions show a list of the legal ones instead, which typing narrows down."""
ROW = 24
"""Height of a row of that list in pixels."""
FPS = 30
PANEL_COLOR: Color = (31, 36, 42)
BUTTON_COLOR: Color = (66, 84, 104)
DISABLED_COLOR: Color = (44, 50, 57)
HINT_COLOR: Color = (190, 140, 30)
INK_COLOR: Color = (240, 242, 245)
FAINT_COLOR: Color = (150, 158, 166)
RESULT_COLORS: Mapping[str, Color] = {"win": (25, 120, 70), "draw": (132, 98, 20), "loss": (150, 40, 44)}
COMMANDS = ("Hint", "New game", "Quit")
KEYS = "Click or type.   Tab: hint   Esc: quit   No undo."
UNDO_KEY = "\x1a"
"""What Ctrl-Z types."""


class Button(NamedTuple):
    """A place in the panel that can be clicked."""

    label: str
    """The name of an action, or one of the commands."""
    left: float
    """Left edge in pixels of the window."""
    top: float
    """Upper edge in pixels."""
    width: float
    """Width in pixels."""
    height: float
    """Height in pixels."""
    enabled: bool
    """False is shown pale; a click on it is still played, since illegal moves are part of the game."""

    def holds(self, position: tuple[int, int]) -> bool:
        """Say whether a point is inside.

        Args:
            position: Pixels of the window.

        Returns:
            True inside.
        """
        x, y = position
        return self.left <= x < self.left + self.width and self.top <= y < self.top + self.height


def lay_out(actions: Sequence[str], legal: Sequence[str], left: float, height: float) -> list[Button]:
    """Place a button for every action, and the commands below.

    Args:
        actions: Names of the actions in index order.
        legal: Those that are legal now; none when the game is over.
        left: Left edge of the panel in pixels.
        height: Height of the window in pixels.

    Returns:
        Buttons inside the panel.
    """
    n_columns = 4 if max(map(len, actions)) <= 3 and len(actions) > 4 else 1
    n_rows = -(-len(actions) // n_columns)
    top, bottom, gap = float(BUTTONS_TOP), height - BUTTONS_BOTTOM, 6.0
    width = (PANEL_WIDTH - 2 * MARGIN - gap * (n_columns - 1)) / n_columns
    row = min(52.0, (bottom - top) / n_rows)
    buttons = [
        Button(
            name,
            left + MARGIN + (place % n_columns) * (width + gap),
            top + (place // n_columns) * row,
            width,
            row - min(gap, row / 4),
            enabled=name in legal,
        )
        for place, name in enumerate(actions)
    ]
    wide = (PANEL_WIDTH - 2 * MARGIN - gap * (len(COMMANDS) - 1)) / len(COMMANDS)
    return buttons + [
        Button(name, left + MARGIN + place * (wide + gap), height - COMMANDS_TOP, wide, 38, enabled=able)
        for place, (name, able) in enumerate(zip(COMMANDS, (bool(legal), True, True), strict=True))
    ]


def lay_out_list(names: Sequence[str], left: float, height: float) -> tuple[list[Button], int]:
    """Place the first of many actions in rows, and the commands below.

    Args:
        names: Legal actions that what was typed is a part of.
        left: Left edge of the panel in pixels.
        height: Height of the window in pixels.

    Returns:
        Buttons inside the panel, and how many actions there was no room for.
    """
    room = int((height - BUTTONS_BOTTOM - BUTTONS_TOP) // ROW)
    # Where some are left out, the last row says so.
    shown = names if len(names) <= room else names[: room - 1]
    rows = [
        Button(name, left + MARGIN, BUTTONS_TOP + place * ROW, PANEL_WIDTH - 2 * MARGIN, ROW - 3, enabled=True)
        for place, name in enumerate(shown)
    ]
    commands = lay_out(COMMANDS[:1], names or COMMANDS[:1], left, height)[1:]
    return rows + commands, len(names) - len(shown)


class Screen:
    """What the window shows, and what clicks and keys do."""

    def __init__(self, game: Game) -> None:
        """Look at the first picture, whose size decides that of the window.

        Args:
            game: The game; its environment renders frames.
        """
        self.game = game
        self.typed = ""
        self.open = True
        side = len(self._picture(1))
        self.enlargement = max(1, -(-LEAST_HEIGHT // side))
        self.height = side * self.enlargement
        self.width = self.height + PANEL_WIDTH

    def buttons(self) -> list[Button]:
        """Return the buttons as they are now."""
        if self._lists:
            return lay_out_list(self._found(), self.height, self.height)[0]
        return lay_out(self.game.actions, self.game.legal, self.height, self.height)

    @property
    def _lists(self) -> bool:
        return len(self.game.actions) > MOST_BUTTONS

    def _found(self) -> list[str]:
        """Legal actions that what was typed is a part of."""
        return [name for name in self.game.legal if self.typed.lower() in name]

    def handle(self, event: Event) -> None:
        """React to a click or a key.

        Args:
            event: What the person did.
        """
        if event.kind == "quit" or event.key == "escape":
            self.open = False
        elif event.kind == "click":
            self._click(next((b.label for b in self.buttons() if b.holds(event.position)), ""))
        else:
            self._press(event.key)

    def _click(self, label: str) -> None:
        commands: Mapping[str, Callable[[], None]] = {
            "Hint": self.game.hint,
            "New game": self.game.new,
            "Quit": self._quit,
        }
        self.typed = ""
        if label in commands:
            commands[label]()
        elif label:
            self.game.play(label)

    def _press(self, key: str) -> None:
        if key == "tab":
            self.game.hint()
        elif key == UNDO_KEY:
            self.game.message = NO_UNDO
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "return" and self.game.over:
            self.game.new()
        elif key == "return" and self.typed:
            self._enter()
        elif len(key) == 1 and key.isprintable() and not self.game.over:
            self._type(key)

    def _type(self, key: str) -> None:
        """Take a character; where actions are not listed, what is certain is played at once."""
        if self._lists:
            self.typed += key
            if not self._found():
                self.game.message = f"No action has {self.typed} in it. Backspace deletes it, Enter plays it."
            return
        played, self.typed = complete_typing(self.typed + key, self.game.actions)
        for action in played:
            self.game.play(action)
        if not any(name.startswith(self.typed) for name in self.game.actions):
            self.game.message = f"No action begins with {self.typed}. Backspace deletes it, Enter plays it."

    def _enter(self) -> None:
        """Play what was typed; a part of the name of one action is enough where they are listed."""
        found = self._found() if self._lists else []
        if len(found) > 1 and self.typed.lower() not in found:
            self.game.message = f"{len(found)} actions have {self.typed} in them: type more, or click one."
            return
        self.game.play(found[0] if len(found) == 1 else self.typed)
        self.typed = ""

    def _quit(self) -> None:
        self.open = False

    def frame(self) -> Frame:
        """Draw the whole window; the end of an episode colours the edge of the picture and the message.

        Returns:
            uint8 [height, width, 3].
        """
        picture = self._picture(self.enlargement)
        if self.game.over:
            for edge in (picture[:EDGE], picture[-EDGE:], picture[:, :EDGE], picture[:, -EDGE:]):
                edge[...] = RESULT_COLORS[self.game.result]
        return np.concatenate([picture, self._panel()], axis=1)

    def _picture(self, enlargement: int) -> Frame:
        rendered: Any = self.game.env.render()
        return np.asarray(rendered).repeat(enlargement, axis=0).repeat(enlargement, axis=1)

    def _panel(self) -> Frame:
        """Draw title, message, typed characters and buttons."""
        canvas = Canvas(PANEL_WIDTH, self.height, PANEL_COLOR, enlargement=2)
        room = PANEL_WIDTH - 2 * MARGIN
        spec = self.game.env.spec
        canvas.write(spec.id if spec else type(self.game.inner).__name__, (MARGIN, TITLE_MIDDLE), 34, room, INK_COLOR)
        if self.game.over:
            self._write_summary(canvas)
        else:
            _write_lines(canvas, self.game.message.splitlines(), WORDS_TOP, TYPED_MIDDLE - 12)
            canvas.write(f"> {self.typed}_", (MARGIN, TYPED_MIDDLE), 26, room, INK_COLOR)
        for button in self.buttons():
            self._draw_button(canvas, button)
        hidden = lay_out_list(self._found(), self.height, self.height)[1] if self._lists else 0
        if hidden:
            middle = self.height - BUTTONS_BOTTOM - ROW / 2
            canvas.write(f"{hidden} more: type a part of one", (MARGIN, middle), 20, room, FAINT_COLOR)
        canvas.write(KEYS, (PANEL_WIDTH / 2, self.height - KEYS_MIDDLE), 20, room, FAINT_COLOR, centered=True)
        return canvas.frame()

    def _write_summary(self, canvas: Canvas) -> None:
        """Draw how the episode has ended, where message and typed characters were."""
        headline, *lines = self.game.summary()
        canvas.box(0, WORDS_TOP - 4, PANEL_WIDTH, BUTTONS_TOP - WORDS_TOP - 4, RESULT_COLORS[self.game.result])
        canvas.write(headline, (MARGIN, WORDS_TOP + 18), 40, PANEL_WIDTH - 2 * MARGIN, INK_COLOR)
        _write_lines(canvas, [*lines, "Press Enter for a new game."], WORDS_TOP + 38, BUTTONS_TOP - 14)

    def _draw_button(self, canvas: Canvas, button: Button) -> None:
        """Draw one button; the hinted one stands out."""
        color, ink = (BUTTON_COLOR, INK_COLOR) if button.enabled else (DISABLED_COLOR, FAINT_COLOR)
        if button.label == self.game.hinted:
            color = HINT_COLOR
        left = button.left - self.height
        canvas.box(left, button.top, button.width, button.height, color, radius=6)
        center = (left + button.width / 2, button.top + button.height / 2)
        largest = COMMAND_LETTERS if button.label in COMMANDS else ACTION_LETTERS
        canvas.write(button.label, center, min(largest, button.height), button.width * 0.9, ink, centered=True)


def _write_lines(canvas: Canvas, paragraphs: Sequence[str], top: float, bottom: float) -> None:
    """Write paragraphs one below the other, in the largest letters in which they fit."""
    room = PANEL_WIDTH - 2 * MARGIN
    for height in LETTERS:
        lines = [line for paragraph in paragraphs for line in wrap_text(paragraph, height, room)]
        if len(lines) * height <= bottom - top:
            break
    for place, line in enumerate(lines):
        canvas.write(line, (MARGIN, top + (place + 0.5) * height), height, room, INK_COLOR)


def play_in_window(game: Game, title: str) -> None:
    """Show the game and react until the person quits.

    Args:
        game: The game; its environment renders frames.
        title: Text of the title bar.

    Raises:
        DisplayError: If there is no display.
    """
    screen = Screen(game)
    window = Window(title, screen.width, screen.height)
    try:
        frame = screen.frame()
        while screen.open:
            for event in window.events():
                screen.handle(event)
                frame = screen.frame()
            window.show(frame, FPS)
    finally:
        window.close()
