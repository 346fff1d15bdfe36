"""Callbacks and logger of Stable-Baselines3 in our training, and its evaluation on environments with texts.

::

    from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback

    evaluation = EvalCallback(TextVecEnv("EZPoints-v0", n_envs=8), n_eval_episodes=16, eval_freq=5)
    algorithm.learn(updates=20, callbacks=[SB3Callbacks(evaluation, CheckpointCallback(10, "runs/mine"))])

Our algorithms are none of Stable-Baselines3's, whose base class refuses texts in observations; what its callbacks ask
of a model is answered by :class:`SB3Model`. A *step* of a callback is an update here, so ``eval_freq=5`` is every five
updates, while ``num_timesteps`` counts environment steps as it does there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from gtr_agents.algorithms.base import Learner, MakeEnv, StopTraining, text_env_maker
from gtr_agents.seeding import child_seed

if TYPE_CHECKING:
    from gtr_agents.types import Rollout

LEGAL_ACTIONS = "legal_actions"
"""Where an observation of :class:`TextVecEnv` holds what the environment tells beside it."""


class TextVecEnv(VecEnv):
    """Environments with texts, side by side, for ``evaluate_policy`` and ``EvalCallback``.

    Observations are lists of the environments' own, with the legal actions beside picture and text; actions are texts.
    An environment that ends begins anew at once, and what it ended with stands in ``info["terminal_observation"]``.

    Args:
        env: id of a registered environment, or a function that makes one with text actions.
        n_envs: how many.
        seed: decides the tasks; every :meth:`reset` begins them again, so that evaluations are alike.
        **env_kwargs: arguments for ``gymnasium.make`` when ``env`` is an id.
    """

    def __init__(self, env: str | MakeEnv, n_envs: int = 1, seed: int = 0, **env_kwargs: Any) -> None:
        make = text_env_maker(env, env_kwargs)
        self.envs = [make() for _ in range(n_envs)]
        self._seed_of_all = seed
        self._episodes = [0] * n_envs
        self._actions: Sequence[str] = ()
        first = self.envs[0]
        self.render_mode = first.render_mode
        super().__init__(n_envs, first.observation_space, first.action_space)

    def reset(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Begin the first task of every environment again."""
        self._episodes = [0] * self.num_envs
        return [self._begin(index)[0] for index in range(self.num_envs)]

    def step_async(self, actions: Sequence[str]) -> None:  # type: ignore[override]
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(  # type: ignore[override]
        self,
    ) -> tuple[list[dict[str, Any]], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Play the step; observations, rewards, ends, and what else is told."""
        observations, infos = [], []
        rewards, ended = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.bool_)
        for index, (env, action) in enumerate(zip(self.envs, self._actions, strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            rewards[index], ended[index] = float(reward), terminated or truncated
            shown = _shown(observation, info)
            if ended[index]:
                info = info | {"terminal_observation": shown, "is_success": bool(info.get("success", False))}
                shown, _ = self._begin(index)
            observations.append(shown)
            infos.append(info | {"TimeLimit.truncated": truncated and not terminated})
        return observations, rewards, ended, infos

    def close(self) -> None:
        """Close all environments."""
        for env in self.envs:
            env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Read an attribute of some environments."""
        return [getattr(self.envs[i].unwrapped, attr_name) for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of some environments."""
        for i in self._get_indices(indices):
            setattr(self.envs[i].unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of some environments."""
        return [
            getattr(self.envs[i].unwrapped, method_name)(*method_args, **method_kwargs)
            for i in self._get_indices(indices)
        ]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Tell which environments are wrapped in something; rewards and lengths are never changed on the way."""
        from stable_baselines3.common.env_util import is_wrapped

        return [is_wrapped(self.envs[i], wrapper_class) for i in self._get_indices(indices)]

    def _begin(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        seed = child_seed(self._seed_of_all, "evaluation", index, self._episodes[index]) % 2**31
        self._episodes[index] += 1
        observation, info = self.envs[index].reset(seed=seed)
        return _shown(observation, info), info


class SB3Model:
    """What callbacks of Stable-Baselines3 ask of a model.

    Args:
        learner: Who trains.
        logger: Where callbacks write; one that writes nowhere if None.
    """

    def __init__(self, learner: Learner, logger: Logger | None = None) -> None:
        self.learner = learner
        self.logger = logger or configure(None, [])
        self.verbose = 0
        self._env: TextVecEnv | None = None

    @property
    def num_timesteps(self) -> int:
        """Environment steps of the training so far."""
        return self.learner.num_timesteps

    @property
    def policy(self) -> Any:
        """The policy that is trained."""
        return self.learner.policy

    def get_env(self) -> TextVecEnv:
        """One environment of the training's kind."""
        if self._env is None:
            self._env = TextVecEnv(self.learner.make_env)
        return self._env

    def get_vec_normalize_env(self) -> None:
        """Return None: nothing is normalised."""
        return

    def predict(
        self,
        observation: Sequence[dict[str, Any]],
        state: Any = None,
        episode_start: Any = None,  # noqa: ARG002 - the policy has no memory
        deterministic: bool = False,
    ) -> tuple[list[str], Any]:
        """Answer observations of a :class:`TextVecEnv` with action texts."""
        infos = [{LEGAL_ACTIONS: shown.get(LEGAL_ACTIONS, ())} for shown in observation]
        return self.learner.predict_all(observation, infos, deterministic=deterministic), state

    def save(self, path: str | Path, exclude: Any = None, include: Any = None) -> None:  # noqa: ARG002 - not ours
        """Write a checkpoint to the folder ``path``, which :meth:`Learner.restore` reads."""
        self.learner.save(Path(path))


class SB3Callbacks:
    """Callbacks of Stable-Baselines3, told about our training: pass it to ``learn(callbacks=[...])``.

    All metrics of an update are given to the logger, which is dumped after every update.

    Args:
        *callbacks: Callbacks of Stable-Baselines3.
        logger: Its logger, made by ``stable_baselines3.common.logger.configure``; None writes nowhere.
    """

    def __init__(self, *callbacks: BaseCallback, logger: Logger | None = None) -> None:
        self._callback = CallbackList(list(callbacks))
        self._logger = logger
        self.model: SB3Model | None = None

    def on_phase(self, name: str, total: int | None) -> None:
        """Nothing of Stable-Baselines3's corresponds to it."""

    def on_progress(self, n: int) -> None:
        """Nothing of Stable-Baselines3's corresponds to it."""

    def on_update(self, learner: Learner, rollout: Rollout, metrics: dict[str, float]) -> None:
        """Tell the callbacks.

        Raises:
            StopTraining: If one of them wants to stop.
        """
        if self.model is None:
            self.model = SB3Model(learner, self._logger)
            self._callback.init_callback(self.model)  # type: ignore[arg-type]
            self._callback.on_training_start({"self": self.model}, {})
        self._callback.on_rollout_start()
        self._callback.update_locals({"rollout": rollout, "metrics": metrics, "self": self.model})
        goes_on = self._callback.on_step()
        self._callback.on_rollout_end()
        for name, value in metrics.items():
            self.model.logger.record(name, value)
        self.model.logger.dump(learner.num_timesteps)
        if not goes_on:
            raise StopTraining(f"a callback of Stable-Baselines3 after update {learner.n_updates}")

    def close(self) -> None:
        """Tell the callbacks that training is over."""
        self._callback.on_training_end()


def _shown(observation: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    return {**observation, LEGAL_ACTIONS: tuple(info.get(LEGAL_ACTIONS, ()))}
