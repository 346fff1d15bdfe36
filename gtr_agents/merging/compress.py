"""Merged task vectors as a LoRA adapter of chosen rank, which tells how much of them it keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging.lora import PREFIX
from gtr_agents.merging.state_dict import StateDict
from gtr_agents.seeding import torch_generator


@dataclass(frozen=True, slots=True)
class CompressedAdapter:
    """Task vectors as a LoRA adapter of lower rank, in peft's format."""

    tensors: dict[str, Tensor]
    """What belongs into ``adapter_model.safetensors``."""
    config: dict[str, Any]
    """What belongs into ``adapter_config.json``; its scale is 1."""
    energy: dict[str, float]
    """Share of the squared norm that is kept, per weight, in [0, 1]; the relative error is ``sqrt(1 - energy)``."""
    overall_energy: float
    """The same over all weights together."""


def compress(
    deltas: StateDict,
    rank: int,
    config: Mapping[str, Any],
    *,
    embeddings: Collection[str] = (),
    seed: int = 0,
    exact_up_to: int = 256,
) -> CompressedAdapter:
    """Approximate task vectors by an adapter of chosen rank: the largest singular values of each.

    ``delta = U S V^T`` gives ``B = U sqrt(S)`` and ``A = sqrt(S) V^T``. Weights of lower rank than asked for are padded
    with zeros, so that one rank fits all.

    Args:
        deltas: Task vectors by the names of the base's weights.
        rank: Rank of the result, >= 1.
        config: Of the adapters that were merged; the result's differs in rank and scale only.
        embeddings: Names of embedding weights among them (:attr:`LoraDeltas.embeddings`).
        seed: Of the randomised decomposition.
        exact_up_to: Matrices whose smaller side is at most this are decomposed exactly.

    Returns:
        The adapter and how much of the task vectors it keeps.

    Raises:
        MergeError: If the rank is below 1, or a task vector is not a matrix that LoRA could hold.
    """
    if rank < 1:
        raise MergeError(f"rank must be at least 1, got {rank!r}")
    tensors: dict[str, Tensor] = {}
    kept, totals = {}, {}
    for name in deltas:
        delta = deltas[name]
        if delta.dim() != 2 or not name.endswith(".weight"):
            raise MergeError(f"{name!r} with {delta.dim()} axes cannot be a LoRA module; use dense_weights for it")
        is_embedding = name in embeddings
        matrix = delta.T if is_embedding or config.get("fan_in_fan_out") else delta
        b, a, kept[name] = _factor(matrix, rank, exact_up_to, torch_generator(seed, "compress", name))
        totals[name] = float(delta.double().square().sum())
        module = PREFIX + name.removesuffix(".weight")
        tensors[f"{module}.lora_embedding_A" if is_embedding else f"{module}.lora_A.weight"] = a
        tensors[f"{module}.lora_embedding_B" if is_embedding else f"{module}.lora_B.weight"] = b
    # Scale 1, whatever the adapters had.
    ours = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    return CompressedAdapter(
        tensors,
        {**config, **ours, "modules_to_save": None, "bias": "none"},
        {name: _share(kept[name], totals[name]) for name in totals},
        _share(sum(kept.values()), sum(totals.values())),
    )


def _share(kept: float, total: float) -> float:
    return min(kept / total, 1.0) if total > 0 else 1.0


def _factor(matrix: Tensor, rank: int, exact_up_to: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Return B (out, rank), A (rank, in) and the squared norm of their product."""
    if min(matrix.shape) <= max(exact_up_to, rank):
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    else:
        u, s, vt = randomised_svd(matrix, rank, generator)
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    missing = rank - s.numel()
    b, a = u * s.sqrt(), s.sqrt().unsqueeze(1) * vt
    b, a = torch.nn.functional.pad(b, (0, missing)), torch.nn.functional.pad(a, (0, 0, 0, missing))
    return b.contiguous(), a.contiguous(), float(s.double().square().sum())


def randomised_svd(
    matrix: Tensor, rank: int, generator: torch.Generator, *, oversampling: int = 8, iterations: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate the largest singular values (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.4 and 5.1).

    Args:
        matrix: (m, n), float32 or float64.
        rank: How many singular values are wanted.
        generator: Draws the directions, on the CPU.
        oversampling: Directions drawn beyond the rank.
        iterations: Passes that sharpen the directions; two are enough for the slowly falling values of TIES.

    Returns:
        U (m, k), S (k,) and V^T (k, n) with ``k = min(rank + oversampling, m, n)``; the first ``rank`` are meant.
    """
    k = min(rank + oversampling, *matrix.shape)
    directions = torch.randn(matrix.shape[1], k, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.linalg.qr(matrix @ directions).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, vt = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vt
