"""Every name that a package shows resolves and says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import gymnasium as gym
import pytest

import gtr_envs
from gtr_envs.registration import ENVS

HEADINGS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "References",
    "Version History",
    "Prompt",
    "Known limits",
)


def faces() -> list[str]:
    """Both packages and all their subpackages."""
    names = []
    for root in ("gtr_envs", "gtr_agents"):
        package = importlib.import_module(root)
        found = pkgutil.walk_packages(package.__path__, prefix=f"{root}.")
        names += [root, *(module.name for module in found if module.ispkg)]
    return names


@pytest.mark.parametrize("name", faces())
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it decides"
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_both_packages_list_their_public_names() -> None:
    for name in ("gtr_envs", "gtr_agents"):
        module = importlib.import_module(name)
        assert set(module.__all__) <= set(dir(module))


def test_both_packages_have_the_version_of_the_distribution() -> None:
    version = importlib.metadata.version("gtr-suite")
    assert gtr_envs.__version__ == version
    assert importlib.import_module("gtr_agents").__version__ == version


@pytest.mark.parametrize("env_id", [env_id for env_id in ENVS if not env_id.startswith("gym_cards/")])
def test_every_environment_page_has_the_headings(env_id: str) -> None:
    page = inspect.getdoc(type(gym.make(env_id).unwrapped)) or ""
    positions = {heading: re.search(rf"^\W*{heading}\W*$", page, flags=re.MULTILINE) for heading in HEADINGS}
    assert not [heading for heading, found in positions.items() if found is None]
