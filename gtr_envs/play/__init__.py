"""Decides how an environment is opened for a person, who then plays in a window or in a terminal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, TextIO

import gymnasium
from gymnasium.envs.registration import load_env_creator

from gtr_envs.core import VisionTextEnv
from gtr_envs.errors import OptionError, PlayError, require_known
from gtr_envs.play.game import Game
from gtr_envs.play.terminal import play_in_terminal
from gtr_envs.play.window import Screen, play_in_window
from gtr_envs.registration import COMPAT_ENVS, ENVS

PICTURE_SIZE = 560
"""Side of the picture in the window, in pixels."""

__all__ = ["Game", "Screen", "play"]


def play(
    env_id: str,
    *,
    terminal: bool = False,
    seed: int | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    **kwargs: Any,
) -> None:
    """Let a person play an environment until they quit.

    Args:
        env_id: A registered id, with ``"module:"`` in front if a module registers it.
        terminal: True reads lines from a terminal instead of opening a window; it tells in words what a picture would
            show, and nothing else.
        seed: Seed of the first episode; None for a different one every time.
        stdin: Where the terminal mode reads; None for the standard input.
        stdout: Where the terminal mode writes; None for the standard output.
        **kwargs: Arguments of the environment's constructor; the render mode is always ``"rgb_array"``.

    Raises:
        UnknownNameError: If there is no such environment, or it has no such argument.
        OptionError: If an argument cannot be used.
        PlayError: If the actions have no names, or if a terminal cannot show the environment.
        DisplayError: If a window is wanted where there is no display.

    >>> from io import StringIO
    >>> play("Points24-v0", terminal=True, seed=3, stdin=StringIO("2+3*4+10="), stdout=(out := StringIO()))
    >>> "You won! 8 moves, return +10." in out.getvalue()
    True
    """
    env = _make(env_id, kwargs, terminal=terminal)
    try:
        game = Game(env, seed)
        if terminal:
            _require_text(env, env_id)
            play_in_terminal(game, stdin or sys.stdin, stdout or sys.stdout)
        else:
            play_in_window(game, env_id)
    finally:
        env.close()


def _make(env_id: str, kwargs: Mapping[str, Any], *, terminal: bool) -> gymnasium.Env[Any, Any]:
    """Make an environment, with what playing needs as far as its constructor takes it."""
    module, _, name = env_id.rpartition(":")
    try:
        importlib.import_module(module or "gtr_envs")
    except ImportError as error:
        raise OptionError(f"Cannot import the module that {env_id!r} names: {error}.") from error
    if name not in gymnasium.registry:
        require_known("environment", name, [*ENVS, *COMPAT_ENVS])
    entry_point = gymnasium.registry[name].entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = signature(creator).parameters if creator else {}
    # Such a constructor hands arguments on, and whoever gets them knows the names.
    takes_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    for argument in () if takes_all else kwargs:
        require_known(f"argument of {name}", argument, parameters)
    needed = {"observe": "text"} if terminal else {}
    wanted = {"render_size": PICTURE_SIZE, **kwargs, **needed}
    taken = {argument: value for argument, value in wanted.items() if takes_all or argument in parameters}
    return gymnasium.make(name, **(taken | {"render_mode": "rgb_array"}))


def _require_text(env: gymnasium.Env[Any, Any], env_id: str) -> None:
    """Raise unless the state can be told in words."""
    if isinstance(env.unwrapped, VisionTextEnv):
        return
    twin = next((known for known in ENVS if known.endswith(env_id.rpartition("/")[2])), None)
    elsewhere = f", or play its twin {twin} in the terminal" if twin else ""
    raise PlayError(f"{env_id} shows pictures without text; play it in a window{elsewhere}.")
