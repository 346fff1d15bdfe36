"""Statistics of a run: intervals of success rates, diversity of answers, summaries of lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

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
    return max(0.0, centre - half), min(1.0, centre + half)


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
