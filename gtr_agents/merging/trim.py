"""Which entries of a task vector survive: the k largest magnitudes, found without sorting.

Two exact ways to find the k-th largest magnitude give the same bits. Measured on one core (float32, density 0.8): at 4
million entries a histogram takes 18 ms, ``kthvalue`` 74 ms, ``topk`` 339 ms and ``argsort`` 390 ms; at 20 thousand
``kthvalue`` takes 0.2 ms and a histogram 0.9 ms. So large vectors are counted and small ones selected. Counting also
adds up over pieces of a vector and over tensors, which gives a threshold over a whole checkpoint
(``trim_scope="global"``) in one pass per 16 bits with one piece in memory. ``benchmarks/merging_speed.py`` measures
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging.state_dict import StateDict, task_vector

BITS = 16
"""Bits counted at a time: two passes for float32, four for float64."""
BUCKETS = 1 << BITS
PIECE = 1 << 20
"""Entries counted at a time, so that temporaries stay small whatever the tensor's size."""
SELECT_BELOW = 1 << 16
"""Up to this size ``kthvalue`` is faster than walking through the buckets."""

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""The integer type whose order is that of the magnitudes: IEEE 754 bits without the sign grow with the value."""


def check_density(density: float) -> None:
    """Raise :class:`MergeError` if density is outside (0, 1]."""
    if not 0.0 < density <= 1.0:
        raise MergeError(f"density must be in (0, 1], got {density!r}")


def n_kept(n: int, density: float) -> int:
    """Return how many of n entries a density keeps: ``max(1, int(density * n))``, so that none vanishes altogether."""
    return max(1, int(density * n))


def trim(vector: Tensor, density: float) -> Tensor:
    """Keep the entries of largest magnitude and set the others to 0.

    Args:
        vector: A task vector, any shape; float32 or float64, finite.
        density: Share kept, in (0, 1]; :func:`n_kept` entries and those equal to the smallest of them.

    Returns:
        A tensor of the same shape and type.

    Raises:
        MergeError: If density is outside (0, 1].
    """
    check_density(density)
    n = vector.numel()
    k = n_kept(n, density)
    if k >= n:
        return vector
    if n < SELECT_BELOW:
        return trim_below(vector, vector.abs().flatten().kthvalue(n - k + 1).values)
    return trim_below(vector, kth_largest(lambda: [vector], k))


def trim_below(vector: Tensor, threshold: Tensor) -> Tensor:
    """Set the entries whose magnitude is below a threshold to 0.

    Args:
        vector: A task vector, any shape.
        threshold: One number, >= 0, as a tensor without axes.

    Returns:
        A tensor of the same shape and type.
    """
    kept = vector.abs().to(threshold.dtype) >= threshold.to(vector.device)
    return torch.where(kept, vector, 0.0)


def global_threshold(vectors: Callable[[], Iterable[Tensor]], density: float) -> Tensor:
    """Find the one threshold that trims all tensors of a checkpoint together.

    Args:
        vectors: Gives the task vectors, one after the other and each time anew; once for
            the sizes, once for the type and once per pass. All must have one type.
        density: Share of all entries together that is kept, in (0, 1].

    Returns:
        The threshold for :func:`trim_below`, a tensor without axes; 0 if there is no entry.

    Raises:
        MergeError: If density is outside (0, 1].
    """
    check_density(density)
    n = sum(vector.numel() for vector in vectors())
    return kth_largest(vectors, n_kept(n, density)) if n else torch.zeros(())


def checkpoint_threshold(base: StateDict, checkpoint: StateDict, density: float) -> Tensor:
    """Find the threshold that trims all task vectors of a checkpoint together, reading one tensor at a time.

    Args:
        base: The model at the start of the run.
        checkpoint: The same tensors as the base.
        density: Share of all entries together that is kept, in (0, 1].

    Returns:
        The threshold for :func:`trim_below`, a tensor without axes.
    """
    names = [name for name, start in base.items() if start.is_floating_point()]
    double = any(base[name].dtype == torch.float64 for name in names)

    def vectors() -> Iterator[Tensor]:
        for name in names:
            vector = task_vector(base[name], checkpoint[name])
            yield vector.double() if double else vector

    return global_threshold(vectors, density)


def kth_largest(vectors: Callable[[], Iterable[Tensor]], k: int) -> Tensor:
    """Find the k-th largest magnitude over any number of tensors, exactly, by counting the bits from the top.

    Args:
        vectors: Gives the tensors, each time anew; float32 or float64, all of one type, finite.
        k: 1 for the largest; at most the number of all entries.

    Returns:
        The magnitude, a tensor without axes on the CPU, in the type of the tensors.
    """
    dtype = next(iter(vectors())).dtype
    prefix: int | None = None
    for shift in range(torch.finfo(dtype).bits - BITS, -1, -BITS):
        counts = torch.zeros(BUCKETS, dtype=torch.int64)
        for vector in vectors():
            counts += _count(vector, shift, prefix)
        from_top = counts.flip(0).cumsum(0)
        above = int(torch.searchsorted(from_top, k))
        k -= int(from_top[above - 1]) if above else 0
        prefix = ((prefix or 0) << BITS) | (BUCKETS - 1 - above)
    return torch.tensor(prefix, dtype=INTEGERS[dtype]).view(dtype)


def _count(vector: Tensor, shift: int, prefix: int | None) -> Tensor:
    """Count the 16 bits above ``shift`` among the entries whose higher bits are ``prefix`` (all entries if None)."""
    counts = torch.zeros(BUCKETS, dtype=torch.int64, device=vector.device)
    for piece in vector.reshape(-1).split(PIECE):
        bits = piece.abs().view(INTEGERS[vector.dtype])
        if prefix is not None:
            bits = bits[(bits >> (shift + BITS)) == prefix]
        counts += torch.bincount((bits >> shift) & (BUCKETS - 1), minlength=BUCKETS)
    return counts.cpu()
