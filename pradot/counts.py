"""Counts of normal scores above each anomalous one: what every metric of `pradot.metrics` is made of.

Only the order of scores counts, and only where an anomalous score stands in it. So the anomalous scores, which are few, are
sorted as a whole, while the normal ones, nearly all the pixels, pass through a buffer of fixed size: each filling is
sorted, without positions, and searched once. Exact over ties, in one pass, with memory that does not grow with the images.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BUFFER = 2**27
"""Normal scores sorted at a time: 512 MB of float32. Fewer would search for the anomalous scores more often."""

BLOCK = 2**13
"""Anomalous scores searched for at a time: those of the normal scores that lie between them fit the processor's cache."""


class Counts(NamedTuple):
    """Counts at each distinct anomalous score, in rising order; arrays of shape (n_distinct,), integer."""

    first: np.ndarray  # where the score's run of ties begins among the sorted anomalous scores
    anomalous_tied: np.ndarray
    anomalous_at_or_above: np.ndarray
    normal_above: np.ndarray
    normal_at_or_above: np.ndarray
    n_anomalous: int
    n_normal: int


def count(normal: Iterable[np.ndarray], n_normal: int, anomalous: np.ndarray) -> Counts:
    """Count the scores above each distinct anomalous score.

    Parameters
    ----------
    normal : iterable of arrays of shape (n_i,)
        The normal scores in any pieces and any order; read once, left as they are.
    n_normal : int
        How many they are together, at least 1.
    anomalous : array of shape (n_anomalous,)
        Sorted, not empty, of a dtype that holds the normal scores.
    """
    first = np.concatenate([[0], np.flatnonzero(anomalous[1:] != anomalous[:-1]) + 1])
    distinct = anomalous[first]  # (n_distinct,)
    above, at_or_above = np.full(len(first), n_normal), np.full(len(first), n_normal)
    for part in _sorted_parts(normal, np.empty(min(BUFFER, n_normal), anomalous.dtype)):
        starts = np.searchsorted(part, distinct[::BLOCK], side="left")
        for block, (start, stop) in enumerate(pairwise([*starts, len(part)])):
            chosen = slice(block * BLOCK, (block + 1) * BLOCK)
            between = part[start:stop]  # no score before it reaches the block's, all after it exceed them
            above[chosen] -= start + np.searchsorted(between, distinct[chosen], side="right")
            at_or_above[chosen] -= start + np.searchsorted(between, distinct[chosen], side="left")
    return Counts(
        first=first,
        anomalous_tied=np.diff(first, append=len(anomalous)),
        anomalous_at_or_above=len(anomalous) - first,
        normal_above=above,
        normal_at_or_above=at_or_above,
        n_anomalous=len(anomalous),
        n_normal=n_normal,
    )


def sort_grouped(scores: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort scores of shape (n,), and with them the numbers from 0 of their groups, int32."""
    if scores.dtype != np.float32:
        order = np.argsort(scores)
        return scores[order], groups[order]
    # Bits of a float, read as an integer, order like it once those of negative ones are turned round. In one integer with
    # the group they are sorted several times faster than positions, which are looked up all over the memory.
    bits = scores.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= groups
    keys.sort()
    groups = (keys & 0x7FFFFFFF).astype(np.int32)
    keys >>= 32
    bits = keys.astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32), groups


def _sorted_parts(pieces: Iterable[np.ndarray], buffer: np.ndarray) -> Iterator[np.ndarray]:
    """Fill the buffer with the pieces, over and over, and give it sorted each time it is full, and at the end."""
    n_filled = 0
    for piece in pieces:
        while len(piece):
            taken = piece[: len(buffer) - n_filled]
            buffer[n_filled : n_filled + len(taken)] = taken
            n_filled += len(taken)
            piece = piece[len(taken) :]
            if n_filled == len(buffer):
                buffer.sort()
                yield buffer
                n_filled = 0
    buffer[:n_filled].sort()
    yield buffer[:n_filled]


def auroc(counts: Counts) -> float:
    """Area under the ROC curve."""
    # Integers throughout: twice the number of pairs fits 64 bits up to four thousand million scores.
    n_twice_pairs = 2 * counts.n_anomalous * counts.n_normal
    n_twice_lost = int(np.sum(counts.anomalous_tied * (counts.normal_above + counts.normal_at_or_above)))
    return (n_twice_pairs - n_twice_lost) / n_twice_pairs


def average_precision(counts: Counts) -> float:
    """Area under the precision-recall curve as a step function."""
    precision = counts.anomalous_at_or_above / (counts.anomalous_at_or_above + counts.normal_at_or_above)
    return float(np.sum(counts.anomalous_tied * precision)) / counts.n_anomalous


def f1_max(counts: Counts) -> float:
    """Largest F1 score."""
    # Between two anomalous scores a lower threshold adds false positives alone, so the maximum lies at one of them.
    n_detected = counts.anomalous_at_or_above
    return float(np.max(2 * n_detected / (n_detected + counts.normal_at_or_above + counts.n_anomalous)))


def area_under_overlap(counts: Counts, overlap: np.ndarray, max_fpr: float) -> float:
    """Area under the curve of mean overlap up to a false positive rate, divided by that rate.

    `overlap`, of shape (n_distinct,), is how much the mean overlap grows at each distinct score of the defect pixels; the
    area is a weighted sum of one ramp for each.

    As the false positive rate x grows, pixels of score s are detected from a = P(normal > s) on, fully from
    b = P(normal >= s) on, and in proportion between the two, which is the straight line across ties. Up to L such a
    ramp covers the area (L - b') + (b' - a')^2 / (2 (b - a)) with a' = min(a, L), b' = min(b, L).
    """
    start = counts.normal_above / counts.n_normal
    stop = counts.normal_at_or_above / counts.n_normal
    width = np.maximum(stop - start, 1 / counts.n_normal)  # without ties the numerator below is 0: avoid 0 / 0
    start = np.minimum(start, max_fpr)
    stop = np.minimum(stop, max_fpr)
    area = (max_fpr - stop) + (stop - start) ** 2 / (2 * width)
    return min(float(np.sum(overlap * area)) / max_fpr, 1.0)  # rounding may pass 1 by the last digit
