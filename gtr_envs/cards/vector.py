"""Decides how many games of Points24 are stepped as one batch: one array of pictures, redrawn where it changed.

The games are those of the single environment, so rules, dealing and infos have one home; what is batched is what costs:
the pictures. They lie in one array that is kept between steps, and every step copies it once to hand it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from gtr_envs.cards.artwork import KeptTable
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.checks import checked_int, is_int
from gtr_envs.core import Observation
from gtr_envs.errors import InvalidActionError, OptionError, ResetNeededError, require_known

Info = dict[str, Any]
Flags = NDArray[np.bool_]


class Points24VectorEnv(VectorEnv[dict[str, Any], Any, NDArray[Any]]):
    """Many games of Points24 in one batch, step by step the same as ``SyncVectorEnv`` of single environments.

    It is what ``gymnasium.make_vec("Points24-v0", num_envs=64)`` makes. Observations, rewards, endings and infos are
    those of :class:`gymnasium.vector.SyncVectorEnv`: ``image`` is uint8 ``[N, H, W, 3]``, ``text`` a tuple of N texts.
    With ``copy=True`` every batch of pictures that is handed out is a new array; with ``copy=False`` it is always the
    same one, which the next ``step`` or ``reset`` writes over: faster, for whoever copies the pictures anyway, as to
    another device. Texts, infos, rewards and endings are new objects in both cases.

    Gymnasium's wrappers of single environments and ``max_episode_steps`` cannot be given here; for these use
    ``vectorization_mode="sync"``, or ``"async"`` with ``vector_kwargs={"shared_memory": False}``, without which
    Gymnasium replaces texts by filler.

    Example:
        >>> import gymnasium, gtr_envs
        >>> envs = gymnasium.make_vec("Points24-v0", num_envs=2, image_size=96)
        >>> observation, infos = envs.reset(options={"numbers": [6, 6, 6, 6]})
        >>> observation["image"].shape, observation["text"]
        ((2, 96, 96, 3), ('', ''))
        >>> envs.step([5, 16])[1]
        array([ 0., -1.])
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **arguments: Any,
    ) -> None:
        """Set up the games; nothing is dealt.

        Args:
            num_envs: How many games.
            autoreset_mode: What happens after the end of an episode: ``"NextStep"``, ``"SameStep"`` or ``"Disabled"``.
            copy: False hands out the kept array of pictures itself.
            **arguments: Arguments of every game; see :class:`gtr_envs.cards.points24.Points24Env`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        mode = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        require_known("autoreset_mode", mode, [known.value for known in AutoresetMode])
        self.num_envs = checked_int("num_envs", num_envs, least=1)
        self.autoreset_mode = AutoresetMode(mode)
        self.copy = copy
        self.envs = [Points24Env(**arguments) for _ in range(self.num_envs)]
        first = self.envs[0]
        for env in self.envs:
            # The bounds of a picture take four times the memory of the picture.
            env.observation_space = first.observation_space
        self.metadata = first.metadata | {"autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_action_space = first.action_space
        self.single_observation_space = first.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._ended: Flags = np.zeros(self.num_envs, dtype=np.bool_)
        self._begun: Flags = np.zeros(self.num_envs, dtype=np.bool_)
        self._images: NDArray[np.uint8] | None = None
        if first.observe != "text":
            self._images = np.zeros((self.num_envs, first.image_size, first.image_size, 3), dtype=np.uint8)
        self._tables = self._kept_tables()

    # --- Gymnasium's interface --------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Info]:
        """Begin new episodes.

        Args:
            seed: One seed for each game, or the seed of the first, which the others count on from; None goes on with
                the present generators.
            options: As in the single environment; and ``"reset_mask"``, bool [N], True for the games that begin anew.

        Returns:
            The observations of all games, and the infos of those that began anew.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            OptionError: If the seeds or an option cannot be used.
            ResetNeededError: If a game is left out by the mask that never began.
        """
        chosen, rest = self._checked_mask(options)
        seeds = self._checked_seeds(seed)
        infos = [env._restart(seeds[i], rest) if chosen[i] else None for i, env in enumerate(self.envs)]
        self._ended[chosen] = False
        self._begun |= chosen
        self._require_begun()
        return self._observe(), self._gather(infos)

    def step(self, actions: Iterable[Any]) -> tuple[dict[str, Any], NDArray[np.float64], Flags, Flags, Info]:
        """Play one action in every game.

        Args:
            actions: For each game the index of its action, or :class:`gtr_envs.core.IllegalText`; int [N] or a
                sequence. The action of a game that begins anew in this step is not looked at.

        Returns:
            Observations, rewards (float64 [N]), terminated and truncated (bool [N]), infos; for a key ``k`` of the
            single environment ``infos["_k"]``, bool [N], says which games have told it.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If an episode never began; in mode ``"Disabled"`` also if one has ended.
            InvalidActionError: If an action is not in the action space; no game has been stepped then.
        """
        self.envs[0]._require_open()
        self._require_begun()
        begins = self._beginning()
        names = self._names_of(actions, begins)
        rewards, terminated, truncated = [0.0] * self.num_envs, [False] * self.num_envs, [False] * self.num_envs
        infos: list[Info | None] = []
        for i, (env, name) in enumerate(zip(self.envs, names, strict=True)):
            if name is None:
                infos.append(env._restart(None, None))
                continue
            rewards[i], terminated[i], truncated[i], info = env._advance(name)
            if (terminated[i] or truncated[i]) and self.autoreset_mode is AutoresetMode.SAME_STEP:
                final = {"final_obs": self._observe_one(i), "final_info": info}
                info = env._restart(None, None) | final
            infos.append(info)
        ends = np.array(terminated), np.array(truncated)
        self._ended = ends[0] | ends[1]
        return self._observe(), np.array(rewards), *ends, self._gather(infos)

    def render(self) -> tuple[Any, ...]:
        """Show every game.

        Returns:
            What ``render`` of the single environment returns, for each game.
        """
        return self.call("render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every game, or read an attribute.

        Args:
            name: Name of the method or attribute.
            *args: Arguments of the method.
            **kwargs: Named arguments of the method.

        Returns:
            The results, or the values.
        """
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(value(*args, **kwargs) if callable(value) else value for value in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every game.

        Args:
            name: Name of the attribute.

        Returns:
            The values.
        """
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every game.

        Args:
            name: Name of the attribute.
            values: A list or tuple with a value for each game, or one value for all.

        Raises:
            OptionError: If there are more or fewer values than games.
        """
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise OptionError(f"Expected a value of {name} for each of {self.num_envs} games, got {len(values)}.")
        for env, value in zip(self.envs, values, strict=True):
            env.set_wrapper_attr(name, value)

    def close_extras(self, **_: Any) -> None:
        """Close every game."""
        for env in self.envs:
            env.close()

    @property  # type: ignore[misc]  # as in SyncVectorEnv, it cannot be set
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the games."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seeds of the generators of the games."""
        return self.get_attr("np_random_seed")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Draw into the pictures of the copy: what drew before has pictures of its own after copying."""
        self.__dict__.update(state)
        self._tables = self._kept_tables()

    # --- what comes in ----------------------------------------------------------------------------------------------

    def _checked_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        """A seed for each game."""
        if seed is None:
            return [None] * self.num_envs
        if is_int(seed):
            return [int(seed) + i for i in range(self.num_envs)]
        if not isinstance(seed, list | tuple) or len(seed) != self.num_envs:
            raise OptionError(f"Expected seed as a whole number or a list of {self.num_envs}, got {seed!r}.")
        return seed

    def _checked_mask(self, options: Mapping[str, Any] | None) -> tuple[Flags, dict[str, Any]]:
        """Which games begin anew, and the options without the mask."""
        rest = dict(options or {})
        mask = rest.pop("reset_mask", None)
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_), rest
        usable = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (self.num_envs,)
        if not usable or not mask.any():
            raise OptionError(
                f"Expected options['reset_mask'] as a NumPy array, bool [{self.num_envs}], with at least one True, "
                f"got {mask!r}."
            )
        return mask, rest

    def _require_begun(self) -> None:
        if not self._begun.all():
            never = np.flatnonzero(~self._begun).tolist()
            raise ResetNeededError(
                f"Expected running episodes, but those of the games {never} never began; call reset() without a mask."
            )

    def _beginning(self) -> Flags:
        """Which games begin anew in this step."""
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            return self._ended
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise ResetNeededError(
                f"Expected running episodes, but those of the games {np.flatnonzero(self._ended).tolist()} have ended; "
                "call reset(options={'reset_mask': terminated | truncated})."
            )
        return np.zeros(self.num_envs, dtype=np.bool_)

    def _names_of(self, actions: Iterable[Any], begins: Flags) -> list[str | None]:
        """The names of the actions; None for games that begin anew."""
        given = actions.tolist() if isinstance(actions, np.ndarray) and actions.dtype.kind == "i" else list(actions)
        if len(given) != self.num_envs:
            raise InvalidActionError(f"Expected {self.num_envs} actions, one for each game, got {actions!r}.")
        tokens = self.envs[0].action_tokens
        return [
            None
            if begin
            # The space takes longer to judge an action than a game to play it.
            else tokens[action]
            if type(action) is int and 0 <= action < len(tokens)
            else env._name_of(action)
            for env, action, begin in zip(self.envs, given, begins.tolist(), strict=True)
        ]

    # --- what goes out ----------------------------------------------------------------------------------------------

    def _observe(self) -> dict[str, Any]:
        """Bring the pictures up to date and hand out a batch."""
        observe = self.envs[0].observe
        if self._images is None:
            return {"text": tuple(env._described() for env in self.envs)}
        texts = tuple(env._text() for env in self.envs)
        for env, text, table in zip(self.envs, texts, self._tables, strict=True):
            table.show(env._cards, text, env._look)
        images = self._images.copy() if self.copy else self._images
        return {"image": images} if observe == "image" else {"image": images, "text": texts}

    def _kept_tables(self) -> list[KeptTable]:
        """What draws into the pictures; none without pictures."""
        return [] if self._images is None else [KeptTable(image, self.envs[0].target) for image in self._images]

    def _observe_one(self, i: int) -> Observation:
        """The observation of a single game."""
        return self.envs[i]._observe()

    def _gather(self, infos: Sequence[Info | None]) -> Info:
        """Batch infos as Gymnasium's own vector environments do; None stands for a game that tells nothing."""
        told = [info for info in infos if info is not None]
        # Gymnasium looks at every game and key; what all tell goes into the batch at once, which is far less work.
        common = set(told[0]).intersection(*told) if len(told) == self.num_envs else set()
        batch: Info = {}
        for key in common:
            batch[key] = self._column(key, slice(None), [info[key] for info in told])
            batch[f"_{key}"] = np.ones(self.num_envs, dtype=np.bool_)
        rare: dict[str, dict[int, Any]] = {}
        for i, info in enumerate(infos):
            if info is not None and len(info) > len(common):
                for key in info.keys() - common:
                    rare.setdefault(key, {})[i] = info[key]
        for key, values in rare.items():
            batch[key] = self._column(key, list(values), list(values.values()))
            mask = batch[f"_{key}"] = np.zeros(self.num_envs, dtype=np.bool_)
            mask[list(values)] = True
        return batch

    def _column(self, key: str, games: slice | list[int], values: list[Any]) -> Any:
        """One entry of the infos of some games, as Gymnasium batches it: by the type of the first value."""
        first = values[0]
        if isinstance(first, dict) and key != "final_obs":
            nested = np.empty(self.num_envs, dtype=object)
            nested[games] = values
            return self._gather(nested.tolist())
        column: NDArray[Any]
        if isinstance(first, np.ndarray):
            column = np.zeros((self.num_envs, *first.shape), dtype=first.dtype)
            column[games] = np.concatenate(values).reshape(len(values), *first.shape)
        elif type(first) in (int, float, bool):
            column = np.zeros(self.num_envs, dtype=type(first))
            column[games] = values
        else:
            column = np.empty(self.num_envs, dtype=object)  # filled with None
            # Not the list itself: NumPy would look for arrays in lists of lists.
            column[games] = np.fromiter(values, dtype=object, count=len(values))
        return column
