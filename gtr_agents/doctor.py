"""Decides what is looked at on a machine before anything is run on it, and what is said of it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gtr_agents.requirements import unmet
from gtr_envs.alfworld.games import DATA_VARIABLE, VERSIONS
from gtr_envs.alfworld.install import Missing, cache_folder, missing_for_engine
from gtr_envs.alfworld.thor_backend import probe_thor

if TYPE_CHECKING:
    from rich.console import Console

REQUIRED = ("gymnasium", "pygame-ce", "torch", "transformers", "peft", "safetensors")
"""Distributions without which the agents do not run, and whose versions are always told."""
EXTRAS = {
    "video": "MP4 and GIF recordings (`gtr_envs.wrappers.RecordVideo`)",
    "datasets": "expert episodes as Minari datasets",
    "trl": "the environments in TRL's `GRPOTrainer`",
    "deepspeed": "`accelerate launch --use_deepspeed`",
    "trackers": "metrics in W&B or trackio",
    "quantization": "`policy.quantization: 4bit`, on CUDA",
}
"""Extras without a line of their own, and what needs them."""
RUN_GB = 2.0
"""Disk that a few runs of a tiny preset want, with their checkpoints, in 10^9 bytes."""
MEMORY_GB = 5.5
"""Memory that the largest tiny preset, tiny-alfworld, wants, in 10^9 bytes."""


class State(StrEnum):
    """What was found."""

    OK = "ok"
    MISSING = "missing"
    """Something cannot be done without it, and it is needed for everything."""
    OPTIONAL = "optional"
    """It is not there, and only what the finding names needs it."""


class Finding(NamedTuple):
    """One line of the table."""

    subject: str
    """What was looked at."""
    state: State
    """What was found."""
    detail: str
    """Version, place, or what is missing."""
    remedy: str = ""
    """What to do about it; empty if nothing."""


def examine() -> list[Finding]:
    """Look at the machine; nothing is started, downloaded or written.

    Returns:
        A finding for everything that the suite uses, required things first.
    """
    return [
        _python(),
        *_packages(),
        _accelerator(),
        _memory(),
        _disk("runs folder", Path("runs"), "Free some, or name another place with `--out FOLDER`"),
        _disk("temporary files", Path(tempfile.gettempdir()), "Free some, or set TMPDIR to another folder"),
        _display(),
        *_found("ALFWorld engine", "ALFWorld-v0", missing_for_engine()),
        _alfred_data(),
        _cache(),
        *(_extra(extra, used_by) for extra, used_by in EXTRAS.items()),
        *_found("AI2-THOR", "ALFWorld-v0 with backend='thor'", probe_thor(split="train")),
    ]


def report(console: Console) -> bool:
    """Print what was found as a table, with what to do.

    Args:
        console: Where to print.

    Returns:
        True if nothing that is needed for everything is missing.
    """
    from rich.table import Table

    colors = {State.OK: "green", State.MISSING: "red", State.OPTIONAL: "yellow"}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    findings = examine()
    for finding in findings:
        state = f"[{colors[finding.state]}]{finding.state}[/]"
        table.add_row(finding.subject, state, _plain(finding.detail), _plain(finding.remedy))
    console.print(table)
    complete = all(finding.state != State.MISSING for finding in findings)
    console.print("Everything that is needed is there." if complete else "Something that is needed is missing.")
    return complete


def _plain(text: str) -> str:
    """Brackets are markup to rich."""
    return text.replace("[", "\\[")


def _python() -> Finding:
    tried = sys.version_info >= (3, 11)
    return Finding(
        "Python",
        State.OK if tried else State.MISSING,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if tried else "Use Python 3.11 or newer",
    )


def _packages() -> Iterator[Finding]:
    """The versions of the main packages, and whatever else of core and agents is missing or does not fit."""
    try:
        problems = {item.name: item for item in (*unmet(), *unmet("agents"))}
    except ModuleNotFoundError:  # packaging is missing, which reads the versions that are wanted
        problems = {}
    for name in (*REQUIRED, *(name for name in problems if name not in REQUIRED)):
        problem = problems.get(name)
        if problem is not None and problem.installed is not None:
            kind = "too old" if problem.too_old else "not tried"
            state = State.MISSING if problem.too_old else State.OPTIONAL
            yield Finding(name, state, f"{problem.installed} is {kind}: {problem.wanted} is wanted", problem.remedy)
            continue
        try:
            yield Finding(name, State.OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, State.MISSING, "not installed", 'Run: pip install "gtr-suite[agents]"')


def _extra(extra: str, used_by: str) -> Finding:
    try:
        missing = list(unmet(extra))
    except ModuleNotFoundError:
        return Finding(f"extra {extra}", State.OPTIONAL, "unknown without the package packaging")
    if not missing:
        return Finding(f"extra {extra}", State.OK, "ready")
    return Finding(
        f"extra {extra}",
        State.OPTIONAL,
        f"{'; '.join(map(str, missing))}; needed for {used_by} only",
        f'Run: pip install "gtr-suite[{extra}]"',
    )


def _accelerator() -> Finding:
    try:
        import torch
    except ModuleNotFoundError:
        return Finding("accelerator", State.OPTIONAL, "unknown without torch")
    except (ImportError, OSError) as error:  # a shared library of its is missing
        remedy = "Install torch again: pip install --force-reinstall torch"
        return Finding("accelerator", State.MISSING, f"torch cannot be loaded: {error}", remedy)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        found = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB, CUDA {torch.version.cuda}"
        count = torch.cuda.device_count()
        return Finding("accelerator", State.OK, found + (f"; {count} of them" if count > 1 else ""))
    if shutil.which("nvidia-smi"):
        why = "was built without CUDA" if torch.version.cuda is None else "cannot use it; `nvidia-smi` may say why"
        index = "https://download.pytorch.org/whl/cu130"
        remedy = f"Install a CUDA build: pip install --force-reinstall torch --index-url {index}"
        return Finding(
            "accelerator", State.OPTIONAL, f"there is an NVIDIA GPU, but torch {torch.__version__} {why}", remedy
        )
    return Finding(
        "accelerator", State.OPTIONAL, f"none, {os.cpu_count()} CPU cores", "Presets of large models need one"
    )


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # not on every system
        return Finding("memory", State.OPTIONAL, "unknown on this system")
    if total >= MEMORY_GB:
        return Finding("memory", State.OK, f"{total:.0f} GB")
    remedy = "Play fewer environments at once: --set rollout.n_envs=64 --set evaluation.n_envs=64"
    return Finding("memory", State.OPTIONAL, f"{total:.1f} GB; tiny-alfworld wants {MEMORY_GB:g} GB", remedy)


def _disk(subject: str, folder: Path, remedy: str) -> Finding:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return Finding(subject, State.MISSING, f"{existing} cannot be written", remedy)
    if free < RUN_GB:
        return Finding(subject, State.MISSING, f"{free:.1f} GB free in {existing}, {RUN_GB:g} GB are wanted", remedy)
    return Finding(subject, State.OK, f"{free:.0f} GB free in {existing}")


def _display() -> Finding:
    needs_one = platform.system() == "Linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if needs_one:
        return Finding("display", State.OPTIONAL, "none", "Play with `gtr play ENV --terminal`; nothing else needs one")
    return Finding("display", State.OK, os.environ.get("DISPLAY") or platform.system())


def _found(subject: str, used_by: str, missing: Sequence[Missing]) -> Iterator[Finding]:
    if not missing:
        yield Finding(subject, State.OK, "ready")
    else:
        yield Finding(subject, State.OPTIONAL, f"not ready; needed for {used_by} only")
    for item in missing:
        yield Finding("", State.OPTIONAL, item.what, item.remedy)


def _alfred_data() -> Finding:
    named = os.environ.get(DATA_VARIABLE)
    remedy = f"Embedded games are played; for ALFRED's run `alfworld-download` and set {DATA_VARIABLE}"
    if not named:
        return Finding("ALFRED's games", State.OPTIONAL, f"{DATA_VARIABLE} is not set", remedy)
    holds = any((Path(named) / version / "train").is_dir() for version in VERSIONS)
    if not holds:
        return Finding("ALFRED's games", State.OPTIONAL, f"no {VERSIONS[0]}/train below {named}", remedy)
    return Finding("ALFRED's games", State.OK, named)


def _cache() -> Finding:
    """Games that were grounded once are kept here; without it each is grounded anew."""
    try:
        folder = cache_folder()
    except ImportError:
        return Finding("cache folder", State.OPTIONAL, "unknown without the engine")
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(existing, os.W_OK):
        return Finding("cache folder", State.OK, str(folder))
    return Finding(
        "cache folder", State.OPTIONAL, f"{folder} cannot be written", "Set XDG_CACHE_HOME to a folder that can"
    )
