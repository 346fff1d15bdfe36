"""The rules, the expert, the secrecy and the picture of VisualBlackjack."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.toy_text import blackjack as oracle

from gtr_envs.cards.blackjack import MAX_ACTIONS, VisualBlackjackEnv, draw_hands, lay_cards
from gtr_envs.cards.blackjack_rules import (
    BUST,
    CARD_SHARES,
    EMPTY_HAND,
    HandValue,
    action_values,
    best_action,
    dealer_scores,
    hand_value,
    is_natural,
    stand_reward,
)
from gtr_envs.cards.deck import Card, parse_card
from gtr_envs.cards.faces import draw_card_back
from gtr_envs.core import IllegalText
from gtr_envs.errors import OptionError, UnknownNameError
from gtr_envs.styles import CLASSIC
from gtr_envs.testing import check_vision_text_env
from gtr_envs.wrappers import TextAction


def dealt(dealer: str, player: str, **kwargs: Any) -> VisualBlackjackEnv:
    """A game with these opening hands."""
    env = VisualBlackjackEnv(image_size=64, **kwargs)
    env.reset(seed=0, options={"cards": {"dealer": dealer.split(), "player": player.split()}})
    return env


def names(text: str) -> list[Card]:
    """Cards by their names."""
    return [parse_card(name) for name in text.split()]


# --- rules ----------------------------------------------------------------------------------------------------------

HANDS = [list(ranks) for n_cards in (2, 3) for ranks in product(range(1, 14), repeat=n_cards)]


def values(ranks: list[int]) -> list[int]:
    """Card values as Gymnasium's Blackjack has them."""
    return [min(rank, 10) for rank in ranks]


def test_hands_are_added_up_as_in_gymnasium() -> None:
    for ranks in [*HANDS, [1] * 11, [1] * 21, [13, 1, 1, 9], [1, 5, 5, 10]]:
        expected = (oracle.sum_hand(values(ranks)), bool(oracle.usable_ace(values(ranks))))
        assert hand_value(ranks) == expected
        assert hand_value(ranks).score == oracle.score(values(ranks))
        assert is_natural(ranks) == oracle.is_natural(values(ranks))


@pytest.mark.parametrize(("natural", "sab"), [(False, False), (True, False), (False, True), (True, True)])
def test_standing_pays_as_in_gymnasium(natural: bool, sab: bool) -> None:
    judge = oracle.BlackjackEnv(natural=natural, sab=sab)
    judge.reset(seed=0)
    players = [[1, 13], [10, 1], [13, 12], [9, 8], [7, 7, 7], [2, 3], [1, 5, 5]]
    dealers = [ranks for ranks in HANDS if hand_value(ranks).total >= 17][::7]
    dealers += [[1, 10], [12, 1], [6, 5, 10], [1, 6], [13, 7], [10, 6, 9]]
    for player, dealer in product(players, dealers):
        judge.player, judge.dealer = values(player), values(dealer)
        assert stand_reward(player, dealer, natural=natural, sab=sab) == judge.step(0)[1]


PAY_OUTS = [
    ("DJ S7", "CA HQ", {}, 1.0),
    ("DJ S7", "CA HQ", {"natural": True}, 1.5),
    ("DJ S7", "CA HQ", {"sab": True}, 1.0),
    ("DJ S7", "CA HQ", {"sab": True, "natural": True}, 1.0),
    ("DJ SA", "CA HQ", {"natural": True}, 0.0),
    ("DJ SA", "CA HQ", {"sab": True}, 0.0),
    ("DJ S7", "CT HQ", {"natural": True}, 1.0),
    ("DJ S9", "CT H9", {}, 0.0),
    ("DJ ST", "CT H9", {"natural": True}, -1.0),
]


@pytest.mark.parametrize(("dealer", "player", "kwargs", "reward"), PAY_OUTS)
def test_pay_outs(dealer: str, player: str, kwargs: dict[str, bool], reward: float) -> None:
    env = dealt(dealer, player, **kwargs)
    _, paid, terminated, truncated, info = env.step(0)
    assert (paid, terminated, truncated) == (reward, True, False)
    assert info["success"] is (reward > 0)


def test_a_natural_against_a_drawn_twenty_one_is_a_win_for_sutton_and_barto_only() -> None:
    natural, drawn = [1, 13], [5, 6, 10]
    assert stand_reward(natural, drawn) == stand_reward(natural, drawn, natural=True) == 0
    assert stand_reward(natural, drawn, sab=True) == 1


def test_twenty_one_of_three_cards_is_no_natural() -> None:
    assert stand_reward([7, 7, 7], [10, 9], natural=True) == 1


# --- exact values ---------------------------------------------------------------------------------------------------

Policy = Callable[[HandValue, int], float]


def results(share_of_hits: Policy) -> tuple[float, float, float]:
    """Exact share of wins, share of draws and mean return over the infinite deck, under the plain rules."""

    @cache
    def ahead(hand: HandValue, up: int) -> tuple[float, float]:
        hits = share_of_hits(hand, up)
        scores = dealer_scores(EMPTY_HAND.with_card(up))
        wins = (1 - hits) * sum(p for score, p in scores if score < hand.score)
        draws = (1 - hits) * sum(p for score, p in scores if score == hand.score)
        for value, share in CARD_SHARES if hits else ():
            larger = hand.with_card(value)
            if larger.score != BUST:
                more_wins, more_draws = ahead(larger, up)
                wins, draws = wins + hits * share * more_wins, draws + hits * share * more_draws
        return wins, draws

    wins = draws = 0.0
    for (first, p), (second, q), (up, r) in product(CARD_SHARES, repeat=3):
        won, drawn = ahead(EMPTY_HAND.with_card(first).with_card(second), up)
        wins, draws = wins + p * q * r * won, draws + p * q * r * drawn
    return wins, draws, 2 * wins + draws - 1


def best(hand: HandValue, up: int) -> float:
    """The expert as a policy."""
    return float(best_action(hand, up) == "hit")


@pytest.mark.parametrize(
    ("policy", "wins", "draws", "mean"),
    [
        (lambda _hand, _up: 0.0, 0.381, 0.052, -0.186),
        (lambda _hand, _up: 0.5, 0.281, 0.043, -0.396),
        (lambda hand, _up: float(hand.total < 17), 0.408, 0.105, -0.079),
        (best, 0.429, 0.095, -0.047),
    ],
    ids=["stand", "uniform", "below 17", "best"],
)
def test_the_values_on_the_page_are_exact(policy: Policy, wins: float, draws: float, mean: float) -> None:
    assert results(policy) == pytest.approx((wins, draws, mean), abs=5e-4)


def best_return(**rules: bool) -> float:
    """Exact return of the best play under any rules, with the opening hands dealt one by one."""
    total = 0.0
    for (first, p), (second, q), (up, r) in product(CARD_SHARES, repeat=3):
        hand = hand_value([first, second])
        stand, hit = action_values(hand, up)
        if is_natural([first, second]):
            stand = sum(
                share * stand_reward([first, second], [up, hole], **rules)
                if hand_value([up, hole]).total >= 17
                else share
                * sum(
                    chance * stand_reward([first, second], a_hand_of(score), **rules)
                    for score, chance in dealer_scores(hand_value([up, hole]))
                )
                for hole, share in CARD_SHARES
            )
            assert stand > hit  # so the better action is the same under all rules
        total += p * q * r * max(stand, hit)
    return total


def a_hand_of(score: int) -> list[int]:
    """A drawn hand with this score."""
    return [10, 6, 6] if score == BUST else [10, 2, score - 12]


def test_the_best_returns_of_all_rules_are_exact() -> None:
    assert best_return() == pytest.approx(results(best)[2], abs=1e-12)
    assert best_return() == pytest.approx(-0.0466, abs=5e-5)
    assert best_return(natural=True) == pytest.approx(-0.0257, abs=5e-5)
    assert best_return(sab=True) == pytest.approx(-0.0431, abs=5e-5)
    assert best_return(sab=True, natural=True) == best_return(sab=True)


@pytest.mark.parametrize("up", range(1, 11))
def test_the_dealers_final_scores_are_a_distribution(up: int) -> None:
    scores = dict(dealer_scores(EMPTY_HAND.with_card(up)))
    assert sum(scores.values()) == pytest.approx(1)
    assert set(scores) == {BUST, 17, 18, 19, 20, 21}


# Rows by the player's sum; columns are the dealer's cards 2 to 10, then the ace.
HARD = {11: "hhhhhhhhhh", 12: "hhssshhhhh", 13: "ssssshhhhh", 16: "ssssshhhhh", 17: "ssssssssss"}
SOFT = {17: "hhhhhhhhhh", 18: "ssssssshhh", 19: "ssssssssss", 21: "ssssssssss"}


@pytest.mark.parametrize(("rows", "usable_ace"), [(HARD, False), (SOFT, True)])
def test_the_expert_plays_the_textbook_table(rows: dict[int, str], usable_ace: bool) -> None:
    for total, row in rows.items():
        assert "".join(best_action(HandValue(total, usable_ace), up)[0] for up in [*range(2, 11), 1]) == row


def test_the_expert_of_the_environment_reads_hand_and_visible_card() -> None:
    assert dealt("HT D4", "C9 S7").expert_action() == "hit"
    assert dealt("H6 D4", "C9 S7").expert_action() == "stand"
    assert dealt("H9 D4", "CA S7").expert_action() == "hit"
    assert VisualBlackjackEnv(image_size=64).expert_action() is None
    env = dealt("H6 D4", "C9 S7")
    env.step(0)
    assert env.expert_action() is None


def test_the_expert_comes_near_its_exact_return() -> None:
    env = VisualBlackjackEnv(image_size=64)
    env.reset(seed=0)
    returns = []
    for _ in range(1000):
        env.reset()
        reward = 0.0
        while (action := env.expert_action()) is not None:
            reward = env.step(env.action_from_text(action))[1]
        returns.append(reward)
    assert np.mean(returns) == pytest.approx(-0.047, abs=4 * 0.95 / 1000**0.5)


# --- an episode -----------------------------------------------------------------------------------------------------


def test_the_actions_are_in_the_published_order() -> None:
    assert VisualBlackjackEnv().action_tokens == ("stand", "hit")


def test_a_hand_is_told_as_it_grows() -> None:
    env = TextAction(dealt("HQ D4", "CA CA"))
    observation, reward, terminated, truncated, info = env.step("hit")
    assert (observation["text"], reward, terminated, truncated) == ("hit", 0, False, False)
    assert info["player_cards"][:2] == ["CA", "CA"]
    assert len(info["player_cards"]) == 3
    assert env.step("hit")[0]["text"] == "hit hit"


@pytest.mark.parametrize(
    ("dealer", "player", "sums"), [("HA D4", "CA C6", (17, True, 11)), ("HQ D4", "CT C6", (16, False, 10))]
)
def test_sums_and_usable_aces_are_told(dealer: str, player: str, sums: tuple[int, bool, int]) -> None:
    options = {"cards": {"dealer": dealer.split(), "player": player.split()}}
    info = VisualBlackjackEnv(image_size=64).reset(options=options)[1]
    assert (info["player_sum"], info["usable_ace"], info["dealer_sum"]) == sums


def test_a_soft_hand_turns_hard_instead_of_bust() -> None:
    for seed in range(40):
        env = VisualBlackjackEnv(image_size=64)
        env.reset(seed=seed, options={"cards": {"player": ["CA", "C6"]}})
        _, _, terminated, _, info = env.step(1)
        assert not terminated
        card = min(parse_card(info["player_cards"][2]).rank, 10)
        assert (info["player_sum"], info["usable_ace"]) == ((17 + card, True) if card <= 4 else (7 + card, False))


def test_a_bust_hand_loses_at_once_and_the_dealer_draws_nothing() -> None:
    env = dealt("H2 D3", "CT CQ")
    while True:
        _, reward, terminated, _, info = env.step(1)
        if terminated:
            break
    assert (reward, info["success"]) == (-1, False)
    assert info["player_sum"] > 21
    assert (info["dealer_cards"], info["dealer_sum"]) == (["H2", "D3"], 5)


@pytest.mark.parametrize("hand", ["CA C6", "CT C7", "HK SQ", "HA SK", "H9 DA"])
def test_the_dealer_stands_on_every_seventeen_and_above(hand: str) -> None:
    assert dealt(hand, "C5 C9").step(0)[4]["dealer_cards"] == hand.split()
    assert dealer_scores(hand_value([1, 1, 5])) == ((17, 1.0),)


def test_the_dealer_draws_until_seventeen_and_no_longer() -> None:
    for seed in range(60):
        env = VisualBlackjackEnv(image_size=64)
        env.reset(seed=seed)
        info = env.step(0)[4]
        ranks = [card.rank for card in names(" ".join(info["dealer_cards"]))]
        assert hand_value(ranks).total == info["dealer_sum"] >= 17
        assert all(hand_value(ranks[:n_cards]).total < 17 for n_cards in range(2, len(ranks)))


def test_an_illegal_action_costs_one_and_changes_nothing() -> None:
    env = dealt("HQ D4", "CA CA")
    observation, reward, terminated, truncated, info = env.step(IllegalText("double"))
    assert (observation["text"], reward, terminated, truncated) == ("", -1, False, False)
    assert (info["legal"], info["player_cards"], info["dealer_cards"]) == (False, ["CA", "CA"], ["HQ"])


def test_an_illegal_action_can_end_the_episode() -> None:
    env = dealt("HQ D4", "CA CA", illegal="terminate")
    _, reward, terminated, truncated, info = env.step(IllegalText("double"))
    assert (reward, terminated, truncated, info["success"]) == (-1, True, False, False)
    assert info["dealer_cards"] == ["HQ", "D4"]


def test_nonsense_does_not_go_on_for_ever() -> None:
    env = dealt("HQ D4", "CA CA")
    endings = [env.step(IllegalText("?"))[2:4] for _ in range(MAX_ACTIONS)]
    assert endings == [(False, False)] * (MAX_ACTIONS - 1) + [(False, True)]


def test_the_limit_is_out_of_reach_of_legal_play() -> None:
    assert VisualBlackjackEnv().observation_space["text"].contains("hit " * (MAX_ACTIONS - 1) + "stand")
    hand = hand_value([1, 1])
    for _ in range(MAX_ACTIONS - 1):
        hand = hand.with_card(1)
        assert hand.score != BUST
    assert hand.with_card(1).score == BUST


# --- secrecy --------------------------------------------------------------------------------------------------------


def test_nothing_depends_on_the_hidden_card_before_the_end() -> None:
    for hole in ("CA", "S5", "DK"):
        env, other = dealt(f"H6 {hole}", "C2 C3"), dealt("H6 D2", "C2 C3")
        ours, theirs = (game.step(1) for game in (env, other))
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])
        assert np.array_equal(env._draw(300), other._draw(300))
        assert ours[0]["text"] == theirs[0]["text"]
        assert str(ours[1:]) == str(theirs[1:])
        assert hole not in str(ours[4])
        assert env.expert_action() == other.expert_action()


@pytest.mark.parametrize("size", [64, 300])
def test_all_cards_and_sums_are_shown_at_the_end(size: int) -> None:
    dealer, player = names("HQ D4 S7"), names("C9 S7")
    played = draw_hands(dealer[:2], player, "", size, revealed=False)
    shown = draw_hands(dealer[:2], player, "", size, revealed=True)
    assert (played != shown)[: size // 2].any()
    assert (played != shown)[size // 2 :].any()
    assert (draw_hands(dealer, player, "", size, revealed=True) != shown)[: size // 2].any()


def test_the_observation_of_the_end_reveals_the_dealers_hand() -> None:
    for hole in ("CA", "S5"):
        env = dealt(f"HQ {hole}", "CT CQ")
        image = env.step(0)[0]["image"]
        hands = env._dealer, env._player
        assert np.array_equal(image, draw_hands(*hands, "stand", 64, revealed=True))
        assert not np.array_equal(image, draw_hands(*hands, "stand", 64, revealed=False))


# --- options --------------------------------------------------------------------------------------------------------


def test_a_hand_that_is_left_out_is_dealt() -> None:
    env = VisualBlackjackEnv(image_size=64)
    seen = {str(env.reset(options={"cards": {"player": ["CA", "HT"]}})[1]["dealer_cards"]) for _ in range(10)}
    assert len(seen) > 1
    assert env.reset(options={"cards": {"dealer": ["c10", "s2"]}})[1]["dealer_cards"] == ["CT"]


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        (["CA", "HT"], "as hands by name"),
        ({}, "as hands by name"),
        ({"player": "CA"}, "2 names"),
        ({"player": ["CA"]}, "2 names"),
        ({"dealer": ["CA", "C2", "C3"]}, "2 names"),
        ({"dealer": ["CA", "C1"]}, "got 'C1'"),
        ({"dealer": ["CA", None]}, "Cannot use"),
    ],
)
def test_unusable_cards_are_refused(cards: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VisualBlackjackEnv(image_size=64).reset(options={"cards": cards})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'player'"):
        VisualBlackjackEnv(image_size=64).reset(options={"cards": {"players": ["CA", "C2"]}})
    with pytest.raises(UnknownNameError, match="illegal"):
        VisualBlackjackEnv(illegal="ignore")


@pytest.mark.parametrize("wrong", [{"natural": 1}, {"sab": "no"}])
def test_a_rule_is_on_or_off(wrong: Any) -> None:
    with pytest.raises(OptionError, match="as True or False"):
        VisualBlackjackEnv(**wrong)


@pytest.mark.parametrize("kwargs", [{"natural": True}, {"sab": True}, {"illegal": "terminate"}])
def test_all_rules_keep_to_the_contract(kwargs: dict[str, Any]) -> None:
    check_vision_text_env("VisualBlackjack-v0", image_size=64, **kwargs)


# --- the picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cards", range(1, 23))
@pytest.mark.parametrize(("width", "height", "gap"), [(276, 102, 6), (88, 33, 2), (58, 22, 1)])
def test_any_number_of_cards_fits_without_touching(n_cards: int, width: int, height: int, gap: int) -> None:
    layout = lay_cards(n_cards, width, height, gap)
    assert layout.width >= 3
    covered = np.zeros((height, width), dtype=int)
    for x, y in layout.places:
        assert x + layout.width <= width
        assert y + layout.height <= height
        covered[y : y + layout.height, x : x + layout.width] += 1
    assert len(layout.places) == n_cards
    assert covered.max() == 1


@pytest.mark.parametrize("size", [64, 96, 300, 511])
@pytest.mark.parametrize("n_cards", [2, 5, 11, 21])
def test_every_card_is_in_the_picture(size: int, n_cards: int) -> None:
    player = (names("CA") * n_cards)[:-1]
    with_ace = draw_hands(names("HQ D4"), [*player, *names("SA")], "", size, revealed=False)
    with_king = draw_hands(names("HQ D4"), [*player, *names("DK")], "", size, revealed=False)
    differing = (with_ace != with_king).any(axis=2)
    assert differing.sum() >= 6
    assert not differing[: size // 2].any()
    assert (with_ace[:, -1][: size // 2] == CLASSIC.colors.table).all()


def test_a_card_back_looks_like_no_card_and_cannot_be_changed() -> None:
    back = draw_card_back(75, 104)
    assert (back == CLASSIC.colors.card).all(axis=2).mean() < 0.3
    assert draw_card_back(24, 33).shape == (33, 24, 3)
    assert not back.flags.writeable


def test_every_picture_is_independent() -> None:
    table = names("HQ D4"), names("CA C7")
    draw_hands(*table, "", 64, revealed=False)[...] = 0
    assert draw_hands(*table, "", 64, revealed=False).any()
