"""Playing ALFWorld: many commands, other ones in every state, in a list that typing narrows down."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("textworld")

from gtr_envs.play.game import Game
from gtr_envs.play.terminal import play_in_terminal
from gtr_envs.play.window import COMMANDS, PANEL_WIDTH, Screen
from gtr_envs.rendering import Event

pytestmark = pytest.mark.alfworld
KITCHEN = "embedded/train/pick_cool_then_place_in_recep/1"


def new_game(**kwargs: Any) -> Game:
    game = Game(gym.make("ALFWorld-v0", data="embedded", **kwargs), 0)
    game.observation, game.info = game.env.reset(options={"game": KITCHEN})
    return game


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen(new_game(render_mode="rgb_array"))
    yield made
    made.game.env.close()


def type_in(screen: Screen, text: str) -> None:
    for key in text:
        screen.handle(Event("key", key))


def shown(screen: Screen) -> list[str]:
    return [button.label for button in screen.buttons() if button.label not in COMMANDS]


def test_a_list_shows_what_there_is_room_for_and_typing_narrows_it_down(screen: Screen) -> None:
    legal = screen.game.legal
    assert shown(screen) == legal[: len(shown(screen))]
    assert 8 <= len(shown(screen)) < len(legal)
    type_in(screen, "FRIDGE")
    assert shown(screen) == [name for name in legal if "fridge" in name]
    screen.handle(Event("key", "backspace"))
    assert screen.typed == "FRIDG"
    for button in screen.buttons():
        assert screen.height <= button.left
        assert button.left + button.width <= screen.height + PANEL_WIDTH
        assert button.top + button.height <= screen.height


def test_enter_plays_what_was_meant(screen: Screen) -> None:
    type_in(screen, "cabinet")
    screen.handle(Event("key", "return"))
    assert "actions have cabinet in them" in screen.game.message
    assert screen.game.total == 0
    type_in(screen, " 1")
    screen.handle(Event("key", "return"))
    assert "actions have cabinet 1 in them" in screen.game.message  # 10, 11 and others too
    for _ in range(len("cabinet 1")):
        screen.handle(Event("key", "backspace"))
    type_in(screen, "go to cabinet 1")
    screen.handle(Event("key", "return"))
    assert screen.game.message == "You played go to cabinet 1."
    type_in(screen, "dance")
    assert "No action has dance in it" in screen.game.message
    screen.handle(Event("key", "return"))
    assert screen.game.message == "dance is not legal here. Reward -1."


def test_a_household_task_can_be_done_by_mouse(screen: Screen) -> None:
    while not screen.game.over:
        wanted = screen.game.inner.expert_action()
        type_in(screen, wanted)
        button = next(button for button in screen.buttons() if button.label == wanted)
        screen.handle(Event("click", position=(int(button.left) + 3, int(button.top) + 3)))
        assert not screen.typed
        assert screen.frame().shape == (screen.height, screen.width, 3)
    assert screen.game.result == "win"


def test_a_household_task_can_be_done_in_a_terminal() -> None:
    game, commands = new_game(observe="text"), []
    other = new_game(observe="text")
    while not other.over:
        commands.append(other.inner.expert_action())
        other.play(commands[-1])
    out = io.StringIO()
    play_in_terminal(game, io.StringIO("\n".join(["hint", *commands, "quit"])), out)
    assert f"Hint: {commands[0]}" in out.getvalue()
    assert "You won" in out.getvalue()
    game.env.close()
    other.env.close()
