"""Presets of published models, on small random models of the same families: start, rollout, update, teacher."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from small_families import FAMILIES

from gtr_agents.build import build_algorithm, check_parts
from gtr_agents.config import load_config, preset_names
from gtr_agents.display import TrainingDisplay
from gtr_agents.training import supervised_start
from gtr_envs.registration import HOUSEHOLD_ENVS

MODEL_TYPES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "llava-hf/llava-v1.6-mistral-7b-hf": "llava_next",
    "HuggingFaceTB/SmolVLM-500M-Instruct": "idefics3",
}
"""What these models say of themselves in their config.json."""
LARGE = [name for name in preset_names() if load_config(name).policy.model != "tiny"]
SMALL = [
    "policy.lora={r: 2, alpha: 4, dropout: 0.05}",
    "policy.max_new_tokens=8",
    "policy.value_widths=[16, 8]",
    "sft.steps=1",
    "sft.batch_size=4",
    "rollout.n_envs=2",
    "rollout.n_steps=4",
    "teacher.rank=4",
    "evaluation.episodes=2",
]


@pytest.mark.parametrize("name", LARGE)
def test_a_preset_of_a_published_model_runs_on_a_small_one_of_its_family(name: str, tmp_path: Path) -> None:
    published = load_config(name)
    # Importing the engine here, to see whether it is there, would draw from the global generator.
    if published.env.id in HOUSEHOLD_ENVS and find_spec("textworld") is None:
        pytest.skip("ALFWorld's engine is not installed")
    folder = FAMILIES[MODEL_TYPES[published.policy.model]](tmp_path / "model")
    options = [f"policy.model={folder}", *SMALL]
    if published.policy.image_processor:
        options.append("policy.image_processor={size: {longest_edge: 64}}")
    if name != "qwen2.5-vl-3b-24gb":  # once is enough for a pool of demonstrations and sums on a slow disk
        options = [option for option in options if not option.startswith("sft")]
        options += ["sft=null", "teacher.accumulators=memory"]
    if published.env.id in HOUSEHOLD_ENVS:
        options += ["env.kwargs.data=embedded", "env.train.games=6"]
    config = load_config(name, options)
    assert check_parts(config) is None
    policy = supervised_start(config, 0, TrainingDisplay(0, "", enabled=False))
    assert len(policy._checkpointed) == (0 if not published.policy.gradient_checkpointing else 4)
    before = {k: v.clone() for k, v in policy.merge_state().items()}
    algorithm = build_algorithm(config, policy, seed=0, folder=tmp_path / "sums")
    algorithm.learn(updates=1)
    after = policy.merge_state()
    assert any(not np.array_equal(before[k].float().numpy(), after[k].float().numpy()) for k in after)
    with algorithm.as_teacher() as teacher:
        assert teacher.model.active_adapters[0].startswith("teacher")


def test_presets_of_published_models_share_the_settings_of_the_paper() -> None:
    """method of arXiv 2512.13043 as far as it is public; the others change the model and what memory asks for."""
    for name in LARGE:
        config = load_config(name)
        p = config.ppo
        assert (p.gamma, p.lam, p.epochs, p.clip_range, p.value_coef) == (0.9, 0.95, 4, 0.1, 0.5)
        assert (p.minibatch_size, p.adam_eps, p.max_grad_norm, p.entropy_coef) == (128, 1e-7, 1.0, 0.0)
        assert (config.rollout.n_steps, config.policy.temperature) == (1024, 0.2)
        guidance, teacher = config.guidance, config.teacher
        assert (guidance.name, guidance.beta, guidance.estimator, guidance.scope) == (
            "reverse_kl",
            1.0,
            "clip",
            "thought",
        )
        assert (teacher.method, teacher.density, teacher.merge_interval, teacher.weights) == ("ties", 0.8, 1, "sma")
    cards, house = load_config("qwen2.5-vl-7b-points24"), load_config("qwen2.5-vl-7b-alfworld")
    assert (cards.updates, house.updates) == (30, 20)
    assert (cards.ppo.thought_coef, house.ppo.thought_coef) == (0.5, 0.2)
    assert (cards.rollout.format_valid, cards.rollout.format_invalid) == (3.0, -2.0)
    assert (house.rollout.format_valid, house.rollout.format_invalid) == (5.0, -5.0)
    for config in (cards, house):
        assert config.policy.lora == {"r": 128, "alpha": 256, "dropout": 0.05}
        assert (config.ppo.learning_rate, config.ppo.final_learning_rate) == (1e-5, 1e-9)
        assert config.policy.max_new_tokens == 256
