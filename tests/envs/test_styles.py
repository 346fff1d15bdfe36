"""Styles: what they are made of, how they are dealt, and that they change the look of a game and nothing else."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest
from colors import contrast
from gymnasium.envs.registration import EnvSpec

import gtr_envs  # noqa: F401 - registers the environments
from gtr_envs import styles
from gtr_envs.cards import duel, faces, layouts
from gtr_envs.cards.artwork import KeptTable, draw_table, empty_table
from gtr_envs.cards.blackjack import draw_hands
from gtr_envs.cards.deck import SUITS, Card, parse_card
from gtr_envs.cards.duel.table import draw_match, draw_view
from gtr_envs.cards.number_line import draw_number_line
from gtr_envs.errors import OptionError, UnknownNameError
from gtr_envs.registration import COMPAT_ENVS, ENVS
from gtr_envs.rendering import TYPEFACES, Frame
from gtr_envs.styles import N_NUDGES, STYLE_SPLITS, STYLES, Look, Style, Wardrobe
from gtr_envs.testing import check_vision_text_env

HAND = tuple(parse_card(name) for name in ("HT", "D6", "CQ", "SA"))
LEANING = ((1.0, 1.0, 1.0), (-1.0, -1.0, -1.0), (1.0, -1.0, 0.5), (-1.0, 1.0, 0.0))
"""Cards in the corners of their places."""


def look(name: str) -> Look:
    """A style whose cards lie as far from the middle as its jitter lets them."""
    return Look(STYLES[name], LEANING if STYLES[name].jitter else ())


def frames(name: str, size: int) -> list[Frame]:
    """Pictures of all games in a style."""
    looks = look(name)
    sides = [duel.table.Side("player_0", "(10-"), duel.table.Side("player_1", "6*", is_out=True)]
    return [
        draw_table(HAND, "(10-6)", size, look=looks),
        draw_table(HAND[:2], "10+", size, 12, looks),
        draw_number_line(1, 4, 5, "+", size, looks),
        draw_hands(HAND[:2], HAND[2:], "hit", size, revealed=False, look=looks),
        draw_view(HAND, "(10-", "6*", size, looks),
        draw_match(HAND, sides, "Round 3", size, over=False, look=looks),
    ]


# --- the game is the same -------------------------------------------------------------------------------------------


def told(env: Any, n_steps: int, **reset: Any) -> list[str]:
    """Everything but pictures and style that an environment says in a random walk over several episodes."""
    rng = np.random.default_rng(4)
    said: list[Any] = [env.reset(seed=9, **reset)]
    for _ in range(n_steps):
        said.append(env.step(int(rng.integers(env.action_space.n))))
        if said[-1][2] or said[-1][3]:
            said.append(env.reset(**reset))
    for observation, *_, info in said:
        observation.pop("image")
        assert info.pop("style") in STYLES
    return [json.dumps(entry, default=lambda value: value.tolist()) for entry in said]


@pytest.mark.parametrize("env_id", ENVS)
def test_the_same_seed_deals_the_same_games_in_every_style(env_id: str) -> None:
    classic = told(gym.make(env_id, image_size=64), 150)
    for choice in (*STYLES, *STYLE_SPLITS):
        assert told(gym.make(env_id, image_size=64, style=choice), 150) == classic
        fixed = told(gym.make(env_id, image_size=64), 50, options={"style": choice})
        assert fixed == classic[: len(fixed)]


@pytest.mark.parametrize("choice", [*STYLES, *STYLE_SPLITS])
def test_the_same_seed_deals_the_same_hands_of_a_duel_in_every_style(choice: str) -> None:
    hands = []
    for style in ("classic", choice):
        race = duel.parallel_env(image_size=64, style=style)
        dealt = [race.reset(seed=3)[1], *(race.reset()[1] for _ in range(10))]
        assert {infos[agent]["style"] for infos in dealt for agent in infos} <= {*STYLE_SPLITS.get(style, (style,))}
        hands.append([(infos["player_0"]["cards"], infos["player_1"]["cards"]) for infos in dealt])
        for infos in dealt:
            assert infos["player_0"]["style"] == infos["player_1"]["style"]
    assert hands[0] == hands[1]


def test_a_wardrobe_takes_no_number_from_the_generator_of_the_game() -> None:
    game, untouched = np.random.default_rng(5), np.random.default_rng(5)
    wardrobe = Wardrobe("test")
    assert len({wardrobe.next_look(game) for _ in range(20)}) > 4
    assert np.array_equal(game.integers(1000, size=50), untouched.integers(1000, size=50))


# --- what is dealt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", STYLE_SPLITS)
def test_a_split_deals_all_its_styles_and_no_other(split: str) -> None:
    env = gym.make("NumberLine-v0", image_size=64, style=split)
    dealt = [env.reset(seed=1)[1]["style"], *(env.reset()[1]["style"] for _ in range(60))]
    assert set(dealt) == set(STYLE_SPLITS[split])
    again = [env.reset(seed=1)[1]["style"], *(env.reset()[1]["style"] for _ in range(60))]
    other = [env.reset(seed=2)[1]["style"], *(env.reset()[1]["style"] for _ in range(60))]
    assert dealt == again != other


@pytest.mark.parametrize("env_id", ENVS)
def test_an_option_fixes_the_style_of_one_episode(env_id: str) -> None:
    env = gym.make(env_id, image_size=64)
    assert env.reset(seed=1)[1]["style"] == "classic"
    assert env.reset(options={"style": "night"})[1]["style"] == "night"
    assert env.reset(options={"style": STYLES["paper"]})[1]["style"] == "paper"
    assert env.reset(options={})[1]["style"] == "classic"


def test_an_option_for_the_style_goes_with_one_for_the_hand() -> None:
    env = gym.make("Points24-v0", image_size=64)
    observation, info = env.reset(options={"style": "arcade", "cards": ["HT", "D6", "CQ", "SA"]})
    assert info["cards"] == ["HT", "D6", "CQ", "SA"]
    assert np.array_equal(observation["image"], draw_table(HAND, "", 64, look=look("arcade")))


def test_cards_lie_still_within_an_episode_and_anew_in_the_next() -> None:
    env = gym.make("Points24-v0", image_size=64, style="windy")
    hand = {"cards": ["HT", "D6", "CQ", "SA"]}
    first, _ = env.reset(seed=1, options=hand)
    field = first["image"][: layouts.FIELD_HEIGHT * 64 // 300]
    later = env.step(13)[0]["image"][: len(field)]
    assert np.array_equal(field, later)
    assert not np.array_equal(field, env.reset(options=hand)[0]["image"][: len(field)])
    assert np.array_equal(first["image"], env.reset(seed=1, options=hand)[0]["image"])


def test_a_copied_environment_goes_on_with_the_same_looks() -> None:
    env = gym.make("NumberLine-v0", image_size=64, style="test")
    env.reset(seed=4)
    for _ in range(2):
        twin = copy.deepcopy(env)
        for _ in range(5):
            ours, theirs = env.reset(), twin.reset()
            assert ours[1]["style"] == theirs[1]["style"]
            assert np.array_equal(ours[0]["image"], theirs[0]["image"])


def test_a_player_against_a_solver_sees_the_style_too() -> None:
    env = duel.against(1.0, image_size=64, style="night")
    observation, info = env.reset(seed=1, options={"cards": ["HT", "D6", "CQ", "SA"]})
    assert info["style"] == "night"
    assert np.array_equal(observation["image"], draw_view(HAND, "", "", 64, look("night")))


def test_a_batch_is_drawn_in_the_same_styles_as_its_games() -> None:
    batch, single = (
        gym.make_vec("Points24-v0", 4, vectorization_mode=mode, image_size=64, style="test")
        for mode in ("vector_entry_point", "sync")
    )
    rng = np.random.default_rng(0)
    said = [(batch.reset(seed=3), single.reset(seed=3))]
    for _ in range(40):
        actions = rng.integers(17, size=4)
        said.append((batch.step(actions), single.step(actions)))
    for ours, theirs in said:
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])
        assert ours[-1]["style"].tolist() == theirs[-1]["style"].tolist()


@pytest.mark.parametrize("env_id", ENVS)
def test_the_contract_holds_for_a_split(env_id: str) -> None:
    check_vision_text_env(env_id, image_size=64, style="train")


def test_a_style_of_ones_own_can_be_used_and_a_name_travels_as_json() -> None:
    mine = Style("mine", face="corners", colors=styles.SAND, layout="diamond", font="italic", jitter=0.2)
    env = gym.make("Points24-v0", image_size=64, style=mine)
    assert env.reset(seed=1)[1]["style"] == "mine"
    spec = gym.make("Points24-v0", image_size=64, style="test").spec
    assert spec is not None
    assert gym.make(EnvSpec.from_json(spec.to_json())).reset(seed=1)[1]["style"] in STYLE_SPLITS["test"]


@pytest.mark.parametrize("env_id", ENVS)
def test_an_unknown_style_is_refused_with_the_nearest_one(env_id: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown style: .*got 'nights'. Did you mean 'night'"):
        gym.make(env_id, style="nights")
    env = gym.make(env_id, image_size=64)
    with pytest.raises(UnknownNameError, match=r"Unknown style: .*got 7"):
        env.reset(options={"style": 7})


@pytest.mark.parametrize("choice", ["face", "layout", "font"])
def test_a_style_of_unknown_parts_is_refused(choice: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"Unknown {choice}: .*got 'none'"):
        Style("mine", **{choice: "none"})


@pytest.mark.parametrize("jitter", [-0.1, 1.1, "much"])
def test_a_jitter_is_a_share(jitter: Any) -> None:
    with pytest.raises(OptionError, match="jitter as a number from 0 to 1"):
        Style("mine", jitter=jitter)


# --- the tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", ["face", "colors", "layout", "font", "jitter"])
def test_each_factor_of_the_held_out_styles_is_partly_unseen_in_training(factor: str) -> None:
    train, test = ([getattr(STYLES[name], factor) for name in STYLE_SPLITS[split]] for split in ("train", "test"))
    assert any(value in train for value in test)
    assert any(value not in train for value in test)


def test_every_style_is_in_one_split() -> None:
    assert sorted(itertools.chain(*STYLE_SPLITS.values())) == sorted(STYLES)
    assert not set(STYLES) & set(STYLE_SPLITS)


def test_everything_a_style_can_name_can_be_drawn() -> None:
    assert set(styles.FACES) == set(faces.FACES)
    assert set(styles.LAYOUTS) == set(layouts.LAYOUTS)
    assert set(styles.FONTS) == set(TYPEFACES)


@pytest.mark.parametrize("name", STYLES)
def test_what_is_written_stands_out_from_its_ground(name: str) -> None:
    colors = STYLES[name].colors
    for ground in (colors.table, colors.strip, colors.me, colors.them, colors.out):
        assert contrast(colors.text, ground) >= 4.5
    for ink in (colors.clubs, colors.diamonds, colors.hearts, colors.spades, colors.target, colors.current):
        assert contrast(ink, colors.card) >= 4.5
    for ground in (colors.table, colors.me, colors.them, colors.out):
        assert contrast(colors.faint, ground) >= 3
    assert contrast(colors.accent, colors.table) >= 3


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_cards_of_a_layout_stay_inside_the_field_and_apart(name: str) -> None:
    layout = layouts.LAYOUTS[name]
    card = (layouts.CARD_WIDTH, layouts.CARD_HEIGHT)
    tables = [
        [(place, layout.four_size) for place in layout.four],
        [*((place, card) for place in layout.pair), (layout.goal, layout.goal_size)],
        [((x, y - 28), layout.duel_size) for x, y in layout.duel],
    ]
    for things, height in zip(tables, (272, 272, 244), strict=True):
        boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in things]
        assert all(
            left >= 2 and top >= 2 and right <= 298 and bottom <= height - 2 for left, top, right, bottom in boxes
        )
        for first, second in itertools.combinations(boxes, 2):
            apart = max(second[0] - first[2], first[0] - second[2], second[1] - first[3], first[1] - second[3])
            assert apart >= 4


# --- the pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [96, 300])
def test_every_style_looks_different_in_every_game(size: int) -> None:
    for pictures in zip(*(frames(name, size) for name in STYLES), strict=True):
        for first, second in itertools.combinations(pictures, 2):
            assert (np.abs(first.astype(int) - second).max(axis=2) > 40).mean() > 0.02


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("detailed", [False, True])
def test_all_cards_of_a_style_look_different(name: str, detailed: bool) -> None:
    size = (82, 114) if detailed else (26, 36)
    cards = [Card(suit, rank) for suit in SUITS for rank in range(1, 14)]
    drawn = [faces.draw_card(card, *size, detailed=detailed, style=STYLES[name]) for card in cards]
    pictures = np.stack(drawn).astype(np.int16)
    ranks = np.array([card.rank for card in cards])
    for place, picture in enumerate(pictures):
        differing = (np.abs(pictures[place + 1 :] - picture).max(axis=3) > 60).mean(axis=(1, 2))
        # No game asks for the suit, and a small black one has few pixels to be told by.
        assert (differing > np.where(ranks[place + 1 :] == ranks[place], 0.002, 0.015)).all()


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("size", [64, 96, 300])
def test_the_formula_changes_the_strip_and_nothing_else_in_every_style(name: str, size: int) -> None:
    top = layouts.LAYOUTS[STYLES[name].layout].strip_top
    strip = slice(round(top * size / 300), round((top + layouts.STRIP_HEIGHT) * size / 300))
    margin = round(layouts.STRIP_MARGIN * size / 300)
    for formula in ("(5-", "(((((((((((10+10+10+10))))))))))"):
        changed = (draw_table(HAND, "", size, look=look(name)) != draw_table(HAND, formula, size, look=look(name))).any(
            axis=2
        )
        assert changed[strip].any()
        changed[strip, margin : size - margin] = False
        assert not changed.any()


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("size", [64, 96, 300])
def test_cards_stay_in_their_places_wherever_they_are_blown(name: str, size: int) -> None:
    layout = layouts.LAYOUTS[STYLES[name].layout]
    changed = (draw_table(HAND, "", size, look=look(name)) != empty_table(size, STYLES[name])).any(axis=2)
    changed[round(layout.strip_top * size / 300) : round((layout.strip_top + 26) * size / 300)] = False
    width, height = (round(length * size / 300) for length in layout.four_size)
    for x, y in layout.four:
        left, top = round(x * size / 300 - width / 2), round((y + layout.field_top) * size / 300 - height / 2)
        place = changed[top : top + height, left : left + width]
        assert place.shape == (height, width)
        assert place.mean() > 0.5  # what is left of a card that is shrunk for its jitter
        place[:] = False
    assert not changed.any()


def test_the_nudges_move_and_turn_a_card() -> None:
    card, windy = HAND[0], STYLES["windy"]
    moved = [faces.draw_card(card, 82, 114, detailed=True, style=windy, nudge=nudge) for nudge in LEANING]
    for first, second in itertools.combinations(moved, 2):
        assert (first != second).any(axis=2).mean() > 0.1
    paper = [np.flatnonzero((picture.min(axis=2) > 200).any(axis=0)) for picture in moved]
    assert paper[3][0] < paper[2][0]
    assert paper[3][-1] < paper[2][-1]


def test_no_two_cards_of_a_hand_lie_alike() -> None:
    looks = Wardrobe("windy").next_look(np.random.default_rng(0))
    assert len(set(looks.nudges)) == N_NUDGES
    picture = draw_table(HAND[:1] * 4, "", 300, look=looks)
    places = [picture[y - 57 : y + 57, x - 41 : x + 41] for x, y in ((75, 77), (225, 77), (75, 211), (225, 211))]
    for first, second in itertools.combinations(places, 2):
        assert (first != second).any(axis=2).mean() > 0.05


@pytest.mark.parametrize("part", ["face", "font"])
def test_faces_and_letters_can_be_told_apart(part: str) -> None:
    values = {"face": styles.FACES, "font": styles.FONTS}[part]
    drawn = [
        faces.draw_card(parse_card("H8"), 82, 114, detailed=True, style=Style(value, **{part: value})).astype(int)
        for value in values
    ]
    for first, second in itertools.combinations(drawn, 2):
        assert (np.abs(first - second).max(axis=2) > 60).mean() > 0.01


def test_a_kept_table_is_drawn_again_in_another_look() -> None:
    frame = np.zeros((96, 96, 3), dtype=np.uint8)
    table = KeptTable(frame, goal=24)
    for name in STYLES:
        table.show(HAND, "(5-", look(name))
        assert np.array_equal(frame, draw_table(HAND, "(5-", 96, look=look(name)))


def test_the_gallery_shows_every_environment_in_every_style(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    command = [sys.executable, str(docs / "gallery.py"), "--folder", str(tmp_path), "--size", "64"]
    subprocess.run(command, check=True, timeout=250)
    drawn = {path.stem for path in tmp_path.iterdir()}
    assert drawn == {*ENVS, "duel", "gym_cards", "overview"}
    page = (docs / "environments" / "gallery.md").read_text()
    assert all(f"../images/gallery/{name}.png" in page for name in drawn)
    sheet = pygame.image.load(tmp_path / "Points24-v0.png")
    assert sheet.get_size() == (4 * 70, len(STYLES) * (64 + 6 + 22))


@pytest.mark.golden
def test_the_classic_look_is_what_it_was() -> None:
    """The digest was taken before there were styles, with pygame-ce 2.5.8."""
    digest = hashlib.sha256()
    for env_id in ("Points24-v0", "EZPoints-v0", "NumberLine-v0", "VisualBlackjack-v0", *COMPAT_ENVS):
        for size in (64, 181, 300) if env_id in ENVS else (None,):
            env = gym.make(env_id, disable_env_checker=True, **({"image_size": size} if size else {}))
            rng = np.random.default_rng(4)
            observation = env.reset(seed=9)[0]
            for _ in range(60):
                digest.update(np.ascontiguousarray(observation["image"] if size else observation).tobytes())
                observation, _, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))  # type: ignore[attr-defined]
                if terminated or truncated:
                    observation = env.reset()[0]
    for size in (64, 181, 300):
        race = duel.parallel_env(image_size=size, render_mode="rgb_array")
        rng = np.random.default_rng(4)
        race.reset(seed=3)
        for _ in range(40):
            if not race.agents:
                race.reset()
            pictures = [race.picture(agent, size) for agent in race.possible_agents]
            for picture in (*pictures, race.render()):
                digest.update(picture.tobytes())
            race.step({agent: int(rng.integers(17)) for agent in race.agents})
    assert digest.hexdigest()[:32] == "f4dfdcc99589bc4457667845908fc06c"
