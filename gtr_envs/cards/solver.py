"""Finds every way to reach the target: all formulas, solvability and optimal next tokens; exact, standard library only.

A formula counts once for each way to write it with the fewest brackets its shape needs: ``3*8`` and ``8*3`` are two,
``(1+2)+3`` and ``1+(2+3)`` are both ``1+2+3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from gtr_envs.cards.formula import END, OPERATORS, START, Number, Stack, divide, feed_token, feed_value, read

MAX_NUMBERS = 5
"""More numbers than this take minutes and gigabytes."""
_INFINITE = 1 << 30
_SIGNS = (*OPERATORS, "(", ")", END)

Hand = tuple[int, ...]


class _Formula(NamedTuple):
    """A formula and the kind of its outermost operator, which decides where it needs brackets."""

    kind: str
    """``"n"`` a single number, ``"s"`` a sum or difference, ``"p"`` a product or quotient."""
    tokens: tuple[str, ...]


_Table = Mapping[Number, tuple[_Formula, ...]]


def solve(
    numbers: Sequence[int], target: int = 24, limit: int | None = None, *, operators: Sequence[str] = OPERATORS
) -> list[list[str]]:
    """Find all formulas that use every number once and reach the target.

    Args:
        numbers: One to five whole numbers >= 0, in any order.
        target: The value to reach.
        limit: Return at most this many formulas; None returns all.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        Token lists without ``=``, the shortest first, then in the order of the action tokens; no duplicates.
        Empty if there is no solution.

    Raises:
        ValueError: If the numbers are too many, none or not whole numbers >= 0.

    >>> ["".join(tokens) for tokens in solve([3, 3, 8, 8])]
    ['8/(3-8/3)']
    """
    return [list(tokens) for tokens in _solutions(_hand(numbers), target, tuple(operators))[:limit]]


def is_solvable(numbers: Sequence[int], target: int = 24, *, operators: Sequence[str] = OPERATORS) -> bool:
    """Say whether some formula reaches the target; remembered by multiset.

    Args:
        numbers: One to five whole numbers >= 0, in any order.
        target: The value to reach.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        True if there is a formula.

    Raises:
        ValueError: If the numbers are too many, none or not whole numbers >= 0.
    """
    return _is_solvable(_hand(numbers), target, tuple(operators))


def next_tokens(
    numbers: Sequence[int],
    formula_tokens: Sequence[str],
    target: int = 24,
    *,
    operators: Sequence[str] = OPERATORS,
) -> tuple[str, ...]:
    """List the optimal next tokens: each begins a shortest way to complete the formula so that it wins.

    Args:
        numbers: The whole hand, one to five whole numbers >= 0.
        formula_tokens: The formula so far, any grammatical beginning, redundant brackets included.
        target: The value to reach.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        Tokens in the order of the action tokens; ``("=",)`` if the formula wins as it stands; empty if no
        continuation wins.

    Raises:
        FormulaError: If the tokens are not the beginning of a formula.
        ValueError: If the tokens use a number more often than the hand holds it, or the hand cannot be searched.

    >>> next_tokens([3, 3, 8, 8], ["8", "/"])
    ('(',)
    """
    position = _position(numbers, formula_tokens)
    if position is None:
        return ()
    costs: dict[str, int] = {}
    for token, cost in _moves(*position, target, tuple(operators)):
        costs[token] = min(cost, costs.get(token, _INFINITE))
    best = min(costs.values(), default=_INFINITE)
    return tuple(sorted((token for token, cost in costs.items() if cost == best < _INFINITE), key=_rank))


def distance(
    numbers: Sequence[int],
    formula_tokens: Sequence[str] = (),
    target: int = 24,
    *,
    operators: Sequence[str] = OPERATORS,
) -> int | None:
    """Count the tokens of a shortest winning continuation.

    Args:
        numbers: The whole hand, one to five whole numbers >= 0.
        formula_tokens: The formula so far, any grammatical beginning.
        target: The value to reach.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        How many tokens are missing, ``=`` included; None if no continuation wins.

    Raises:
        FormulaError: If the tokens are not the beginning of a formula.
        ValueError: If the tokens use a number more often than the hand holds it, or the hand cannot be searched.
    """
    position = _position(numbers, formula_tokens)
    cost = _INFINITE if position is None else _cost(*position, target, tuple(operators))
    return cost if cost < _INFINITE else None


def complete(
    numbers: Sequence[int],
    formula_tokens: Sequence[str] = (),
    target: int = 24,
    limit: int | None = None,
    *,
    operators: Sequence[str] = OPERATORS,
) -> list[list[str]]:
    """List the shortest winning continuations of a formula.

    Args:
        numbers: The whole hand, one to five whole numbers >= 0.
        formula_tokens: The formula so far, any grammatical beginning.
        target: The value to reach.
        limit: Return at most this many; None returns all.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        Token lists to append, each ending with ``=``; all equally long, in the order of the action tokens. Empty if
        no continuation wins.

    Raises:
        FormulaError: If the tokens are not the beginning of a formula.
        ValueError: If the tokens use a number more often than the hand holds it, or the hand cannot be searched.
    """
    unfinished: list[list[str]] = [[]]
    for _ in range(distance(numbers, formula_tokens, target, operators=operators) or 0):
        unfinished = [
            [*tokens, token]
            for tokens in unfinished
            for token in next_tokens(numbers, [*formula_tokens, *tokens], target, operators=operators)
        ][:limit]
    return unfinished if unfinished[0] else []


# --- all formulas over a hand ---------------------------------------------------------------------------------------


def _hand(numbers: Sequence[int]) -> Hand:
    """Sort and check a hand."""
    hand = tuple(sorted(int(number) for number in numbers))
    if not 1 <= len(hand) <= MAX_NUMBERS or hand[0] < 0:
        raise ValueError(f"expected one to {MAX_NUMBERS} whole numbers >= 0, got {list(numbers)!r}")
    return hand


def _rank(token: str) -> tuple[bool, int]:
    """Place of a token in the order of the action tokens: numbers ascending, then signs."""
    return (False, int(token)) if token.isdigit() else (True, _SIGNS.index(token))


def _without(hand: Hand, part: Hand) -> Hand:
    """Remove a part from a sorted hand."""
    rest = list(hand)
    for number in part:
        rest.remove(number)
    return tuple(rest)


@lru_cache(maxsize=4096)
def _splits(hand: Hand) -> tuple[tuple[Hand, Hand], ...]:
    """All ways to share a hand between a left and a right operand."""
    parts = {part for size in range(1, len(hand)) for part in combinations(hand, size)}
    return tuple((part, _without(hand, part)) for part in sorted(parts))


@lru_cache(maxsize=8192)
def _formulas(hand: Hand, operators: tuple[str, ...]) -> _Table:
    """All formulas over a sorted hand, by value."""
    if len(hand) == 1:
        return {hand[0]: (_Formula("n", (str(hand[0]),)),)}
    table: dict[Number, dict[_Formula, None]] = {}
    for left_hand, right_hand in _splits(hand):
        lefts, rights = _formulas(left_hand, operators), _formulas(right_hand, operators)
        for operator in operators:
            for left in lefts:
                for right in rights:
                    if operator != "/" or right:
                        value = _apply(operator, left, right)
                        made = _join(lefts[left], operator, rights[right])
                        table.setdefault(value, {}).update(dict.fromkeys(made))
    return {value: tuple(made) for value, made in table.items() if made}


@lru_cache(maxsize=2048)  # as many as there are hands of four; 20 MB if all are asked for
def _solutions(hand: Hand, target: int, operators: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """All formulas of one value, each once, in the order of :func:`solve`."""
    found = {formula.tokens for formula in _winning(hand, target, operators)}
    return tuple(sorted(found, key=lambda tokens: (len(tokens), [_rank(token) for token in tokens])))


@lru_cache(maxsize=16384)
def _is_solvable(hand: Hand, target: int, operators: tuple[str, ...]) -> bool:
    """Stop at the first formula."""
    return next(_winning(hand, target, operators), None) is not None


def _winning(hand: Hand, target: int, operators: tuple[str, ...]) -> Iterator[_Formula]:
    """Yield the formulas of one value; the last operator is solved for instead of tried, which is ten times faster."""
    if len(hand) == 1:
        yield from _formulas(hand, operators).get(target, ())
        return
    for left_hand, right_hand in _splits(hand):
        lefts, rights = _formulas(left_hand, operators), _formulas(right_hand, operators)
        for operator in operators:
            for left, right in _pairs(operator, lefts, rights, target):
                yield from _join(lefts[left], operator, rights[right])


def _pairs(operator: str, lefts: _Table, rights: _Table, target: int) -> Iterator[tuple[Number, Number]]:
    """Yield every (left, right) of two tables with ``left operator right == target``."""
    if len(lefts) <= len(rights):
        for left in lefts:
            for right in _solve_right(operator, left, target, rights):
                yield left, right
    else:
        for right in rights:
            for left in _solve_left(operator, right, target, lefts):
                yield left, right


def _solve_right(operator: str, left: Number, target: int, rights: Iterable[Number]) -> list[Number]:
    """Right operands among ``rights`` that make ``left operator right == target``."""
    if operator in ("*", "/") and left == 0:
        return [right for right in rights if target == 0 and (operator == "*" or right != 0)]
    if operator == "/" and target == 0:
        return []
    wanted = {
        "+": lambda: target - left,
        "-": lambda: left - target,
        "*": lambda: divide(target, left),
        "/": lambda: divide(left, target),
    }[operator]()
    return [wanted] if wanted in rights else []


def _solve_left(operator: str, right: Number, target: int, lefts: Iterable[Number]) -> list[Number]:
    """Left operands among ``lefts`` that make ``left operator right == target``."""
    if operator in ("*", "/") and right == 0:
        return [left for left in lefts if target == 0 and operator == "*"]
    wanted = {
        "+": lambda: target - right,
        "-": lambda: target + right,
        "*": lambda: divide(target, right),
        "/": lambda: target * right,
    }[operator]()
    return [wanted] if wanted in lefts else []


def _apply(operator: str, left: Number, right: Number) -> Number:
    """Compute one operation; the divisor is not 0."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else divide(left, right)


def _join(lefts: Iterable[_Formula], operator: str, rights: Iterable[_Formula]) -> Iterator[_Formula]:
    """Write ``left operator right`` for every pair, with the brackets it needs.

    A right operand of ``+`` or ``*`` of the same kind is left out: ``a+(b-c)`` is written ``a+b-c``, which another
    split of the same hand makes.
    """
    kind = "s" if operator in ("+", "-") else "p"
    for right in rights:
        if right.kind == kind and operator in ("+", "*"):
            continue
        right_tokens = _bracket(right, when=right.kind == "s" or (operator == "/" and right.kind == "p"))
        for left in lefts:
            left_tokens = _bracket(left, when=kind == "p" and left.kind == "s")
            yield _Formula(kind, (*left_tokens, operator, *right_tokens))


def _bracket(formula: _Formula, *, when: bool) -> tuple[str, ...]:
    """Put a formula in brackets if asked to."""
    return ("(", *formula.tokens, ")") if when else formula.tokens


# --- the shortest way on from any position ---------------------------------------------------------------------------


def _position(numbers: Sequence[int], tokens: Sequence[str]) -> tuple[Stack, Hand] | None:
    """Read a formula so far into its open levels and the numbers left; None after a division by zero."""
    hand = _hand(numbers)
    rest = list(hand)
    for token in tokens:
        if token.isdigit():
            if int(token) not in rest:
                raise ValueError(f"expected only numbers of the hand {list(hand)}, got {' '.join(tokens)!r}")
            rest.remove(int(token))
    try:
        return read(tokens), tuple(rest)
    except ZeroDivisionError:
        return None


@lru_cache(maxsize=4096)
def _lengths(hand: Hand, operators: tuple[str, ...]) -> dict[Number, int]:
    """Length of the shortest formula for every value of a sorted hand."""
    table = _formulas(hand, operators)
    return {value: min(len(formula.tokens) for formula in made) for value, made in table.items()}


@lru_cache(maxsize=1 << 17)
def _cost(stack: Stack, rest: Hand, target: int, operators: tuple[str, ...]) -> int:
    """Length of the shortest winning continuation, ``=`` included."""
    return min((cost for _, cost in _moves(stack, rest, target, operators)), default=_INFINITE)


def _moves(stack: Stack, rest: Hand, target: int, operators: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield next tokens with the length of the shortest win through each; a token may come more than once."""
    if stack[-1].pending:
        yield from _operand_moves(stack, rest, target, operators)
        return
    if len(stack) > 1:
        closed = _fed(stack, ")")
        if closed:
            yield ")", 1 + _cost(closed, rest, target, operators)
    elif not rest and stack[0].total + stack[0].product == target:
        yield END, 1
    for operator in operators if rest else ():
        yield operator, 1 + _cost(feed_token(stack, operator), rest, target, operators)


def _operand_moves(stack: Stack, rest: Hand, target: int, operators: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield the moves where a number or a bracketed group comes next."""
    best = _INFINITE
    for number in sorted(set(rest)):
        fed = _fed(stack, str(number))
        if fed:
            cost = 1 + _cost(fed, _without(rest, (number,)), target, operators)
            best = min(best, cost)
            yield str(number), cost
    # A bracket costs two tokens beyond the bare minimum, so a win of minimal length makes every group superfluous.
    if best == 2 * len(rest) + len(stack) - 1:
        return
    for group in (left for left, _ in _splits(rest) if len(left) > 1):
        yield from _group_moves(stack, group, _without(rest, group), target, operators)
    if len(rest) > 1 and stack[-1] != START:
        yield from _group_moves(stack, rest, (), target, operators)


def _group_moves(
    stack: Stack, group: Hand, rest: Hand, target: int, operators: tuple[str, ...]
) -> Iterator[tuple[str, int]]:
    """Yield ``(`` once for every value that the group in brackets can take; of the last group only what may win."""
    lengths = _lengths(group, operators)
    last = None if rest else _last_operand(stack, target)
    for value in lengths if last is None else {last} & lengths.keys():
        if value or stack[-1].pending != "/":
            cost = _cost(feed_value(stack, value), rest, target, operators)
            yield "(", 2 + lengths[value] + cost


def _last_operand(stack: Stack, target: int) -> Number | None:
    """Solve for the operand that wins if only brackets follow it; None if that is not one value."""
    wanted: Number = target
    for total, product, pending in stack:
        away = wanted - total
        if pending in ("+", "-"):
            wanted = away if pending == "+" else -away
        elif product == 0 or (pending == "/" and away == 0):  # any value does, or none
            return None
        else:
            wanted = divide(away, product) if pending == "*" else divide(product, away)
    return wanted


def _fed(stack: Stack, token: str) -> Stack | None:
    """Feed a token; None if it divides by zero."""
    try:
        return feed_token(stack, token)
    except ZeroDivisionError:
        return None
