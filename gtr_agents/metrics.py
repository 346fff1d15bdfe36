"""Statistics of a run: intervals of success rates, diversity of answers, summaries of lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev, variance

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute the Wilson score interval of a success rate (Wilson 1927).

    Args:
        successes: Number of successes, in [0, n].
        n: Number of trials.
        z: Normal quantile; the default gives 95 %.

    Returns:
        Lower and upper bound, in [0, 1]; (0, 1) without a trial.

    Raises:
        ValueError: If successes is outside [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected successes in [0, {n}], got {successes}")
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    scale = 1.0 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1.0 - rate) / n + z * z / (4 * n * n))
    # At the ends the difference is 0 but for rounding, and an interval must hold its own rate.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def bootstrap_interval(
    values: Sequence[float], rng: np.random.Generator, *, resamples: int = 10_000
) -> tuple[float, float] | None:
    """Compute the 95 % percentile bootstrap interval of a mean (Efron 1979); for values that are far from normal.

    Args:
        values: One number an episode.
        rng: Draws the resamples; equal generators give equal intervals.
        resamples: How many means are taken of as many values drawn with replacement.

    Returns:
        Bounds, the 2.5th and 97.5th percentile of the means; None for fewer than two values.
    """
    if len(values) < 2:
        return None
    sample = np.asarray(values, dtype=np.float64)
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def newcombe_interval(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Compute the 95 % interval of a difference of two independent shares (Newcombe 1998, method 10).

    Args:
        first: A share and the number of its trials.
        second: Another one.

    Returns:
        Bounds of the second share minus the first (doi 10.1002/sim.861).
    """
    (p, n), (q, m) = first, second
    (p_low, p_high), (q_low, q_high) = wilson_interval(round(p * n), n), wilson_interval(round(q * m), m)
    lower = ((q - q_low) ** 2 + (p_high - p) ** 2) ** 0.5
    upper = ((q_high - q) ** 2 + (p - p_low) ** 2) ** 0.5
    return q - p - lower, q - p + upper


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Compute Student's 95 % interval of the mean of a few runs.

    Args:
        values: One number a run.

    Returns:
        Bounds; None for fewer than two runs, which say nothing about how much runs differ.
    """
    if len(values) < 2:
        return None
    half = _t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def welch_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float] | None:
    """Compare the means of two groups of runs whose variances may differ (Welch 1947).

    Args:
        first: One number a run.
        second: The other group.

    Returns:
        95 % bounds of the second mean minus the first, and the two-sided p value; None if a group has fewer than two
        runs, or runs that agree to the last digit: they say nothing about a deviation.
    """
    if min(len(first), len(second)) < 2 or not (stdev(first) and stdev(second)):
        return None
    a, b = (variance(group) / len(group) for group in (first, second))
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    difference, error = mean(second) - mean(first), math.sqrt(a + b)
    half = _t_quantile(freedom) * error
    return difference - half, difference + half, 1.0 - _t_inside(abs(difference) / error, freedom)


def _t_inside(t: float, freedom: float) -> float:
    """Probability that a Student variable lies in [-t, t]; with t = sqrt(freedom) tan(angle) a smooth integral."""
    end = math.atan(t / math.sqrt(freedom))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    integral = end / 2 * float(np.sum(weights * np.cos(end / 2 * (nodes + 1)) ** (freedom - 1)))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 2 * scale * integral


def _t_quantile(freedom: float, inside: float = 0.95) -> float:
    """Half width that holds a share of Student's distribution, by bisection over the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = _t_inside(math.sqrt(freedom) * math.tan(middle), freedom) < inside
        low, high = (middle, high) if below else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def bleu_2(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute sentence BLEU with uniform weights on 1- and 2-grams (Papineni et al. 2002).

    Args:
        hypothesis: Tokens of the judged text.
        references: Tokens of the texts it is compared with, at least one.

    Returns:
        A score in [0, 1]. A bigram count of 0 becomes 0.1 (smoothing); without a common token the score is 0;
        a text of one token is judged by its unigram alone.
    """
    if not hypothesis:
        return 0.0
    orders = range(1, min(2, len(hypothesis)) + 1)
    log_precision = 0.0
    for order in orders:
        counts = _ngrams(hypothesis, order)
        best: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            best |= _ngrams(reference, order)
        matches = sum((counts & best).values())
        if order == 1 and matches == 0:
            return 0.0
        log_precision += math.log(max(matches, 0.1) / sum(counts.values())) / len(orders)
    length = len(hypothesis)
    closest = min((len(reference) for reference in references), key=lambda size: (abs(size - length), size))
    penalty = 1.0 if length >= closest else math.exp(1.0 - closest / length)
    return penalty * math.exp(log_precision)


def self_bleu(texts: Sequence[str]) -> float | None:
    """Measure how alike the answers of one episode are; rising values warn of thought collapse.

    Args:
        texts: The answers; tokens are split at white space.

    Returns:
        Mean BLEU-2 of each text against all others, in [0, 1]; None for fewer than two texts.
    """
    if len(texts) < 2:
        return None
    tokens = [text.split() for text in texts]
    scores = [bleu_2(text, tokens[:i] + tokens[i + 1 :]) for i, text in enumerate(tokens)]
    return sum(scores) / len(scores)


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def explained_variance(values: ArrayLike, returns: ArrayLike) -> float:
    """Return the share of the returns' variance that the predicted values explain.

    Args:
        values: Predictions, [N].
        returns: Targets, [N].

    Returns:
        1 for perfect predictions, 0 for none better than the mean, negative for worse; 0 if the targets are
        constant.
    """
    target = np.asarray(returns, dtype=np.float64)
    variance = float(target.var()) if target.size else 0.0
    return 1.0 - float((target - np.asarray(values, dtype=np.float64)).var()) / variance if variance > 0 else 0.0
