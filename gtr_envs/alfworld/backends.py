"""Decides what the environment gets from an engine: TextWorld's facts and drawn pictures, or THOR's own frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from gtr_envs.alfworld.goals import goal_rate
from gtr_envs.alfworld.install import cache_folder
from gtr_envs.alfworld.scene import draw_view
from gtr_envs.alfworld.situation import Room, Situation, look, read_room, read_situation
from gtr_envs.alfworld.wheel import load_scene

if TYPE_CHECKING:
    from gtr_envs.alfworld.games import Game
    from gtr_envs.alfworld.textworld_backend import EngineState
    from gtr_envs.rendering import Frame
    from gtr_envs.styles import Look

BACKENDS = ("text", "thor")
"""What ``backend`` takes."""


class Moment(NamedTuple):
    """What is known after a command."""

    feedback: str
    """What the engine said."""
    admissible: tuple[str, ...]
    """Commands that can be played now, sorted."""
    won: bool
    """Whether the task is done."""
    rate: float
    """Share of the goal conditions that hold, 0 to 1."""
    situation: Situation | None
    """Everything that holds; None where the engine does not tell."""


class Backend(Protocol):
    """Plays games."""

    def begin(self, game: Game) -> Moment:
        """Go to the beginning of a game; the same game again is only rewound."""

    def step(self, command: str) -> Moment:
        """Play an admissible command."""

    def draw(self, size: int, style: Look, *, labels: bool) -> Frame:
        """Show what is before the agent, uint8 ``[size, size, 3]``."""

    def close(self) -> None:
        """Let the engine go."""


class TextBackend:
    """TextWorld's engine; pictures are drawn from its facts."""

    @staticmethod
    def require() -> None:
        """Raise DependencyError if the extra ``alfworld`` is not installed."""
        import gtr_envs.alfworld.textworld_backend  # noqa: F401

    def __init__(self) -> None:
        """Get an engine."""
        from gtr_envs.alfworld.textworld_backend import make_engine

        self._engine = make_engine(cache_folder())
        self._game: Game | None = None
        self._room: Room | None = None

    def begin(self, game: Game) -> Moment:
        """Load the game if it is another one, and go to its beginning."""
        if self._game is None or self._game.key != game.key:
            # What cannot be loaded leaves nothing that could be taken for it.
            self._game, self._room = None, None
            self._engine.load(game.data)
            self._game = game
        return self._moment(self._engine.reset())

    def step(self, command: str) -> Moment:
        """Play an admissible command."""
        return self._moment(self._engine.step(command))

    def draw(self, size: int, style: Look, *, labels: bool) -> Frame:
        """Draw the view; floor plans that are unknown have no grid."""
        assert self._game is not None
        grid = load_scene(self._game.scene).grid if self._game.scene is not None else ()
        return draw_view(look(self._situation, self._game.sentence, grid), size, labels=labels, look=style)

    def close(self) -> None:
        """Give the engine's library back."""
        self._engine.close()

    def _moment(self, state: EngineState) -> Moment:
        assert self._game is not None
        if self._room is None:
            self._room = read_room(state.facts, dict(self._engine.names))
        self._situation = read_situation(state.facts, self._room)
        rate = goal_rate(self._situation, self._game.task)
        return Moment(state.feedback, state.admissible, state.won, rate, self._situation)


class ThorBackend:
    """AI2-THOR's rooms, frames and goal conditions; untested on Unity itself."""

    @staticmethod
    def require() -> None:
        """Raise DependencyError if something is missing; all of it is named."""
        from gtr_envs.alfworld.thor_backend import require_thor

        require_thor()

    def __init__(self, size: int) -> None:
        """Start the simulator.

        Args:
            size: Side of its frames in pixels.

        Raises:
            ThorError: If the simulator does not start.
        """
        from gtr_envs.alfworld.thor_backend import MIN_SIZE, ThorEngine

        self._engine = ThorEngine(size=max(size, MIN_SIZE))

    def begin(self, game: Game) -> Moment:
        """Set the room up as the game's trajectory says."""
        self._engine.load(game.trajectory)
        return self._moment(self._engine.reset())

    def step(self, command: str) -> Moment:
        """Play an admissible command."""
        return self._moment(self._engine.step(command))

    def draw(self, size: int, style: Look, *, labels: bool) -> Frame:
        """Take the simulator's frame; it has no labels and one style."""
        del labels, style
        frame = self._engine.frame()
        # Each pixel is the one nearest to it: no colours that the simulator did not draw.
        chosen = (np.arange(size) + 0.5) * len(frame) / size
        index = chosen.astype(np.intp)
        return np.ascontiguousarray(frame[index][:, index])

    def close(self) -> None:
        """End the simulator."""
        self._engine.close()

    def _moment(self, state: EngineState) -> Moment:
        return Moment(state.feedback, state.admissible, state.won, self._engine.goal_rate(), None)
