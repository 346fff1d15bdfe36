"""Golden numbers and properties of TIES and linear merging (merging reference, sections 12 and 13)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtr_agents.errors import GtrError, MergeError, UnknownNameError
from gtr_agents.merging import StreamingTies, ema_weights, merge, sma_weights
from gtr_agents.merging.state_dict import copy_state, state_hash
from gtr_agents.merging.ties import trim

GOLDEN = 1e-6
EXACT = 1e-12
TAU_1 = [0.4, -0.1, 0.3, 0.0, -0.5]
TAU_2 = [0.2, 0.3, -0.6, 0.15, -0.1]
TAU_3 = [-0.9, 0.2, 0.1, -0.4, 0.05]


def state(*values: float | Sequence[float]) -> dict[str, Tensor]:
    """Return one state dict in float64 with one tensor per argument."""
    return {f"t{i}": torch.tensor(value, dtype=torch.float64) for i, value in enumerate(values)}


def merged_deltas(taus: Sequence[Sequence[float]], **options: object) -> list[float]:
    """Merge task vectors onto a base of zeros."""
    base = state([0.0] * len(taus[0]))
    return merge(base, [state(tau) for tau in taus], **options)["t0"].tolist()  # type: ignore[arg-type]


# --- weights


def test_sma_weights_are_equal() -> None:
    assert sma_weights(4) == [0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("n", "alpha", "expected"),
    [
        (4, 0.5, [0.125, 0.125, 0.25, 0.5]),
        (4, 0.3, [0.343, 0.147, 0.21, 0.3]),
        (2, 0.5, [0.5, 0.5]),
        (1, 0.3, [1.0]),
        (4, 1.0, [0, 0, 0, 1]),
        (4, 0.0, [1, 0, 0, 0]),
    ],
)
def test_ema_weights_have_the_hand_values(n: int, alpha: float, expected: list[float]) -> None:
    assert ema_weights(n, alpha) == pytest.approx(expected, abs=GOLDEN)


def test_an_alpha_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(MergeError, match=r"alpha must be in \[0, 1\], got 1.5"):
        ema_weights(3, 1.5)


# --- trimming


@pytest.mark.parametrize(
    ("vector", "density", "expected"),
    [
        (TAU_2, 0.8, [0.2, 0.3, -0.6, 0.15, 0.0]),
        (TAU_2, 1.0, TAU_2),
        ([1.0, -2.0, 2.0, 0.5], 0.25, [0, -2.0, 2.0, 0]),
        ([1.0, -3.0, 2.0, 0.5], 0.2, [0, -3.0, 0, 0]),
        ([7.0], 0.01, [7.0]),
        ([0.0, 0.0, 1.0], 0.7, [0.0, 0.0, 1.0]),
    ],
    ids=["four of five", "all", "equal magnitudes", "at least one", "one entry", "zeros"],
)
def test_trimming_keeps_the_largest_magnitudes(vector: list[float], density: float, expected: list[float]) -> None:
    assert trim(torch.tensor(vector), density).tolist() == torch.tensor(expected).tolist()


def test_the_number_of_kept_entries_is_rounded_down_as_floating_point_does() -> None:
    assert int(trim(torch.arange(1.0, 101.0), 0.29).count_nonzero()) == 28


def test_trimming_is_nested_in_the_density() -> None:
    vector = torch.randn(200, generator=torch.Generator().manual_seed(0))
    kept = [trim(vector, density) != 0 for density in (0.1, 0.4, 0.8, 1.0)]
    assert all(bool((small <= large).all()) for small, large in pairwise(kept))


def test_an_empty_tensor_and_a_scalar_can_be_trimmed() -> None:
    assert trim(torch.zeros(0), 0.5).numel() == 0
    assert trim(torch.tensor(-2.0), 0.5).item() == -2.0


# --- golden merges


@pytest.mark.parametrize(
    ("taus", "options", "expected"),
    [
        ([TAU_1, TAU_2], {}, [0.30, 0.30, -0.60, 0.15, -0.50]),
        ([TAU_1, TAU_2], {"weights": [0.25, 0.75]}, [0.25, 0.30, -0.60, 0.15, -0.50]),
        ([TAU_1, TAU_2], {"method": "linear"}, [0.30, 0.10, -0.15, 0.075, -0.30]),
        ([TAU_1, TAU_2], {"method": "linear", "weights": [3, 3]}, [0.30, 0.10, -0.15, 0.075, -0.30]),
        ([TAU_1, TAU_2], {"election": "frequency"}, [0.30, 0, 0, 0.15, -0.50]),
        ([TAU_1, TAU_2, TAU_3], {}, [-0.90, 0.25, -0.60, -0.40, -0.50]),
        ([TAU_1, TAU_2, TAU_3], {"weights": ema_weights(3, 0.5)}, [-0.90, 0.233333, -0.60, -0.40, -0.50]),
        ([TAU_1, TAU_2, TAU_3], {"election": "frequency"}, [0.30, 0.25, 0.20, 0, -0.50]),
        ([[1.0], [-0.8], [-0.8]], {"weights": [0.9, 0.05, 0.05]}, [1.0]),
        ([[0.5, 0, 0], [-0.5, 0, 1.0]], {"density": 1.0}, [0, 0, 1.0]),
        ([[1.0, 0.0], [0.0, 1.0]], {}, [1.0, 1.0]),
        ([[1.0, 0.0], [0.0, 1.0]], {"method": "linear"}, [0.5, 0.5]),
        ([TAU_1] * 3, {"density": 1.0, "weights": [0.2, 5.0, 1.0]}, TAU_1),
    ],
)
def test_merges_have_the_hand_values(
    taus: list[list[float]], options: dict[str, object], expected: list[float]
) -> None:
    assert merged_deltas(taus, **options) == pytest.approx(expected, abs=GOLDEN)


def test_a_tie_of_sign_counts_is_a_tie_even_if_the_weights_are_rounded() -> None:
    taus, weights = [[1.0], [1.0], [-1.0]], [0.1, 0.2, 0.3]  # 0.1 + 0.2 is not 0.3 in floating point
    assert merged_deltas(taus, weights=weights, election="frequency") == [0.0]
    ties = StreamingTies(state([0.0]), election="frequency")
    for tau, weight in zip(taus, weights, strict=True):
        ties.add(state(tau), weight)
    assert ties.merged()["t0"].tolist() == [0.0]


def test_merging_a_merge_again_is_not_the_merge_of_all() -> None:
    first = merged_deltas([TAU_1, TAU_2])
    pairwise = merged_deltas([first, TAU_3])
    assert pairwise == pytest.approx([-0.90, 0.25, -0.60, -0.40, -0.50], abs=GOLDEN)
    assert merged_deltas([TAU_1, TAU_2, TAU_3], weights=ema_weights(3, 0.5))[1] != pytest.approx(pairwise[1])


def test_delta_space_does_not_depend_on_how_a_delta_is_factored() -> None:
    factors = [(1.0, 2.0), (-2.0, -1.0)]
    assert merged_deltas([[a * b] for a, b in factors]) == [2.0]


def test_accumulators_have_the_hand_values() -> None:
    ties = StreamingTies(state([0.0] * 5), density=0.8)
    expected = [
        ([0.4, 0, 0.3, 0, 0], [0, -0.1, 0, 0, -0.5], [1, 0, 1, 0, 0], [0, 1, 0, 0, 1]),
        ([0.6, 0.3, 0.3, 0.15, 0], [0, -0.1, -0.6, 0, -0.5], [2, 1, 1, 1, 0], [0, 1, 1, 0, 1]),
        ([0.6, 0.5, 0.4, 0.15, 0], [-0.9, -0.1, -0.6, -0.4, -0.5], [2, 2, 2, 1, 0], [1, 1, 1, 1, 1]),
    ]
    for tau, sums in zip([TAU_1, TAU_2, TAU_3], expected, strict=True):
        ties.add(state(tau))
        tensors, _ = ties.state_dict()
        for name, values in zip(["positive", "negative", "positive_mass", "negative_mass"], sums, strict=True):
            assert tensors[f"{name}/t0"].tolist() == pytest.approx(values, abs=EXACT)


def test_decayed_accumulators_have_the_hand_values() -> None:
    ties = StreamingTies(state([0.0] * 5), density=0.8)
    ties.add(state(TAU_1))
    ties.add(state(TAU_2), 0.5, decay=0.5)
    ties.add(state(TAU_3), 0.5, decay=0.5)
    tensors, settings_ = ties.state_dict()
    assert tensors["positive/t0"].tolist() == pytest.approx([0.15, 0.175, 0.125, 0.0375, 0], abs=EXACT)
    assert tensors["negative/t0"].tolist() == pytest.approx([-0.45, -0.025, -0.15, -0.2, -0.125], abs=EXACT)
    assert tensors["positive_mass/t0"].tolist() == pytest.approx([0.5, 0.75, 0.75, 0.25, 0], abs=EXACT)
    assert tensors["negative_mass/t0"].tolist() == pytest.approx([0.5, 0.25, 0.25, 0.5, 0.25], abs=EXACT)
    assert list(settings_["members"].values()) == [0.25, 0.25, 0.5]


def test_diagnostics_have_the_hand_values() -> None:
    ties = StreamingTies(state([0.0] * 5), density=0.8)
    for tau in (TAU_1, TAU_2, TAU_3):
        ties.add(state(tau))
    diagnostics = ties.diagnostics()
    assert diagnostics["agreement"] == pytest.approx(0.7, abs=GOLDEN)
    assert diagnostics["elected_agreement"] == pytest.approx((1 / 3 + 2 / 3 + 1 / 3 + 1 / 2 + 1) / 5, abs=GOLDEN)
    assert diagnostics["conflict_mass"] == pytest.approx(1.25 / 4.15, abs=GOLDEN)
    assert diagnostics["coverage"] == 1.0
    merged_norm = (0.81 + 0.0625 + 0.36 + 0.16 + 0.25) ** 0.5
    mean_norm = (0.3**2 + 0.4**2 + 0.2**2 + 0.25**2 + 0.5**2) ** 0.5 / 3
    assert diagnostics["norm_ratio"] == pytest.approx(merged_norm / mean_norm, abs=GOLDEN)


def test_diagnostics_of_identical_checkpoints_show_full_agreement_and_the_right_size() -> None:
    ties = StreamingTies(state([0.0] * 5), density=0.8)
    for _ in range(4):
        ties.add(state(TAU_2), 0.25)
    diagnostics = ties.diagnostics()
    assert diagnostics["norm_ratio"] == pytest.approx(1.0, abs=EXACT)
    assert (diagnostics["agreement"], diagnostics["conflict_mass"], diagnostics["coverage"]) == (1.0, 0.0, 0.8)


def test_diagnostics_before_the_first_checkpoint_are_zero() -> None:
    assert set(StreamingTies(state([0.0])).diagnostics().values()) == {0.0}


# --- properties

# Multiples of 1/8 add without rounding, so elections that are tied stay tied in every order.
ENTRIES = st.integers(-16, 16).map(lambda n: n / 8)
DENSITIES = st.sampled_from([0.2, 0.5, 0.8, 1.0])
ELECTIONS = st.sampled_from(["total", "frequency"])


@st.composite
def task_vectors(draw: st.DrawFn) -> list[list[float]]:
    size = draw(st.integers(1, 7))
    return draw(st.lists(st.lists(ENTRIES, min_size=size, max_size=size), min_size=1, max_size=5))


@st.composite
def weighted_vectors(draw: st.DrawFn) -> tuple[list[list[float]], list[float]]:
    taus = draw(task_vectors())
    weights = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=len(taus), max_size=len(taus)))
    return taus, weights


def property_test(function):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    return settings(max_examples=60, deadline=None)(function)


@given(weighted_vectors(), DENSITIES, ELECTIONS)
@property_test
def test_streaming_equals_batch_after_every_checkpoint(
    case: tuple[list[list[float]], list[float]], density: float, election: str
) -> None:
    taus, weights = case
    ties = StreamingTies(state([0.0] * len(taus[0])), density=density, election=election)
    for n, (tau, weight) in enumerate(zip(taus, weights, strict=True), start=1):
        ties.add(state(tau), weight)
        batch = merged_deltas(taus[:n], weights=weights[:n], density=density, election=election)
        assert ties.merged()["t0"].tolist() == pytest.approx(batch, abs=EXACT)


@given(task_vectors(), DENSITIES, ELECTIONS, st.sampled_from([0.25, 0.5, 1.0]))
@property_test
def test_decay_equals_the_closed_form_of_the_weights(
    taus: list[list[float]], density: float, election: str, alpha: float
) -> None:
    ties = StreamingTies(state([0.0] * len(taus[0])), density=density, election=election)
    for n, tau in enumerate(taus):
        if n == 0:
            ties.add(state(tau))
        else:
            ties.add(state(tau), alpha, decay=1 - alpha)
    batch = merged_deltas(taus, weights=ema_weights(len(taus), alpha), density=density, election=election)
    assert ties.merged()["t0"].tolist() == pytest.approx(batch, abs=EXACT)
    assert ties.total_weight == pytest.approx(1.0, abs=EXACT)


@given(weighted_vectors(), DENSITIES, ELECTIONS, st.randoms(use_true_random=False))
@property_test
def test_the_order_of_checkpoints_does_not_matter(case, density, election, random) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    pairs = list(zip(*case, strict=True))
    shuffled = random.sample(pairs, len(pairs))
    results = [
        merged_deltas([p[0] for p in order], weights=[p[1] for p in order], density=density, election=election)
        for order in (pairs, shuffled)
    ]
    assert results[0] == pytest.approx(results[1], abs=EXACT)


@given(weighted_vectors(), DENSITIES, ELECTIONS, st.sampled_from([0.5, 4.0]))
@property_test
def test_only_the_ratios_of_the_weights_matter(
    case: tuple[list[list[float]], list[float]], density: float, election: str, factor: float
) -> None:
    taus, weights = case
    scaled = [factor * weight for weight in weights]
    first = merged_deltas(taus, weights=weights, density=density, election=election)
    assert first == pytest.approx(merged_deltas(taus, weights=scaled, density=density, election=election), abs=EXACT)


@given(weighted_vectors(), DENSITIES, ELECTIONS, st.sampled_from([-1.0, -2.0, 0.5, 2.0]))
@property_test
def test_scaling_or_turning_all_task_vectors_scales_the_merge(
    case: tuple[list[list[float]], list[float]], density: float, election: str, factor: float
) -> None:
    taus, weights = case
    scaled = [[factor * x for x in tau] for tau in taus]
    plain = merged_deltas(taus, weights=weights, density=density, election=election)
    result = merged_deltas(scaled, weights=weights, density=density, election=election)
    assert result == pytest.approx([factor * x for x in plain], abs=EXACT)


@given(weighted_vectors(), DENSITIES, ELECTIONS)
@property_test
def test_no_entry_exceeds_the_largest_trimmed_entry(
    case: tuple[list[list[float]], list[float]], density: float, election: str
) -> None:
    taus, weights = case
    largest = torch.stack([trim(torch.tensor(tau), density).abs() for tau in taus]).amax(0)
    result = torch.tensor(merged_deltas(taus, weights=weights, density=density, election=election))
    assert bool((result.abs() <= largest + EXACT).all())


@given(weighted_vectors(), DENSITIES, ELECTIONS)
@property_test
def test_a_zero_task_vector_changes_nothing(
    case: tuple[list[list[float]], list[float]], density: float, election: str
) -> None:
    taus, weights = case
    zero = [0.0] * len(taus[0])
    plain = merged_deltas(taus, weights=weights, density=density, election=election)
    result = merged_deltas([*taus, zero], weights=[*weights, 1.0], density=density, election=election)
    assert result == pytest.approx(plain, abs=EXACT)


@given(st.lists(ENTRIES, min_size=1, max_size=7), DENSITIES, st.integers(1, 5), ELECTIONS)
@property_test
def test_copies_of_one_checkpoint_merge_to_it_trimmed(
    tau: list[float], density: float, copies: int, election: str
) -> None:
    trimmed = trim(torch.tensor(tau), density).tolist()
    weights = [1.0 + n for n in range(copies)]
    assert merged_deltas([tau] * copies, weights=weights, density=density, election=election) == pytest.approx(trimmed)


@given(task_vectors(), DENSITIES)
@property_test
def test_a_one_hot_weight_picks_one_checkpoint_trimmed(taus: list[list[float]], density: float) -> None:
    weights = [0.0] * (len(taus) - 1) + [1.0]
    trimmed = trim(torch.tensor(taus[-1]), density).tolist()
    assert merged_deltas(taus, weights=weights, density=density) == pytest.approx(trimmed)


def test_without_conflict_or_trimming_ties_is_the_weighted_mean() -> None:
    taus, weights = [[1.0, -2.0], [3.0, -4.0]], [0.25, 0.75]
    assert merged_deltas(taus, weights=weights, density=1.0) == pytest.approx([2.5, -3.5], abs=EXACT)


def test_every_tensor_is_merged_alone() -> None:
    base = state([0.0] * 5, [0.0, 0.0])
    together = merge(base, [state(TAU_1, [9.0, -9.0]), state(TAU_2, [100.0, 0.5])])
    assert together["t0"].tolist() == merged_deltas([TAU_1, TAU_2])
    turned = [dict(reversed(s.items())) for s in (state(TAU_1, [9.0, -9.0]), state(TAU_2, [100.0, 0.5]))]
    assert torch.equal(merge(base, turned)["t1"], together["t1"])


# --- oracle


def peft_merge_functions() -> ModuleType:
    """Load one file of peft alone, because importing the whole package takes many seconds."""
    package = importlib.util.find_spec("peft")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "utils" / "merge_utils.py"
    spec = importlib.util.spec_from_file_location("peft_merge_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_with_weights_one_ties_equals_peft() -> None:
    merge_utils = peft_merge_functions()
    generator = torch.Generator().manual_seed(0)
    for density in (0.3, 0.8):
        taus = [torch.randn(40, 25, generator=generator, dtype=torch.float64) for _ in range(5)]
        expected = merge_utils.ties(taus, torch.ones(5, dtype=torch.float64), density)
        base = {"w": torch.zeros(40, 25, dtype=torch.float64)}
        result = merge(base, [{"w": tau} for tau in taus], density=density)["w"]
        assert torch.allclose(result, expected, rtol=0, atol=EXACT)
        assert bool((result != 0).any())


# --- types, scale, base


def test_lambda_scales_the_merged_task_vector_onto_the_base() -> None:
    base, checkpoint = state([1.0, 2.0]), state([3.0, -2.0])
    assert merge(base, [checkpoint], density=1.0, lam=0.5)["t0"].tolist() == [2.0, 0.0]
    ties = StreamingTies(base, density=1.0)
    ties.add(checkpoint)
    assert ties.merged(lam=0.5)["t0"].tolist() == [2.0, 0.0]


def test_small_deltas_of_a_bfloat16_model_are_kept_until_the_last_cast() -> None:
    base = {"w": torch.ones(4, dtype=torch.bfloat16)}
    checkpoints = [{"w": torch.full((4,), 1.0 + step / 128, dtype=torch.bfloat16)} for step in (1, 2, 4)]
    result = merge(base, checkpoints, density=1.0, lam=3.0)["w"]
    assert result.dtype == torch.bfloat16
    assert result.tolist() == [1.0 + 7 / 128] * 4


def test_tensors_that_are_not_floating_point_are_copied_from_the_base() -> None:
    base = {"w": torch.zeros(2), "n": torch.tensor([3])}
    checkpoint = {"w": torch.ones(2), "n": torch.tensor([8])}
    ties = StreamingTies(base)
    ties.add(checkpoint)
    for result in (merge(base, [checkpoint]), ties.merged()):
        assert result["n"].tolist() == [3]
        assert result["n"] is not base["n"]
        assert result["w"].tolist() == [1.0, 1.0]


def test_training_on_does_not_change_the_base_of_a_merge() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ties = StreamingTies({"w": weight}, density=1.0)
    with torch.no_grad():
        weight += 1.0
    ties.add({"w": weight})
    assert ties.base["w"].tolist() == [1.0, 2.0]
    assert ties.merged()["w"].tolist() == [2.0, 3.0]


def test_a_delta_long_decayed_away_becomes_zero_not_infinite() -> None:
    ties = StreamingTies({"w": torch.zeros(2)}, density=1.0)
    ties.add({"w": torch.tensor([1e30, 1.0])})
    for _ in range(160):
        ties.decay(0.5)
    ties.add({"w": torch.tensor([0.0, 2.0])})
    assert ties.merged()["w"].tolist() == [0.0, 2.0]


def test_accumulators_continue_bit_for_bit_after_loading() -> None:
    base = {"w": torch.zeros(50)}
    generator = torch.Generator().manual_seed(3)
    checkpoints = [{"w": torch.randn(50, generator=generator)} for _ in range(4)]
    whole, first = StreamingTies(base), StreamingTies(base)
    for checkpoint in checkpoints[:2]:
        whole.add(checkpoint)
        first.add(checkpoint)
    tensors, saved = first.state_dict()
    second = StreamingTies(base)
    second.load_state_dict(copy_state(tensors), saved)
    for checkpoint in checkpoints[2:]:
        whole.add(checkpoint, 0.5, decay=0.5)
        second.add(checkpoint, 0.5, decay=0.5)
    assert torch.equal(whole.merged()["w"], second.merged()["w"])
    assert whole.state_dict()[1] == second.state_dict()[1]


# --- refusals

BASE = {"w": torch.zeros(3), "b": torch.zeros(1)}
GOOD = {"w": torch.ones(3), "b": torch.ones(1)}


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"w": torch.ones(3)}, r"missing: \['b'\]"),
        ({**GOOD, "x": torch.ones(1)}, r"not in the base: \['x'\]"),
        ({**GOOD, "w": torch.ones(4)}, r"'w' must have shape \(3,\), got \(4,\)"),
        ({**GOOD, "b": torch.tensor([float("nan")])}, "'b' holds NaN or infinity"),
        ({**GOOD, "b": torch.tensor([float("inf")])}, "'b' holds NaN or infinity"),
    ],
    ids=["missing", "extra", "shape", "nan", "inf"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_leaves_no_trace(
    checkpoint: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(MergeError, match=message):
        merge(BASE, [GOOD, checkpoint])
    ties = StreamingTies(BASE)
    ties.add(GOOD)
    before = copy_state(ties.state_dict()[0]), ties.state_dict()[1]
    with pytest.raises(MergeError, match=message):
        ties.add(checkpoint, 0.5, decay=0.5)
    assert ties.state_dict()[1] == before[1]
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in ties.state_dict()[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "2 checkpoints, got 1 weights"),
        ({"weights": [1.0, 1.0, 1.0]}, "2 checkpoints, got 3 weights"),
        ({"weights": [1.0, -1.0]}, "finite, >= 0 and not all 0"),
        ({"weights": [0.0, 0.0]}, "finite, >= 0 and not all 0"),
        ({"weights": [1.0, float("nan")]}, "finite, >= 0 and not all 0"),
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 1.1}, r"density must be in \(0, 1\], got 1.1"),
        ({"method": "tie"}, "Did you mean 'ties'"),
        ({"election": "totals"}, "Did you mean 'total'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(GtrError, match=message):
        merge(BASE, [GOOD, GOOD], **options)  # type: ignore[arg-type]


def test_merging_nothing_is_refused() -> None:
    with pytest.raises(MergeError, match="at least one checkpoint"):
        merge(BASE, [])


def test_a_checkpoint_cannot_be_added_twice() -> None:
    ties = StreamingTies(BASE)
    ties.add(GOOD, id="update-1")
    with pytest.raises(MergeError, match="'update-1' was added before"):
        ties.add(GOOD, id="update-1")


def test_streaming_refuses_bad_weights_densities_rules_and_bases() -> None:
    ties = StreamingTies(BASE)
    with pytest.raises(MergeError, match=r"finite and >= 0, got -1"):
        ties.add(GOOD, weight=-1)
    with pytest.raises(MergeError, match=r"decay factor must be in \[0, 1\], got 1.5"):
        ties.decay(1.5)
    with pytest.raises(MergeError, match="density"):
        StreamingTies(BASE, density=2.0)
    with pytest.raises(UnknownNameError, match="election rule"):
        StreamingTies(BASE, election="median")
    with pytest.raises(MergeError, match=r"base: .w. holds NaN"):
        StreamingTies({"w": torch.tensor([float("nan")])})


def test_a_decay_outside_its_range_leaves_no_trace() -> None:
    ties = StreamingTies(BASE)
    ties.add(GOOD)
    with pytest.raises(MergeError, match="decay"):
        ties.add(GOOD, decay=-0.1)
    assert len(ties.members) == 1


def test_accumulators_of_another_base_or_density_are_refused() -> None:
    tensors, saved = StreamingTies(BASE).state_dict()
    with pytest.raises(MergeError, match="base_hash"):
        StreamingTies({**BASE, "b": torch.ones(1)}).load_state_dict(tensors, saved)
    with pytest.raises(MergeError, match=r"saved density must be 0\.5, got 0\.8"):
        StreamingTies(BASE, density=0.5).load_state_dict(tensors, saved)


def test_the_hash_of_a_state_depends_on_names_types_shapes_and_values_but_not_on_their_order() -> None:
    first = {"a": torch.zeros(2), "b": torch.tensor(1.5, dtype=torch.bfloat16)}
    assert state_hash(first) == state_hash(dict(reversed(first.items())))
    others = [
        {"a": torch.zeros(2), "c": first["b"]},
        {"a": torch.zeros(2, dtype=torch.int32), "b": first["b"]},
        {"a": torch.zeros(2, 1), "b": first["b"]},
        {"a": torch.tensor([0.0, 1.0]), "b": first["b"]},
    ]
    assert state_hash(first) not in {state_hash(other) for other in others}
