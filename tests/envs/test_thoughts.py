"""Written thoughts lead to a win, and the audit names what is wrong with those that do not."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import gtr_envs  # noqa: F401 - registers the environments
from gtr_envs.cards import solver
from gtr_envs.cards.arithmetic import random_formula
from gtr_envs.cards.formula import END, OPERATORS, evaluate, tokenize
from gtr_envs.cards.thoughts import Finding, audit, find_plan, write_thought

HAND = [3, 3, 8, 8]
PLAN = tokenize("8/(3-8/3)")


def states(n: int, seed: int = 0) -> list[tuple[list[int], list[str]]]:
    """Random hands with a random legal beginning of a formula that can still win."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        numbers = [int(x) for x in rng.integers(1, 11, size=4)]
        ways = solver.solve(numbers)
        if ways:
            way = ways[int(rng.integers(len(ways)))]
            found.append((numbers, way[: int(rng.integers(len(way) + 1))]))
    return found


def test_following_the_written_thoughts_wins_every_hand_that_can_be_won() -> None:
    for numbers, formula in states(60):
        tokens = list(formula)
        for _ in range(20):
            thought = write_thought(numbers, tokens)
            assert thought.action in solver.next_tokens(numbers, tokens)
            assert thought.numbers == tuple(numbers)
            assert thought.formula == "".join(tokens)
            assert f"I append {thought.action}" in thought.words
            if thought.action == END:
                break
            tokens.append(str(thought.action))
        assert evaluate(tokens) == 24
        assert thought.plan == "".join(tokens) + END


def test_a_thought_about_a_hopeless_state_says_so() -> None:
    thought = write_thought([1, 1, 1, 1])
    assert (thought.plan, thought.action) == ("", None)
    assert thought.words == "The cards are 1, 1, 1 and 1. The formula is empty. No way leads to 24 from here."


def test_the_oracles_own_thoughts_are_found_correct() -> None:
    for numbers, formula in states(60, seed=1):
        thought = write_thought(numbers, formula)
        plan = find_plan(thought.words) if thought.action != END else list(formula)
        assert plan is not None
        said = {"stated_numbers": list(thought.numbers), "stated_formula": thought.formula}
        assert audit(numbers, formula, plan=plan, action=thought.action, **said) is Finding.CORRECT
        assert audit(numbers, formula, plan=tokenize(thought.plan), action=thought.action) is Finding.CORRECT


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        ({}, Finding.CORRECT),
        ({"stated_numbers": [3, 3, 8, 9]}, Finding.MISREAD_CARD),
        ({"stated_numbers": [3, 3, 8]}, Finding.MISREAD_CARD),
        ({"stated_numbers": ["3", 3, 8, 8]}, Finding.MISREAD_CARD),
        ({"stated_formula": "8"}, Finding.WRONG_FORMULA),
        ({"stated_formula": "eight over"}, Finding.WRONG_FORMULA),
        ({"plan": tokenize("3*8+3/8")}, Finding.WRONG_FORMULA),  # does not continue 8/
        ({"plan": tokenize("8/(3-8)")}, Finding.WRONG_FORMULA),  # a card is missing
        ({"plan": tokenize("8/3-8/3-1")}, Finding.WRONG_FORMULA),  # a card too many
        ({"plan": tokenize("8/3)-8/3")}, Finding.WRONG_FORMULA),  # no formula
        ({"plan": tokenize("8/(3-8/3")}, Finding.WRONG_FORMULA),  # not complete
        ({"plan": tokenize("8/(3+8/3)")}, Finding.WRONG_ARITHMETIC),
        ({"plan": tokenize("8/(3-3)+8")}, Finding.WRONG_ARITHMETIC),  # has no value
        ({"action": "3"}, Finding.WRONG_ACTION),
        ({"action": None}, Finding.WRONG_ACTION),
        ({"plan": None}, Finding.CORRECT),
        ({"plan": None, "action": "3"}, Finding.WRONG_ARITHMETIC),
        ({"plan": None, "action": "="}, Finding.WRONG_ARITHMETIC),
        ({"plan": None, "action": "*"}, Finding.WRONG_FORMULA),
        ({"plan": None, "action": "7"}, Finding.WRONG_FORMULA),
        ({"plan": None, "action": None}, Finding.WRONG_ACTION),
        ({"operators": ("+", "*")}, Finding.HOPELESS),
    ],
)
def test_each_kind_of_mistake_has_its_name(answer: dict[str, Any], finding: Finding) -> None:
    said: dict[str, Any] = {"stated_numbers": HAND, "stated_formula": "8/", "plan": PLAN, "action": "("}
    assert audit(HAND, ["8", "/"], **(said | answer)) is finding


def test_an_answer_about_a_hand_without_a_way_is_hopeless_whatever_it_says() -> None:
    assert audit([1, 1, 1, 1], [], plan=["1", "+", "1"], action="1") is Finding.HOPELESS
    assert audit(HAND, ["3", "+"], plan=None, action="3") is Finding.HOPELESS


def test_handing_in_a_finished_win_without_a_plan_is_correct() -> None:
    assert audit(HAND, PLAN, plan=None, action="=") is Finding.CORRECT


@pytest.mark.parametrize("env_id", ["Points24-v0", "EZPoints-v0"])
def test_an_environment_knows_what_its_expert_thinks(env_id: str) -> None:
    env: Any = gymnasium.make(env_id, deal="solvable" if env_id == "Points24-v0" else "published").unwrapped
    env.reset(seed=3)
    over = False
    while not over:
        thought = env.expert_thought()
        assert thought.action == env.expert_action()
        _, _, over, _, info = env.step(env.action_from_text(thought.action))
    assert info["success"]


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("2*(7+10)-10=", "2*(7+10)-10"),
        ("The cards are 4 and 6. 4 * 6 = 24", "4*6"),
        ("first (1+2)*8, or rather 10 - 2, no: (5-1/5)*5 is 24", "(5-1/5)*5"),
        ("I see 3 8 2 1", None),
        ("", None),
    ],
)
def test_the_plan_is_the_last_formula_of_the_thought(text: str, plan: str | None) -> None:
    assert find_plan(text) == (None if plan is None else tokenize(plan))


def test_hopeless_is_what_the_search_says_whatever_the_answer() -> None:
    rng = np.random.default_rng(3)
    found = set()
    for _ in range(150):
        numbers = [int(x) for x in rng.integers(1, 11, size=4)]
        whole = random_formula(numbers, rng, OPERATORS)
        if rng.random() < 0.5:  # a plan that wins, if there is one
            whole = next(iter(solver.solve(numbers)), whole)
        table = list(whole[: int(rng.integers(len(whole)))])
        for plan in (None, whole, ["1", "+", "1"]):
            finding = audit(numbers, table, plan=plan, action=whole[len(table)])
            assert (finding is Finding.HOPELESS) == (solver.distance(numbers, table) is None)
            found.add(finding)
    assert found > {Finding.HOPELESS, Finding.CORRECT, Finding.WRONG_FORMULA}
