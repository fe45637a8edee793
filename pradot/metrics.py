"""How well anomaly scores separate normal from anomalous: per image, per pixel and per defect region.

Every metric here depends on the order of the scores alone and is exact over ties. All are found from one thing, see
`pradot.counts`: how many normal scores lie above, and how many at or above, each distinct score of an anomalous one.
Beside the metrics there is `threshold`, for a chosen rate of false alarms.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Real

import numpy as np
from scipy import ndimage

from pradot import counts
from pradot.errors import PradotError

Maps = np.ndarray | Sequence[np.ndarray]
"""Array of shape (n_images, height, width), or sequence of arrays of shape (height_i, width_i)."""

Defects = Sequence[Sequence[tuple[np.ndarray, float]]]
"""For each image its defects, each a mask of shape (height_i, width_i) and a saturation area in pixels."""

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
    scores = np.sort(_finite(normal_scores, "normal scores").ravel())
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


def au_pro(anomaly_maps: Maps, masks: Maps, max_fpr: float | Sequence[float] = 0.3) -> float | list[float]:
    r"""Area under the per-region-overlap curve up to a false positive rate, divided by that rate (AU-PRO).

    At a threshold, a region's overlap is the share of its pixels that score at or above it, and PRO is the mean of that
    share over all regions of all images, so a small defect counts as much as a large one. Then

    .. math:: \frac{1}{L} \int_0^L \mathrm{PRO}(x) \, dx

    where x is the share of all normal pixels, those of defective images too, at or above the threshold, and L is
    `max_fpr`. Points of the curve are joined by straight lines, also across tied scores and at the limit.

    Parameters
    ----------
    anomaly_maps : array of shape (n_images, height, width), or sequence of arrays of shape (height_i, width_i)
        Anomaly score of every pixel, higher for the more abnormal, in any unit. Read twice, one at a time, so a sequence
        may load them as it is asked for them.
    masks : like `anomaly_maps`
        1 or True on defects; all 0 for a normal image. Regions are the 8-connected components of each mask.
    max_fpr : float or sequence of float
        Limit L of the false positive rate, in (0, 1]. MVTec AD is reported at 0.3 and, more strictly, at 0.05.

    Returns
    -------
    float, or list of float for a sequence of limits
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
    return _area_under_overlap(partial(_read_masks, anomaly_maps, masks), max_fpr, "AU-PRO")


def au_spro(anomaly_maps: Maps, defects: Defects, max_fpr: float | Sequence[float] = 0.05) -> float | list[float]:
    r"""Area under the saturated per-region-overlap curve up to a false positive rate, divided by it (AU-sPRO).

    Of some defects it is enough to find a part: where an object is missing, nobody can say at which of the possible
    places. Defect i, with pixels A_i, therefore has a saturation area s_i, and at a threshold with the set P of pixels
    scoring at or above it

    .. math:: \mathrm{sPRO} = \frac{1}{m} \sum_{i=1}^m \min\left(\frac{|A_i \cap P|}{s_i}, 1\right)

    over all m defects of all images. The area is taken as in `au_pro`, whose value this is when every defect is a
    connected region that saturates at its own area. Normal pixels are those outside all defects of their image.

    Parameters
    ----------
    anomaly_maps : array of shape (n_images, height, width), or sequence of arrays of shape (height_i, width_i)
        As in `au_pro`.
    defects : sequence of sequences of (mask, saturation area)
        For each image its defects, none for a normal one. A mask is like those of `au_pro`, but counts as one defect,
        connected or not; masks of one image may overlap. The saturation area, in pixels, is above 0 and at most the
        mask's area: MVTec AD LOCO's is int(threshold x area) where it is relative and min(threshold, area) where not.
        Read twice, one image at a time.
    max_fpr : float or sequence of float
        Limit of the false positive rate, in (0, 1]. MVTec AD LOCO is reported at 0.05; its evaluation also gives 0.01,
        0.1, 0.3 and 1. Several limits take hardly longer than one.

    Returns
    -------
    float, or list of float for a sequence of limits
        In [0, 1]; 1 if in every defect at least the saturation area scores above every normal pixel.

    Raises
    ------
    PradotError
        If shapes differ, a score is NaN or infinite, a saturation area does not fit its mask, `max_fpr` is outside
        (0, 1], there is no defect at all, or no pixel is normal.

    References
    ----------
    Bergmann, Batzner, Fauser, Sattlegger and Steger, "Beyond Dents and Scratches: Logical Constraints in Unsupervised
    Anomaly Detection and Localization", International Journal of Computer Vision 130, 2022, section 4. Equal to the
    evaluation published with the data set, whose curve has sampled thresholds, within their distance.
    """
    return _area_under_overlap(partial(_read_defects, anomaly_maps, defects), max_fpr, "AU-sPRO")


def pro_curve(anomaly_maps: Maps, masks: Maps) -> tuple[np.ndarray, np.ndarray]:
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
    pixels, gain = _count_pixels(partial(_read_masks, anomaly_maps, masks), "PRO curve")
    overlap = np.cumsum(gain[::-1])  # (n_distinct,), from the highest score down
    overlap /= overlap[-1]
    before = np.concatenate([[0.0], overlap[:-1]])
    fpr = np.stack([pixels.normal_above[::-1], pixels.normal_at_or_above[::-1]], axis=1).ravel() / pixels.n_normal
    pro = np.stack([before, overlap], axis=1).ravel()  # (2 * n_distinct,)
    return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], pro, [1.0]])


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
    labels = _binary(labels, "labels")
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
        for index, image in enumerate(_read_masks(anomaly_maps, masks)):
            if image[1] is not None and not labels[index]:
                raise PradotError(
                    f"masks: image {index} is labelled normal, but its mask has a defect; "
                    "give labels and masks of the same images in the same order"
                )
            yield image

    pixels, gain = _count_pixels(read, "pixel metrics")
    metrics["pixel_auroc"] = counts.auroc(pixels)
    metrics["pixel_ap"] = counts.average_precision(pixels)
    metrics["pixel_f1_max"] = counts.f1_max(pixels)
    metrics["au_pro_30"] = counts.area_under_overlap(pixels, gain, 0.3)
    metrics["au_pro_05"] = counts.area_under_overlap(pixels, gain, 0.05)
    return metrics


def _count_samples(labels: np.ndarray, scores: np.ndarray, metric: str) -> counts.Counts:
    """Check labels and scores, both of shape (n,), and count the normal scores above each anomalous one."""
    labels, scores = _binary(labels, "labels"), _finite(scores, "scores")
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


_Image = tuple[np.ndarray, np.ndarray | None, list[tuple[np.ndarray, float | None]]]
"""A map, where any defect is (None if nowhere), and masks with their saturation areas (None: see `_overlap`)."""


def _area_under_overlap(
    read: Callable[[], Iterator[_Image]], max_fpr: float | Sequence[float], metric: str
) -> float | list[float]:
    limits = list(max_fpr) if np.ndim(max_fpr) else [max_fpr]
    if not limits or not all(isinstance(limit, Real) and 0 < limit <= 1 for limit in limits):
        raise PradotError(
            f"max_fpr: expected a false positive rate in (0, 1] or several, found {max_fpr}; the usual limits are 0.3 and 0.05"
        )
    pixels, gain = _count_pixels(read, metric)
    areas = [counts.area_under_overlap(pixels, gain, limit) for limit in limits]
    return areas if np.ndim(max_fpr) else areas[0]


def _count_pixels(read: Callable[[], Iterator[_Image]], metric: str) -> tuple[counts.Counts, np.ndarray]:
    """Count the normal scores above each score of a defect pixel that still adds to an overlap.

    Also gives how much the mean overlap grows at each distinct one, of shape (n_distinct,).
    """
    scores, groups, weights, dtypes = [], [], [], set()
    n_images = n_regions = n_normal = n_defective = 0
    for one, is_defect, defects in read():
        n_images += 1
        dtypes.add(one.dtype)
        area = 0 if is_defect is None else int(np.count_nonzero(is_defect))
        n_defective += area
        n_normal += one.size - area
        for mask, saturation in defects:
            region_scores, region_groups, group_weights, n_found = _overlap(one, mask, saturation)
            scores.append(region_scores)
            groups.append(region_groups + np.int32(len(weights)))
            weights.extend(group_weights)
            n_regions += n_found
    if 0 in (n_defective, n_normal):
        found = "a defect at every pixel" if n_defective else "no defect"
        raise PradotError(
            f"{metric} undefined: expected normal and defect pixels, found {found} in all {n_images} masks; "
            "evaluate on images with and without defects, with their masks"
        )
    scores = np.concatenate(scores, dtype=np.result_type(*dtypes))  # (n_anomalous,)
    groups = np.concatenate(groups)  # (n_anomalous,)
    scores, groups = counts.sort_grouped(scores, groups)
    normal = (one.ravel() if is_defect is None else one[~is_defect] for one, is_defect, _ in read())
    pixels = counts.count(normal, n_normal, scores)
    return pixels, np.add.reduceat(np.array(weights)[groups], pixels.first) / n_regions


def _overlap(
    one: np.ndarray, mask: np.ndarray, saturation: float | None
) -> tuple[np.ndarray, np.ndarray, Sequence[float], int]:
    """Scores of a mask's pixels, and by how much each adds to the overlap of its region.

    With a saturation area the mask is one region, and its best pixels add 1 / saturation each until they have 1 together;
    the rest is left out. Without, its regions are its connected components, each saturated at its whole area.

    Returns
    -------
    scores : array of shape (n_pixels,)
    groups : int32 array of shape (n_pixels,)
        Pixels that add alike have one number, from 0.
    weights : sequence of shape (n_groups,)
        How much they add.
    n_regions : int
    """
    scores = one[mask]  # (area,)
    if saturation is None:
        labelled, n_regions = ndimage.label(mask, EIGHT_CONNECTED)  # int32
        groups = labelled[mask] - np.int32(1)  # (area,)
        return scores, groups, 1 / np.bincount(groups), n_regions
    n_best = math.ceil(saturation)
    scores = np.partition(scores, len(scores) - n_best)[-n_best:]  # (n_best,), the lowest of them first
    groups = np.zeros(n_best, np.int32)
    groups[0] = 1  # of a saturation area that is no whole number, the remainder
    return scores, groups, [1 / saturation, 1 - (n_best - 1) / saturation], 1


def _read_masks(maps: Maps, masks: Maps) -> Iterator[_Image]:
    """Check the input image by image."""
    if len(maps) != len(masks):
        raise PradotError(f"masks: expected one for each of the {len(maps)} maps, found {len(masks)}")
    for index, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        one, mask = _finite(one, f"anomaly map {index}"), _binary(mask, f"mask {index}")
        _check_shapes(one, mask, index)
        yield (one, mask, [(mask, None)]) if mask.any() else (one, None, [])


def _read_defects(maps: Maps, defects: Defects) -> Iterator[_Image]:
    """Check the input image by image."""
    if len(maps) != len(defects):
        raise PradotError(f"defects: expected a list for each of the {len(maps)} maps, found {len(defects)}")
    for index, (one, of_image) in enumerate(zip(maps, defects, strict=True)):
        one, is_defect, checked = _finite(one, f"anomaly map {index}"), None, []
        if one.ndim != 2:
            raise PradotError(f"anomaly map {index}: expected shape (height, width), found {one.shape}")
        for number, defect in enumerate(of_image):
            name = f"defect {number} of image {index}"
            if not isinstance(defect, tuple | list) or len(defect) != 2 or not isinstance(defect[1], Real):
                raise PradotError(f"{name}: expected a mask and its saturation area in pixels, found {type(defect).__name__}")
            mask, saturation = _binary(defect[0], f"mask of {name}"), defect[1]
            _check_shapes(one, mask, index)
            area = np.count_nonzero(mask)
            if not 0 < saturation <= area:
                raise PradotError(
                    f"{name}: expected a saturation area above 0 and at most the mask's {area} pixels, found {saturation}; "
                    "take min(area, saturation area), and leave out masks without a pixel"
                )
            is_defect = mask if is_defect is None else is_defect | mask
            checked.append((mask, saturation))
        yield one, is_defect, checked


def _check_shapes(one: np.ndarray, mask: np.ndarray, index: int) -> None:
    if one.ndim != 2 or one.shape != mask.shape:
        raise PradotError(
            f"image {index}: expected an anomaly map and a mask of one shape (height, width), "
            f"found {one.shape} and {mask.shape}"
        )


def _binary(values: np.ndarray, name: str) -> np.ndarray:
    values = _array(values, name)
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
    values = _array(values, name)
    if values.dtype.kind not in "biuf" or values.size == 0:
        raise PradotError(f"{name}: expected numbers, found shape {values.shape} of type {values.dtype}")
    # Minimum and maximum carry NaN and infinity, and need no further array.
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        n_bad = values.size - np.count_nonzero(np.isfinite(values))
        raise PradotError(f"{name}: expected finite numbers, found {n_bad} of {values.size} NaN or infinite")
    if values.dtype.itemsize == 8 and values.dtype.kind in "iu":
        return values  # as float64, large ones would be rounded to ties
    return values.astype(np.result_type(values, np.float32), copy=False)


def _array(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise PradotError(f"{name}: expected an array of numbers, found {type(values).__name__}: {error}") from error
