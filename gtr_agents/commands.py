"""What the longer commands of ``gtr`` do, apart from reading the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtr_agents.errors import ConfigError
from gtr_agents.recorder import RunFolder
from gtr_agents.run_checkpoints import model_folder

if TYPE_CHECKING:
    from rich.console import Console

    from gtr_agents.merging.merge_files import FileMerge


def serve_model(path: Path, *, host: str, port: int, teacher: bool, max_batch: int, console: Console) -> None:
    """Serve a run's model or a model folder until interrupted.

    Args:
        path: run folder or model folder.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        teacher: the run's merged teacher instead of its student.
        max_batch: requests answered at once.
        console: where to print.

    Raises:
        ConfigError: if the address cannot be used, or the batch is empty.
    """
    from gtr_agents.config import resolve
    from gtr_agents.players import teacher_weights
    from gtr_agents.policies.vlm import VLMPolicy
    from gtr_agents.serve import PolicyServer
    from gtr_agents.training import prepare

    if max_batch < 1:
        raise ConfigError(f"max_batch must be at least 1, got {max_batch}.")
    prepare(0)
    policy = VLMPolicy.from_pretrained(model_folder(path))
    acting: AbstractContextManager[None] = nullcontext()
    if teacher:
        acting = policy.using(teacher_weights(path, resolve(RunFolder.open(path).config()["config"])))
    try:
        server = PolicyServer(policy, path.name, host, port, max_batch)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"Cannot listen at {host}:{port}: {error}. Choose another --port.") from error
    console.print(f"Serving {path}{' (teacher)' if teacher else ''} at {server.url}; Ctrl-C ends it.", soft_wrap=True)
    console.print(f"Try: curl {server.url}/models", soft_wrap=True)
    with acting, server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print(f"Stopped after {server.n_answered} answers.")


SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Read a size in bytes, with decimal units as disks and transformers count them.

    Args:
        text: e.g. ``500MB`` or ``5GB``.

    Returns:
        Bytes.

    Raises:
        ConfigError: if it is no size.

    >>> parse_size("1.5GB"), parse_size("200")
    (1500000000, 200)
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"expected a size such as 500MB or 5GB, got {text!r}")
    return int(float(found[1]) * 1000 ** POWERS[found[2].upper()])


def merge_checkpoints(
    merge: FileMerge, out: Path, console: Console, *, export: Path | None, dry_run: bool, quiet: bool
) -> None:
    """Merge checkpoints with progress, and print how far they agree.

    Args:
        merge: the merge.
        out: the new folder.
        console: where to print.
        export: also write the merge to this file, for mergekit.
        dry_run: only show what would be done.
        quiet: no progress.

    Raises:
        CheckpointError: if the folder exists, or the disk cannot hold it.
        MergeError: if a tensor is not finite, or mergekit has nothing like this merge.
    """
    from rich.progress import Progress

    from gtr_agents.merging.mergekit_config import mergekit_yaml, write_mergekit_yaml

    text = None if export is None else mergekit_yaml(merge)  # before the work, since it may be refused
    if dry_run:
        console.print(_plan(merge, out), markup=False, soft_wrap=True)
        if text is not None:
            console.print(f"\n{export} would hold:\n\n{text}", markup=False, soft_wrap=True)
        return
    with Progress(console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("merging", total=merge.n_steps)
        report = merge.run(out, lambda n: progress.advance(task, n))
    console.print(_agreement_table(report))
    console.print(f"Merged  {out}", markup=False, soft_wrap=True)
    if export is not None:
        console.print(f"Recipe  {write_mergekit_yaml(merge, export)}", markup=False, soft_wrap=True)


def _plan(merge: FileMerge, out: Path) -> str:
    plan = merge.plan
    lines = [
        f"{len(merge.sources)} {plan.kind} onto {merge.base.path}",
        f"{plan.n_tensors} tensors of {plan.n_entries:,} entries are merged",
        f"method {merge.recipe.method}, weights {', '.join(f'{weight:g}' for weight in merge.weights)}",
        f"writes {plan.output_bytes / 1e9:.3g} GB of {merge.output_dtype} to {out}",
        f"needs about {plan.memory_bytes / 1e9:.3g} GB of memory; the largest tensor has {plan.largest:,} entries",
    ]
    if merge.scratch is not None:
        lines.append(
            f"keeps {16 * plan.n_entries / 1e9:.3g} GB in {merge.scratch}, twice that while it adds a checkpoint"
        )
    return "\n".join([*lines, "Nothing was written (--dry-run)."])


COLUMNS = {
    "agreement": "agreement",
    "conflict_mass": "conflict",
    "norm_ratio": "norm ratio",
    "coverage": "coverage",
    "retained_energy": "energy kept",
}
"""Diagnostic to heading, in the table of a merge."""


def _agreement_table(report: Mapping[str, Any]) -> Any:
    """How far checkpoints agree, by layer."""
    from rich.table import Table

    shown = {key: heading for key, heading in COLUMNS.items() if key in report["overall"]}
    table = Table(title=f"{len(report['checkpoints'])} {report['kind']}, {report['recipe']['method']}")
    table.add_column("layer", overflow="fold")
    for heading in shown.values():
        table.add_column(heading, justify="right")
    for layer, numbers in report["layers"].items():
        table.add_row(layer, *[f"{numbers[key]:.3f}" for key in shown])
    table.add_section()
    table.add_row("all", *[f"{report['overall'][key]:.3f}" for key in shown])
    return table


def list_environments(console: Console) -> None:
    """Print the registered environments with the first line of their documentation.

    Args:
        console: where to print.
    """
    import gymnasium as gym
    from rich.table import Table

    from gtr_envs.errors import DependencyError
    from gtr_envs.registration import COMPAT_ENVS, ENVS, HOUSEHOLD_ENVS

    table = Table(show_header=True, box=None, padding=(0, 2, 0, 0))
    table.add_column("id", no_wrap=True)
    table.add_column("actions", justify="right")
    table.add_column("what it is")
    for env_id in [*ENVS, *HOUSEHOLD_ENVS, *COMPAT_ENVS]:
        summary = _page(env_id).splitlines()[0]
        try:
            env = gym.make(env_id)
        except DependencyError:
            table.add_row(env_id, "-", f"{summary} Needs an extra that is not installed: gtr-suite\\[alfworld].")
            continue
        table.add_row(env_id, str(env.action_space.n), summary)  # type: ignore[attr-defined]
        env.close()
    console.print(table)
    console.print(
        "\nRules, rewards and arguments of one: gtr envs ID"
        "\nPlay one, with an argument: gtr play ID --set NAME=VALUE"
        "\nThe duel for two players is a PettingZoo environment: gtr_envs.cards.duel.",
        markup=False,
    )


def describe_environment(env_id: str, console: Console) -> None:
    """Print the documentation of an environment.

    Args:
        env_id: one of the ids that `gtr envs` lists.
        console: where to print.

    Raises:
        UnknownNameError: of ``gtr_envs``, if there is no such environment.
    """
    from rich.markdown import Markdown

    from gtr_envs.errors import require_known
    from gtr_envs.registration import COMPAT_ENVS, ENVS, HOUSEHOLD_ENVS

    require_known("environment", env_id, [*ENVS, *HOUSEHOLD_ENVS, *COMPAT_ENVS])
    console.print(Markdown(f"# {env_id}\n\n{_page(env_id)}"))


def _page(env_id: str) -> str:
    """The docstring of an environment's class."""
    import inspect

    import gymnasium as gym
    from gymnasium.envs.registration import load_env_creator

    entry_point = gym.spec(env_id).entry_point
    return inspect.getdoc(load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point) or ""
