"""Demonstrations: well-formed answers of an expert, right or wrong as asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from small_models import CountingEnv, text_env

from gtr_agents.demonstrations import Demonstration, demonstrations
from gtr_agents.errors import ConfigError
from gtr_agents.parsing import parse_answer
from gtr_agents.prompts import TEMPLATES
from gtr_envs.cards.formula import tokenize
from gtr_envs.cards.thoughts import Finding, Thought
from gtr_envs.registration import ENVS


class ExpertEnv(CountingEnv):
    """Its expert goes up and stops; a mistaken one stops at once."""

    def demonstrate(self, rng: np.random.Generator, *, mistaken: bool = False) -> Iterator[Thought]:
        del rng
        way = ["stop"] if mistaken else ["up", "up", "stop"]
        for played, action in enumerate(way):
            yield Thought((), "", "", f"I will play {' '.join(way[played:])}.", action)

    def expert_thought(self) -> Thought:
        return next(self.demonstrate(np.random.default_rng(0)))


def some(
    n: int, make_env: Any = ExpertEnv, template: str = "thoughts", seed: int = 0, **options: Any
) -> list[Demonstration]:
    stream = demonstrations(make_env, TEMPLATES[template], np.random.default_rng(seed), **options)
    return list(islice(stream, n))


def action(demonstration: Demonstration) -> str | None:
    return parse_answer(demonstration.answer, ()).action


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("env_id", ENVS)
def test_answers_of_a_perfect_expert_are_well_formed_and_legal(template: str, env_id: str) -> None:
    for demonstration in some(60, lambda: text_env(env_id), template, buffer=16):
        answer = parse_answer(demonstration.answer, TEMPLATES[template].required_keys)
        assert answer.valid_format
        assert answer.action in demonstration.prompt.legal_actions
        assert answer.thought


def test_a_demonstration_reads_the_cards_on_the_table() -> None:
    env = text_env("EZPoints-v0")
    tables = {env.reset(seed=seed)[0]["image"].tobytes(): env.reset(seed=seed)[1]["numbers"] for seed in range(300)}
    found = 0
    for demonstration in some(300, lambda: text_env("EZPoints-v0"), "compact", buffer=16):
        numbers = tables.get(demonstration.prompt.image.tobytes())
        if numbers is not None:
            assert parse_answer(demonstration.answer, ()).fields["cards"] == numbers
            found += 1
    assert found > 3


def test_the_expert_is_followed_state_by_state() -> None:
    by_state = {d.prompt.text.splitlines()[1]: action(d) for d in some(60, buffer=4)}
    assert by_state == {"0": "up", "1": "up", "2": "stop"}


def test_the_first_state_is_always_demonstrated() -> None:
    shown = [d.prompt.text.splitlines()[1] for d in some(300, buffer=1)]
    assert shown.count("0") == pytest.approx(100, abs=3)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_mistakes_are_as_frequent_as_asked_for(rate: float) -> None:
    first = [action(d) for d in some(1500, buffer=4, mistake_rate=rate) if d.prompt.text.splitlines()[1] == "0"]
    share = first.count("stop") / len(first)
    assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / len(first)) ** 0.5)


def test_the_generator_decides_the_demonstrations() -> None:
    make = lambda: text_env("EZPoints-v0")  # noqa: E731
    first, again, other = ([d.answer for d in some(30, make, "compact", seed, buffer=16)] for seed in (0, 0, 1))
    assert first == again != other


def test_neighbours_come_from_different_episodes() -> None:
    tables = [d.prompt.image.tobytes() for d in some(100, lambda: text_env(), "compact", buffer=64)]
    repeats = sum(a[:20_000] == b[:20_000] for a, b in pairwise(tables))
    assert repeats < 20


def test_an_environment_without_an_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot demonstrate"):
        some(1, CountingEnv)


def test_mistakes_need_a_plan() -> None:
    with pytest.raises(ConfigError, match=r"no demonstrate.*set mistake_rate to 0"):
        some(1, lambda: text_env("NumberLine-v0"), mistake_rate=0.5)


@pytest.mark.parametrize("template", ["compact", "paper"])
def test_the_audit_finds_nothing_in_a_perfect_demonstration_and_the_mistake_in_every_other(template: str) -> None:
    env: Any = text_env(deal="solvable")
    found = {}
    for rate in (0.0, 1.0):
        findings = []
        for demonstration in some(40, lambda: text_env(deal="solvable"), template, buffer=1, mistake_rate=rate):
            answer = parse_answer(demonstration.answer, ())
            if "formula" in answer.fields:  # every state
                formula = answer.fields["formula"]
            elif demonstration.prompt.text:  # the states after the first one, whose prompt is the formula
                formula = demonstration.prompt.text
            else:
                formula = ""
            env.reset(options={"numbers": answer.fields["cards"]})
            for token in tokenize(formula):
                env.step(token)
            findings.append(env.unwrapped.audit(answer.thought, answer.action, cards=answer.fields["cards"]))
        found[rate] = set(findings)
    assert found[0.0] == {Finding.CORRECT}
    assert Finding.WRONG_ARITHMETIC in found[1.0]


def test_a_template_chooses_between_the_plan_and_its_words() -> None:
    plans, words = (
        [parse_answer(d.answer, ()).thought for d in some(20, lambda: text_env(), template, buffer=1)]
        for template in ("compact", "paper")
    )
    assert all(set(plan) <= set("0123456789+-*/()=") for plan in plans)
    assert all(text.startswith("The cards are ") for text in words)
    assert all(plan[:-1] in text for plan, text in zip(plans, words, strict=True))


def test_no_held_out_hand_is_demonstrated() -> None:
    kept: list[tuple[int, ...]] = [(2, 6), (6, 2)]
    make = lambda: text_env("EZPoints-v0", deal="balanced", holdout=kept)  # noqa: E731
    hands = {tuple(parse_answer(d.answer, ()).fields["cards"]) for d in some(200, make, "compact", buffer=16)}
    assert hands.isdisjoint(kept)
    assert (3, 4) in hands
