"""Evaluation: always the same episodes, honest intervals, and pictures of what was played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import CountingEnv, ScriptedActor, text_env, tiny_policy

from gtr_agents.errors import UnknownNameError
from gtr_agents.evaluation import Evaluator, episode_seeds, evaluate, replay_frames
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.types import Trajectory


def to_three(state: str) -> str:
    return "up" if int(state) < 3 else "stop"


def test_success_and_interval_are_those_of_the_episodes() -> None:
    result = Evaluator(CountingEnv, episodes=20)(ScriptedActor(to_three))
    assert result.success_rate == 1.0
    assert result.interval == pytest.approx((0.8389, 1.0), abs=1e-4)  # Wilson, 20 of 20
    assert [t.seed for t in result.trajectories] == list(episode_seeds("test", 20))
    never = Evaluator(CountingEnv, episodes=20)(ScriptedActor(lambda _: "up"))
    assert (never.success_rate, never.interval[0]) == (0.0, 0.0)


def test_settings_are_chosen_on_other_episodes_than_results_are_reported_on() -> None:
    validation, test = episode_seeds("validation", 100_000), episode_seeds("test", 100_000)
    assert set(validation).isdisjoint(test)
    chosen = Evaluator(CountingEnv, episodes=3, split="validation")(ScriptedActor(to_three))
    assert [t.seed for t in chosen.trajectories] == list(validation[:3])
    with pytest.raises(UnknownNameError, match="Did you mean 'validation'"):
        Evaluator(CountingEnv, episodes=3, split="validate")  # type: ignore[arg-type]


def test_every_policy_gets_the_same_hands_however_many_play_at_once() -> None:
    hands = []
    for n_envs in (2, 7):
        evaluator = Evaluator("EZPoints-v0", episodes=9, env_kwargs={"image_size": 96}, n_envs=n_envs)
        for _ in range(2):
            result = evaluator(ScriptedActor(lambda _: "=", lambda _: 0.0))
            hands.append([t.steps[0].info["cards"] for t in result.trajectories])
    assert hands[0] == hands[1] == hands[2] == hands[3]
    assert len({tuple(hand) for hand in hands[0]}) > 3


def test_an_evaluation_can_be_repeated(schooled: Path) -> None:
    evaluator = Evaluator("EZPoints-v0", episodes=6, env_kwargs={"image_size": 96})
    policy = VLMPolicy.from_pretrained(schooled)
    answers = [
        [s.response.text for t in evaluator(policy, greedy=greedy).trajectories for s in t.steps]
        for greedy in (False, True, False, True)
    ]
    assert answers[0] == answers[2]
    assert answers[1] == answers[3]
    assert answers[0] != answers[1]


def test_the_first_episodes_are_the_same_in_a_shorter_evaluation() -> None:
    told: list[Trajectory] = []
    result = Evaluator(CountingEnv, episodes=20)(ScriptedActor(to_three), episodes=5, on_episode=told.append)
    assert [t.seed for t in result.trajectories] == list(episode_seeds("test", 5))
    assert len(told) == 5


def test_the_function_evaluates_a_policy_on_an_environment_id() -> None:
    result = evaluate(tiny_policy(max_new_tokens=4), "EZPoints-v0", episodes=3, env_kwargs={"image_size": 96})
    assert result.success_rate == 0.0
    assert result.metrics["valid_rate"] == 0.0
    assert result.metrics["return"] == -7.0  # six places and one action too many
    assert result.metrics["success_rate_solvable"] == 0.0


def test_an_episode_can_be_played_again_for_pictures() -> None:
    actor = ScriptedActor(lambda state: "5" if not state else "=", lambda _: 0.0)
    [episode] = Evaluator("Points24-v0", episodes=1, env_kwargs={"image_size": 96})(actor).trajectories
    frames, expert, texts = replay_frames(lambda: text_env(render_mode="rgb_array"), episode)
    assert len(frames) == len(episode.steps) + 1
    assert texts == [step.prompt.text.split("|")[1] for step in episode.steps]
    assert len(expert) == len(episode.steps)
    assert all(advice is None or isinstance(advice, str) for advice in expert)
    assert not np.array_equal(frames[0], np.zeros_like(frames[0]))
