"""Decides which hands of Points24 are dealt, by how hard they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs, seeding

from gtr_envs.cards.arithmetic import MAX_DEALS
from gtr_envs.cards.deck import draw_suits
from gtr_envs.cards.difficulty import BANDS, SPLITS, difficulty, hands, n_deals
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import Observation
from gtr_envs.errors import DealError, OptionError, require_known

Bands = str | Sequence[str] | Mapping[str, float]
"""One band, several that come equally often, or bands with weights."""


class _Pool(NamedTuple):
    """The hands of a band, each as likely as it is dealt."""

    hands: tuple[tuple[int, ...], ...]
    """Card values in ascending order."""
    ends: tuple[int, ...]
    """How many deals show this hand or one before it."""


class Curriculum(gymnasium.Wrapper[Observation, Any, Observation, Any], RecordConstructorArgs):
    """Deals hands of Points24 by difficulty band.

    Within a band every deal is as likely as it is without the wrapper: order and suits are random, and a card that
    counts 10 is a ten, jack, queen or king. All randomness comes from the environment's own generator, so one seed
    decides all. A hand named by ``reset(options=...)`` is dealt as named. ``info["band"]`` is the band of the hand on
    the table. The bands are those of :mod:`gtr_envs.cards.difficulty`; they take the place of the environment's
    ``deal``, and hands of its ``holdout`` are still never dealt.

    Example:
        >>> import gymnasium, gtr_envs
        >>> env = Curriculum(gymnasium.make("Points24-v0", image_size=64), "fractions", split="test")
        >>> sorted(env.reset(seed=2)[1]["numbers"])
        [1, 5, 5, 5]
        >>> env.set_band({"easy": 3, "medium": 1})
        >>> env.reset()[1]["band"] in ("easy", "medium")
        True
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, Any],
        bands: Bands = "easy",
        *,
        split: str | None = None,
        schedule: Callable[[int], Bands] | None = None,
    ) -> None:
        """Wrap an environment; every band is measured once per process, which takes half a second.

        Args:
            env: An environment whose innermost one is a :class:`gtr_envs.cards.points24.Points24Env`.
            bands: One band, several that come equally often, or bands with weights.
            split: ``"train"``, ``"validation"`` or ``"test"``: deal only hands of this split; None deals all.
            schedule: Called before every deal with the number of episodes begun so far; says the bands from then on,
                in place of ``bands``.

        Raises:
            TypeError: If the innermost environment is another.
            OptionError: If a band or the split is unknown, a weight cannot be used or a band has no hand.
        """
        RecordConstructorArgs.__init__(self, bands=bands, split=split, schedule=schedule)
        super().__init__(env)
        if not isinstance(env.unwrapped, Points24Env):
            raise TypeError(f"expected an environment built on Points24Env, got {env!r}")
        if split is not None:
            require_known("split", split, SPLITS)
        self._game = env.unwrapped
        self._largest = 10 if self._game.faces_count_ten else 13
        self._split = split
        self._n_episodes = 0
        self._pools: dict[str, _Pool] = {}
        self._weights: dict[str, float] = {}
        self.set_band(bands)
        self._schedule = schedule

    def set_band(self, bands: Bands) -> None:
        """Choose what is dealt from the next reset on; ends a schedule.

        Args:
            bands: One band, several that come equally often, or bands with weights.

        Raises:
            OptionError: If a band is unknown, a weight cannot be used or a band has no hand.
        """
        self._choose(bands)
        self._schedule = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Deal a hand of the chosen bands and begin an episode.

        Args:
            seed: Seed of the environment's generator; None goes on with the present one.
            options: Those of the environment; ``numbers`` or ``cards`` name the hand instead.

        Returns:
            The first observation and its info, with the band.

        Raises:
            DealError: If every hand of the bands is held out.
        """
        chosen = dict(options or {})
        if "numbers" in chosen or "cards" in chosen:
            observation, info = self.env.reset(seed=seed, options=chosen)
        else:
            if self._schedule is not None:
                self._choose(self._schedule(self._n_episodes))
            # The hand must be known before the environment takes the seed, so it is drawn ahead from an equal
            # generator; afterwards the environment's own goes on where that one stopped.
            rng = self._game.np_random if seed is None else seeding.np_random(seed)[0]
            chosen["cards"] = self._deal(rng)
            observation, info = self.env.reset(seed=seed, options=chosen)
            self._game.np_random.bit_generator.state = rng.bit_generator.state
        self._n_episodes += 1
        return observation, self._with_band(info)

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Play one action.

        Args:
            action: Handed on.

        Returns:
            What the environment returns, with the band in the info.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._with_band(info)

    def _with_band(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | {"band": difficulty(info["numbers"], self._game.target).band}

    def _choose(self, bands: Bands) -> None:
        """Check bands and their weights and look up their hands."""
        if isinstance(bands, str):
            bands = (bands,)
        weights: dict[str, Any] = dict(bands) if isinstance(bands, Mapping) else dict.fromkeys(bands, 1.0)
        for band, weight in weights.items():
            require_known("band", band, BANDS)
            if not isinstance(weight, (int, float, np.number)) or not 0 <= weight < float("inf"):
                raise OptionError(f"Expected a finite weight >= 0 for the band {band!r}, got {weight!r}.")
        wanted = {band: float(weight) for band, weight in weights.items() if weight}
        if not wanted:
            raise OptionError(f"Expected at least one band with a weight above 0, got {bands!r}.")
        for band in wanted:
            if band not in self._pools:
                self._pools[band] = self._look_up(band)
        self._weights = wanted

    def _look_up(self, band: str) -> _Pool:
        members = hands(band, self._split, target=self._game.target, largest=self._largest)
        if not members:
            raise OptionError(
                f"Expected bands with hands, got {band!r}, which has none for target={self._game.target} and "
                f"split={self._split!r}; choose one of {list(BANDS)} that has."
            )
        return _Pool(members, tuple(accumulate(n_deals(hand, self._largest) for hand in members)))

    def _deal(self, rng: np.random.Generator) -> list[str]:
        """Draw a band, a hand, its order, its face cards and its suits; return the names of the cards."""
        for _ in range(MAX_DEALS):
            pool = self._pools[self._draw_band(rng)]
            hand = pool.hands[bisect_right(pool.ends, int(rng.integers(pool.ends[-1])))]
            values = [hand[place] for place in rng.permutation(len(hand))]
            ranks = tuple(self._draw_rank(value, rng) for value in values)
            if ranks not in self._game.holdout:
                return [card.name for card in draw_suits(rng, ranks)]
        raise DealError(
            f"Expected a hand of the bands {list(self._weights)} that is not held out, found none in {MAX_DEALS} "
            f"deals; hold out fewer than {len(self._game.holdout)} hands or name more bands."
        )

    def _draw_band(self, rng: np.random.Generator) -> str:
        ends = list(accumulate(self._weights.values()))
        return list(self._weights)[bisect_right(ends, rng.random() * ends[-1])]

    def _draw_rank(self, value: int, rng: np.random.Generator) -> int:
        """One of the ranks that have a value."""
        return int(rng.integers(10, 14)) if value == 10 and self._game.faces_count_ten else value
