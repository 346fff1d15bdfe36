"""Decides how hard a hand is, and which hands a player may train on; exact, standard library only.

A hand is a multiset of four card values, written in ascending order. Its difficulty is read off the list of all its
solutions, its split off its numbers alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from itertools import combinations_with_replacement
from math import factorial, prod
from types import MappingProxyType

from gtr_envs.cards.formula import START, Stack, feed_token
from gtr_envs.cards.solver import solve

BANDS = ("easy", "medium", "hard", "fractions", "impossible")
"""Names of the bands; every hand is in exactly one."""
SPLITS = ("train", "validation", "test")
"""Names of the splits; every hand is in exactly one."""
FEW_SOLUTIONS = 12
"""A hand with at most this many formulas has few; the value that makes the three large bands about equal."""
N_CARDS = 4
N_RANKS = 13
_SHARES = {"train": 3, "validation": 1, "test": 1}
"""Fifths of the hands."""
# Other prefixes give other partitions; with this one every split has hands of every band.
_PREFIX = "points24 "

Hand = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard it is to reach the target with a hand."""

    numbers: Hand
    """Card values in ascending order."""
    target: int
    """The value to reach."""
    n_solutions: int
    """How many formulas :func:`gtr_envs.cards.solver.solve` lists; 0 if the hand cannot be won."""
    n_tokens: int | None
    """Tokens of a shortest win, ``=`` included: 8, 10 or 12 with four cards; None if there is none."""
    needs_fractions: bool
    """True if there are solutions and every one computes a value on its way that is not whole."""

    @property
    def n_bracket_pairs(self) -> int:
        """Pairs of brackets in a shortest win; 0 if there is none."""
        # Every number but the first brings an operator, and "=" comes last; two tokens more are a pair.
        return 0 if self.n_tokens is None else (self.n_tokens - 2 * len(self.numbers)) // 2

    @property
    def needs_brackets(self) -> bool:
        """True if there are solutions and every one has brackets."""
        return self.n_bracket_pairs > 0

    @property
    def band(self) -> str:
        """One of :data:`BANDS`: the first of these descriptions that fits.

        ``"impossible"``: no solution. ``"fractions"``: no solution without fractions. ``"hard"``: two pairs of
        brackets are needed, or one and there are few solutions (:data:`FEW_SOLUTIONS`). ``"medium"``: brackets are
        needed, or there are few solutions. ``"easy"``: all others.
        """
        if not self.n_solutions:
            return "impossible"
        if self.needs_fractions:
            return "fractions"
        hardships = self.n_bracket_pairs + (self.n_solutions <= FEW_SOLUTIONS)
        return BANDS[min(hardships, 2)]


def difficulty(numbers: Sequence[int], target: int = 24) -> Difficulty:
    """Measure how hard a hand is; remembered by multiset.

    Args:
        numbers: One to five whole numbers >= 0, in any order.
        target: The value to reach.

    Returns:
        The difficulty; the same for every order of the numbers.

    Raises:
        ValueError: If the numbers are too many, none or not whole numbers >= 0.

    >>> difficulty([8, 3, 8, 3])
    Difficulty(numbers=(3, 3, 8, 8), target=24, n_solutions=1, n_tokens=10, needs_fractions=True)
    """
    return _difficulty(tuple(sorted(int(number) for number in numbers)), target)


@lru_cache(maxsize=8192)
def _difficulty(hand: Hand, target: int) -> Difficulty:
    solutions = solve(hand, target)
    return Difficulty(
        hand,
        target,
        n_solutions=len(solutions),
        n_tokens=len(solutions[0]) + 1 if solutions else None,
        needs_fractions=bool(solutions) and not any(map(_stays_whole, solutions)),
    )


def _stays_whole(tokens: Iterable[str]) -> bool:
    """Say whether every value on the way from left to right is whole."""
    stack: Stack = (START,)
    for token in tokens:
        stack = feed_token(stack, token)
        # A sum can only stop being whole by a term that did.
        if isinstance(stack[-1].product, Fraction):
            return False
    return True


@lru_cache(maxsize=8)
def table(target: int = 24, largest: int = 10) -> Mapping[Hand, Difficulty]:
    """Measure every hand of four cards; takes about half a second and is remembered.

    Args:
        target: The value to reach.
        largest: Largest card value: 10 (jack, queen and king count 10: 715 hands) or 13 (they count 11 to 13: 1820).

    Returns:
        Difficulties by hand, in ascending order of the hands.

    Raises:
        ValueError: If the largest value is neither 10 nor 13.
    """
    if largest not in (10, N_RANKS):
        raise ValueError(f"expected 10 or {N_RANKS} as the largest card value, got {largest!r}")
    every_hand = combinations_with_replacement(range(1, largest + 1), N_CARDS)
    return MappingProxyType({hand: difficulty(hand, target) for hand in every_hand})


def n_deals(numbers: Sequence[int], largest: int = 10) -> int:
    """Count the deals that show these values: four ranks in table order, 28561 in all.

    Args:
        numbers: Card values in any order.
        largest: Largest card value; with 10 four ranks count 10.

    Returns:
        How many of the equally likely deals show the values in some order.

    >>> n_deals([1, 2, 3, 4]), n_deals([3, 3, 8, 8]), n_deals([10, 10, 10, 10])
    (24, 6, 256)
    """
    orders = factorial(len(numbers)) // prod(factorial(count) for count in Counter(numbers).values())
    n_tens = list(numbers).count(10) if largest == 10 else 0
    return orders * prod([N_RANKS - 9] * n_tens)


def share(band: str, *, target: int = 24, largest: int = 10) -> Fraction:
    """Say how often a deal of any hand falls into a band.

    Args:
        band: One of :data:`BANDS`.
        target: The value to reach.
        largest: Largest card value, 10 or 13.

    Returns:
        The exact share; the shares of all bands add up to 1.

    Raises:
        ValueError: If the band is unknown or the largest value is neither 10 nor 13.
    """
    members = hands(band, target=target, largest=largest)
    return Fraction(sum(n_deals(hand, largest) for hand in members), N_RANKS**N_CARDS)


def split_of(numbers: Sequence[int]) -> str:
    """Say to which split a hand belongs: by its numbers alone, whatever the target and whatever faces count.

    The values are sorted, joined by commas and put behind ``"points24 "``. The first eight bytes of the SHA-256
    digest of this text, read as a number (most significant byte first), leave a remainder by five: 0, 1 and 2 are
    ``"train"``, 3 is ``"validation"``, 4 is ``"test"``.

    Args:
        numbers: Card values in any order.

    Returns:
        One of :data:`SPLITS`.

    >>> split_of([8, 3, 8, 3]) == split_of([3, 3, 8, 8])
    True
    """
    written = _PREFIX + ",".join(str(int(number)) for number in sorted(numbers))
    place = int.from_bytes(sha256(written.encode("ascii")).digest()[:8], "big") % sum(_SHARES.values())
    fifths = [split for split, n_fifths in _SHARES.items() for _ in range(n_fifths)]
    return fifths[place]


def hands(band: str, split: str | None = None, *, target: int = 24, largest: int = 10) -> tuple[Hand, ...]:
    """List the hands of a band.

    Args:
        band: One of :data:`BANDS`.
        split: One of :data:`SPLITS`, which share no hand; None lists the hands of all three.
        target: The value to reach.
        largest: Largest card value, 10 or 13.

    Returns:
        Hands in ascending order; empty if there are none.

    Raises:
        ValueError: If the band or the split is unknown, or the largest value is neither 10 nor 13.

    >>> hands("fractions", "test")
    ((1, 3, 4, 6), (1, 5, 5, 5), (2, 4, 10, 10))
    """
    if band not in BANDS:
        raise ValueError(f"expected one of the bands {BANDS}, got {band!r}")
    if split is not None and split not in SPLITS:
        raise ValueError(f"expected one of the splits {SPLITS} or None, got {split!r}")
    measured = table(target, largest)
    return tuple(hand for hand in measured if measured[hand].band == band and split in (None, split_of(hand)))
