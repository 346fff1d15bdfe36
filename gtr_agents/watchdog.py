"""Watches over calls that may never come back: names the one that hangs, and ends it, or the run."""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import NonNegativeFloat

from gtr_agents.errors import HangError

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 10.0
EXIT_STATUS = 75
"""What a run that could not be interrupted ends with: try again later (EX_TEMPFAIL)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long something may take before it counts as hung, in seconds; 0 never."""

    step_s: NonNegativeFloat = 300.0
    """One step or reset of one environment."""
    answer_s: NonNegativeFloat = 1800.0
    """One batch of answers, or of values, of the model."""
    grace_s: NonNegativeFloat = 60.0
    """How long a hung call has to react to its interruption, before the process ends without it."""


class Watchdog:
    """Interrupts a call of the main thread that takes too long, and says which one it was.

    A hung call is interrupted as Ctrl-C would; Python code, sleeps and waits for sockets end by that. Code of another
    language that does not return cannot be interrupted: then the process ends, with a message, and the run goes on
    from its last checkpoint. The stacks of all threads are written down in both cases.

    Args:
        limits: How long calls may take.
        folder: Where the stacks go, as ``hang.txt``, and every ten seconds a sign of life, as ``heartbeat.json``; None
            writes neither.
    """

    def __init__(self, limits: Limits | None = None, folder: str | Path | None = None) -> None:
        self.limits = limits or Limits()
        self.folder = None if folder is None else Path(folder)
        self.phase = ""
        """What the run is doing, for the sign of life."""
        self._current: tuple[str, float, float] | None = None  # what, its limit, when it is over
        self._hung: str | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()

    @contextlib.contextmanager
    def watch(self, what: str, seconds: float) -> Iterator[None]:
        """Watch over a block; outside the main thread, which alone can be interrupted, do nothing.

        Args:
            what: What runs, as the error names it.
            seconds: How long it may take; 0 for ever.

        Raises:
            HangError: If it took longer and could be interrupted.
        """
        if not seconds or threading.current_thread() is not threading.main_thread():
            yield
            return
        if self._thread is None:
            self._start()
        self._current = (what, seconds, time.monotonic() + seconds)
        try:
            yield
        except KeyboardInterrupt:
            if self._hung is None:
                raise
        finally:
            self._current = None
        if (hung := self._hung) is not None:
            self._hung = None
            raise HangError(hung)

    def __enter__(self) -> Self:
        """Return itself; it begins to watch when there is something to watch."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def close(self) -> None:
        """Stop watching."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self) -> None:
        self._done.clear()
        self._thread = threading.Thread(target=self._guard, name="watchdog", daemon=True)
        self._thread.start()

    def _guard(self) -> None:
        """Look now and then whether what runs is overdue; in a thread of its own."""
        beat = 0.0
        while not self._done.wait(POLL_SECONDS):
            current = self._current
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self._write_heartbeat(None if current is None else current[0])
            if current is None or time.monotonic() < current[2]:
                continue
            what, seconds, _ = current
            stacks = self._write_stacks(what)
            self._hung = f"{what} has not come back within {seconds:g} seconds. {stacks}"
            if self._current is not current:  # it came back just now
                self._hung = None
                continue
            _interrupt_main_thread()
            over = time.monotonic() + self.limits.grace_s
            while self._current is current and not self._done.wait(POLL_SECONDS):
                if time.monotonic() > over:
                    sys.stderr.write(
                        f"gtr: error: {self._hung} It could not be interrupted either, so the process ends. "
                        "Go on from the last checkpoint with gtr train --resume.\n"
                    )
                    sys.stderr.flush()
                    os._exit(EXIT_STATUS)

    def _write_heartbeat(self, what: str | None) -> None:
        if self.folder is None:
            return
        sign = {
            "alive": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": os.getpid(),
            "phase": self.phase,
            "doing": what,
        }
        with contextlib.suppress(OSError):  # a full disk is for others to tell
            fresh = self.folder / "heartbeat.json.tmp"
            fresh.write_text(json.dumps(sign) + "\n", encoding="utf-8")
            fresh.replace(self.folder / "heartbeat.json")

    def _write_stacks(self, what: str) -> str:
        """Write down what every thread is doing; returns where."""
        if self.folder is None:
            return ""
        path = self.folder / "hang.txt"
        with path.open("w", encoding="utf-8") as file:
            file.write(f"{what}\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return f"What every thread was doing stands in {path}."


def _interrupt_main_thread() -> None:
    """Do what Ctrl-C does; where a thread can be signalled, waits of the operating system end as well."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
