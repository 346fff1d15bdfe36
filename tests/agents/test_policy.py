"""The policy: sampling and scoring are one density, and weights come back exactly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import (
    answered,
    fit_critic_badly,
    generator,
    prompts_of,
    same_weights,
    tiny_policy,
    weights_of,
)

from gtr_agents.errors import ConfigError, ModelError
from gtr_agents.policies.sampling import SamplingRecorder, entropy_of, policy_log_probs
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.types import Prompt, Response

FP32 = 1e-4


def largest_error(policy: VLMPolicy, prompts: list[Prompt], responses: list[Response]) -> float:
    """Largest difference between the log-probs of sampling and those of scoring."""
    with torch.no_grad():
        scored = policy.evaluate(prompts, [r.token_ids for r in responses]).log_probs.numpy()
    return max(
        float(np.abs(row[: len(r.token_ids)] - r.log_probs).max()) for row, r in zip(scored, responses, strict=True)
    )


# --- one density ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_scoring_an_answer_gives_the_log_probs_it_was_sampled_with(temperature: float) -> None:
    policy, prompts = tiny_policy(temperature=temperature), prompts_of(n=5)
    responses = answered(policy, prompts)
    assert len({len(r.prompt_ids) for r in responses}) > 1  # padding is part of the test
    assert largest_error(policy, prompts, responses) < FP32


def test_scoring_under_exchanged_prompts_gives_other_log_probs(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=4)
    responses = answered(policy, prompts)
    assert largest_error(policy, prompts[1:] + prompts[:1], responses) > 1e-2


def test_the_log_probs_at_temperature_one_are_those_of_score(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=5)
    responses = answered(policy, prompts)
    scores = policy.score(prompts, [r.token_ids for r in responses], batch_size=2)
    for response, score in zip(responses, scores, strict=True):
        np.testing.assert_allclose(score, response.log_probs_t1, atol=FP32)
        assert np.abs(response.log_probs_t1 - response.log_probs).max() > 1e-2  # sampled at 0.7


def test_two_scorings_are_identical(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=3)
    ids = [r.token_ids for r in answered(policy, prompts)]
    first, second = policy.score(prompts, ids), policy.score(prompts, ids)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not policy.model.training


def test_the_value_of_a_state_is_the_same_however_it_is_asked_for(policy: VLMPolicy) -> None:
    fit_critic_badly(policy)
    prompts = prompts_of(n=4)
    responses = answered(policy, prompts)
    acted = [r.value for r in responses]
    assert len(set(acted)) == 4
    assert policy.predict_values(prompts) == pytest.approx(acted, abs=1e-4)
    with torch.no_grad():
        evaluated = policy.evaluate(prompts, [r.token_ids for r in responses]).values.tolist()
    assert evaluated == pytest.approx(acted, abs=1e-4)


def test_inputs_processed_anew_give_what_kept_inputs_give() -> None:
    prompts = prompts_of(n=3)
    texts = []
    for keep in (True, False):
        policy = tiny_policy(cache_inputs=keep)
        answered(policy, prompts)
        texts.append([r.text for r in answered(policy, prompts, seed=1)])
    assert texts[0] == texts[1]


def test_kept_inputs_are_forgotten_with_their_prompts(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=3)
    answered(policy, prompts)
    assert len(policy._inputs) == 3
    del prompts[1:]
    assert len(policy._inputs) == 1


def test_the_system_turn_reaches_the_model(policy: VLMPolicy) -> None:
    prompt = prompts_of(n=1)[0]
    told = Prompt(text=prompt.text, image=prompt.image, system="Be brief.")
    without, with_system = answered(policy, [prompt, told])
    assert "Be brief." in policy.tokenizer.decode(with_system.prompt_ids)
    assert "Be brief." not in policy.tokenizer.decode(without.prompt_ids)


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_greedy_answers_are_those_of_generate(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=4)
    messages = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}] for prompt in prompts
    ]
    texts = [policy.processor.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in messages]
    inputs = policy.processor(text=texts, images=[p.image for p in prompts], padding=True, return_tensors="pt")
    specials = [i for i in policy.tokenizer.all_special_ids if i != policy.tokenizer.eos_token_id]
    expected = policy.model.generate(**inputs, do_sample=False, max_new_tokens=12, suppress_tokens=specials)
    expected = expected[:, inputs["input_ids"].shape[1] :].tolist()
    for response, row in zip(policy.act(prompts), expected, strict=True):
        assert response.token_ids.tolist() == row[: len(response.token_ids)]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_sampled_as_often_as_their_probability_says(temperature: float) -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = torch.cat([shares.log(), torch.tensor([9.0])])  # the likeliest token is banned
    banned = torch.tensor([False] * 4 + [True])
    recorder = SamplingRecorder(banned, temperature, generator(3))
    n = 20_000
    picked = recorder(torch.zeros(n, 1, dtype=torch.long), logits.expand(n, 5)).argmax(-1)
    expected = shares ** (1 / temperature)
    expected = expected / expected.sum()
    counts = torch.bincount(picked, minlength=5)
    chi_square = float(((counts[:4] - n * expected) ** 2 / (n * expected)).sum())
    assert counts[4] == 0
    assert chi_square < 16.3  # 99.9 % of a chi-square with 3 degrees of freedom
    torch.testing.assert_close(recorder.log_probs[0], expected.log()[picked])
    torch.testing.assert_close(recorder.log_probs_t1[0], shares.log()[picked])
    torch.testing.assert_close(recorder.entropies[0], -(expected * expected.log()).sum().expand(n))


def test_the_density_is_computed_in_float32_whatever_the_logits_are() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.bfloat16)
    log_probs = policy_log_probs(logits, torch.zeros(3, dtype=torch.bool), 0.5)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, torch.log_softmax(logits.float() / 0.5, -1))


def test_the_entropy_of_a_banned_token_is_zero_not_nan() -> None:
    log_probs = policy_log_probs(torch.zeros(1, 3), torch.tensor([False, False, True]), 1.0)
    assert entropy_of(log_probs).item() == pytest.approx(np.log(2))


def test_no_special_token_but_the_end_is_ever_sampled() -> None:
    policy = tiny_policy(temperature=50.0, max_new_tokens=40)  # nearly uniform: every token comes up
    sampled = {int(i) for r in answered(policy, prompts_of(n=24)) for i in r.token_ids}
    specials = {policy.tokenizer.convert_tokens_to_ids(t) for t in ("<|pad|>", "<|user|>", "<|assistant|>", "<image>")}
    assert policy.eos_id in sampled
    assert len(sampled) > 200
    assert not sampled & specials
    assert specials == set(policy.banned.nonzero().flatten().tolist())


def test_ids_beyond_the_tokenizer_are_never_sampled(policy: VLMPolicy) -> None:
    model, n = policy.model, len(policy.tokenizer)
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(n + 500, mean_resizing=False)
    wide = VLMPolicy(model, policy.processor, template="compact", temperature=50.0, max_new_tokens=20)
    assert wide.banned[n:].all()
    assert max(int(r.token_ids.max()) for r in answered(wide, prompts_of(n=8))) < n


def test_an_answer_ends_with_its_end_token_or_is_marked_as_cut() -> None:
    policy = tiny_policy(temperature=50.0, max_new_tokens=40)
    responses = answered(policy, prompts_of(n=24))
    assert {r.truncated for r in responses} == {True, False}
    for response in responses:
        ended = response.token_ids[-1] == policy.eos_id
        assert response.truncated != ended
        assert len(response.token_ids) == 40 or ended
        assert policy.eos_id not in response.token_ids[:-1]
        n = len(response.token_ids)
        assert len(response.log_probs) == len(response.log_probs_t1) == len(response.thought_mask) == n
        assert np.isfinite(response.log_probs).all()


def test_the_seed_of_the_generator_decides_the_answers(policy: VLMPolicy) -> None:
    prompts = prompts_of(n=3)
    first, again, other = (answered(policy, prompts, seed) for seed in (0, 0, 1))
    assert [r.text for r in first] == [r.text for r in again]
    assert all(np.array_equal(a.log_probs, b.log_probs) for a, b in zip(first, again, strict=True))
    assert [r.text for r in first] != [r.text for r in other]


def test_building_and_acting_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    policy = tiny_policy(seed=3)
    policy.act(prompts_of(n=2))
    answered(policy, prompts_of(n=2))
    assert torch.equal(before, torch.get_rng_state())


def test_an_unparsed_answer_says_so_and_a_parsed_one_holds_its_action(policy: VLMPolicy) -> None:
    text = '{"cards": [1, 2, 3, 4], "thoughts": "1+2", "action": "+"}'
    written = policy.tokenizer(text, add_special_tokens=False)["input_ids"] + [policy.eos_id]
    responses = [*answered(policy, prompts_of(n=1)), spoken(policy, written)]
    assert responses[0].answer.error
    assert responses[0].thought_mask.all()
    assert responses[1].text == text
    assert responses[1].answer.action == "+"
    marked = "".join(policy.tokenizer.decode(responses[1].token_ids[~responses[1].thought_mask]).split())
    assert marked.endswith('"action":"+"}<|end|>')


def spoken(policy: VLMPolicy, ids: list[int]) -> Response:
    """The response when the model generates exactly these tokens."""

    def generate(input_ids: torch.Tensor, logits_processor: list[SamplingRecorder], **_: object) -> torch.Tensor:
        with torch.no_grad():
            policy.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))  # the hidden state is wanted
        for _token in ids:
            logits_processor[0](input_ids, torch.zeros(1, len(policy.banned)))
        return torch.cat([input_ids, torch.tensor([ids])], 1)

    original = policy.model.generate
    try:
        policy.model.generate = generate
        return policy.act(prompts_of(n=1))[0]
    finally:
        policy.model.generate = original


# --- weights ----------------------------------------------------------------------------------------------------------


def test_a_saved_policy_comes_back_bit_for_bit(policy: VLMPolicy, tmp_path: Path) -> None:
    fit_critic_badly(policy)
    prompts = prompts_of(n=3)
    responses = answered(policy, prompts)
    loaded = VLMPolicy.from_pretrained(policy.save(tmp_path / "model"))
    assert (loaded.template, loaded.temperature, loaded.max_new_tokens) == (policy.template, 0.7, 12)
    assert same_weights(weights_of(policy), weights_of(loaded))
    again = answered(loaded, prompts)
    for a, b in zip(responses, again, strict=True):
        assert np.array_equal(a.token_ids, b.token_ids)
        assert np.array_equal(a.log_probs, b.log_probs)
        assert a.value == b.value
        assert np.array_equal(a.prompt_ids, b.prompt_ids)
    assert not list((tmp_path / "model").rglob("*.bin"))


def test_arguments_override_what_a_folder_says(policy: VLMPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    assert VLMPolicy.from_pretrained(tmp_path, temperature=0.1, max_new_tokens=3).temperature == 0.1


def test_a_value_head_of_another_width_is_refused_with_its_file(policy: VLMPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    with pytest.raises(ModelError, match=r"value_head\.safetensors"):
        VLMPolicy.from_pretrained(tmp_path, value_widths=(8, 8))


def test_acting_as_another_model_ends_with_the_own_weights(policy: VLMPolicy) -> None:
    prompts, other = prompts_of(n=2), tiny_policy(seed=9)
    own, ids = weights_of(policy), [np.array([3, 4, 5])] * 2
    scores = policy.score(prompts, ids)
    with policy.using(other.merge_state()):
        inside = policy.score(prompts, ids)
    assert all(np.array_equal(a, b) for a, b in zip(inside, other.score(prompts, ids), strict=True))
    assert all(not np.array_equal(a, b) for a, b in zip(inside, scores, strict=True))
    assert same_weights(own, weights_of(policy))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_acting_as_another_model_ends_with_the_own_weights_after_an_exception(
    policy: VLMPolicy, error: type[BaseException]
) -> None:
    own = weights_of(policy)
    with pytest.raises(error), policy.using(tiny_policy(seed=9).merge_state()):
        raise error
    assert same_weights(own, weights_of(policy))


def test_a_state_that_does_not_fit_leaves_the_own_weights(policy: VLMPolicy) -> None:
    own, state = weights_of(policy), tiny_policy(seed=9).merge_state()
    state[list(state)[-1]] = torch.zeros(1, 2, 3)
    with pytest.raises(RuntimeError), policy.using(state):
        pass
    assert same_weights(own, weights_of(policy))


def test_a_merge_state_is_a_copy_without_the_value_head(policy: VLMPolicy) -> None:
    state = policy.merge_state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1.0)
    assert same_weights(before, state)
    assert state.keys() == dict(policy.model.named_parameters()).keys()


def test_the_trainable_parameters_are_model_and_value_head(policy: VLMPolicy) -> None:
    parameters = policy.trainable_parameters()
    assert len({id(p) for p in parameters}) == len(parameters)
    assert sum(p.numel() for p in parameters) == sum(p.numel() for p in policy.model.parameters()) + sum(
        p.numel() for p in policy.value_head.parameters()
    )


def test_a_critic_with_stopped_gradient_leaves_the_model_alone() -> None:
    for stop in (True, False):
        policy = tiny_policy(value_stop_gradient=stop)
        fit_critic_badly(policy)
        policy.evaluate(prompts_of(n=1), [np.array([3])]).values.sum().backward()
        touched = any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.model.parameters())
        assert touched != stop


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["tokenizer", "image_processor"])
def test_a_processor_without_a_part_is_refused(policy: VLMPolicy, missing: str) -> None:
    parts = {"tokenizer": policy.tokenizer, "image_processor": policy.processor.image_processor, missing: None}
    with pytest.raises(ModelError, match=f"without {missing}"):
        VLMPolicy(policy.model, SimpleNamespace(**parts))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"max_new_tokens": 0}])
def test_a_temperature_or_length_of_zero_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        tiny_policy(**options)


def test_a_folder_without_weights_processor_or_config_says_what_it_lacks(policy: VLMPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors weights"):
        VLMPolicy.from_pretrained(tmp_path)
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / file).unlink()
    with pytest.raises(ModelError, match="processor"):
        VLMPolicy.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        VLMPolicy.from_pretrained(tmp_path)


def test_a_processor_without_a_chat_template_is_refused(policy: VLMPolicy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template"):
        VLMPolicy.from_pretrained(tmp_path)


def test_an_unknown_model_is_refused_without_a_network() -> None:
    with pytest.raises(ModelError, match="nobody/no-such-model"):
        VLMPolicy.from_pretrained("nobody/no-such-model")
