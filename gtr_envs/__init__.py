"""Vision-text environments for Gymnasium: a picture and a text in, a named action out.

Importing the package registers its ids, so ``gymnasium.make("Points24-v0")`` works. Nothing else is loaded: the
subpackages come when they are first used, and pygame with the first environment.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from gtr_envs.registration import ENVS, register_envs

__version__ = "0.1.0"
_LAZY = ("testing", "wrappers")
__all__ = ["ENVS", "testing", "wrappers"]


def __getattr__(name: str) -> ModuleType:
    """Import a subpackage when it is first used."""
    if name in _LAZY:
        return import_module(f"gtr_envs.{name}")
    raise AttributeError(f"module 'gtr_envs' has no attribute {name!r}; it has {sorted(__all__)}")


def __dir__() -> list[str]:
    """Names that can be used, the lazy ones included."""
    return sorted({*globals(), *_LAZY})


register_envs()
