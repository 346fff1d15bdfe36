"""What is measured about episodes, with hand values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gtr_agents.diagnostics import action_log_prob, reads_cards, trajectory_metrics
from gtr_agents.types import Answer, Prompt, Response, Step, Trajectory

PROMPT = Prompt("", np.zeros((1, 1, 3), np.uint8))


def step(
    text: str = "a b",
    *,
    action: str | None = "+",
    valid: bool = True,
    legal: bool = True,
    reward: float = 0.0,
    cards: list[int] | None = None,
    thought: tuple[bool, ...] = (True, True, False),
) -> Step:
    fields = {} if cards is None else {"cards": cards}
    answer = Answer(action=action, error=None if action else "unreadable", valid_format=valid, fields=fields)
    n = len(thought)
    ids, log_probs = np.zeros(n, np.int64), -np.arange(1, n + 1, dtype=np.float32)
    response = Response(text, answer, ids, ids, log_probs, log_probs, np.array(thought), 0.0, entropy=0.5)
    return Step(PROMPT, response, reward, False, False, legal=legal, info={"numbers": [1, 2]})


def episode(*steps: Step, success: bool = False, solvable: bool = True, complete: bool = True) -> Trajectory:
    return Trajectory(list(steps), 0.0, seed=0, success=success, solvable=solvable, complete=complete)


def test_rates_and_lengths_have_hand_values() -> None:
    metrics = trajectory_metrics(
        [
            episode(step(reward=0.0, cards=[1, 2]), step(reward=10.0, cards=[2, 1]), success=True),
            episode(step(action=None, valid=False, legal=False, reward=-1.0, thought=(True,) * 4)),
            episode(step(reward=-1.0), solvable=False),
        ]
    )
    assert metrics["episodes"] == 3
    assert metrics["steps"] == 4
    assert metrics["success_rate"] == pytest.approx(1 / 3)
    assert metrics["success_rate_solvable"] == pytest.approx(1 / 2)
    assert metrics["return"] == pytest.approx(8 / 3)
    assert metrics["episode_length"] == pytest.approx(4 / 3)
    assert metrics["valid_rate"] == metrics["readable_rate"] == metrics["legal_rate"] == 0.75
    assert metrics["cards_accuracy"] == 0.25
    assert metrics["thought_tokens"] == pytest.approx((2 + 2 + 4 + 2) / 4)
    assert metrics["answer_tokens"] == pytest.approx((3 + 3 + 4 + 3) / 4)
    assert metrics["entropy"] == 0.5
    assert metrics["cut_rate"] == 0.0
    assert metrics["action_log_prob"] == pytest.approx(-3.0)  # of the three answers that have an action
    assert metrics["self_bleu"] == 1.0  # one episode with two equal answers


def test_running_episodes_count_for_answers_but_not_for_success() -> None:
    metrics = trajectory_metrics([episode(step(valid=False), complete=False), episode(step(), success=True)])
    assert metrics["success_rate"] == 1.0
    assert metrics["valid_rate"] == 0.5
    assert metrics["episodes"] == 1


def test_what_is_undefined_is_absent() -> None:
    assert trajectory_metrics([]) == {"episodes": 0.0, "steps": 0.0}
    metrics = trajectory_metrics([episode(step(thought=(True,)), solvable=False)])
    assert {"success_rate_solvable", "action_log_prob", "self_bleu"}.isdisjoint(metrics)


def test_success_on_what_can_be_won_is_told_only_where_the_environment_says_what_can() -> None:
    silent = replace(episode(step(), success=True), solvable=None)
    assert "success_rate_solvable" not in trajectory_metrics([silent])
    assert trajectory_metrics([silent, episode(step())])["success_rate_solvable"] == 0.0


def test_cards_are_read_in_order_or_not_at_all() -> None:
    assert reads_cards(step(cards=[1, 2])) is True
    assert reads_cards(step(cards=[2, 1])) is False
    assert reads_cards(step()) is False
    blind = step(cards=[1, 2])
    blind.info = {}
    assert reads_cards(blind) is None


def test_the_confidence_sums_over_the_action() -> None:
    assert action_log_prob(step(thought=(True, False, False))) == pytest.approx(-5.0)


def test_a_cut_answer_is_counted() -> None:
    cut = step()
    cut.response = replace(cut.response, truncated=True)
    assert trajectory_metrics([episode(cut, step())])["cut_rate"] == 0.5
