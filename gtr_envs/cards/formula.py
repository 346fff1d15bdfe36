"""Decides what a formula is: its tokens, its grammar and its exact value.

A formula is built from whole numbers, ``+ - * /`` and brackets with the usual precedence. There is no sign in front
of a number, no joining of digits, no power and no floor division. Arithmetic is exact, so ``8/(3-8/3)`` is 24.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

OPERATORS = ("+", "-", "*", "/")
"""The binary operators, in the order of the action tokens."""
END = "="
"""The token that hands the formula in; never a part of the formula."""
Number = int | Fraction
"""An exact value: whole numbers stay ``int``, which keeps the solver fast."""


class FormulaError(ValueError):
    """Raised when tokens do not form a formula, or when it divides by zero."""


class Level(NamedTuple):
    """What has been computed inside one pair of brackets (or outside of all): ``total + product``, one step pending."""

    total: Number
    """Sum of all finished terms."""
    product: Number
    """The unfinished term with its sign; 0 while the term has no operand yet."""
    pending: str
    """The operator that waits for its right operand; empty after an operand."""


START = Level(0, 0, "+")
"""A level before its first token."""
Stack = tuple[Level, ...]
"""Open levels from the outermost to the innermost."""


def divide(left: Number, right: Number) -> Number:
    """Divide exactly.

    Args:
        left: Dividend.
        right: Divisor.

    Returns:
        The quotient, an ``int`` if it is whole.

    Raises:
        ZeroDivisionError: If ``right`` is 0.
    """
    if isinstance(left, int) and isinstance(right, int):  # most are, and a Fraction costs ten times as much
        whole, rest = divmod(left, right)
        return Fraction(left, right) if rest else whole
    quotient = Fraction(left) / right
    return quotient.numerator if quotient.denominator == 1 else quotient


def feed_value(stack: Stack, value: Number) -> Stack:
    """Give the innermost level its next operand.

    Args:
        stack: Open levels; the last one has a pending operator.
        value: The operand.

    Returns:
        The levels after the operand.

    Raises:
        ZeroDivisionError: If the operand is a divisor and 0.
    """
    total, product, pending = stack[-1]
    if pending == "*":
        product = product * value
    elif pending == "/":
        product = divide(product, value)
    else:
        product = -value if pending == "-" else value
    return (*stack[:-1], Level(total, product, ""))


def feed_token(stack: Stack, token: str) -> Stack:
    """Read one grammatical token.

    Args:
        stack: Open levels.
        token: A number, an operator or a bracket that may follow; see :func:`legal_next`.

    Returns:
        The levels after the token.

    Raises:
        ZeroDivisionError: If the token completes a division by 0.
    """
    level = stack[-1]
    if token == "(":
        return (*stack, START)
    if token == ")":
        return feed_value(stack[:-1], level.total + level.product)
    if token in ("+", "-"):
        return (*stack[:-1], Level(level.total + level.product, 0, token))
    if token in ("*", "/"):
        return (*stack[:-1], Level(level.total, level.product, token))
    return feed_value(stack, int(token))


def expects_operand(tokens: Sequence[str]) -> bool:
    """Say whether a number or an opening bracket comes next.

    Args:
        tokens: The formula so far, grammatical.

    Returns:
        True before an operand, False after one.
    """
    return not tokens or tokens[-1] == "(" or tokens[-1] in OPERATORS


def legal_next(tokens: Sequence[str], remaining: Iterable[int]) -> list[str]:
    """List the tokens that continue a formula.

    ``=`` is listed when the formula is a complete expression, whatever its value and however many numbers remain.
    Only the grammar is judged: an operator is legal even if no number is left for it.

    Args:
        tokens: The formula so far, grammatical.
        remaining: Numbers that may still be used.

    Returns:
        Numbers in ascending order, then operators, brackets and ``=``. Never empty.

    >>> legal_next(["(", "5"], [1])
    ['+', '-', '*', '/', ')']
    """
    open_brackets = sum(1 for token in tokens if token == "(") - sum(1 for token in tokens if token == ")")
    return legal_after(remaining, operand_next=expects_operand(tokens), in_brackets=open_brackets > 0)


def legal_after(remaining: Iterable[int], *, operand_next: bool, in_brackets: bool) -> list[str]:
    """List the tokens that continue a formula of which only what matters is known; see :func:`legal_next`.

    Args:
        remaining: Numbers that may still be used.
        operand_next: True if a number or an opening bracket comes next.
        in_brackets: True if some bracket is open.

    Returns:
        Numbers in ascending order, then operators, brackets and ``=``. Never empty.
    """
    if operand_next:
        return [str(number) for number in sorted(set(remaining))] + ["("]
    return [*OPERATORS, ")" if in_brackets else END]


def check_grammar(tokens: Sequence[str]) -> None:
    """Check that tokens are the beginning of a formula.

    Args:
        tokens: Tokens without ``=``.

    Raises:
        FormulaError: If some token cannot follow the tokens before it.
    """
    depth, operand_next = 0, True
    for place, token in enumerate(tokens):
        is_number = token.isascii() and token.isdigit()
        starts_operand = is_number or token == "("
        known = starts_operand or token in OPERATORS or token == ")"
        if not known or starts_operand is not operand_next or (token == ")" and depth == 0):
            expected = "a number or '('" if operand_next else "an operator" + (" or ')'" if depth else "")
            raise FormulaError(f"expected {expected} at place {place + 1} of {' '.join(tokens)!r}, got {token!r}")
        depth += (token == "(") - (token == ")")
        operand_next = token != ")" and not is_number


def read(tokens: Sequence[str]) -> Stack:
    """Compute as far as the tokens go.

    Args:
        tokens: The beginning of a formula, without ``=``.

    Returns:
        The open levels after the last token.

    Raises:
        FormulaError: If some token cannot follow the tokens before it.
        ZeroDivisionError: If the tokens contain a division by 0.
    """
    check_grammar(tokens)
    stack: Stack = (START,)
    for token in tokens:
        stack = feed_token(stack, token)
    return stack


def evaluate(tokens: Sequence[str]) -> Fraction:
    """Compute the exact value of a complete formula.

    Args:
        tokens: Numbers, operators and brackets as strings, without ``=``.

    Returns:
        The value.

    Raises:
        FormulaError: If the tokens are not a complete formula, or divide by zero.

    >>> evaluate(["8", "/", "(", "3", "-", "8", "/", "3", ")"])
    Fraction(24, 1)
    """
    try:
        stack = read(tokens)
    except ZeroDivisionError as error:
        raise FormulaError(
            f"expected a formula with a value, got a division by zero in {' '.join(tokens)!r}"
        ) from error
    if len(stack) > 1 or expects_operand(tokens):
        raise FormulaError(f"expected a complete formula, got {' '.join(tokens)!r}; close it with an operand or ')'")
    return Fraction(stack[0].total + stack[0].product)


def tokenize(text: str) -> list[str]:
    """Split written formula text into tokens; the inverse of joining tokens without separators.

    Args:
        text: Formula text, e.g. ``"(6*4)+10-10"``; blanks separate tokens.

    Returns:
        Tokens; neighbouring digits are one number. The grammar is not checked.

    Raises:
        FormulaError: If a character cannot be part of a formula.

    >>> tokenize("(5-1/5)*5")
    ['(', '5', '-', '1', '/', '5', ')', '*', '5']
    """
    tokens: list[str] = []
    joins = False
    for character in text:
        is_digit = character.isascii() and character.isdigit()
        if not (is_digit or character.isspace() or character in "+-*/()="):
            raise FormulaError(f"expected digits, + - * / ( ) and =, got {character!r} in {text!r}")
        if is_digit and joins:
            tokens[-1] += character
        elif not character.isspace():
            tokens.append(character)
        joins = is_digit
    return tokens
