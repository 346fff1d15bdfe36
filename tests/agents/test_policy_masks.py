# ruff: noqa: S106 - a "token" is a piece of language here, never a password
"""Thought or action: every sampled token is one of the two, found from character offsets, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_families import byte_level_bpe, llama_like_tokenizer
from small_models import tiny_policy
from transformers import PreTrainedTokenizerFast

from gtr_agents.parsing import parse_answer
from gtr_agents.policies.tiny import build_tokenizer
from gtr_agents.policies.vlm import VLMPolicy

KEYS = ("thoughts", "action")


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(["<end>"]), eos_token="<end>")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "tiny": build_tokenizer,
    "byte-level": bpe_tokenizer,
    "metaspace": llama_like_tokenizer,
}

TEXTS = [
    '{"thoughts": "3+4 first", "action": "+"}',
    '{"thoughts": "3+4 first", "action" : "+" }',
    '{"thoughts" : "then 8" ,\n "action":"10"}',
    '{"action": "(", "thoughts": "the bracket comes first"}',
    '{"thoughts": "é ü 漢字 😀 sind schön", "action": "+"}',
    '{"thoughts": "x漢", "action": "漢"}',
    '{"thoughts": "😀","action": "ü", "more": "é"}',
    'é{"thoughts": "ä", "action": "über',
    '{"thoughts": "3", 漢"action": "+"}',
    '  {"thoughts": "  blanks  ", "action": "  +  "}  ',
    "no object at all, mon ami é",
]


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def speaker(request: pytest.FixtureRequest) -> VLMPolicy:
    """A policy with the tokenizer in question; only its tokenizer is used."""
    policy = tiny_policy()
    policy.tokenizer = TOKENIZERS[request.param]()
    policy.eos_id = policy.tokenizer.eos_token_id
    policy._pieces.clear()
    return policy


def mask_by_offsets(policy: VLMPolicy, text: str, span: tuple[int, int] | None) -> list[bool]:
    """The mask from the offsets that the tokenizer itself tells when it encodes the text."""
    offsets = policy.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if span is None:
        return [True] * len(offsets)
    return [not (last > span[0] and first < span[1]) for first, last in offsets]


@pytest.mark.parametrize("text", TEXTS)
def test_the_mask_agrees_with_the_tokenizers_own_offsets(speaker: VLMPolicy, text: str) -> None:
    ids = speaker.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert speaker.tokenizer.decode(ids) == text
    answer = parse_answer(text, KEYS)
    mask = speaker.thought_mask(ids, text, answer)
    assert mask.tolist() == mask_by_offsets(speaker, text, answer.action_span)


@pytest.mark.parametrize("text", TEXTS[:5])
def test_the_action_tokens_spell_the_action(speaker: VLMPolicy, text: str) -> None:
    ids = speaker.tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = parse_answer(text, KEYS)
    mask = speaker.thought_mask(ids, text, answer)
    action = speaker.tokenizer.decode([i for i, thought in zip(ids, mask, strict=True) if not thought])
    start, end = answer.action_span or (0, 0)
    assert text[start:end] in action
    assert len(action) <= end - start + 12  # a token that straddles the border is action


def test_an_answer_cut_inside_a_character_ends_in_action_tokens(speaker: VLMPolicy) -> None:
    ids = speaker.tokenizer('{"thoughts": "ä", "action": "漢', add_special_tokens=False)["input_ids"][:-1]
    text = speaker.tokenizer.decode(ids)
    mask = speaker.thought_mask(ids, text, parse_answer(text, KEYS))
    assert text.endswith("\ufffd")
    assert mask[0]
    assert not mask[-1]
    assert sorted(mask.tolist(), reverse=True) == mask.tolist()  # thought first, then action only


@pytest.mark.parametrize(
    ("text", "end_is_thought"),
    [
        ('{"thoughts": "3", "action": "+"}', False),
        ('{"action": "+", "thoughts": "3"}', True),
        ('{"thoughts": "3"}', True),
    ],
)
def test_the_end_token_belongs_to_an_action_that_comes_last(
    speaker: VLMPolicy, text: str, end_is_thought: bool
) -> None:
    ids = [*speaker.tokenizer(text, add_special_tokens=False)["input_ids"], speaker.eos_id]
    mask = speaker.thought_mask(ids, text, parse_answer(text, KEYS))
    assert len(mask) == len(ids)
    assert bool(mask[-1]) is end_is_thought


def test_the_tiny_tokenizer_has_the_hand_made_mask() -> None:
    policy = tiny_policy()
    text = '{"cards": [7, 10], "thoughts": "7+10=", "action": "+"}'
    ids = [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.eos_id]
    assert policy.token_texts(ids) == [
        *('{"cards": [', "7", ", 10", '], "thoughts": "', "7", "+", "10", "=", '", "action": "', "+", '"}', "<|end|>")
    ]
    answer = parse_answer(text, policy.template.required_keys)
    assert policy.thought_mask(ids, text, answer).tolist() == [True] * 8 + [False] * 4
