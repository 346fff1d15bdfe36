"""The ``gtr`` command."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from gtr_agents.endpoint_settings import EndpointSettings

if TYPE_CHECKING:
    from gtr_agents.runs import Run as FinishedRun

app = tyro.extras.SubcommandApp()

Preset = Annotated[str, arg(metavar="PRESET", help="Name of a preset (see `gtr presets`), or a path to a YAML file.")]
Overrides = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="SECTION.OPTION=VALUE", help="Change one option of the preset; may be given repeatedly."),
]
EnvArguments = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="NAME=VALUE", help="An argument of the environment; may be given repeatedly."),
]
Models = Annotated[
    tuple[str, ...],
    arg(
        metavar="MODEL...",
        help="Run folders, model folders, hub ids, http://HOST:PORT/v1, or openai:MODEL@http://HOST:PORT/v1.",
    ),
]
Run = Annotated[Path, arg(metavar="RUN", help="A run folder, e.g. runs/tiny-points24-s0.")]
Seed = Annotated[int, arg(help="Seed of the run: weights, demonstrations, tasks, sampling.")]
Quiet = Annotated[bool, arg(help="Show no progress.")]


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


@app.command
def demo(
    *, out: Path = Path("runs/demo"), preset: Preset = "tiny-points24", seed: Seed = 0, quiet: Quiet = False
) -> None:
    """Watch a tiny vision-language model learn a card game: supervised start, GTR-Turbo, report. No GPU needed."""
    from gtr_agents import runs

    _finish(runs.train(preset, out=out, seed=seed, overwrite=True, quiet=quiet))


@app.command
def sft(
    preset: Positional[Preset],
    *,
    out: Path | None = None,
    seed: Seed = 0,
    overrides: Overrides = (),
    quiet: Quiet = False,
) -> None:
    """Make the start model of a preset: imitate (imperfect) solver demonstrations, and save it.

    Args:
        preset: the preset.
        out: where to save the model; default runs/PRESET-sft-sSEED.
        seed: the seed.
        overrides: changed options.
        quiet: no progress.
    """
    from gtr_agents.config import load_config
    from gtr_agents.display import TrainingDisplay
    from gtr_agents.recorder import RunFolder
    from gtr_agents.run_checkpoints import RunCheckpoints
    from gtr_agents.runs import short
    from gtr_agents.training import prepare, run_record, supervised_start

    config = load_config(preset, overrides)
    if config.sft is None:
        _fail(f"Preset {preset!r} has no supervised start (section sft); its model is {config.policy.model!r}.")
    folder = out or Path("runs") / f"{short(preset)}-sft-s{seed}"
    prepare(config.threads)
    with RunFolder(folder) as run, TrainingDisplay(0, f"SFT {preset}", enabled=not quiet) as display:
        run.write_config(run_record(config, preset, seed, overrides))
        started = time.perf_counter()
        policy = supervised_start(config, seed, display, run)
        RunCheckpoints(folder).save_start(policy, time.perf_counter() - started)
    _console().print(
        f"Start model saved to {folder}/checkpoints/start. Next: gtr eval {folder} or gtr train --start.",
        soft_wrap=True,
    )


@app.command
def train(
    preset: Positional[Preset] = "",
    *,
    out: Path | None = None,
    seed: Seed = 0,
    overrides: Overrides = (),
    start: Path | None = None,
    resume: Path | None = None,
    overwrite: bool = False,
    quiet: Quiet = False,
) -> None:
    """Train with a preset. Ctrl-C saves what was learned; --resume goes on.

    Args:
        preset: the preset.
        out: the run folder; default runs/PRESET-sSEED.
        seed: the seed.
        overrides: changed options.
        start: a run folder or model folder to start from, instead of the preset's supervised start.
        resume: a run folder to go on with; its own configuration is used.
        overwrite: replace a run that is already in the folder.
        quiet: no progress.
    """
    from gtr_agents import runs

    if resume is not None:
        _finish(runs.resume(resume, quiet=quiet))
        return
    if not preset:
        from gtr_agents.config import preset_names

        _fail(f"Name a preset: gtr train PRESET. Known: {', '.join(preset_names())}.")
    _finish(runs.train(preset, out=out, seed=seed, overrides=overrides, start=start, overwrite=overwrite, quiet=quiet))


def _finish(run: FinishedRun | None) -> None:
    """Say how it went; a process that does not lead says nothing."""
    from gtr_agents.recorder import RunFolder
    from gtr_agents.replay import make_gif

    if run is None:
        return
    folder, summary = run.folder, run.summary
    console = _console()
    console.print(_summary_table(summary))
    console.print(f"Report  {run.report}", soft_wrap=True)
    if any(RunFolder.open(folder).episodes()):
        console.print(f"Replay  {make_gif(folder)}\nWatch   gtr replay {folder}", soft_wrap=True)
    if summary.get("interrupted"):
        console.print(
            f"Interrupted after update {summary['updates']}. Go on with: gtr train --resume {folder}", soft_wrap=True
        )
        raise SystemExit(130)


def _summary_table(summary: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{summary['env']} · {summary['method']} · seed {summary['seed']}", title_justify="left")
    further = {"on solvable hands": "solvable", "greedy": "greedy"}
    if summary.get("success_rate_before_solvable") is None:  # an environment that does not say what can be won
        del further["on solvable hands"]
    for heading in ("", "success", "95 % interval", *further):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, name in (("before", "start (SFT)"), ("after", "student"), ("teacher", "merged teacher")):
        rate = summary.get(f"success_rate_{label}")
        if rate is None:
            continue
        low, high = summary[f"success_rate_{label}_interval"]
        rates = [summary.get(f"success_rate_{label}_{key}") for key in further.values()]
        cells = [f"{rate:.1%}", f"{low:.1%} - {high:.1%}", *("" if x is None else f"{x:.1%}" for x in rates)]
        table.add_row(name, *cells)
    minutes = summary.get("wall_seconds", 0) / 60
    episodes = f"{summary.get('episodes', 0)} fixed {summary['evaluation_split']} episodes"
    table.caption = f"{episodes}, {summary['env_steps']} training steps, {minutes:.1f} min"
    return table


@app.command(name="eval")
def evaluate(
    models: Positional[Models],
    *,
    on: tuple[str, ...] = (),
    how: Literal["sampled", "greedy", "both"] = "sampled",
    greedy: bool = False,
    role: Literal["student", "teacher", "start"] = "student",
    teacher: bool = False,
    episodes: int | None = None,
    env: str | None = None,
    split: Literal["test", "validation"] = "test",
    preset: str | None = None,
    template: str = "",
    seed: int = 0,
    batch: int = 50,
    out: Path | None = None,
    endpoint: EndpointSettings = EndpointSettings(),  # noqa: B008 - it is frozen
) -> None:
    """Measure the success of models on fixed episodes, with 95 % intervals.

    Example, two runs on hands of every difficulty; the same command goes on if it was interrupted:

        gtr eval runs/kl-s0 runs/ppo-s0 --on 'points24/*' --how both --out evaluation

    Without --on, a run is measured as it measures itself in training.

    Args:
        models: what to evaluate.
        on: sets of episodes (see `gtr episodes`), names or patterns.
        how: sampled at the model's temperature, greedy, or both.
        greedy: the same as --how greedy.
        role: which model of a run: its newest, its merged teacher, or the one before the first update.
        teacher: the same as --role teacher.
        episodes: how many of the fixed episodes; default all of a set, 500 without one.
        env: environment id, without a set; default the run's.
        split: without a set, test for what you report, validation for choosing settings.
        preset: preset whose settings (environment, size of the picture, template, ...) to use where there is no run.
        template: prompt template; default the one a model was saved with, else that of the preset, else "thoughts".
        seed: of the sampling noise on a set.
        batch: episodes of a set that are played at once.
        out: JSON file of the results, or with --on a folder that keeps every episode and lets the command go on.
        endpoint: how a chat endpoint is asked.
    """
    from gtr_agents.evaluate_command import Evaluation, run_evaluation

    ways: dict[str, tuple[Literal["sampled", "greedy"], ...]] = {"both": ("sampled", "greedy"), "sampled": ("sampled",)}
    evaluation = Evaluation(
        models,
        on=on,
        how=("greedy",) if greedy else ways.get(how, ("greedy",)),
        role="teacher" if teacher else role,
        episodes=episodes,
        env=env,
        split=split,
        preset=preset,
        template=template,
        seed=seed,
        batch=batch,
        out=out,
        endpoint=endpoint,
    )
    run_evaluation(evaluation, _console())


@app.command
def serve(
    model: Positional[Annotated[Path, arg(metavar="RUN|MODEL", help="A run folder, or a model folder.")]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    teacher: bool = False,
    max_batch: int = 16,
) -> None:
    """Answer chat requests with a model, in the protocol of OpenAI's chat completions, until Ctrl-C.

    Any client of that protocol can ask it: one picture (a PNG or JPEG data URL) and a text. A training run asks it with
    --set guidance.name=thought_sft --set teacher.name=external (and teacher.external.base_url for another address).

    Args:
        model: what to serve.
        host: address to listen at; 0.0.0.0 lets other machines in, and there is no password.
        port: port to listen at; 0 takes a free one.
        teacher: serve the run's merged teacher instead of its student.
        max_batch: requests answered at once.
    """
    from gtr_agents.commands import serve_model

    serve_model(model, host=host, port=port, teacher=teacher, max_batch=max_batch, console=_console())


@app.command
def merge(
    base: Positional[Annotated[Path, arg(metavar="BASE", help="The model that all checkpoints were trained from.")]],
    checkpoints: Positional[
        Annotated[
            tuple[Path, ...],
            arg(
                metavar="CKPT...",
                help="Models, or PEFT LoRA adapters for BASE: folders, .safetensors files, run folders.",
            ),
        ]
    ],
    *,
    out: Path,
    method: Literal["ties", "linear", "dare_ties", "dare_linear", "slerp"] = "ties",
    weights: tuple[float, ...] = (),
    density: float = 0.8,
    lam: float = 1.0,
    election: Literal["total", "frequency"] = "total",
    dialect: Literal["ours", "mergekit", "peft"] = "ours",
    seed: int = 0,
    rank: int | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    shard_size: str = "2GB",
    scratch: Path | None = None,
    export_mergekit: Path | None = None,
    dry_run: bool = False,
    quiet: Quiet = False,
) -> None:
    """Merge anybody's checkpoints from disk into a model, or adapters into an adapter, one tensor at a time.

    Example, three adapters as an adapter of rank 64, the newest counting double:

        gtr merge models/Qwen2.5-VL-7B adapters/1 adapters/2 adapters/3 --out merged --weights 1 1 2 --rank 64

    The table at the end, and merge_report.json in the output, tell how far the checkpoints agree.

    Args:
        base: the model.
        checkpoints: what is merged, oldest first.
        out: the new folder: weights, and the base's configuration, tokenizer and processor.
        method: how task vectors (checkpoint minus base) are combined.
        weights: one per checkpoint; only their ratios matter; default equal.
        density: share of each task vector that TIES and DARE keep.
        lam: scale of the merged task vector.
        election: how TIES elects a sign, by weighted sum or by weighted count.
        dialect: compute what another library's TIES would give.
        seed: of DARE's masks.
        rank: write an adapter of this rank instead of a model (adapters only); the report tells what it keeps.
        dtype: type of the written weights; default the base's, float32 for an adapter.
        shard_size: size at which a file of weights is closed, e.g. 500MB or 5GB.
        scratch: keep sums in this folder, so that an interrupted merge goes on and a later one adds checkpoints.
        export_mergekit: also write the merge as a mergekit configuration.
        dry_run: check everything that needs no data and show what would be done; write nothing.
        quiet: no progress.
    """
    from gtr_agents.commands import merge_checkpoints, parse_size
    from gtr_agents.merging.merge_files import FileMerge, Recipe
    from gtr_agents.run_checkpoints import model_folder

    recipe = Recipe(method, weights or None, density, lam, election, dialect, seed)
    job = FileMerge(
        model_folder(base),
        [model_folder(path) for path in checkpoints],
        recipe,
        rank=rank,
        dtype=dtype,
        shard_bytes=parse_size(shard_size),
        scratch=scratch,
    )
    merge_checkpoints(job, out, _console(), export=export_mergekit, dry_run=dry_run, quiet=quiet)


@app.command
def report(run: Positional[Run]) -> None:
    """Write RUN/report.html: curves of student and teacher, thought quality, episodes to step through; one file."""
    from gtr_agents.report import build_report

    _console().print(str(build_report(run)), soft_wrap=True)


@app.command
def compare(
    runs: Positional[tuple[Annotated[Path, arg(metavar="RUN...", help="Finished run folders.")], ...]],
    *,
    by: str | None = None,
    out: Path | None = None,
) -> None:
    """Compare finished runs: gains on the start, differences between methods, with intervals over runs and episodes.

    Runs that differ in nothing but their seed are one group. With one run in a group there is no interval over runs.

    Args:
        runs: run folders, all measured on the same episodes.
        by: group by `method` or by one option, e.g. guidance.beta; default all options that differ.
        out: also write compare.md and compare.png to this folder.
    """
    from gtr_agents.compare import comparable, difference_table, draw, group_runs, read_runs, success_table

    found = read_runs(runs)
    if not found:
        _fail("Name at least one run: gtr compare RUN...")
    comparable(found)
    groups = group_runs(found, by)
    text = success_table(groups) + (f"\n\n{difference_table(groups)}" if len(groups) > 1 else "")
    _console().print(text, markup=False, soft_wrap=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "compare.md").write_text(f"{text}\n", encoding="utf-8")
        _console().print(f"Written {draw(groups, out / 'compare.png')}", soft_wrap=True)


@app.command
def replay(run: Positional[Run], *, episode: str | None = None, gif: bool = False, terminal: bool = False) -> None:
    """Watch recorded episodes of a run in a window, in the terminal, or as replay.gif.

    Args:
        run: the run.
        episode: number or id of one episode; default all.
        gif: write replay.gif instead of showing.
        terminal: print to the terminal instead of opening a window.
    """
    from gtr_agents import replay as replays

    if gif:
        _console().print(str(replays.make_gif(run)), soft_wrap=True)
    else:
        number = int(episode) if episode is not None and episode.isdigit() else episode
        replays.replay(run, episode=number, window=not terminal)


@app.command
def play(
    env: Positional[Annotated[str, arg(metavar="ENV", help="Environment id, e.g. Points24-v0 (see `gtr envs`).")]],
    *,
    seed: int | None = None,
    terminal: bool = False,
    strength: float | None = None,
    overrides: EnvArguments = (),
) -> None:
    """Play an environment yourself, with hints from the solver, by mouse and keyboard or in the terminal.

    There is no undo, for you as for an agent: what is played is played. Ask for a hint before a move, or begin a new
    game after it.

    Args:
        env: the environment.
        seed: seed of the first hand.
        terminal: play in the terminal instead of a window.
        strength: of your opponent in Points24Duel-v0, from 0 to 1; short for --set opponent=...
        overrides: arguments of the environment.
    """
    from gtr_agents.config import apply_overrides
    from gtr_envs.play import play as play_env

    arguments = apply_overrides({} if strength is None else {"opponent": strength}, overrides)
    play_env(env, terminal=terminal, seed=seed, **arguments)


@app.command
def solve(
    numbers: Positional[Annotated[tuple[int, ...], arg(metavar="N", help="The numbers, e.g. 3 3 8 8.")]],
    *,
    target: int = 24,
    limit: int = 10,
) -> None:
    """Solve a hand exactly.

    Args:
        numbers: the numbers.
        target: the value to reach.
        limit: print at most so many solutions.
    """
    from gtr_envs.cards.solver import solve as solve_hand

    try:
        solutions = solve_hand(numbers, target)
    except ValueError as error:
        _fail(str(error))
    console = _console()
    for tokens in solutions[:limit]:
        console.print(f"{' '.join(tokens)} = {target}", markup=False)
    if not solutions:
        console.print(f"{' '.join(map(str, numbers))} has no solution for {target}.")
    elif len(solutions) > limit:
        console.print(f"... and {len(solutions) - limit} more (--limit).")


@app.command
def envs(
    env: Positional[Annotated[str, arg(metavar="ENV", help="Id of one environment, to read all about it.")]] = "",
) -> None:
    """List the environments, or tell everything about one: rules, rewards, arguments.

    Args:
        env: the environment; default all.
    """
    from gtr_agents.commands import describe_environment, list_environments

    if env:
        describe_environment(env, _console())
    else:
        list_environments(_console())


@app.command
def episodes(
    names: Positional[
        Annotated[tuple[str, ...], arg(metavar="SET...", help="Names, or patterns such as 'points24/*'; default all.")]
    ] = (),
) -> None:
    """List the fixed sets of episodes that `gtr eval --on` measures on.

    Args:
        names: which sets.
    """
    from gtr_agents.evaluate_command import list_sets

    list_sets(names, _console())


@app.command
def presets() -> None:
    """List the presets, with what each is for."""
    from rich.table import Table

    from gtr_agents.config import load_preset, preset_names

    table = Table.grid(padding=(0, 2))
    for name in preset_names():
        table.add_row(f"[bold]{name}[/]", load_preset(name).get("description", ""))
    _console().print(table)


@app.command
def plan(
    preset: Positional[Preset],
    *,
    overrides: Overrides = (),
    gpu_gb: float | None = None,
    device: str | None = None,
    prompt_tokens: int | None = None,
    as_json: Annotated[bool, arg(name="json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Estimate memory and time of a preset before it is run; nothing is downloaded.

    The exit status is 1 if it does not fit, 0 if it does or no size is given.

    Args:
        preset: the preset.
        overrides: changed options.
        gpu_gb: memory of the GPU in GB (1e9 bytes); default that of the device.
        device: whose speed to assume: cpu, rtx-4060-8gb, rtx-4090-24gb, a100-80gb, h100-80gb or h200-141gb; default the
            smallest with that memory, cpu without one.
        prompt_tokens: length of a prompt with its picture, if the estimate of it is wrong.
        as_json: print JSON.
    """
    from gtr_agents import plan as planning
    from gtr_agents.config import load_config
    from gtr_agents.plan_memory import GB
    from gtr_agents.plan_time import DEVICES, smallest_device

    config = load_config(preset, overrides)
    device = device or smallest_device(gpu_gb)
    estimate = planning.make_plan(config, device, prompt_tokens=prompt_tokens)
    limit = DEVICES[device].memory if gpu_gb is None else gpu_gb * GB
    if as_json:
        sys.stdout.write(json.dumps(planning.as_json(config, estimate, limit), indent=2) + "\n")
    else:
        planning.report(config, estimate, limit, _console())
    if limit is not None and estimate.gpu > limit:
        sys.exit(1)


@app.command
def doctor() -> None:
    """Look at this machine: what is installed, what is missing, and how to get it.

    The exit status is 1 if something is missing that everything needs, 0 if only parts cannot be used.
    """
    from gtr_agents.doctor import report

    if not report(_console()):
        sys.exit(1)


def _fail(message: str) -> Any:
    from gtr_agents.errors import GtrError

    raise GtrError(message)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; clear errors and a non-zero status for bad input."""
    from gymnasium.error import UnregisteredEnv

    from gtr_agents.errors import GtrError
    from gtr_agents.requirements import explain
    from gtr_envs.errors import GtrEnvsError

    _sigterm_as_interrupt()
    try:
        try:
            _cli(arguments)
        except ImportError as error:
            explain(error)
            raise
    except (GtrError, GtrEnvsError, UnregisteredEnv) as error:
        sys.stderr.write(f"gtr: error: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("gtr: interrupted\n")
        raise SystemExit(130) from None


def _sigterm_as_interrupt() -> None:
    """Treat a polite kill like Ctrl-C, so that a run saves itself."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _cli(arguments: list[str] | None) -> Any:
    run: Callable[..., Any] = app.cli
    return run(
        args=arguments,
        prog="gtr",
        description="Train vision-language agents with reinforcement learning and a free teacher (GTR-Turbo).",
    )


if __name__ == "__main__":
    main()
