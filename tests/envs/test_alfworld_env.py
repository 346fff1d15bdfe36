"""The household environment: the contract, seeds, rewards, limits, texts, and what it must leave alone."""

from __future__ import annotations

import copy
import os
import random  # noqa: TID251 - its global state is what is looked at
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from gtr_envs.alfworld.env import MAX_TEXT, N_ACTIONS, WIN_REWARD
from gtr_envs.alfworld.games import write_games
from gtr_envs.alfworld.households import SPLITS, make_household
from gtr_envs.alfworld.textworld_backend import FastEngine, StockEngine
from gtr_envs.alfworld.wheel import TASK_TYPES, load_world
from gtr_envs.core import IllegalText
from gtr_envs.errors import GameError, OptionError, UnknownNameError
from gtr_envs.testing import check_vision_text_env
from gtr_envs.wrappers import TextAction

pytestmark = pytest.mark.alfworld

GAME = "embedded/train/pick_clean_then_place_in_recep/8"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that was kept before these tests helps them, and nothing stays behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ALFWORLD_DATA", raising=False)
        yield


def household(**kwargs: Any) -> Any:
    return TextAction(gym.make("ALFWorld-v0", **{"image_size": 64, "data": "embedded", **kwargs}))


def won_episode(env: Any, key: str = GAME) -> list[tuple[Any, ...]]:
    """Play what the expert says; returns what reset and every step returned."""
    said: list[tuple[Any, ...]] = [env.reset(seed=0, options={"game": key})]
    while env.unwrapped.is_running:
        said.append(env.step(env.unwrapped.expert_action()))
    return said


# --- the contract -----------------------------------------------------------------------------------------------------


def test_it_keeps_to_the_contract() -> None:
    check_vision_text_env("ALFWorld-v0", image_size=64, data="embedded")


@pytest.mark.parametrize("observe", ["both", "image", "text"])
def test_gymnasium_checks_rendering_too(observe: str) -> None:
    check_env(gym.make("ALFWorld-v0", image_size=64, data="embedded", observe=observe).unwrapped)


EPISODES = """
import hashlib, gymnasium, numpy, gtr_envs
env = gymnasium.make("ALFWorld-v0", image_size=96, data="embedded", games=60, max_steps=12, history=2)
rng, digest, games = numpy.random.default_rng(1), hashlib.sha256(), set()
for episode in range(20):
    observation, info = env.reset(seed=9 if episode == 0 else None)
    over = False
    while not over:
        games.add(info["game"])
        for part in (observation["image"].tobytes(), observation["text"].encode(), info["action_mask"].tobytes()):
            digest.update(part)
        told = {name: value for name, value in info.items() if name != "action_mask"}
        digest.update(repr(sorted(told.items())).encode())
        expert = env.unwrapped.action_from_text(env.unwrapped.expert_action())
        action = expert if rng.random() < 0.5 else int(rng.integers(len(info["legal_actions"]) + 1))
        observation, reward, terminated, truncated, info = env.step(action)
        digest.update(repr((reward, terminated, truncated)).encode())
        over = terminated or truncated
print(digest.hexdigest(), len(games))
"""


def test_two_processes_with_one_seed_play_the_same_twenty_episodes(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", EPISODES],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(tmp_path / seed)},
        )
        for seed in ("1", "2")
    ]
    ours, theirs = (process.communicate()[0].split() for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert ours == theirs
    assert int(ours[1]) > 10


def test_loading_the_engine_draws_from_no_global_generator() -> None:
    """Only a fresh process shows it: the engine's modules draw when they are imported."""
    code = (
        "import random, numpy as np, gymnasium, gtr_envs\n"
        "before = random.getstate(), repr(np.random.get_state())\n"
        "gymnasium.make('ALFWorld-v0').close()\n"
        "assert before == (random.getstate(), repr(np.random.get_state()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_belongs_to_the_program_is_left_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "3"])
    generator, legacy = random.getstate(), copy.deepcopy(np.random.get_state())  # noqa: NPY002
    output, variables, folder = sys.stdout, dict(os.environ), Path.cwd()
    env = household(render_mode="rgb_array")
    for seed in range(3):
        env.reset(seed=seed)
        for action in env.unwrapped.legal_actions[:3]:
            env.step(action)
            env.render()
    env.close()
    assert random.getstate() == generator
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), legacy, strict=True))  # noqa: NPY002
    assert sys.argv == ["train.py", "--lr", "3"]
    assert sys.stdout is output
    assert (dict(os.environ), Path.cwd()) == (variables, folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_vectors_play_what_single_environments_play(kind: str) -> None:
    def make() -> Any:
        return household()

    single, makers = household(), [make, make]
    envs = SyncVectorEnv(makers) if kind == "sync" else AsyncVectorEnv(makers, shared_memory=False)
    expected = [single.reset(seed=seed)[0] for seed in (4, 5)]
    observations = envs.reset(seed=[4, 5])[0]
    assert tuple(observations["text"]) == tuple(each["text"] for each in expected)
    assert np.array_equal(observations["image"], [each["image"] for each in expected])
    stepped = envs.step(("inventory", "no such command"))
    assert stepped[4]["legal"].tolist() == [True, False]
    assert stepped[1].tolist() == [0.0, -1.0]
    assert "not carrying anything" in stepped[0]["text"][0]
    envs.close()
    single.close()


# --- rewards and endings ----------------------------------------------------------------------------------------------


def test_the_default_reward_pays_for_progress_once() -> None:
    env = household()
    said = won_episode(env)
    rates = [step[-1]["goal_rate"] for step in said]
    for before, rate, (_, reward, terminated, truncated, info) in zip(rates, rates[1:], said[1:], strict=False):
        assert reward == pytest.approx(rate - before + WIN_REWARD * (rate == 1))
        assert (terminated, truncated, "success" in info) == (rate == 1, False, rate == 1)
    # Some of the goal may hold from the beginning: here there is something clean already.
    assert 0 < rates[0] < rates[-1] == 1
    assert said[-1][-1]["success"] is True
    assert sum(step[1] for step in said[1:]) == pytest.approx(WIN_REWARD + 1 - rates[0])
    assert [step[-1]["expert_steps"] for step in said] == [*range(len(said) - 1, -1, -1)]
    env.close()


def test_the_published_reward_pays_the_share_at_every_step() -> None:
    env = household(reward="published")
    said = won_episode(env)
    assert [step[1] for step in said[1:-1]] == [step[-1]["goal_rate"] for step in said[1:-1]]
    assert any(0 < step[1] < 1 for step in said[1:-1])
    assert said[-1][1] == WIN_REWARD + 1
    # Whoever lingers with a task half done is paid for it, illegal commands or not.
    rate = env.reset(options={"game": GAME})[1]["goal_rate"]
    assert env.step("inventory")[1] == rate > 0
    assert env.step("fly")[1] == rate - 1
    env.close()


def test_illegal_commands_cost_one_change_nothing_and_count_as_steps() -> None:
    env = household(max_steps=4)
    _, info = env.reset(seed=0, options={"game": GAME})
    before = info["legal_actions"]
    for n, text in enumerate(("fly", "go to", "", "take all"), start=1):
        _, reward, terminated, truncated, info = env.step(text)
        assert (reward, terminated, truncated, info["legal"]) == (-1.0, False, n == 4, False)
        assert info["legal_actions"] == before
    assert info["success"] is False
    env.close()


def test_indices_behind_the_last_command_are_illegal() -> None:
    env = gym.make("ALFWorld-v0", image_size=64, data="embedded")
    _, info = env.reset(seed=0)
    assert env.action_space == gym.spaces.Discrete(N_ACTIONS)
    assert info["action_mask"].tolist() == [int(i < len(info["legal_actions"])) for i in range(N_ACTIONS)]
    assert info["action_mask"].dtype == np.int8
    for action in (len(info["legal_actions"]), N_ACTIONS - 1):
        assert env.step(action)[4]["legal"] is False
    assert env.step(0)[4]["legal"] is True
    env.close()


@pytest.mark.parametrize(("limit", "n_steps"), [(3, 3), (5, 5), (0, 9)])
def test_the_same_command_again_and_again_cuts_the_episode(limit: int, n_steps: int) -> None:
    env = household(repeat_limit=limit, max_steps=9)
    env.reset(seed=1)
    cut = [env.step("inventory")[3] for _ in range(n_steps)]
    assert cut == [False] * (n_steps - 1) + [True]
    env.close()


def test_other_commands_in_between_keep_the_episode_alive() -> None:
    env = household(repeat_limit=2, max_steps=7)
    env.reset(seed=1)
    assert not any(env.step(command)[3] for command in ("inventory", "look") * 3)
    assert env.step("look")[3] is True
    env.close()


def test_a_task_that_is_done_with_the_last_step_is_won_and_not_cut() -> None:
    env = household()
    n_steps = len(won_episode(env)) - 1
    for limit, success in ((n_steps, True), (n_steps - 1, False)):
        tight = household(max_steps=limit)
        *_, terminated, truncated, info = won_episode(tight)[-1]
        assert (terminated, truncated, info["success"]) == (success, not success, success)
        tight.close()
    env.close()


# --- games ------------------------------------------------------------------------------------------------------------


def test_a_game_can_be_asked_for_and_is_rewound() -> None:
    env = household(split="valid_unseen")
    first, second = won_episode(env), won_episode(env)
    assert first[0][1]["game"] == GAME
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        assert ours[0]["text"] == theirs[0]["text"]
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])
        assert ours[1:-1] == theirs[1:-1]
    assert env.reset(seed=3)[1]["split"] == "valid_unseen"
    env.close()


@pytest.mark.parametrize("key", ["embedded/train/nothing/1", "embedded/train", "alfred", ""])
def test_a_key_that_names_no_game_is_refused_and_the_next_reset_works(key: str) -> None:
    env = household()
    with pytest.raises((GameError, UnknownNameError)):
        env.reset(options={"game": key})
    assert env.reset(options={"game": GAME})[1]["game"] == GAME
    env.close()


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(OptionError, match="as a key"):
        household().reset(options={"game": 3})
    with pytest.raises(OptionError, match="list of names"):
        household(task_types="look_at_obj_in_light")
    for wrong in ({"max_steps": 0}, {"repeat_limit": -1}, {"history": -2}, {"games": 0}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            household(**wrong)
    for wrong in ({"reward": "increased"}, {"split": "test"}, {"observe": "sound"}):
        with pytest.raises(UnknownNameError):
            household(**wrong)


@pytest.mark.parametrize("split", SPLITS)
def test_the_split_and_the_types_decide_what_is_drawn(split: str) -> None:
    env = household(split=split, task_types=TASK_TYPES[1:3], games=8)
    world = load_world()
    rooms = set(world.unseen_scenes if split == "valid_unseen" else world.train_scenes)
    infos = [env.reset(seed=seed)[1] for seed in range(12)]
    assert {info["task_type"] for info in infos} == set(TASK_TYPES[1:3])
    assert {info["split"] for info in infos} == {split}
    assert {info["source"] for info in infos} == {"embedded"}
    assert {info["scene"] for info in infos} <= rooms
    env.close()


@pytest.mark.parametrize("grammar", ["today's", "old"])
def test_games_on_disk_are_played_where_the_variable_names_them(
    grammar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in write_games(tmp_path, "valid_seen", 6):
        if grammar == "old":
            text = file.read_text()
            changed = text.replace('\\"move {o} to {r}\\"', '\\"put {o} in/on {r}\\"')
            assert changed != text
            file.write_text(changed)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    env = household(data=None, split="valid_seen", task_types=["pick_and_place_simple"])
    said = won_episode(env, env.reset(seed=0)[1]["game"])
    info = said[-1][-1]
    assert (info["source"], info["split"], info["success"]) == ("alfred", "valid_seen", True)
    assert info["task"] in said[0][0]["text"]
    # Whoever says it in the other grammar is understood.
    env.reset(options={"game": info["game"]})
    while env.unwrapped.is_running:
        command = env.unwrapped.expert_action()
        verb = "put" if command.startswith("put") else "move"
        if command.startswith(("put ", "move ")):
            assert verb == ("put" if grammar == "old" else "move")
            thing, place = command.removeprefix(f"{verb} ").split(" in/on " if verb == "put" else " to ")
            command = f"move {thing} to {place}" if verb == "put" else f"put {thing} in/on {place}"
        *_, info = env.step(command)
        assert info["legal"] is True
    assert info["success"] is True
    env.close()


def test_a_broken_game_is_an_error_and_the_next_one_is_played(tmp_path: Path) -> None:
    broken, _ = write_games(tmp_path, "train", 12)[:2]
    text = broken.read_text()
    broken.write_text(text.replace("(:init", "(:init (atLocation agent1 nowhere)"))
    env = household(data=tmp_path, task_types=TASK_TYPES[:1])
    keys = env.unwrapped.source.keys
    assert len(keys) == 2
    bad = str(broken.parent.relative_to(tmp_path / "json_2.1.1" / "train"))
    [good] = set(keys) - {bad}
    before = env.reset(options={"game": good})[0]["text"]
    for _ in range(2):
        with pytest.raises(GameError, match="cannot read this game"):
            env.reset(options={"game": bad})
        assert env.reset(options={"game": good})[0]["text"] == before
    env.close()


# --- commands ---------------------------------------------------------------------------------------------------------


def test_a_number_is_never_taken_for_another_that_begins_alike() -> None:
    world = load_world()
    numbers = (n for n in range(400) if _n_drawers(make_household(world, "train", TASK_TYPES[0], n)) >= 11)
    env = household()
    _, info = env.reset(options={"game": f"embedded/train/{TASK_TYPES[0]}/{next(numbers)}"})
    inner = env.unwrapped
    commands = [command for command in info["legal_actions"] if command.startswith("go to drawer 1")]
    assert {"go to drawer 1", "go to drawer 10", "go to drawer 11"} <= set(commands)
    for command in commands:
        for said in (command, f" {command.upper()}. ", command.replace(" ", "  ")):
            action = inner.action_from_text(said)
            assert inner.action_tokens[action] == command
    for wrong in ("go to drawer", "go to drawer 111", "drawer 1", "I go to drawer 1"):
        assert isinstance(inner.action_from_text(wrong), IllegalText)
    assert "drawer 1." in env.step("go to drawer 1")[0]["text"]
    env.close()


def _n_drawers(made: Any) -> int:
    return sum(receptacle.kind == "Drawer" for receptacle in made.scene.receptacles)


def test_no_room_has_more_commands_than_there_are_actions() -> None:
    world, rng, largest = load_world(), np.random.default_rng(0), 0
    found = [
        (make_household(world, split, t, n), split, t, n) for split in SPLITS for t in TASK_TYPES for n in range(60)
    ]
    # The rooms with the most places and the fullest of them have the longest lists.
    found.sort(key=lambda each: -len(each[0].scene.receptacles) - _most_in_one(each[0]))
    env = household(max_steps=1000)
    for _, split, task_type, number in found[:5]:
        _, info = env.reset(options={"game": f"embedded/{split}/{task_type}/{number}"})
        for _ in range(40):
            largest = max(largest, len(info["legal_actions"]))
            assert len(env.unwrapped.action_tokens) == N_ACTIONS
            takes = [command for command in info["legal_actions"] if command.startswith(("take", "open"))]
            info = env.step(str(rng.choice(takes or info["legal_actions"])))[-1]
            if not env.unwrapped.is_running:
                break
    assert 50 <= largest <= N_ACTIONS
    env.close()


def _most_in_one(made: Any) -> int:
    places = [thing.place for thing in made.things]
    return max(places.count(place) for place in places)


# --- texts ------------------------------------------------------------------------------------------------------------


def test_the_text_is_the_task_and_what_the_engine_says() -> None:
    env = household()
    said = won_episode(env)
    sentence = said[0][1]["task"]
    assert said[0][0]["text"].splitlines()[-1] == f"Task: {sentence}"
    assert "Looking quickly around you" in said[0][0]["text"]
    for observation, *_, info in said[1:]:
        assert observation["text"].endswith(f"\nTask: {sentence}")
        assert "Commands so far" not in observation["text"]
        assert info["task"] == sentence
        assert len(observation["text"]) < MAX_TEXT
    assert said[1][0]["text"].startswith("You arrive at")
    env.close()


def test_a_cut_that_is_paid_for_is_a_termination() -> None:
    for options, ending in (({"max_steps": 3}, 3), ({"repeat_limit": 2}, 2)):
        env = household(**options, cut_reward=-3.0)
        env.reset(seed=0)
        steps = [env.step("inventory") for _ in range(ending)]
        assert [step[1] for step in steps] == [0.0] * (ending - 1) + [-3.0]
        assert [step[2:4] for step in steps] == [(False, False)] * (ending - 1) + [(True, False)]
        assert steps[-1][4]["success"] is False
        env.close()
    env = household(max_steps=100, cut_reward=-3.0)
    assert won_episode(env)[-1][1] > 50
    env.close()


@pytest.mark.parametrize("history", [0, 1, 2, -1])
def test_the_last_commands_are_told_if_asked_for(history: int) -> None:
    env = household(history=history)
    env.reset(seed=0, options={"game": GAME})
    for said in ("inventory", "fly", " LOOK. ", "help"):
        observation = env.step(said)[0]
    told = [line for line in observation["text"].splitlines() if line.startswith("Commands so far: ")]
    commands = ["inventory", "fly", "look", "help"]
    shown = {0: [], 1: commands[-1:], 2: commands[-2:], -1: commands}[history]
    assert told == ([f"Commands so far: {', '.join(shown)}"] if shown else [])
    env.close()


def test_without_scene_text_only_the_task_is_told() -> None:
    env = household(scene_text=False)
    said = won_episode(env)
    assert {step[0]["text"] for step in said} == {f"Task: {said[0][1]['task']}"}
    pictures = {step[0]["image"].tobytes() for step in said[:-1]}
    assert len(pictures) > 3
    env.close()


def test_what_is_observed_is_what_was_asked_for() -> None:
    image, text, both = (household(observe=observe, scene_text=False) for observe in ("image", "text", "both"))
    for only, told, all_of_it in zip(won_episode(image), won_episode(text), won_episode(both), strict=True):
        assert only[0].keys() == {"image"}
        assert told[0].keys() == {"text"}
        assert all_of_it[0].keys() == {"image", "text"}
        assert np.array_equal(only[0]["image"], all_of_it[0]["image"])
        assert told[0]["text"].endswith(all_of_it[0]["text"])
        assert "Carrying: " in told[0]["text"]
    assert "picture" in image.unwrapped.instructions
    assert "picture" not in text.unwrapped.instructions
    for env in (image, text, both):
        env.close()


# --- the engine behind it ---------------------------------------------------------------------------------------------


def test_a_killed_process_is_an_error_and_not_a_hang() -> None:
    """Parallel environments are processes of Gymnasium's; what it says of one that is gone is kept."""
    several: Any = gym.make_vec(
        "ALFWorld-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False, "context": "spawn"},
        data="embedded",
        image_size=64,
    )
    several.reset(seed=0)
    os.kill(several.processes[1].pid, signal.SIGKILL)
    several.processes[1].join()
    with pytest.raises((EOFError, ConnectionError)):
        several.step([0, 0])
    several.close(terminate=True)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="TextWorld's own environment fails on Python 3.13")
def test_the_stock_engine_makes_the_same_episode() -> None:
    ours, theirs = household(), household()
    theirs.unwrapped._running_backend()._engine = StockEngine()
    for fast, stock in zip(won_episode(ours), won_episode(theirs), strict=True):
        assert fast[0]["text"] == stock[0]["text"]
        assert np.array_equal(fast[0]["image"], stock[0]["image"])
        assert fast[1:-1] == stock[1:-1]
        assert fast[-1]["legal_actions"] == stock[-1]["legal_actions"]
    assert isinstance(ours.unwrapped._backend._engine, FastEngine)
    ours.close()
    theirs.close()
