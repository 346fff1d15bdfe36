"""Hand values of intervals, self-BLEU and the other statistics."""

from __future__ import annotations

import numpy as np
import pytest

from gtr_agents.metrics import (
    bleu_2,
    bootstrap_interval,
    explained_variance,
    mean_interval,
    newcombe_interval,
    self_bleu,
    welch_interval,
    wilson_interval,
)

GOLDEN = 1e-6


def test_bleu_has_the_hand_value() -> None:
    assert bleu_2(["a", "b", "c", "d"], [["a", "b", "e", "f"]]) == pytest.approx(0.408248, abs=GOLDEN)


def test_bleu_of_equal_texts_is_one_even_for_a_single_word() -> None:
    assert bleu_2(["a", "b"], [["a", "b"]]) == pytest.approx(1.0, abs=GOLDEN)
    assert bleu_2(["a"], [["a"]]) == 1.0


def test_bleu_without_a_common_word_is_zero() -> None:
    assert bleu_2(["a", "b"], [["c", "d"]]) == 0.0
    assert bleu_2([], [["c"]]) == 0.0


def test_a_missing_bigram_is_smoothed_to_a_tenth() -> None:
    assert bleu_2(["b", "a"], [["a", "b"]]) == pytest.approx(0.05**0.5 * 2**0.5, abs=GOLDEN)


def test_a_repeated_word_counts_at_most_as_often_as_in_the_reference() -> None:
    # unigrams 1 of 3, bigrams 0.1 of 2
    assert bleu_2(["a", "a", "a"], [["a", "b", "c"]]) == pytest.approx((1 / 3 * 0.05) ** 0.5, abs=GOLDEN)


def test_a_text_shorter_than_its_nearest_reference_is_penalised() -> None:
    assert bleu_2(["a", "b"], [["a", "b", "c", "d"]]) == pytest.approx(2.718281828**-1, abs=GOLDEN)


def test_self_bleu_has_the_hand_value() -> None:
    assert self_bleu(["a b c d", "a b e f", "a b c d"]) == pytest.approx(0.802749, abs=GOLDEN)


def test_self_bleu_is_undefined_for_one_answer() -> None:
    assert self_bleu(["a b"]) is None
    assert self_bleu([]) is None


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (0, 10, (0.0, 0.277533)),
        (10, 10, (0.722467, 1.0)),
        (50, 100, (0.403832, 0.596168)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval_has_published_values(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=GOLDEN)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match=r"successes in \[0, 3\], got 4"):
        wilson_interval(4, 3)


def test_explained_variance_has_hand_values() -> None:
    assert explained_variance([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    assert explained_variance([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(0.0, abs=GOLDEN)
    assert explained_variance([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(-3.0, abs=GOLDEN)
    assert explained_variance([1.0, 2.0], [5.0, 5.0]) == 0.0


def test_newcombes_interval_is_that_of_his_paper() -> None:
    # Newcombe 1998, table II, example (a): 56/70 against 48/80, method 10.
    low, high = newcombe_interval((48 / 80, 80), (56 / 70, 70))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_one_run_has_no_interval_over_runs() -> None:
    assert mean_interval([0.5]) is None
    assert welch_interval([0.5], [0.6, 0.7]) is None
    assert welch_interval([0.5, 0.5], [0.6, 0.7]) is None


def test_intervals_over_runs_are_those_of_scipy() -> None:
    from scipy import stats

    one, other = [0.332, 0.352, 0.346], [0.36, 0.391, 0.37, 0.35]
    found = stats.ttest_1samp(one, 0).confidence_interval()
    assert mean_interval(one) == pytest.approx((found.low, found.high), rel=1e-9)
    test = stats.ttest_ind(other, one, equal_var=False)
    bounds = test.confidence_interval()
    assert welch_interval(one, other) == pytest.approx((bounds.low, bounds.high, test.pvalue), rel=1e-8)
    pair = stats.ttest_1samp(one[:2], 0).confidence_interval()
    assert mean_interval(one[:2]) == pytest.approx((pair.low, pair.high), rel=1e-7)


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    from scipy import stats

    returns = [10.0] * 30 + [-1.0] * 50 + [-7.0] * 20
    low, high = bootstrap_interval(returns, np.random.default_rng(0)) or (0.0, 0.0)
    found = stats.bootstrap(
        (returns,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.1)
    assert low < np.mean(returns) < high
    assert bootstrap_interval(returns, np.random.default_rng(0)) == (low, high)
    assert bootstrap_interval([4.0], np.random.default_rng(0)) is None
    assert bootstrap_interval([4.0] * 5, np.random.default_rng(0)) == (4.0, 4.0)
