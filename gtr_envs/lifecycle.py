"""Decides the course of an environment's life: new, running, over, closed; and when its window is open."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium

from gtr_envs.errors import EnvironmentClosedError, ResetNeededError, require_known
from gtr_envs.rendering import Frame, Window


class Lifecycle:
    """What environments for one and for two players share: refusing what comes out of order, and showing frames.

    A subclass calls :meth:`_start` and :meth:`_end` as its episodes begin and end, and says what is shown
    (:meth:`_rendered`).
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium declares it so
    option_names: tuple[str, ...] = ()
    """Keys that ``reset(options=...)`` accepts."""

    def __init__(self, render_mode: str | None, render_size: int) -> None:
        """Set up; no window is opened.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            render_size: Side of rendered frames in pixels.

        Raises:
            OptionError: If the render mode is unknown.
        """
        if render_mode is not None:
            require_known("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.render_size = render_size
        self._phase = "new"
        self._window: Window | None = None

    @abstractmethod
    def _rendered(self) -> Frame:
        """A new frame, uint8 [render_size, render_size, 3]."""

    @property
    def is_running(self) -> bool:
        """True while an episode has begun and not ended."""
        return self._phase == "running"

    def render(self) -> Frame | None:
        """Show the present state.

        Returns:
            A new frame, uint8 [render_size, render_size, 3], in mode ``"rgb_array"``; None otherwise.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If there was no reset yet.
        """
        self._require_open()
        if self._phase == "new":
            raise ResetNeededError("Expected something to draw, but no episode has begun; call reset() first.")
        if self.render_mode == "rgb_array":
            return self._rendered()
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() was called without a render mode; pass one, e.g. gymnasium.make(..., render_mode='rgb_array')"
            )
        self._show()
        return None

    def close(self) -> None:
        """Close the window and refuse further use; closing twice is allowed."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._phase = "closed"

    def _start(self) -> None:
        """An episode has begun."""
        self._phase = "running"
        self._show()

    def _end(self) -> None:
        """The episode has ended."""
        self._phase = "over"

    def _show(self) -> None:
        """Bring the window up to date, if there is one to be."""
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(type(self).__name__, self.render_size, self.render_size)
            self._window.show(self._rendered(), self.metadata["render_fps"])

    def _require_open(self) -> None:
        if self._phase == "closed":
            raise EnvironmentClosedError("Expected an open environment, but close() was called; make a new one.")

    def _require_running(self) -> None:
        self._require_open()
        if not self.is_running:
            raise ResetNeededError("Expected a running episode, but it has ended or never begun; call reset() first.")

    def _checked_options(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Copy the options of a reset; an unknown key is an error."""
        for name in options or {}:
            require_known("reset option", name, self.option_names)
        return dict(options or {})

    def __getstate__(self) -> dict[str, Any]:
        """Leave the window behind: it belongs to the process."""
        return self.__dict__ | {"_window": None}
