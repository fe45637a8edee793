"""The metrics of a test set: over all its images, by kind of defect, and those of MVTec AD LOCO."""

from collections.abc import Sequence

import numpy as np

from pradot import metrics
from pradot.errors import PradotError
from pradot.maps import image_score, upsample_and_average
from pradot.paper.datasets import LOCO_TYPES
from pradot.paper.masks import OFFICIAL_SIZE, read_defects, read_mask, read_official_defects
from pradot.progress import progress_bar

METRICS = (
    "image_auroc",
    "pixel_auroc",
    "image_ap",
    "pixel_ap",
    "image_f1_max",
    "pixel_f1_max",
    "au_pro_30",
    "au_pro_05",
)
"""Of every data set: over all test images, and in a record's ``by_defect`` over those of one kind and all normal ones."""

SPRO_LIMITS = {"au_spro_01": 0.01, "au_spro_05": 0.05, "au_spro_10": 0.1, "au_spro_30": 0.3, "au_spro_100": 1.0}
"""AU-sPRO of MVTec AD LOCO by false positive rate, at the images' own size whatever the preset's evaluation size."""

OFFICIAL_SPRO = {"au_spro_05_224_first": False, "au_spro_05_224_merged": True}
"""AU-sPRO at 5 % with masks as the paper's code handles them, see `read_official_defects`; whether they are merged."""

LOCO_METRICS = ("image_auroc_types", *SPRO_LIMITS, *OFFICIAL_SPRO)
"""Of MVTec AD LOCO besides: means over its two types of defects; AU-sPRO also by type. The mean of the types' image AUROC is
what the paper reports, while ``image_auroc`` is over all images at once."""

KEEP_BYTES = 1e9  # of upsampled maps; more are made anew whenever they are read


class Maps(Sequence):
    """Anomaly maps of the test images, as `upsample_and_average` gives them, which may not fit into memory together.

    Parameters
    ----------
    branch_maps : dict of Branch to Tensor of shape (n_images, height, width)
    shapes : sequence of (int, int)
        Height and width of each image's map.
    keep_bytes : float
        They are kept when all of them take no more than this; `KEEP_BYTES` by default.
    """

    def __init__(self, branch_maps, shapes, keep_bytes=None):
        self._branch_maps, self._shapes = branch_maps, shapes
        keep_bytes = KEEP_BYTES if keep_bytes is None else keep_bytes
        self._kept = {} if 4 * sum(height * width for height, width in shapes) <= keep_bytes else None

    def __len__(self):
        return len(self._shapes)

    def __getitem__(self, i):
        i = range(len(self))[i]
        if self._kept is not None and i in self._kept:
            return self._kept[i]
        branches = {branch: maps[i : i + 1] for branch, maps in self._branch_maps.items()}
        (anomaly_map,) = upsample_and_average(branches, [self._shapes[i]])  # (height_i, width_i)
        if self._kept is not None:
            self._kept[i] = anomaly_map
        return anomaly_map


class _Chosen(Sequence):
    """Some items of a sequence, none of them read before it is asked for."""

    def __init__(self, items, indices):
        self._items, self._indices = items, indices

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, i):
        return self._items[self._indices[i]]


def maps_and_scores(detector, features):
    """What a fitted method makes of images.

    Parameters
    ----------
    detector : Pradot or Baseline
    features : dict of int to Tensor of shape (n_images, height, width, channels)
        See `pradot.Encoder.features`.

    Returns
    -------
    branch_maps : dict of Branch to Tensor of shape (n_images, height, width)
        Patch scores.
    score_maps : the same
        Those that image scores are made of, see `pradot.Pradot.branch_and_score_maps`; most often the first ones.
    scores : ndarray of shape (n_images,) or None
        Image scores, if the method has its own (PatchCore).
    """
    if hasattr(detector, "maps_and_scores"):
        branch_maps, scores = detector.maps_and_scores(features)
        return branch_maps, branch_maps, scores
    return *detector.branch_and_score_maps_of_features(features), None


def score_images(detector, features, size=224):
    """Image scores of a fitted `pradot.Pradot`, or one of `pradot.paper.baselines`.

    Parameters
    ----------
    detector : Pradot or Baseline
    features : dict of int to Tensor of shape (n_images, height, width, channels)
        See `pradot.Encoder.features`.
    size : int
        Side in pixels of the anomaly maps that are scored, if the method has no image scores of its own.

    Returns
    -------
    ndarray of shape (n_images,)
        Higher for the more abnormal.
    """
    _, score_maps, scores = maps_and_scores(detector, features)
    if scores is not None:
        return scores
    n_images = len(next(iter(score_maps.values())))
    maps = upsample_and_average(score_maps, [(size, size)] * n_images)
    return np.array([image_score(anomaly_map, detector.top_part) for anomaly_map in maps])


def check_test(data, shapes):
    """Read all masks of a category's test images, before the long work that needs them after it.

    Parameters
    ----------
    data : Category
    shapes : sequence of (int, int)
        Height and width of the test images.

    Returns
    -------
    list of str
        Which masks show no defect, in a sentence, if any do.

    Raises
    ------
    PradotError
        A mask cannot be read, or is of another size than its image; in MVTec AD LOCO also what `read_defects` refuses.
    """
    empty = []
    for sample, shape in zip(data.test, shapes, strict=True):
        if not sample.is_anomalous or not data.has_masks:
            continue
        if data.dataset == "mvtec_loco":
            read_defects(data, sample, shape)
        elif not read_mask(sample, shape).any():
            empty.append(f"{sample.defect}/{sample.path.name}")
    if not empty:
        return []
    first = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    return [f"The masks of {len(empty)} anomalous images show no defect ({first}): to pixel metrics these are wholly normal."]


def evaluate(data, branch_maps, shapes, size, watch, progress=False, *, score_maps=None, scores=None, top_part=0.0):
    """Scores and metrics of a category's test images.

    Parameters
    ----------
    data : Category
        With test images.
    branch_maps : dict of Branch to Tensor of shape (n_test, height, width)
        Patch scores.
    shapes : sequence of (int, int)
        Height and width of the test images.
    size : int or None
        Side in pixels of the squares at which maps and masks are compared; None: the images' own sizes.
    watch : Stopwatch
        Told the time of ``"scoring"``, ``"loading"`` and ``"metrics"``.
    progress : bool
        Show a progress bar.
    score_maps : the same, optional
        Patch scores that image scores are made of; `branch_maps` by default.
    scores : ndarray of shape (n_test,), optional
        Image scores; those of `pradot.maps.image_score` by default.
    top_part : float
        For these.

    Returns
    -------
    results : dict
        ``metrics`` (`METRICS`; MVTec AD LOCO also has `LOCO_METRICS`), ``by_defect`` (the same of each kind of defect with all
        normal images) and ``images`` (file, defect and score of each). Fractions in [0, 1]; None where masks or images are
        missing.
    notes : list of str
        Why a metric is missing.

    Raises
    ------
    PradotError
        A mask cannot be read, or is of another size than its image.
    """
    sizes = shapes if size is None else [(size, size)] * len(shapes)
    maps = Maps(branch_maps, sizes)
    if scores is None:
        of_scores = maps if score_maps is None or score_maps is branch_maps else Maps(score_maps, sizes, keep_bytes=0)
        scores = np.array([image_score(one, top_part) for one in of_scores])
    watch.lap("scoring")
    masks = None
    if data.has_masks:
        square = None if size is None else (size, size)
        masks = [
            # One byte serves all pixels of a normal image.
            read_mask(sample, shape, size) if sample.is_anomalous else np.broadcast_to(False, square or shape)
            for sample, shape in zip(data.test, shapes, strict=True)
        ]
    watch.lap("loading")

    labels, notes = data.labels, []
    if masks is not None and not any(mask.any() for mask in masks):
        masks = None
        notes.append("No mask shows a defect" + (f" at {size} x {size}" if size else "") + ": pixel metrics are absent.")
    results = {"metrics": dict.fromkeys(METRICS), "by_defect": {}}
    results["images"] = [
        {"file": str(sample.path.relative_to(data.root)), "defect": sample.defect, "score": float(score)}
        for sample, score in zip(data.test, scores, strict=True)
    ]
    is_loco = data.dataset == "mvtec_loco"
    if is_loco:
        results["metrics"] |= dict.fromkeys(LOCO_METRICS)
    if len(set(labels)) < 2:
        return results, notes  # the category's own notes say so
    with progress_bar(1 + (1 + is_loco) * len(data.defects), f"metrics {data.name}", "part", progress) as bar:
        results["metrics"] |= metrics.evaluate(labels, scores, maps if masks else None, masks)
        bar.update()
        for defect in data.defects:
            chosen = np.flatnonzero([sample.defect in (defect, "good") for sample in data.test])
            parts = (_Chosen(maps, chosen), _Chosen(masks, chosen)) if masks else ()
            try:
                results["by_defect"][defect] = metrics.evaluate(labels[chosen], scores[chosen], *parts)
            except PradotError as error:
                notes.append(f"metrics of defect {defect!r} alone are absent: {error}")
            bar.update()
        if is_loco:
            del maps, masks
            results["metrics"] |= _loco(data, branch_maps, shapes, results["by_defect"], notes, bar)
    watch.lap("metrics")
    return results, notes


def _loco(data, branch_maps, shapes, by_defect, notes, bar):
    """Add AU-sPRO to each type's metrics; return the means over both types."""
    for defect, found in by_defect.items():
        found |= dict.fromkeys((*SPRO_LIMITS, *OFFICIAL_SPRO))
        if data.has_masks:
            chosen = np.flatnonzero([sample.defect in (defect, "good") for sample in data.test])
            try:
                found |= _spro(data, branch_maps, shapes, chosen)
            except PradotError as error:
                notes.append(f"AU-sPRO of {defect} is absent: {error}")
        bar.update()
    means = {}
    for metric in LOCO_METRICS:
        values = [by_defect.get(kind, {}).get(metric.removesuffix("_types")) for kind in LOCO_TYPES]
        means[metric] = None if None in values else sum(values) / len(values)
    return means


def _spro(data, branch_maps, shapes, chosen):
    samples = [(data.test[i], shapes[i]) for i in chosen]
    maps = _Chosen(Maps(branch_maps, shapes), chosen)
    defects = [read_defects(data, sample, shape) for sample, shape in samples]
    found = dict(zip(SPRO_LIMITS, metrics.au_spro(maps, defects, tuple(SPRO_LIMITS.values())), strict=True))
    del defects
    maps = _Chosen(Maps(branch_maps, [(OFFICIAL_SIZE, OFFICIAL_SIZE)] * len(shapes)), chosen)
    for metric, merged in OFFICIAL_SPRO.items():
        defects = [read_official_defects(data, sample, shape, merged) for sample, shape in samples]
        found[metric] = metrics.au_spro(maps, defects, 0.05)
    return found
