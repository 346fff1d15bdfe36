"""What ``gtr eval`` and ``gtr episodes`` do, apart from reading the command line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gtr_agents.algorithms.base import text_env_maker
from gtr_agents.endpoint_settings import EndpointSettings
from gtr_agents.episode_log import EpisodeLog
from gtr_agents.episode_sets import Dealt, EpisodeSet, find_sets
from gtr_agents.errors import ConfigError, EndpointError
from gtr_agents.files import sole_writer
from gtr_agents.metrics import bootstrap_interval, wilson_interval
from gtr_agents.players import Player, Role, open_player
from gtr_agents.rollout import RolloutCollector
from gtr_agents.seeding import numpy_generator, torch_generator

if TYPE_CHECKING:
    from rich.console import Console

    from gtr_agents.evaluation import EvaluationResult, Split
    from gtr_agents.types import Trajectory

How = Literal["sampled", "greedy"]
"""sampled: answers drawn at the model's temperature; greedy: likeliest tokens."""
Advance = Callable[[int], None]
"""Told how many further episodes are done."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be measured."""

    models: tuple[str, ...]
    """Run folders, model folders, hub ids, endpoints."""
    on: tuple[str, ...] = ()
    """Names or patterns of episode sets; none plays the episodes that the run itself was measured on."""
    how: tuple[How, ...] = ("sampled",)
    """How answers are taken."""
    role: Role = "student"
    """Which model of a run."""
    episodes: int | None = None
    """The first so many; None for all of a set, 500 without one."""
    env: str | None = None
    """Without a set: environment id; None for that of the run or the preset."""
    split: Split = "test"
    """Without a set: which fixed episodes."""
    preset: str | None = None
    """Whose settings to use where there is no run."""
    template: str = ""
    """Prompt template in the place of the one that a model brings, or that of the preset."""
    seed: int = 0
    """Of the sampling noise on a set."""
    batch: int = 50
    """Episodes of a set that are played at once."""
    out: Path | None = None
    """With sets a folder to go on in, else a JSON file; a name that ends with .json is always a file."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How endpoints are asked."""

    def __post_init__(self) -> None:
        """Check what no single option can tell.

        Raises:
            ConfigError: if something is out of range or contradictory.
        """
        if not self.models:
            raise ConfigError("Name at least one model: a run folder, a model folder, a hub id, or an endpoint.")
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1, got {self.episodes}.")
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1, got {self.batch}.")
        if self.on and (self.env is not None or self.split != "test"):
            raise ConfigError("A set says itself what is played: leave out --env and --split, or --on.")
        if self.folder is not None and self.folder.is_file():
            raise ConfigError(f"{self.folder} is a file; name a folder to go on in, or a file that ends with .json.")
        if len(set(self.models)) < len(self.models):
            raise ConfigError(f"Name every model once, got {' '.join(self.models)}.")

    @property
    def folder(self) -> Path | None:
        """The folder to go on in, if there is one."""
        return self.out if self.on and self.out is not None and self.out.suffix != ".json" else None


def run_evaluation(evaluation: Evaluation, console: Console) -> list[dict[str, Any]]:
    """Play, with progress; print a table and write the results.

    Args:
        evaluation: what is to be measured.
        console: where to print.

    Returns:
        One result per model, set and way of answering, as JSON holds it.

    Raises:
        GtrError: if something cannot be loaded, asked or played; what was played stays in the folder. If another
            evaluation writes to the same folder.
    """
    sets = find_sets(evaluation.on)
    with nullcontext() if evaluation.folder is None else sole_writer(evaluation.folder):
        return _evaluate(sets, evaluation, console)


def _evaluate(sets: Sequence[EpisodeSet], evaluation: Evaluation, console: Console) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for spec in evaluation.models:
        with open_player(
            spec,
            role=evaluation.role,
            preset=evaluation.preset,
            env=evaluation.env,
            need_env=not sets,
            template=evaluation.template,
            endpoint=evaluation.endpoint,
        ) as player:
            if sets:
                results += _on_sets(player, sets, evaluation, console)
            else:
                results += _as_in_training(player, spec, evaluation, console)
    if sets:
        for table in results_tables(results):
            console.print(table)
    _write(results, evaluation)
    return results


def _write(results: list[dict[str, Any]], evaluation: Evaluation) -> None:
    """Write one result as an object, several (and those of a folder) as a list."""
    if evaluation.out is None:
        return
    path = evaluation.out if evaluation.folder is None else evaluation.folder / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = results[0] if len(results) == 1 and evaluation.folder is None else results
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- on episode sets --------------------------------------------------------------------------------------------------


def _on_sets(
    player: Player, sets: Sequence[EpisodeSet], evaluation: Evaluation, console: Console
) -> Iterator[dict[str, Any]]:
    from rich.progress import Progress

    for chosen in sets:
        seeds = chosen.first_seeds(evaluation.episodes)
        for how in evaluation.how:
            settings = _settings(player, chosen, how, len(seeds), evaluation)
            log = EpisodeLog(
                _log_path(player, chosen, how, evaluation),
                settings,
                batch=0 if player.is_remote else evaluation.batch,
                total=len(seeds),
            )
            with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
                task = progress.add_task(f"{chosen.name} {how}", total=len(seeds), completed=len(log.records))
                try:
                    play_set(
                        player,
                        chosen,
                        seeds,
                        log,
                        greedy=how == "greedy",
                        seed=evaluation.seed,
                        batch=evaluation.batch,
                        advance=lambda n, task=task: progress.advance(task, n),  # type: ignore[misc]
                    )
                except (KeyboardInterrupt, EndpointError):
                    progress.stop()
                    _tell_how_to_go_on(log, len(seeds), console)
                    raise
            records = [log.records[seed] for seed in seeds if seed in log.records]
            chosen.check([Dealt(record["seed"], record["task"]) for record in records])
            measured = summarise(records, by=chosen.by, n_errors=sum(seed in log.errors for seed in seeds))
            yield {"model": player.label, **settings, **measured, "played": records, "errors": log.errors}


def _settings(player: Player, chosen: EpisodeSet, how: How, n: int, evaluation: Evaluation) -> dict[str, Any]:
    """What decides the episodes of a log."""
    return {
        "set": chosen.name,
        "fingerprint": chosen.fingerprint,
        "first": n,
        "env": chosen.env,
        "env_kwargs": chosen.env_kwargs(player.config.env.id, player.config.env.kwargs | player.config.env.evaluation),
        "how": how,
        "temperature": player.temperature if how == "sampled" else 0.0,
        "seed": evaluation.seed,
        "batch": 0 if player.is_remote else evaluation.batch,
        "role": evaluation.role,
        "identity": dict(player.identity),
    }


def _log_path(player: Player, chosen: EpisodeSet, how: How, evaluation: Evaluation) -> Path | None:
    if evaluation.folder is None:
        return None
    name = re.sub(r"[^\w.+-]+", "_", player.label).strip("_.") or "model"
    return evaluation.folder / name / chosen.name.replace("/", "_") / f"{how}.jsonl"


def _tell_how_to_go_on(log: EpisodeLog, total: int, console: Console) -> None:
    if log.path is None:
        console.print("What was played is lost; with --out FOLDER it would be kept.")
    else:
        kept = f"{len(log.records)} of {total} episodes are kept in {log.path}"
        console.print(f"{kept}. The same command goes on.", soft_wrap=True, markup=False)


def play_set(
    player: Player,
    chosen: EpisodeSet,
    seeds: Sequence[int],
    log: EpisodeLog,
    *,
    greedy: bool,
    seed: int = 0,
    batch: int = 50,
    advance: Advance = lambda _: None,
) -> None:
    """Play what is missing of a set, batch by batch.

    Every episode has its own sampling noise, decided by ``seed`` and its reset seed. A batch is always the same
    episodes, because the last digits of a model's numbers may depend on what else is computed with them: so an
    evaluation that went on after an interruption has exactly the episodes of one that was not interrupted.

    Args:
        player: who plays.
        chosen: the set.
        seeds: reset seeds of its episodes.
        log: takes each batch when it is done; of an endpoint also what was done before an interruption.
        greedy: True takes the likeliest tokens.
        seed: of the sampling noise.
        batch: episodes that are played at once.
        advance: told how many further episodes are done.

    Raises:
        EndpointError: if an endpoint cannot be asked any more.
    """
    missing = [[s for s in seeds[i : i + batch] if s not in log.records] for i in range(0, len(seeds), batch)]
    missing = [part for part in missing if part]
    if not missing:
        return
    kwargs = chosen.env_kwargs(player.config.env.id, player.config.env.kwargs | player.config.env.evaluation)
    collector = RolloutCollector(text_env_maker(chosen.env, kwargs), max(map(len, missing)))
    noise = None if greedy else partial(torch_generator, seed, "evaluation")
    try:
        for part in missing:
            done: list[Trajectory] = []

            def note(trajectory: Trajectory, done: list[Trajectory] = done) -> None:
                done.append(trajectory)
                advance(1)

            try:
                collector.play_episodes(player.actor, part, generator=noise, on_episode=note)
            finally:
                if player.is_remote or len(done) == len(part):
                    log.add([episode_record(t, chosen) for t in sorted(done, key=lambda t: part.index(t.seed))])
            if (reason := player.ended()) is not None and any(s not in log.records for s in seeds):
                raise EndpointError(f"{player.label} is not asked any more: {reason}.")
    finally:
        collector.close()


def episode_record(trajectory: Trajectory, chosen: EpisodeSet) -> dict[str, Any]:
    """Write an episode as one plain record.

    Args:
        trajectory: the episode.
        chosen: the set it belongs to.

    Returns:
        ``seed``, ``task`` (facts), ``success``, ``return``, ``steps``, ``actions`` (None where an answer could not be
        read), and how many answers were ``valid`` in format and ``legal``; of a failed one ``seed`` and ``error``.
    """
    if trajectory.failure:
        return {"seed": trajectory.seed, "error": trajectory.failure}
    steps = trajectory.steps
    return {
        "seed": trajectory.seed,
        "task": chosen.facts_of(steps[0].info),
        "success": trajectory.success,
        "return": trajectory.episode_return,
        "steps": len(steps),
        "valid": sum(step.response.answer.valid_format for step in steps),
        "legal": sum(step.legal for step in steps),
        "actions": [step.response.answer.action for step in steps],
    }


def summarise(records: Sequence[Mapping[str, Any]], *, by: str = "", n_errors: int = 0) -> dict[str, Any]:
    """Measure success and what goes with it.

    Args:
        records: as :func:`episode_record` writes them, without failed ones.
        by: fact of the task by which successes are counted, too.
        n_errors: episodes that failed; they count for nothing.

    Returns:
        ``episodes``, ``errors``, and, if there is an episode, ``success_rate`` with Wilson's 95 % interval
        ``success_low`` to ``success_high``, ``return`` with its bootstrap interval ``return_low`` to ``return_high``,
        ``episode_length``, ``valid_rate`` and ``legal_rate`` of the answers; ``by``: fact to value to won, played.
    """
    measured: dict[str, Any] = {"episodes": len(records), "n_errors": n_errors}
    if not records:
        return measured
    n_steps = sum(record["steps"] for record in records)
    wins, returns = sum(record["success"] for record in records), [record["return"] for record in records]
    low, high = wilson_interval(wins, len(records))
    measured |= {"success_rate": wins / len(records), "success_low": low, "success_high": high}
    measured |= {"return": sum(returns) / len(returns)} | return_interval(returns)
    measured["episode_length"] = n_steps / len(records)
    measured |= {f"{name}_rate": sum(record[name] for record in records) / n_steps for name in ("valid", "legal")}
    if by:
        won, played = Counter[Any](), Counter[Any]()
        for record in records:
            won[record["task"][by]] += record["success"]
            played[record["task"][by]] += 1
        measured["by"] = {by: {str(value): [won[value], played[value]] for value in sorted(played)}}
    return measured


def return_interval(returns: Sequence[float]) -> dict[str, float]:
    """Bootstrap the mean return, with a fixed seed; empty for fewer than two episodes."""
    interval = bootstrap_interval(returns, numpy_generator(0, "bootstrap"))
    return {} if interval is None else {"return_low": interval[0], "return_high": interval[1]}


def results_tables(results: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Lay results out, a table for each model: a line for each set and way, and one for each kind of task in it."""
    from rich.table import Table

    for model in dict.fromkeys(result["model"] for result in results):
        table = Table(title=model, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("set", overflow="fold")
        for heading in ("episodes", "success", "95 %", "return", "95 %", "format"):
            table.add_column(heading, justify="right", no_wrap=True)
        shown = ""
        for result in (result for result in results if result["model"] == model):
            if result["set"] != shown:
                table.add_row(result["set"])
                shown = result["set"]
            table.add_row(f"  {result['how']}", str(result["episodes"]), *_numbers(result))
            if result["n_errors"]:
                table.add_row("    failed", str(result["n_errors"]), style="red")
            for label, won, played in _parts(result):
                table.add_row(f"    {label}", str(played), *_rate(won, played), style="dim")
        yield table


def _parts(result: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Kinds of tasks with episodes won and played, if there are several; what is no word is told with its fact."""
    for fact, parts in result.get("by", {}).items():
        for value, (won, played) in parts.items() if len(parts) > 1 else ():
            yield value if value.isidentifier() else f"{fact} {value}", won, played


def _numbers(result: Mapping[str, Any]) -> list[str]:
    """Cells of a result; none without an episode."""
    if not result["episodes"]:
        return []
    bounds = f"{result['return_low']:.1f} to {result['return_high']:.1f}" if "return_low" in result else "-"
    rates = _rate(round(result["success_rate"] * result["episodes"]), result["episodes"])
    return [*rates, f"{result['return']:.1f}", bounds, f"{result['valid_rate']:.1%}"]


def _rate(won: int, played: int) -> tuple[str, str]:
    low, high = wilson_interval(won, played)
    return f"{won / played:.1%}", f"{100 * low:.1f} - {100 * high:.1f}"


# --- on the episodes of the run itself --------------------------------------------------------------------------------


def _as_in_training(player: Player, spec: str, evaluation: Evaluation, console: Console) -> Iterator[dict[str, Any]]:
    """Measure as a run measures itself, number for number: one stream of noise for all episodes."""
    from rich.progress import Progress

    from gtr_agents.build import build_evaluator
    from gtr_agents.policies.vlm import VLMPolicy

    policy, episodes = player.actor, evaluation.episodes or 500
    if not isinstance(policy, VLMPolicy):
        raise ConfigError(f"Say what {player.label} is to play, with --on SET; see `gtr episodes`.")
    config = player.config
    config = replace(config, evaluation=replace(config.evaluation, episodes=episodes, split=evaluation.split))
    evaluator = build_evaluator(config)
    for how in evaluation.how:
        greedy = how == "greedy"
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("evaluating", total=episodes)
            result = evaluator(policy, greedy=greedy, on_episode=lambda _, task=task: progress.advance(task))  # type: ignore[misc]
        told = "greedy" if greedy else f"sampled at temperature {policy.temperature:g}"
        metrics = result.metrics | return_interval([t.episode_return for t in result.trajectories])
        _print_metrics(
            console, f"{player.label} on {config.env.id}, {evaluation.split} episodes, {told}", metrics, result
        )
        yield {
            "model": spec,
            "env": config.env.id,
            "env_kwargs": config.env.kwargs | config.env.evaluation,
            "split": evaluation.split,
            "role": evaluation.role,
            "teacher": evaluation.role == "teacher",
            "greedy": greedy,
            "temperature": policy.temperature,
            **metrics,
            **({"by_task_type": result.by_task_type} if result.by_task_type else {}),
            "played": result.episodes(),
        }


def _print_metrics(console: Console, title: str, metrics: Mapping[str, float], result: EvaluationResult) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    low, high = result.interval
    table.add_row("success_rate", f"{metrics['success_rate']:.1%}  (95 %: {low:.1%} - {high:.1%})")
    for name, value in sorted(metrics.items()):
        if name == "return" and "return_low" in metrics:
            bounds = f"{metrics['return_low']:.4g} - {metrics['return_high']:.4g}"
            table.add_row(name, f"{value:.4g}  (95 %: {bounds})")
        elif not name.startswith(("success_", "return_")):
            table.add_row(name, f"{value:.4g}")
    if "success_rate_solvable" in metrics:
        table.add_row("success on solvable hands", f"{metrics['success_rate_solvable']:.1%}")
    for name, (won, played) in result.by_task_type.items():
        low, high = wilson_interval(won, played)
        table.add_row(f"success in {name}", f"{won / played:.1%}  of {played}  (95 %: {low:.1%} - {high:.1%})")
    console.print(table)


# --- the list of sets -------------------------------------------------------------------------------------------------


def list_sets(names: Sequence[str], console: Console) -> None:
    """Print episode sets: name, episodes, the first characters of the fingerprint, what is in them.

    Args:
        names: names or patterns; none for all.
        console: where to print.

    Raises:
        UnknownNameError: if a name fits no set.
    """
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("set", no_wrap=True)
    table.add_column("episodes", justify="right")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("what is in it")
    for chosen in find_sets(names or ["*"]):
        table.add_row(chosen.name, str(chosen.episodes), chosen.fingerprint[:8], chosen.about)
    console.print(table)
    console.print(
        "\nMeasure on one: gtr eval MODEL --on SET; a pattern such as 'points24/*' takes several.", markup=False
    )
