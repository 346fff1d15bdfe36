"""DARE (arXiv 2311.03099): drop entries of a task vector at random and scale up the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from gtr_agents.merging.trim import check_density
from gtr_agents.seeding import torch_generator


def drop(vector: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability ``density``, divided by it, so that the expected value stays.

    Args:
        vector: A task vector, any shape.
        density: Probability of being kept, in (0, 1]; 1 keeps everything and draws nothing.
        generator: Where the mask is drawn from, on the CPU: every device then gets the same mask.

    Returns:
        A tensor of the same shape and type.

    Raises:
        MergeError: If density is outside (0, 1].
    """
    check_density(density)
    if density == 1.0:
        return vector
    kept = (torch.rand(vector.shape, generator=generator) < density).to(vector.device)
    return torch.where(kept, vector / density, torch.zeros_like(vector))


def mask_generator(seed: int, checkpoint: str, tensor: str) -> torch.Generator:
    """Return the generator of one mask.

    It depends on names only, so that the order of tensors and checkpoints, or a restart, changes no mask.

    Args:
        seed: The merge's seed.
        checkpoint: Id of the checkpoint.
        tensor: Name of the tensor.
    """
    return torch_generator(seed, "dare", checkpoint, tensor)
