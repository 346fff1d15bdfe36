"""The tree baseline: attempts at one task compared state by state, with hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from gtr_agents.baselines import returns_to_go, tree_advantages
from gtr_agents.types import Answer, Prompt, Response, Step, Trajectory


def episode(
    path: list[tuple[str, float]], seed: int = 0, bootstrap: float = 0.0, extra: tuple[float, float] = (0.0, 0.0)
) -> Trajectory:
    """An episode through states with rewards; the last state's action ended it."""
    none = np.zeros(1, np.float32)
    response = Response("", Answer(), np.zeros(1, np.int64), np.zeros(1, np.int64), none, none, none > 0, 0.0)
    image = np.zeros((1, 1, 3), np.uint8)
    steps = [
        Step(Prompt(text, image), response, reward, i == len(path) - 1, False, True, extra[0], extra[1])
        for i, (text, reward) in enumerate(path)
    ]
    return Trajectory(steps, bootstrap, seed)


def advantages(*trajectories: Trajectory, **options: float) -> list[list[float]]:
    return [a.tolist() for a in tree_advantages(trajectories, **options)]


def test_returns_to_go_have_hand_values() -> None:
    assert returns_to_go([1.0, 0.0, 2.0], 0.5).tolist() == [1.5, 1.0, 2.0]
    assert returns_to_go([1.0, 0.0], 0.5, bootstrap_value=4.0).tolist() == [2.0, 2.0]
    assert returns_to_go([], 0.5).tolist() == []


def test_the_first_state_is_compared_with_the_other_attempts() -> None:
    found = advantages(episode([("", 6.0)]), episode([("", 0.0)]), episode([("", 3.0)]))
    assert found == [[6.0 - 1.5], [0.0 - 4.5], [3.0 - 3.0]]


def test_a_state_nobody_else_saw_is_compared_with_the_value_of_the_state_before() -> None:
    # Returns 1 and 0; v("") is 0 for the first and 1 for the second; "a" and "b" inherit it.
    found = advantages(episode([("", 0.0), ("a", 1.0)]), episode([("", 0.0), ("b", 0.0)]))
    assert found == [[1.0, 1.0], [-1.0, -1.0]]


def test_the_value_of_a_shared_state_is_shrunk_towards_its_parents() -> None:
    # Three attempts, returns 8, 2, 2; the first two meet again in "a".
    found = advantages(
        episode([("", 0.0), ("a", 8.0)]), episode([("", 0.0), ("a", 2.0)]), episode([("", 0.0), ("b", 2.0)])
    )
    # v("") is 2, 5, 5. v("a") for the first is (2 + 1 * 2) / 2 = 2, for the second (8 + 1 * 5) / 2 = 6.5.
    assert found == [[6.0, 6.0], [-3.0, -4.5], [-3.0, -3.0]]


def test_a_heavier_prior_trusts_the_parent_more() -> None:
    attempts = [episode([("", 0.0), ("a", 8.0)]), episode([("", 0.0), ("a", 2.0)]), episode([("", 0.0), ("b", 2.0)])]
    # v("a") for the second is (8 + 3 * 5) / 4 = 5.75.
    assert advantages(*attempts, prior_weight=3.0)[1] == [-3.0, -3.75]


def test_other_tasks_do_not_count() -> None:
    found = advantages(episode([("", 1.0)], seed=1), episode([("", 0.0)], seed=1), episode([("", 50.0)], seed=2))
    assert found == [[1.0], [-1.0], [0.0]]


def test_attempts_that_agree_and_a_single_attempt_give_nothing() -> None:
    assert advantages(episode([("", 0.0), ("a", 5.0)]), episode([("", 0.0), ("a", 5.0)])) == [[0.0, 0.0]] * 2
    assert advantages(episode([("", 0.0), ("a", 5.0)])) == [[0.0, 0.0]]
    assert advantages() == []


def test_all_rewards_discount_and_bootstrap_enter() -> None:
    # Per step reward + format + guidance = 0 + 1 - 0.5; the first ends in V = 4, the second in 0; gamma 0.5.
    first = episode([("", 0.0), ("a", 0.0)], bootstrap=4.0, extra=(1.0, -0.5))
    second = episode([("", 0.0), ("a", 0.0)], extra=(1.0, -0.5))
    # To go: 0.5 + 0.5 * (0.5 + 0.5 * 4) = 1.75 and 2.5; 0.75 and 0.5.
    found = advantages(first, second, gamma=0.5)
    # v("a"): for the first (0.5 + 0.75) / 2, for the second (2.5 + 1.75) / 2.
    assert found[0] == pytest.approx([1.75 - 0.75, 2.5 - 0.625])
    assert found[1] == pytest.approx([0.75 - 1.75, 0.5 - 2.125])


def test_an_attempt_that_comes_back_to_a_state_is_not_compared_with_itself() -> None:
    # An illegal token leaves the formula as it is. Returns of the first: 4 and 5; of the second: 1.
    first, second = advantages(episode([("", -1.0), ("", 5.0)]), episode([("", 1.0)]))
    # v("") is 1 for the first at both visits; for the second the mean of both visits.
    assert first == [3.0, 4.0]
    assert second == [1.0 - 4.5]


def test_the_baseline_does_not_depend_on_the_own_outcome() -> None:
    others = [episode([("", 0.0), ("a", 1.0)]), episode([("", 0.0), ("a", 3.0)])]
    for own in (0.0, 100.0):
        found = advantages(episode([("", 0.0), ("a", own)]), *others)[0]
        assert [own - x for x in found] == pytest.approx([2.0, 2.0])
