"""The examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import gtr_envs

MODULES = [module.name for module in pkgutil.walk_packages(gtr_envs.__path__, prefix="gtr_envs.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    if name == "gtr_envs.alfworld.textworld_backend":
        pytest.importorskip("textworld")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    modules = ("gtr_envs.cards.solver", "gtr_envs.cards.formula", "gtr_envs.wrappers.text_action", "gtr_envs.play")
    assert all(doctest.testmod(importlib.import_module(name)).attempted for name in modules)
