"""How well anomaly scores separate normal from anomalous: per image, per pixel and per defect region.

Every metric here depends on the order of the scores alone and is exact over ties. All are found from one thing: how
many normal scores lie above, and how many at or above, each distinct score of an anomalous one. The normal scores,
nearly all the pixels, are therefore sorted once and without their positions: much faster than ranking every pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pradot.errors import PradotError

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong to one region


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    r"""Area under the ROC curve: how often an anomalous score exceeds a normal one, ties counted half.

    .. math:: \frac{1}{P N} \sum_{i : y_i = 1} \sum_{j : y_j = 0} [s_i > s_j] + \tfrac{1}{2} [s_i = s_j]

    Parameters
    ----------
    labels : array of shape (n,)
        1 or True for anomalous, 0 or False for normal: images, or the pixels of all images in one row.
    scores : array of shape (n,)
        Anomaly scores, higher for the more abnormal, in any unit.

    Returns
    -------
    float
        In [0, 1]. Equal to `sklearn.metrics.roc_auc_score`.

    Raises
    ------
    PradotError
        If the shapes differ, a score is NaN or infinite, or one of the two classes is absent.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 143, 1982.
    """
    return _auroc(_count(*_by_class(labels, scores, "AUROC")))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    r"""Average precision (AP): the area under the precision-recall curve as a step function.

    .. math:: \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores in falling order, each the threshold at or above which a sample counts as anomalous.

    Parameters
    ----------
    labels, scores : arrays of shape (n,)
        As in `auroc`.

    Returns
    -------
    float
        In (0, 1]. Equal to `sklearn.metrics.average_precision_score`.

    Raises
    ------
    PradotError
        As in `auroc`.
    """
    return _average_precision(_count(*_by_class(labels, scores, "average precision")))


def f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    r"""Largest F1 score over all thresholds.

    .. math:: \max_t \frac{2 P_t R_t}{P_t + R_t} = \max_t \frac{2 \, TP_t}{TP_t + FP_t + P}

    Parameters
    ----------
    labels, scores : arrays of shape (n,)
        As in `auroc`.

    Returns
    -------
    float
        In (0, 1]. Equal to the maximum over `sklearn.metrics.precision_recall_curve`.

    Raises
    ------
    PradotError
        As in `auroc`.
    """
    return _f1_max(_count(*_by_class(labels, scores, "F1-max")))


def au_pro(
    anomaly_maps: np.ndarray | Sequence[np.ndarray], masks: np.ndarray | Sequence[np.ndarray], max_fpr: float = 0.3
) -> float:
    r"""Area under the per-region-overlap curve up to a false positive rate, divided by that rate (AU-PRO).

    At a threshold, a region's overlap is the share of its pixels that score at or above it, and PRO is the mean of that
    share over all regions of all images, so a small defect counts as much as a large one. Then

    .. math:: \frac{1}{L} \int_0^L \mathrm{PRO}(x) \, dx

    where x is the share of all normal pixels, those of defective images too, at or above the threshold, and L is
    `max_fpr`. Points of the curve are joined by straight lines, also across tied scores and at the limit.

    Parameters
    ----------
    anomaly_maps : array of shape (n_images, height, width), or sequence of arrays of shape (height_i, width_i)
        Anomaly score of every pixel, higher for the more abnormal, in any unit.
    masks : like `anomaly_maps`
        1 or True on defects; all 0 for a normal image. Regions are the 8-connected components of each mask.
    max_fpr : float
        Limit L of the false positive rate, in (0, 1]. MVTec AD is reported at 0.3 and, more strictly, at 0.05.

    Returns
    -------
    float
        In [0, 1]; 1 if every defect pixel scores above every normal pixel.

    Raises
    ------
    PradotError
        If the shapes differ, a score is NaN or infinite, `max_fpr` is outside (0, 1], no mask has a region, or no pixel
        is normal.

    References
    ----------
    Bergmann, Batzner, Fauser, Sattlegger and Steger, "The MVTec Anomaly Detection Dataset", International Journal of
    Computer Vision 129, 2021, section 4.
    """
    if not 0 < max_fpr <= 1:
        raise PradotError(f"max_fpr: expected a false positive rate in (0, 1], found {max_fpr}; 0.3 is the usual limit")
    normal, anomalous, weights = _split_pixels(*_checked_maps(anomaly_maps, masks), "AU-PRO")
    return _area_under_pro(_count(normal, anomalous), weights, max_fpr)


def pro_curve(
    anomaly_maps: np.ndarray | Sequence[np.ndarray], masks: np.ndarray | Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Give the per-region-overlap curve whose area `au_pro` measures.

    Parameters
    ----------
    anomaly_maps, masks
        As in `au_pro`.

    Returns
    -------
    fpr, pro : arrays of shape (n_points,)
        False positive rate and mean overlap, both rising from 0 to 1. Joined by straight lines the points give the
        whole curve; there are two for each distinct score of a defect pixel, and one at either end.

    Raises
    ------
    PradotError
        As in `au_pro`.
    """
    normal, anomalous, weights = _split_pixels(*_checked_maps(anomaly_maps, masks), "PRO curve")
    counts = _count(normal, anomalous)
    overlap = np.cumsum(np.add.reduceat(weights, counts.first)[::-1])  # (n_distinct,), from the highest score down
    overlap /= overlap[-1]
    before = np.concatenate([[0.0], overlap[:-1]])
    fpr = np.stack([counts.normal_above[::-1], counts.normal_at_or_above[::-1]], axis=1).ravel() / len(normal)
    pro = np.stack([before, overlap], axis=1).ravel()  # (2 * n_distinct,)
    return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], pro, [1.0]])


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    anomaly_maps: np.ndarray | Sequence[np.ndarray] | None = None,
    masks: np.ndarray | Sequence[np.ndarray] | None = None,
) -> dict[str, float | None]:
    """Compute every metric of a test set, sorting its pixels once.

    Beside its input it needs about one more copy of the normal pixels and some 100 bytes for each defect pixel.

    Parameters
    ----------
    labels : array of shape (n_images,)
        1 or True for an anomalous image, 0 or False for a normal one.
    scores : array of shape (n_images,)
        Anomaly score of each image, higher for the more abnormal.
    anomaly_maps, masks : optional
        As in `au_pro`, in the order of `labels`. Without them the pixel metrics are None.

    Returns
    -------
    dict
        Fractions in [0, 1] under `image_auroc`, `pixel_auroc`, `image_ap`, `pixel_ap`, `image_f1_max`, `pixel_f1_max`,
        `au_pro_30` and `au_pro_05` (AU-PRO up to 30 % and 5 % false positive rate).

    Raises
    ------
    PradotError
        As in `auroc` and `au_pro`; also if only one of maps and masks is given, their number is not that of the labels,
        or an image labelled normal has a defect in its mask.
    """
    images = _count(*_by_class(labels, scores, "image metrics"))
    metrics: dict[str, float | None] = {
        "image_auroc": _auroc(images),
        "pixel_auroc": None,
        "image_ap": _average_precision(images),
        "pixel_ap": None,
        "image_f1_max": _f1_max(images),
        "pixel_f1_max": None,
        "au_pro_30": None,
        "au_pro_05": None,
    }
    if anomaly_maps is None and masks is None:
        return metrics
    if anomaly_maps is None or masks is None:
        missing = "anomaly_maps" if anomaly_maps is None else "masks"
        raise PradotError(f"pixel metrics: expected anomaly_maps and masks, found no {missing}; give both or neither")

    maps, masks = _checked_maps(anomaly_maps, masks)
    if len(maps) != len(labels):
        raise PradotError(f"anomaly_maps: expected one for each of the {len(labels)} labels, found {len(maps)}")
    for index, (label, mask) in enumerate(zip(labels, masks, strict=True)):
        if not label and mask.any():
            raise PradotError(
                f"masks: image {index} is labelled normal, but its mask has a defect; "
                "give labels and masks of the same images in the same order"
            )
    normal, anomalous, weights = _split_pixels(maps, masks, "pixel metrics")
    pixels = _count(normal, anomalous)
    metrics["pixel_auroc"] = _auroc(pixels)
    metrics["pixel_ap"] = _average_precision(pixels)
    metrics["pixel_f1_max"] = _f1_max(pixels)
    metrics["au_pro_30"] = _area_under_pro(pixels, weights, 0.3)
    metrics["au_pro_05"] = _area_under_pro(pixels, weights, 0.05)
    return metrics


class _Counts(NamedTuple):
    """Counts at each distinct anomalous score, in rising order; arrays of shape (n_distinct,), integer."""

    first: np.ndarray  # where the score's run of ties begins among the sorted anomalous scores
    anomalous_tied: np.ndarray
    anomalous_at_or_above: np.ndarray
    normal_above: np.ndarray
    normal_at_or_above: np.ndarray
    n_anomalous: int
    n_normal: int


def _count(normal: np.ndarray, anomalous: np.ndarray) -> _Counts:
    """Count the scores above each distinct anomalous score; both arrays sorted, of one dtype, and not empty."""
    first = np.concatenate([[0], np.flatnonzero(anomalous[1:] != anomalous[:-1]) + 1])
    distinct = anomalous[first]  # (n_distinct,)
    return _Counts(
        first=first,
        anomalous_tied=np.diff(first, append=len(anomalous)),
        anomalous_at_or_above=len(anomalous) - first,
        normal_above=len(normal) - np.searchsorted(normal, distinct, side="right"),
        normal_at_or_above=len(normal) - np.searchsorted(normal, distinct, side="left"),
        n_anomalous=len(anomalous),
        n_normal=len(normal),
    )


def _auroc(counts: _Counts) -> float:
    # Integers throughout: twice the number of pairs fits 64 bits up to four thousand million scores.
    n_twice_pairs = 2 * counts.n_anomalous * counts.n_normal
    n_twice_lost = int(np.sum(counts.anomalous_tied * (counts.normal_above + counts.normal_at_or_above)))
    return (n_twice_pairs - n_twice_lost) / n_twice_pairs


def _average_precision(counts: _Counts) -> float:
    precision = counts.anomalous_at_or_above / (counts.anomalous_at_or_above + counts.normal_at_or_above)
    return float(np.sum(counts.anomalous_tied * precision)) / counts.n_anomalous


def _f1_max(counts: _Counts) -> float:
    # Between two anomalous scores a lower threshold adds false positives alone, so the maximum lies at one of them.
    n_detected = counts.anomalous_at_or_above
    return float(np.max(2 * n_detected / (n_detected + counts.normal_at_or_above + counts.n_anomalous)))


def _area_under_pro(counts: _Counts, weights: np.ndarray, max_fpr: float) -> float:
    """AU-PRO as the weighted sum of one ramp for each distinct score of the defect pixels.

    As the false positive rate x grows, pixels of score s are detected from a = P(normal > s) on, fully from
    b = P(normal >= s) on, and in proportion between the two, which is the straight line across ties. Up to L such a
    ramp covers the area (L - b') + (b' - a')^2 / (2 (b - a)) with a' = min(a, L), b' = min(b, L).
    """
    weight = np.add.reduceat(weights, counts.first)  # (n_distinct,)
    start = counts.normal_above / counts.n_normal
    stop = counts.normal_at_or_above / counts.n_normal
    width = np.maximum(stop - start, 1 / counts.n_normal)  # without ties the numerator below is 0: avoid 0 / 0
    start = np.minimum(start, max_fpr)
    stop = np.minimum(stop, max_fpr)
    area = (max_fpr - stop) + (stop - start) ** 2 / (2 * width)
    return min(float(np.sum(weight * area)) / max_fpr, 1.0)  # rounding may pass 1 by the last digit


def _by_class(labels: np.ndarray, scores: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Check the input; give the sorted scores of the normal and of the anomalous samples."""
    labels, scores = _binary(labels, "labels"), _finite(scores, "scores")
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise PradotError(f"{metric}: expected two arrays of shape (n,), found {labels.shape}, {scores.shape}")
    n_anomalous = np.count_nonzero(labels)
    if n_anomalous in (0, len(labels)):
        found = "anomalous" if n_anomalous else "normal"
        raise PradotError(
            f"{metric} undefined: expected normal (0) and anomalous (1) labels, found all {len(labels)} {found}; "
            "evaluate on samples of both kinds"
        )
    anomalous = np.sort(scores[labels])  # (n_anomalous,)
    normal = scores[~labels]  # (n_normal,)
    normal.sort()
    return normal, anomalous


def _checked_maps(
    anomaly_maps: np.ndarray | Sequence[np.ndarray], masks: np.ndarray | Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Check the input; give floating-point maps and boolean masks, each of shape (height_i, width_i)."""
    if len(anomaly_maps) != len(masks):
        raise PradotError(f"masks: expected one for each of the {len(anomaly_maps)} maps, found {len(masks)}")
    maps = [_finite(one, f"anomaly map {index}") for index, one in enumerate(anomaly_maps)]
    masks = [_binary(one, f"mask {index}") for index, one in enumerate(masks)]
    for index, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        if one.ndim != 2 or one.shape != mask.shape:
            raise PradotError(
                f"image {index}: expected an anomaly map and a mask of one shape (height, width), "
                f"found {one.shape} and {mask.shape}"
            )
    return maps, masks


def _split_pixels(maps: list[np.ndarray], masks: list[np.ndarray], metric: str) -> tuple[np.ndarray, ...]:
    """Give the sorted scores of the normal and of the defect pixels, and each defect pixel's weight in PRO.

    The weight is 1 / (number of regions * area of the pixel's region), so all weights sum to 1.
    """
    areas = [np.count_nonzero(mask) for mask in masks]
    n_anomalous, n_pixels = sum(areas), sum(mask.size for mask in masks)
    if n_anomalous in (0, n_pixels):
        found = "a defect at every pixel" if n_anomalous else "no defect"
        raise PradotError(
            f"{metric} undefined: expected normal and defect pixels, found {found} in all {len(masks)} masks; "
            "evaluate on images with and without defects, with their masks"
        )
    dtype = np.result_type(*{one.dtype for one in maps})
    normal = np.empty(n_pixels - n_anomalous, dtype)  # filled image by image: the one large copy
    anomalous, regions = [], []
    n_normal = n_regions = 0
    for one, mask, area in zip(maps, masks, areas, strict=True):
        n_before, n_normal = n_normal, n_normal + one.size - area
        normal[n_before:n_normal] = one[~mask] if area else one.ravel()
        if area:
            labelled, n_found = ndimage.label(mask, EIGHT_CONNECTED)
            anomalous.append(one[mask])
            regions.append(labelled[mask] + (n_regions - 1))  # numbered from 0 over all images
            n_regions += n_found
    normal.sort()
    anomalous = np.concatenate(anomalous).astype(dtype, copy=False)  # (n_anomalous,)
    regions = np.concatenate(regions)  # (n_anomalous,)
    order = np.argsort(anomalous)
    weight_of_region = 1 / (n_regions * np.bincount(regions))  # (n_regions,)
    return normal, anomalous[order], weight_of_region[regions[order]]


def _binary(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype == bool:
        return values
    if values.dtype.kind not in "iuf":
        raise PradotError(f"{name}: expected 0 (normal) and 1 (anomalous), found values of type {values.dtype}")
    truth = values.astype(bool)
    strange = values != truth
    if strange.any():
        raise PradotError(
            f"{name}: expected only 0 (normal) and 1 (anomalous), found {values[strange][0]}; convert with `values > 0`"
        )
    return truth


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "biuf" or values.size == 0:
        raise PradotError(f"{name}: expected numbers, found shape {values.shape} of type {values.dtype}")
    # Minimum and maximum carry NaN and infinity, and need no further array.
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        n_bad = values.size - np.count_nonzero(np.isfinite(values))
        raise PradotError(f"{name}: expected finite numbers, found {n_bad} of {values.size} NaN or infinite")
    return values.astype(np.result_type(values, np.float32), copy=False)
