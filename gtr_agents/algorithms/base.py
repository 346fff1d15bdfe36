"""The training loop every algorithm shares: collect, ask the teacher, update, merge; save and load."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import torch
from pydantic import NonNegativeInt, PositiveInt

from gtr_agents.algorithms.teacher_view import LearnerTeacher
from gtr_agents.diagnostics import trajectory_metrics
from gtr_agents.errors import CheckpointError, ConfigError
from gtr_agents.files import check_folder, publish_folder
from gtr_agents.ranks import Ranks
from gtr_agents.rollout import RolloutCollector
from gtr_agents.seeding import numpy_generator, torch_generator
from gtr_agents.types import Rollout

if TYPE_CHECKING:
    from gtr_agents.guidance.base import Guidance
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.teachers.base import Teacher, Thinker
    from gtr_agents.watchdog import Watchdog

MakeEnv = Callable[[], gym.Env[Any, Any]]
PER_EPISODE = ("success", "return", "episode_length", "self_bleu")
"""What the names of metrics begin with that are means over episodes; the others are means over steps."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How much is collected per update."""

    n_envs: PositiveInt = 1
    """Episodes played at once."""
    n_steps: PositiveInt = 1024
    """Environment steps per update; episodes go on in the next update. Unused when ``hands`` is set."""
    hands: NonNegativeInt = 0
    """If above 0: this many different tasks per update, each played to the end ``attempts`` times."""
    attempts: PositiveInt = 8
    """Episodes per task when ``hands`` is set: what the tree baseline compares."""
    format_valid: float = 3.0
    """Reward for a well-formed answer (paper, Points24: 3)."""
    format_invalid: float = -2.0
    """Reward for any other answer (paper, Points24: -2)."""


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C (and SIGTERM) wait until the block is done. Outside the main thread, where none arrive, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def hold(number: int, _frame: object) -> None:
        arrived.append(number)

    handlers = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for late in arrived:
        signal.raise_signal(late)


def check_guidance(guidance: Guidance | None, teacher: Teacher | None, thinker: Thinker | None) -> None:
    """Check that guidance can be given what it asks for.

    Raises:
        ConfigError: if the guidance needs a teacher of another kind than is given.
    """
    if guidance is not None and guidance.needs == "scores" and (teacher is None or thinker is not None):
        asked = "only writes thoughts" if thinker is not None else "is missing"
        raise ConfigError(
            f"{type(guidance).__name__} needs a teacher that scores tokens, but the teacher {asked}: pass "
            "teacher=TeacherManager()" + (" and no thinker, or guide by ThoughtSFT()." if thinker else ".")
        )
    if guidance is not None and guidance.needs == "thoughts" and teacher is None and thinker is None:
        raise ConfigError(f"{type(guidance).__name__} needs a teacher: pass teacher=TeacherManager(), or a thinker.")


def _check_shared(ranks: Ranks, rollout: RolloutSettings) -> None:
    """Check that there is something to play for each of several processes."""
    if rollout.hands and rollout.hands < ranks.size:
        raise ConfigError(
            f"{ranks.size} processes share the hands of an update: rollout.hands must be at least {ranks.size}, or 0 "
            f"for rollout.n_steps, got {rollout.hands}."
        )


class StopTraining(Exception):  # noqa: N818 - not an error
    """Raised by a callback after an update: training ends there, in all processes, as if it were over."""


class Callback(Protocol):
    """What may watch a run. Raising :class:`StopTraining` or ``KeyboardInterrupt`` in ``on_update`` ends it there."""

    def on_phase(self, name: str, total: int | None) -> None:
        """A phase begins; ``total`` is how many progress units it will have, None if unknown."""

    def on_progress(self, n: int) -> None:
        """``n`` units of the phase are done."""

    def on_update(self, learner: Learner, rollout: Rollout, metrics: dict[str, float]) -> None:
        """An update is complete; ``metrics`` may be added to."""


class Learner:
    """Base of the algorithms: everything but the update itself.

    Randomness of an update depends on the run's seed and the update's number only, so a run that is stopped and resumed
    draws what the uninterrupted one would have drawn.

    Args:
        policy: the policy to train, in place.
        env: id of a registered environment, or a function that makes one; its actions must be texts.
        env_kwargs: arguments for ``gymnasium.make`` when ``env`` is an id.
        rollout: how much is collected per update.
        guidance: what the teacher's opinion changes in an update; None trains without a teacher (RL4VLM).
        teacher: keeps the teacher's weights; guidance by its scores needs it.
        thinker: a teacher without weights that writes thoughts, in the place of one with weights.
        seed: seed of the run.
        watchdog: ends what hangs while episodes are collected; None lets it.
        ranks: the processes that train together, each with environments of its own; None for this one alone.

    Raises:
        ConfigError: if the guidance needs a teacher that is not given, or several processes cannot share the work.
    """

    def __init__(
        self,
        policy: VLMPolicy,
        env: str | MakeEnv,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        rollout: RolloutSettings | None = None,
        guidance: Guidance | None = None,
        teacher: Teacher | None = None,
        thinker: Thinker | None = None,
        seed: int = 0,
        watchdog: Watchdog | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        check_guidance(guidance, teacher, thinker)
        self.ranks = ranks or Ranks()
        _check_shared(self.ranks, rollout or RolloutSettings())
        self.policy = policy
        self.rollout_settings = rollout or RolloutSettings()
        self.guidance = guidance
        if guidance is not None:
            guidance.ranks = self.ranks
        self.teacher = teacher
        self.thinker = thinker
        self.seed = seed
        self.n_updates = 0
        self.num_timesteps = 0
        self.make_env = text_env_maker(env, env_kwargs)
        self._collector: RolloutCollector | None = None
        self._instructions: str | None = None
        self.watchdog = watchdog
        self._tasks = _TaskSeeds(seed, self.ranks)
        self._torn = False
        self._boundaries: list[dict[str, Any]] = [{"tasks_drawn": 0, "running": None}] * self.ranks.size
        """Where the episodes of each process that go on stood after the last whole update."""

    # --- to be provided by the algorithm -----------------------------------------------------------------------------

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Train on a rollout; ``progress`` in [0, 1) is the share of the run that is done. Returns metrics."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Algorithm state for a checkpoint (e.g. the optimizer's), as nested dicts of tensors and numbers."""
        raise NotImplementedError

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        raise NotImplementedError

    # --- the loop -----------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int | None = None,
        *,
        updates: int | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Train until the run has this many updates, or about this many environment steps, since its beginning.

        Args:
            total_timesteps: environment steps; turned into updates by the size of a rollout.
            updates: updates; takes precedence.
            callbacks: told about phases, progress and updates.

        Raises:
            ConfigError: if neither limit is given.
        """
        if updates is None:
            if total_timesteps is None:
                raise ConfigError("learn() needs total_timesteps or updates.")
            if self.rollout_settings.hands:
                raise ConfigError("With hands per update the number of steps is not known before; pass updates=.")
            updates = max(1, total_timesteps // self.rollout_settings.n_steps)
        if self.teacher is not None and self.teacher.version == 0:
            self.teacher.start(self.policy.live_state())
        while self.n_updates < updates and not any(self.ranks.gather(False)):
            done = self.n_updates
            try:
                self._one_update(self.n_updates / updates, callbacks)
            except StopTraining:
                self.ranks.gather(True)
                return
            except BaseException:
                if self.n_updates == done:
                    self._rewind()
                raise

    def _rewind(self) -> None:
        """Go back to the episodes that were running after the last whole update."""
        if self._collector is not None:
            self._collector.close()
            self._collector = None
        self._tasks = _TaskSeeds(self.seed, self.ranks, self._boundaries[self.ranks.index]["tasks_drawn"])

    def _one_update(self, progress: float, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            callback.on_phase("collecting", self._expected_episodes())
        rollout = self.collect(callbacks)
        metrics = self._rollout_metrics(rollout)
        n_steps = len(rollout.steps)
        if self.guidance is not None:
            metrics |= self._ask_teacher(self.guidance, rollout, progress, callbacks)
        for callback in callbacks:
            callback.on_phase("updating", None)
        with self._undone_on_failure():
            metrics |= self.update(rollout, progress)
        with signals_held():  # counters and teacher belong together: a checkpoint without its merge would be lost
            self.n_updates += 1
            self.num_timesteps += sum(self.ranks.gather(n_steps))
            if self._collector is not None and not self.rollout_settings.hands:  # episodes go on in the next update
                boundary = {"tasks_drawn": self._tasks.drawn, "running": self._collector.running()}
                self._boundaries = self.ranks.gather(boundary)
            if self.guidance is not None:
                self.guidance.commit()
            if self.teacher is not None:
                self.teacher.add(self.policy.live_state(), f"update-{self.n_updates}")
        if self.teacher is not None:
            metrics |= self.teacher.diagnostics()
        if self.thinker is not None:
            metrics |= self.thinker.diagnostics()
        self._tell(callbacks, rollout, metrics)

    def _tell(self, callbacks: Sequence[Callback], rollout: Rollout, metrics: dict[str, float]) -> None:
        """Tell all callbacks of an update, also if one of them wants to stop."""
        stop = None
        for callback in callbacks:
            try:
                callback.on_update(self, rollout, metrics)
            except StopTraining as reason:
                stop = reason
        if stop is not None:
            raise stop

    def _rollout_metrics(self, rollout: Rollout) -> dict[str, float]:
        """What was collected, by all processes together."""
        metrics = trajectory_metrics(rollout.trajectories)
        if self.ranks.size > 1:
            metrics = _together(self.ranks.gather(metrics)) | {"processes": self.ranks.size}
        metrics["seconds"] = rollout.seconds
        metrics["steps_per_second"] = len(rollout.steps) / max(rollout.seconds, 1e-9)
        return {f"rollout/{name}": value for name, value in metrics.items()}

    def _ask_teacher(
        self, guidance: Guidance, rollout: Rollout, progress: float, callbacks: Sequence[Callback]
    ) -> dict[str, float]:
        """Let the teacher's opinion enter the rollout; metrics."""
        thinks = guidance.needs == "thoughts"
        for callback in callbacks:
            callback.on_phase(
                "teacher thinking" if thinks else "teacher scoring", len(rollout.steps) if thinks else None
            )
        started = time.perf_counter()
        metrics = guidance.annotate(rollout, self.teacher_view(callbacks), progress)
        if self.ranks.size > 1:
            counts = {"episodes": 0.0, "steps": float(len(rollout.steps))}
            together = _together(self.ranks.gather(metrics | counts))
            metrics = {name: value for name, value in together.items() if name not in counts}
        return metrics | {"guidance/seconds": time.perf_counter() - started}

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """Take an update back if it does not complete: an interrupted run is saved as after its last whole one.

        One that processes were making in pieces cannot be taken back, see :attr:`can_be_saved`.
        """
        if self.policy.is_split:
            self._torn = True
            yield
            self._torn = False
            return
        parameters = self.policy.trainable_parameters()
        weights = [parameter.detach().clone() for parameter in parameters]
        state = copy.deepcopy(self.state())
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for parameter, weight in zip(parameters, weights, strict=True):
                    parameter.copy_(weight)
            self.load_state(state)
            raise

    def _expected_episodes(self) -> int | None:
        settings = self.rollout_settings
        return settings.hands * settings.attempts or None

    def collect(self, callbacks: Sequence[Callback] = ()) -> Rollout:
        """Play what one update learns from, with the present policy.

        Args:
            callbacks: told about every finished episode.

        Returns:
            The rollout; the same for the same weights, seed and number of the update.
        """
        if self._collector is None:
            settings = self.rollout_settings
            self._collector = RolloutCollector(
                self.make_env,
                settings.n_envs,
                (settings.format_valid, settings.format_invalid),
                ask_expert=self.thinker is not None and self.thinker.needs_expert,
                watchdog=self.watchdog,
            )
            if (running := self._boundaries[self.ranks.index]["running"]) is not None:
                self._collector.resume(self.policy, running)
        generator = torch_generator(self.seed, "sampling", self.n_updates, *self.ranks.name)

        def report(_trajectory: object) -> None:
            for callback in callbacks:
                callback.on_progress(1)

        if hands := self.rollout_settings.hands:
            rng = numpy_generator(self.seed, "tasks", self.n_updates)
            tasks = self.ranks.share(rng.integers(2**31, size=hands).tolist())
            seeds = [int(s) for s in tasks for _ in range(self.rollout_settings.attempts)]
            return self._collector.play_episodes(self.policy, seeds, generator=generator, on_episode=report)
        n_steps = -(-self.rollout_settings.n_steps // self.ranks.size)
        return self._collector.play_steps(self.policy, n_steps, self._tasks, generator=generator, on_episode=report)

    def teacher_view(self, callbacks: Sequence[Callback] = ()) -> LearnerTeacher:
        """The present teacher, as guidance asks it.

        Args:
            callbacks: told about the progress of its thinking.
        """

        def report(n: int) -> None:
            for callback in callbacks:
                callback.on_progress(n)

        return LearnerTeacher(
            self.policy,
            self.teacher,
            self.thinker,
            generator=torch_generator(self.seed, "teacher thoughts", self.n_updates, *self.ranks.name),
            batch_size=self.rollout_settings.n_envs,
            on_done=report,
        )

    @contextlib.contextmanager
    def as_teacher(self) -> Iterator[VLMPolicy]:
        """The policy, acting with the teacher's weights inside the context.

        Raises:
            ConfigError: if there is no teacher.
        """
        if self.teacher is None:
            raise ConfigError("This run has no teacher.")
        with self.policy.using(self.teacher.teacher_state()):
            yield self.policy

    # --- persistence --------------------------------------------------------------------------------------------------

    @property
    def can_be_saved(self) -> bool:
        """False if an update of a split model was interrupted: no process has what was there before it."""
        return self.policy.is_whole and not self._torn

    def save(self, folder: str | Path) -> Path:
        """Write policy, optimizer, teacher and counters; complete or not at all.

        Returns:
            The folder.

        Raises:
            CheckpointError: if this process holds a piece of the model only, see :attr:`can_be_saved`.
        """
        if not self.can_be_saved:
            raise CheckpointError("An update was interrupted that processes were making with the model in pieces.")
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        self.policy.save(fresh)
        if self.teacher is not None and self.teacher.version:
            self.teacher.save(fresh / "teacher")
        if self.guidance is not None:
            self.guidance.save(fresh / "guidance")
        tensors, numbers = _flatten(self.state())
        _save_tensors(tensors, fresh / "algorithm.safetensors")
        counters = {"n_updates": self.n_updates, "num_timesteps": self.num_timesteps, "seed": self.seed}
        settings: dict[str, Any] = {"algorithm": type(self).__name__, "rollout": asdict(self.rollout_settings)}
        thinker: dict[str, Any] = {} if self.thinker is None else {"thinker": self.thinker.state()}
        settings["processes"] = self._boundaries
        (fresh / "algorithm.json").write_text(
            json.dumps(counters | settings | thinker | {"state": numbers}, indent=2) + "\n", encoding="utf-8"
        )
        publish_folder(fresh, folder)
        return folder

    def restore(self, folder: str | Path) -> None:
        """Take optimizer, teacher and counters back from :meth:`save`; the policy must have been loaded from there too.

        Raises:
            CheckpointError: if the folder is not a checkpoint of a run, or a file in it is damaged.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        record = folder / "algorithm.json"
        if not record.is_file():
            raise CheckpointError(f"{folder} is not a training checkpoint: {record.name} is missing.")
        check_folder(folder)
        saved = json.loads(record.read_text(encoding="utf-8"))
        self.n_updates, self.num_timesteps, self.seed = saved["n_updates"], saved["num_timesteps"], saved["seed"]
        self.load_state(_unflatten(load_file(str(folder / "algorithm.safetensors")), saved["state"]))
        if self.teacher is not None and (folder / "teacher").is_dir():
            self.teacher.load(folder / "teacher")
        if self.guidance is not None and (folder / "guidance").is_dir():
            self.guidance.load(folder / "guidance")
        if self.thinker is not None and "thinker" in saved:
            self.thinker.load_state(saved["thinker"])
        self._boundaries = self._own_boundaries(saved.get("processes", []), folder)
        self._rewind()

    def _own_boundaries(self, saved: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """Where the episodes of these processes go on; episodes that are dealt per update fit any number of them."""
        if self.rollout_settings.hands or not saved:
            return self._boundaries
        if len(saved) != self.ranks.size:
            raise CheckpointError(
                f"{folder} holds running episodes of {len(saved)} processes, and there are {self.ranks.size}: go on "
                f"with {len(saved)}."
            )
        return saved

    def predict(
        self, observation: Mapping[str, Any], info: Mapping[str, Any] | None = None, *, deterministic: bool = True
    ) -> str:
        """Answer one observation with an action string ("" if the answer could not be read).

        Args:
            observation: ``{"image": uint8 [H, W, 3], "text": str}``.
            info: what the environment returned with it; templates that list the legal actions need it.
            deterministic: False samples at the policy's temperature.
        """
        return self.predict_all([observation], [info or {}], deterministic=deterministic)[0]

    def predict_all(
        self,
        observations: Sequence[Mapping[str, Any]],
        infos: Sequence[Mapping[str, Any]],
        *,
        deterministic: bool = True,
    ) -> list[str]:
        """Answer several observations in one batch; arguments as for :meth:`predict`, one of each."""
        if self._instructions is None:
            env = self.make_env()
            self._instructions = str(getattr(env.unwrapped, "instructions", ""))
            env.close()
        render, instructions = self.policy.template.render, self._instructions
        prompts = [
            render(observation, info.get("legal_actions", ()), instructions)
            for observation, info in zip(observations, infos, strict=True)
        ]
        generator = None if deterministic else torch_generator(self.seed, "predict")
        return [response.answer.action or "" for response in self.policy.act(prompts, generator=generator)]


def _together(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of all processes from those of each: sums of ``episodes`` and ``steps``, means of the others by these."""
    together = {name: sum(part[name] for part in parts) for name in ("episodes", "steps")}
    for name in sorted({name for part in parts for name in part} - together.keys()):
        weight = "episodes" if name.startswith(PER_EPISODE) else "steps"
        having = [part for part in parts if name in part]
        if total := sum(part[weight] for part in having):
            together[name] = sum(part[weight] * part[name] for part in having) / total
    return together


class _TaskSeeds:
    """The reset seeds of a process's episodes, in their order, where episodes are not dealt per update."""

    def __init__(self, seed: int, ranks: Ranks, drawn: int = 0) -> None:
        self.drawn = 0
        self._rng = numpy_generator(seed, "tasks", *ranks.name)
        for _ in range(drawn):
            next(self)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.drawn += 1
        return int(self._rng.integers(2**31))


def text_env_maker(env: str | MakeEnv, env_kwargs: Mapping[str, Any] | None = None) -> MakeEnv:
    """Return a function that makes environments which take action strings.

    Args:
        env: a registered id (wrapped with ``TextAction``), or a function, which is passed through.
        env_kwargs: arguments for ``gymnasium.make``.

    Returns:
        The function; it raises :class:`ConfigError` if there is no such environment, or an argument does not exist.
    """
    if callable(env):
        return env
    env_id = env

    def make() -> gym.Env[Any, Any]:
        import gtr_envs
        from gtr_envs.wrappers import TextAction

        del gtr_envs  # imported for its registrations
        try:
            return TextAction(gym.make(env_id, **(env_kwargs or {})))
        except (gym.error.Error, TypeError) as error:
            raise ConfigError(f"Cannot make the environment {env_id!r}: {error}") from error

    return make


def _flatten(tree: Any, path: str = "") -> tuple[dict[str, torch.Tensor], Any]:
    """Split a nested state into named tensors (by path) and the rest, with markers where tensors were."""
    if isinstance(tree, torch.Tensor):
        return {path: tree.detach().cpu().contiguous().clone()}, {"__tensor__": path}
    if isinstance(tree, Mapping):
        parts = {str(key): _flatten(value, f"{path}/{key}") for key, value in tree.items()}
        return {k: t for tensors, _ in parts.values() for k, t in tensors.items()}, {
            k: r for k, (_, r) in parts.items()
        }
    if isinstance(tree, (list, tuple)):
        pairs = [_flatten(value, f"{path}/{i}") for i, value in enumerate(tree)]
        return {k: t for tensors, _ in pairs for k, t in tensors.items()}, [rest for _, rest in pairs]
    return {}, tree


def _unflatten(tensors: Mapping[str, torch.Tensor], tree: Any) -> Any:
    """Undo :func:`_flatten`; keys that were integers stay strings."""
    if isinstance(tree, Mapping):
        if "__tensor__" in tree:
            return tensors[tree["__tensor__"]]
        return {key: _unflatten(tensors, value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unflatten(tensors, value) for value in tree]
    return tree


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, str(path))
