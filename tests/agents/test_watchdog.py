"""What hangs is named and ended; what cannot be ended ends the process; what breaks can be brought there again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from small_models import CountingEnv, ScriptedActor

from gtr_agents import watchdog
from gtr_agents.errors import EnvironmentFailedError, HangError
from gtr_agents.rollout import RolloutCollector
from gtr_agents.watchdog import EXIT_STATUS, Limits, Watchdog

pytestmark = pytest.mark.usefixtures("ctrl_c_is_heard")
QUICK = Limits(step_s=0.3, answer_s=0.3, grace_s=5.0)


class Hanging(CountingEnv):
    """Does not come back from its third step."""

    def step(self, action: str) -> Any:
        if self.age == 2:
            time.sleep(60)
        return super().step(action)


class Breaking(CountingEnv):
    def step(self, action: str) -> Any:
        return super().step(action) if self.age < 2 else {}["missing"]


def up(_: str) -> str:
    return "up"


def test_an_environment_that_hangs_is_named_with_the_way_there(tmp_path: Path) -> None:
    with Watchdog(QUICK, tmp_path) as dog:
        collector = RolloutCollector(Hanging, 2, watchdog=dog)
        started = time.monotonic()
        with pytest.raises(
            HangError,
            match=r"Environment 0, step\('up'\) after reset\(seed=7\) and the actions \['up', 'up'\] has not come back "
            r"within 0\.3 seconds.*hang\.txt",
        ):
            collector.play_steps(ScriptedActor(up), 10, count(7))
        assert time.monotonic() - started < 5
    stacks = (tmp_path / "hang.txt").read_text()
    assert "in step" in stacks
    assert "Environment 0" in stacks


def test_a_model_that_hangs_is_named() -> None:
    actor = ScriptedActor(lambda _: time.sleep(60))
    with Watchdog(QUICK) as dog, pytest.raises(HangError, match=r"The model, answering 2 prompts, has not come back"):
        RolloutCollector(CountingEnv, 2, watchdog=dog).play_steps(actor, 10, count())


def test_a_wait_for_a_socket_ends_too() -> None:
    with Watchdog() as dog, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(HangError, match="The wait has not come back"), dog.watch("The wait", 0.3):
            server.accept()


def test_what_is_quick_enough_is_left_alone_and_ctrl_c_stays_ctrl_c() -> None:
    with Watchdog(QUICK) as dog:
        for _ in range(3):
            with dog.watch("a nap", 0.5):
                time.sleep(0.1)
        time.sleep(0.6)  # nothing is watched here
        with pytest.raises(KeyboardInterrupt), dog.watch("somebody", 5):
            raise KeyboardInterrupt
        with pytest.raises(ValueError, match="own"), dog.watch("somebody", 5):
            raise ValueError("own")


def test_nothing_is_watched_without_a_limit_or_outside_the_main_thread() -> None:
    dog = Watchdog(QUICK)
    with dog.watch("anything", 0):
        pass

    def elsewhere() -> None:
        with dog.watch("anything", 0.1):
            pass

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not [t for t in threading.enumerate() if t.name == "watchdog"]


def test_a_sign_of_life_is_written(tmp_path: Path) -> None:
    with Watchdog(QUICK, tmp_path) as dog:
        dog.phase = "collecting"
        with dog.watch("the environment", 30):
            for _ in range(100):
                if (tmp_path / "heartbeat.json").exists():
                    break
                time.sleep(0.05)
    sign = json.loads((tmp_path / "heartbeat.json").read_text())
    assert (sign["phase"], sign["doing"]) == ("collecting", "the environment")
    assert not [t for t in threading.enumerate() if t.name == "watchdog"]


def test_what_cannot_be_interrupted_ends_the_process(tmp_path: Path) -> None:
    program = f"""
import signal
from gtr_agents.watchdog import Limits, Watchdog
import threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as deaf as native code
with Watchdog(Limits(grace_s=0.5), {str(tmp_path)!r}) as dog, dog.watch("The deaf one", 0.3):
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == EXIT_STATUS
    assert "The deaf one has not come back within 0.3 seconds" in done.stderr
    assert "gtr train --resume" in done.stderr
    assert (tmp_path / "hang.txt").is_file()


def test_an_environment_that_breaks_can_be_brought_there_again() -> None:
    collector = RolloutCollector(Breaking, 2)
    expected = (
        r"Environment 0, step\('up'\) failed after reset\(seed=3\) and the actions \['up', 'up'\]: KeyError: 'missing'"
    )
    with pytest.raises(EnvironmentFailedError, match=expected) as caught:
        collector.play_episodes(ScriptedActor(up), [3, 4])
    assert isinstance(caught.value.__cause__, KeyError)


def test_without_signals_for_threads_the_main_thread_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(watchdog.signal, "pthread_kill")

    def busy() -> None:
        while True:
            time.sleep(0.01)

    with Watchdog() as dog, pytest.raises(HangError), dog.watch("busy", 0.3):
        busy()
