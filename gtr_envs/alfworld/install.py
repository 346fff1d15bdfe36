"""Decides what ALFWorld's engine needs, and tells what of it is missing and how to get it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from gtr_envs.errors import DependencyError

ENGINE_PACKAGES = {"alfworld": "0.4.2", "textworld": "1.7", "fast-downward-textworld": "20.6.4", "mementos": "1.3"}
"""Distributions of the extra ``alfworld`` and the versions (or their beginnings) that were tried."""
INSTALL = 'Run: pip install "gtr-suite[alfworld]"'
REMEDY = (
    f"{INSTALL} (it needs a C++ compiler, make and an active virtual environment; `gtr doctor` says what is missing)"
)
"""Said by whatever cannot go on without the engine."""


class Missing(NamedTuple):
    """Something that is needed and was not found."""

    what: str
    """What was looked for, and what was found instead."""
    remedy: str
    """What to do."""


def cache_folder() -> Path:
    """Where games that were translated once are kept: in the user's cache folder.

    Raises:
        DependencyError: If the extra ``alfworld`` is not installed.
    """
    try:
        import platformdirs
    except ImportError as missing:
        raise DependencyError(
            f"ALFWorld needs the package 'platformdirs', which is not installed. {REMEDY}"
        ) from missing
    return Path(platformdirs.user_cache_dir("gtr_envs")) / "alfworld"


def missing_for_engine() -> list[Missing]:
    """Look for everything that ALFWorld's engine needs; nothing is imported, started or downloaded.

    Returns:
        What is missing, in the order in which it should be mended; empty if the engine is installed.
    """
    packages = list(_missing_packages())
    return [*_missing_platform(), *_missing_tools(), *packages] if packages else []


def _missing_platform() -> Iterator[Missing]:
    system, machine = platform.system(), platform.machine().lower()
    if system == "Windows":
        yield Missing("platform: Linux or macOS, found Windows, where the planner cannot work", "Use WSL 2")
    elif (system, machine) not in (("Linux", "x86_64"), ("Darwin", "x86_64")):
        yield Missing(
            f"platform: TextWorld has wheels for x86-64 Linux and macOS, found {system} on {machine}",
            "It has to be built from source, which was not tried; a container for linux/amd64 is the surer way",
        )


def _missing_tools() -> Iterator[Missing]:
    """The planner and Jericho are compiled on installation, by a build that calls ``python`` by that name."""
    compilers = "Debian and Ubuntu: sudo apt-get install g++ make; macOS: xcode-select --install"
    if not (shutil.which("g++") or shutil.which("clang++")):
        yield Missing("a C++ compiler: neither g++ nor clang++ is on the PATH", compilers)
    if not shutil.which("make"):
        yield Missing("make: not on the PATH", compilers)
    if not shutil.which("python"):
        yield Missing("a program called `python`: not on the PATH", "Activate a virtual environment, then install")
    if sys.prefix == sys.base_prefix:
        yield Missing("an active virtual environment: none", "Run: python3 -m venv .venv && source .venv/bin/activate")


def _missing_packages() -> Iterator[Missing]:
    absent = []
    for name, wanted in ENGINE_PACKAGES.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(f"{name} {wanted}")
            continue
        if installed != wanted and not installed.startswith(f"{wanted}."):
            yield Missing(f"package {name} {wanted}: found {installed}, which was not tried", INSTALL)
    if absent:
        yield Missing(f"packages that are not installed: {', '.join(absent)}", INSTALL)
