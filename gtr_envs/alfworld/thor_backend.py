"""Decides how ALFWorld's games are played in AI2-THOR's rooms; the only door to ai2thor. Untested on Unity itself.

Upstream's environment is driven as it is. What it lacks is added around it: pictures in RGB, one grammar, the game that
was asked for, and a watch over its thread, whose death or silence would otherwise block the caller for ever. All of it
is tested against a stand-in for ai2thor's controller; Unity was never run with it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import random  # noqa: TID251 - upstream draws the wording of a task from it; seeded and put back around every call
import socket
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module, metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gtr_envs.alfworld.commands import normalise
from gtr_envs.alfworld.games import DATA_VARIABLE, TRAJECTORY_FILE, VERSIONS, read_json
from gtr_envs.alfworld.install import Missing
from gtr_envs.alfworld.wheel import TASK_TYPES, load_world
from gtr_envs.checks import checked_int
from gtr_envs.errors import DependencyError, EnvironmentClosedError, GameError, ThorError, ThorTimeoutError

if TYPE_CHECKING:
    from gtr_envs.alfworld.textworld_backend import EngineState
    from gtr_envs.rendering import Frame

MIN_SIZE, MAX_SIZE = 300, 2000
"""Sides of a picture in pixels; ai2thor refuses less than 300."""
BUILD = "thor-201909061227"
"""The only build of the simulator that ALFRED's recorded positions belong to."""
PACKAGES = {"alfworld": "0.4.2", "ai2thor": "2.1.0", "flask": "2.0.3", "werkzeug": "2.0.3"}
"""Distributions and the versions that work together; newer Flask breaks ai2thor's protocol."""
REMEDY = 'Run: pip install "gtr-suite[alfworld,thor]" (never alfworld[vis], which brings another torch)'
NOTHING = "Nothing happens."
"""The feedback of ALFWorld for a command that is not admissible."""
CLOSE_LIMIT = 10.0
"""Seconds that the simulator gets to end."""

_PLATFORMS = {"Linux": "Linux64", "Darwin": "OSXIntel64"}
_DETECTOR = "alfworld.agents.detector.mrcnn"
_REPLAYED: dict[str, tuple[str, ...]] = {
    "scene": ("scene_num", "floor_plan", "object_poses", "object_toggles", "dirty_and_empty", "init_action"),
    "plan": ("high_pddl",),
    "pddl_params": ("object_target", "parent_target", "toggle_target", "mrecep_target"),
}
_LOCK = threading.RLock()
"""Upstream draws from the global generator and prints, both of which belong to the whole process."""
_PATIENCE = 5.0
"""Seconds that upstream's thread gets to end when it has nothing more to do."""
_POLL = 0.05
"""Seconds between two looks at upstream's thread."""


# --- what is missing --------------------------------------------------------------------------------------------------


def probe_thor(data: str | os.PathLike[str] | None = None, split: str | None = None) -> list[Missing]:
    """Look for everything that THOR needs; nothing is downloaded and no process is started.

    Args:
        data: Folder of ALFRED's data; None for ``$ALFWORLD_DATA``.
        split: Split whose games are looked for; None looks for no games.

    Returns:
        What is missing, in the order in which it should be mended; empty if THOR can be tried.
    """
    found = [*_missing_packages(), *_missing_display(), *_missing_build()]
    return found if split is None else [*found, *_missing_games(data, split)]


def require_thor() -> None:
    """Check that THOR can be tried.

    Raises:
        DependencyError: If something is missing; the message names all of it and the remedies.
    """
    if missing := probe_thor():
        listed = "\n".join(f"- {item.what}. {item.remedy}." for item in missing)
        raise DependencyError(f"AI2-THOR needs what was not found:\n{listed}")


def _missing_packages() -> Iterator[Missing]:
    for name, wanted in PACKAGES.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Missing(f"package {name}=={wanted}: not installed", REMEDY)
            continue
        if installed != wanted:
            yield Missing(f"package {name}=={wanted}: found {installed}", f"Run: pip install {name}=={wanted}")
    try:
        import_module("cv2")
    except ImportError as error:
        yield Missing(f"package opencv (module cv2): {error}", "Run: pip install opencv-python-headless")


def _missing_display() -> Iterator[Missing]:
    """An X server with GLX is needed on Linux, a Mac draws without one; the build exists for these two only."""
    if platform.system() not in _PLATFORMS or platform.machine().lower() not in ("x86_64", "amd64"):
        yield Missing(
            f"platform: x86-64 Linux or macOS, found {platform.system()} on {platform.machine()}",
            "Play on such a machine, or without THOR: ALFWorld-v0 draws its own pictures",
        )
    elif platform.system() == "Linux":
        display = os.environ.get("DISPLAY", "")
        start = "Start one (on a machine without a screen e.g. `Xvfb :1 -screen 0 1024x768x24 +extension GLX`)"
        if not display:
            yield Missing("variable DISPLAY: not set", f"{start} and set DISPLAY, e.g. `export DISPLAY=:1`")
        elif trouble := _display_trouble(display):
            yield Missing(f"X server with GLX: {trouble}", f"{start}, or let DISPLAY name another")


def _display_trouble(display: str) -> str:
    """Ask an X server whether it knows GLX; empty if it does, or tells nothing to strangers."""
    try:
        with _connected(display) as server:
            # Version 11.0, least significant byte first, no password.
            server.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
            status, length = struct.unpack("<B5xH", _received(server, 8))
            if status != 1:
                return ""
            _received(server, 4 * length)
            server.sendall(struct.pack("<BxHHxx4s", 98, 3, 3, b"GLX"))
            has_glx = _received(server, 32)[8]
    except (OSError, ValueError) as error:
        return f"none answers at DISPLAY={display} ({error})"
    return "" if has_glx else f"the one at DISPLAY={display} has no GLX"


def _connected(display: str) -> socket.socket:
    """Connect to an X server, e.g. ``":0.0"`` or ``"host:1"``."""
    host, _, number = display.rpartition(":")
    port = int(number.partition(".")[0])
    if host in ("", "unix"):
        server = socket.socket(socket.AF_UNIX)
        try:
            server.settimeout(2)
            server.connect(f"/tmp/.X11-unix/X{port}")  # noqa: S108 - where X servers listen
        except OSError:
            server.close()
            raise
        return server
    return socket.create_connection((host, 6000 + port), timeout=2)


def _received(server: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        part = server.recv(n_bytes - len(data))
        if not part:
            raise OSError("it hung up")
        data += part
    return data


def _missing_build() -> Iterator[Missing]:
    if platform.system() in _PLATFORMS:
        name = f"{BUILD}-{_PLATFORMS[platform.system()]}"
        inside = Path(f"{name}.app", "Contents", "MacOS", name) if platform.system() == "Darwin" else Path(name)
        file = Path.home() / ".ai2thor" / "releases" / name / inside
        if not file.is_file():
            yield Missing(
                f"the simulator's build: no file {file}",
                f"Download http://s3-us-west-2.amazonaws.com/ai2-thor/builds/{name}.zip (390 MB), unpack it to "
                f"{file.parents[0]} and make the file executable",
            )


def _missing_games(data: str | os.PathLike[str] | None, split: str) -> Iterator[Missing]:
    named = data or os.environ.get(DATA_VARIABLE)
    remedy = f"Run `alfworld-download` and set {DATA_VARIABLE}; embedded games cannot be played in THOR"
    if not named:
        yield Missing(f"ALFRED's data: no folder was named and {DATA_VARIABLE} is not set", remedy)
    elif not any(file for version in VERSIONS for file in (Path(named) / version / split).rglob(TRAJECTORY_FILE)):
        yield Missing(f"ALFRED's data: no {VERSIONS[0]}/{split}/**/{TRAJECTORY_FILE} below {named}", remedy)


# --- the engine -------------------------------------------------------------------------------------------------------


class ThorEngine:
    """Plays ALFRED's games in AI2-THOR, through upstream's ``AlfredThorEnv`` and its oracle controller.

    Untested on Unity: it was run against a stand-in for ai2thor's controller only. It has the methods of
    ``textworld_backend.Engine``; a state has no facts, since THOR tells none. After an error of the simulator the
    engine cannot go on: close it and make another.
    """

    def __init__(
        self,
        *,
        size: int = 300,
        seed: int = 0,
        time_limit: float = 120.0,
        start_limit: float = 300.0,
        probe: bool = True,
    ) -> None:
        """Start the simulator.

        Args:
            size: Side of the pictures in pixels, 300 to 2000.
            seed: Decides how a task is worded; equal seeds word a game equally.
            time_limit: Seconds that a reset or a command may take; a reset looks at every receptacle of the room.
            start_limit: Seconds that the start may take.
            probe: False starts without looking for what is missing; ai2thor then downloads its build if it lacks it.

        Raises:
            OptionError: If an argument cannot be used.
            DependencyError: If something is missing; the message names all of it and the remedies.
            ThorError: If the simulator does not start.
            ThorTimeoutError: If it does not start in time.
        """
        size = checked_int("size", size, least=MIN_SIZE, most=MAX_SIZE)
        if probe:
            require_thor()
        self._seed, self._time_limit = seed, time_limit
        self._cause: BaseException | None = None
        self._broken: str | None = None
        self._sent: dict[str, str] = {}
        """Admissible command -> how upstream's parser wants it."""
        self._told: EngineState | None = None
        self._rate = 0.0
        self._wording: str | None = None
        """Seed of the task's wording; None before a game was loaded."""
        self._folder = tempfile.TemporaryDirectory(prefix="gtr-thor-")
        self._file = Path(self._folder.name) / TRAJECTORY_FILE
        self._env: Any = None
        try:
            with _LOCK, redirect_stdout(io.StringIO()):
                self._env = _upstream()(_config(size), train_eval="eval_out_of_distribution")
                self._env.seed(seed)
                self._within(start_limit, "the start", lambda: self._env.init_env(batch_size=1))
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> Mapping[str, str]:
        """Id -> name for the player, e.g. ``"cup 1"``, of everything that was seen so far."""
        controller = self._thread.controller if self._told else None
        known = {**controller.receptacles, **controller.objects} if controller else {}
        return {identity: str(item["num_id"]) for identity, item in known.items()}

    def load(self, game: str | os.PathLike[str] | Mapping[str, Any]) -> None:
        """Take a game.

        Args:
            game: A folder with a ``traj_data.json``, or the content of such a file.

        Raises:
            GameError: If it is missing, broken, or cannot be replayed in THOR.
            ThorError: If the simulator failed before.
            EnvironmentClosedError: If the engine was closed.
        """
        self._require_usable()
        trajectory = game if isinstance(game, Mapping) else read_json(Path(game) / TRAJECTORY_FILE)
        _require_replayable(trajectory)
        self._file.write_text(json.dumps(trajectory), encoding="utf-8")
        self._wording = f"{self._seed} {trajectory.get('task_id')}"
        self._told = None

    def reset(self) -> EngineState:
        """Go to the beginning of the game.

        Returns:
            The first state; its feedback is the introduction with the task.

        Raises:
            GameError: If no game was loaded.
            ThorError: If the simulator failed, now or before.
            ThorTimeoutError: If it did not answer in time.
            EnvironmentClosedError: If the engine was closed.
        """
        self._require_usable()
        if self._wording is None:
            raise GameError("Expected a game, but none was loaded; call load() first.")
        return self._ask("reset", self._reset_upstream)

    def step(self, command: str) -> EngineState:
        """Play a command.

        Args:
            command: One of the admissible commands; any other changes nothing, nor does any after the win.

        Returns:
            The state after it.

        Raises:
            GameError: If no game was begun.
            ThorError: If the simulator failed, now or before.
            ThorTimeoutError: If it did not answer in time.
            EnvironmentClosedError: If the engine was closed.
        """
        told = self._begun
        sent = self._sent.get(command.strip())
        if sent is None or told.won:
            return told._replace(feedback=NOTHING)
        return self._ask(f"the command {command!r}", lambda: self._env.step([sent])[-1])

    def frame(self) -> Frame:
        """Look through the agent's eyes.

        Returns:
            The picture, uint8 ``[size, size, 3]``, RGB.

        Raises:
            GameError: If no game was begun.
        """
        assert self._begun
        # Upstream turns THOR's RGB into OpenCV's BGR; here it is turned back.
        return np.ascontiguousarray(self._env.get_frames()[0][:, :, ::-1], dtype=np.uint8)

    def goal_rate(self) -> float:
        """Say how much of the task is done.

        Returns:
            Share of ALFRED's goal conditions that THOR counts as met, 0 to 1.

        Raises:
            GameError: If no game was begun.
        """
        assert self._begun
        return self._rate

    def close(self) -> None:
        """End the simulator; closing twice is allowed. Warns if it does not end in time."""
        env, self._env, self._told = self._env, None, None
        self._folder.cleanup()
        for thread in env.envs if env else ():
            with _LOCK, self._watching(thread), redirect_stdout(io.StringIO()):
                try:
                    if thread.env is not None:
                        self._within(CLOSE_LIMIT, "the end", thread.env.stop)
                except ThorError as error:
                    warnings.warn(f"AI2-THOR could not be ended: {error} A Unity process may be left.", stacklevel=2)
                # Upstream's thread waits for work for ever; what is no work at all ends it, by an error.
                thread.action_queue.put(None)
                thread.join(_PATIENCE)

    # --- upstream and its thread ------------------------------------------------------------------------------------

    @property
    def _thread(self) -> Any:
        """Upstream's thread, which works for the one environment of the batch."""
        return self._env.envs[0]

    @property
    def _begun(self) -> EngineState:
        self._require_usable()
        if self._told is None:
            raise GameError("Expected a running game, but none was begun; call load() and reset() first.")
        return self._told

    def _require_usable(self) -> None:
        if self._env is None:
            raise EnvironmentClosedError("This engine was closed and cannot be used again; make a new one.")
        if self._broken:
            raise ThorError(self._broken)

    def _reset_upstream(self) -> Mapping[str, Any]:
        # Upstream draws from this list, and reads it anew from the disk after every reset.
        self._env.json_file_list = [str(self._file)]
        return self._env.reset()[-1]  # type: ignore[no-any-return]

    def _ask(self, what: str, call: Callable[[], Mapping[str, Any]]) -> EngineState:
        """Let upstream do something, and see to it that it did."""
        from gtr_envs.alfworld.textworld_backend import EngineState

        thread = self._thread
        before = thread.get_results()
        try:
            with _LOCK, self._watching(thread), redirect_stdout(io.StringIO()), _seeded(self._wording):
                infos = self._within(self._time_limit, what, call, thread)
                if thread.get_results() is before:
                    # The old answer once more: an error is on its way through the thread and ends it.
                    thread.join(_PATIENCE)
                    raise self._failed(what)
        except ThorError as error:
            self._broken, self._told = f"{error} (The same failure as before.)", None
            raise
        known = {
            normalise(command): sent for command in infos["admissible_commands"][0] if (sent := self._mended(command))
        }
        self._sent = known
        self._rate = float(infos["goal_condition_success_rate"][0])
        feedback, won = thread.get_results()[0], bool(infos["won"][0])
        self._told = EngineState(feedback, tuple(sorted(known)), frozenset(), won)
        return self._told

    def _mended(self, command: str) -> str | None:
        """Write a command as upstream's parser wants it; None if it knows no such command.

        Version 0.4.2 offers ``move cup 1 to shelf 1`` and understands ``put cup 1 in/on shelf 1`` only.
        """
        controller = self._thread.controller
        words = command.split()
        forms = [command]
        if words[0] == "move":
            thing, _, place = command.removeprefix("move ").partition(" to ")
            forms.append(f"put {thing} in/on {place}")
        return next(
            (form for form in forms if controller.parse_command(form)["action"] != controller.Action.PASS), None
        )

    def _within(self, limit: float, what: str, call: Callable[[], Any], thread: Any = None) -> Any:
        """Wait for a call, but neither longer than the limit nor for a thread that is dead."""
        answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                answers.put((None, error))

        threading.Thread(target=work, daemon=True, name="gtr-thor").start()
        end = time.monotonic() + limit
        while True:
            try:
                answer, error = answers.get(timeout=_POLL)
            except Empty:
                if thread is not None and not thread.is_alive():
                    raise self._failed(what) from self._cause
                if time.monotonic() > end:
                    raise ThorTimeoutError(
                        f"AI2-THOR did not answer to {what} within {limit:g} s; Unity may hang or have lost its "
                        "display. Close this engine and make a new one; if it happens again, look at the X server and "
                        "~/.ai2thor/log, or allow more seconds."
                    ) from None
                continue
            if error is not None:
                if thread is not None:
                    thread.join(_PATIENCE)
                raise self._failed(what, error)
            return answer

    def _failed(self, what: str, error: BaseException | None = None) -> ThorError:
        cause = self._cause or error
        told = f"{type(cause).__name__}: {cause}" if cause else "its thread ended without a word"
        failure = ThorError(
            f"AI2-THOR failed at {what}: {told}. It cannot go on; close this engine and make a new one. If it fails "
            "at the same game again, leave that game out."
        )
        failure.__cause__ = cause
        return failure

    @contextmanager
    def _watching(self, thread: Any) -> Iterator[None]:
        """Learn of what upstream's thread dies."""
        others = threading.excepthook

        def heed(event: Any) -> None:
            if event.thread is thread:
                self._cause = event.exc_value
            else:
                others(event)

        threading.excepthook = heed
        try:
            yield
        finally:
            threading.excepthook = others


def _config(size: int) -> dict[str, Any]:
    """What upstream wants to know. No data folder: games are named one by one."""
    return {
        "env": {
            "thor": {
                "screen_height": size,
                "screen_width": size,
                "smooth_nav": False,
                "save_frames_to_disk": False,
                "save_frames_path": "",
            },
            "goal_desc_human_anns_prob": 0.0,
            "task_types": list(range(1, len(TASK_TYPES) + 1)),
        },
        "controller": {"type": "oracle", "load_receps": False, "debug": False},
        "dataset": {"eval_ood_data_path": "", "num_eval_games": -1},
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": sys.maxsize}},
    }


def _upstream() -> Any:
    """Import upstream's environment, without the detector that the oracle controller does not use."""
    # Reads the package's tables, and by that imports it without the marks it leaves in environment and home.
    load_world()
    stubs = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", _DETECTOR)}
    stubs["torchvision"].transforms = stubs["torchvision.transforms"]  # type: ignore[attr-defined]
    stubs[_DETECTOR].load_pretrained_model = None  # type: ignore[attr-defined]
    real = {name: sys.modules[name] for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        return import_module("alfworld.agents.environment.alfred_thor_env").AlfredThorEnv
    except ImportError as missing:
        raise DependencyError(f"AI2-THOR cannot be imported: {missing}. {REMEDY}") from missing
    finally:
        # Others ask for torchvision too, and must not find an empty one.
        for name in stubs:
            sys.modules.pop(name)
        sys.modules.update(real)


def _require_replayable(trajectory: Mapping[str, Any]) -> None:
    """Check that everything is there by which upstream sets a room up."""
    parts = {name: trajectory.get(name) for name in _REPLAYED}
    missing = [
        f"{name}.{key}"
        for name, keys in _REPLAYED.items()
        for key in keys
        if not isinstance(part := parts[name], Mapping) or key not in part
    ]
    if missing:
        raise GameError(
            f"Expected a trajectory of ALFRED that THOR can replay, but {', '.join(missing)} is missing. Embedded "
            f"games have none of it; name a folder of ALFRED's data with a {TRAJECTORY_FILE}."
        )
    if trajectory.get("task_type") not in TASK_TYPES or trajectory["pddl_params"].get("object_sliced"):
        raise GameError(
            f"Expected one of ALFWorld's task types {list(TASK_TYPES)} without slicing, got "
            f"{trajectory.get('task_type')!r}; leave this game out, as upstream does."
        )


@contextmanager
def _seeded(seed: str | None) -> Iterator[None]:
    """Give upstream a seeded global generator, and put the caller's back."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
