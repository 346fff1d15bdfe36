"""Gradient checkpointing without training mode: layers compute their activations again in the backward pass.

The switch of transformers acts in training mode only, and the policy is always in evaluation mode, so that dropout is
off in every pass and the ratio is 1 before the first optimizer step. So the layers' forward is wrapped here instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from gtr_agents.errors import ModelError


def checkpointable_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a transformers model, of language and vision part alike, that can be computed again.

    Raises:
        ModelError: if it marks none.
    """
    layers: list[torch.nn.Module] = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no layers that support gradient checkpointing "
            "(transformers' GradientCheckpointingLayer). Set policy.gradient_checkpointing to false."
        )
    return layers


@contextmanager
def checkpointing(layers: Sequence[Any]) -> Iterator[None]:
    """Let these layers keep only their inputs in a forward pass with gradient; without gradient nothing changes.

    Modes and random numbers are left alone. Reentrant checkpoints would need an input with gradient, which a model has
    not whose own weights are frozen; these do not.

    Args:
        layers: modules in evaluation mode; the backward pass may come after the context has ended.
    """
    if not torch.is_grad_enabled():
        yield
        return
    wrapped: list[tuple[Any, Any]] = []
    try:
        for layer in layers:
            wrapped.append((layer, layer.__dict__.get("forward")))
            # No dropout acts, so there is no random state to keep for the second pass.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for layer, own in wrapped:
            if own is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = own
