"""Importing a package is cheap, and what is imported is declared."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = ("pygame", "torch", "transformers", "peft", "stable_baselines3", "matplotlib", "PIL")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_environments_loads_nothing_heavy() -> None:
    loaded = loaded_after("import gtr_envs")
    assert "gtr_envs" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_agents_loads_nothing_heavy() -> None:
    loaded = loaded_after("import gtr_agents")
    assert "gtr_agents" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_playing_needs_no_torch() -> None:
    loaded = loaded_after(
        "import gymnasium, gtr_envs; env = gymnasium.make('Points24-v0'); env.reset(seed=0); env.step(0)"
    )
    assert "pygame" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "peft", "gtr_agents"})


def imported_by(package: str) -> set[str]:
    """Top-level names that a package's source imports anywhere, also inside functions."""
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"gtr_envs", "gtr_agents"}


OTHER_NAMES = {"fast-downward-textworld": "fast_downward"}
"""Distribution -> its module, where the name does not tell; for what need not be installed."""
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def modules_of(requirements: list[str]) -> set[str]:
    """Top-level module names that the distributions named by requirements install, or would by their names."""
    wanted = {re.split(r"[\[<>=!~ ;]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    installed = {
        module
        for module, distributions in DISTRIBUTIONS.items()
        if any(distribution.lower().replace("_", "-") in wanted for distribution in distributions)
    }
    return installed | {OTHER_NAMES.get(name, name.replace("-", "_")) for name in wanted}


@pytest.mark.parametrize(
    ("package", "extras"),
    [("gtr_envs", ["alfworld", "thor", "video"]), ("gtr_agents", ["agents", "trl", "vllm", "deepspeed"])],
)
def test_every_imported_library_is_declared(package: str, extras: list[str]) -> None:
    declared = list(PYPROJECT["project"]["dependencies"])
    for extra in extras:
        declared += PYPROJECT["project"]["optional-dependencies"][extra]
    assert imported_by(package) <= modules_of(declared)


def test_every_library_of_the_agents_extra_is_used() -> None:
    imported = imported_by("gtr_agents")
    unused = {
        requirement.partition(">")[0]
        for requirement in PYPROJECT["project"]["optional-dependencies"]["agents"]
        if not modules_of([requirement]) & imported
    }
    # SB3's logger writes event files through tensorboard; peft and transformers place models through accelerate.
    assert unused <= {"tensorboard", "accelerate"}
