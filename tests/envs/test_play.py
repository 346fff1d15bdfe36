"""A person plays, in a terminal and in a window."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest

from gtr_envs.errors import DisplayError, OptionError, PlayError, UnknownNameError
from gtr_envs.play import Game, play
from gtr_envs.play import window as window_module
from gtr_envs.play.game import NO_UNDO
from gtr_envs.play.typed import complete_typing, split_actions
from gtr_envs.play.window import COMMANDS, PANEL_WIDTH, RESULT_COLORS, UNDO_KEY, Screen, lay_out
from gtr_envs.registration import COMPAT_ENVS, ENVS
from gtr_envs.rendering import Event, Window, wrap_text

HAND = {"numbers": [3, 3, 8, 8]}
PUSH = {"cards": {"dealer": ["SK", "HQ"], "player": ["CK", "DJ"]}}
EASY: dict[str, dict[str, Any]] = {"Points24Duel-v0": {"opponent": 0.0}}
"""Arguments with which the solver wins where it could also be unlucky."""


class Dealt(gym.Wrapper[Any, Any, Any, Any]):
    """Deals the same hand in every game."""

    def __init__(self, env: gym.Env[Any, Any], options: dict[str, Any]) -> None:
        super().__init__(env)
        self.options = options

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=0, options=self.options)


def new_game(env_id: str = "Points24-v0", options: dict[str, Any] | None = None, **kwargs: Any) -> Game:
    """A game, on a given hand if there are options."""
    env = gym.make(env_id, render_mode="rgb_array", **kwargs)
    return Game(Dealt(env, options) if options else env, seed=0)


def played(game: Game, *actions: str) -> Game:
    """Play actions by name."""
    for action in actions:
        game.play(action)
    return game


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_win_is_told_with_moves_return_value_and_score() -> None:
    game = played(new_game(options=HAND), *"8/(3-8/3)=")
    assert game.summary() == ["You won!", "10 moves, return +10.", "Formula value 24.", "Won 1 of 1 game."]


def test_a_loss_tells_a_way_to_win() -> None:
    game = played(new_game(options=HAND), *"3+3=")
    assert game.summary()[0] == "You lost."
    assert game.lesson() == "A way to win: 8/(3-8/3)="


def test_a_hand_that_cannot_be_won_is_called_so() -> None:
    game = new_game(options={"numbers": [1, 1, 1, 1]})
    game.hint()
    assert "this hand cannot be won.\nThe cards are 1, 1, 1 and 1." in game.message
    assert played(game, "=").lesson() == "Nobody could have won this hand."


def test_a_push_is_a_draw_that_could_not_be_bettered() -> None:
    game = played(new_game("VisualBlackjack-v0", PUSH), "stand")
    assert game.summary() == [
        "A draw.",
        "1 move, return +0.",
        "Player sum 20, dealer sum 20.",
        "No move was better than yours.",
        "Won 0 of 1 game, 1 draw.",
    ]


def test_the_first_move_that_the_solver_would_not_have_played_is_named() -> None:
    hand = {"cards": {"player": ["CK", "DJ"]}}
    game = new_game("VisualBlackjack-v0", hand)
    while not game.over:
        game.play("hit")
    assert game.lesson() == "Move 1: stand was better than hit."
    astray = played(new_game("NumberLine-v0", {"current": 1, "target": 3}), "+", *"---------")
    assert astray.lesson() == "Move 2: + was better than -."


def test_a_duel_ends_with_a_win_a_draw_or_a_loss() -> None:
    results = [
        played(new_game("Points24Duel-v0", HAND, opponent=strength), *actions).summary()[0]
        for strength, actions in ((0.0, "8/(3-8/3)="), (1.0, "8/(3-8/3)="), (1.0, "="))
    ]
    assert results == ["You won!", "A draw.", "You lost."]


def test_the_score_counts_finished_games_only() -> None:
    game = played(new_game(options=HAND), "=")
    game.new()
    assert game.message == "Your move.\nWon 0 of 1 game."
    game.play("8")
    game.new()
    played(game, *"8/(3-8/3)=")
    assert game.score == "Won 1 of 2 games."


def test_a_hint_names_the_next_token_and_its_reasons() -> None:
    game = played(new_game(options=HAND), "8", "/")
    game.hint()
    assert game.hinted == "("
    assert game.message == (
        "Hint: (\nThe cards are 3, 3, 8 and 8. The formula so far is 8/. 8/(3-8/3) is 24, so I append (."
    )
    played(game, *"(3-8/3)=")
    assert "10 moves, 1 hint, " in game.summary()[1]
    game.hint()
    assert game.message == "The game is over; begin a new one."


def test_a_dead_end_is_told_with_its_reason() -> None:
    game = played(new_game(options=HAND), *"3*8+3")
    game.hint()
    assert game.message.startswith("Hint: this cannot be won any more.\nThe cards are")
    assert game.message.endswith(NO_UNDO)
    game = played(new_game(options=HAND, max_tokens=9), "8", "1")
    game.hint()
    assert "Too few moves are left." in game.message


def test_the_opponent_is_no_secret_in_a_hint_of_the_duel() -> None:
    game = played(new_game("Points24Duel-v0", HAND, opponent=1.0), "8")
    game.hint()
    assert game.message.startswith("Hint: /\nThe cards are 3, 3, 8 and 8. The formula so far is 8.")


def test_an_environment_without_names_is_refused() -> None:
    with pytest.raises(PlayError, match=r"whose actions have names.*CartPole"):
        play("CartPole-v1", terminal=True)


# --- typing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "found", "waiting"),
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
def test_typing_plays_what_is_certain(typed: str, found: list[str], waiting: str) -> None:
    actions = [*map(str, range(1, 11)), "+", "="]
    assert complete_typing(typed, actions) == (found, waiting)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("10+1=", ["10", "+", "1", "="]),
        ("1 0", ["1 0"]),
        ("hit hit", ["hit", "hit"]),
        ("hit me", ["hit me"]),
        ("", []),
    ],
)
def test_a_line_is_one_action_or_a_row_of_them(line: str, found: list[str]) -> None:
    assert split_actions(line, [*map(str, range(1, 11)), "+", "=", "hit"]) == found


# --- terminal -------------------------------------------------------------------------------------------------------


def said(words: str, env_id: str = "Points24-v0", **kwargs: Any) -> str:
    """Everything a terminal game writes when these lines are typed."""
    out = StringIO()
    play(env_id, terminal=True, stdin=StringIO(words.replace(" ", "\n") + "\n"), stdout=out, **kwargs)
    return out.getvalue()


def test_a_terminal_game_can_be_won_in_one_line() -> None:
    written = said("2+3*4+10=1 quit", seed=3)
    assert "\ncards: CJ S2 S3 H4\nformula: \nactions: 2  3  4  10  (\n" in written
    assert "formula: 2+3*4+10\nYou won! 8 moves, return +10.\n" in written
    assert "You played =. Reward +10.\nNot played: 1\n" in written
    assert "over" not in written
    assert written.endswith("> Won 1 of 1 game.\nGoodbye.\n")


def test_a_line_is_played_up_to_its_first_illegal_action() -> None:
    written = said("2+7*4 quit", seed=3)
    assert "You played +.\n7 is not legal here. Reward -1.\nNot played: * 4\n" in written
    assert "formula: 2+\n" in written


def test_a_terminal_game_tells_instructions_hints_undo_and_illegal_moves() -> None:
    written = said("help hint undo nonsense = quit", seed=3)
    assert written.count("has the value 24") == 2
    assert written.count("HT is the ten of hearts") == 2
    assert "Hint: 2\nThe cards are 10, 2, 3 and 4." in written
    assert written.count(NO_UNDO) == 3
    assert "nonsense is not legal here. Reward -1.\n" in written
    assert "You lost. 2 moves, 1 hint, return -2.\nA way to win: 2+3*4+10=\n" in written


def test_a_terminal_game_goes_on_after_the_end_and_ends_with_the_input() -> None:
    written = said("= 5  new", seed=3)
    assert "The game is over; begin a new one." in written
    assert written.count("actions: ") == 3
    assert written.endswith("> \nWon 0 of 1 game.\nGoodbye.\n")


def test_the_terminal_tells_no_more_than_the_picture_shows() -> None:
    assert "dealer: CJ ??\n" in said("quit", "VisualBlackjack-v0", seed=3)


class Advised(StringIO):
    """Somebody at a terminal who asks for a hint before every move, and follows it to the end."""

    def __init__(self, out: StringIO) -> None:
        super().__init__()
        self.out = out

    def readline(self, *_: Any) -> str:
        last = self.out.getvalue().rpartition("> ")[0].rpartition("> ")[2].splitlines()
        if any("Press Enter" in line for line in last):
            return "quit\n"
        hints = [line.removeprefix("Hint: ") for line in last if line.startswith("Hint: ")]
        return f"{hints[0]}\n" if hints else "hint\n"


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_can_be_played_to_the_end_in_a_terminal(env_id: str) -> None:
    out = StringIO()
    play(env_id, terminal=True, seed=3, stdin=Advised(out), stdout=out, **EASY.get(env_id, {}))
    written = out.getvalue()
    assert written.endswith("Goodbye.\n")
    won = gym.make(env_id).unwrapped.expert_always_wins or env_id in EASY  # type: ignore[attr-defined]
    assert "You won!" in written or not won
    assert " of 1 game" in written


def test_the_standard_streams_are_the_default(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("quit\n"))
    play("NumberLine-v0", terminal=True)
    assert "Goodbye." in capsys.readouterr().out


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_a_terminal_shows_no_pictures_and_names_the_twin(env_id: str) -> None:
    with pytest.raises(PlayError, match=r"play its twin (\w+)-v0 in the terminal") as caught:
        play(env_id, terminal=True)
    assert any(f"twin {twin} " in str(caught.value) for twin in ENVS)


# --- misuse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "right"), [("Points25-v0", "Points24-v0"), ("numberline", "NumberLine-v0")])
def test_an_unknown_environment_gets_the_nearest_one(wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{right}'"):
        play(wrong)


@pytest.mark.parametrize("env_id", [*ENVS, *COMPAT_ENVS])
def test_an_unknown_argument_gets_those_that_exist(env_id: str) -> None:
    with pytest.raises(UnknownNameError, match=r"argument.*'render_mode'.*got 'no_such'"):
        play(env_id, no_such=1)


def test_an_environment_of_another_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import gymnasium\ngymnasium.register('Mine-v0', 'gtr_envs.cards.number_line:NumberLineEnv')\n"
    (tmp_path / "mine_to_play.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert "current: " in said("quit", "mine_to_play:Mine-v0")
    with pytest.raises(OptionError, match="Cannot import the module that 'no_such_module:Mine-v0' names"):
        play("no_such_module:Mine-v0")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_no_display_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DisplayError, match="--terminal"):
        play("NumberLine-v0")
    assert not pygame.display.get_init()


def test_no_driver_at_all_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    with pytest.raises(DisplayError, match="--terminal"):
        play("NumberLine-v0")


# --- what clicks and keys do ----------------------------------------------------------------------------------------


def test_buttons_lie_inside_the_panel_and_apart() -> None:
    for actions in (["1", "2", "+"] * 6, [f"go to shelf {n}" for n in range(30)], ["-", "+"]):
        buttons = lay_out(actions, actions[:1], 560, 560)
        assert [button.enabled for button in buttons[: len(actions)]] == [name == actions[0] for name in actions]
        for button in buttons:
            assert button.left >= 560
            assert button.left + button.width <= 560 + PANEL_WIDTH
            assert button.top + button.height <= 560
            middle = (int(button.left + button.width / 2), int(button.top + button.height / 2))
            assert [other for other in buttons if other.holds(middle)] == [button]


@pytest.fixture
def screen() -> Screen:
    """A window's content for the hand 6 6 6 6."""
    return Screen(new_game(options={"numbers": [6, 6, 6, 6]}, render_size=480))


def press(screen: Screen, *keys: str) -> None:
    """Press keys."""
    for key in keys:
        screen.handle(Event("key", key=key))


def middle_of(screen: Screen, label: str) -> tuple[int, int]:
    """Where to click on a button."""
    button = next(button for button in screen.buttons() if button.label == label)
    return int(button.left + button.width / 2), int(button.top + button.height / 2)


def click(screen: Screen, label: str) -> None:
    """Click a button."""
    screen.handle(Event("click", position=middle_of(screen, label)))


def test_keys_play(screen: Screen) -> None:
    press(screen, *"6+6+6+6=")
    assert screen.game.result == "win"
    press(screen, *"61", "tab")
    assert (screen.typed, screen.game.n_moves) == ("", 8)
    press(screen, "return")
    assert not screen.game.over


def test_enter_plays_and_backspace_takes_back_what_waits(screen: Screen) -> None:
    press(screen, "x")
    assert screen.game.message == "No action begins with x. Backspace deletes it, Enter plays it."
    press(screen, "backspace")
    assert screen.typed == ""
    press(screen, "1", "return")
    assert screen.game.message == "1 is not legal here. Reward -1."
    press(screen, "return")
    assert screen.game.n_moves == 1


def test_a_wish_to_undo_is_answered_and_nothing_else(screen: Screen) -> None:
    press(screen, "6", UNDO_KEY)
    assert screen.game.message == NO_UNDO
    assert screen.game.observation["text"] == "6"


def test_buttons_play(screen: Screen) -> None:
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


@pytest.mark.parametrize("event", [Event("quit"), Event("key", key="escape")])
def test_the_window_can_be_left(screen: Screen, event: Event) -> None:
    screen.handle(event)
    assert not screen.open


def test_the_screen_shows_picture_hint_and_ending(screen: Screen) -> None:
    begin = screen.frame()
    assert begin.shape == (480, 480 + PANEL_WIDTH, 3)
    assert np.array_equal(begin[:, :480], screen.game.env.render())  # type: ignore[arg-type]
    press(screen, "tab")
    hinted = screen.frame()
    assert (hinted != begin)[:, 480:].any()
    press(screen, "=")
    assert (screen.frame()[0, 0] == RESULT_COLORS["loss"]).all()
    assert [button.enabled for button in screen.buttons() if button.label in COMMANDS] == [False, True, True]


def test_a_small_picture_is_enlarged_by_a_whole_number() -> None:
    screen = Screen(new_game("gym_cards/NumberLine-v0"))
    assert screen.frame().shape == (600, 600 + PANEL_WIDTH, 3)
    assert np.array_equal(screen.frame()[:600:2, 1:600:2], screen.game.env.render())  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [HAND, {"numbers": [10, 10, 10, 1]}, {"cards": ["HK", "DK", "DQ", "SJ"]}])
def test_everything_that_is_written_stays_inside_its_part_of_the_panel(options: dict[str, Any]) -> None:
    screen = Screen(new_game(options=options, face_cards="rank" if "cards" in options else "ten", render_size=560))
    for actions in ([], [*"((((((((("], ["nonsense"] * 3):
        played(screen.game, *actions)
        press(screen, "tab")
        assert_margins_are_free(screen)
    screen.game.message = "Twelve times this sentence is written. " * 12
    assert_margins_are_free(screen)
    press(screen, "=")
    assert_margins_are_free(screen)


def assert_margins_are_free(screen: Screen) -> None:
    """Check that the words touch neither the edges of the panel nor what is below them."""
    panel = screen.frame()[:, screen.height :]
    for part in (panel[:, :6], panel[:, -6:]):
        assert (part == part[:, :1]).all()
    if screen.game.over:
        assert (panel[219:223] == panel[219, 0]).all()
    else:
        screen.game.message = ""
        assert np.array_equal(panel[202:], screen.frame()[202:, screen.height :])


def test_a_hint_is_written_in_several_lines_of_readable_letters(screen: Screen) -> None:
    press(screen, "tab")
    panel = screen.frame()[:, screen.height :]
    for line in range(4):
        rows = panel[50 + 26 * line : 50 + 26 * (line + 1)]
        ink = (rows != rows[:1, :1]).any(axis=(1, 2))
        assert ink.sum() >= 12


def test_words_are_wrapped_at_blanks_by_their_width() -> None:
    text = "The cards are 3, 3, 8 and 8. The formula is empty."
    lines = wrap_text(text, 24, 200)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert wrap_text("unbreakable", 24, 5) == ["unbreakable"]
    assert wrap_text("", 24, 5) == [""]


# --- a real window --------------------------------------------------------------------------------------------------

Person = Callable[[Screen], Iterator[pygame.event.Event]]


@pytest.fixture
def sit_down(monkeypatch: pytest.MonkeyPatch) -> Callable[[Person], list[Screen]]:
    """Let somebody act in a real window: each event is sent after a frame was shown."""

    def seat(person: Person) -> list[Screen]:
        screens: list[Screen] = []
        show = Window.show
        acting: list[Iterator[pygame.event.Event]] = []

        class RememberedScreen(Screen):
            def __init__(self, game: Game) -> None:
                super().__init__(game)
                screens.append(self)
                acting.append(person(self))

        def show_then_act(window: Window, frame: Any, _: int) -> None:
            show(window, frame, 10_000)
            pygame.event.post(next(acting[-1], pygame.event.Event(pygame.QUIT)))

        monkeypatch.setattr(window_module, "Screen", RememberedScreen)
        monkeypatch.setattr(Window, "show", show_then_act)
        return screens

    return seat


def mouse(screen: Screen, label: str) -> pygame.event.Event:
    """A click on a button."""
    return pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=middle_of(screen, label))


def follow_hints(screen: Screen) -> Iterator[pygame.event.Event]:
    """Play to the end with the mouse alone: ask, click what was hinted, and leave."""
    while not screen.game.over:
        yield mouse(screen, "Hint")
        yield mouse(screen, screen.game.hinted)
    yield mouse(screen, "Quit")


def click_last(screen: Screen) -> Iterator[pygame.event.Event]:
    """Play the last action to the end with the mouse, begin again, and leave."""
    while not screen.game.over:
        yield mouse(screen, screen.game.actions[-1])
    yield mouse(screen, "New game")
    yield mouse(screen, "Quit")


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_can_be_played_to_the_end_by_mouse(env_id: str, sit_down: Any) -> None:
    screens = sit_down(follow_hints)
    play(env_id, seed=3, **EASY.get(env_id, {}))
    (screen,) = screens
    assert screen.game.over
    assert screen.game.results == ["win"] or env_id == "VisualBlackjack-v0"
    assert not screen.open
    assert not pygame.display.get_init()


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_every_public_id_can_be_played_to_the_end_by_mouse(env_id: str, sit_down: Any) -> None:
    screens = sit_down(click_last)
    play(env_id, seed=0)
    assert len(screens[0].game.results) == 1
    assert not screens[0].game.over


def test_the_result_of_a_public_id_is_the_sign_of_its_last_reward() -> None:
    hands = (["SK", "HQ", "CK", "DJ"], ["SK", "HQ", "CA", "DJ"], ["SK", "HQ", "CK", "D9"])
    results = [played(new_game("gym_cards/Blackjack-v0", {"cards": hand}), "stand").result for hand in hands]
    assert results == ["draw", "win", "loss"]
    away = played(new_game("gym_cards/NumberLine-v0", {"current": 5, "target": 0}), *"++++++++--")
    assert (away.result, away.lesson()) == ("loss", "")
    assert away.summary()[2] == "Target 0, current 3."


def test_a_public_id_has_neither_hints_nor_illegal_text() -> None:
    game = played(new_game("gym_cards/Points24-v0"), "double")
    assert (game.message, game.n_moves) == ("double is none of the actions.", 0)
    game.hint()
    assert "no hints" in game.message


KEYS = [
    (pygame.K_6, "6"),
    (pygame.K_ASTERISK, "*"),
    (pygame.K_LSHIFT, ""),
    (pygame.K_KP6, "6"),
    (pygame.K_MINUS, "-"),
    (pygame.K_1, "1"),
    (pygame.K_x, "x"),
    (pygame.K_BACKSPACE, "\b"),
    (pygame.K_1, "1"),
    (pygame.K_KP_ENTER, "\r"),
    (pygame.K_TAB, "\t"),
    (pygame.K_z, UNDO_KEY),
    (pygame.K_LEFT, ""),
    (pygame.K_ESCAPE, "\x1b"),
]


def test_every_key_does_what_it_should_in_a_real_window(sit_down: Any) -> None:
    told = []

    def typist(screen: Screen) -> Iterator[pygame.event.Event]:
        for key, character in KEYS:
            yield pygame.event.Event(pygame.KEYDOWN, key=key, unicode=character)
            told.append((screen.game.n_moves, screen.typed))

    screens = sit_down(typist)
    play("Points24-v0", seed=0)
    moves = [n_moves for n_moves, _ in told]
    assert moves[:6] == [1, 2, 2, 3, 4, 4]
    # The 1 waits for a possible 10; x or Enter settles it, and x itself can be taken back.
    assert told[5:10] == [(4, "1"), (5, "x"), (5, ""), (5, "1"), (6, "")]
    assert screens[0].game.n_hints == 1
    assert screens[0].game.message == NO_UNDO
    assert not screens[0].open


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_ctrl_c_closes_the_window(sit_down: Any) -> None:
    def interrupt(_: Screen) -> Iterator[pygame.event.Event]:
        signal.raise_signal(signal.SIGINT)
        yield pygame.event.Event(pygame.QUIT)

    sit_down(interrupt)
    with pytest.raises(KeyboardInterrupt):
        play("NumberLine-v0")
    assert not pygame.display.get_init()
