"""Settings every test needs before anything draws, computes or talks to a model hub."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"  # no test needs a display
os.environ["SDL_AUDIODRIVER"] = "dummy"
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # torch with one thread a test process: processes share the cores already
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a network


@pytest.fixture(autouse=True)
def threads_stay_as_they_are() -> Iterator[None]:
    """Commands set torch's threads; two of them on shared cores would make all later tests many times slower."""
    yield
    if torch := sys.modules.get("torch"):  # tests of the environments need none
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def ctrl_c_is_heard() -> Iterator[None]:
    """Let Ctrl-C interrupt, here and in programs that are started; a test run in the background ignores it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)
