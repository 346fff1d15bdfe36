"""A person plays, in a terminal and in a window."""

from __future__ import annotations

from io import StringIO
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest

import gtr_envs.play as play_module
from gtr_envs.play import COMMANDS, PANEL_WIDTH, Game, _Screen, complete_typing, lay_out, play
from gtr_envs.registration import ENVS
from gtr_envs.rendering import Event, Window


def said(words: str, **kwargs: Any) -> str:
    """Everything a terminal game of Points24 writes when these lines are typed."""
    out = StringIO()
    play("Points24-v0", terminal=True, stdin=StringIO(words.replace(" ", "\n") + "\n"), stdout=out, **kwargs)
    return out.getvalue()


def test_a_terminal_game_can_be_won() -> None:
    written = said("2 + 3 * 4 + 10 = quit", seed=3)
    assert "cards: CJ S2 S3 H4" in written
    assert "text: 2+3*4+10\nYou won! 8 moves, return +10." in written
    assert written.endswith("Goodbye.\n")


def test_a_terminal_game_tells_instructions_hints_and_illegal_moves() -> None:
    written = said("help hint nonsense = quit", seed=3)
    assert written.count("has the value 24") == 2
    assert "Hint: 2" in written
    assert "nonsense (not legal): reward -1" in written
    assert "Not solved. 2 moves, return -2." in written


def test_a_terminal_game_goes_on_after_the_end_and_ends_with_the_input() -> None:
    written = said("= 5 new", seed=3)
    assert "The game is over; begin a new one." in written
    assert written.count("actions: ") == 2


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_can_be_played_in_a_terminal(env_id: str) -> None:
    out = StringIO()
    play(env_id, terminal=True, seed=0, stdin=StringIO("hint\n"), stdout=out)
    assert "Hint: " in out.getvalue()


def test_an_environment_without_names_is_refused() -> None:
    with pytest.raises(TypeError, match="VisionTextEnv"):
        Game(gym.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("typed", "played", "waiting"),
    [
        ("1", [], "1"),
        ("10", ["10"], ""),
        ("1+", ["1", "+"], ""),
        ("5", ["5"], ""),
        ("x", [], "x"),
        ("11", ["1"], "1"),
        ("", [], ""),
    ],
)
def test_typing_plays_what_is_certain(typed: str, played: list[str], waiting: str) -> None:
    actions = [*map(str, range(1, 11)), "+", "="]
    assert complete_typing(typed, actions) == (played, waiting)


def test_buttons_lie_inside_the_panel_and_apart() -> None:
    for actions in (["1", "2", "+"] * 6, [f"go to shelf {n}" for n in range(30)]):
        buttons = lay_out(actions, actions[:1], 560, 560)
        assert [button.enabled for button in buttons[: len(actions)]] == [name == actions[0] for name in actions]
        for button in buttons:
            assert button.left >= 560
            assert button.left + button.width <= 560 + PANEL_WIDTH
            assert button.top + button.height <= 560
            middle = (int(button.left + button.width / 2), int(button.top + button.height / 2))
            assert [other for other in buttons if other.holds(middle)] == [button]


@pytest.fixture
def screen() -> _Screen:
    """A window's content for the hand 6 6 6 6."""
    game = Game(gym.make("Points24-v0", render_mode="rgb_array", render_size=300), seed=0)
    game.observation, game.info = game.env.reset(options={"numbers": [6, 6, 6, 6]})
    return _Screen(game)


def press(screen: _Screen, *keys: str) -> None:
    """Press keys."""
    for key in keys:
        screen.handle(Event("key", key=key))


def click(screen: _Screen, label: str) -> None:
    """Click a button."""
    button = next(button for button in screen.buttons() if button.label == label)
    screen.handle(Event("click", position=(int(button.left) + 2, int(button.top) + 2)))


def test_keys_play(screen: _Screen) -> None:
    press(screen, *"6+6+6+6=")
    assert screen.game.won
    assert screen.game.ending() == "You won! 8 moves, return +10."
    press(screen, "return")
    assert not screen.game.over


def test_enter_plays_and_backspace_takes_back_what_waits(screen: _Screen) -> None:
    press(screen, "x")
    press(screen, "backspace")
    assert screen.typed == ""
    press(screen, "1", "return")
    assert screen.game.message == "1 (not legal): reward -1"
    press(screen, "return")
    assert screen.game.n_moves == 1


def test_buttons_play(screen: _Screen) -> None:
    for label in "6*6":
        click(screen, label)
    assert screen.game.observation["text"] == "6*6"
    click(screen, "Hint")
    assert screen.game.hinted == "-"
    click(screen, "New game")
    assert screen.game.observation["text"] == ""
    screen.handle(Event("click", position=(5, 5)))
    assert screen.game.n_moves == 0
    click(screen, "Quit")
    assert not screen.open


def test_tab_hints_and_says_when_all_is_lost(screen: _Screen) -> None:
    press(screen, "tab")
    assert screen.game.message == "Hint: 6"
    press(screen, *"6+6+6-6", "tab")
    assert screen.game.message == "Hint: this cannot be won any more."


@pytest.mark.parametrize("event", [Event("quit"), Event("key", key="escape")])
def test_the_window_can_be_left(screen: _Screen, event: Event) -> None:
    screen.handle(event)
    assert not screen.open


def test_the_screen_shows_picture_hint_and_ending(screen: _Screen) -> None:
    begin = screen.frame()
    assert begin.shape == (300, 300 + PANEL_WIDTH, 3)
    assert np.array_equal(begin[:, :300], screen.game.env.render())  # type: ignore[arg-type]
    press(screen, "tab")
    hinted = screen.frame()
    assert (hinted != begin)[:, 300:].any()
    press(screen, "=")
    assert (screen.frame()[0, 0] == play_module.LOST_COLOR).all()
    assert set(COMMANDS) <= {button.label for button in screen.buttons()}


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_can_be_played_in_a_window(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    show = Window.show

    def show_and_quit(window: Window, frame: Any, fps: int) -> None:
        show(window, frame, fps)
        shown.append(frame)
        pygame.event.post(
            pygame.event.Event(pygame.QUIT if len(shown) > 1 else pygame.KEYDOWN, key=pygame.K_TAB, unicode="\t")
        )

    monkeypatch.setattr(Window, "show", show_and_quit)
    play(env_id, seed=3, render_size=300)
    assert len(shown) >= 2
    assert (shown[0] != shown[1]).any()
    assert not pygame.display.get_init()
