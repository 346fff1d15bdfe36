"""Prompt templates: what is asked for is what is checked, and a prompt is its own copy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_models import text_env

from gtr_agents.errors import ConfigError, UnknownNameError
from gtr_agents.parsing import parse_answer
from gtr_agents.prompts import TEMPLATES, AnswerField, PromptTemplate, get_template, template_data

NAMES = sorted(TEMPLATES)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_copied_from_the_prompt_is_well_formed(name: str) -> None:
    template = TEMPLATES[name]
    answer = parse_answer(template.answer_format, template.required_keys)
    assert answer.valid_format
    assert answer.action == "one of the legal actions"


@pytest.mark.parametrize("name", ["paper", "thoughts"])
def test_the_prompt_shows_task_state_actions_and_the_format(name: str) -> None:
    env = text_env()
    observation, info = env.reset(options={"numbers": [3, 3, 8, 8]})
    observation, _, _, _, info = env.step("8")
    prompt = TEMPLATES[name].render(observation, info["legal_actions"], env.unwrapped.instructions)
    assert env.unwrapped.instructions in prompt.text
    assert TEMPLATES[name].answer_format in prompt.text
    assert ", ".join(info["legal_actions"]) in prompt.text
    assert "8" in prompt.text.splitlines()[1]
    assert prompt.legal_actions == tuple(info["legal_actions"])


def test_the_compact_prompt_is_the_state_alone() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert TEMPLATES["compact"].render({"image": image, "text": "3+"}, ["8"], "Play.").text == "3+"


def test_a_prompt_keeps_its_own_image() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    prompt = TEMPLATES["compact"].render({"image": image, "text": ""})
    image[:] = 255
    assert prompt.image.max() == 0


def test_prompts_are_compared_by_identity() -> None:
    observation = {"image": np.zeros((2, 2, 3), np.uint8), "text": ""}
    first, second = (TEMPLATES["compact"].render(observation) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2


def test_a_dollar_sign_in_the_observation_is_only_text() -> None:
    template = PromptTemplate("money", "$observation of $instructions", ())
    image = np.zeros((2, 2, 3), np.uint8)
    assert template.render({"image": image, "text": "$instructions"}, (), "$5").text == "$instructions of $5"


def test_the_system_turn_is_filled_in_too() -> None:
    template = PromptTemplate("strict", "$observation", (), system="Task: $instructions")
    prompt = template.render({"image": np.zeros((2, 2, 3), np.uint8), "text": "x"}, (), "win")
    assert prompt.system == "Task: win"


@pytest.mark.parametrize("name", NAMES)
def test_a_written_answer_is_well_formed_and_made_of_the_scaffold(name: str) -> None:
    template = TEMPLATES[name]
    values = {"cards": [1, 13], "formula": "1+", "thoughts": "1+13=", "action": "13"}
    text = template.write_answer(values)
    answer = parse_answer(text, template.required_keys)
    assert answer.valid_format
    assert (answer.action, answer.thought) == ("13", "1+13=")
    assert list(json.loads(text)) == list(template.required_keys)
    position = 0
    for piece in template.scaffold():
        position = text.index(piece, position) + len(piece)
    assert position == len(text)


def test_an_answer_is_written_in_the_letters_it_has() -> None:
    template = PromptTemplate("plain", "", (AnswerField("thoughts"), AnswerField("action")))
    assert template.write_answer({"thoughts": "é", "action": "ü", "more": 1}) == '{"thoughts": "é", "action": "ü"}'


def test_a_template_is_found_by_name_and_passes_through_as_object() -> None:
    template = PromptTemplate("own", "", ())
    assert get_template(template) is template
    assert get_template("paper") is TEMPLATES["paper"]


def test_a_template_of_ones_own_comes_back_from_its_data_and_a_known_one_from_its_name() -> None:
    own = PromptTemplate(
        "compact", "other words: $observation", (AnswerField("plan", "list", "steps"),), thought_key="plan"
    )
    assert get_template(json.loads(json.dumps(template_data(own)))) == own
    assert template_data(TEMPLATES["compact"]) == "compact"
    with pytest.raises(ConfigError, match="fields of a prompt template"):
        get_template({"name": "own", "user": ""})


def test_an_unknown_template_names_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'compact'"):
        get_template("compakt")
