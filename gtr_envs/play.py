"""Decides how a person plays: in a window with mouse and keyboard, or in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import gymnasium
import numpy as np

from gtr_envs.core import VisionTextEnv
from gtr_envs.rendering import Canvas, Color, Event, Frame, Window

PICTURE_SIZE = 560
PANEL_WIDTH = 340
MARGIN = 14
EDGE = 8
FPS = 30
PANEL_COLOR: Color = (31, 36, 42)
BUTTON_COLOR: Color = (66, 84, 104)
DISABLED_COLOR: Color = (44, 50, 57)
HINT_COLOR: Color = (190, 140, 30)
INK_COLOR: Color = (240, 242, 245)
FAINT_COLOR: Color = (120, 128, 136)
WON_COLOR: Color = (25, 120, 70)
LOST_COLOR: Color = (150, 40, 44)
COMMANDS = ("Hint", "New game", "Quit")
HELP = "Type an action and press Enter. Other words: hint, new, quit, help."


class Game:
    """One person's game: the environment, what it last said, and a line that tells what happened."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int | None = None) -> None:
        """Begin a first episode.

        Args:
            env: An environment whose innermost one is a :class:`gtr_envs.core.VisionTextEnv`.
            seed: Seed of the first episode; None for a different one every time.

        Raises:
            TypeError: If the actions of the environment have no names.
        """
        if not isinstance(env.unwrapped, VisionTextEnv):
            raise TypeError(f"expected an environment built on VisionTextEnv, whose actions have names, got {env!r}")
        self.env = env
        self.inner: VisionTextEnv = env.unwrapped
        self.new(seed)

    def new(self, seed: int | None = None) -> None:
        """Begin another episode.

        Args:
            seed: Seed of the episode; None goes on with the present generator.
        """
        self.observation, self.info = self.env.reset(seed=seed)
        self.message = "Your move."
        self.total, self.n_moves, self.hinted = 0.0, 0, ""

    @property
    def over(self) -> bool:
        """True when the episode has ended."""
        return not self.inner.is_running

    @property
    def won(self) -> bool:
        """True when the episode has ended with success."""
        return bool(self.info.get("success", False))

    def play(self, action: str) -> None:
        """Play an action by its name; anything else counts as an illegal action.

        Args:
            action: What the person said.
        """
        if self.over:
            self.message = "The game is over; begin a new one."
            return
        self.observation, reward, _, _, self.info = self.env.step(self.inner.action_from_text(action))
        self.total += float(reward)
        self.n_moves += 1
        self.hinted = ""
        judgement = "" if self.info["legal"] else " (not legal)"
        self.message = f"{action}{judgement}: reward {float(reward):+g}"

    def hint(self) -> None:
        """Ask the expert."""
        action = self.inner.expert_action()
        self.hinted = action or ""
        self.message = f"Hint: {action}" if action else "Hint: this cannot be won any more."

    def facts(self) -> list[str]:
        """Tell what the picture shows in words.

        Returns:
            One line for every plain entry of info, and the text of the observation.
        """
        hidden = ("legal_actions", "action_mask", "legal", "success", "solvable", "operator", "formula", "numbers")
        shown = {name: value for name, value in self.info.items() if name not in hidden and value is not None}
        lines = [f"{name}: {_said(value)}" for name, value in shown.items()]
        return [*lines, f"text: {self.observation['text']}"]

    def ending(self) -> str:
        """Sum the episode up.

        Returns:
            Won or lost, moves and return, in one line.
        """
        result = "You won!" if self.won else "Not solved."
        return f"{result} {self.n_moves} moves, return {self.total:+g}."


def play(
    env_id: str,
    *,
    terminal: bool = False,
    seed: int | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    **kwargs: Any,
) -> None:
    """Let a person play an environment until they quit.

    Args:
        env_id: A registered id.
        terminal: True reads lines from a terminal instead of opening a window.
        seed: Seed of the first episode; None for a different one every time.
        stdin: Where the terminal mode reads; None for the standard input.
        stdout: Where the terminal mode writes; None for the standard output.
        **kwargs: Arguments of the environment's constructor; the render mode is always ``"rgb_array"``.

    Raises:
        TypeError: If the actions of the environment have no names.
    """
    env = gymnasium.make(env_id, **({"render_size": PICTURE_SIZE} | kwargs | {"render_mode": "rgb_array"}))
    try:
        game = Game(env, seed)
        if terminal:
            _play_in_terminal(game, stdin or sys.stdin, stdout or sys.stdout)
        else:
            _play_in_window(game, env_id)
    finally:
        env.close()


def _said(value: object) -> str:
    """Write a value of info for a person."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


# --- terminal -------------------------------------------------------------------------------------------------------


def _play_in_terminal(game: Game, stdin: TextIO, stdout: TextIO) -> None:
    """Read words until ``quit`` or the end of the input."""

    def say(*lines: str) -> None:
        stdout.write("\n".join(lines) + "\n")
        stdout.flush()

    say(game.inner.instructions, HELP)
    while True:
        say("", *game.facts(), *_choices(game))
        stdout.write("> ")
        stdout.flush()
        line = stdin.readline()
        word = line.strip()
        if not line or word == "quit":
            say("Goodbye.")
            return
        if word == "help":
            say(game.inner.instructions, HELP)
        elif word == "new" or (game.over and not word):
            game.new()
        elif word == "hint":
            game.hint()
            say(game.message)
        elif word:
            game.play(word)
            say(game.message)


def _choices(game: Game) -> list[str]:
    """What can be said now."""
    if game.over:
        return [game.ending(), "Press Enter for a new game, or type quit."]
    return ["actions: " + "  ".join(game.info["legal_actions"])]


# --- window ---------------------------------------------------------------------------------------------------------


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
        legal: Those that are legal now.
        left: Left edge of the panel in pixels.
        height: Height of the window in pixels.

    Returns:
        Buttons inside the panel.
    """
    n_columns = 4 if max(map(len, actions)) <= 3 else 1
    n_rows = -(-len(actions) // n_columns)
    top, bottom, gap = 128.0, height - 64.0, 6.0
    width = (PANEL_WIDTH - 2 * MARGIN - gap * (n_columns - 1)) / n_columns
    row = min(52.0, (bottom - top) / n_rows)
    buttons = [
        Button(
            name,
            left + MARGIN + (place % n_columns) * (width + gap),
            top + (place // n_columns) * row,
            width,
            row - gap,
            enabled=name in legal,
        )
        for place, name in enumerate(actions)
    ]
    wide = (PANEL_WIDTH - 2 * MARGIN - gap * (len(COMMANDS) - 1)) / len(COMMANDS)
    return buttons + [
        Button(name, left + MARGIN + place * (wide + gap), height - 52, wide, 38, enabled=True)
        for place, name in enumerate(COMMANDS)
    ]


def complete_typing(typed: str, actions: Sequence[str]) -> tuple[list[str], str]:
    """Find the actions that typed characters already name without doubt.

    Args:
        typed: Characters since the last action, e.g. ``"1+"``.
        actions: Names of all actions.

    Returns:
        Actions to play now, and the characters that still wait. A name that begins another one waits for a further
        character or for Enter.

    >>> complete_typing("1", ["1", "10", "+"]), complete_typing("1+", ["1", "10", "+"])
    (([], '1'), (['1', '+'], ''))
    """
    played = []
    while typed:
        longer = [name for name in actions if name.startswith(typed) and name != typed]
        if longer or not any(typed.startswith(name) for name in actions):
            break
        longest = max((name for name in actions if typed.startswith(name)), key=len)
        played.append(longest)
        typed = typed[len(longest) :]
    return played, typed


class _Screen:
    """What the window shows, and what clicks and keys do."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.typed = ""
        self.open = True
        self.height = game.inner.render_size
        self.width = game.inner.render_size + PANEL_WIDTH

    def buttons(self) -> list[Button]:
        """Buttons as they are now."""
        legal = [] if self.game.over else self.game.info["legal_actions"]
        return lay_out(self.game.inner.action_tokens, legal, self.game.inner.render_size, self.height)

    def handle(self, event: Event) -> None:
        """React to a click or a key."""
        if event.kind == "quit" or event.key == "escape":
            self.open = False
        elif event.kind == "click":
            self._click(next((b.label for b in self.buttons() if b.holds(event.position)), ""))
        else:
            self._press(event.key)

    def _click(self, label: str) -> None:
        commands: Mapping[str, Any] = {"Hint": self.game.hint, "New game": self.game.new, "Quit": self._quit}
        self.typed = ""
        if label in commands:
            commands[label]()
        elif label:
            self.game.play(label)

    def _press(self, key: str) -> None:
        if key == "tab":
            self.game.hint()
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "return" and self.game.over:
            self.game.new()
        elif key == "return" and self.typed:
            self.game.play(self.typed)
            self.typed = ""
        elif len(key) == 1 and key.isprintable():
            played, self.typed = complete_typing(self.typed + key, self.game.inner.action_tokens)
            for action in played:
                self.game.play(action)

    def _quit(self) -> None:
        self.open = False

    def frame(self) -> Frame:
        """Draw the whole window; the end of an episode colours the edge of the picture and the message."""
        picture: Any = self.game.env.render()
        if self.game.over:
            for edge in (picture[:EDGE], picture[-EDGE:], picture[:, :EDGE], picture[:, -EDGE:]):
                edge[...] = self._result_color()
        return np.concatenate([picture, self._panel()], axis=1)

    def _result_color(self) -> Color:
        return WON_COLOR if self.game.won else LOST_COLOR

    def _panel(self) -> Frame:
        """Draw title, message, typed characters and buttons."""
        canvas = Canvas(PANEL_WIDTH, self.height, PANEL_COLOR, enlargement=2)
        room = PANEL_WIDTH - 2 * MARGIN
        spec = self.game.env.spec
        canvas.write(spec.name if spec else type(self.game.inner).__name__, (MARGIN, 28), 34, room, INK_COLOR)
        lines = (self.game.message, f"> {self.typed}_")
        if self.game.over:
            lines = (self.game.ending(), "Enter: new game    Esc: quit")
            canvas.box(0, 48, PANEL_WIDTH, 68, self._result_color())
        for line, middle in zip(lines, (67, 97), strict=True):
            canvas.write(line, (MARGIN, middle), 26, room, INK_COLOR)
        for button in self.buttons():
            self._draw_button(canvas, button)
        return canvas.frame()

    def _draw_button(self, canvas: Canvas, button: Button) -> None:
        """Draw one button; the hinted one stands out."""
        color, ink = (BUTTON_COLOR, INK_COLOR) if button.enabled else (DISABLED_COLOR, FAINT_COLOR)
        if button.label == self.game.hinted:
            color = HINT_COLOR
        left = button.left - self.game.inner.render_size
        canvas.box(left, button.top, button.width, button.height, color, radius=6)
        center = (left + button.width / 2, button.top + button.height / 2)
        canvas.write(button.label, center, min(32, button.height), button.width * 0.9, ink, centered=True)


def _play_in_window(game: Game, title: str) -> None:
    """Show the game and react until the person quits."""
    screen = _Screen(game)
    window = Window(title, screen.width, screen.height)
    frame = screen.frame()
    while screen.open:
        for event in window.events():
            screen.handle(event)
            frame = screen.frame()
        window.show(frame, FPS)
    window.close()
