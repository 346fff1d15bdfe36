"""The laws of a merge of task vectors, and the cases they are tried on.

Entries are multiples of 1/8, whose sums are exact, so that elections that are tied stay tied in every order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gtr_agents.merging.testing.verdicts import LawBrokenError, Trial, raises
from gtr_agents.seeding import torch_generator

Merge = Callable[[Sequence[Tensor], Sequence[float], float], Tensor]
"""(task vectors of one tensor, one weight each, density) to merged task vector."""
N_CASES = 12
"""Random cases a law is tried on, beside the fixed ones."""


@dataclass(frozen=True, slots=True)
class Case:
    """Task vectors with weights and a density."""

    vectors: list[Tensor]
    """Of one shape, float64."""
    weights: list[float]
    """One each, > 0."""
    density: float
    """In (0, 1]."""

    def __str__(self) -> str:
        return f"vectors {[v.tolist() for v in self.vectors]}, weights {self.weights}, density {self.density}"


@dataclass(slots=True)
class MergeTrial(Trial):
    """A merge and the cases it is tried on."""

    merge: Merge
    """The merge on trial."""
    densities: Sequence[float] = (0.2, 0.5, 0.8, 1.0)
    """Densities it is tried with."""

    def cases(self, name: str) -> Iterator[Case]:
        """Give the cases of a law: fixed ones with zeros, equal magnitudes and one entry, then random ones."""
        fixed: list[list[list[float]]] = [
            [[2.0]],
            [[0.0, 0.0, 1.0], [0.0, -1.0, 1.0]],
            [[0.5, 0.0, 0.0], [-0.5, 0.0, 1.0]],
            [[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0], [0.5, -2.0, 2.0, 0.5]],
        ]
        for values in fixed:
            for density in self.densities:
                yield Case([_tensor(v) for v in values], [1.0] * len(values), density)
        generator = torch_generator(self.seed, "merge laws", name)
        for number in range(N_CASES):
            count, size = (int(torch.randint(1, top, (), generator=generator)) for top in (6, 9))
            entries = torch.randint(-16, 17, (count, size), generator=generator, dtype=torch.int64) / 8
            choice = torch.randint(0, 4, (count,), generator=generator)
            weights = [(0.25, 0.5, 1.0, 2.0)[int(c)] for c in choice]
            yield Case(list(entries.double()), weights, self.densities[number % len(self.densities)])


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _trimmed(vector: Tensor, density: float) -> Tensor:
    """Trim by sorting: slow, and obviously right."""
    kept = max(1, int(density * vector.numel()))
    smallest = sorted((abs(x) for x in vector.tolist()), reverse=True)[kept - 1]
    return torch.where(vector.abs() >= smallest, vector, torch.zeros_like(vector))


def _idempotence(trial: MergeTrial) -> None:
    for case in trial.cases("idempotence"):
        copies = [case.vectors[0]] * len(case.vectors)
        merged = trial.merge(copies, case.weights, case.density)
        trial.expect(merged, _trimmed(case.vectors[0], case.density), f"copies of one vector must merge to it; {case}")


def _one_hot(trial: MergeTrial) -> None:
    for case in trial.cases("one hot"):
        weights = [0.0] * (len(case.vectors) - 1) + [1.0]
        merged = trial.merge(case.vectors, weights, case.density)
        trial.expect(
            merged, _trimmed(case.vectors[-1], case.density), f"weights {weights} must pick the last vector; {case}"
        )


def _permutation(trial: MergeTrial) -> None:
    for case in trial.cases("permutation"):
        turned = trial.merge(case.vectors[::-1], case.weights[::-1], case.density)
        trial.expect(turned, trial.merge(case.vectors, case.weights, case.density), f"order must not matter; {case}")


def _weight_scale(trial: MergeTrial) -> None:
    for case in trial.cases("weight scale"):
        scaled = trial.merge(case.vectors, [4.0 * w for w in case.weights], case.density)
        expected = trial.merge(case.vectors, case.weights, case.density)
        trial.expect(scaled, expected, f"weights four times as large must change nothing; {case}")


def _homogeneity(trial: MergeTrial) -> None:
    for case in trial.cases("homogeneity"):
        scaled = trial.merge([2.0 * v for v in case.vectors], case.weights, case.density)
        expected = 2.0 * trial.merge(case.vectors, case.weights, case.density)
        trial.expect(scaled, expected, f"doubled vectors must give the doubled merge; {case}")


def _sign_symmetry(trial: MergeTrial) -> None:
    for case in trial.cases("sign symmetry"):
        turned = trial.merge([-v for v in case.vectors], case.weights, case.density)
        trial.expect(
            turned, -trial.merge(case.vectors, case.weights, case.density), f"merge(-x) must be -merge(x); {case}"
        )


def _bound(trial: MergeTrial) -> None:
    for case in trial.cases("bound"):
        largest = torch.stack([_trimmed(v, case.density).abs() for v in case.vectors]).amax(0)
        merged = trial.merge(case.vectors, case.weights, case.density)
        if not bool((merged.abs() <= largest + trial.tolerance).all()):
            raise LawBrokenError(
                f"no entry may exceed the largest trimmed one {largest.tolist()}, got {merged.tolist()}; {case}"
            )


def _neutral_zero(trial: MergeTrial) -> None:
    for case in trial.cases("neutral zero"):
        more = [*case.vectors, torch.zeros_like(case.vectors[0])]
        merged = trial.merge(more, [*case.weights, 1.0], case.density)
        expected = trial.merge(case.vectors, case.weights, case.density)
        trial.expect(merged, expected, f"a vector of zeros must change nothing; {case}")


def _nested_trim(trial: MergeTrial) -> None:
    for case in trial.cases("nested trim"):
        kept = [trial.merge(case.vectors[:1], [1.0], density) != 0 for density in sorted(trial.densities)]
        if not all(bool((small <= large).all()) for small, large in pairwise(kept)):
            raise LawBrokenError(f"what a density keeps a larger one must keep; densities {trial.densities}, {case}")


def _tiny_vectors(trial: MergeTrial) -> None:
    density = min(trial.densities)
    for size in range(1, 5):
        vector = torch.arange(1, size + 1, dtype=torch.float64)
        if not bool(trial.merge([vector], [1.0], density).any()):
            raise LawBrokenError(f"density {density} must keep at least one of {size} entries, got zeros")


def _linear_limit(trial: MergeTrial) -> None:
    for case in trial.cases("linear limit"):
        agreeing = [v.abs() + 0.125 for v in case.vectors]
        merged = trial.merge(agreeing, case.weights, 1.0)
        mean = sum((w * v for w, v in zip(case.weights, agreeing, strict=True)), torch.zeros_like(agreeing[0]))
        trial.expect(
            merged, mean / sum(case.weights), f"without trim and conflict it must be the weighted mean; {case}"
        )


def _weighted_election(trial: MergeTrial) -> None:
    merged = trial.merge([_tensor([1.0]), _tensor([-0.8]), _tensor([-0.8])], [0.9, 0.05, 0.05], 1.0)
    trial.expect(merged, _tensor([1.0]), "deltas 1, -0.8, -0.8 with weights 0.9, 0.05, 0.05: the heavy one must win")


def _selective_average(trial: MergeTrial) -> None:
    vectors = [_tensor([0.4, -0.1, 0.3, 0.0, -0.5]), _tensor([0.2, 0.3, -0.6, 0.15, -0.1])]
    merged = trial.merge(vectors, [0.25, 0.75], 1.0)
    expected = _tensor([0.25, 0.3, -0.6, 0.15, -0.2])
    trial.expect(merged, expected, "entries against the elected sign must not count, weights 1/4 and 3/4")


def _inputs_untouched(trial: MergeTrial) -> None:
    for case in trial.cases("inputs"):
        before = [v.clone() for v in case.vectors]
        trial.merge(case.vectors, case.weights, case.density)
        if not all(torch.equal(v, w) for v, w in zip(case.vectors, before, strict=True)):
            raise LawBrokenError(f"the merge must not change its inputs; {case}")


def _global_random_state(trial: MergeTrial) -> None:
    before = torch.get_rng_state()
    for case in trial.cases("random state"):
        trial.merge(case.vectors, case.weights, case.density)
    if not torch.equal(before, torch.get_rng_state()):
        raise LawBrokenError("the merge must not draw from torch's global random generator")


def _refusals(trial: MergeTrial) -> None:
    one, two = _tensor([1.0, 2.0]), _tensor([3.0, -4.0])
    wrong: dict[str, tuple[list[Tensor], list[float]]] = {
        "NaN": ([one, _tensor([float("nan"), 1.0])], [1.0, 1.0]),
        "infinity": ([one, _tensor([float("inf"), 1.0])], [1.0, 1.0]),
        "a negative weight": ([one, two], [1.0, -0.5]),
        "more weights than vectors": ([one, two], [1.0, 1.0, 1.0]),
        "fewer weights than vectors": ([one, two], [1.0]),
        "no vector": ([], []),
    }
    accepted = [what for what, (vectors, weights) in wrong.items() if not raises(trial.merge, vectors, weights, 1.0)]
    if accepted:
        raise LawBrokenError(f"expected an exception for {', '.join(accepted)}")


MERGE_LAWS: dict[str, Callable[[MergeTrial], None]] = {
    "idempotence": _idempotence,
    "one-hot weights": _one_hot,
    "permutation": _permutation,
    "weight scale": _weight_scale,
    "homogeneity": _homogeneity,
    "sign symmetry": _sign_symmetry,
    "bound": _bound,
    "neutral zero": _neutral_zero,
    "nested trim": _nested_trim,
    "tiny vectors": _tiny_vectors,
    "linear limit": _linear_limit,
    "weighted election": _weighted_election,
    "selective average": _selective_average,
    "inputs untouched": _inputs_untouched,
    "global random state": _global_random_state,
    "refusals": _refusals,
}
"""Name to law of :func:`judge_merge`."""
