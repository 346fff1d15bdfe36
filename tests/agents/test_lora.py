"""LoRA adapters: what they add is a task vector, and the base is never harmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import prompts_of, same_weights, tiny_policy

from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.policies import lora
from gtr_agents.policies.vlm import VLMPolicy

IDS = [np.array([5, 6, 7, 8]), np.array([9, 10])]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_policy().save(tmp_path / "base")


def scores(policy: VLMPolicy) -> np.ndarray:
    return np.concatenate(policy.score(prompts_of(n=2), IDS))


def trained(base: Path, **settings: object) -> VLMPolicy:
    """A policy whose adapter is not the zero it starts as."""
    policy = VLMPolicy.from_pretrained(base, lora={"r": 4, **settings})
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=noise)
    return policy


def test_a_fresh_adapter_changes_nothing(base: Path) -> None:
    adapted = VLMPolicy.from_pretrained(base, lora={"r": 4})
    np.testing.assert_allclose(scores(adapted), scores(VLMPolicy.from_pretrained(base)), atol=1e-5)
    assert all(delta.abs().max() == 0 for delta in adapted.merge_state().values())


def test_only_the_adapter_of_the_language_model_trains(base: Path) -> None:
    policy = VLMPolicy.from_pretrained(base, lora={"r": 4})
    names = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 7 * 2  # two factors, seven matrices, two layers
    assert all("lora_" in name and "language_model" in name for name in names)
    assert len(policy.trainable_parameters()) == len(names) + len(list(policy.value_head.parameters()))


def test_the_seed_decides_the_factors_and_the_global_generator_stays(base: Path) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        {n: p for n, p in VLMPolicy.from_pretrained(base, lora={"r": 4}, seed=seed).model.named_parameters()}
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("settings", [{}, {"alpha": 32}, {"use_rslora": True}])
def test_the_deltas_on_the_base_act_like_the_adapter(base: Path, settings: dict[str, object]) -> None:
    policy = trained(base, **settings)
    own = scores(policy)
    plain = VLMPolicy.from_pretrained(base)
    fresh = VLMPolicy.from_pretrained(base, lora={"r": 4})
    assert np.abs(scores(plain) - own).max() > 1e-2
    with fresh.using(policy.merge_state()):
        np.testing.assert_allclose(scores(fresh), own, atol=1e-4)


def test_a_teacher_of_deltas_replaces_the_own_adapter_and_leaves_the_base_bit_for_bit(base: Path) -> None:
    policy = trained(base)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    own, zeros = scores(policy), {name: torch.zeros_like(d) for name, d in policy.merge_state().items()}
    with policy.using(zeros):
        np.testing.assert_allclose(scores(policy), scores(VLMPolicy.from_pretrained(base)), atol=1e-5)
    with pytest.raises(KeyboardInterrupt), policy.using(policy.merge_state()):
        raise KeyboardInterrupt
    assert same_weights(before, dict(policy.model.named_parameters()))
    assert np.array_equal(scores(policy), own)


def test_a_delta_that_does_not_fit_leaves_the_base_bit_for_bit(base: Path) -> None:
    policy = trained(base)
    state = policy.merge_state()
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    with pytest.raises(RuntimeError), policy.using(state | {list(state)[3]: torch.zeros(3, 3, 3)}):
        pass
    assert same_weights(before, dict(policy.model.named_parameters()))


def test_an_adapter_is_saved_alone_and_comes_back_bit_for_bit(base: Path, tmp_path: Path) -> None:
    policy = trained(base)
    folder = policy.save(tmp_path / "adapter")
    assert not (folder / "model.safetensors").exists()
    loaded = VLMPolicy.from_pretrained(folder)
    assert np.array_equal(scores(loaded), scores(policy))
    assert same_weights(policy.merge_state(), loaded.merge_state())
    assert [p.requires_grad for p in loaded.model.parameters()] == [p.requires_grad for p in policy.model.parameters()]


def test_an_adapter_without_a_processor_takes_that_of_its_base(base: Path, tmp_path: Path) -> None:
    policy = trained(base)
    policy.model.save_pretrained(tmp_path / "bare")
    assert np.array_equal(scores(VLMPolicy.from_pretrained(tmp_path / "bare", template="compact")), scores(policy))


def test_an_adapter_that_does_not_name_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(base).save(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        VLMPolicy.from_pretrained(folder)


def test_an_unknown_setting_is_named(base: Path) -> None:
    with pytest.raises(ConfigError, match="rank"):
        VLMPolicy.from_pretrained(base, lora={"rank": 4})


def test_an_adapter_that_is_no_plain_task_vector_is_refused() -> None:
    policy = tiny_policy()
    config = LoraConfig(r=2, use_dora=True, target_modules=["q_proj"])
    with torch.random.fork_rng(devices=[]), lora._quiet_and_repeatable(0):
        policy.model = get_peft_model(policy.model, config)
    with pytest.raises(ModelError, match="DoRA"):
        policy.merge_state()
