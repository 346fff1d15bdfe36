"""The tiny model: real classes built from configs, a tokenizer made for its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SIZES, generator, prompts_of, text_env
from transformers import AutoModelForImageTextToText, AutoProcessor

from gtr_agents.errors import UnknownNameError
from gtr_agents.policies.inputs import encode
from gtr_agents.policies.tiny import build_processor, build_tiny_vlm, build_tokenizer
from gtr_agents.policies.vlm import VLMPolicy
from gtr_agents.prompts import TEMPLATES, get_template


def test_the_default_model_has_about_two_million_parameters() -> None:
    model, _ = build_tiny_vlm()
    assert 1.5e6 < sum(p.numel() for p in model.parameters()) < 2.5e6


def test_the_seed_decides_the_weights_and_the_global_generator_stays() -> None:
    before = torch.get_rng_state()
    first, again, other = (build_tiny_vlm(seed=seed, **SIZES)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "lm_head.weight"
    assert not torch.equal(first[name], other[name])


def test_the_initial_weights_are_as_wide_as_asked_for() -> None:
    model, _ = build_tiny_vlm(initializer_range=0.08, **SIZES)
    for name in ("multi_modal_projector.linear_1", "language_model.layers.0.self_attn.q_proj"):
        assert model.get_submodule(f"model.{name}").weight.std().item() == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize("backbone", ["llama", "lfm2"])
def test_the_output_scale_makes_only_the_layers_writing_matrices_smaller(backbone: str) -> None:
    wide, narrow = (
        dict(build_tiny_vlm(backbone=backbone, output_scale=scale, **SIZES)[0].named_parameters())
        for scale in (1.0, 0.1)
    )
    changed = {name for name in wide if not torch.equal(wide[name], narrow[name])}
    assert all("language_model.layers." in name for name in changed)
    written = {
        "llama": {"self_attn.o_proj.weight", "mlp.down_proj.weight"},
        "lfm2": {"self_attn.out_proj.weight", "conv.out_proj.weight", "feed_forward.w2.weight"},
    }
    assert {name.split(".layers.")[1].split(".", 1)[1] for name in changed} == written[backbone]


def test_an_unknown_backbone_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"lfm3.*lfm2.*llama"):
        build_tiny_vlm(backbone="lfm3")


@pytest.mark.parametrize("backbone", ["llama", "lfm2"])
def test_log_probs_of_sampling_are_those_of_scoring_with_prompts_of_many_lengths(backbone: str) -> None:
    model, processor = build_tiny_vlm(backbone=backbone, **SIZES)
    policy = VLMPolicy(model, processor, template="compact", temperature=0.7, max_new_tokens=12)
    prompts = prompts_of(n=6)
    responses = policy.act(prompts, generator=generator(1))
    scored = policy.evaluate(prompts, [response.token_ids for response in responses])
    assert len({len(response.prompt_ids) for response in responses}) > 1
    for row, response in enumerate(responses):
        own = scored.log_probs[row, : len(response.token_ids)].detach().numpy()
        assert own == pytest.approx(response.log_probs, abs=2e-5)


def test_model_and_processor_come_back_through_the_auto_classes(tmp_path: Path) -> None:
    model, processor = build_tiny_vlm(**SIZES)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, loaded_processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    assert loaded_processor.image_processor is not None
    assert loaded_processor.tokenizer.padding_side == "left"
    prompts = prompts_of(n=3)
    for own, other in zip(encode(processor, prompts), encode(loaded_processor, prompts), strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)
        with torch.no_grad():
            assert torch.equal(model(**own).logits, loaded(**other).logits)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_an_answer_takes_few_tokens_and_its_action_one(template: str) -> None:
    tokenizer = build_tokenizer(template)
    chosen = get_template(template)
    values = {"cards": [10, 3, 13, 1], "formula": "10-", "thoughts": "10-3", "action": "10"}
    ids = tokenizer(chosen.write_answer(values), add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces.count("10") >= 2
    assert pieces[-2:] == ["10", '"}']
    n_values = {"compact": 4 + 3, "compact-goal": 3, "paper": 4 + 2 + 3, "thoughts": 3}[template]
    assert len(ids) == len(chosen.scaffold()) + n_values + 1


@pytest.mark.parametrize("text", ["é漢😀", '{"a": [1, 2]}', "\x00\x7f tab\t newline\n", "13 130 1310", "<image >"])
def test_any_text_can_be_written_and_read_back(text: str) -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("sizes", [(96, 48), (64, 16), (120, 40)])
def test_an_image_becomes_one_token_a_patch(sizes: tuple[int, int]) -> None:
    image_size, patch_size = sizes
    processor = build_processor("compact", image_size, patch_size)
    inputs = encode(processor, prompts_of(n=1))[0]
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert int((inputs["input_ids"] == image_id).sum()) == (image_size // patch_size) ** 2
    assert inputs["pixel_values"].shape == (1, 3, image_size, image_size)


def test_pixels_reach_the_model_from_minus_one_to_one() -> None:
    observation, _ = text_env().reset(seed=0)
    prompt = get_template("compact").render(observation)
    pixels = encode(build_processor(), [prompt])[0]["pixel_values"][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(pixels, observation["image"] / 127.5 - 1.0, atol=1e-5)
