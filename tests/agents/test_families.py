"""Real model families, small and random: load, act, score, learn with LoRA, save and load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_families import QWEN_CHAT, save_llava, save_qwen2_5_vl
from small_models import answered, prompts_of, same_weights, text_env, weights_of

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.errors import ModelError
from gtr_agents.guidance.reverse_kl import ReverseKL
from gtr_agents.policies.families import FAMILIES, family_of
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.teachers.merged import TeacherManager


def loaded(folder: Path) -> VLMPolicy:
    return VLMPolicy.from_pretrained(
        folder, lora={"r": 4}, template="paper", temperature=0.8, max_new_tokens=12, value_widths=(16, 8)
    )


def test_a_family_acts_learns_teaches_and_comes_back(family_folder: Path, tmp_path: Path) -> None:
    policy = loaded(family_folder)
    base = policy.merge_state()
    algorithm = PPO(
        policy,
        text_env,
        settings=PPOSettings(epochs=1, minibatch_size=6, micro_batch_size=4, learning_rate=5e-2),
        rollout=RolloutSettings(n_envs=3, n_steps=6),
        guidance=ReverseKL(),
        teacher=TeacherManager(density=0.5),
    )
    seen: list[dict[str, float]] = []

    class Watcher:
        def on_phase(self, name: str, total: int | None) -> None: ...

        def on_progress(self, n: int) -> None: ...

        def on_update(self, _learner: object, _rollout: object, metrics: dict[str, float]) -> None:
            seen.append(metrics)

    algorithm.learn(updates=2, callbacks=[Watcher()])
    assert [m["train/ratio_error_first_epoch"] <= 1e-4 for m in seen] == [True, True]
    assert seen[0]["guidance/kl"] <= 1e-6  # the first teacher is the student itself
    assert seen[1]["guidance/kl"] > 1e-6
    assert not same_weights(base, policy.merge_state())
    prompts = prompts_of("paper", 3)
    ids = [r.token_ids for r in answered(policy, prompts)]
    own = policy.score(prompts, ids)
    with algorithm.as_teacher() as teacher:
        assert np.abs(teacher.score(prompts, ids)[0] - own[0]).max() > 1e-6
    again = VLMPolicy.from_pretrained(policy.save(tmp_path / "adapter"))
    assert same_weights(weights_of(policy), weights_of(again))
    assert all(np.array_equal(a, b) for a, b in zip(own, again.score(prompts, ids), strict=True))


def test_a_published_sampling_trick_does_not_reach_the_answers(family_folder: Path) -> None:
    """The folders carry top_k = 1 and a repetition penalty; sampled and scored log-probs must agree all the same."""
    prompts = prompts_of("paper", 3)
    for lora in (None, {"r": 4}):
        policy = VLMPolicy.from_pretrained(family_folder, lora=lora, temperature=0.8, max_new_tokens=12)
        responses = answered(policy, prompts)
        scores = policy.score(prompts, [r.token_ids for r in responses])
        for response, score in zip(responses, scores, strict=True):
            np.testing.assert_allclose(score, response.log_probs_t1, atol=1e-4)
        assert {len(set(r.token_ids.tolist())) for r in responses} != {1}


def test_the_picture_reaches_every_family(family_folder: Path) -> None:
    policy = loaded(family_folder)
    first, second = prompts_of("paper", 4)[::3]
    ids = [np.array([45, 46, 47])] * 2
    mixed = type(first)(text=first.text, image=second.image)
    one, other = policy.score([first, mixed], ids)
    assert np.abs(one - other).max() > 1e-3


def test_the_order_of_a_batch_does_not_matter(family_folder: Path) -> None:
    policy = loaded(family_folder)
    prompts, ids = prompts_of("paper", 3), [np.array([45, 46]), np.array([47]), np.array([48, 49, 50])]
    together = policy.score(prompts, ids)
    for prompt, own, score in zip(prompts, ids, together, strict=True):
        np.testing.assert_allclose(policy.score([prompt], [own])[0], score, atol=1e-4)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


def test_qwen_adapts_every_linear_module_of_language_vision_and_merger(qwen: Path) -> None:
    policy = loaded(qwen)
    deltas = policy.merge_state()
    # Two language layers of seven, two vision blocks of five, two in the merger: 358 for the published 7B model.
    assert len(deltas) == 2 * 7 + 2 * 5 + 2
    assert sum("merger" in name for name in deltas) == 2
    assert not any("lm_head" in name or "embed" in name for name in deltas)


def test_qwen_keeps_its_chat_template_and_the_name_of_its_processor(qwen: Path, tmp_path: Path) -> None:
    policy = loaded(qwen)
    assert policy.processor.chat_template == QWEN_CHAT
    policy.save(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == QWEN_CHAT
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "Qwen2_5_VLProcessor"
    again = VLMPolicy.from_pretrained(tmp_path)
    prompt = prompts_of("paper", 1)
    assert np.array_equal(answered(policy, prompt)[0].prompt_ids, answered(again, prompt)[0].prompt_ids)


def test_a_tokenizer_without_padding_token_is_padded_with_its_end_token(tmp_path: Path) -> None:
    policy = VLMPolicy.from_pretrained(save_llava(tmp_path), template="compact", max_new_tokens=4)
    assert policy.pad_id == policy.eos_id
    assert len({len(r.prompt_ids) for r in answered(policy, prompts_of(n=3))}) > 1


def test_a_folder_without_processor_is_refused(qwen: Path, tmp_path: Path) -> None:
    for file in qwen.iterdir():
        if file.name in ("config.json", "model.safetensors"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="processor"):
        VLMPolicy.from_pretrained(tmp_path)


def test_an_unknown_family_adapts_its_language_model() -> None:
    assert family_of("something-new") == FAMILIES["llava"]
