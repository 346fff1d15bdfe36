"""Merged task vectors as products of chosen rank, or as a LoRA adapter; both tell how much of them is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging.lora import PREFIX
from gtr_agents.merging.state_dict import StateDict, compute_dtype
from gtr_agents.seeding import torch_generator

FACTOR_A, FACTOR_B = ".lora_A.weight", ".lora_B.weight"
"""What the names of the two factors of a task vector end with."""


@dataclass(frozen=True, slots=True)
class Factors:
    """Task vectors as products ``B @ A`` of chosen rank."""

    tensors: dict[str, Tensor]
    """``NAME.lora_A.weight`` (rank, in) and ``NAME.lora_B.weight`` (out, rank) of every task vector NAME (out, in)."""
    energy: dict[str, float]
    """Share of the squared norm that is kept, per task vector, in [0, 1]."""
    overall_energy: float
    """The same over all task vectors together."""


class Products(Mapping[str, Tensor]):
    """The task vectors that factors stand for; each ``B @ A`` is computed when it is asked for.

    Args:
        tensors: As in :attr:`Factors.tensors`.
    """

    def __init__(self, tensors: StateDict) -> None:
        self._tensors = tensors
        self._names = sorted(key.removesuffix(FACTOR_A) for key in tensors if key.endswith(FACTOR_A))

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name + FACTOR_B] @ self._tensors[name + FACTOR_A]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def is_factored(state: StateDict) -> bool:
    """True if a state holds factors (:attr:`Factors.tensors`) and not task vectors or weights."""
    return bool(state) and all(name.endswith((FACTOR_A, FACTOR_B)) for name in state)


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


def factorise(matrices: Iterable[tuple[str, Tensor]], rank: int, *, seed: int = 0, exact_up_to: int = 256) -> Factors:
    """Approximate matrices by products of chosen rank: the largest singular values of each.

    ``delta = U S V^T`` gives ``B = U sqrt(S)`` and ``A = sqrt(S) V^T``; the relative error is ``sqrt(1 - energy)``.
    Matrices of lower rank than asked for are padded with zeros, so that one rank fits all.

    Args:
        matrices: Names and task vectors, one after the other; no two are needed at once.
        rank: Rank of the result, >= 1.
        seed: Of the randomised decomposition.
        exact_up_to: Matrices whose smaller side is at most this are decomposed exactly.

    Returns:
        The factors and how much of the task vectors they keep.

    Raises:
        MergeError: If the rank is below 1, or a task vector is not a matrix.
    """
    if rank < 1:
        raise MergeError(f"rank must be at least 1, got {rank!r}")
    tensors: dict[str, Tensor] = {}
    kept, totals = {}, {}
    for name, given in matrices:
        if given.dim() != 2:
            raise MergeError(f"{name!r} with {given.dim()} axes cannot be a LoRA module; keep it as dense weights")
        matrix = given.to(compute_dtype(given))
        b, a, kept[name] = _factor(matrix, rank, exact_up_to, torch_generator(seed, "compress", name))
        totals[name] = float(matrix.double().square().sum())
        tensors[name + FACTOR_A], tensors[name + FACTOR_B] = a, b
    energy = {name: _share(kept[name], totals[name]) for name in totals}
    return Factors(tensors, energy, _share(sum(kept.values()), sum(totals.values())))


def compress(
    deltas: StateDict,
    rank: int,
    config: Mapping[str, Any],
    *,
    embeddings: Collection[str] = (),
    seed: int = 0,
    exact_up_to: int = 256,
) -> CompressedAdapter:
    """Approximate task vectors by an adapter of chosen rank, by :func:`factorise`.

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

    def as_peft_multiplies(name: str) -> Tensor:
        delta = deltas[name]
        if delta.dim() != 2 or not name.endswith(".weight"):
            raise MergeError(f"{name!r} with {delta.dim()} axes cannot be a LoRA module; use dense_weights for it")
        return delta.T if name in embeddings or config.get("fan_in_fan_out") else delta

    factors = factorise(((name, as_peft_multiplies(name)) for name in deltas), rank, seed=seed, exact_up_to=exact_up_to)
    tensors: dict[str, Tensor] = {}
    for name in deltas:
        module = PREFIX + name.removesuffix(".weight")
        a, b = ("lora_embedding_A", "lora_embedding_B") if name in embeddings else ("lora_A.weight", "lora_B.weight")
        tensors[f"{module}.{a}"] = factors.tensors[name + FACTOR_A]
        tensors[f"{module}.{b}"] = factors.tensors[name + FACTOR_B]
    # Scale 1, whatever the adapters had.
    ours = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    return CompressedAdapter(
        tensors,
        {**config, **ours, "modules_to_save": None, "bias": "none"},
        factors.energy,
        factors.overall_energy,
    )


def _share(kept: float, total: float) -> float:
    return min(kept / total, 1.0) if total > 0 else 1.0


def _factor(matrix: Tensor, rank: int, exact_up_to: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Return B (out, rank), A (rank, in) and the squared norm of their product."""
    if not bool(matrix.any()):  # the first teacher of a LoRA run
        return matrix.new_zeros(matrix.shape[0], rank), matrix.new_zeros(rank, matrix.shape[1]), 0.0
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
