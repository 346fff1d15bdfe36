"""How an observation becomes a prompt, and what an answer must look like: templates, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from string import Template
from typing import Any, Literal

from gtr_agents.errors import ConfigError, unknown_name
from gtr_agents.types import Prompt


@dataclass(frozen=True, slots=True)
class AnswerField:
    """One key of the JSON object the model answers with."""

    key: str
    """The JSON key."""
    kind: Literal["text", "list"] = "text"
    """Whether the value is a string or a list of numbers."""
    hint: str = ""
    """What belongs here, in words, as the prompt says it."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The format of a prompt and of its answer. The task's own words come from the environment.

    ``user`` and ``system`` may use ``$instructions`` (the environment's task text), ``$observation`` (its text
    observation), ``$legal_actions`` (comma separated) and ``$answer_format`` (an example object made from ``fields``,
    so that what is asked for and what is checked can never differ).
    """

    name: str
    """The name configurations use."""
    user: str
    """The user's turn; the image always comes first."""
    fields: tuple[AnswerField, ...]
    """The keys of the answer, in order. All are required for a valid format."""
    system: str = ""
    """The system turn; empty for none."""
    thought_key: str = "thoughts"
    """The field that holds the reasoning."""
    action_key: str = "action"
    """The field that holds the action."""
    thought: Literal["words", "plan"] = "words"
    """What a demonstration writes as its thought: sentences, or the whole plan if the task has one."""

    @property
    def required_keys(self) -> tuple[str, ...]:
        """Keys that an answer must have to count as well formed."""
        return tuple(field.key for field in self.fields)

    @property
    def answer_format(self) -> str:
        """An example of the answer: valid JSON with the hint of each field as its value."""
        return json.dumps({f.key: [f.hint] if f.kind == "list" else f.hint for f in self.fields}, ensure_ascii=False)

    def render(
        self, observation: Mapping[str, Any], legal_actions: Sequence[str] = (), instructions: str = ""
    ) -> Prompt:
        """Write the prompt for one observation.

        Args:
            observation: ``{"image": uint8 [H, W, 3], "text": str}``; the text may be missing.
            legal_actions: actions the environment would accept now.
            instructions: the task in words.

        Returns:
            The prompt, holding its own copy of the image.

        Raises:
            ConfigError: If the observation has no picture.
        """
        if "image" not in observation:
            raise ConfigError(
                f"A vision-language policy needs a picture, but the observation has {sorted(observation)}; make the "
                "environment with observe='both' or observe='image'."
            )
        values = {
            "instructions": instructions,
            "observation": observation.get("text", ""),
            "legal_actions": ", ".join(legal_actions),
            "answer_format": self.answer_format,
        }
        return Prompt(
            text=Template(self.user).substitute(values),
            image=observation["image"].copy(),
            system=Template(self.system).substitute(values),
            legal_actions=tuple(legal_actions),
        )

    def write_answer(self, values: Mapping[str, Any]) -> str:
        """Write the JSON answer with these field values, as a perfect answer looks.

        Args:
            values: one value for each key of ``fields``; other keys are ignored.

        Returns:
            One line of JSON.
        """
        return json.dumps({key: values[key] for key in self.required_keys}, ensure_ascii=False)

    def write_thought(self, thought: Any) -> str:
        """Write what a demonstrator thinks in one state as the answer to imitate there.

        Args:
            thought: Has ``numbers``, ``formula``, ``plan``, ``words`` and ``action`` (see
                ``gtr_envs.cards.thoughts.Thought``).

        Returns:
            One line of JSON; its thought is the plan or the words, as the template says.
        """
        values = {
            "cards": list(thought.numbers),
            "formula": thought.formula,
            self.thought_key: (self.thought == "plan" and thought.plan) or thought.words,
            self.action_key: thought.action,
        }
        return self.write_answer(values)

    def scaffold(self) -> tuple[str, ...]:
        """Return the constant strings between the values of an answer, first to last.

        A tokenizer built for this template makes one token of each, which halves the length of an answer.
        """
        pieces, closer = [], ""
        for index, field in enumerate(self.fields):
            opener = "[" if field.kind == "list" else '"'
            pieces.append(f"{closer}{', ' if index else '{'}{json.dumps(field.key)}: {opener}")
            closer = "]" if field.kind == "list" else '"'
        return (*pieces, closer + "}")


_CARDS = AnswerField("cards", "list", "the values of the cards in the image")
_ACTION = AnswerField("action", hint="one of the legal actions")

TEMPLATES: dict[str, PromptTemplate] = {
    # For models of a few million parameters trained from scratch: every token costs time, and the task is learned from
    # demonstrations, so the prompt holds the state only and the thought is the planned formula.
    "compact": PromptTemplate(
        name="compact",
        user="$observation",
        fields=(_CARDS, AnswerField("thoughts", hint="the whole planned formula"), _ACTION),
        thought="plan",
    ),
    # For tasks whose actions are commands: the thought is what is wanted, the action a step towards it.
    "compact-goal": PromptTemplate(
        name="compact-goal",
        user="$observation",
        fields=(AnswerField("thoughts", hint="what you want to do or to find"), _ACTION),
        thought="plan",
    ),
    # The fields of the published prompts for Points24 (arXiv 2512.13043), in our words.
    "paper": PromptTemplate(
        name="paper",
        user=(
            "$instructions\nFormula so far: '$observation'\nLegal actions: $legal_actions\n"
            "Answer with exactly one JSON object and nothing else, in this form:\n$answer_format"
        ),
        fields=(
            _CARDS,
            AnswerField("formula", hint="the formula so far"),
            AnswerField(
                "thoughts", hint="is the formula complete? if so '=', else what to append to reach the target, and why"
            ),
            _ACTION,
        ),
    ),
    "thoughts": PromptTemplate(
        name="thoughts",
        user=(
            "$instructions\n$observation\nLegal actions: $legal_actions\n"
            "Answer with exactly one JSON object and nothing else, in this form:\n$answer_format"
        ),
        fields=(AnswerField("thoughts", hint="describe the image, then think about the next step"), _ACTION),
    ),
}
"""The known templates by name."""


def template_data(template: PromptTemplate) -> str | dict[str, Any]:
    """A template as JSON holds it: the name of a known one, every field of one's own."""
    return template.name if TEMPLATES.get(template.name) == template else asdict(template)


def get_template(template: str | PromptTemplate | Mapping[str, Any]) -> PromptTemplate:
    """Look a template up by name; a template object passes through, and what :func:`template_data` made comes back.

    Raises:
        UnknownNameError: if no template has that name.
        ConfigError: if a mapping is not the data of a template.
    """
    if isinstance(template, PromptTemplate):
        return template
    if isinstance(template, Mapping):
        try:
            fields = tuple(AnswerField(**field) for field in template["fields"])
            return PromptTemplate(**{**template, "fields": fields})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"Expected the fields of a prompt template, got {dict(template)!r}: {error}") from error
    if template not in TEMPLATES:
        raise unknown_name("prompt template", template, TEMPLATES)
    return TEMPLATES[template]
