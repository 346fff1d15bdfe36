"""A whole run: supervised start, reinforcement learning, evaluations, and everything a run folder holds."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gtr_agents.algorithms.base import Callback, Learner, StopTraining
from gtr_agents.build import build_algorithm, build_evaluator, build_policy, check_parts, training_env
from gtr_agents.config import RunConfig, as_dict
from gtr_agents.curves import TEACHER_LEAD
from gtr_agents.demonstrations import BUFFER, demonstrations
from gtr_agents.errors import ConfigError, NotFiniteError, TeacherError, TrainingError
from gtr_agents.evaluation import EvaluationResult, Evaluator
from gtr_agents.ranks import Ranks
from gtr_agents.recall import train_recall
from gtr_agents.recorder import RunFolder
from gtr_agents.run_checkpoints import RunCheckpoints
from gtr_agents.samples import record_samples
from gtr_agents.seeding import numpy_generator
from gtr_agents.sft import train_sft
from gtr_agents.teachers import THINKERS
from gtr_agents.trackers import Trackers, check_trackers
from gtr_agents.watchdog import Watchdog

if TYPE_CHECKING:
    from gtr_agents.display import TrainingDisplay
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.types import Rollout

SUMS_FOLDER = "accumulators"
_PACKAGES = ("gtr-suite", "torch", "transformers", "peft", "gymnasium", "numpy", "pygame-ce")


def prepare(threads: int) -> None:
    """Get libraries ready for a command: torch's CPU threads, and no progress bars beside our own.

    Args:
        threads: CPU threads; 0 leaves torch's choice.

    Raises:
        ConfigError: for a negative number of threads.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not torch.cuda.is_available():  # kernels that need CUDA are no advice here
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    if threads < 0:
        raise ConfigError(f"threads must be 0 or more, got {threads}.")
    if threads:
        torch.set_num_threads(threads)


def supervised_start(config: RunConfig, seed: int, display: TrainingDisplay, log: RunFolder | None = None) -> VLMPolicy:
    """Build the policy and imitate demonstrations as the configuration says.

    Args:
        config: the run's configuration.
        seed: the run's seed.
        display: shows the progress.
        log: where ``sft/loss`` goes, every 25 steps.

    Returns:
        The trained policy.
    """
    policy = build_policy(config, seed)
    if config.sft is None:
        return policy
    settings = config.sft
    if settings.recall_steps:
        display.phase("learning to look up", settings.recall_steps)

        def on_recall(step: int, metrics: dict[str, float]) -> None:
            display.advance(1, metrics)
            if log is not None and step % 25 == 0:
                log.log({"recall/step": step, **metrics})

        train_recall(policy, settings, numpy_generator(seed, "recall"), on_recall)
    data = demonstrations(
        training_env(config),
        policy.template,
        numpy_generator(seed, "demonstrations"),
        mistake_rate=settings.mistake_rate,
        later_states=settings.later_states,
        slip_rate=settings.slip_rate,
        buffer=min(BUFFER, max(1, settings.steps * settings.batch_size)),  # a short start makes no more than it shows
    )
    display.phase("SFT", settings.steps)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        display.advance(1, metrics)
        if log is not None and (step % 25 == 0 or step == settings.steps):
            log.log({"sft/step": step, **metrics})

    train_sft(policy, data, settings, on_step)
    return policy


class _Watcher:
    """Writes metrics, evaluates in between, keeps checkpoints, and shows all of it."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        display: TrainingDisplay,
        evaluator: Evaluator,
        checkpoints: RunCheckpoints,
        watchdog: Watchdog,
        ranks: Ranks,
    ) -> None:
        self.config, self.run, self.display, self.evaluator = config, run, display, evaluator
        self.checkpoints, self.watchdog, self.ranks = checkpoints, watchdog, ranks
        self.started = time.perf_counter()
        self.deadline = float("inf")

    def on_phase(self, name: str, total: int | None) -> None:
        self.watchdog.phase = name
        self.display.phase(name, total)

    def on_progress(self, n: int) -> None:
        self.display.advance(n)

    def on_update(self, learner: Learner, rollout: Rollout, metrics: dict[str, float]) -> None:
        del rollout
        metrics |= {"update": learner.n_updates, "env_steps": learner.num_timesteps}
        self.conclude(learner, metrics)
        if learner.n_updates % self.config.checkpoint_every == 0:
            self.checkpoints.save(learner)
        if self.late():
            raise StopTraining("max_minutes")

    def conclude(self, learner: Learner, metrics: dict[str, float]) -> None:
        """Evaluate if it is time to, and log; if that is interrupted, a run that is resumed does it again."""
        every = self.config.evaluation.every
        try:
            if every and learner.n_updates % every == 0 and learner.n_updates < self.config.updates:
                metrics |= self.interim(learner)
        except BaseException:
            self.run.write_unlogged(metrics)
            raise
        metrics["wall_seconds"] = time.perf_counter() - self.started
        self.run.log(metrics)
        self.display.update(metrics)

    def late(self) -> bool:
        """True if the time that the configuration allows is over."""
        return time.perf_counter() > self.deadline

    def start_clock(self, minutes: float) -> None:
        """End training after so many minutes from now, at the end of an update; 0 never."""
        self.deadline = time.perf_counter() + 60 * minutes if minutes else float("inf")

    def interim(self, learner: Learner) -> dict[str, float]:
        """Evaluate student and teacher on the first fixed episodes and record some of them."""
        n = self.config.evaluation.interim_episodes
        self.display.phase("evaluating", 2 * n)
        student = self.evaluator(learner.policy, episodes=n, on_episode=self._tick)
        with learner.as_teacher() as policy:
            teacher = self.evaluator(policy, episodes=n, on_episode=self._tick)
        record_samples(self.config, self.run, student, learner, "student")
        record_samples(self.config, self.run, teacher, learner, "teacher")
        metrics = prefixed("eval/student", student) | prefixed("eval/teacher", teacher)
        return metrics | _lead(metrics)

    def evaluate(self, policy: VLMPolicy, label: str, *, greedy: bool = False) -> EvaluationResult:
        """Evaluate on all fixed episodes, with progress."""
        self.display.phase(f"evaluating {label}", len(self.evaluator.seeds))
        return self.evaluator(policy, greedy=greedy, on_episode=self._tick)

    def _tick(self, _trajectory: object) -> None:
        self.display.advance()


def prefixed(prefix: str, result: EvaluationResult) -> dict[str, float]:
    """Metrics of an evaluation under a name."""
    return {f"{prefix}/{name}": value for name, value in result.metrics.items()}


def _lead(metrics: dict[str, float]) -> dict[str, float]:
    """How much better than the student its teacher is."""
    return {TEACHER_LEAD: metrics["eval/teacher/success_rate"] - metrics["eval/student/success_rate"]}


def train(
    config: RunConfig,
    run: RunFolder,
    display: TrainingDisplay,
    *,
    seed: int,
    preset: str,
    start: str | Path | None = None,
    resume: bool = False,
    overrides: Iterable[str] = (),
    ranks: Ranks | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Run a configuration from start to summary.

    Ctrl-C ends training early but not badly: the weights of the last complete update are saved and summarised.

    Args:
        config: the configuration.
        run: where everything goes.
        display: shows the progress.
        seed: seed of the run.
        preset: name of the preset, for the record.
        start: model folder to start from instead of supervised training.
        resume: go on from the newest whole checkpoint in ``run``, or from wherever it stopped before the first one.
        overrides: the overrides that were given, for the record.
        ranks: the processes that train together, if there are several; this one leads, the others :func:`follow`.
        callbacks: what else is told about phases, progress and updates.

    Returns:
        The summary, as written to ``summary.json``.
    """
    prepare(config.threads)
    check_trackers(config.trackers)
    checkpoints = RunCheckpoints(run.path, config.keep_checkpoints, config.keep_checkpoint_every)
    if resume:
        checkpoints.clear_halves()
    else:
        if warning := check_parts(config):
            display.message(warning)
        run.write_config(run_record(config, preset, seed, overrides, start))
    decided = {**as_dict(config), "preset": preset, "seed": seed}
    with Trackers(config.trackers, run, decided) as trackers, Watchdog(config.limits, run.path) as watchdog:
        evaluator = build_evaluator(config, watchdog=watchdog)
        watcher = _Watcher(config, run, display, evaluator, checkpoints, watchdog, ranks or Ranks())
        checkpoint = checkpoints.newest(display.message) if resume else None
        if checkpoint is None:
            algorithm, before = _begin(config, run, watcher, seed, start)
        else:
            algorithm, before = _go_on(config, run, watcher, seed, checkpoint)
        seconds, interrupted = _learn(config, run, watcher, algorithm, callbacks)
        summary = {
            "preset": preset,
            "env": config.env.id,
            "method": method_name(config),
            "seed": seed,
            "temperature": config.policy.temperature,
            "evaluation_split": config.evaluation.split,
            "interrupted": interrupted,
            "updates": algorithm.n_updates,
            "env_steps": algorithm.num_timesteps,
            "train_seconds": round(seconds, 1),
            "wall_seconds": round(time.perf_counter() - watcher.started, 1),
        } | before
        run.write_summary(summary)
        if not interrupted:
            summary |= _final_evaluation(config, run, watcher, algorithm)
            summary["wall_seconds"] = round(time.perf_counter() - watcher.started, 1)
            run.write_summary(summary)
        trackers.summarise(summary)
    return summary


def _begin(
    config: RunConfig, run: RunFolder, watcher: _Watcher, seed: int, start: str | Path | None
) -> tuple[Learner, dict[str, Any]]:
    """Make and evaluate the model before the first update, as far as a run that is resumed has not done so."""
    checkpoints = watcher.checkpoints
    if checkpoints.has_start():
        watcher.display.message(f"Resuming {run.path} from its start model.")
    else:
        run.forget_after(None)
        started = time.perf_counter()
        policy = build_policy(config, seed, start) if start else supervised_start(config, seed, watcher.display, run)
        checkpoints.save_start(policy, time.perf_counter() - started)
    # From the file also where it was just made: a run that is resumed has nothing else.
    algorithm = _algorithm(config, run, watcher, seed, checkpoints.start)
    before = run.start()
    run.forget_after(-1 if before is None else 0)
    return algorithm, before or _start_evaluation(config, run, watcher, algorithm)


def _go_on(
    config: RunConfig, run: RunFolder, watcher: _Watcher, seed: int, checkpoint: Path
) -> tuple[Learner, dict[str, Any]]:
    """Continue from a checkpoint."""
    algorithm = _algorithm(config, run, watcher, seed, checkpoint)
    algorithm.restore(checkpoint)
    run.forget_after(algorithm.n_updates)
    watcher.display.message(f"Resuming {run.path} after update {algorithm.n_updates}.")
    if unlogged := run.unlogged(algorithm.n_updates):
        watcher.conclude(algorithm, unlogged)
    before = run.start()
    assert before is not None  # written before the first update
    return algorithm, before


def _algorithm(config: RunConfig, run: RunFolder, watcher: _Watcher, seed: int, model: Path) -> Learner:
    policy = build_policy(config, seed, model)
    watcher.ranks.lead_to(model)  # building splits the model, which all do together
    return build_algorithm(config, policy, seed, run.path / SUMS_FOLDER, watcher.watchdog, watcher.ranks)


def follow(config: RunConfig, *, seed: int, ranks: Ranks) -> None:
    """Train beside the process that leads: the same weights, other episodes, no files.

    Args:
        config: the run's configuration.
        seed: its seed.
        ranks: which of the processes this is.
    """
    prepare(config.threads)
    model = ranks.wait_for_leader()
    with Watchdog(config.limits) as watchdog, tempfile.TemporaryDirectory() as scratch:
        sums = Path(scratch) / SUMS_FOLDER
        algorithm = build_algorithm(config, build_policy(config, seed, model), seed, sums, watchdog, ranks)
        if (model / "algorithm.json").is_file():
            algorithm.restore(model)
        algorithm.learn(updates=config.updates)


def _learn(
    config: RunConfig, run: RunFolder, watcher: _Watcher, algorithm: Learner, callbacks: Sequence[Callback]
) -> tuple[float, bool]:
    """Make the updates and save; how many seconds it took, and whether it was interrupted."""
    display = watcher.display
    watcher.start_clock(config.max_minutes)
    started = time.perf_counter()
    interrupted = False
    try:
        algorithm.learn(updates=config.updates, callbacks=(*callbacks, watcher))
        if watcher.late() and algorithm.n_updates < config.updates:
            display.message(f"Stopped after max_minutes={config.max_minutes:g}: {algorithm.n_updates} updates.")
    except KeyboardInterrupt:
        interrupted = True
        display.message("Interrupted: saving. Press Ctrl-C again to stop at once.")
    except (TeacherError, TrainingError) as error:
        if isinstance(error, NotFiniteError):
            display.message(f"The samples without a finite loss stand in {run.write_failure(error.samples)}.")
        if _save(watcher, algorithm):
            display.message(f"Saved after {algorithm.n_updates} updates.")
        display.message(f"Stopped. Go on with: gtr train --resume {run.path}")
        raise
    seconds = time.perf_counter() - started
    display.phase("saving")
    _save(watcher, algorithm)
    return seconds, interrupted


def _save(watcher: _Watcher, algorithm: Learner) -> bool:
    """Write a checkpoint, or tell why there is none; True if there is."""
    if algorithm.can_be_saved:
        watcher.checkpoints.save(algorithm)
        return True
    watcher.display.message(
        "Not saved: the model was in pieces over the processes when update "
        f"{algorithm.n_updates + 1} was interrupted. The run goes on from its last checkpoint "
        f"(checkpoint_every={watcher.config.checkpoint_every})."
    )
    return False


def _start_evaluation(config: RunConfig, run: RunFolder, watcher: _Watcher, algorithm: Learner) -> dict[str, Any]:
    """Evaluate the start model; also written to ``start.json``, for a run that is resumed."""
    sampled = watcher.evaluate(algorithm.policy, "the start")
    greedy = watcher.evaluate(algorithm.policy, "the start, greedy", greedy=True)
    line = (
        prefixed("eval/student", sampled) | prefixed("eval/teacher", sampled) | prefixed("eval/student_greedy", greedy)
    )
    line |= {"update": 0, "env_steps": 0, "wall_seconds": time.perf_counter() - watcher.started}
    run.log(line)
    watcher.display.update(line)
    run.write_evaluation("start", sampled.episodes())
    run.write_evaluation("start-greedy", greedy.episodes())
    record_samples(config, run, sampled, algorithm, "start")
    before = {
        "episodes": len(sampled.trajectories),
        "sft_seconds": watcher.checkpoints.start_seconds(),
        **_rates("before", sampled),
        "success_rate_before_greedy": greedy.success_rate,
    }
    run.write_start(before)
    return before


def _final_evaluation(config: RunConfig, run: RunFolder, watcher: _Watcher, algorithm: Learner) -> dict[str, Any]:
    """Evaluate student and teacher on all fixed episodes and record some of them."""
    update = algorithm.n_updates
    after = watcher.evaluate(algorithm.policy, "the student")
    greedy = watcher.evaluate(algorithm.policy, "the student, greedy", greedy=True)
    run.write_evaluation("student", after.episodes())
    run.write_evaluation("student-greedy", greedy.episodes())
    record_samples(config, run, after, algorithm, "student")
    line = prefixed("eval/student", after) | prefixed("eval/student_greedy", greedy)
    summary = {**_rates("after", after), "success_rate_after_greedy": greedy.success_rate}
    with algorithm.as_teacher() as teacher:
        merged = watcher.evaluate(teacher, "the teacher")
    run.write_evaluation("teacher", merged.episodes())
    record_samples(config, run, merged, algorithm, "teacher")
    line |= prefixed("eval/teacher", merged)
    line |= _lead(line)
    summary |= _rates("teacher", merged)
    line |= {
        "update": update,
        "env_steps": algorithm.num_timesteps,
        "wall_seconds": time.perf_counter() - watcher.started,
    }
    run.log(line)
    watcher.display.update(line)
    return summary


def method_name(config: RunConfig) -> str:
    """What the method of a configuration is called in the literature."""
    guidance, teacher = config.guidance, config.teacher.name
    if guidance.name == "none":
        return config.algorithm
    if guidance.name == "thought_sft" and guidance.source == "own_success":
        name = "rejection sampling"
    else:
        name = f"gtr ({teacher})" if teacher in THINKERS else f"gtr-turbo ({guidance.name})"
    return name if config.algorithm == "ppo" else f"{name}, {config.algorithm}"


def _rates(label: str, result: EvaluationResult) -> dict[str, Any]:
    """Success of an evaluation as the summary names it."""
    return {
        f"success_rate_{label}": result.success_rate,
        f"success_rate_{label}_interval": list(result.interval),
        f"success_rate_{label}_solvable": result.metrics.get("success_rate_solvable"),
        f"return_{label}": result.metrics["return"],
        f"cards_accuracy_{label}": result.metrics.get("cards_accuracy"),
        **({f"success_by_task_type_{label}": result.by_task_type} if result.by_task_type else {}),
    }


def run_record(
    config: RunConfig, preset: str, seed: int, overrides: Iterable[str], start: str | Path | None = None
) -> dict[str, Any]:
    """What ``config.json`` holds: the resolved configuration and where it came from."""
    return {
        "config": as_dict(config),
        "preset": preset,
        "overrides": list(overrides),
        "seed": seed,
        "start": None if start is None else str(start),
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git_state(),
        "machine": {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "platform": platform.platform()},
        "command": " ".join(["gtr", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _git_state() -> dict[str, Any]:
    """Commit and cleanliness of the source tree, empty when it is no git checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(source), *arguments],  # noqa: S607 - git from the path, as everywhere
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}
