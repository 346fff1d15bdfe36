"""The duel: rules, fairness, PettingZoo's own tests, the solver as an opponent, and the game for one player."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtr_envs.cards import duel
from gtr_envs.cards.deck import parse_card
from gtr_envs.cards.duel import AGENTS, DuelEnv, SolverOpponent, against
from gtr_envs.cards.duel.table import Side, draw_match, draw_view
from gtr_envs.cards.formula import tokenize
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.cards.solver import distance
from gtr_envs.core import OBSERVE, IllegalText
from gtr_envs.errors import (
    ContractError,
    EnvironmentClosedError,
    GtrEnvsError,
    InvalidActionError,
    OptionError,
    ResetNeededError,
    UnknownNameError,
)
from gtr_envs.styles import CLASSIC
from gtr_envs.testing import HEADINGS, check_vision_text_env
from gtr_envs.wrappers import TextAction

with warnings.catch_warnings():
    # Importing its tests makes one of PettingZoo's own environments in a way that PettingZoo has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test, seed_test

ROOT = Path(__file__).parents[2]
HAND = [3, 3, 8, 8]
WIN = "8/(3-8/3)="
LEFT, RIGHT = AGENTS

Step = tuple[Any, ...]


def fresh(hand: list[int] = HAND, **kwargs: Any) -> DuelEnv:
    """A small duel on a given hand."""
    env = DuelEnv(image_size=64, **kwargs)
    env.reset(seed=0, options={"numbers": hand})
    return env


def play_round(env: DuelEnv, left: str, right: str) -> Step:
    """Play one round by the names of the tokens."""
    return env.step({LEFT: env.action_tokens.index(left), RIGHT: env.action_tokens.index(right)})


def play(env: DuelEnv, left: str, right: str) -> Step:
    """Play two formulas of equal length, and return the last step."""
    for tokens in zip(tokenize(left), tokenize(right), strict=True):
        said = play_round(env, *tokens)
    return said


def ending(said: Step) -> tuple[list[float], bool, bool, list[str]]:
    """Rewards, terminated, truncated and results of a step that ends a game."""
    _, rewards, terminations, truncations, infos = said
    assert len(set(terminations.values())) == len(set(truncations.values())) == 1
    results = [infos[agent]["result"] for agent in AGENTS]
    assert [infos[agent]["success"] for agent in AGENTS] == [result == "win" for result in results]
    return [rewards[agent] for agent in AGENTS], terminations[LEFT], truncations[LEFT], results


# --- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", AGENTS)
def test_the_first_right_formula_wins_and_the_other_player_pays(winner: str) -> None:
    env = fresh()
    slow = "8*(3-8/3)/"
    said = play(env, *((WIN, slow) if winner == LEFT else (slow, WIN)))
    expected = [1.0, -1.0] if winner == LEFT else [-1.0, 1.0]
    assert ending(said) == (expected, True, False, ["win", "loss"] if winner == LEFT else ["loss", "win"])
    assert said[4][winner]["formula_value"] == 24
    assert "formula_value" not in said[4][LEFT if winner == RIGHT else RIGHT]
    assert env.agents == []


def test_two_right_formulas_in_one_round_are_a_draw() -> None:
    assert ending(play(fresh([1, 1, 2, 6]), "(1+1)*2*6=", "6*2*(1+1)=")) == ([0.0, 0.0], True, False, ["draw", "draw"])


@pytest.mark.parametrize("wrong", ["3*8=", "3=", "=", "(=", "8/(3-3)=", "3+3+8+8="])
def test_a_wrong_formula_puts_a_player_out_and_the_other_may_win(wrong: str) -> None:
    env = fresh()
    tokens, n_tokens = tokenize(WIN), len(tokenize(wrong))
    said = play(env, "".join(tokens[:n_tokens]), wrong)
    assert said[1] == {LEFT: 0.0, RIGHT: 0.0}
    assert not said[2][RIGHT]
    assert (said[4][RIGHT]["out"], said[4][LEFT]["opponent_out"]) == (True, True)
    assert not said[4][LEFT]["out"]
    for token in tokens[n_tokens:]:
        assert env.legal_actions(RIGHT) == ["="]
        said = play_round(env, token, "3")
    assert said[4][RIGHT]["formula"] == tokenize(wrong)[:-1]
    assert ending(said) == ([1.0, -1.0], True, False, ["win", "loss"])


def test_the_value_of_a_wrong_formula_is_told() -> None:
    infos = play(fresh(), "3*8=", "3*(=")[4]
    assert (infos[LEFT]["formula_value"], infos[RIGHT]["formula_value"]) == (24.0, None)


def test_both_players_out_are_a_draw() -> None:
    env = fresh()
    play(env, "3*8+", "3*8=")
    assert ending(play(env, "3=", "3=")) == ([0.0, 0.0], True, False, ["draw", "draw"])


def test_going_out_in_the_round_in_which_the_other_wins_is_a_loss() -> None:
    assert ending(play(fresh(), WIN, "8+(3-8/3)=")) == ([1.0, -1.0], True, False, ["win", "loss"])


def test_a_player_who_is_out_is_never_fined() -> None:
    env = fresh()
    play_round(env, "3", "=")
    _, rewards, _, _, infos = play_round(env, "*", "/")
    assert rewards[RIGHT] == 0
    assert infos[RIGHT]["legal"] is False
    assert play_round(env, "8", "=")[4][RIGHT]["legal"] is True


@pytest.mark.parametrize(
    ("options", "fine"), [({}, -0.1), ({"illegal_reward": 0}, 0.0), ({"illegal_reward": -2}, -2.0)]
)
def test_an_illegal_action_changes_nothing_but_costs_the_round(options: dict[str, Any], fine: float) -> None:
    env = fresh(**options)
    _, rewards, terminations, _, infos = play_round(env, "8", "*")
    assert rewards == {LEFT: 0.0, RIGHT: fine}
    assert not any(terminations.values())
    assert (infos[LEFT]["legal"], infos[RIGHT]["legal"]) == (True, False)
    assert (infos[LEFT]["formula"], infos[RIGHT]["formula"]) == (["8"], [])
    _, rewards, *_ = env.step({LEFT: IllegalText("I win"), RIGHT: 2})
    assert rewards == {LEFT: fine, RIGHT: 0.0}


def test_the_last_round_is_a_draw_and_can_still_be_won() -> None:
    env = fresh(max_rounds=10)
    assert ending(play(env, "8/(3-8/3)+", "8/(3-8/3)-")) == ([0.0, 0.0], False, True, ["draw", "draw"])
    assert env.n_rounds == 10
    assert ending(play(fresh(max_rounds=10), "8/(3-8/3)+", WIN))[3] == ["loss", "win"]


def test_a_round_spent_on_an_illegal_action_is_missing_at_the_end() -> None:
    env = fresh(max_rounds=10)
    assert env.expert_action(RIGHT) == "8"
    play_round(env, "8", "*")
    assert (env.expert_action(LEFT), env.expert_action(RIGHT)) == ("/", None)
    assert env.optimal_actions(RIGHT) == ()


def test_each_side_has_the_legal_actions_of_points24() -> None:
    env, single = fresh(), Points24Env(image_size=64)
    single.reset(options={"numbers": HAND})
    for token in tokenize("((8-3)*("):
        infos = play_round(env, token, "(")[4]
        info = single.step(single.action_tokens.index(token))[4]
        assert infos[LEFT]["legal_actions"] == info["legal_actions"]
        assert np.array_equal(infos[LEFT]["action_mask"], info["action_mask"])
        assert infos[RIGHT]["legal_actions"] == ["3", "8", "("]


def test_every_hand_is_solvable_unless_any_is_asked_for() -> None:
    dealt, rare = DuelEnv(image_size=64), DuelEnv(image_size=64, deal="any")
    dealt.reset(seed=1)
    rare.reset(seed=1)
    assert all(dealt.reset()[1][LEFT]["solvable"] for _ in range(30))
    assert not all(rare.reset()[1][LEFT]["solvable"] for _ in range(30))


def test_both_players_hold_the_same_cards_also_with_face_cards_by_rank() -> None:
    env = DuelEnv(image_size=64, face_cards="rank", target=36)
    infos = env.reset(options={"cards": ["HK", "DQ", "CJ", "SA"]})[1]
    assert infos[LEFT]["numbers"] == infos[RIGHT]["numbers"] == [13, 12, 11, 1]
    assert infos[LEFT]["cards"] == infos[RIGHT]["cards"] == ["HK", "DQ", "CJ", "SA"]
    dealt = env.reset(seed=1)[1]
    assert dealt[LEFT]["cards"] == dealt[RIGHT]["cards"]
    assert env.action_space(LEFT).n == 20
    assert "value 36" in env.instructions


def test_the_text_tells_both_formulas_from_the_own_side() -> None:
    env = fresh()
    observations, *_ = play(env, "(8/", "3*8")
    assert (observations[LEFT]["text"], observations[RIGHT]["text"]) == ("me: (8/ them: 3*8", "me: 3*8 them: (8/")
    observations, *_ = play_round(env, "(", "=")
    assert observations[LEFT]["text"] == "me: (8/( them: 3*8="


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), min_size=21, max_size=21))
def test_exchanging_the_players_exchanges_everything(seed: int, rounds: list[tuple[int, int]]) -> None:
    ours, mirrored = DuelEnv(image_size=64, deal="any"), DuelEnv(image_size=64, deal="any")
    ours.reset(seed=seed)
    mirrored.reset(seed=seed)
    total = 0.0
    for left, right in rounds:
        one, two = ours.step({LEFT: left, RIGHT: right}), mirrored.step({LEFT: right, RIGHT: left})
        for here, there in ((LEFT, RIGHT), (RIGHT, LEFT)):
            assert one[0][here]["text"] == two[0][there]["text"]
            assert np.array_equal(one[0][here]["image"], two[0][there]["image"])
            assert [part[here] for part in one[1:4]] == [part[there] for part in two[1:4]]
            assert one[4][here]["legal_actions"] == two[4][there]["legal_actions"]
            assert ours.observation_space(here).contains(one[0][here])
        if not ours.agents:
            assert sum(result == "win" for result in ending(one)[3]) <= 1
            return
        total += sum(one[1].values())
        assert total <= 0
    raise AssertionError("no game is longer than 21 rounds")


def test_infos_and_pictures_are_copies() -> None:
    env, untouched = fresh(), fresh()
    said, expected = play(env, "8/", "(3"), play(untouched, "8/", "(3")
    for agent in AGENTS:
        said[0][agent]["image"][...] = 0
        for value in said[4][agent].values():
            if isinstance(value, list):
                value.clear()
    kept = copy.deepcopy(expected)
    after, other = play_round(env, "(", "-"), play_round(untouched, "(", "-")
    for agent in AGENTS:
        assert (after[0][agent]["image"] == other[0][agent]["image"]).all()
        assert after[4][agent]["formula"] == other[4][agent]["formula"]
        assert expected[4][agent]["opponent_formula"] == kept[4][agent]["opponent_formula"]
        assert expected[4][agent]["numbers"] == other[4][agent]["numbers"] == HAND


# --- seeds and misuse -----------------------------------------------------------------------------------------------


def test_the_seed_decides_the_hands_and_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002 - what is looked at
    hands = []
    for _ in range(2):
        env = DuelEnv(image_size=64)
        env.reset(seed=4)
        hands.append([env.reset()[1][LEFT]["cards"] for _ in range(4)])
    assert hands[0] == hands[1]
    assert len({tuple(hand) for hand in hands[0]}) == 4
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_a_copied_and_a_pickled_duel_go_on_where_it_was() -> None:
    env = fresh(render_mode="human")
    play(env, "8/", "3*")
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):  # noqa: S301 - made on this line
        ours = copy.deepcopy(env)
        assert play_round(ours, "(", "8")[0][LEFT]["text"] == play_round(twin, "(", "8")[0][LEFT]["text"]
        assert ours.reset()[1][LEFT]["cards"] == twin.reset()[1][LEFT]["cards"]
        ours.close()
        twin.close()
    env.close()


def test_held_out_hands_are_not_dealt() -> None:
    dealt = DuelEnv(image_size=64)
    ranks = [parse_card(name).rank for name in dealt.reset(seed=3)[1][LEFT]["cards"]]
    other = DuelEnv(image_size=64, holdout=[ranks])
    assert [parse_card(name).rank for name in other.reset(seed=3)[1][LEFT]["cards"]] != ranks


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_rounds": 7}, "max_rounds as a whole number of at least 8, got 7"),
        ({"max_rounds": True}, "max_rounds"),
        ({"illegal_reward": 0.5}, "illegal_reward as a finite number of at most 0, got 0.5"),
        ({"illegal_reward": float("nan")}, "illegal_reward"),
        ({"deal": "solvabel"}, "Did you mean 'solvable'"),
        ({"face_cards": "eleven"}, "face_cards"),
        ({"image_size": 10}, "image_size"),
        ({"render_mode": "ansi"}, "render_mode"),
    ],
)
def test_unusable_arguments_are_refused_with_what_is_expected(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        DuelEnv(**arguments)


def test_only_the_key_that_pettingzoo_sends_is_let_pass_as_an_option() -> None:
    env = DuelEnv(image_size=64)
    env.reset(seed=0, options={"options": 1})
    with pytest.raises(UnknownNameError, match="Did you mean 'numbers'"):
        env.reset(options={"number": HAND})


def test_actions_are_checked_before_any_is_played() -> None:
    env = fresh()
    for actions in ({LEFT: 2}, {LEFT: 2, RIGHT: 17}, {LEFT: 2, RIGHT: None}, {LEFT: 2, RIGHT: 2, "player_2": 2}):
        with pytest.raises(InvalidActionError):
            env.step(actions)
    assert env.n_rounds == 0
    assert env.info(LEFT)["formula"] == []


def test_the_order_of_calls_is_held() -> None:
    env = DuelEnv(image_size=64, render_mode="rgb_array")
    for call in (lambda: env.step({LEFT: 0, RIGHT: 0}), env.render):
        with pytest.raises(ResetNeededError):
            call()
    env.reset(options={"numbers": HAND})
    play_round(env, "=", "=")
    assert env.optimal_actions(LEFT) == ()
    with pytest.raises(ResetNeededError):
        env.step({LEFT: 0, RIGHT: 0})
    env.close()
    env.close()
    for call in (env.reset, env.render, lambda: env.step({LEFT: 0, RIGHT: 0})):
        with pytest.raises(EnvironmentClosedError):
            call()


def test_rendering_without_a_mode_warns() -> None:
    with pytest.warns(UserWarning, match="without a render mode"):
        assert fresh().render() is None


def test_a_missing_pettingzoo_is_named_with_the_remedy_and_only_the_duel_needs_it() -> None:
    code = "import sys; sys.modules['pettingzoo'] = None; import gtr_envs, gtr_envs.cards.points24; print('fine')\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "from gtr_envs.cards import duel"], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("fine\n")
    assert done.returncode == 1
    assert "DependencyError: The duel needs the package pettingzoo" in done.stderr
    assert "pip install 'pettingzoo>=1.26'" in done.stderr


# --- PettingZoo's own tests -----------------------------------------------------------------------------------------


def test_pettingzoo_accepts_the_parallel_environment() -> None:
    for face_cards in ("ten", "rank"):
        parallel_api_test(duel.parallel_env(image_size=64, face_cards=face_cards), num_cycles=60)


@pytest.mark.parametrize("make", [duel.env, duel.raw_env])
def test_pettingzoo_accepts_the_turn_based_environment(make: Any) -> None:
    with warnings.catch_warnings():
        # A picture with a text is no array; everything else that api_test warns of would be an error here.
        warnings.filterwarnings("ignore", message="Observation is not a NumPy array")
        warnings.filterwarnings("ignore", message="Observation space for each agent probably should be")
        api_test(make(image_size=64), num_cycles=60)


def test_pettingzoo_finds_the_seed_to_decide_everything() -> None:
    parallel_seed_test(lambda: duel.parallel_env(image_size=64), num_cycles=60)
    seed_test(lambda: duel.env(image_size=64), num_cycles=60)


def test_pettingzoo_accepts_the_frames() -> None:
    render_test(lambda **kwargs: duel.env(image_size=64, **kwargs))


def test_the_turn_based_environment_plays_a_round_after_the_second_player() -> None:
    env = duel.env(image_size=64)
    env.reset(seed=0, options={"numbers": HAND})
    played = {LEFT: tokenize(WIN), RIGHT: tokenize("8*(3-8/3)/")}
    totals: Counter[str] = Counter()
    for agent in env.agent_iter():
        observation, reward, terminated, truncated, _ = env.last()
        totals[agent] += reward
        assert observation["text"].count("8") <= 4
        over = terminated or truncated
        env.step(None if over else env.unwrapped.action_tokens.index(played[agent].pop(0)))
    assert dict(totals) == {LEFT: 1, RIGHT: -1}


def test_the_turn_based_environment_refuses_an_invalid_action_at_once() -> None:
    env = duel.env(image_size=64)
    env.reset(seed=0)
    with pytest.raises(AssertionError):
        env.step(17)


def test_the_page_has_the_headings_of_every_environment() -> None:
    page = inspect.getdoc(DuelEnv) or ""
    assert [heading for heading in re.findall(r"^## (.+)$", page, flags=re.MULTILINE)] == list(HEADINGS)


def test_info_has_the_documented_keys() -> None:
    page = (inspect.getdoc(DuelEnv) or "").partition("## Information")[2].partition("## Arguments")[0]
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", page, flags=re.MULTILINE))))
    said = play(fresh(), "=", "=")
    assert set(said[4][LEFT]) == documented


# --- pictures -------------------------------------------------------------------------------------------------------

CARDS = [parse_card(name) for name in ("HT", "DJ", "DQ", "SK")]


@pytest.mark.parametrize("size", [64, 65, 96, 300, 511])
@pytest.mark.parametrize("formula", ["", "(8", "(" * 20 + "=", "10+10-" * 7])
def test_each_formula_changes_its_own_strip_only(size: int, formula: str) -> None:
    empty = draw_view(CARDS, "", "", size)
    assert empty.shape == (size, size, 3)
    strip = round(28 * size / 300)
    for picture, inside, outside in (
        (draw_view(CARDS, formula, "", size), slice(size - strip - 1, size), slice(0, size - strip - 1)),
        (draw_view(CARDS, "", formula, size), slice(0, strip + 1), slice(strip + 1, size)),
    ):
        assert (picture[inside] != empty[inside]).any() == bool(formula)
        assert not (picture[outside] != empty[outside]).any()
        margin = round(5 * size / 300)
        assert not (picture[:, :margin] != empty[:, :margin]).any()
        assert not (picture[:, size - margin :] != empty[:, size - margin :]).any()


def test_the_own_strip_is_blue_and_below_for_both_players() -> None:
    observations, *_ = play(fresh(), "8", "(")
    for agent in AGENTS:
        picture = observations[agent]["image"]
        assert (picture[-3, -1] == CLASSIC.colors.me).all()
        assert (picture[3, -1] == CLASSIC.colors.them).all()
    assert (observations[LEFT]["image"] != observations[RIGHT]["image"]).any()


@pytest.mark.parametrize("size", [64, 97, 300, 480])
def test_a_spectator_sees_who_is_out_and_the_result(size: int) -> None:
    sides = [Side(LEFT, "8/(3-"), Side(RIGHT, "3*8=", is_out=True)]
    running = draw_match(CARDS, sides, "Round 5", size, over=False)
    finished = draw_match(CARDS, [sides[0]._replace(won=True), sides[1]], "player_0 wins", size, over=True)
    assert running.shape == (size, size, 3)
    middle, column = size // 2, round(280 * size / 300)
    assert (running[round(40 * size / 300), column] == CLASSIC.colors.out).all()
    assert (running[round(260 * size / 300), column] == CLASSIC.colors.me).all()
    assert (running[middle:] != finished[middle:]).any()
    assert not (running[: round(70 * size / 300)] != finished[: round(70 * size / 300)]).any()


def test_frames_have_the_render_size_and_show_the_end() -> None:
    env = fresh(render_mode="rgb_array")
    frames = [env.render()]
    play(env, "3", "=")
    frames.append(env.render())
    play_round(env, "=", "=")
    frames.append(env.render())
    assert all(frame is not None and frame.shape == (480, 480, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all((one != two).any() for one, two in pairwise(frames))  # type: ignore[operator]
    assert DuelEnv(image_size=600).render_size == 600
    assert DuelEnv(render_size=200).render_size == 200


# --- opponents ------------------------------------------------------------------------------------------------------


def match(strengths: tuple[float, float], n_games: int, seed: int = 0) -> Iterator[tuple[DuelEnv, dict[str, Any]]]:
    """Play games between two solvers, and yield the duel and the first player's last info."""
    rng = np.random.default_rng(seed)
    players = {agent: SolverOpponent(strength, rng) for agent, strength in zip(AGENTS, strengths, strict=True)}
    env = DuelEnv(image_size=64)
    env.reset(seed=seed)
    for _ in range(n_games):
        env.reset()
        infos: dict[str, Any] = {}
        while env.agents:
            infos = env.step({agent: player.act(env, agent) for agent, player in players.items()})[4]
        yield env, infos[LEFT]


def test_full_strength_wins_in_the_smallest_number_of_rounds() -> None:
    for env, info in match((1.0, 0.0), n_games=25):
        assert info["result"] == "win"
        assert env.n_rounds == distance(info["numbers"])


def test_no_strength_hardly_ever_wins_and_never_hands_in_a_wrong_formula() -> None:
    results = []
    for _, info in match((0.0, 0.0), n_games=25):
        assert not info["out"]
        results.append(info["result"])
    assert results.count("draw") >= 23


def test_the_win_rate_rises_with_strength() -> None:
    n_wins = [
        sum(info["result"] == "win" for _, info in match((strength, 0.6), n_games=40)) for strength in (0, 0.7, 0.9, 1)
    ]
    gaps = np.diff(n_wins)  # of 40 games
    assert (gaps > 4).all(), n_wins


def test_two_perfect_players_always_draw() -> None:
    assert {info["result"] for _, info in match((1.0, 1.0), n_games=10)} == {"draw"}


def test_the_opponent_passes_when_it_is_out_and_wins_when_it_may() -> None:
    env, rng = fresh(), np.random.default_rng(0)
    play_round(env, "=", "8")
    weak = SolverOpponent(0.0, rng)
    assert env.action_tokens[weak.act(env, LEFT)] == "="
    for token in tokenize(WIN)[1:-1]:
        play_round(env, "=", token)
    assert {env.action_tokens[weak.act(env, RIGHT)] for _ in range(60)} == {"+", "-", "*", "/", "="}
    assert env.action_tokens[SolverOpponent(1.0, rng).act(env, RIGHT)] == "="


def test_the_opponent_also_plays_the_turn_based_environment() -> None:
    env = duel.env(image_size=64)
    env.reset(seed=0, options={"numbers": HAND})
    solver = SolverOpponent(1.0, np.random.default_rng(0))
    totals: Counter[str] = Counter()
    for agent in env.agent_iter():
        _, reward, terminated, truncated, _ = env.last()
        totals[agent] += reward
        token = solver.act(env, agent) if agent == RIGHT else env.unwrapped.action_tokens.index("(")
        env.step(None if terminated or truncated else token)
    assert dict(totals) == {LEFT: -1, RIGHT: 1}


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "strong", True, None])
def test_an_unusable_strength_is_refused(strength: Any) -> None:
    with pytest.raises(OptionError, match="a strength as a number from 0 to 1"):
        SolverOpponent(strength, np.random.default_rng(0))
    with pytest.raises(OptionError, match="a strength as a number from 0 to 1"):
        against(strength)


# --- the game for one player ----------------------------------------------------------------------------------------


class Silent:
    """An opponent that opens brackets for ever."""

    def act(self, env: DuelEnv, agent: str) -> int:
        assert agent != LEFT or env.agents
        return env.action_tokens.index("(")


@pytest.mark.parametrize("opponent", [0.0, 1.0])
def test_the_game_for_one_keeps_to_the_contract_at_any_strength(opponent: float) -> None:
    if opponent == 1.0:
        with pytest.raises(ContractError, match="won none of ten"):
            check_vision_text_env("Points24Duel-v0", opponent=opponent, image_size=64)
    else:
        check_vision_text_env("Points24Duel-v0", opponent=opponent, image_size=64)


@pytest.mark.parametrize("observe", OBSERVE)
def test_the_game_for_one_shows_what_is_to_be_observed(observe: str) -> None:
    env = gym.make("Points24Duel-v0", observe=observe, image_size=64)
    observation, _ = env.reset(seed=0, options={"cards": ["H3", "D3", "S8", "C8"]})
    assert set(observation) == ({"image", "text"} if observe == "both" else {observe})
    assert observation in env.observation_space
    assert ("The text shows four" in env.unwrapped.instructions) is (observe == "text")  # type: ignore[attr-defined]
    if observe == "text":
        assert observation["text"] == "cards: H3 D3 S8 C8\nme:  them: "


def test_the_expert_thinks_about_the_own_formula_only() -> None:
    env = against(1.0, image_size=64)
    env.reset(seed=0, options={"numbers": HAND})
    env.step(env.action_tokens.index("8"))
    env.step(env.action_tokens.index("("))
    thought = env.expert_thought()
    assert (thought.formula, thought.action, env.expert_action()) == ("8", "/", "/")


@pytest.mark.parametrize("agent", AGENTS)
def test_one_player_wins_against_a_silent_opponent(agent: str) -> None:
    env = TextAction(against(Silent(), agent=agent, image_size=64))
    env.reset(seed=0, options={"numbers": HAND})
    for token in tokenize(WIN):
        observation, reward, terminated, truncated, info = env.step(token)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["success"], info["result"], info["formula_value"]) == (True, "win", 24)
    assert observation["text"] == f"me: {WIN} them: {'(' * 10}"


def test_one_player_loses_against_a_perfect_opponent_by_doing_nothing_right() -> None:
    env = TextAction(against(1.0, image_size=64))
    env.reset(seed=0, options={"numbers": HAND})
    rewards = [env.step("no token")[1] for _ in range(10)]
    assert rewards == [*[-0.1] * 9, -1.1]


def test_a_player_who_is_out_does_not_wait() -> None:
    env = against(1.0, image_size=64)
    env.reset(seed=0, options={"numbers": HAND})
    _, reward, terminated, truncated, info = env.step(env.action_tokens.index("="))
    assert (reward, terminated, truncated) == (-1.0, True, False)
    assert (info["result"], info["legal"], info["formula_value"]) == ("loss", False, None)
    draw = against(Silent(), image_size=64, max_rounds=8)
    draw.reset(seed=0)
    _, reward, terminated, truncated, info = draw.step(draw.action_tokens.index("="))
    assert (reward, terminated, truncated, info["result"]) == (0.0, False, True, "draw")


def test_the_game_for_one_is_reproducible_and_its_arguments_are_checked() -> None:
    texts = []
    for _ in range(2):
        env = against(image_size=64)
        env.reset(seed=9)
        texts.append([env.step(14)[0]["text"] for _ in range(8)])
    assert texts[0] == texts[1]
    with pytest.raises(UnknownNameError, match="Unknown agent"):
        against(agent="player_2")
    with pytest.raises(GtrEnvsError):
        against(target="many")
    with pytest.raises(UnknownNameError, match=r"'opponent'.*got 'adversary'"):
        against(adversary=0.5)


def test_the_example_plays_a_game_and_saves_a_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "duel.py")], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert "wins" in done.stdout
    assert (tmp_path / "duel.png").read_bytes().startswith(b"\x89PNG")
