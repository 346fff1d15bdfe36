"""Decides who can be played against: a solver of adjustable strength, and a duel that looks like a game for one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, Unpack

import numpy as np
from gymnasium import spaces

from gtr_envs.cards.duel.race import AGENTS, DuelEnv
from gtr_envs.cards.formula import END
from gtr_envs.cards.thoughts import Thought
from gtr_envs.core import MIN_IMAGE_SIZE, OBSERVE, IllegalText, Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import OptionError, require_known
from gtr_envs.rendering import Frame


class Opponent(Protocol):
    """Somebody who plays one side of a duel."""

    def act(self, env: DuelEnv, agent: str) -> int:
        """Choose an action.

        Args:
            env: The duel, before the round.
            agent: The side to play.

        Returns:
            Index of the action.
        """
        ...


class SolverOpponent:
    """Plays the next token of a shortest win with a given probability, and a random legal token otherwise.

    At random it never hands in a formula that does not win, so it is never out; but it can write itself into a dead
    end. At strength 1 it wins in the smallest possible number of rounds; at strength 0 hardly ever.

    Example:
        >>> duel = DuelEnv(image_size=64)
        >>> _ = duel.reset(options={"numbers": [3, 3, 8, 8]})
        >>> perfect = SolverOpponent(1.0, np.random.default_rng(0))
        >>> duel.action_tokens[perfect.act(duel, "player_1")]
        '8'
    """

    def __init__(self, strength: float, rng: np.random.Generator) -> None:
        """Set the strength.

        Args:
            strength: Probability of an optimal token in each round, 0 to 1.
            rng: Draws everything that is random.

        Raises:
            OptionError: If the strength is no number from 0 to 1.
        """
        self.strength = _checked_strength(strength)
        self._rng = rng

    def act(self, env: Any, agent: str) -> int:
        """Choose an action.

        Args:
            env: The duel, parallel or AEC, before the round.
            agent: The side to play.

        Returns:
            Index of the action.
        """
        duel: DuelEnv = env.unwrapped
        # The search takes nearly all the time of a duel, so it is made only for a token that is to be optimal.
        chosen = duel.optimal_actions(agent) if self._rng.random() < self.strength else ()
        if not chosen:
            legal = duel.legal_actions(agent)
            wins = END in legal and END in duel.optimal_actions(agent)
            # Only a player who is out has nothing but "=" to play.
            chosen = tuple(token for token in legal if token != END or wins) or (END,)
        return duel.action_tokens.index(chosen[int(self._rng.integers(len(chosen)))])


class AgainstEnv(VisionTextEnv):
    r"""A race to 24 against a solver of adjustable strength, or against any other opponent.

    ## Description

    Four cards lie on the table. The player and an opponent see them, and in every round both append one token to their
    own formula at the same time. Who first hands in a formula that uses the number of every card exactly once and has
    the value 24 wins. Cards, tokens, grammar, exact values and the meaning of `=` are those of `Points24-v0`; a wrong
    `=` puts a player out, and the other one goes on alone. A player who is out does not wait: the opponent plays on to
    the end within the same step. It is one side of the two-player `gtr_envs.cards.duel`.

    ## Action Space

    `Discrete(17)`, in index order: `1` ... `10`, `+`, `-`, `*`, `/`, `(`, `)`, `=`. With `face_cards="rank"`
    `Discrete(20)`: the numbers go to `13`. `gtr_envs.wrappers.TextAction` takes the tokens themselves. Legality is that
    of Points24.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the cards, the player's formula in the
    lower strip (blue, "Me") and the opponent's in the upper one (red, "Them"); `text` is `me: (8/ them: 3*`: the tokens
    of each formula joined without separators. A formula that has been handed in ends with `=`. With `observe="text"`
    there is `text` alone, such as `"cards: HT D6 CA S4\nme: (6 them: 10*"`.

    ## Rewards

    | event | reward |
    |---|---|
    | the player hands in a right formula, the opponent not in the same round | +1 |
    | the opponent hands in a right formula, the player not in the same round | -1 |
    | right formulas of both in the same round, or nobody can win any more | 0 |
    | illegal action other than `=` | `illegal_reward`, -0.1, in addition |
    | anything else, also a wrong `=` as such | 0 |

    ## Starting State

    Four ranks, each uniform on ace to king, with replacement, dealt again until the hand can be won
    (`deal="solvable"`), then four suits; all from the seeded generator, as is what the solver draws. `reset` takes
    `options={"numbers": [3, 3, 8, 8]}` (card values in table order, random suits) or
    `options={"cards": ["HT", "D6", "DQ", "S4"]}`.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when | result |
    |---|---|---|
    | terminated | one side hands in a winning formula | win or loss |
    | terminated | both hand in a winning formula in the same round, or both are out | draw |
    | truncated | `max_rounds` rounds are over | draw |

    Every action takes a round, also an illegal one.

    ## Information

    | key | value |
    |---|---|
    | `numbers`, `cards` | card values (`list[int]`) and names (`list[str]`, such as `"HT"`) in table order |
    | `formula`, `opponent_formula` | tokens so far without `=`, `list[str]` |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal tokens, `list[str]`; int8 `[n_actions]`, 1 for legal |
    | `solvable` | whether the hand can be won, `bool` |
    | `out`, `opponent_out` | whether a wrong formula has been handed in, `bool` |
    | `legal` | whether the last action was legal, `bool`; after `step` |
    | `formula_value` | after `=`: the value (`float`), None if it has none |
    | `success`, `result` | when the episode ends: `bool`, a draw is no success; `"win"`, `"loss"` or `"draw"` |

    All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames; both show the player's picture |
    | `image_size` | 300 | side of the observed picture in pixels, 64 to 1024; below 180 cards show a large rank |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 300 |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture, and all it would show in words |
    | `style` | `"classic"` | how it looks: a style, or `"train"` or `"test"` for one of a split in every episode |
    | `opponent` | 0.5 | strength of the solver, 0 to 1; or an object with `act(env, agent) -> int` |
    | `agent` | `"player_0"` | the player's side of the table; or `"player_1"` |
    | `deal` | `"solvable"` | or `"any"` |
    | `face_cards` | `"ten"` | J Q K count 10; `"rank"`: 11, 12, 13 |
    | `target` | 24 | value to reach |
    | `max_rounds` | 21 | rounds until the game is a draw, at least 8 |
    | `illegal_reward` | -0.1 | what an illegal action pays, at most 0 |
    | `holdout` | () | hands as four ranks 1 to 13 in table order that are never dealt at random |

    ## Prompt

    `instructions` tells the task, the value of every card and the tokens; which cards lie on the table is only in the
    picture. `expert_action()` names the next token of a shortest win.

    ## Known limits

    A perfect player wins unless the opponent is as fast, which is a draw; against the solver at strength 1 it always
    draws. The number of rounds played is in neither the observed picture nor the text.

    ## References

    Rules of one side: `Points24-v0`. The game for two: `gtr_envs.cards.duel.DuelEnv`.

    ## Version History

    * v0: first version.
    """

    option_names = DuelEnv.option_names
    expert_always_wins = False

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        opponent: Opponent | float = 0.5,
        agent: str = AGENTS[0],
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
            opponent: Who plays the other side; a number from 0 to 1 is a :class:`SolverOpponent` of this strength that
                draws from the environment's generator.
            agent: The player's side.
            deal: ``"solvable"`` or ``"any"``.
            face_cards: ``"ten"`` or ``"rank"``.
            target: The value to reach.
            max_rounds: Rounds until the game is a draw, at least 8.
            illegal_reward: What an illegal action pays, at most 0.
            holdout: Hands as four ranks 1 to 13 in table order that are never dealt at random.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("agent", agent, AGENTS)
        self.opponent = opponent if hasattr(opponent, "act") else _checked_strength(opponent)
        self.agent = agent
        self._duel = DuelEnv(
            deal=deal,
            face_cards=face_cards,
            target=target,
            max_rounds=max_rounds,
            illegal_reward=illegal_reward,
            holdout=holdout,
            # Its own pictures are not looked at.
            image_size=MIN_IMAGE_SIZE,
            observe=view.get("observe", OBSERVE[0]),
        )
        text = self._duel.observation_space(agent).spaces.get("text")
        super().__init__(
            self._duel.action_tokens,
            text_length=text.max_length if isinstance(text, spaces.Text) else 0,
            render_mode=render_mode,
            **view,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return self._duel.instructions

    @property
    def legal_actions(self) -> list[str]:
        """Tokens that are legal for the player."""
        return self._duel.legal_actions(self.agent)

    def expert_action(self) -> str | None:
        """Say what a perfect player does next.

        Returns:
            The first token of a shortest way to a right formula; None if there is none.
        """
        return self._duel.expert_action(self.agent)

    def expert_thought(self) -> Thought:
        """Write down what a perfect player thinks in the present state; see :mod:`gtr_envs.cards.thoughts`."""
        return self._duel.seats[self.agent].expert_thought()

    def _begin(self, options: Mapping[str, Any]) -> None:
        self._duel.reset(seed=int(self.np_random.integers(2**31)), options=dict(options))
        if isinstance(self.opponent, float):
            self._player: Opponent = SolverOpponent(self.opponent, self.np_random)
        else:
            self._player = self.opponent

    def _play(self, action: str) -> Outcome:
        known = action in self.action_tokens
        first = self._round(self.action_tokens.index(action) if known else IllegalText(action))
        outcome = first
        while self._duel.agents and self._duel.seats[self.agent].is_out:
            outcome = self._round(self.action_tokens.index(END))
        return outcome._replace(legal=first.legal, facts=first.facts)

    def _round(self, action: int | IllegalText) -> Outcome:
        """Play one round against the opponent."""
        other = AGENTS[1 - AGENTS.index(self.agent)]
        actions = {self.agent: action, other: self._player.act(self._duel, other)}
        rewards, terminations, truncations, infos = self._duel.play(actions)
        info = infos[self.agent]
        return Outcome(
            rewards[self.agent],
            info["legal"],
            terminated=terminations[self.agent],
            truncated=truncations[self.agent],
            success=info.get("success", False),
            facts={"formula_value": info["formula_value"]} if "formula_value" in info else {},
        )

    def _text(self) -> str:
        return self._duel.text(self.agent)

    def _described(self) -> str:
        return self._duel.described(self.agent)

    def _draw(self, size: int) -> Frame:
        return self._duel.picture(self.agent, size, self._look)

    def _facts(self) -> dict[str, Any]:
        return self._duel.info(self.agent)


def against(opponent: Opponent | float = 0.5, **kwargs: Any) -> AgainstEnv:
    """Make the duel as a Gymnasium environment for one player.

    Args:
        opponent: Who plays the other side; a number from 0 to 1 is a :class:`SolverOpponent` of this strength.
        **kwargs: Further arguments of :class:`AgainstEnv`.

    Returns:
        The environment.

    Raises:
        OptionError: If an argument cannot be used.
    """
    return AgainstEnv(opponent=opponent, **kwargs)


def _checked_strength(strength: object) -> float:
    """Check a strength."""
    number = isinstance(strength, (int, float, np.integer, np.floating)) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:  # type: ignore[operator]
        raise OptionError(f"Expected a strength as a number from 0 to 1, got {strength!r}.")
    return float(strength)  # type: ignore[arg-type]
