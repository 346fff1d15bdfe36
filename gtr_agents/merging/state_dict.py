"""What may be merged: checks, task vectors and identity of named tensors (state dicts)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gtr_agents.errors import MergeError

StateDict = Mapping[str, Tensor]


def copy_state(state: StateDict) -> dict[str, Tensor]:
    """Copy every tensor, detached and contiguous, so that later training cannot change it.

    Args:
        state: Named tensors, e.g. ``model.state_dict()``, whose tensors are the live parameters.

    Returns:
        A new dict of new tensors on the same devices, in the order of their names: a state that was saved comes back
        in that order, and sums over both must round alike.
    """
    return {name: state[name].detach().clone(memory_format=torch.contiguous_format) for name in sorted(state)}


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type a tensor is merged in: float64 stays, every other float type becomes float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def check_compatible(base: StateDict, checkpoint: StateDict, name: str = "checkpoint") -> None:
    """Check that a checkpoint can be merged onto a base.

    Args:
        base: The model at the start of the run.
        checkpoint: The later model.
        name: How messages call the checkpoint.

    Raises:
        MergeError: If tensors are missing, added, of another shape, or not finite.
    """
    check_names(base, checkpoint, name)
    for key, start in base.items():
        check_tensor(start, checkpoint[key], key, name)


def check_names(base: StateDict, checkpoint: StateDict, name: str) -> None:
    """Raise :class:`MergeError` if a checkpoint has not the names of its base; no tensor is read."""
    if base.keys() != checkpoint.keys():
        missing = sorted(base.keys() - checkpoint.keys())[:3]
        extra = sorted(checkpoint.keys() - base.keys())[:3]
        raise MergeError(
            f"{name} must hold the same tensors as the base; missing: {missing}, not in the base: {extra}. "
            "Merge checkpoints of one run only."
        )


def check_tensor(start: Tensor, tensor: Tensor, key: str, name: str) -> None:
    """Raise :class:`MergeError` if one tensor of a checkpoint has another shape than the base's or is not finite."""
    if tensor.shape != start.shape:
        raise MergeError(f"{name}: {key!r} must have shape {tuple(start.shape)}, got {tuple(tensor.shape)}")
    # The extremes are NaN if any entry is, and finding them needs no memory.
    if tensor.is_floating_point() and tensor.numel() and not bool(torch.isfinite(torch.stack(tensor.aminmax())).all()):
        raise MergeError(f"{name}: {key!r} holds NaN or infinity; drop this checkpoint, its training diverged")


def check_weights(weights: Sequence[float], count: int) -> None:
    """Check merge weights.

    Args:
        weights: One per checkpoint; only their ratios matter.
        count: Number of checkpoints.

    Raises:
        MergeError: If there are more or fewer weights than checkpoints, or they are negative, not finite or
            all 0.
    """
    if len(weights) != count:
        raise MergeError(f"expected one weight per checkpoint: {count} checkpoints, got {len(weights)} weights")
    if not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0:
        raise MergeError(f"weights must be finite, >= 0 and not all 0, got {list(weights)!r}")


def task_vector(base: Tensor, checkpoint: Tensor) -> Tensor:
    """Return checkpoint minus base, both converted before the subtraction (bf16 would lose small deltas)."""
    dtype = compute_dtype(base)
    return checkpoint.detach().to(base.device, dtype) - base.detach().to(dtype)


def add_delta(base: Tensor, delta: Tensor, lam: float, dtype: torch.dtype | None = None) -> Tensor:
    """Return base plus ``lam`` times delta, added in the merge type and cast once: to ``dtype``, or the base's type."""
    return (base.detach().to(delta.dtype) + lam * delta).to(dtype or base.dtype)


def state_hash(state: StateDict) -> str:
    """Compute the SHA-256 of names, types, shapes and bytes of all tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
