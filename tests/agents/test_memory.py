"""What makes training fit on one device changes memory and time, and never the gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_families import save_idefics3
from small_models import fit_critic_badly, largest_difference, prompts_of, random_rollout, text_env, tiny_policy
from torch import nn

from gtr_agents.algorithms.base import RolloutSettings
from gtr_agents.algorithms.grpo import GRPO, GRPOSettings
from gtr_agents.algorithms.policy_gradient import PolicyGradient
from gtr_agents.algorithms.ppo import PPO, PPOSettings
from gtr_agents.build import check_parts
from gtr_agents.config import load_config
from gtr_agents.errors import ConfigError, DependencyError, ModelError
from gtr_agents.guidance.imitation import Imitation
from gtr_agents.guidance.thought_sft import ThoughtSFT
from gtr_agents.policies import loading
from gtr_agents.policies.checkpointing import checkpointable_layers
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.types import Rollout

WHOLE = {"epochs": 1, "minibatch_size": 24, "micro_batch_size": 24, "learning_rate": 0.0, "max_grad_norm": 1e9}
"""One optimizer step that moves nothing and clips nothing, so that the gradient is there to be looked at."""
IDS = [np.array([45, 46, 47, 48]), np.array([49, 50]), np.array([51, 52, 53])]


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    return random_rollout(critical(), 24)


def critical(**options: Any) -> VLMPolicy:
    policy = tiny_policy(**options)
    fit_critic_badly(policy)
    return policy


def make(name: str, policy: VLMPolicy, **settings: Any) -> PolicyGradient:
    rollout = RolloutSettings(n_envs=4, n_steps=8, hands=2, attempts=2)
    kind, options = {"ppo": (PPO, PPOSettings), "grpo": (GRPO, GRPOSettings)}[name]
    return kind(policy, text_env, settings=options(**(WHOLE | settings)), rollout=rollout)


def gradient(algorithm: PolicyGradient, rollout: Rollout) -> dict[str, torch.Tensor]:
    """The gradient of the rollout as one minibatch, before the weights moved."""
    for number, trajectory in enumerate(rollout.trajectories):
        trajectory.seed = number // 2  # pairs of attempts at one hand, for GRPO
    algorithm.update(rollout, 0.0)
    policy = algorithm.policy
    named = [*policy.model.named_parameters(), *policy.value_head.named_parameters()]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


class Spy:
    """Notes how many prompts and padded tokens each forward pass takes."""

    def __init__(self, policy: VLMPolicy) -> None:
        self.passes: list[tuple[int, int]] = []
        evaluate = policy.evaluate

        def noted(prompts: Any, token_ids: Any, **options: Any) -> Any:
            longest = max(policy.prompt_lengths(prompts)) + max(map(len, token_ids))
            self.passes.append((len(prompts), len(prompts) * longest))
            return evaluate(prompts, token_ids, **options)

        policy.evaluate = noted  # type: ignore[method-assign]


# --- micro-batches by tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "grpo"])
@pytest.mark.parametrize("budget", [1, 100, 170])
def test_the_gradient_of_pieces_is_that_of_the_whole_minibatch(rollout: Rollout, name: str, budget: int) -> None:
    whole = gradient(make(name, critical()), rollout)
    policy = critical()
    spy = Spy(policy)
    pieces = gradient(make(name, policy, micro_batch_tokens=budget), rollout)
    assert len(spy.passes) > 2
    assert sum(n for n, _ in spy.passes) == 24
    assert all(n == 1 or tokens <= budget for n, tokens in spy.passes)
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-2
    assert largest_difference(whole, pieces) < 1e-6


def test_a_mean_of_the_pieces_means_would_be_another_gradient(rollout: Rollout) -> None:
    """What the test above would see if every piece counted alike, whatever its size."""

    class Careless(PPO):
        def _accumulate(self, pieces: Any, loss_of: Any) -> Any:
            def mean_of(piece: Any) -> Any:
                loss, terms = loss_of(piece)
                return WHOLE["minibatch_size"] / len(piece) / self.n_pieces * loss, terms

            return super()._accumulate(pieces, mean_of)

    policy = critical()
    spy = Spy(policy)
    whole = gradient(make("ppo", policy, micro_batch_tokens=190), rollout)
    assert len({n for n, _ in spy.passes}) > 1
    careless = Careless(critical(), text_env, settings=PPOSettings(**WHOLE, micro_batch_tokens=190))
    careless.n_pieces = len(spy.passes)
    assert largest_difference(whole, gradient(careless, rollout)) > 1e-3


def test_both_limits_hold_at_once(rollout: Rollout) -> None:
    policy = critical()
    spy = Spy(policy)
    make("ppo", policy, micro_batch_tokens=170, micro_batch_size=2).update(rollout, 0.0)
    assert max(n for n, _ in spy.passes) == 2
    assert max(tokens for _, tokens in spy.passes) <= 170


def test_answers_to_imitate_keep_to_the_budget_too(rollout: Rollout) -> None:
    steps = rollout.steps[:12]
    answers = [Imitation(s.prompt, s.response.token_ids, s.response.thought_mask) for s in steps]
    gradients = []
    for budget in (None, 100):
        policy = critical()
        spy = Spy(policy)
        algorithm = make("ppo", policy, micro_batch_tokens=budget)
        algorithm.guidance = ThoughtSFT(weight=2.0)
        algorithm._imitate(answers)
        gradients.append({name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None})
    assert len(spy.passes) > 2
    assert all(n == 1 or tokens <= 100 for n, tokens in spy.passes)
    assert largest_difference(*gradients) < 1e-6


# --- gradient checkpointing -------------------------------------------------------------------------------------------


def loaded(folder: Path, **options: Any) -> VLMPolicy:
    """A real family with an adapter that is not zero, whose dropout would be seen."""
    lora = {"r": 4, "dropout": 0.5}
    policy = VLMPolicy.from_pretrained(folder, lora=lora, template="paper", value_widths=(16, 8), **options)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=noise)
    return policy


def backward(policy: VLMPolicy, template: str) -> dict[str, torch.Tensor]:
    output = policy.evaluate(prompts_of(template, 3), IDS)
    (output.log_probs.sum() + output.values.sum()).backward()
    return {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}


def kept_bytes(policy: VLMPolicy, template: str) -> int:
    """Bytes that a forward pass keeps for the backward pass, the weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        policy.evaluate(prompts_of(template, 3), IDS)
    return sum(kept.values())


def calls_of_a_norm(policy: VLMPolicy, act: Callable[[], Any]) -> list[int]:
    """How often the first part of each language layer computes while something is done."""
    layers = [m for m in checkpointable_layers(policy.model) if hasattr(m, "post_attention_layernorm")]
    calls = [0] * len(layers)
    handles = []
    for index, layer in enumerate(layers):

        def count(*_args: Any, index: int = index) -> None:
            calls[index] += 1

        handles.append(layer.post_attention_layernorm.register_forward_pre_hook(count))
    act()
    for handle in handles:
        handle.remove()
    return calls


def test_checkpointing_keeps_the_gradient_of_a_whole_model() -> None:
    plain, checkpointed = (
        backward(tiny_policy(), "compact"),
        backward(tiny_policy(gradient_checkpointing=True), "compact"),
    )
    assert max(float(g.abs().max()) for g in plain.values()) > 1e-2
    assert largest_difference(plain, checkpointed) < 1e-6


def test_checkpointing_keeps_the_gradient_of_an_adapter_in_every_family(family_folder: Path) -> None:
    """The base is frozen, so no input of a layer has a gradient of its own before the first factor."""
    plain = backward(loaded(family_folder), "paper")
    checkpointed = backward(loaded(family_folder, gradient_checkpointing=True), "paper")
    assert max(float(g.abs().max()) for g in plain.values()) > 1e-2
    assert largest_difference(plain, checkpointed) < 1e-6


def test_checkpointing_keeps_less_and_computes_twice(family_folder: Path) -> None:
    plain, checkpointed = loaded(family_folder), loaded(family_folder, gradient_checkpointing=True)
    assert kept_bytes(checkpointed, "paper") < 0.6 * kept_bytes(plain, "paper")
    assert set(calls_of_a_norm(plain, lambda: backward(plain, "paper"))) == {1}
    assert set(calls_of_a_norm(checkpointed, lambda: backward(checkpointed, "paper"))) == {2}
    with torch.no_grad():
        assert set(calls_of_a_norm(checkpointed, lambda: checkpointed.score(prompts_of("paper", 3), IDS))) == {1}


def test_no_dropout_acts_under_checkpointing(family_folder: Path) -> None:
    policy = loaded(family_folder, gradient_checkpointing=True)
    modes: set[bool] = set()
    for module in policy.model.modules():
        module.register_forward_pre_hook(lambda module, _args: modes.add(module.training))
    first, second = (policy.evaluate(prompts_of("paper", 3), IDS).log_probs for _ in range(2))
    assert modes == {False}
    assert torch.equal(first, second)
    policy.model.train()  # what the adapter's dropout would do
    with torch.random.fork_rng():
        assert not torch.equal(first, policy.evaluate(prompts_of("paper", 3), IDS).log_probs)


def test_layers_are_as_before_after_a_pass_that_failed(policy: VLMPolicy) -> None:
    checkpointed = tiny_policy(gradient_checkpointing=True)
    own = checkpointable_layers(checkpointed.model)[0]
    own.forward = own.forward  # as a library does that wraps layers itself
    wrapped = own.forward
    with pytest.raises(IndexError):
        checkpointed.evaluate(prompts_of(n=1), [np.array([10**6])])
    assert own.forward is wrapped
    assert all(
        "forward" not in layer.__dict__ for layer in checkpointable_layers(checkpointed.model) if layer is not own
    )
    assert backward(policy, "compact").keys() == backward(checkpointed, "compact").keys()


def test_an_update_with_checkpointing_starts_at_ratio_one(rollout: Rollout) -> None:
    metrics = make("ppo", critical(gradient_checkpointing=True)).update(rollout, 0.0)
    assert metrics["train/ratio_error_first_epoch"] <= 1e-4


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="gradient_checkpointing to false"):
        checkpointable_layers(nn.Identity())


# --- the pictures' tokens ---------------------------------------------------------------------------------------------


def test_a_smaller_picture_is_fewer_tokens_and_is_remembered(tmp_path: Path) -> None:
    folder = save_idefics3(tmp_path / "model")
    prompts = prompts_of("paper", 2)
    tiled = VLMPolicy.from_pretrained(folder, lora={"r": 2}).prompt_lengths(prompts)
    policy = VLMPolicy.from_pretrained(folder, lora={"r": 2}, image_processor={"size": {"longest_edge": 64}})
    whole = policy.prompt_lengths(prompts)
    assert (tiled - whole > 16).all()  # four tiles of four tokens, and the marks around them
    assert (VLMPolicy.from_pretrained(policy.save(tmp_path / "adapter")).prompt_lengths(prompts) == whole).all()


def test_an_unknown_setting_of_the_image_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no setting 'resolution'"):
        VLMPolicy.from_pretrained(tiny_policy().save(tmp_path), image_processor={"resolution": 64})


# --- weights in 4 bits ------------------------------------------------------------------------------------------------

LARGE = ["policy.quantization=4bit"]


def installed(monkeypatch: pytest.MonkeyPatch, *, bitsandbytes: bool, cuda: bool) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _name: object() if bitsandbytes else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)


@pytest.mark.parametrize(
    ("bitsandbytes", "cuda", "options", "error", "message"),
    [
        (True, True, ["policy.lora=null"], ConfigError, "policy.lora is null"),
        (False, True, ["teacher.form=adapter"], DependencyError, "'bitsandbytes', which is not installed"),
        (True, False, ["teacher.form=adapter"], ConfigError, "needs a CUDA device"),
        (True, True, ["teacher.form=dense"], ConfigError, "teacher.form to adapter"),
        (True, True, ["teacher.name=static"], ConfigError, "teacher.name to merged"),
        (True, True, ["teacher.form=adapter", "policy.model=tiny"], ConfigError, "policy.model is tiny"),
    ],
)
def test_four_bits_are_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, bitsandbytes: bool, cuda: bool, options: list[str], error: Any, message: str
) -> None:
    installed(monkeypatch, bitsandbytes=bitsandbytes, cuda=cuda)
    with pytest.raises(error, match=message):
        check_parts(load_config("qwen2.5-vl-7b-points24", [*LARGE, *options]))


def test_four_bits_with_an_adapter_as_teacher_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, bitsandbytes=True, cuda=True)
    assert check_parts(load_config("qwen2.5-vl-7b-points24", [*LARGE, "teacher.form=adapter"])) is None


def test_four_bits_are_asked_of_the_loader_and_the_model_is_not_moved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loader itself needs CUDA; what it is asked for does not."""
    folder = tiny_policy().save(tmp_path)
    asked: dict[str, Any] = {}
    load = loading.AutoModelForImageTextToText.from_pretrained

    def as_the_loader(path: str, **options: Any) -> Any:
        asked.update(options)
        model = load(path, dtype="auto", use_safetensors=True)
        model.is_loaded_in_4bit = True  # where the loader ends

        def refuse(*_args: Any, **_options: Any) -> None:
            raise ValueError("`.to` is not supported for 4-bit models")

        model.to = refuse
        return model

    installed(monkeypatch, bitsandbytes=True, cuda=True)
    monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", as_the_loader)
    model = loading.load_model(str(folder), dtype="bfloat16", quantization="4bit")
    assert model.is_loaded_in_4bit
    settings = asked["quantization_config"].to_dict()
    assert settings["load_in_4bit"]
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert settings["bnb_4bit_use_double_quant"]
    assert settings["bnb_4bit_compute_dtype"] == "bfloat16"
    assert asked["device_map"] == {"": "cuda"}
    with pytest.raises(ValueError, match="not supported"):
        loading.load_model(str(folder))


def test_a_saved_adapter_remembers_the_form_of_its_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = tiny_policy().save(tmp_path / "base")
    policy = VLMPolicy.from_pretrained(base, lora={"r": 2})
    plain = policy.save(tmp_path / "plain")
    assert VLMPolicy.from_pretrained(plain).is_adapted
    policy.model.is_loaded_in_4bit = True
    packed = policy.save(tmp_path / "packed")
    installed(monkeypatch, bitsandbytes=False, cuda=False)
    with pytest.raises(DependencyError, match="bitsandbytes"):
        VLMPolicy.from_pretrained(packed)
    assert VLMPolicy.from_pretrained(packed, quantization="none").is_adapted
