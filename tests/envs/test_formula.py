"""The grammar and the exact value of formulas."""

from __future__ import annotations

import ast
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtr_envs.cards.formula import FormulaError, check_grammar, evaluate, expects_operand, legal_next, tokenize


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", Fraction(7)),
        ("(6*4)+10-10", Fraction(24)),
        ("8/(3-8/3)", Fraction(24)),
        ("(5-1/5)*5", Fraction(24)),
        ("4/(1-5/6)", Fraction(24)),
        ("2-3-4", Fraction(-5)),
        ("2-(3-4)", Fraction(3)),
        ("8/4/2", Fraction(1)),
        ("8/(4/2)", Fraction(4)),
        ("1-2*3+4/5", Fraction(-21, 5)),
        ("((((3))))", Fraction(3)),
        ("0/7", Fraction(0)),
    ],
)
def test_the_value_is_exact(text: str, value: Fraction) -> None:
    assert evaluate(tokenize(text)) == value


@pytest.mark.parametrize(
    "text",
    ["", "1+", "(1+2", "1/(2-2)", "1/0", "+1", "-4*6", "1**2", "1//2", "2(3)", ")", "1)", "()", "(1+2)(3)", "1=1"],
)
def test_anything_else_than_a_complete_formula_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        evaluate(tokenize(text))


def test_digits_do_not_join() -> None:
    with pytest.raises(FormulaError, match="expected an operator at place 2"):
        evaluate(["2", "4"])


def test_a_refusal_says_what_was_expected_where() -> None:
    with pytest.raises(FormulaError, match=r"expected a number or '\(' at place 3 of '5 \* \*', got '\*'"):
        evaluate(["5", "*", "*"])


@pytest.mark.parametrize("token", ["", " ", "**", "//", "-1", "1.5", "x", "²", "\uff11", "="])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(FormulaError):
        check_grammar([token])


@pytest.mark.parametrize(
    ("tokens", "remaining", "legal"),
    [
        ([], [8, 3, 8, 3], ["3", "8", "("]),
        (["8"], [3, 8, 3], ["+", "-", "*", "/", "="]),
        (["(", "8"], [3, 8, 3], ["+", "-", "*", "/", ")"]),
        (["(", "8", ")"], [], ["+", "-", "*", "/", "="]),
        (["("], [], ["("]),
        (["8", "/"], [3], ["3", "("]),
    ],
)
def test_what_may_follow(tokens: list[str], remaining: list[int], legal: list[str]) -> None:
    assert legal_next(tokens, remaining) == legal


def test_an_operand_comes_first_and_after_operators_and_opening_brackets() -> None:
    before = [[], ["("], ["1", "+"], ["1", "/"]]
    after = [["1"], ["(", "1", ")"]]
    assert [expects_operand(tokens) for tokens in before + after] == [True] * 4 + [False] * 2


def test_text_is_split_into_tokens_and_blanks_separate() -> None:
    assert tokenize(" (10 - 4)*10/1 1=") == ["(", "10", "-", "4", ")", "*", "10", "/", "1", "1", "="]


@pytest.mark.parametrize("text", ["6x4", "6\u22124", "²", "a"])
def test_text_with_other_characters_is_refused(text: str) -> None:
    with pytest.raises(FormulaError, match="expected digits"):
        tokenize(text)


OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
}


def by_syntax_tree(node: ast.expr) -> Fraction:
    """An independent evaluation that leaves reading to Python's parser."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    return OPERATIONS[type(node.op)](by_syntax_tree(node.left), by_syntax_tree(node.right))


def bracketed(inner: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    """Longer formulas from shorter ones."""
    joined = st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: [*parts[0], parts[1], *parts[2]])
    return joined | inner.map(lambda tokens: ["(", *tokens, ")"])


@given(st.recursive(st.integers(0, 13).map(lambda n: [str(n)]), bracketed, max_leaves=8))
def test_every_formula_has_the_value_of_its_syntax_tree(tokens: list[str]) -> None:
    text = "".join(tokens)
    tree = ast.parse(text, mode="eval").body
    try:
        expected = by_syntax_tree(tree)
    except ZeroDivisionError:
        with pytest.raises(FormulaError, match="division by zero"):
            evaluate(tokens)
    else:
        assert evaluate(tokens) == expected
    assert tokenize(text) == tokens


@given(st.lists(st.sampled_from([*"0123456789", *"+-*/()", "10"]), max_size=12))
def test_tokens_are_a_beginning_exactly_if_each_may_follow_the_ones_before(tokens: list[str]) -> None:
    follows = all(token in legal_next(tokens[:place], range(11)) and token != "=" for place, token in enumerate(tokens))
    if follows:
        check_grammar(tokens)
    else:
        with pytest.raises(FormulaError):
            check_grammar(tokens)
