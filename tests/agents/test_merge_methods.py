"""The switches of merging: selection by counting, zero rules, least mass, global trim, DARE, SLERP and dialects."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from gtr_agents.errors import GtrError, MergeError
from gtr_agents.merging import DIALECTS, MERGE_METHODS, StreamingTies, merge
from gtr_agents.merging.dare import drop, mask_generator
from gtr_agents.merging.slerp import slerp
from gtr_agents.merging.trim import SELECT_BELOW, checkpoint_threshold, global_threshold, kth_largest, n_kept, trim

EXACT = 1e-12
TAU_1 = [0.4, -0.1, 0.3, 0.0, -0.5]
TAU_2 = [0.2, 0.3, -0.6, 0.15, -0.1]
TAU_3 = [-0.9, 0.2, 0.1, -0.4, 0.05]


def state(*values: float | Sequence[float]) -> dict[str, Tensor]:
    return {f"t{i}": torch.tensor(value, dtype=torch.float64) for i, value in enumerate(values)}


def merged_deltas(taus: Sequence[Sequence[float]], **options: object) -> list[float]:
    base = state([0.0] * len(taus[0]))
    return merge(base, [state(tau) for tau in taus], **options)["t0"].tolist()  # type: ignore[arg-type]


def random_states(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    """States of two tensors of very different size of entries, with zeros and equal magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    states = []
    for _ in range(n):
        large = torch.randint(-2, 3, (12, 10), generator=generator).to(dtype) / 8
        states.append({"large": large, "small": 0.05 * torch.randn(12, generator=generator, dtype=dtype)})
    return states


# --- trimming by counting


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 63, 99, 100])
def test_counting_bits_finds_the_kth_largest_magnitude_exactly(dtype: torch.dtype, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    vector = torch.randn(100, generator=generator, dtype=dtype) * 10.0 ** torch.randint(
        -30, 30, (100,), generator=generator
    )
    vector[:20] = vector[20:40]  # equal magnitudes
    vector[50:60] = 0.0
    found = kth_largest(lambda: [vector[:33], vector[33:]], k)
    assert found.dtype == dtype
    assert found == vector.abs().sort(descending=True).values[k - 1]


def test_large_vectors_are_counted_and_small_ones_selected_with_the_same_result() -> None:
    vector = torch.randn(SELECT_BELOW, generator=torch.Generator().manual_seed(1))
    threshold = vector.abs().kthvalue(SELECT_BELOW - n_kept(SELECT_BELOW, 0.3) + 1).values
    expected = torch.where(vector.abs() >= threshold, vector, torch.zeros_like(vector))
    assert torch.equal(trim(vector, 0.3), expected)
    assert int(expected.count_nonzero()) == int(0.3 * SELECT_BELOW)


def test_the_global_threshold_is_that_of_all_entries_together() -> None:
    pieces = [torch.tensor([1.0, -5.0]), torch.tensor([[3.0], [4.0], [0.5]])]
    assert global_threshold(lambda: pieces, 0.6) == 3.0
    assert global_threshold(lambda: [torch.zeros(0)], 0.6) == 0.0


def test_the_global_trim_may_empty_a_tensor_that_its_own_trim_would_not() -> None:
    base = state([0.0, 0.0], [0.0, 0.0])
    checkpoint = state([5.0, 6.0], [1.0, 2.0])
    assert merge(base, [checkpoint], density=0.5, trim_scope="global")["t1"].tolist() == [0.0, 0.0]
    assert merge(base, [checkpoint], density=0.5, trim_scope="global")["t0"].tolist() == [5.0, 6.0]
    assert merge(base, [checkpoint], density=0.5)["t1"].tolist() == [0.0, 2.0]


def test_the_global_trim_works_across_types() -> None:
    base = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(2), "n": torch.tensor([1])}
    checkpoint = {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor([0.1, 3.0]), "n": base["n"]}
    assert checkpoint_threshold(base, checkpoint, 0.5) == 2.0
    assert merge(base, [checkpoint], density=0.75, trim_scope="global")["b"].tolist() == [0.0, 3.0]


# --- undecided elections and least mass


@pytest.mark.parametrize(
    ("zero", "expected"), [("zero", [0, 0, 1.0]), ("positive", [0.5, 0, 1.0]), ("majority", [0.5, 0, 1.0])]
)
def test_an_undecided_election_gives_what_the_zero_rule_says(zero: str, expected: list[float]) -> None:
    taus = [[0.5, 0, 0], [-0.5, 0, 1.0]]
    assert merged_deltas(taus, density=1.0, zero=zero) == expected
    mirrored = [[-x for x in tau] for tau in taus]
    opposite = [0.5, 0, -1.0] if zero == "positive" else [-x for x in expected]
    assert merged_deltas(mirrored, density=1.0, zero=zero) == opposite


def test_counted_elections_can_be_decided_for_the_positive_side() -> None:
    expected = pytest.approx([0.30, 0.30, 0.30, 0.15, -0.50], abs=EXACT)
    assert merged_deltas([TAU_1, TAU_2], election="frequency", zero="positive") == expected


def test_entries_with_too_little_agreeing_weight_become_zero() -> None:
    taus, weights = [[1.0, 2.0], [3.0, 0.0], [2.0, 0.0]], [0.1, 0.2, 0.3]
    assert merged_deltas(taus, weights=weights, density=1.0, min_mass=0.1) == pytest.approx([1.3 / 0.6, 2.0])
    assert merged_deltas(taus, weights=weights, density=1.0, min_mass=0.2) == pytest.approx([1.3 / 0.6, 0.0])
    assert merged_deltas(taus, weights=weights, density=1.0, min_mass=1.0)[0] > 0  # all agree, rounding or not


OPTIONS = [
    {"election": election, "zero": zero, "min_mass": min_mass, "trim_scope": scope}
    for election, zero, min_mass, scope in product(
        ["total", "frequency"], ["zero", "positive", "majority"], [0.0, 0.4], ["tensor", "global"]
    )
]


@pytest.mark.parametrize("options", OPTIONS)
def test_streaming_equals_batch_under_every_switch(options: dict[str, object]) -> None:
    base, *checkpoints = random_states(6)
    ties = StreamingTies(base, 0.6, **options)  # type: ignore[arg-type]
    weights = [1.0, 0.5, 2.0, 0.25, 1.0]
    for n, (checkpoint, weight) in enumerate(zip(checkpoints, weights, strict=True), start=1):
        ties.add(checkpoint, weight)
        batch = merge(base, checkpoints[:n], weights=weights[:n], density=0.6, **options)  # type: ignore[arg-type]
        for name, tensor in ties.merged().items():
            torch.testing.assert_close(tensor, batch[name], rtol=0, atol=EXACT)


def test_the_switches_change_something() -> None:
    base, *checkpoints = random_states(5)
    plain = merge(base, checkpoints)
    for options in ({"zero": "positive"}, {"zero": "majority"}, {"min_mass": 0.6}, {"trim_scope": "global"}):
        other = merge(base, checkpoints, **options)  # type: ignore[arg-type]
        assert any(not torch.equal(plain[name], other[name]) for name in plain), options


# --- DARE


def test_dare_keeps_the_expected_share_and_the_expected_value() -> None:
    vector = torch.ones(20_000)
    dropped = drop(vector, 0.25, mask_generator(0, "a", "w"))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert float((dropped > 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_the_mask_of_dare_depends_on_seed_checkpoint_and_tensor_and_on_nothing_else() -> None:
    before = torch.get_rng_state()
    masks = [
        drop(torch.ones(64), 0.5, mask_generator(*arguments))
        for arguments in ((0, "a", "w"), (0, "a", "w"), (1, "a", "w"), (0, "b", "w"), (0, "a", "v"))
    ]
    assert torch.equal(masks[0], masks[1])
    assert all(not torch.equal(masks[0], other) for other in masks[2:])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_does_not_depend_on_the_order_of_checkpoints_or_tensors(method: str) -> None:
    base, *checkpoints = random_states(4)
    ids = ["a", "b", "c"]
    first = merge(base, checkpoints, method=method, density=0.5, ids=ids, seed=3)
    turned = [dict(reversed(checkpoint.items())) for checkpoint in reversed(checkpoints)]
    second = merge(base, turned, method=method, density=0.5, ids=ids[::-1], seed=3)
    other = merge(base, checkpoints, method=method, density=0.5, ids=ids, seed=4)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=EXACT)
    assert not torch.equal(first["small"], other["small"])


def test_dare_with_density_one_is_the_method_it_wraps() -> None:
    base, *checkpoints = random_states(4)
    for plain in ("linear", "ties"):
        expected = merge(base, checkpoints, method=plain, density=1.0)
        result = merge(base, checkpoints, method=f"dare_{plain}", density=1.0)
        assert all(torch.equal(result[name], tensor) for name, tensor in expected.items())


def test_linear_dare_is_the_mean_of_what_was_kept() -> None:
    base, *checkpoints = random_states(3)
    result = merge(base, checkpoints, method="dare_linear", density=0.5, ids=["a", "b"], seed=7)
    parts = [
        drop(checkpoint["small"] - base["small"], 0.5, mask_generator(7, id, "small"))
        for id, checkpoint in zip(["a", "b"], checkpoints, strict=True)
    ]
    torch.testing.assert_close(result["small"], base["small"] + (parts[0] + parts[1]) / 2, rtol=0, atol=EXACT)


# --- SLERP


def test_slerp_goes_along_the_arc() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    middle = slerp([first, second], [1.0, 1.0])
    assert middle.tolist() == pytest.approx([0.5**0.5] * 2, abs=1e-6)
    third = slerp([first, second], [2.0, 1.0])
    assert third.tolist() == pytest.approx([np.cos(np.pi / 6), np.sin(np.pi / 6)], abs=1e-6)


@pytest.mark.parametrize("second", [[0.0, 0.0], [2.0, 1e-5], [-2.0, 1e-5]], ids=["zero", "parallel", "opposite"])
def test_slerp_takes_the_chord_where_the_arc_is_undefined(second: list[float]) -> None:
    result = slerp([torch.tensor([2.0, 0.0]), torch.tensor(second)], [3.0, 1.0])
    assert result.tolist() == pytest.approx([1.5 + second[0] / 4, second[1] / 4], abs=1e-6)


def test_the_ends_of_slerp_are_the_checkpoints() -> None:
    assert merged_deltas([TAU_1, TAU_2], method="slerp", weights=[1, 0]) == pytest.approx(TAU_1, abs=EXACT)
    assert merged_deltas([TAU_1, TAU_2], method="slerp", weights=[0, 1]) == pytest.approx(TAU_2, abs=EXACT)


def test_slerp_of_three_checkpoints_is_refused() -> None:
    with pytest.raises(MergeError, match="between two checkpoints, got 3"):
        merged_deltas([TAU_1, TAU_2, TAU_3], method="slerp")


# --- dialects


@pytest.mark.parametrize(
    ("dialect", "taus", "options", "expected"),
    [
        ("peft", [TAU_1, TAU_2], {"weights": [0.5, 0.5]}, [0.15, 0.15, -0.30, 0.075, -0.25]),
        ("mergekit", [TAU_1, TAU_2], {"weights": [0.5, 0.5]}, [0.30, 0.30, -0.60, 0.15, -0.50]),
        ("mergekit", [[1.0], [-0.8], [-0.8]], {"weights": [0.9, 0.05, 0.05]}, [1.0]),
        ("peft", [[1.0], [-0.8], [-0.8]], {"weights": [0.9, 0.05, 0.05], "density": 1.0}, [-0.04]),
        ("mergekit", [[0.5, 0, 0], [-0.5, 0, 1.0]], {"density": 1.0}, [0.5, 0, 1.0]),
        ("peft", [[0.5, 0, 0], [-0.5, 0, 1.0]], {"density": 1.0, "weights": [0.5, 0.5]}, [0.25, 0, 0.5]),
        ("original", [[0.5, 0, 0], [-0.5, 0, 1.0]], {"density": 1.0}, [0.5, 0, 1.0]),
        ("original", [[0.5, 0, 0], [-0.5, 0, -1.0]], {"density": 1.0}, [-0.5, 0, -1.0]),
        ("peft", [[4.0, 3.0, 2.0, 1.0]], {"density": 0.2}, [0, 0, 0, 0]),
        ("mergekit", [[4.0, 3.0, 2.0, 1.0]], {"density": 0.2}, [4.0, 0, 0, 0]),
        ("original", [[4.0, 3.0, 2.0, 1.0]], {"density": 0.25}, [4.0, 3.0, 0, 0]),
        ("mergekit", [[1.0], [1.0], [-1.0]], {"election": "frequency", "weights": [1, 1, 9]}, [1.0]),
    ],
)
def test_dialects_have_the_hand_values(
    dialect: str, taus: list[list[float]], options: dict[str, object], expected: list[float]
) -> None:
    assert merged_deltas(taus, dialect=dialect, **options) == pytest.approx(expected, abs=1e-6)


def test_our_dialect_written_a_second_time_gives_the_same() -> None:
    from gtr_agents.merging.dialects import dialect_ties
    from gtr_agents.merging.rules import TiesRules

    base, *checkpoints = random_states(5)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    weights = [1.0, 0.5, 2.0, 0.25]
    for election, density in product(["total", "frequency"], [0.2, 0.5, 1.0]):
        merged = merge(zeros, checkpoints, weights=weights, density=density, election=election)
        vectors = [[checkpoint["large"], checkpoint["small"]] for checkpoint in checkpoints]
        again = dialect_ties(vectors, weights, TiesRules(density, election), "ours")
        torch.testing.assert_close(merged["large"], again[0], rtol=0, atol=EXACT)
        torch.testing.assert_close(merged["small"], again[1], rtol=0, atol=EXACT)


def peft_merge_functions() -> ModuleType:
    """Load one file of peft alone, because importing the whole package takes many seconds."""
    package = importlib.util.find_spec("peft")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location(
        "peft_merge_utils", Path(package.origin).parent / "utils" / "merge_utils.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("weights", [[1.0] * 4, [0.25] * 4, [0.1, 2.0, 0.5, 1.0]])
@pytest.mark.parametrize("election", ["total", "frequency"])
def test_the_dialect_of_peft_is_that_of_peft(weights: list[float], election: str) -> None:
    generator = torch.Generator().manual_seed(2)
    taus = [torch.randn(30, 7, generator=generator, dtype=torch.float64) for _ in weights]
    tensor_weights = torch.tensor(weights, dtype=torch.float64)
    expected = peft_merge_functions().ties(taus, tensor_weights, 0.4, majority_sign_method=election)
    base = {"w": torch.zeros(30, 7, dtype=torch.float64)}
    states = [{"w": tau} for tau in taus]
    result = merge(base, states, weights=weights, density=0.4, election=election, dialect="peft")
    torch.testing.assert_close(result["w"], expected, rtol=0, atol=EXACT)
    assert bool(result["w"].any())


def test_with_unit_weights_the_dialects_per_tensor_agree_on_generic_values() -> None:
    generator = torch.Generator().manual_seed(5)
    base = {"w": torch.zeros(40, dtype=torch.float64)}
    states = [{"w": torch.randn(40, generator=generator, dtype=torch.float64)} for _ in range(5)]
    ours = merge(base, states, weights=[1.0] * 5)["w"]
    for dialect in ("mergekit", "peft"):
        other = merge(base, states, weights=[1.0] * 5, dialect=dialect)["w"]
        torch.testing.assert_close(ours, other, rtol=0, atol=EXACT)


def test_the_original_dialect_takes_all_tensors_for_one() -> None:
    base = state([0.0, 0.0], [[0.0], [0.0]])
    checkpoint = state([5.0, 6.0], [[1.0], [2.0]])
    result = merge(base, [checkpoint], density=0.25, dialect="original")
    assert result["t0"].tolist() == [5.0, 6.0]
    assert result["t1"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "mergkit"}, "Did you mean 'mergekit'"),
        ({"dialect": "original", "weights": [1, 2]}, "knows no weights"),
        ({"dialect": "peft", "min_mass": 0.5}, "fixes everything but density and election"),
        ({"dialect": "peft", "method": "linear"}, "dialects differ in 'ties' only"),
        ({"zero": "positives"}, "Did you mean 'positive'"),
        ({"trim_scope": "tensors"}, "Did you mean 'tensor'"),
        ({"min_mass": 1.5}, r"min_mass must be in \[0, 1\], got 1.5"),
        ({"ids": ["a"]}, "2 different ids"),
        ({"ids": ["a", "a"]}, "2 different ids"),
        ({"method": "dare_tie"}, "Did you mean 'dare_ties'"),
    ],
)
def test_switches_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(GtrError, match=message):
        merged_deltas([TAU_1, TAU_2], **options)


def test_every_method_and_dialect_gives_one_checkpoint_back_at_density_one() -> None:
    for method in set(MERGE_METHODS) - {"slerp"}:
        assert merged_deltas([TAU_1], method=method, density=1.0) == TAU_1, method
    for dialect in DIALECTS:
        assert merged_deltas([TAU_1], dialect=dialect, density=1.0) == TAU_1, dialect
