"""Settings every test needs before anything draws, computes or talks to a model hub."""

from __future__ import annotations

import os

os.environ["SDL_VIDEODRIVER"] = "dummy"  # no test needs a display
os.environ["SDL_AUDIODRIVER"] = "dummy"
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # torch with one thread a test process: processes share the cores already
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a network
