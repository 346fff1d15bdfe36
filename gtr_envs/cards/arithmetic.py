"""Decides the rules that all games share in which card values are combined to a formula, token by token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Unpack

import numpy as np

from gtr_envs.cards import solver
from gtr_envs.cards.artwork import draw_table
from gtr_envs.cards.deck import RANKS, Card, card_value, checked_cards, draw_suits
from gtr_envs.cards.formula import END, FormulaError, evaluate, expects_operand, legal_after
from gtr_envs.cards.thoughts import Finding, Thought, audit, find_plan, write_thought
from gtr_envs.checks import checked_int, is_int
from gtr_envs.core import Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import DealError, OptionError, require_known
from gtr_envs.rendering import Frame

WIN_REWARD = 10.0
"""Paid for a formula over the whole hand that has the value of the target."""
PENALTY = -1.0
"""Paid for an illegal action, for ``=`` after any other formula and for running out of places."""
FAVOURITE_SHARE = 0.7
"""Share of demonstrations that show a hand's first solution: a learner needs one plan per hand, and some variety."""
MAX_DEALS = 300_000
"""Deals after which a wish for a hand is given up; a single hand of four cards comes once in 28561 deals."""


class CardArithmeticEnv(VisionTextEnv):
    """A game in which the cards on the table are combined to a formula that has a given value.

    A subclass names its numbers of cards and operators and says how ranks are dealt. The rules are those of the
    public environments with exact arithmetic and a grammar.
    """

    option_names = (*VisionTextEnv.option_names, "numbers", "cards")
    n_cards: ClassVar[int]
    """How many cards lie on the table."""
    operators: ClassVar[tuple[str, ...]]
    """Which of ``+ - * /`` may be used."""
    signs: ClassVar[tuple[str, ...]]
    """Action tokens after the numbers, in index order."""

    def __init__(
        self,
        *,
        target: int,
        max_tokens: int,
        face_cards: str,
        illegal: str,
        holdout: Collection[Sequence[int]],
        render_mode: str | None,
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is dealt.

        Args:
            target: The value to reach.
            max_tokens: How many entries fit into the formula, blanks of illegal actions included; ``=`` is only
                read while one place is free.
            face_cards: ``"ten"`` or ``"rank"``: jack, queen and king count 10, or 11, 12 and 13.
            illegal: ``"continue"`` or ``"terminate"``: what happens after an illegal action.
            holdout: Hands as ranks 1 to 13 in table order that are never dealt at random.
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("face_cards", face_cards, ("ten", "rank"))
        require_known("illegal", illegal, ("continue", "terminate"))
        self.faces_count_ten = face_cards == "ten"
        self.target = checked_int("target", target)
        self.max_tokens = checked_int("max_tokens", max_tokens, least=2 * self.n_cards)
        self.ends_on_illegal = illegal == "terminate"
        self.holdout = frozenset(self._checked_ranks("holdout", hand) for hand in holdout)
        self._largest = 10 if self.faces_count_ten else 13
        super().__init__(
            [*map(str, range(1, self._largest + 1)), *self.signs],
            text_length=2 * max_tokens,
            described_length=len("cards: \nformula: ") + 3 * self.n_cards + 2 * max_tokens,
            render_mode=render_mode,
            **view,
        )
        self._cards: tuple[Card, ...] = ()
        self._numbers: tuple[int, ...] = ()
        self._formula: list[str] = []
        self._n_blanks = 0
        # Known from what is above; kept because every step asks for it.
        self._card_names: tuple[str, ...] = ()
        self._rest: tuple[int, ...] = ()
        self._n_open = 0
        self._legal: tuple[str, ...] = ()
        self._solvable = False

    @abstractmethod
    def _deal(self) -> tuple[int, ...]:
        """Draw ranks in table order from ``self.np_random``; unwanted hands are dealt again."""

    def _wants(self, ranks: tuple[int, ...]) -> bool:
        """Say whether a dealt hand may be played; ranks 1 to 13 in table order."""
        return ranks not in self.holdout

    # --- what the player may know -----------------------------------------------------------------------------------

    @property
    def legal_actions(self) -> list[str]:
        """Tokens that continue the formula by its grammar; ``=`` when the formula is a complete expression."""
        return list(self._legal)

    def expert_action(self) -> str | None:
        """Say what a perfect player does next.

        Returns:
            The first token of a shortest win in the order of the action tokens; None if the hand or the formula is
            hopeless, or if too few places are left.
        """
        optimal = self.optimal_actions()
        return optimal[0] if optimal else None

    def expert_thought(self, way: Sequence[str] | None = None) -> Thought:
        """Write down what a perfect player thinks in the present state; see :mod:`gtr_envs.cards.thoughts`.

        Args:
            way: The actions of a player who follows a plan of its own, from here to the end; None looks for the best.

        Returns:
            The thought.
        """
        return write_thought(self._numbers, self._formula, self.target, operators=self.operators, way=way)

    def audit(self, thought: str, action: str | None, *, cards: object = None, formula: object = None) -> Finding:
        """Say what is wrong with an answer to the present state, or that it is correct.

        Args:
            thought: The reasoning, in any words.
            action: The action that was read from the answer; None if none could be read.
            cards: The values of the cards as the answer states them, in table order; None if it does not.
            formula: The formula so far as the answer states it; None if it does not.

        Returns:
            The first finding that applies.
        """
        return audit(
            self._numbers,
            self._formula,
            plan=find_plan(thought),
            action=action,
            # What is no list cannot be the cards.
            stated_numbers=cards if cards is None or isinstance(cards, list) else [cards],
            stated_formula=None if formula is None else str(formula),
            target=self.target,
            operators=self.operators,
        )

    def optimal_actions(self) -> tuple[str, ...]:
        """List every token that begins a shortest win.

        Returns:
            Tokens in the order of the action tokens; empty if the episode is over or cannot be won any more.
        """
        if not self.is_running:
            return ()
        away = solver.distance(self._numbers, self._formula, self.target, operators=self.operators)
        if away is None or len(self._formula) + self._n_blanks + away > self.max_tokens:
            return ()
        return solver.next_tokens(self._numbers, self._formula, self.target, operators=self.operators)

    def plan(self, rng: np.random.Generator, *, mistaken: bool = False) -> list[str]:
        """Write down a whole way from here to the end of the episode, for demonstrations.

        Args:
            rng: Chooses the way. A fresh hand gets its first solution (the same for every order of the cards) in
                :data:`FAVOURITE_SHARE` of the cases and any of its solutions otherwise.
            mistaken: True combines the cards blindly: the formula is well formed but hardly ever wins.

        Returns:
            Actions up to and with ``=``. Without a win from here a fresh hand gets a mistaken plan, a begun formula an
            empty one.
        """
        if self._formula:
            ways = solver.complete(self._numbers, self._formula, self.target, operators=self.operators)
            return ways[int(rng.integers(len(ways)))] if ways else []
        ways = [] if mistaken else solver.solve(sorted(self._numbers), self.target, operators=self.operators)
        if not ways:
            return [*random_formula(self._numbers, rng, self.operators), END]
        favourite = rng.random() < FAVOURITE_SHARE
        return [*ways[0 if favourite else int(rng.integers(len(ways)))], END]

    def demonstrate(self, rng: np.random.Generator, *, mistaken: bool = False) -> Iterator[Thought]:
        """Think through the rest of the episode along one plan.

        Play each thought's action before asking for the next thought.

        Args:
            rng: Chooses the plan, as for :meth:`plan`.
            mistaken: True follows a plan that combines the cards blindly.

        Yields:
            A thought for each state, to the end of the plan, or to where something else was played.
        """
        plan, begun = self.plan(rng, mistaken=mistaken), len(self._formula)
        for played in range(len(plan)):
            if list(self._formula[begun:]) == plan[:played]:
                yield self.expert_thought(plan[played:])

    def _facts(self) -> dict[str, Any]:
        return {
            "numbers": list(self._numbers),
            "cards": list(self._card_names),
            "formula": list(self._formula),
            "solvable": self._solvable,
        }

    # --- an episode -------------------------------------------------------------------------------------------------

    def _begin(self, options: Mapping[str, Any]) -> None:
        self._cards = self._chosen_cards(options) if options else draw_suits(self.np_random, self._wanted_deal())
        self._numbers = tuple(self._value(card.rank) for card in self._cards)
        self._formula = []
        self._n_blanks = 0
        self._card_names = tuple(card.name for card in self._cards)
        self._rest = tuple(sorted(self._numbers))
        self._n_open = 0
        self._find_legal()
        self._solvable = self._is_solvable(self._numbers)

    def _play(self, action: str) -> Outcome:
        legal = action in self.legal_actions
        if len(self._formula) + self._n_blanks >= self.max_tokens:
            return Outcome(PENALTY, legal, truncated=True)
        if action == END:
            return self._handed_in(legal=legal)
        if not legal:
            # The public environment appends a blank here; only the place it takes is kept.
            self._n_blanks += 1
            return Outcome(PENALTY, legal, terminated=self.ends_on_illegal)
        self._append(action)
        return Outcome(0.0, legal)

    def _append(self, token: str) -> None:
        """Write a legal token."""
        self._formula.append(token)
        self._n_open += (token == "(") - (token == ")")
        if token.isdigit():
            place = self._rest.index(int(token))
            self._rest = self._rest[:place] + self._rest[place + 1 :]
        self._find_legal()

    def _find_legal(self) -> None:
        """Keep the legal tokens of the new formula."""
        operand_next = expects_operand(self._formula)
        self._legal = _legal_tokens(self.action_tokens, self._rest, operand_next, self._n_open > 0)

    def _handed_in(self, *, legal: bool) -> Outcome:
        """Judge the formula as it stands."""
        try:
            value = evaluate(self._formula)
        except FormulaError:
            return Outcome(PENALTY, legal, terminated=True, facts={"formula_value": None})
        won = value == self.target and not self._rest
        reward = WIN_REWARD if won else PENALTY
        return Outcome(reward, legal, terminated=True, success=won, facts={"formula_value": float(value)})

    def _text(self) -> str:
        return "".join(self._formula)

    def _described(self) -> str:
        return f"cards: {' '.join(self._card_names)}\nformula: {self._text()}"

    def _draw(self, size: int) -> Frame:
        return draw_table(self._cards, self._text(), size, goal=self.target, look=self._look)

    # --- dealing ----------------------------------------------------------------------------------------------------

    def _value(self, rank: int) -> int:
        return card_value(rank, faces_count_ten=self.faces_count_ten)

    def _is_solvable(self, numbers: Sequence[int]) -> bool:
        return solver.is_solvable(numbers, self.target, operators=self.operators)

    def _wanted_deal(self) -> tuple[int, ...]:
        for _ in range(MAX_DEALS):
            ranks = self._deal()
            if self._wants(ranks):
                return ranks
        raise DealError(
            f"Expected a hand that may be played, found none in {MAX_DEALS} deals; check target={self.target}, the "
            f"kind of deal, and the {len(self.holdout)} held-out hands."
        )

    def _chosen_cards(self, options: Mapping[str, Any]) -> tuple[Card, ...]:
        """Cards of ``reset(options=...)``; numbers get random suits."""
        if len(options) > 1:
            raise OptionError(f"Expected one of the options 'numbers' and 'cards', got both: {dict(options)!r}.")
        if "numbers" in options:
            ranks = self._checked_ranks("numbers", options["numbers"], largest=self._largest)
            return draw_suits(self.np_random, ranks)
        return checked_cards("options['cards']", options["cards"], self.n_cards)

    def _checked_ranks(self, name: str, hand: object, largest: int = len(RANKS)) -> tuple[int, ...]:
        """Check a hand of whole numbers from 1 to ``largest``."""
        if isinstance(hand, np.ndarray):
            hand = hand.tolist()
        usable = isinstance(hand, Sequence) and not isinstance(hand, str) and len(hand) == self.n_cards
        if not usable or not all(is_int(rank) and 1 <= rank <= largest for rank in hand):  # type: ignore[attr-defined]
            remedy = " Name face cards with options['cards']." if largest == 10 else ""
            raise OptionError(
                f"Expected in {name} {self.n_cards} whole numbers from 1 to {largest}, got {hand!r}.{remedy}"
            )
        return tuple(int(rank) for rank in hand)  # type: ignore[attr-defined]


@lru_cache(maxsize=4096)
def _legal_tokens(
    tokens: tuple[str, ...], rest: tuple[int, ...], operand_next: bool, in_brackets: bool
) -> tuple[str, ...]:
    """The legal ones of the tokens, in their order; see :func:`gtr_envs.cards.formula.legal_after`."""
    following = set(legal_after(rest, operand_next=operand_next, in_brackets=in_brackets))
    return tuple(token for token in tokens if token in following)


def random_formula(numbers: Sequence[int], rng: np.random.Generator, operators: Sequence[str]) -> list[str]:
    """Combine all numbers blindly to a formula with no more brackets than it needs.

    Args:
        numbers: The hand.
        rng: Chooses pairs and operators.
        operators: Which of ``+ - * /`` may be used.

    Returns:
        Tokens without ``=``.
    """
    parts: list[tuple[list[str], int]] = [([str(number)], 3) for number in numbers]
    while len(parts) > 1:
        first, second = (int(i) for i in rng.choice(len(parts), 2, replace=False))
        operator = operators[int(rng.integers(len(operators)))]
        strength = 1 if operator in "+-" else 2
        left, right = parts[first], parts[second]
        # The right side of - and / needs brackets at equal strength; + and * only when weaker.
        least = strength + (operator in "-/")
        tokens = [*_bracketed(left, strength), operator, *_bracketed(right, least)]
        parts = [part for i, part in enumerate(parts) if i not in (first, second)] + [(tokens, strength)]
    return parts[0][0]


def _bracketed(part: tuple[list[str], int], least: int) -> list[str]:
    """Put brackets around a part that binds less than ``least``."""
    tokens, strength = part
    return tokens if strength >= least else ["(", *tokens, ")"]
