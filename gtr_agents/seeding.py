"""How one run seed becomes many independent ones, each with a name."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def child_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of a named part of a run.

    The same arguments give the same seed in every process and on every platform; different ones give
    unrelated seeds.

    Args:
        seed: The run's seed, any integer.
        *names: Path of the part, e.g. ``"rollout", 3``.

    Returns:
        A seed in [0, 2**53), so that it also survives a JSON reader that knows only doubles.
    """
    # int() lets NumPy integers through, which JSON does not know.
    path = json.dumps([int(seed), *(name if isinstance(name, str) else int(name) for name in names)]).encode()
    entropy = int.from_bytes(hashlib.sha256(path).digest()[:16], "little")
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(11))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Build the NumPy generator of a named part of a run; arguments as for :func:`child_seed`."""
    return np.random.default_rng(child_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """Build the torch generator of a named part of a run.

    Args:
        seed: The run's seed, any integer.
        *names: Path of the part, as for :func:`child_seed`.
        device: Where the generator draws, e.g. ``"cuda:0"``.

    Returns:
        A seeded generator; torch's global one is not touched.
    """
    import torch  # kept out of the module so that seeding stays cheap to import

    return torch.Generator(device=device).manual_seed(child_seed(seed, *names))
