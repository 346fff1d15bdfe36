"""Episode sets stay what they are: another dealing, another order or another task is a new version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec

import gymnasium as gym
import pytest
from gymnasium.utils import seeding

from gtr_agents.episode_sets import Dealt, EpisodeSet, episode_sets, find_sets, fingerprint
from gtr_agents.errors import EpisodeSetError, UnknownNameError
from gtr_agents.evaluation import episode_seeds
from gtr_envs.cards.difficulty import difficulty

SETS = episode_sets()
CARDS = [name for name in SETS if not name.startswith("alfworld/")]
HOUSEHOLDS = [name for name in SETS if name.startswith("alfworld/")]
GAME_DATA = {
    "alfworld/valid_unseen-v1": "da32cc16f0700a930693d1dfe7ce170b241d6de344a000b3a501f8a0f5235f22",
    "alfworld/valid_seen-v1": "32d1825c71db4f2c44437453e338ea2a2c343da1ac69f228df1ce78166f3771a",
}
"""SHA-256 of the engine's files of all games: what lies where."""


@pytest.mark.parametrize("name", CARDS)
def test_a_set_of_cards_is_dealt_as_ever(name: str) -> None:
    """If this fails, an environment deals something else: add a set -v2, and do not change the fingerprint."""
    chosen = SETS[name]
    dealt = chosen.deal()
    assert (len(dealt), fingerprint(dealt)) == (chosen.episodes, chosen.fingerprint)
    assert chosen.first_seeds() == [episode.seed for episode in dealt]


@pytest.mark.alfworld
@pytest.mark.skipif(find_spec("textworld") is None, reason="needs the extra alfworld")
@pytest.mark.parametrize("name", HOUSEHOLDS)
def test_a_set_of_households_is_made_as_ever(name: str) -> None:
    """The same without the engine, which takes half a second a game; the first game is begun in it."""
    chosen = SETS[name]
    env = gym.make(chosen.env, image_size=64, **chosen.kwargs)
    source = env.unwrapped.source  # type: ignore[attr-defined]
    games = {seed: source.load(source.draw(seeding.np_random(seed)[0])) for seed in chosen.seeds}
    dealt = [
        Dealt(seed, {"game": g.key, "scene": g.scene, "task": g.sentence, "task_type": g.task.task_type})
        for seed, g in games.items()
    ]
    assert (len(dealt), fingerprint(dealt)) == (chosen.episodes, chosen.fingerprint)
    assert chosen.deal(1) == dealt[:1]
    if name in GAME_DATA:
        data = json.dumps([dict(game.data) for game in games.values()], sort_keys=True)
        assert hashlib.sha256(data.encode()).hexdigest() == GAME_DATA[name]
    env.close()


def test_committed_numbers_stay_comparable() -> None:
    """The sets that are called test play what runs have always been measured on."""
    assert SETS["points24/test-v1"].first_seeds() == list(episode_seeds("test", 500))
    assert SETS["points24/validation-v1"].first_seeds() == list(episode_seeds("validation", 500))
    assert SETS["alfworld/valid_unseen-v1"].first_seeds() == list(episode_seeds("test", 240))


def test_bands_and_winnable_hands_are_parts_of_the_test_set() -> None:
    whole = {episode.seed: episode.facts for episode in SETS["points24/test-v1"].deal()}
    values = {"A": 1, "T": 10, "J": 10, "Q": 10, "K": 10}
    winnable = {episode.seed for episode in SETS["points24/solvable-v1"].deal()}
    for seed, facts in whole.items():
        numbers = [values.get(card[1], 0) or int(card[1]) for card in facts["cards"]]
        assert facts["band"] == difficulty(numbers).band
        assert (seed in winnable) == (difficulty(numbers).n_solutions > 0)
    for band in ("easy", "medium", "hard"):
        part = SETS[f"points24/{band}-v1"].first_seeds()
        assert part == [seed for seed, facts in whole.items() if facts["band"] == band]


def test_the_first_episodes_are_those_of_the_whole_set() -> None:
    chosen = SETS["points24/hard-v1"]
    assert chosen.deal(3) == chosen.deal()[:3]
    assert chosen.first_seeds(3) == chosen.first_seeds()[:3]
    assert SETS["ezpoints/test-v1"].first_seeds(2) == [2_000_000, 2_000_001]


@pytest.mark.parametrize("style", ["night", "test"])
def test_the_look_does_not_change_what_is_dealt(style: str) -> None:
    chosen = SETS["points24/test-v1"]
    other = replace(chosen, kwargs=chosen.kwargs | {"style": style})
    assert other.deal(5) == chosen.deal(5)


def test_another_dealing_is_refused() -> None:
    chosen = SETS["ezpoints/test-v1"]
    changed = replace(chosen, kwargs={"deal": "balanced"})
    with pytest.raises(EpisodeSetError, match=r"does not deal the episodes of ezpoints/test-v1.*8a28b2386f5f"):
        changed.deal()


def test_the_fingerprint_covers_seeds_facts_and_order() -> None:
    one, two = Dealt(1, {"cards": ["HA"]}), Dealt(2, {"cards": ["HA"]})
    others = [[two, one], [one], [one, Dealt(2, {"cards": ["H2"]})], [one, Dealt(3, {"cards": ["HA"]})]]
    assert fingerprint([one, two]) not in {fingerprint(other) for other in others}


def test_sets_are_found_by_name_and_pattern() -> None:
    assert [s.name for s in find_sets(["points24/hard-v1", "points24/*-v1"])][:2] == [
        "points24/hard-v1",
        "points24/test-v1",
    ]
    assert len(find_sets(["*"])) == len(SETS)
    with pytest.raises(UnknownNameError, match="Did you mean 'points24/test-v1'"):
        find_sets(["points24/tets-v1"])


def test_names_say_task_and_version_and_arguments_do_not_say_how_a_task_looks() -> None:
    looks = {"image_size", "render_size", "observe", "style", "history", "notes", "scene_text", "labels"}
    for name, chosen in SETS.items():
        assert isinstance(chosen, EpisodeSet)
        assert "/" in name
        assert name.endswith("-v1")
        assert not looks & chosen.kwargs.keys()
