"""Decides the duel: who wins, what is paid and what each player sees, as a PettingZoo environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding

from gtr_envs.cards.deck import Card, parse_card
from gtr_envs.cards.duel.seat import Seat
from gtr_envs.cards.duel.table import Side, draw_match, draw_view
from gtr_envs.checks import checked_int
from gtr_envs.core import Observation, Outcome, ViewOptions, observed
from gtr_envs.errors import DependencyError, InvalidActionError, OptionError
from gtr_envs.lifecycle import Lifecycle
from gtr_envs.rendering import Frame
from gtr_envs.spaces import vision_text_space
from gtr_envs.styles import Look

try:
    from pettingzoo import ParallelEnv
    from pettingzoo.utils import parallel_to_aec
    from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper
except ImportError as missing:
    raise DependencyError(
        "The duel needs the package pettingzoo, which is not installed. Run: pip install 'pettingzoo>=1.26'"
    ) from missing

AGENTS = ("player_0", "player_1")
"""Names of the two players."""
DEFAULT_RENDER_SIZE = 480
"""Side of rendered frames in pixels, unless the observed picture is larger."""
MIN_ROUNDS = 8
"""The shortest formula over four cards has seven tokens; the eighth is ``=``."""
IGNORED_OPTION = "options"
"""PettingZoo's own tests send this key to see whether ``reset`` takes options; it is the only unknown one let pass."""


class DuelEnv(Lifecycle, ParallelEnv[str, Observation, Any]):  # type: ignore[misc]  # PettingZoo ships no type information
    r"""A race to 24: two players, one hand, one formula each.

    ## Description

    Four cards lie on the table. Both players see them, and in every round both append one token to their own formula at
    the same time. Who first hands in a formula that uses the number of every card exactly once and has the value 24
    wins. Cards, tokens, grammar, exact values and the meaning of `=` are those of `Points24-v0`. Each player sees the
    other's formula.

    A wrong `=` puts the player out: the formula stays as it is, the other one may go on alone. This is the rule of
    Points24, where `=` ends the attempt; and since nothing in a formula can be taken back, a player with a wrong one
    over all four cards could not win any more after a mere penalty.

    ## Action Space

    For each player `Discrete(17)`, in index order: `1` ... `10`, `+`, `-`, `*`, `/`, `(`, `)`, `=`. With
    `face_cards="rank"` `Discrete(20)`: the numbers go to `13`. Legality is that of Points24. A player who is out still
    sends actions, which change nothing; `=` alone is legal then, so that a mask is never empty.

    ## Observation Space

    For each player `Dict(image, text)` from the player's own side: `image` is uint8 `[image_size, image_size, 3]` with
    the cards, the own formula in the lower strip (blue, "Me") and the opponent's in the upper one (red, "Them"); `text`
    is `me: (8/ them: 3*`: the tokens of each formula joined without separators. A formula that has been handed in ends
    with `=`.

    ## Rewards

    | event | player | opponent |
    |---|---|---|
    | winning `=`, the opponent's not in the same round | +1 | -1 |
    | winning `=` of both in the same round | 0 | 0 |
    | any other `=`, also after an incomplete or empty formula | 0 | 0 |
    | other illegal action | `illegal_reward`, -0.1 | 0 |
    | any other legal action, anything a player does who is out | 0 | 0 |

    Winning is worth ten times what an illegal action costs, as in Points24. What the ending pays sums to zero; with
    `illegal_reward=0` the whole game does.

    ## Starting State

    Four ranks, each uniform on ace to king, with replacement, dealt again until the hand can be won
    (`deal="solvable"`), then four suits; all from the seeded generator. `reset` takes
    `options={"numbers": [3, 3, 8, 8]}` (card values in table order, random suits) or
    `options={"cards": ["HT", "D6", "DQ", "S4"]}`.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when | result |
    |---|---|---|
    | terminated | one player hands in a winning formula | win and loss |
    | terminated | both hand in a winning formula in the same round | draw |
    | terminated | both players are out | draw |
    | truncated | `max_rounds` rounds are over | draw |

    Both players end together. Every action takes a round, also an illegal one: that is the place it takes in Points24,
    and `max_rounds` is `max_tokens` there.

    ## Information

    For each player:

    | key | value |
    |---|---|
    | `numbers`, `cards` | card values (`list[int]`) and names (`list[str]`, such as `"HT"`) in table order |
    | `formula`, `opponent_formula` | tokens so far without `=`, `list[str]` |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal tokens, `list[str]`; int8 `[n_actions]`, 1 for legal |
    | `solvable` | whether the hand can be won, `bool` |
    | `out`, `opponent_out` | whether a wrong formula has been handed in, `bool` |
    | `legal` | whether the last action was legal, `bool`; after `step` |
    | `formula_value` | in the round of `=`: the value (`float`), None if it has none |
    | `success`, `result` | when the episode ends: `bool`; `"win"`, `"loss"` or `"draw"` |

    All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames; both show both sides |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture, and all it would show in words |
    | `image_size` | 300 | side of the observed pictures in pixels, 64 to 1024; below 180 cards show a large rank |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 480 |
    | `style` | `"classic"` | how it looks: a style, or `"train"` or `"test"` for one of a split in every episode |
    | `deal` | `"solvable"` | or `"any"` |
    | `face_cards` | `"ten"` | J Q K count 10; `"rank"`: 11, 12, 13 |
    | `target` | 24 | value to reach |
    | `max_rounds` | 21 | rounds until the game is a draw, at least 8 |
    | `illegal_reward` | -0.1 | what an illegal action pays, at most 0 |
    | `holdout` | () | hands as four ranks 1 to 13 in table order that are never dealt at random |

    ## Prompt

    `instructions` tells the task, the value of every card and the tokens; which cards lie on the table is only in the
    picture. `expert_action(agent)` names the next token of a shortest win.

    ## Known limits

    Both players can hand in at the earliest in the same round, so two perfect players always draw. The number of rounds
    played is in neither the observed picture nor the text. PettingZoo's `api_test` warns that observations are no
    arrays: they are a picture with a text.

    ## References

    Rules of one side: `Points24-v0`. Interface: Terry et al., PettingZoo: Gym for Multi-Agent Reinforcement Learning,
    arXiv 2009.14471.

    ## Version History

    * v0: first version.
    """

    option_names = Seat.option_names
    metadata: dict[str, Any] = {  # noqa: RUF012 - PettingZoo declares it so
        "name": "duel_v0",
        "render_modes": ["human", "rgb_array"],
        "render_fps": 4,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        deal: str = "solvable",
        face_cards: str = "ten",
        target: int = 24,
        max_rounds: int = 21,
        illegal_reward: float = -0.1,
        holdout: Collection[Sequence[int]] = (),
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            deal: ``"solvable"`` or ``"any"``.
            face_cards: ``"ten"`` or ``"rank"``.
            target: The value to reach.
            max_rounds: Rounds until the game is a draw, at least 8.
            illegal_reward: What an illegal action pays, at most 0.
            holdout: Hands as four ranks 1 to 13 in table order that are never dealt at random.
            **view: Size and kind of the observations; see :class:`gtr_envs.core.ViewOptions`, but frames are rendered
                with at least 480 pixels.

        Raises:
            OptionError: If an argument cannot be used.
        """
        self.max_rounds = checked_int("max_rounds", max_rounds, least=MIN_ROUNDS)
        if not -np.inf < illegal_reward <= 0:
            raise OptionError(f"Expected illegal_reward as a finite number of at most 0, got {illegal_reward!r}.")
        self.illegal_reward = float(illegal_reward)
        self.seats: dict[str, Seat] = {
            agent: Seat(
                deal=deal,
                face_cards=face_cards,
                target=target,
                max_tokens=max_rounds,
                holdout=holdout,
                **view,
            )
            for agent in AGENTS
        }
        first = self.seats[AGENTS[0]]
        Lifecycle.__init__(self, render_mode, view.get("render_size") or max(first.image_size, DEFAULT_RENDER_SIZE))
        self.image_size = first.image_size
        self.observe = first.observe
        self.target = first.target
        self.action_tokens = first.action_tokens
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        # A number takes two characters at most; each formula may be followed by "=".
        text_length = len("me:  them: ") + 2 * (2 * max_rounds + 1)
        if self.observe == "text":
            text_length += len("cards: \n") + 3 * Seat.n_cards
        self.observation_spaces: dict[str, spaces.Dict] = {
            agent: vision_text_space(self.image_size, text_length, self.observe) for agent in AGENTS
        }
        self.action_spaces: dict[str, spaces.Discrete] = {
            agent: spaces.Discrete(len(self.action_tokens)) for agent in AGENTS
        }
        self.n_rounds = 0
        self._cards: tuple[Card, ...] = ()
        self._look = Look()
        self._np_random: np.random.Generator | None = None

    # --- what the players may know ----------------------------------------------------------------------------------

    @property
    def instructions(self) -> str:
        """The task in words, for prompts; the same for both players."""
        places = (
            "Your formula stands behind 'me', the other one behind 'them'."
            if self.observe == "text"
            else "Your formula is in the lower strip, the other one in the upper strip."
        )
        return (
            f"{self.seats[AGENTS[0]].instructions} You race another player on the same cards: both append a token at "
            f"the same time, and who first hands in a formula that is right wins. {places} If you play '=' with a "
            "wrong formula you are out."
        )

    def legal_actions(self, agent: str) -> list[str]:
        """List the tokens that are legal for a player.

        Args:
            agent: Name of the player.

        Returns:
            Tokens in index order; a new list, never empty.
        """
        return self.seats[agent].legal_actions

    def optimal_actions(self, agent: str) -> tuple[str, ...]:
        """List every token that begins a shortest way to a right formula.

        Args:
            agent: Name of the player.

        Returns:
            Tokens in index order; empty if the game is over or the player cannot win any more.
        """
        return self.seats[agent].optimal_actions() if self.agents else ()

    def expert_action(self, agent: str) -> str | None:
        """Say what a perfect player does next.

        Args:
            agent: Name of the player.

        Returns:
            The first of the optimal tokens, or None.
        """
        return next(iter(self.optimal_actions(agent)), None)

    def info(self, agent: str) -> dict[str, Any]:
        """Tell a player's info as far as it does not depend on the last action.

        Args:
            agent: Name of the player.

        Returns:
            A new dictionary of new objects.
        """
        other = self.seats[_other(agent)]
        info = {**self.seats[agent].facts(), "opponent_formula": other.formula, "opponent_out": other.is_out}
        if self._phase == "over":
            result = self._result(agent)
            info |= {"success": result == "win", "result": result}
        return info

    def text(self, agent: str) -> str:
        """Tell both formulas from a player's side.

        Args:
            agent: Name of the player.

        Returns:
            The text of the player's observation.
        """
        return f"me: {self.seats[agent].written} them: {self.seats[_other(agent)].written}"

    def described(self, agent: str) -> str:
        """Tell the cards and both formulas from a player's side.

        Args:
            agent: Name of the player.

        Returns:
            The text of the player's observation with ``observe="text"``.
        """
        return f"cards: {' '.join(card.name for card in self._cards)}\n{self.text(agent)}"

    def picture(self, agent: str, size: int, look: Look | None = None) -> Frame:
        """Draw the table from a player's side.

        Args:
            agent: Name of the player.
            size: Side of the picture in pixels, at least 64.
            look: What it looks like; None for the look of this game.

        Returns:
            A new picture, uint8 [size, size, 3].
        """
        mine, theirs = self.seats[agent].written, self.seats[_other(agent)].written
        return draw_view(self._cards, mine, theirs, size, look or self._look)

    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the space of a player's observations.

        Args:
            agent: Name of the player.

        Returns:
            The same object at every call.
        """
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        """Return the space of a player's actions.

        Args:
            agent: Name of the player.

        Returns:
            The same object at every call.
        """
        return self.action_spaces[agent]

    # --- PettingZoo's interface -------------------------------------------------------------------------------------

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin a new game.

        Args:
            seed: Seed of the generator; None goes on with the present one.
            options: ``"numbers"`` or ``"cards"`` of the hand; an unknown key is an error.

        Returns:
            The first observation and info of each player.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            UnknownNameError: If an option is unknown.
            OptionError: If an option has an unusable value.
            DealError: If no hand may be played.
        """
        self._require_open()
        chosen = self._checked_options(
            {name: value for name, value in (options or {}).items() if name != IGNORED_OPTION}
        )
        if seed is not None or self._np_random is None:
            self._np_random, _ = seeding.np_random(seed)
        first, second = self.seats.values()
        self._look = first.begin(self._np_random, chosen)
        second.begin(self._np_random, {"cards": first.cards, "style": self._look.style})
        self._cards = tuple(parse_card(name) for name in first.cards)
        self.agents = list(AGENTS)
        self.n_rounds = 0
        self._start()
        return self._observe(), {agent: self.info(agent) for agent in AGENTS}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one round.

        Args:
            actions: For each player the index of an action; or :class:`gtr_envs.core.IllegalText`.

        Returns:
            Observations, rewards, terminations, truncations and infos of each player.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If no game is running.
            InvalidActionError: If an action is missing or not in the action space; nothing is played then.
        """
        played = self.play(actions)
        return (self._observe(), *played)

    def play(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one round without observing it, for who has eyes of its own.

        Args:
            actions: As for :meth:`step`.

        Returns:
            Rewards, terminations, truncations and infos of each player.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If no game is running.
            InvalidActionError: If an action is missing or not in the action space; nothing is played then.
        """
        self._require_running()
        if set(actions) != set(AGENTS):
            raise InvalidActionError(
                f"Expected one action for each of {list(AGENTS)}, got actions for {sorted(actions)}; a player who is "
                "out still sends one."
            )
        tokens = {agent: seat.token_of(actions[agent]) for agent, seat in self.seats.items()}
        outcomes = {agent: seat.play(tokens[agent]) for agent, seat in self.seats.items()}
        self.n_rounds += 1
        terminated = any(seat.won for seat in self.seats.values()) or all(seat.is_out for seat in self.seats.values())
        truncated = not terminated and self.n_rounds >= self.max_rounds
        if terminated or truncated:
            self.agents = []
            self._end()
        self._show()
        return (
            {agent: self._reward(agent, outcome) for agent, outcome in outcomes.items()},
            dict.fromkeys(AGENTS, terminated),
            dict.fromkeys(AGENTS, truncated),
            {agent: self.info(agent) | {"legal": out.legal, **out.facts} for agent, out in outcomes.items()},
        )

    # --- inside -----------------------------------------------------------------------------------------------------

    def _result(self, agent: str) -> str:
        """How the game has ended for a player."""
        own, other = self.seats[agent].won, self.seats[_other(agent)].won
        return "draw" if own == other else "win" if own else "loss"

    def _reward(self, agent: str, outcome: Outcome) -> float:
        """What a round pays; an illegal action is what Points24 fines without ending the attempt."""
        fine = self.illegal_reward if outcome.reward and not outcome.terminated else 0.0
        return fine + {"draw": 0.0, "win": 1.0, "loss": -1.0}[self._result(agent)]

    def _observe(self) -> dict[str, Observation]:
        return {
            agent: observed(
                self.observe,
                partial(self.picture, agent, self.image_size),
                partial(self.text, agent),
                partial(self.described, agent),
            )
            for agent in AGENTS
        }

    def _rendered(self) -> Frame:
        sides = [Side(agent, seat.written, is_out=seat.is_out, won=seat.won) for agent, seat in self.seats.items()]
        over = self._phase == "over"
        winner = next((agent for agent in AGENTS if self._result(agent) == "win"), None)
        if over:
            caption = f"{winner} wins" if winner else "Draw"
        else:
            caption = f"Target {self.target}     Round {self.n_rounds + 1} of {self.max_rounds}"
        return draw_match(self._cards, sides, caption, self.render_size, over=over, look=self._look)


def raw_env(**kwargs: Any) -> Any:
    """Make the duel as PettingZoo's AEC environment: players act in turn, and a round is played after the second.

    Args:
        **kwargs: Arguments of :class:`DuelEnv`.

    Returns:
        PettingZoo's conversion of the parallel environment.
    """
    return parallel_to_aec(DuelEnv(**kwargs))


def env(**kwargs: Any) -> Any:
    """Make the duel as an AEC environment that refuses an invalid action at once, not at the end of its round.

    Args:
        **kwargs: Arguments of :class:`DuelEnv`.

    Returns:
        :func:`raw_env` inside the wrappers that PettingZoo recommends.
    """
    return OrderEnforcingWrapper(AssertOutOfBoundsWrapper(raw_env(**kwargs)))


def _other(agent: str) -> str:
    """The opponent of a player."""
    return AGENTS[1 - AGENTS.index(agent)]
