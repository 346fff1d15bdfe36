"""Laws that any merge of checkpoints should keep, as a suite that any library can be put through.

Three suites, for three kinds of interface:

* :func:`judge_merge`: a function from task vectors of one tensor to their merge.
* :func:`judge_streaming`: an object that takes one checkpoint after the other, beside the merge of all at once.
* :func:`judge_lora`: a function from LoRA adapters in peft's format to merged dense task vectors.

Each gives one :class:`Verdict` per law; the ``check_`` functions raise if a law is broken, for use in tests::

    from gtr_agents.merging.testing import check_merge

    def my_merge(vectors, weights, density):  # lists of float64 tensors and of floats
        ...

    def test_my_merge():
        check_merge(my_merge)

The laws are those of TIES with a trim of each vector. A merge that trims nothing ignores the density and is put
through with ``densities=(1.0,)``; laws that it cannot keep are named in ``skip``, so that the exception stands in the
test. All cases are drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gtr_agents.merging.testing.lora_laws import LORA_LAWS, LoraMerge, LoraTrial
from gtr_agents.merging.testing.merge_laws import MERGE_LAWS, Merge, MergeTrial
from gtr_agents.merging.testing.stream_laws import STREAM_LAWS, StateMerge, Stream, StreamTrial, persistence
from gtr_agents.merging.testing.verdicts import LawBrokenError, Verdict, judge, raise_if_broken

__all__ = [
    "LORA_LAWS",
    "MERGE_LAWS",
    "STREAM_LAWS",
    "LawBrokenError",
    "Verdict",
    "check_lora",
    "check_merge",
    "check_streaming",
    "judge_lora",
    "judge_merge",
    "judge_streaming",
]


def judge_merge(
    merge: Merge,
    *,
    densities: Sequence[float] = (0.2, 0.5, 0.8, 1.0),
    skip: Iterable[str] = (),
    seed: int = 0,
    tolerance: float = 1e-9,
) -> list[Verdict]:
    """Try every law of a merge.

    Args:
        merge: The merge; it gets float64 tensors.
        densities: What it is tried with, in (0, 1]; ``(1.0,)`` if it trims nothing.
        skip: Laws that are not tried, names in :data:`MERGE_LAWS`.
        seed: Of the cases.
        tolerance: Largest difference that rounding may make; 1e-5 if the library computes in float32.

    Returns:
        One verdict per law.

    Raises:
        UnknownNameError: If a law to be skipped does not exist.
    """
    return judge(MERGE_LAWS, MergeTrial(merge, densities, seed=seed, tolerance=tolerance), skip)


def judge_streaming(
    start: Callable[[Mapping[str, Tensor]], Stream],
    batch: StateMerge,
    folder: Path,
    *,
    save: Callable[[Any, Path], Any] | None = None,
    load: Callable[[Path, Mapping[str, Tensor]], Stream] | None = None,
    skip: Iterable[str] = (),
    seed: int = 0,
    tolerance: float = 1e-9,
) -> list[Verdict]:
    """Try every law of a streaming merge.

    Args:
        start: Base to empty stream.
        batch: The merge of all checkpoints at once that the stream must equal.
        folder: An empty folder for what is saved.
        save: (stream, folder) to nothing; without it the law ``persistence`` is broken.
        load: (folder, base) to stream.
        skip: Laws that are not tried, names in :data:`STREAM_LAWS` or ``"persistence"``.
        seed: Of the run.
        tolerance: Largest difference that rounding may make; 1e-5 if the library computes in float32.

    Returns:
        One verdict per law.

    Raises:
        UnknownNameError: If a law to be skipped does not exist.
    """
    laws = STREAM_LAWS | {"persistence": lambda trial: persistence(trial, folder)}
    return judge(laws, StreamTrial(start, batch, save, load, seed=seed, tolerance=tolerance), skip)


def judge_lora(merge: LoraMerge, *, skip: Iterable[str] = (), seed: int = 0, tolerance: float = 1e-9) -> list[Verdict]:
    """Try every law of merging LoRA adapters.

    Args:
        merge: The merge; it gets float64 factors.
        skip: Laws that are not tried, names in :data:`LORA_LAWS`.
        seed: Of the adapters.
        tolerance: Largest difference that rounding may make; 1e-5 if the library computes in float32.

    Returns:
        One verdict per law.

    Raises:
        UnknownNameError: If a law to be skipped does not exist.
    """
    return judge(LORA_LAWS, LoraTrial(merge, seed=seed, tolerance=tolerance), skip)


def check_merge(merge: Merge, **options: Any) -> None:
    """Raise :class:`LawBrokenError` naming every broken law; arguments as for :func:`judge_merge`."""
    raise_if_broken(judge_merge(merge, **options))


def check_streaming(
    start: Callable[[Mapping[str, Tensor]], Stream], batch: StateMerge, folder: Path, **options: Any
) -> None:
    """Raise :class:`LawBrokenError` naming every broken law; arguments as for :func:`judge_streaming`."""
    raise_if_broken(judge_streaming(start, batch, folder, **options))


def check_lora(merge: LoraMerge, **options: Any) -> None:
    """Raise :class:`LawBrokenError` naming every broken law; arguments as for :func:`judge_lora`."""
    raise_if_broken(judge_lora(merge, **options))
