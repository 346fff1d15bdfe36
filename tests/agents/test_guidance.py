"""The KL reward: hand values, scopes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gtr_agents.errors import ConfigError, GtrError, TrainingError, UnknownNameError
from gtr_agents.guidance import GUIDANCE, guidance_class
from gtr_agents.guidance.base import Guidance, ThoughtSampling
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.prompts import get_template
from gtr_agents.types import (
    Answer,
    BoolArray,
    Correction,
    FloatArray,
    IntArray,
    Prompt,
    Response,
    Rollout,
    Step,
    Trajectory,
)

GOLDEN = 1e-6


def step(student: list[float], thought: list[bool]) -> Step:
    ids = np.zeros(len(student), np.int64)
    # The sampling temperature's log-probs are different, so that using them by mistake would show.
    sampled = np.full(len(student), -7.0, np.float32)
    log_probs_t1 = np.array(student, np.float32)
    response = Response("", Answer(), ids, ids, sampled, log_probs_t1, np.array(thought, np.bool_), value=0.0)
    return Step(Prompt("", np.zeros((1, 1, 3), np.uint8)), response, 1.5, False, False, format_reward=-2.0)


def rollout(*steps: Step) -> Rollout:
    return Rollout([Trajectory([one], 0.0, seed=0) for one in steps], seconds=0.0)


class Scorer:
    """A teacher whose scores come from a function."""

    template = get_template("compact")

    def __init__(self, scores: Callable[[Sequence[Step]], list[FloatArray]]) -> None:
        self.score = scores

    def divergence(self, steps: Sequence[Step], direction: str) -> list[FloatArray]:
        sign = {"reverse": 1.0, "forward": 2.0}[direction]
        return [np.full(len(s.response.token_ids), sign * i, np.float32) for i, s in enumerate(steps)]

    def thought_field(self, step: Step) -> BoolArray:
        return np.arange(len(step.response.token_ids)) == 1

    def think(self, steps: Sequence[Step], sampling: ThoughtSampling) -> list[Correction]:
        del sampling
        return [Correction(error="nothing to say")] * len(steps)

    def tokenise(self, answer: str) -> tuple[IntArray, BoolArray]:
        raise NotImplementedError(answer)


def minus(k: list[list[float]]) -> Scorer:
    """Return a teacher whose log-probs are the policy's minus k."""
    return Scorer(
        lambda steps: [s.response.log_probs_t1 - np.array(x, np.float32) for s, x in zip(steps, k, strict=True)]
    )


def two_steps() -> Rollout:
    return rollout(step([-1.0, -2.0, -1.5, -0.5], [True, True, True, False]), step([-1.0, -0.25], [False, True]))


K = [[0.2, -0.5, 1.0, 4.0], [2.0, 0.5]]


def test_the_reward_is_minus_beta_times_the_divergence_of_the_thought() -> None:
    data = two_steps()
    metrics = ReverseKL(beta=2.0).annotate(data, minus(K))
    assert [s.guidance_reward for s in data.steps] == pytest.approx([-0.8, -1.0], abs=GOLDEN)
    k3 = (0.178444 + np.exp(-0.5) - 0.5) / 2
    assert metrics == pytest.approx({"guidance/kl": 0.45, "guidance/kl_k3": k3, "guidance/reward": -0.9}, abs=GOLDEN)


def test_the_full_scope_counts_the_action_too() -> None:
    data = two_steps()
    ReverseKL(scope="full").annotate(data, minus(K))
    assert [s.guidance_reward for s in data.steps] == pytest.approx([-5.2 / 4, -2.5 / 2], abs=GOLDEN)


def test_estimator_and_reduction_are_the_configured_ones() -> None:
    data = two_steps()
    ReverseKL(estimator="abs", reduce="sum").annotate(data, minus(K))
    assert [s.guidance_reward for s in data.steps] == pytest.approx([-1.7, -0.5], abs=GOLDEN)


def test_the_teachers_log_probs_are_kept_and_nothing_else_changes() -> None:
    data = two_steps()
    ReverseKL().annotate(data, minus(K))
    first = data.steps[0]
    assert first.teacher_log_probs == pytest.approx([-1.2, -1.5, -2.5, -4.5], abs=GOLDEN)
    assert (first.reward, first.format_reward) == (1.5, -2.0)
    assert first.response.log_probs_t1 == pytest.approx([-1.0, -2.0, -1.5, -0.5])


def test_a_teacher_equal_to_the_policy_gives_nothing() -> None:
    data = two_steps()
    metrics = ReverseKL().annotate(data, minus([[0.0] * 4, [0.0] * 2]))
    assert set(metrics.values()) == {0.0}
    assert all(s.guidance_reward == 0.0 for s in data.steps)


def test_beta_zero_rewards_nothing_but_still_measures() -> None:
    data = two_steps()
    metrics = ReverseKL(beta=0.0).annotate(data, minus(K))
    assert all(s.guidance_reward == 0.0 for s in data.steps)
    assert metrics["guidance/kl"] == pytest.approx(0.45, abs=GOLDEN)


def test_beta_moves_linearly_to_its_final_value_over_the_run() -> None:
    guidance = ReverseKL(beta=2.0, final_beta=1.0)
    rewards = []
    for progress in (0.0, 0.25, 0.5):
        data = two_steps()
        guidance.annotate(data, minus(K), progress)
        rewards.append([s.guidance_reward for s in data.steps])
    assert np.array(rewards) == pytest.approx(np.array([[-0.8, -1.0], [-0.7, -0.875], [-0.6, -0.75]]), abs=GOLDEN)


def test_beta_without_a_final_value_stays_the_same() -> None:
    assert [ReverseKL(beta=0.3).beta_at(progress) for progress in (0.0, 0.5, 1.0)] == [0.3, 0.3, 0.3]


def test_exact_estimators_ask_for_whole_distributions() -> None:
    for estimator, rewards in (("full", [0.0, -1.0]), ("forward", [0.0, -2.0])):
        data = two_steps()
        ReverseKL(estimator=estimator).annotate(data, minus(K))
        assert [s.guidance_reward for s in data.steps] == rewards
        assert data.steps[0].teacher_log_probs == pytest.approx([-1.2, -1.5, -2.5, -4.5], abs=GOLDEN)


def test_the_scope_can_be_the_value_of_the_thought_field_alone() -> None:
    data = two_steps()
    ReverseKL(scope="thoughts_field", estimator="abs").annotate(data, minus(K))
    assert [s.guidance_reward for s in data.steps] == pytest.approx([-0.5, -0.5], abs=GOLDEN)


def test_per_token_moves_the_advantage_of_every_guided_token_and_rewards_nothing() -> None:
    data = two_steps()
    ReverseKL(beta=2.0, estimator="k1", reduce="per_token").annotate(data, minus(K))
    assert [s.guidance_reward for s in data.steps] == [0.0, 0.0]
    assert data.steps[0].token_advantages == pytest.approx([-0.4, 1.0, -2.0, 0.0], abs=GOLDEN)
    assert data.steps[1].token_advantages == pytest.approx([0.0, -1.0], abs=GOLDEN)


def test_an_answer_without_a_thought_is_not_guided() -> None:
    data = rollout(step([-1.0, -2.0], [False, False]))
    ReverseKL().annotate(data, minus([[3.0, 3.0]]))
    assert data.steps[0].guidance_reward == 0.0


def test_an_empty_answer_and_an_empty_rollout_are_not_guided() -> None:
    data = rollout(step([], []))
    assert ReverseKL().annotate(data, minus([[]]))["guidance/kl"] == 0.0
    assert ReverseKL().annotate(rollout(), minus([]))["guidance/reward"] == 0.0


def test_the_scorer_is_asked_once_for_all_steps() -> None:
    calls: list[int] = []

    def scores(steps: Sequence[Step]) -> list[FloatArray]:
        calls.append(len(steps))
        return [s.response.log_probs_t1 for s in steps]

    ReverseKL().annotate(two_steps(), Scorer(scores))
    assert calls == [2]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([np.zeros(4, np.float32)], "2 steps, got 1"),
        ([np.zeros(3, np.float32), np.zeros(2, np.float32)], r"shape \(4,\), one per sampled token, got \(3,\)"),
        ([np.full(4, np.nan, np.float32), np.zeros(2, np.float32)], "NaN or infinity"),
        ([np.zeros(4, np.float32), np.full(2, -np.inf, np.float32)], "NaN or infinity"),
    ],
    ids=["too few", "other length", "nan", "infinite"],
)
def test_scores_that_cannot_be_right_stop_the_run(scores: list[FloatArray], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        ReverseKL().annotate(two_steps(), Scorer(lambda _steps: scores))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beta": -1.0}, ConfigError, "beta must be finite and >= 0, got -1.0"),
        ({"beta": float("nan")}, ConfigError, "beta must be finite"),
        ({"final_beta": -1.0}, ConfigError, "final_beta must be finite and >= 0, got -1.0"),
        ({"estimator": "clipp"}, UnknownNameError, "Did you mean 'clip'"),
        ({"scope": "thoughts"}, UnknownNameError, "Did you mean"),
        ({"reduce": "max"}, UnknownNameError, "mean, per_token, sum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    options: dict[str, object], error: type[GtrError], message: str
) -> None:
    with pytest.raises(error, match=message):
        ReverseKL(**options)  # type: ignore[arg-type]


def test_every_kind_of_guidance_of_the_table_can_be_built() -> None:
    for name in GUIDANCE:
        guidance: Guidance = guidance_class(name)()
        assert guidance.annotate(two_steps(), minus(K))


def test_an_unknown_kind_of_guidance_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'reverse_kl'"):
        guidance_class("reversekl")
