"""How well anomaly scores separate normal from anomalous: per image, per pixel and per defect region.

Every metric here depends on the order of the scores alone and is exact over ties. All are found from one thing, see
`pradot.counts`: how many normal scores lie above, and how many at or above, each distinct score of an anomalous one.
Those of defect regions are in `pradot.regions`. Beside the metrics there is `threshold`, for a chosen rate of false alarms.
"""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from pradot import counts
from pradot.errors import PradotError
from pradot.metric_input import binary, finite, read_masks
from pradot.regions import au_pro as au_pro  # metrics too: users take them from here
from pradot.regions import au_spro as au_spro
from pradot.regions import count_pixels
from pradot.regions import pro_curve as pro_curve


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
    return counts.auroc(_count_samples(labels, scores, "AUROC"))


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
    return counts.average_precision(_count_samples(labels, scores, "average precision"))


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
    return counts.f1_max(_count_samples(labels, scores, "F1-max"))


def threshold(normal_scores: np.ndarray, false_alarm_rate: float) -> float:
    """Threshold that the score of a new normal image exceeds with a chosen probability at most.

    With the n scores sorted upwards it is the one at place ``k = ceil((n + 1) (1 - false_alarm_rate))``. If the new score and
    the n are exchangeable, each of the n + 1 is as likely as any other to be among the n + 1 - k highest, so the probability is
    at most ``(n + 1 - k) / (n + 1) <= false_alarm_rate`` (split conformal prediction; Vovk, Gammerman and Shafer, 2005).

    Parameters
    ----------
    normal_scores : ndarray of shape (n_images,)
        Image scores of normal images that the model was *not* fitted on.
    false_alarm_rate : float
        In (0, 1).

    Returns
    -------
    float
        To be exceeded: a score equal to it is normal.

    Raises
    ------
    PradotError
        The rate is out of range, or there are fewer than ``1 / false_alarm_rate - 1`` scores.
    """
    scores = np.sort(finite(normal_scores, "normal scores").ravel())
    if not (isinstance(false_alarm_rate, Real) and 0 < false_alarm_rate < 1):
        raise PradotError(f"the false-alarm rate is {false_alarm_rate}; it must lie between 0 and 1")
    place = math.ceil((len(scores) + 1) * (1 - false_alarm_rate) - 1e-9)  # 1e-9: 10 x (1 - 0.1) is 9, rounding aside
    if place > len(scores):
        needed = np.ceil(1 / false_alarm_rate - 1e-9) - 1  # infinite for the smallest of rates
        raise PradotError(
            f"{len(scores)} normal scores say nothing about a false-alarm rate of {false_alarm_rate}: at least {needed:.12g} "
            "are needed; hold out more normal images, or allow more false alarms"
        )
    return float(scores[place - 1])


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    anomaly_maps: np.ndarray | Sequence[np.ndarray] | None = None,
    masks: np.ndarray | Sequence[np.ndarray] | None = None,
) -> dict[str, float | None]:
    """Compute every metric of a test set, sorting its pixels once.

    Beside its input it needs at most 512 MB for the normal pixels (float32) and some 60 bytes for each defect pixel.

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
    labels = binary(labels, "labels")
    images = _count_samples(labels, scores, "image metrics")
    metrics: dict[str, float | None] = {
        "image_auroc": counts.auroc(images),
        "pixel_auroc": None,
        "image_ap": counts.average_precision(images),
        "pixel_ap": None,
        "image_f1_max": counts.f1_max(images),
        "pixel_f1_max": None,
        "au_pro_30": None,
        "au_pro_05": None,
    }
    if anomaly_maps is None and masks is None:
        return metrics
    if anomaly_maps is None or masks is None:
        missing = "anomaly_maps" if anomaly_maps is None else "masks"
        raise PradotError(f"pixel metrics: expected anomaly_maps and masks, found no {missing}; give both or neither")

    if len(anomaly_maps) != len(labels):
        raise PradotError(f"anomaly_maps: expected one for each of the {len(labels)} labels, found {len(anomaly_maps)}")

    def read():
        for index, image in enumerate(read_masks(anomaly_maps, masks)):
            if image.is_defect is not None and not labels[index]:
                raise PradotError(
                    f"masks: image {index} is labelled normal, but its mask has a defect; "
                    "give labels and masks of the same images in the same order"
                )
            yield image

    pixels, gain = count_pixels(read, "pixel metrics")
    metrics["pixel_auroc"] = counts.auroc(pixels)
    metrics["pixel_ap"] = counts.average_precision(pixels)
    metrics["pixel_f1_max"] = counts.f1_max(pixels)
    metrics["au_pro_30"] = counts.area_under_overlap(pixels, gain, 0.3)
    metrics["au_pro_05"] = counts.area_under_overlap(pixels, gain, 0.05)
    return metrics


def _count_samples(labels: np.ndarray, scores: np.ndarray, metric: str) -> counts.Counts:
    """Check labels and scores, both of shape (n,), and count the normal scores above each anomalous one."""
    labels, scores = binary(labels, "labels"), finite(scores, "scores")
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise PradotError(f"{metric}: expected two arrays of shape (n,), found {labels.shape}, {scores.shape}")
    n_anomalous = int(np.count_nonzero(labels))
    if n_anomalous in (0, len(labels)):
        found = "anomalous" if n_anomalous else "normal"
        raise PradotError(
            f"{metric} undefined: expected normal (0) and anomalous (1) labels, found all {len(labels)} {found}; "
            "evaluate on samples of both kinds"
        )
    return counts.count([scores[~labels]], len(labels) - n_anomalous, np.sort(scores[labels]))
