"""The episodes that are kept: a fair choice, followed through the run, with what student and teacher say about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded_run import an_episode
from small_models import text_env

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.algorithms.teacher_view import kl_divergence
from gtr_agents.config import EnvConfig, EvaluationConfig, RunConfig
from gtr_agents.evaluation import EvaluationResult
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.recorder import RunFolder
from gtr_agents.rollout import RolloutCollector
from gtr_agents.samples import choose, compare, record_samples
from gtr_agents.teachers.merged import TeacherManager
from gtr_agents.types import Step, Trajectory


@pytest.mark.parametrize(
    ("outcomes", "n", "chosen"),
    [
        ("wwwlll", 4, [0, 1, 3, 4]),
        ("wwwlll", 3, [0, 1, 3]),
        ("wlllll", 4, [0, 1, 2, 3]),
        ("wwwwwl", 4, [0, 1, 2, 5]),
        ("wxxxx", 4, [0]),  # what cannot be won shows nothing
        ("wl", 0, []),
    ],
)
def test_won_and_lost_episodes_are_chosen_alike(outcomes: str, n: int, chosen: list[int]) -> None:
    episodes = [an_episode(success=o == "w", solvable=o != "x", seed=i) for i, o in enumerate(outcomes)]
    assert [t.seed for t in choose(episodes, n)] == chosen


def test_followed_tasks_are_chosen_however_they_went() -> None:
    episodes = [an_episode(success=seed % 2 == 0, seed=seed) for seed in range(6)]
    assert [t.seed for t in choose(episodes, 2, {1, 3, 4, 99})] == [1, 3, 4]


@pytest.fixture(scope="module")
def trained(schooled: Path) -> PPO:
    """A student that has left its teacher behind."""
    algorithm = PPO(
        VLMPolicy.from_pretrained(schooled),
        easy_env,
        settings=PPOSettings(baseline="tree", gamma=1.0, epochs=1, minibatch_size=8, learning_rate=3e-3),
        rollout=RolloutSettings(n_envs=4, hands=2, attempts=2),
        guidance=ReverseKL(),
        teacher=TeacherManager(),
    )
    algorithm.learn(updates=2)
    return algorithm


def easy_env() -> Any:
    return text_env("EZPoints-v0", illegal="terminate")


def episodes(policy: VLMPolicy) -> list[Trajectory]:
    generator = torch.Generator().manual_seed(0)
    return RolloutCollector(easy_env, 2).play_episodes(policy, [1, 2], generator=generator).trajectories


def played(policy: VLMPolicy) -> list[Step]:
    return [step for trajectory in episodes(policy) for step in trajectory.steps]


def asked(policy: VLMPolicy, steps: list[Step]) -> tuple[list[Any], torch.Tensor]:
    """What a model says about the tokens, and about all others in their places."""
    prompts, ids = [s.prompt for s in steps], [s.response.token_ids for s in steps]
    return policy.score(prompts, ids), policy.distributions(prompts, ids)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_both_models_are_asked_about_the_same_tokens(trained: PPO, role: str) -> None:
    if role == "student":
        steps = played(trained.policy)
    else:
        with trained.as_teacher() as teacher:
            steps = played(teacher)
    comparisons = compare(trained, steps, role)
    assert comparisons is not None
    student, student_all = asked(trained.policy, steps)
    with trained.as_teacher() as policy:
        teacher, teacher_all = asked(policy, steps)
    divergence = kl_divergence(student_all, teacher_all).numpy()
    for i, comparison in enumerate(comparisons):
        n = len(steps[i].response.token_ids)
        assert comparison.student == pytest.approx(student[i], abs=1e-3)
        assert comparison.teacher == pytest.approx(teacher[i], abs=1e-3)
        assert comparison.kl == pytest.approx(divergence[i, :n], abs=1e-4)
    apart = [np.abs(c.student - c.teacher).max() for c in comparisons]
    assert max(apart) > 0.02  # or the check above would see nothing


def test_without_a_teacher_nobody_is_asked(trained: PPO) -> None:
    alone = PPO(trained.policy, easy_env)
    assert compare(alone, played(trained.policy), "student") is None


def test_the_tasks_of_the_start_are_recorded_later_too_and_once(trained: PPO, tmp_path: Path) -> None:
    config = RunConfig(EnvConfig("EZPoints-v0"), evaluation=EvaluationConfig(recorded=1))
    run, (first, second) = RunFolder(tmp_path), episodes(trained.policy)
    record_samples(config, run, EvaluationResult({}, [second]), trained, "start")
    for _ in range(2):
        record_samples(config, run, EvaluationResult({}, [first, second]), trained, "student")
    assert [(e["role"], e["seed"]) for e in run.episodes()] == [("start", 2), ("student", 2)]
    assert [e["steps"][0]["kl"] is None for e in run.episodes()] == [True, False]


def test_what_is_followed_is_among_the_episodes_played_in_between(trained: PPO, tmp_path: Path) -> None:
    config = RunConfig(EnvConfig("EZPoints-v0"), evaluation=EvaluationConfig(recorded=2, interim_episodes=1))
    run = RunFolder(tmp_path)
    record_samples(config, run, EvaluationResult({}, episodes(trained.policy)), trained, "start")
    assert [e["seed"] for e in run.episodes()] == [1]
