"""Features of pictures that are computed once say the same as pixels, and are refused where they would go stale."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import answered, generator, prompts_of, text_env, tiny_policy

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies import features
from gtr_agents.policies.features import FEATURES, check_features
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager

LANGUAGE = r".*(language_model|text_model)\..*(q|k|v|o|gate|up|down)_proj"


def loaded(folder: Path, *, targets: str = LANGUAGE, **options: Any) -> VLMPolicy:
    settings: dict[str, Any] = {"template": "paper", "temperature": 0.8, "max_new_tokens": 12, "value_widths": (16, 8)}
    return VLMPolicy.from_pretrained(folder, lora={"r": 4, "target_modules": targets}, **(settings | options))


class Counter:
    """Counts the pictures that the vision part of a policy is shown."""

    def __init__(self, policy: VLMPolicy) -> None:
        self.calls = 0
        network = policy._network.base_model if hasattr(policy._network, "base_model") else policy._network
        stock = network.get_image_features

        @wraps(stock)  # transformers looks at the signature
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return stock(*arguments, **options)

        network.get_image_features = counted


def test_features_say_what_pixels_say(family_folder: Path) -> None:
    plain, reusing = loaded(family_folder), loaded(family_folder, reuse_image_features=True)
    prompts = prompts_of("paper", 5)
    by_pixels, by_features = answered(plain, prompts), answered(reusing, prompts)
    assert [r.text for r in by_pixels] == [r.text for r in by_features]
    for mine, theirs in zip(by_pixels, by_features, strict=True):
        assert np.abs(mine.log_probs - theirs.log_probs).max() < 1e-4
        assert mine.value == pytest.approx(theirs.value, abs=1e-5)
    ids = [r.token_ids for r in by_pixels]
    for mine, theirs in zip(plain.score(prompts, ids), reusing.score(prompts, ids), strict=True):
        assert np.abs(mine - theirs).max() < 1e-4
    assert np.allclose(plain.predict_values(prompts), reusing.predict_values(prompts), atol=1e-5)


def test_another_picture_is_another_answer(family_folder: Path) -> None:
    """What the test above would not see if features were left out."""
    policy = loaded(family_folder, reuse_image_features=True)
    prompts = prompts_of("paper", 2)
    ids = [r.token_ids for r in answered(policy, prompts)]
    own = policy.score(prompts, ids)
    first, second = (policy._inputs[prompt] for prompt in prompts)
    first[FEATURES], second[FEATURES] = second[FEATURES], first[FEATURES]
    assert np.abs(policy.score(prompts, ids)[0] - own[0]).max() > 1e-4


@pytest.mark.parametrize("reuse", [True, False])
def test_the_vision_part_runs_once_for_an_observation(family_folder: Path, reuse: bool) -> None:
    policy = loaded(family_folder, reuse_image_features=reuse, cache_inputs=False)
    counter = Counter(policy)
    algorithm = PPO(
        policy,
        text_env,
        settings=PPOSettings(epochs=2, minibatch_size=6, micro_batch_size=3, learning_rate=1e-2),
        rollout=RolloutSettings(n_envs=3, n_steps=6),
        guidance=ReverseKL(),
        teacher=TeacherManager(density=0.5),
    )
    algorithm.teacher.start(policy.live_state())
    rollout = algorithm.collect()
    played = counter.calls
    assert 1 <= played <= 3  # two passes of three environments, and the states after them
    assert algorithm._ask_teacher(ReverseKL(), rollout, 0.0, ())["guidance/kl"] < 1e-6
    assert algorithm.update(rollout, 0.0)["train/ratio_error_first_epoch"] < 1e-4
    if reuse:
        assert counter.calls == played
        assert not any("pixel_values" in policy._inputs[step.prompt] for step in rollout.steps)
    else:
        assert counter.calls > played + 3  # the teacher's pass, and two in each of two epochs


def test_training_is_the_same_as_with_pixels(family_folder: Path) -> None:
    weights = []
    for reuse in (False, True):
        policy = loaded(family_folder, reuse_image_features=reuse)
        settings = PPOSettings(epochs=2, minibatch_size=6, learning_rate=1e-3)
        PPO(policy, text_env, settings=settings, rollout=RolloutSettings(n_envs=3, n_steps=6)).learn(updates=1)
        weights.append(policy.merge_state())
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-4


def test_features_that_training_changes_are_refused(family_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"vision part that is not trained.*policy\.lora\.target_modules"):
        VLMPolicy.from_pretrained(family_folder, template="paper", reuse_image_features=True)
    with pytest.raises(ConfigError, match="vision part that is not trained"):
        loaded(family_folder, targets="all-linear", reuse_image_features=True)


def test_a_model_without_that_argument_is_refused() -> None:
    network = tiny_policy()._network

    class Old:
        def forward(self, input_ids: Any) -> None: ...

    with pytest.raises(ModelError, match=r"Old takes no features.*pip install -U transformers"):
        check_features(Old())
    with pytest.raises(ConfigError, match="not trained"):
        check_features(network)


def test_answers_can_be_repeated_with_features(family_folder: Path) -> None:
    policy = loaded(family_folder, reuse_image_features=True)
    prompts = prompts_of("paper", 3)
    texts = [[r.text for r in policy.act(prompts, generator=generator(3))] for _ in range(2)]
    assert texts[0] == texts[1]


def test_many_pictures_are_shown_in_pieces(family_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of("paper", 5)
    whole = loaded(family_folder, reuse_image_features=True)._encode(prompts)
    monkeypatch.setattr(features, "AT_ONCE", 2)
    policy = loaded(family_folder, reuse_image_features=True)
    counter = Counter(policy)
    for mine, theirs in zip(policy._encode(prompts), whole, strict=True):
        assert torch.allclose(mine[FEATURES], theirs[FEATURES], atol=1e-5)
    assert counter.calls == 3
