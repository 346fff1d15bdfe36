"""Hands dealt by difficulty."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from gtr_envs.cards.difficulty import BANDS, difficulty, hands, n_deals
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.errors import DealError, OptionError, UnknownNameError
from gtr_envs.wrappers import Curriculum, TextAction, curriculum


def make(*args: Any, env: dict[str, Any] | None = None, **kwargs: Any) -> Curriculum:
    """A small Points24 with a curriculum."""
    return Curriculum(Points24Env(image_size=64, **(env or {})), *args, **kwargs)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("split", ["train", "test", None])
def test_only_hands_of_the_band_and_split_are_dealt(band: str, split: str | None) -> None:
    env = make(band, split=split)
    members = hands(band, split)
    for seed in range(12):
        _, info = env.reset(seed=seed)
        assert tuple(sorted(info["numbers"])) in members
        assert info["band"] == band


def test_the_band_is_told_at_every_step() -> None:
    env = make("medium")
    env.reset(seed=0)
    assert env.step(14)[4]["band"] == "medium"


def test_a_seed_decides_this_and_all_following_hands() -> None:
    first, second = make(BANDS), make(BANDS)
    dealt = [[env.reset(seed=5)[1]["cards"], *(env.reset()[1]["cards"] for _ in range(5))] for env in (first, second)]
    assert dealt[0] == dealt[1]
    assert len({tuple(cards) for cards in dealt[0]}) == 6
    assert first.reset(seed=6)[1]["cards"] != dealt[0][0]
    assert first.unwrapped.np_random_seed == 6


def test_the_first_hands_of_an_evaluation_stay_the_same() -> None:
    env = make("hard", split="test")
    dealt = [env.reset(seed=seed)[1]["cards"] for seed in range(3)]
    assert dealt == [["C4", "C4", "C9", "S4"], ["CK", "D4", "S7", "DK"], ["DA", "C4", "D6", "H6"]]


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    make(BANDS).reset(seed=0)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # noqa: NPY002


def test_within_a_band_every_deal_is_as_likely_as_without_the_wrapper() -> None:
    env = make("fractions")
    rng = np.random.default_rng(0)
    n_draws = 7400
    dealt = [env._deal(rng) for _ in range(n_draws)]
    shown: Counter[tuple[int, ...]] = Counter(
        tuple(sorted(min("A23456789TJQK".index(card[1]) + 1, 10) for card in cards)) for cards in dealt
    )
    expected = {hand: n_draws * n_deals(hand) / 370 for hand in hands("fractions")}
    assert sum((shown[hand] - count) ** 2 / count for hand, count in expected.items()) < 27.9  # 9 degrees, p = 0.001
    assert chi_square(Counter(card[0] for cards in dealt for card in cards), 4) < 16.3
    tens = Counter(card[1] for cards in dealt for card in cards if card[1] in "TJQK")
    assert chi_square(tens, 4) < 16.3
    places = Counter(place for cards in dealt for place in range(4) if cards[place][1] == "6")
    assert chi_square(places, 4) < 16.3


def chi_square(counts: Counter[Any], n_values: int) -> float:
    """Distance from equal counts; below 16.3 in 999 of 1000 samples if there are four values."""
    assert len(counts) == n_values
    expected = counts.total() / n_values
    return sum((count - expected) ** 2 / expected for count in counts.values())


def test_bands_come_equally_often_or_by_weight() -> None:
    rng = np.random.default_rng(0)
    equal, weighted = make(["easy", "hard"]), make({"easy": 3, "hard": 1, "medium": 0})
    drawn = Counter(equal._draw_band(rng) for _ in range(1000))
    assert 440 < drawn["easy"] < 560
    assert drawn.keys() == {"easy", "hard"}
    drawn = Counter(weighted._draw_band(rng) for _ in range(1000))
    assert 700 < drawn["easy"] < 800
    assert drawn.keys() == {"easy", "hard"}


def test_the_band_can_be_changed_between_episodes_also_in_a_vector() -> None:
    vector = SyncVectorEnv([lambda: make("easy"), lambda: make("easy")])
    assert list(vector.reset(seed=0)[1]["band"]) == ["easy", "easy"]
    vector.call("set_band", "impossible")
    assert list(vector.reset()[1]["band"]) == ["impossible", "impossible"]
    vector.close()


def test_a_schedule_is_asked_before_every_deal_until_a_band_is_set() -> None:
    asked = []

    def schedule(n_episodes: int) -> str:
        asked.append(n_episodes)
        return "easy" if n_episodes < 2 else "hard"

    env = make(schedule=schedule)
    assert [env.reset(seed=n)[1]["band"] for n in range(4)] == ["easy", "easy", "hard", "hard"]
    assert asked == [0, 1, 2, 3]
    env.set_band("impossible")
    assert env.reset()[1]["band"] == "impossible"
    assert len(asked) == 4


def test_a_named_hand_is_dealt_as_named() -> None:
    env = make("easy")
    _, info = env.reset(options={"numbers": [8, 3, 8, 3]})
    assert (info["numbers"], info["band"]) == ([8, 3, 8, 3], "fractions")
    _, info = env.reset(seed=1, options={"cards": ["HT", "D6", "DQ", "S4"]})
    assert info["cards"] == ["HT", "D6", "DQ", "S4"]
    with pytest.raises(UnknownNameError, match="reset option"):
        env.reset(options={"number": [1, 2, 3, 4]})


def test_faces_may_count_their_rank_and_targets_may_differ() -> None:
    env = make("hard", env={"face_cards": "rank", "target": 30})
    seen = [env.reset(seed=seed)[1] for seed in range(20)]
    assert all(difficulty(info["numbers"], 30).band == info["band"] == "hard" for info in seen)
    assert max(number for info in seen for number in info["numbers"]) > 10


def test_held_out_hands_are_never_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    threes = list(product((3, 8), repeat=4))
    tens = [hand for hand in product(range(1, 14), repeat=4) if max(hand) >= 10]
    others = [hand for hand in product(range(1, 10), repeat=4) if sorted(hand) not in ([1, 3, 4, 6], [3, 3, 8, 8])]
    env = make("fractions", env={"holdout": [*threes, *tens, *others]})
    assert all(sorted(env.reset(seed=seed)[1]["numbers"]) == [1, 3, 4, 6] for seed in range(8))
    monkeypatch.setattr(curriculum, "MAX_DEALS", 50)
    env = make("fractions", env={"holdout": list(product(range(1, 14), repeat=4))})
    with pytest.raises(DealError, match=r"none in 50 deals.*28561 hands"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ("simple", "Unknown band"),
        (["easy", "hrad"], "Did you mean 'hard'"),
        ({"easy": -1}, "finite weight >= 0"),
        ({"easy": float("nan")}, "finite weight"),
        ({"easy": "much"}, "finite weight"),
        ({"easy": 0}, "at least one band"),
        ([], "at least one band"),
    ],
)
def test_unusable_bands_are_refused_and_change_nothing(bands: Any, message: str) -> None:
    env = make("medium")
    with pytest.raises(OptionError, match=message):
        env.set_band(bands)
    assert env.reset(seed=0)[1]["band"] == "medium"


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="split"):
        make("easy", split="dev")
    with pytest.raises(OptionError, match="none for target=1000000"):
        make("easy", env={"target": 10**6})
    with pytest.raises(TypeError, match="built on Points24Env"):
        Curriculum(gym.make("EZPoints-v0"))


def test_actions_can_be_texts_above_and_below() -> None:
    above = Curriculum(TextAction(Points24Env(image_size=64)), "easy")
    below = TextAction(make("easy"))
    for env in (above, below):
        env.reset(seed=3)
        env.step("(")
    assert above.step("(")[4]["cards"] == below.step("(")[4]["cards"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # that the checked environment is wrapped, which is the point
def test_gymnasium_accepts_the_wrapper() -> None:
    check_env(make("hard"), skip_render_check=True)
