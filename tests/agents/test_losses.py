"""Hand values of losses and KL estimators (method reference, section 20), their masks and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gtr_agents.errors import UnknownNameError
from gtr_agents.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    cosine_learning_rate,
    kl_terms,
    masked_mean,
    masked_sum,
    reduce_terms,
    token_policy_loss,
    turn_log_prob,
)

GOLDEN = 1e-6
NAN = float("nan")


def policy_loss_at(ratio: float, advantage: float, **options: float) -> float:
    new, old = torch.tensor([math.log(ratio)]), torch.zeros(1)
    return float(clipped_policy_loss(new, old, torch.tensor([advantage]), **options)[0])


# --- reductions


def test_masked_reductions_ignore_what_is_not_marked_even_nan() -> None:
    values = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_sum(values, mask).item() == 9.0
    assert masked_mean(values, mask).item() == 3.0
    assert masked_sum(values, mask, dim=-1).tolist() == [4.0, 5.0]
    assert masked_mean(values, mask, dim=-1).tolist() == [2.0, 5.0]


def test_a_mean_over_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool), dim=-1).tolist() == [0.0, 0.0]


def test_a_mask_may_be_broadcast() -> None:
    assert masked_mean(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([True, False])).item() == 2.0


def test_a_long_answer_is_summed_in_float32_whatever_its_type() -> None:
    log_probs = torch.full((1, 512), -0.013, dtype=torch.bfloat16)
    exact = log_probs.double().sum().item()
    mask = torch.ones(1, 512, dtype=torch.bool)
    result = turn_log_prob(log_probs, ~mask, mask, thought_coef=0.5)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(exact, abs=1e-5)


# --- turn log-prob


@pytest.mark.parametrize(("thought_coef", "expected"), [(1.0, -1.05), (0.5, -0.75), (0.2, -0.57), (0.0, -0.45)])
def test_turn_log_prob_has_the_hand_values(thought_coef: float, expected: float) -> None:
    log_probs = torch.tensor([[-0.1, -0.2, -0.3, -0.05, -0.4, -9.0]])
    thought = torch.tensor([[True, True, True, False, False, False]])
    mask = torch.tensor([[True, True, True, True, True, False]])
    assert turn_log_prob(log_probs, thought, mask, thought_coef).item() == pytest.approx(expected, abs=GOLDEN)


def test_padding_is_out_even_where_the_thought_mask_marks_it() -> None:
    log_probs, thought = torch.tensor([[-1.0, -7.0]]), torch.tensor([[True, True]])
    assert turn_log_prob(log_probs, thought, torch.tensor([[True, False]]), 1.0).item() == -1.0


def test_gradient_of_the_turn_log_prob_is_the_weight_of_each_token() -> None:
    log_probs = torch.zeros(1, 3, requires_grad=True)
    thought, mask = torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]])
    turn_log_prob(log_probs, thought, mask, 0.5).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[0.5, 1.0, 0.0]]


# --- policy loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"), [(1.2, 1, -1.1), (1.2, -1, 1.2), (0.8, 1, -0.8), (0.8, -1, 0.9)]
)
def test_clipped_policy_loss_has_the_hand_values(ratio: float, advantage: float, expected: float) -> None:
    assert policy_loss_at(ratio, advantage, clip_range=0.1) == pytest.approx(expected, abs=GOLDEN)


def test_at_ratio_one_the_gradient_is_minus_the_advantage_over_the_batch() -> None:
    new = torch.zeros(2, requires_grad=True)
    clipped_policy_loss(new, torch.zeros(2), torch.tensor([3.0, -1.0]))[0].backward()
    assert new.grad is not None
    assert new.grad.tolist() == [-1.5, 0.5]


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"), [(1.2, 1, False), (1.2, -1, True), (0.8, -1, False), (1.05, 1, True)]
)
def test_the_gradient_stops_at_the_clip_boundary(ratio: float, advantage: float, moves: bool) -> None:
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    clipped_policy_loss(new, torch.zeros(1), torch.tensor([float(advantage)]))[0].backward()
    assert new.grad is not None
    assert bool(new.grad[0] != 0) is moves


def test_above_the_guard_only_the_clipped_term_is_used() -> None:
    assert policy_loss_at(9.0, -1.0) == pytest.approx(9.0, abs=1e-5)
    assert policy_loss_at(11.0, -1.0) == pytest.approx(1.1, abs=GOLDEN)


def test_an_overflowing_ratio_gives_a_finite_loss_and_a_zero_gradient() -> None:
    new = torch.tensor([500.0], requires_grad=True)
    loss, metrics = clipped_policy_loss(new, torch.zeros(1), torch.tensor([-1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(1.1, abs=GOLDEN)
    assert new.grad is not None
    assert new.grad.tolist() == [0.0]
    assert metrics["ratio_guard_fraction"].item() == 1.0


def test_a_nan_log_prob_stays_visible_in_the_loss() -> None:
    loss, _ = clipped_policy_loss(torch.tensor([NAN]), torch.zeros(1), torch.ones(1))
    assert loss.isnan().item()


def test_policy_metrics_have_hand_values() -> None:
    new = torch.tensor([0.0, 0.2, -0.05, 3.0], requires_grad=True)
    _, metrics = clipped_policy_loss(new, torch.zeros(4), torch.ones(4))
    assert metrics["clip_fraction"].item() == 0.5
    assert metrics["ratio_guard_fraction"].item() == 0.25
    assert metrics["ratio_error"].item() == 3.0
    expected = sum(math.exp(x) - 1 - x for x in (0.2, -0.05, 3.0)) / 4
    assert metrics["approx_kl"].item() == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in metrics.values())


def test_token_loss_averages_over_the_tokens_of_a_step_then_over_steps() -> None:
    new = torch.tensor([[math.log(1.2), math.log(0.8), 5.0], [math.log(1.05), -5.0, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    loss, metrics = token_policy_loss(new, torch.zeros(2, 3), torch.tensor([1.0, -1.0]), mask, clip_range=0.1)
    assert loss.item() == pytest.approx(((-1.1 - 0.8) / 2 + 1.05) / 2, abs=GOLDEN)
    assert metrics["clip_fraction"].item() == pytest.approx(2 / 3, abs=GOLDEN)
    assert metrics["ratio_error"].item() == pytest.approx(-math.log(0.8), abs=GOLDEN)


def test_a_step_without_a_trained_token_counts_as_zero() -> None:
    mask = torch.tensor([[True], [False]])
    loss, _ = token_policy_loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([1.0, 5.0]), mask)
    assert loss.item() == -0.5


def test_the_token_loss_has_no_gradient_outside_the_mask() -> None:
    new = torch.tensor([[0.0, 0.0, 800.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    token_policy_loss(new, torch.zeros(1, 3), torch.tensor([2.0]), mask)[0].backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[-1.0, -1.0, 0.0]]


# --- value loss


@pytest.mark.parametrize(("value", "expected"), [(1.5, 0.405), (1.05, 0.45125), (0.5, 1.125)])
def test_clipped_value_loss_has_the_hand_values(value: float, expected: float) -> None:
    loss = clipped_value_loss(torch.tensor([value]), torch.tensor([1.0]), torch.tensor([2.0]), clip_range=0.1)
    assert loss.item() == pytest.approx(expected, abs=GOLDEN)


def test_without_a_clip_range_the_value_loss_is_half_the_squared_error() -> None:
    loss = clipped_value_loss(torch.tensor([1.5, 4.0]), torch.zeros(2), torch.tensor([2.0, 2.0]), clip_range=None)
    assert loss.item() == pytest.approx(0.5 * (0.25 + 4.0) / 2, abs=GOLDEN)


# --- KL divergence


def kl_of(k: list[float], estimator: str, reduce: str = "mean") -> float:
    student = np.array([*k, 50.0])  # the last token is not guided
    mask = np.array([True] * len(k) + [False])
    return reduce_terms(kl_terms(student, np.zeros_like(student), estimator), mask, reduce)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("clip", 0.4), ("k1", 0.233333), ("abs", 0.566667), ("k2", 0.215), ("k3", 0.178444), ("clip_cap", 0.4)],
)
def test_kl_estimators_have_the_hand_values(estimator: str, expected: float) -> None:
    assert kl_of([0.2, -0.5, 1.0], estimator) == pytest.approx(expected, abs=GOLDEN)


@pytest.mark.parametrize(("k", "expected"), [(0.2, 0.018731), (-0.5, 0.148721), (1.0, 0.367879)])
def test_the_terms_of_k3_have_the_hand_values(k: float, expected: float) -> None:
    assert kl_of([k], "k3") == pytest.approx(expected, abs=GOLDEN)


def test_clip_cap_stops_at_ten() -> None:
    assert kl_of([25.0, 1.0], "clip_cap") == pytest.approx(5.5, abs=GOLDEN)


def test_clip_cap_has_the_hand_value_for_another_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtr_agents.losses.CLIP_CAP", 0.6)
    assert kl_of([0.2, -0.5, 1.0], "clip_cap") == pytest.approx(0.266667, abs=GOLDEN)


def test_a_sum_is_the_mean_times_the_number_of_tokens() -> None:
    assert kl_of([0.2, -0.5, 1.0], "clip", "sum") == pytest.approx(1.2, abs=GOLDEN)


def test_no_guided_token_means_no_divergence() -> None:
    assert kl_of([], "clip") == 0.0


@pytest.mark.parametrize("estimator", ["clip", "clip_cap", "abs", "k1", "k2", "k3"])
def test_equal_models_have_no_divergence(estimator: str) -> None:
    log_probs = np.linspace(-9, 0, 20, dtype=np.float32)
    assert kl_terms(log_probs, log_probs, estimator).tolist() == [0.0] * 20


def test_unknown_estimator_and_reduction_name_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="abs, clip, clip_cap, k1, k2, k3"):
        kl_of([1.0], "k4")
    with pytest.raises(UnknownNameError, match="mean, sum"):
        kl_of([1.0], "clip", "max")


# --- learning rate


@pytest.mark.parametrize(("update", "expected"), [(0, 1e-5), (15, 5.0005e-6), (29, 2.8388e-8)])
def test_the_learning_rate_has_the_hand_values(update: int, expected: float) -> None:
    assert cosine_learning_rate(update, 30, 1e-5, 1e-9) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n_updates", [1, 7, 16, 30])
def test_the_learning_rate_never_rises_and_stays_at_its_end(n_updates: int) -> None:
    rates = [cosine_learning_rate(update, n_updates, 1e-5, 1e-9) for update in range(2 * n_updates + 2)]
    assert rates == sorted(rates, reverse=True)
    assert rates[n_updates:] == [1e-9] * (n_updates + 2)
