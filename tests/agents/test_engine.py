"""An engine behind the policy writes the answers; the policy scores them and keeps the engine's weights fresh."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from gtr_agents import PPO, PPOSettings, ReverseKL, RolloutSettings, TeacherManager, VLMPolicy, build_tiny_vlm
from gtr_agents.config import load_config
from gtr_agents.errors import ConfigError, DependencyError
from gtr_agents.integrations.vllm import VLLMEngine
from gtr_agents.seeding import torch_generator
from gtr_agents.types import Prompt


class CopyEngine:
    """A real engine: another model in memory, loaded from what the policy saves, that generates by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy: VLMPolicy | None = None
        self.n_loaded = 0
        self.n_answers = 0

    def load(self, policy: VLMPolicy) -> None:
        self.n_loaded += 1
        self.copy = VLMPolicy.from_pretrained(policy.save(self.folder / str(self.n_loaded)))

    def generate(
        self, prompts: Sequence[Prompt], *, temperature: float, max_new_tokens: int, seeds: Sequence[int] | None
    ) -> list[list[int]]:
        assert self.copy is not None
        self.n_answers += len(prompts)
        generators = None if seeds is None else [torch_generator(seed, "engine") for seed in seeds]
        answers = self.copy.act(prompts, generator=generators, temperature=temperature, max_new_tokens=max_new_tokens)
        return [answer.token_ids.tolist() for answer in answers]


@pytest.fixture
def policy() -> VLMPolicy:
    tiny = build_tiny_vlm("compact", hidden_size=32, layers=1, heads=2, ff_size=32)
    return VLMPolicy(*tiny, template="compact", temperature=0.7, max_new_tokens=12)


@pytest.fixture
def prompts(policy: VLMPolicy) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [
        policy.template.render({"image": rng.integers(0, 255, (64, 64, 3), np.uint8), "text": "8 -" * n})
        for n in range(4)
    ]


def test_the_answers_are_the_engines_and_the_numbers_the_policys(
    policy: VLMPolicy, prompts: list[Prompt], tmp_path: Path
) -> None:
    alone = policy.act(prompts)
    policy.engine = engine = CopyEngine(tmp_path)
    together = policy.act(prompts)
    assert engine.n_answers == len(prompts)
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert (one.text, one.answer, one.truncated) == (other.text, other.answer, other.truncated)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=2e-5)
        np.testing.assert_allclose(one.log_probs_t1, other.log_probs_t1, atol=2e-5)
        assert one.value == pytest.approx(other.value, abs=1e-5)
        assert one.entropy == pytest.approx(other.entropy, abs=1e-5)


def test_sampling_follows_the_generator(policy: VLMPolicy, prompts: list[Prompt], tmp_path: Path) -> None:
    policy.engine = CopyEngine(tmp_path)
    texts = [[a.text for a in policy.act(prompts, generator=torch_generator(seed, "test"))] for seed in (0, 0, 1)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_new_weights_reach_the_engine_and_other_weights_do_not(
    policy: VLMPolicy, prompts: list[Prompt], tmp_path: Path
) -> None:
    policy.engine = engine = CopyEngine(tmp_path)
    policy.act(prompts)
    policy.act(prompts)
    assert engine.n_loaded == 1
    with torch.no_grad():
        next(policy.model.parameters()).add_(0.5)
    policy.act(prompts)
    assert engine.n_loaded == 2
    answered = engine.n_answers
    with policy.using(policy.merge_state()):
        policy.act(prompts)  # a teacher writes by itself
    assert engine.n_answers == answered


def test_an_update_of_ppo_begins_at_ratio_one(policy: VLMPolicy, tmp_path: Path) -> None:
    policy.engine = engine = CopyEngine(tmp_path)
    algorithm = PPO(
        policy,
        "EZPoints-v0",
        env_kwargs={"image_size": 64},
        settings=PPOSettings(baseline="tree", epochs=1),
        rollout=RolloutSettings(hands=2, attempts=2),
        guidance=ReverseKL(),
        teacher=TeacherManager(),
    )
    seen: list[float] = []

    class Watch:
        def on_phase(self, name: str, total: int | None) -> None: ...
        def on_progress(self, n: int) -> None: ...
        def on_update(self, learner: object, rollout: object, metrics: dict[str, float]) -> None:
            del learner, rollout
            seen.append(metrics["train/ratio_error_first_epoch"])

    algorithm.learn(updates=2, callbacks=[Watch()])
    assert engine.n_loaded >= 2
    assert max(seen) < 1e-4


def test_vllm_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(DependencyError, match=r"gtr-suite\[vllm\]"):
        VLLMEngine("model", rank=8)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["policy.engine=vllm"], "swaps LoRA adapters"),
        (["policy.engine=vllm", "policy.lora={r: 4}"], "tiny model"),
    ],
)
def test_a_configuration_that_vllm_cannot_serve_is_refused(overrides: list[str], told: str) -> None:
    from gtr_agents.build import check_parts

    with pytest.raises(ConfigError, match=told):
        check_parts(load_config("tiny-ezpoints", overrides))
