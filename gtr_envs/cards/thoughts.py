"""Decides what a perfect player thinks in words about a hand, and what is wrong with a thought that somebody wrote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from gtr_envs.cards import solver
from gtr_envs.cards.formula import END, OPERATORS, FormulaError, check_grammar, evaluate, tokenize

_RUN = re.compile(r"[0-9(][0-9+\-*/() ]*[0-9)]")
"""Something that may be a formula: from a number or bracket to a number or bracket."""


class Thought(NamedTuple):
    """What a player writes in one state."""

    numbers: tuple[int, ...]
    """The numbers read off the picture: in card games the values of the cards, in table order."""
    formula: str
    """The formula so far, tokens joined; empty in games without one."""
    plan: str
    """The whole formula it will become, tokens joined, with ``=``; empty if there is no plan."""
    words: str
    """The thought in sentences: what is read, the plan, the next action."""
    action: str | None
    """The next action; None if no way wins."""


class Finding(StrEnum):
    """What an audit finds; the first that applies, in this order."""

    MISREAD_CARD = "misread card"
    """The stated cards are not those on the table."""
    HOPELESS = "hopeless"
    """No continuation of the formula wins, so no thought about it could be right."""
    WRONG_FORMULA = "wrong formula"
    """The stated formula is not the one on the table; or the plan is no formula, does not continue the one on the
    table or does not use every card once."""
    WRONG_ARITHMETIC = "wrong arithmetic"
    """The plan is a formula over the hand that continues the present one, but it has another value than the target."""
    WRONG_ACTION = "right plan but wrong action"
    """The plan wins, but the action is not its next token."""
    CORRECT = "correct"
    """The plan wins and the action is its next token."""


def write_thought(
    numbers: Sequence[int],
    formula_tokens: Sequence[str] = (),
    target: int = 24,
    *,
    operators: Sequence[str] = OPERATORS,
    way: Sequence[str] | None = None,
) -> Thought:
    """Think as a perfect player does: along the first of the shortest ways to win, or along a given way.

    Args:
        numbers: The whole hand in table order, one to five whole numbers >= 0.
        formula_tokens: The formula so far, any grammatical beginning.
        target: The value to reach.
        operators: Which of ``+ - * /`` may be used.
        way: The tokens to come, ``=`` included, of a player who has made up its mind. It is not checked: a mistaken
            player believes that its formula has the value of the target. None looks for the best way.

    Returns:
        The thought; without ``way`` its next token is one of ``solver.next_tokens``.

    Raises:
        FormulaError: If the tokens are not the beginning of a formula.
        ValueError: If the tokens use a number more often than the hand holds it, or the hand cannot be searched.

    >>> write_thought([3, 3, 8, 8], ["8", "/"]).words
    'The cards are 3, 3, 8 and 8. The formula so far is 8/. 8/(3-8/3) is 24, so I append (.'
    """
    ways = [way] if way else solver.complete(numbers, formula_tokens, target, limit=1, operators=operators)
    formula = "".join(formula_tokens)
    seen = f"The cards are {listed(numbers)}. "
    seen += f"The formula so far is {formula}. " if formula else "The formula is empty. "
    if not ways:
        return Thought(tuple(numbers), formula, "", f"{seen}No way leads to {target} from here.", None)
    following, plan = ways[0][0], formula + "".join(ways[0])
    whole = plan.removesuffix(END)
    if following == END:
        words = f"{seen}It is complete and its value is {target}, so I append {END}."
    else:
        words = f"{seen}{whole} is {target}, so I append {following}."
    return Thought(tuple(numbers), formula, plan, words, following)


def find_plan(text: str) -> list[str] | None:
    """Find the formula that a thought arrives at.

    Args:
        text: The thought, in any words.

    Returns:
        Tokens without ``=`` of the last piece of the text with a number and an operator; None if there is none.
        What follows an equals sign is a value, not a plan.

    >>> find_plan("First I thought of 3*8+3/8, but 8/(3-8/3) = 24")
    ['8', '/', '(', '3', '-', '8', '/', '3', ')']
    """
    runs = [run for run in _RUN.findall(text) if any(operator in run for operator in OPERATORS)]
    return tokenize(runs[-1]) if runs else None


def audit(
    numbers: Sequence[int],
    formula_tokens: Sequence[str],
    *,
    plan: Sequence[str] | None,
    action: str | None,
    stated_numbers: Sequence[object] | None = None,
    stated_formula: str | None = None,
    target: int = 24,
    operators: Sequence[str] = OPERATORS,
) -> Finding:
    """Say what is wrong with an answer, or that it is correct.

    Args:
        numbers: The hand on the table, in table order.
        formula_tokens: The formula on the table, grammatical.
        plan: The whole formula that the answer aims at, tokens with or without ``=``, e.g. from :func:`find_plan`.
            None if it names none; then the formula on the table with the action appended is taken for the plan's
            beginning, and the answer is correct if that can still win.
        action: The token that the answer plays; None if it could not be read.
        stated_numbers: The cards as the answer states them; anything but these integers in this order is misread.
            None if it states none.
        stated_formula: The formula so far as the answer states it; None if it does not.
        target: The value to reach.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        The first finding that applies.

    Raises:
        FormulaError: If ``formula_tokens`` are not the beginning of a formula.
        ValueError: If they use a number more often than the hand holds it, or the hand cannot be searched.
    """
    table = list(formula_tokens)
    if stated_numbers is not None and list(stated_numbers) != list(numbers):
        return Finding.MISREAD_CARD
    finding = Finding.WRONG_FORMULA
    if stated_formula is None or _tokens(stated_formula) == table:
        if plan is None:
            finding = _without_plan(numbers, table, action, target, operators)
        else:
            finding = _of_plan(numbers, table, [token for token in plan if token != END], action, target, operators)
            if finding in (Finding.CORRECT, Finding.WRONG_ACTION):  # the plan itself shows that the table can win
                return finding
    return finding if _can_win(numbers, table, target, operators) else Finding.HOPELESS


def _can_win(numbers: Sequence[int], table: list[str], target: int, operators: Sequence[str]) -> bool:
    """Say whether any continuation wins; a listed formula that begins so is found sooner than a shortest way."""
    if not table:
        return solver.is_solvable(numbers, target, operators=operators)
    ways = solver.solve(numbers, target, operators=operators)
    begun = any(way[: len(table)] == table for way in ways)
    return begun or solver.distance(numbers, table, target, operators=operators) is not None


def _of_plan(
    numbers: Sequence[int],
    table: list[str],
    whole: list[str],
    action: str | None,
    target: int,
    operators: Sequence[str],
) -> Finding:
    """Judge an answer by the whole formula that it names, without ``=``."""
    if whole[: len(table)] != table or not _uses_hand(whole, numbers, operators):
        return Finding.WRONG_FORMULA
    try:
        value = evaluate(whole)
    except FormulaError:  # grammatical, so it divides by zero or is not complete
        return Finding.WRONG_ARITHMETIC if _is_complete(whole) else Finding.WRONG_FORMULA
    if value != target:
        return Finding.WRONG_ARITHMETIC
    return Finding.CORRECT if action == [*whole, END][len(table)] else Finding.WRONG_ACTION


def _without_plan(
    numbers: Sequence[int], table: list[str], action: str | None, target: int, operators: Sequence[str]
) -> Finding:
    """Judge an answer by its action alone."""
    if action is None:
        return Finding.WRONG_ACTION
    if action == END:
        won = solver.next_tokens(numbers, table, target, operators=operators) == (END,)
        return Finding.CORRECT if won else Finding.WRONG_ARITHMETIC
    try:
        away = solver.distance(numbers, [*table, action], target, operators=operators)
    except ValueError:  # not grammatical, or a number that the hand does not hold any more
        return Finding.WRONG_FORMULA
    return Finding.CORRECT if away is not None else Finding.WRONG_ARITHMETIC


def _uses_hand(tokens: list[str], numbers: Sequence[int], operators: Sequence[str]) -> bool:
    """True if the tokens are grammatical and use every number of the hand exactly once and no foreign operator."""
    try:
        check_grammar(tokens)
    except FormulaError:
        return False
    used = Counter(int(token) for token in tokens if token.isdigit())
    foreign = {token for token in tokens if token in OPERATORS} - set(operators)
    return used == Counter(numbers) and not foreign


def _is_complete(tokens: list[str]) -> bool:
    """True if grammatical tokens end with an operand and close every bracket."""
    return tokens.count("(") == tokens.count(")") and tokens[-1] not in OPERATORS


def _tokens(text: str) -> list[str] | None:
    """The tokens of a stated formula; None if it has other characters."""
    try:
        return tokenize(text)
    except FormulaError:
        return None


def listed(numbers: Sequence[int]) -> str:
    """List numbers as a sentence does.

    Args:
        numbers: At least one number.

    Returns:
        The words, e.g. ``"3, 3, 8 and 8"``.
    """
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
