"""Whatever a model writes: no exception, no action that it did not state, no reward for a hand without solution."""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from small_models import text_env

from gtr_agents.parsing import parse_answer
from gtr_agents.prompts import TEMPLATES
from gtr_envs.cards.formula import evaluate
from gtr_envs.cards.solver import is_solvable

TRICKS = [
    *("24", "=24", "==", "**", "//", "%", "8*3", "24=", "(24)", "1_0", "\N{ARABIC-INDIC DIGIT THREE}"),
    *("\N{FULLWIDTH DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "\N{VULGAR FRACTION ONE HALF}", "+-", "0", "-1", "11", "1e1"),
    *("__import__('os')", "eval(24)", "10.0", "1 0", " ", "", "\n=", "= ", "=\x00", "NaN", "Infinity", "null", "true"),
]
ODDITIES = "{}[]\",:\\'`_ \n\t\x00\ud7ff\u200b\u00e9\u6f22\U0001f600\uff10=+-*/()1234567890"


@cache
def hands(*, hopeless: bool) -> list[tuple[int, ...]]:
    """All hands of card values, or those without a solution."""
    every = combinations_with_replacement(range(1, 11), 4)
    return [hand for hand in every if not (hopeless and is_solvable(hand, 24))]


def answer_text(rng: np.random.Generator, legal: list[str]) -> str:
    """An answer that is often good, sometimes nearly good, and sometimes nothing at all."""
    kind = int(rng.integers(10))
    if kind == 0:
        return "".join(rng.choice(list(ODDITIES), int(rng.integers(0, 80))))
    action = str(rng.choice(legal)) if rng.random() < 0.8 else str(rng.choice(TRICKS))
    values = {"cards": [1, 2, 3, 4], "formula": "1+", "thoughts": "1+2", "action": action}
    if kind == 1:
        return json.dumps([values, {"more": values}, action][int(rng.integers(3))])
    if kind == 2:
        return f"```json\n{json.dumps(values)}\n```" * int(rng.integers(1, 3))
    text = TEMPLATES["paper"].write_answer(values)
    return mutated(text, rng) if kind < 6 else text


def mutated(text: str, rng: np.random.Generator) -> str:
    """Delete, double, replace or insert characters at up to four places."""
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(len(text) + 1)), int(rng.integers(1, 8))
        piece = text[at : at + length]
        extra = "".join(rng.choice(list(ODDITIES), int(rng.integers(0, 3))))
        text = text[:at] + [extra, piece + piece, extra + piece][int(rng.integers(3))] + text[at + length :]
    return text


def play(n: int, seed: int) -> dict[str, int]:
    """Play ``n`` answers; two hands of three have no solution."""
    rng = np.random.default_rng(seed)
    env: Any = text_env(image_size=64)
    count = {"steps": 0, "readable": 0, "legal": 0, "handed in": 0, "won": 0}
    over, hopeless, info = True, False, {}
    while count["steps"] < n:
        if over:
            hopeless = bool(rng.random() < 0.67)
            hand = rng.permutation(rng.choice(hands(hopeless=hopeless)))
            _, info = env.reset(seed=int(rng.integers(2**31)), options={"numbers": hand})
            hopeless = hopeless or not info["solvable"]
        answer = parse_answer(answer_text(rng, info["legal_actions"]), TEMPLATES["paper"].required_keys)
        assert (answer.action is None) != (answer.error is None)
        _, reward, terminated, truncated, info = env.step(answer.action or "")
        assert reward in (10.0, 0.0, -1.0)
        assert not (hopeless and reward > 0)
        if reward > 0:
            assert evaluate(info["formula"]) == 24
            assert sorted(int(token) for token in info["formula"] if token.isdigit()) == sorted(info["numbers"])
        over = terminated or truncated
        count["steps"] += 1
        count["readable"] += answer.action is not None
        count["legal"] += info["legal"]
        count["handed in"] += terminated and info["formula_value"] is not None
        count["won"] += reward > 0
    return count


def test_three_thousand_answers_never_raise_and_never_win_a_hopeless_hand() -> None:
    count = play(3_000, seed=0)
    assert 1_500 < count["readable"] < 2_900  # both kinds of answers occur
    assert count["legal"] > 1_000
    assert count["handed in"] > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_answers_never_raise_and_never_win_a_hopeless_hand() -> None:
    count = play(100_000, seed=1)
    assert count["handed in"] > 2_000
    assert count["won"] > 0
