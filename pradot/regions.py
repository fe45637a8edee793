"""How well the pixels of defects are found, every defect region counting alike: AU-PRO, AU-sPRO and the curve."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Real

import numpy as np
from scipy import ndimage

from pradot import counts
from pradot.errors import PradotError
from pradot.metric_input import CheckedImage, Defects, Maps, read_defects, read_masks

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong to one region


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
    return _area_under_overlap(partial(read_masks, anomaly_maps, masks), max_fpr, "AU-PRO")


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
    return _area_under_overlap(partial(read_defects, anomaly_maps, defects), max_fpr, "AU-sPRO")


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
    pixels, gain = count_pixels(partial(read_masks, anomaly_maps, masks), "PRO curve")
    overlap = np.cumsum(gain[::-1])  # (n_distinct,), from the highest score down
    overlap /= overlap[-1]
    before = np.concatenate([[0.0], overlap[:-1]])
    fpr = np.stack([pixels.normal_above[::-1], pixels.normal_at_or_above[::-1]], axis=1).ravel() / pixels.n_normal
    pro = np.stack([before, overlap], axis=1).ravel()  # (2 * n_distinct,)
    return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], pro, [1.0]])


def _area_under_overlap(
    read: Callable[[], Iterator[CheckedImage]], max_fpr: float | Sequence[float], metric: str
) -> float | list[float]:
    limits = list(max_fpr) if np.ndim(max_fpr) else [max_fpr]
    if not limits or not all(isinstance(limit, Real) and 0 < limit <= 1 for limit in limits):
        raise PradotError(
            f"max_fpr: expected a false positive rate in (0, 1] or several, found {max_fpr}; the usual limits are 0.3 and 0.05"
        )
    pixels, gain = count_pixels(read, metric)
    areas = [counts.area_under_overlap(pixels, gain, limit) for limit in limits]
    return areas if np.ndim(max_fpr) else areas[0]


def count_pixels(read: Callable[[], Iterator[CheckedImage]], metric: str) -> tuple[counts.Counts, np.ndarray]:
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
