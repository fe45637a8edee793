"""Masks of test images: their union, and in MVTec AD LOCO one by one with their saturation areas."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pradot.errors import PradotError, is_number, is_whole
from pradot.images import read_mask_file
from pradot.paper.layouts import Sample

OFFICIAL_SIZE = 224  # side in pixels at which the paper's code evaluates


def read_mask(sample: Sample, shape: tuple[int, int], size: int | None = None) -> np.ndarray:
    """Read the mask of a test image, the union of its files.

    Parameters
    ----------
    sample : Sample
    shape : (int, int)
        Height and width of the sample's image, which its masks must have too.
    size : int, optional
        Side in pixels of the square to resize to, by nearest neighbour on tensors, as in the paper's evaluation at
        224 x 224: output pixel i takes input pixel floor(i * height / size). None keeps the image's size.

    Returns
    -------
    np.ndarray
        `(height, width)` or `(size, size)`, bool: True where anomalous, which is every value above 0, so that masks of
        0 and 255, of 0 and 1, and of 0 and labels read alike. All False for a normal image.

    Raises
    ------
    PradotError
        If an anomalous sample has no mask, or a mask is unreadable or of another size than its image.
    """
    height, width = (int(length) for length in shape)
    mask = np.zeros((height, width), dtype=bool)
    if sample.is_anomalous and not sample.masks:
        raise PradotError(f"No mask for {sample.path}: pixel metrics need one for every anomalous image.")
    for path in sample.masks:
        mask |= _read_grey(path, sample, mask.shape) > 0
    return mask if size is None else _resize(mask, size)


def read_defects(category, sample: Sample, shape: tuple[int, int]) -> list[tuple[np.ndarray, int]]:
    """Read the defects of a test image of MVTec AD LOCO one by one, each with its saturation area.

    A defect counts as wholly found once so many of its pixels are found: by its entry in ``defects_config.json``
    (``saturation_threshold`` s, ``relative_saturation``) and its own area A in pixels, ``int(s * A)`` when relative,
    ``min(s, A)`` when absolute.

    Parameters
    ----------
    category : Category
        In whose folder ``defects_config.json`` lies.
    sample : Sample
        Its masks are one file a defect, whose grey value (0 to 255) selects the entry of that ``pixel_value``.
    shape : (int, int)
        Height and width of the sample's image, which its masks must have too.

    Returns
    -------
    list of (mask, saturation area)
        Masks `(height, width)`, bool; areas int, in pixels. Empty for a normal image.

    Raises
    ------
    PradotError
        If the file ``defects_config.json`` is missing or not as described, or a mask is unreadable, empty, of another
        size than its image, of several grey values, or of one that the file does not name.

    References
    ----------
    Bergmann, Batzner, Fauser, Sattlegger and Steger, "Beyond Dents and Scratches: Logical Constraints in Unsupervised
    Anomaly Detection and Localization", International Journal of Computer Vision 130, 2022, section 5.
    """
    if not sample.is_anomalous:
        return []
    if not sample.masks:
        raise PradotError(f"No mask for {sample.path}: pixel metrics need one for every anomalous image.")
    config, defects = category.root / "defects_config.json", []
    saturations = read_saturations(config)
    for path in sample.masks:
        grey = _read_grey(path, sample, shape)  # (height, width)
        mask = grey > 0
        values = np.rint(255 * np.unique(grey[mask])).astype(int)
        if len(values) != 1:
            raise PradotError(
                f"{path} has {len(values)} grey values above 0 (expected one, which selects its entry in {config})."
            )
        if values[0] not in saturations:
            raise PradotError(f"{config} has no entry of pixel_value {values[0]}, the grey value of {path}.")
        defects.append((mask, saturation_area(saturations[values[0]], np.count_nonzero(mask))))
    return defects


def read_official_defects(category, sample: Sample, shape: tuple[int, int], merged: bool) -> list[tuple[np.ndarray, int]]:
    """Read the defects of a test image of MVTec AD LOCO as the paper's code hands them to the evaluation.

    One defect an image, resized to 224 x 224 by nearest neighbour, with the entry of grey value 255 in
    ``defects_config.json``, whatever the defect is, and the area of the resized mask: absolute thresholds, meant for
    pixels of the original image, weigh much more there. As read in the code, only the first file's mask is kept.

    Parameters
    ----------
    category, sample, shape
        As for `read_defects`.
    merged : bool
        Take the union of the image's masks instead of the first one.

    Returns
    -------
    list of (mask, saturation area)
        None or one; mask `(224, 224)`, bool. None for a normal image, or when nothing of the defect is left at that size.

    Raises
    ------
    PradotError
        As `read_defects`; also if ``defects_config.json`` has no entry of ``pixel_value`` 255.
    """
    if not sample.is_anomalous:
        return []
    config = category.root / "defects_config.json"
    saturations = read_saturations(config)
    if 255 not in saturations:
        raise PradotError(f"{config} has no entry of pixel_value 255, by which the paper's code evaluates every defect.")
    chosen = sample if merged else sample._replace(masks=sample.masks[:1])
    mask = read_mask(chosen, shape, OFFICIAL_SIZE)  # (224, 224)
    return [(mask, saturation_area(saturations[255], np.count_nonzero(mask)))] if mask.any() else []


def read_saturations(config: Path) -> dict[int, tuple[float, bool]]:
    """Read ``defects_config.json``: grey value to (saturation threshold, whether it is relative).

    Raises
    ------
    PradotError
        If the file is missing or not a list of objects with ``pixel_value``, ``saturation_threshold`` (above 0) and
        ``relative_saturation``.
    """
    try:
        entries = json.loads(config.read_text(encoding="utf-8"))
        found = {e["pixel_value"]: (e["saturation_threshold"], e["relative_saturation"]) for e in entries}
        if not found or len(found) < len(entries):
            raise ValueError("no entry, or two of one pixel_value")
        for value, (threshold, is_relative) in found.items():
            if not (is_whole(value) and is_number(threshold) and isinstance(is_relative, bool)):
                raise ValueError(f"entry of pixel_value {value!r}: expected a whole number, a number, and true or false")
            if not 0 < threshold < math.inf:  # NaN fails too
                raise ValueError(f"entry of pixel_value {value}: a threshold of 0, less, or no finite number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise PradotError(
            f"{config} does not give the defects' saturations ({what}): expected a list of objects with pixel_value, "
            "saturation_threshold and relative_saturation; copy it from the data set's archive."
        ) from error
    return found


def saturation_area(saturation: tuple[float, bool], area: int) -> int:
    """Pixels at which a defect counts as wholly found: at least one, at most its area."""
    threshold, is_relative = saturation
    return max(1, min(int(threshold * area) if is_relative else int(threshold), int(area)))


def _read_grey(path: Path, sample: Sample, shape: tuple[int, int]) -> np.ndarray:
    """Grey values `(height, width)` of a mask in [0, 1], of colours the largest."""
    grey = read_mask_file(path)  # (height, width)
    if grey.shape != tuple(shape):
        raise PradotError(
            f"The mask {path} has {grey.shape[0]} x {grey.shape[1]} pixels (height x width), its image "
            f"{sample.path} {shape[0]} x {shape[1]}: give the mask the image's size."
        )
    return grey


def _resize(mask: np.ndarray, size: int) -> np.ndarray:
    tensor = torch.from_numpy(mask.astype(np.uint8))[None]  # (1, height, width)
    return F.resize(tensor, [size, size], interpolation=InterpolationMode.NEAREST)[0].numpy() > 0  # (size, size)
