"""PPO updates: ratio 1 before the first step, accumulation, guidance, and what stops a run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    CountingEnv,
    answered,
    fit_critic_badly,
    largest_difference,
    prompts_of,
    random_rollout,
    same_weights,
    text_env,
    tiny_policy,
    weights_of,
)

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError, NotFiniteError, TrainingError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.static import StaticTeacher
from gtr_agents.types import Rollout, Step, Trajectory

ONE_STEP = {"epochs": 1, "minibatch_size": 16, "learning_rate": 1e-3, "adam_eps": 1e-3}
"""With a small epsilon Adam's first step is the sign of the gradient, and rounding decides where it is nearly 0."""


def ppo(policy: VLMPolicy, *, hands: int = 0, **settings: Any) -> PPO:
    rollout = RolloutSettings(n_envs=4, n_steps=8, hands=hands, attempts=2)
    return PPO(policy, text_env, settings=PPOSettings(**(ONE_STEP | settings)), rollout=rollout)


def updated(rollout: Rollout, **settings: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and metrics after one update of the policy that made the rollout."""
    policy = tiny_policy()
    fit_critic_badly(policy)
    metrics = ppo(policy, **settings).update(rollout, 0.0)
    return weights_of(policy), metrics


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    policy = tiny_policy()
    fit_critic_badly(policy)
    return random_rollout(policy)


def attempts_rollout() -> Rollout:
    """Four tasks, two attempts each, one step an attempt; on the last two tasks the attempts agree."""
    policy = tiny_policy()
    prompts = prompts_of(n=24)[::3]  # all in the state ""
    steps = [Step(p, r, 0.0, True, False) for p, r in zip(prompts, answered(policy, prompts), strict=True)]
    for index in (0, 3):
        steps[index].reward = 1.0
    return Rollout([Trajectory([step], 0.0, seed=index // 2) for index, step in enumerate(steps)], 1.0)


# --- the ratio --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["turn", "token"])
@pytest.mark.parametrize("size", [16, 5])
def test_the_ratio_is_one_before_the_first_step(rollout: Rollout, ratio: str, size: int) -> None:
    _, metrics = updated(rollout, ratio=ratio, epochs=2, minibatch_size=size, micro_batch_size=3)
    assert metrics["train/ratio_error_first_epoch"] <= 1e-4


def test_prompts_exchanged_between_steps_show_in_the_ratio() -> None:
    policy = tiny_policy()
    swapped = random_rollout(policy)
    steps = swapped.steps
    prompts = [step.prompt for step in steps]
    for step, prompt in zip(steps, prompts[1:] + prompts[:1], strict=True):
        step.prompt = prompt
    assert ppo(policy).update(swapped, 0.0)["train/ratio_error_first_epoch"] > 1e-2


def test_images_exchanged_between_steps_show_in_the_ratio() -> None:
    policy = tiny_policy()
    blind = random_rollout(policy)
    for step in blind.steps:
        step.prompt.image[:] = 0
    policy._inputs.clear()
    assert ppo(policy).update(blind, 0.0)["train/ratio_error_first_epoch"] > 1e-2


def test_the_ratio_leaves_one_when_the_policy_moves(rollout: Rollout) -> None:
    _, metrics = updated(rollout, epochs=4)
    assert metrics["train/approx_kl"] > 1e-6
    assert metrics["train/ratio_error_first_epoch"] <= 1e-4


# --- one optimizer step -----------------------------------------------------------------------------------------------


def test_accumulated_gradients_are_those_of_the_whole_minibatch(rollout: Rollout) -> None:
    whole, metrics = updated(rollout, micro_batch_size=16)
    for size in (1, 5):
        pieces, others = updated(rollout, micro_batch_size=size)
        assert largest_difference(whole, pieces) < 1e-5
        assert others["train/grad_norm"] == pytest.approx(metrics["train/grad_norm"], rel=1e-4)


def test_a_minibatch_is_one_optimizer_step(rollout: Rollout) -> None:
    for size, epochs, steps in ((16, 1, 1), (8, 1, 2), (8, 3, 6), (6, 2, 6)):
        policy = tiny_policy()
        algorithm = ppo(policy, minibatch_size=size, epochs=epochs, micro_batch_size=2)
        algorithm.update(rollout, 0.0)
        moments = algorithm.adam.optimizer.state_dict()["state"]
        assert {int(state["step"]) for state in moments.values()} == {steps}


def test_the_order_of_steps_inside_a_minibatch_does_not_matter(rollout: Rollout) -> None:
    turned = Rollout(rollout.trajectories[::-1], 1.0)
    assert largest_difference(updated(rollout)[0], updated(turned)[0]) < 1e-5


def test_every_optimizer_step_is_clipped_to_the_norm(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    policy = tiny_policy()
    fit_critic_badly(policy)
    algorithm = ppo(policy, max_grad_norm=0.01, minibatch_size=8)
    step = algorithm.adam.optimizer.step

    def watched() -> None:
        gradients = [p.grad.norm() for p in policy.trainable_parameters() if p.grad is not None]
        norms.append(float(torch.stack(gradients).norm()))
        step()

    monkeypatch.setattr(algorithm.adam.optimizer, "step", watched)
    metrics = algorithm.update(rollout, 0.0)
    assert metrics["train/grad_norm"] > 0.01
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_the_learning_rate_follows_the_progress(rollout: Rollout) -> None:
    for progress, rate in ((0.0, 1e-3), (0.5, 5e-4)):
        algorithm = ppo(tiny_policy(), final_learning_rate=0.0)
        assert algorithm.update(rollout, progress)["train/learning_rate"] == pytest.approx(rate)
        assert algorithm.adam.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_positive_advantage_makes_an_answer_likelier(rollout: Rollout) -> None:
    policy = tiny_policy()
    fit_critic_badly(policy)
    algorithm = ppo(policy, learning_rate=1e-4, thought_coef=1.0)
    steps = rollout.steps
    raw, _ = algorithm.advantages(rollout)
    prompts, ids = [s.prompt for s in steps], [s.response.token_ids for s in steps]
    before = np.array([s.sum() for s in policy.score(prompts, ids)])
    algorithm.update(rollout, 0.0)
    gained = np.array([s.sum() for s in policy.score(prompts, ids)]) - before
    assert gained[raw.argmax()] > 0 > gained[raw.argmin()]


def test_dropout_stays_off_while_training() -> None:
    policy = tiny_policy()
    ppo(policy).update(random_rollout(policy), 0.0)
    assert not any(module.training for module in policy.model.modules())


def test_the_critic_learns_the_returns() -> None:
    policy = tiny_policy(value_stop_gradient=True)
    with torch.no_grad():
        policy.value_head.net[-1].bias.fill_(3.0)
    prompts = prompts_of(n=8)
    steps = [
        Step(p, r, 5.0, True, False, format_reward=1.0) for p, r in zip(prompts, answered(policy, prompts), strict=True)
    ]
    rollout = Rollout([Trajectory([step], 0.0, seed=0) for step in steps], 1.0)
    ppo(policy, epochs=40, minibatch_size=8, learning_rate=0.05, clip_range=100.0).update(rollout, 0.0)
    assert policy.predict_values(prompts) == pytest.approx([6.0] * 8, abs=0.5)


# --- variants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "present", "absent"),
    [
        ({"baseline": "critic"}, "train/value_loss", "train/nothing"),
        ({"baseline": "tree"}, "train/policy_loss", "train/value_loss"),
        ({"ratio": "token", "token_scope": "all"}, "train/clip_fraction", "train/nothing"),
        ({"ratio": "token", "token_scope": "action"}, "train/clip_fraction", "train/nothing"),
        ({"placement": "advantage"}, "train/explained_variance", "train/nothing"),
        ({"thought_coef": 0.0}, "train/policy_loss", "train/nothing"),
    ],
)
def test_every_variant_makes_a_finite_update(settings: dict[str, Any], present: str, absent: str) -> None:
    rollout = attempts_rollout()
    weights, metrics = updated(rollout, hands=2 if settings.get("baseline") == "tree" else 0, **settings)
    assert present in metrics
    assert absent not in metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_tree_baseline_trains_no_critic() -> None:
    policy = tiny_policy()
    before = weights_of(policy)
    ppo(policy, hands=2, baseline="tree").update(attempts_rollout(), 0.0)
    after = weights_of(policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("head.") for name in changed)


def test_without_an_action_the_action_scope_trains_nothing(rollout: Rollout) -> None:
    assert all(step.response.thought_mask.all() for step in rollout.steps)
    policy = tiny_policy(value_stop_gradient=True)
    before = policy.merge_state()
    ppo(policy, ratio="token", token_scope="action").update(rollout, 0.0)  # noqa: S106
    after = policy.merge_state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_skipped_flat_steps_change_the_update_by_their_share_only() -> None:
    """Where advantages have mean 0, a flat step has none after normalisation either: only the divisor changes."""
    rollout = attempts_rollout()
    raw, _ = ppo(tiny_policy(), hands=2, baseline="tree").advantages(rollout)
    assert raw.tolist() == [1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    left = 0.5
    gradients = {}
    for skip in (False, True):
        policy = tiny_policy()
        algorithm = ppo(policy, hands=2, baseline="tree", skip_flat=skip, max_grad_norm=1e9, minibatch_size=64)
        metrics = algorithm.update(rollout, 0.0)
        assert metrics["train/samples"] == (4 if skip else 8)
        gradients[skip] = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
    # The mean runs over fewer steps, so the gradient grows by the inverse of the share that is left.
    for name, gradient in gradients[False].items():
        torch.testing.assert_close(left * gradients[True][name], gradient, rtol=1e-3, atol=1e-6)


def test_a_rollout_without_any_difference_changes_nothing() -> None:
    rollout = attempts_rollout()
    for step in rollout.steps:
        step.reward = 1.0
    policy = tiny_policy()
    before = weights_of(policy)
    metrics = ppo(policy, hands=2, baseline="tree", skip_flat=True).update(rollout, 0.0)
    assert metrics["train/samples"] == 0
    assert same_weights(before, weights_of(policy))


# --- guidance ---------------------------------------------------------------------------------------------------------


def guided(beta: float | None, make_rollout: Callable[[VLMPolicy], Rollout]) -> dict[str, torch.Tensor]:
    """Weights after one update of a policy whose teacher is another model."""
    policy, teacher = tiny_policy(), StaticTeacher()
    fit_critic_badly(policy)
    teacher.start(tiny_policy(seed=9).merge_state())
    guidance = None if beta is None else ReverseKL(beta=beta)
    algorithm = PPO(policy, text_env, settings=PPOSettings(**ONE_STEP), guidance=guidance, teacher=teacher)
    rollout = make_rollout(policy)
    if guidance is not None:
        guidance.annotate(rollout, algorithm.teacher_view())
    algorithm.update(rollout, 0.0)
    return weights_of(policy)


def test_guidance_with_beta_zero_is_plain_ppo_bit_for_bit() -> None:
    plain = guided(None, random_rollout)
    assert same_weights(plain, guided(0.0, random_rollout))
    assert not same_weights(plain, guided(1.0, random_rollout))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rollout", "message"),
    [(RolloutSettings(hands=4, attempts=1), "attempts >= 2"), (RolloutSettings(hands=0), r"rollout\.hands")],
)
def test_the_tree_baseline_needs_attempts_at_the_same_hand(rollout: RolloutSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PPO(tiny_policy(), text_env, settings=PPOSettings(baseline="tree"), rollout=rollout)


def test_the_tree_baseline_refuses_guidance_that_is_no_reward() -> None:
    with pytest.raises(ConfigError, match=r"set ppo\.placement to reward"):
        ppo(tiny_policy(), hands=2, baseline="tree", placement="advantage")


def test_an_advantage_that_is_not_finite_stops_before_it_reaches_the_weights() -> None:
    policy = tiny_policy()
    rollout = random_rollout(policy)
    rollout.steps[3].reward = float("nan")
    before = weights_of(policy)
    with pytest.raises(TrainingError, match="advantage is not finite"):
        ppo(policy).update(rollout, 0.0)
    assert same_weights(before, weights_of(policy))


def test_a_sample_without_a_finite_loss_is_skipped_and_counted(rollout: Rollout) -> None:
    broken = copy.deepcopy(rollout)
    broken.steps[3].response.log_probs[:] = np.nan
    settings = PPOSettings(**ONE_STEP | {"max_skipped": 0.5})
    algorithm = PPO(tiny_policy(), text_env, settings=settings)
    before = weights_of(algorithm.policy)
    metrics = algorithm.update(broken, 0.0)
    assert metrics["train/skipped_samples"] == 1
    assert all(np.isfinite(value) for value in metrics.values())
    after = weights_of(algorithm.policy)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert not same_weights(before, after)


def test_too_many_samples_without_a_finite_loss_stop_the_run(rollout: Rollout) -> None:
    broken = copy.deepcopy(rollout)
    for step in broken.steps[::2]:
        step.response.log_probs[:] = np.nan
    with pytest.raises(NotFiniteError, match=r"no finite loss .* more than max_skipped=0\.05") as caught:
        ppo(tiny_policy()).update(broken, 0.0)
    assert caught.value.samples
    for sample in json.loads(json.dumps(caught.value.samples)):
        step = broken.steps[sample["sample"]]
        assert sample["sample"] % 2 == 0
        assert (sample["answer"], sample["token_ids"]) == (step.response.text, step.response.token_ids.tolist())
        assert set(sample["log_probs"]) == {"nan"}


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    before, rollout = weights_of(policy), random_rollout(policy)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="no finite loss or gradient"):
        ppo(policy).update(rollout, 0.0)
    assert same_weights(before, weights_of(policy))


def test_guidance_without_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a teacher"):
        PPO(tiny_policy(), text_env, guidance=ReverseKL())


# --- the optimizer's memory -------------------------------------------------------------------------------------------


def test_the_optimizer_state_comes_back(tmp_path: Path, rollout: Rollout) -> None:
    policy = tiny_policy()
    algorithm = ppo(policy)
    algorithm.update(rollout, 0.0)
    folder = algorithm.save(tmp_path / "checkpoint")
    other = PPO.load(folder, text_env, settings=PPOSettings(**ONE_STEP))
    own, loaded = algorithm.adam.optimizer.state_dict()["state"], other.adam.optimizer.state_dict()["state"]
    assert own.keys() == loaded.keys()
    for index, moments in own.items():
        assert all(torch.equal(moments[name], loaded[index][name]) for name in moments)
    again = random_rollout(policy, seed=1)
    algorithm.update(again, 0.0)
    other.update(again, 0.0)
    assert same_weights(weights_of(algorithm.policy), weights_of(other.policy))


def test_values_are_bootstrapped_where_an_episode_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value target of a cut step holds the discounted value of the state that follows."""
    policy = tiny_policy()
    fit_critic_badly(policy)
    algorithm = PPO(
        policy,
        lambda: CountingEnv(limit=3),
        settings=PPOSettings(gamma=0.5, lam=1.0, **ONE_STEP),
        rollout=RolloutSettings(n_envs=1, n_steps=2, format_valid=0.0, format_invalid=0.0),
    )
    seen: list[tuple[Rollout, np.ndarray]] = []
    original = algorithm.advantages

    def watched(rollout: Rollout) -> Any:
        raw, returns = original(rollout)
        seen.append((rollout, returns))
        return raw, returns

    monkeypatch.setattr(algorithm, "advantages", watched)
    algorithm.learn(total_timesteps=4)
    (cut, targets), (rest, targets_rest) = seen
    assert [len(t.steps) for t in cut.trajectories] == [2]
    assert [len(t.steps) for t in rest.trajectories] == [1, 1]
    value = cut.trajectories[0].bootstrap_value
    assert value != 0
    assert targets[1] == pytest.approx(-1.0 + 0.5 * value)  # an unreadable answer costs 1
    assert targets[0] == pytest.approx(-1.0 + 0.5 * targets[1])
    timeout = rest.trajectories[0]
    assert (timeout.steps[0].truncated, timeout.steps[0].terminated) == (True, False)
    assert timeout.bootstrap_value != 0
    assert targets_rest[0] == pytest.approx(-1.0 + 0.5 * timeout.bootstrap_value)
