"""Hand values of GAE and its relatives (method reference, section 20.3), with Stable-Baselines3 as oracle."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from gtr_agents.advantages import Placement, gae, normalise, trajectory_advantages
from gtr_agents.types import Answer, Prompt, Response, Step, Trajectory

GOLDEN = 1e-6
VALUES = [1.0, 2.0, 3.0]


def make_trajectory(
    rewards: list[float], format_reward: float, kl: list[float], bootstrap_value: float = 0.0
) -> Trajectory:
    prompt = Prompt("", np.zeros((1, 1, 3), np.uint8))
    steps = []
    for reward, value, divergence in zip(rewards, VALUES, kl, strict=True):
        ids, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
        response = Response("", Answer(), ids, ids, floats, floats, np.zeros(0, np.bool_), value)
        step = Step(prompt, response, reward, terminated=False, truncated=False)
        step.format_reward, step.guidance_reward = format_reward, -divergence
        steps.append(step)
    return Trajectory(steps, bootstrap_value, seed=0)


def test_a_terminated_episode_has_the_hand_values() -> None:
    advantages, returns = gae([0, 0, 10], VALUES, 0.0, gamma=0.9, lam=0.95)
    assert advantages == pytest.approx([6.515675, 6.685, 7], abs=GOLDEN)
    assert returns == pytest.approx([7.515675, 8.685, 10], abs=GOLDEN)
    assert normalise(advantages) == pytest.approx([-0.886437, -0.197555, 1.083992], abs=GOLDEN)


def test_a_truncated_episode_bootstraps_from_the_final_state() -> None:
    advantages, returns = gae([0, 0, 10], VALUES, 4.0, gamma=0.9, lam=0.95)
    assert advantages == pytest.approx([9.147365, 9.763, 10.6], abs=GOLDEN)
    assert returns == pytest.approx([10.147365, 11.763, 13.6], abs=GOLDEN)


@pytest.mark.parametrize(
    ("first_bootstrap", "expected", "targets"),
    [
        (0.0, [7.64, 8, 0.6], [8.64, 10, 3.6]),
        (5.0, [11.4875, 12.5, 0.6], [12.4875, 14.5, 3.6]),
    ],
    ids=["terminated", "truncated"],
)
def test_an_episode_that_ends_inside_the_rollout_does_not_see_the_next_one(
    first_bootstrap: float, expected: list[float], targets: list[float]
) -> None:
    first = gae([0, 10], VALUES[:2], first_bootstrap, gamma=0.9, lam=0.95)
    second = gae([0], VALUES[2:], 4.0, gamma=0.9, lam=0.95)
    assert [*first[0], *second[0]] == pytest.approx(expected, abs=GOLDEN)
    assert [*first[1], *second[1]] == pytest.approx(targets, abs=GOLDEN)


def test_gae_equals_the_buffer_of_stable_baselines3() -> None:
    rng = np.random.default_rng(0)
    lengths, n = [3, 1, 7, 5], 16
    rewards, values = rng.normal(size=n).astype(np.float32), rng.normal(size=n).astype(np.float32)
    bootstrap = 1.7  # the last episode is cut, the others terminate
    box = gymnasium.spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(n, box, box, gamma=0.93, gae_lambda=0.8)
    starts = {0, 3, 4, 11}
    for t in range(n):
        start = np.array([t in starts])
        zero = np.zeros((1, 1), np.float32)
        buffer.add(zero, zero, rewards[t : t + 1], start, torch.tensor(values[t : t + 1]), torch.zeros(1))
    buffer.compute_returns_and_advantage(torch.tensor([bootstrap]), dones=np.array([False]))
    ends = np.cumsum(lengths)
    parts = [
        gae(rewards[e - k : e], values[e - k : e], bootstrap if e == n else 0.0, gamma=0.93, lam=0.8)
        for k, e in zip(lengths, ends, strict=True)
    ]
    assert np.concatenate([part[0] for part in parts]) == pytest.approx(buffer.advantages[:, 0], abs=1e-5)
    assert np.concatenate([part[1] for part in parts]) == pytest.approx(buffer.returns[:, 0], abs=1e-5)


def test_gae_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="one reward and one value per step"):
        gae([0.0, 1.0], [1.0], 0.0)


def test_guidance_in_the_reward_enters_before_gae() -> None:
    advantages, returns = trajectory_advantages(make_trajectory([0, 0, 10], 3.0, [0.4, 0.0, 1.0]))
    assert advantages == pytest.approx([13.142725, 11.395, 9], abs=GOLDEN)
    assert returns == pytest.approx([14.142725, 13.395, 12], abs=GOLDEN)
    assert normalise(advantages) == pytest.approx([0.944081, 0.103741, -1.047822], abs=GOLDEN)


def test_guidance_on_the_advantage_stays_out_of_the_value_target() -> None:
    trajectory = make_trajectory([0, 0, 10], 3.0, [0.4, 0.0, 1.0])
    advantages, returns = trajectory_advantages(trajectory, placement="advantage")
    assert advantages == pytest.approx([13.87375, 12.25, 9], abs=GOLDEN)
    assert returns == pytest.approx([15.27375, 14.25, 13], abs=GOLDEN)
    assert normalise(advantages) == pytest.approx([0.872724, 0.218433, -1.091157], abs=GOLDEN)


def test_the_trajectory_brings_its_bootstrap_value() -> None:
    advantages, _ = trajectory_advantages(make_trajectory([0, 0, 10], 0.0, [0.0] * 3, bootstrap_value=4.0))
    assert advantages == pytest.approx([9.147365, 9.763, 10.6], abs=GOLDEN)


def test_an_unknown_placement_is_refused() -> None:
    placement: Placement = "return"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="'reward' or 'advantage', got 'return'"):
        trajectory_advantages(make_trajectory([0, 0, 0], 0.0, [0.0] * 3), placement=placement)


def test_an_invalid_step_costs_its_format_penalty_and_its_task_reward_only() -> None:
    trajectory = make_trajectory([-1, 0, 0], -2.0, [0.0] * 3)
    trajectory.steps = trajectory.steps[:1]
    _, returns = trajectory_advantages(trajectory)
    assert returns == pytest.approx([-3.0], abs=GOLDEN)


def test_normalising_fewer_than_two_steps_gives_zero() -> None:
    assert normalise([5.0]).tolist() == [0.0]
    assert normalise([]).tolist() == []


def test_normalising_equal_advantages_gives_zero() -> None:
    assert normalise([5.0, 5.0, 5.0]).tolist() == [0.0, 0.0, 0.0]
