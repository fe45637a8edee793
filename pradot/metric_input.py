"""Scores, labels, maps, masks and defects that metrics are given: checked before anything is counted."""

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from pradot.errors import PradotError

Maps = np.ndarray | Sequence[np.ndarray]
"""Array of shape (n_images, height, width), or sequence of arrays of shape (height_i, width_i)."""

Defects = Sequence[Sequence[tuple[np.ndarray, float]]]
"""For each image its defects, each a mask of shape (height_i, width_i) and a saturation area in pixels."""


class CheckedImage(NamedTuple):
    """An anomaly map with what is known of its image.

    Attributes
    ----------
    anomaly_map : ndarray of shape (height, width)
    is_defect : bool ndarray of shape (height, width) or None
        Where any defect is; None: nowhere.
    defects : list of (mask, saturation area)
        Area None: each connected region of the mask is a defect that saturates at its own area.
    """

    anomaly_map: np.ndarray
    is_defect: np.ndarray | None
    defects: list[tuple[np.ndarray, float | None]]


def read_masks(maps: Maps, masks: Maps) -> Iterator[CheckedImage]:
    """Check maps and masks image by image; a mask's connected regions saturate at their own areas."""
    if len(maps) != len(masks):
        raise PradotError(f"masks: expected one for each of the {len(maps)} maps, found {len(masks)}")
    for index, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        one, mask = finite(one, f"anomaly map {index}"), binary(mask, f"mask {index}")
        _check_shapes(one, mask, index)
        yield CheckedImage(one, mask, [(mask, None)]) if mask.any() else CheckedImage(one, None, [])


def read_defects(maps: Maps, defects: Defects) -> Iterator[CheckedImage]:
    """Check maps and defects image by image."""
    if len(maps) != len(defects):
        raise PradotError(f"defects: expected a list for each of the {len(maps)} maps, found {len(defects)}")
    for index, (one, of_image) in enumerate(zip(maps, defects, strict=True)):
        one, is_defect, checked = finite(one, f"anomaly map {index}"), None, []
        if one.ndim != 2:
            raise PradotError(f"anomaly map {index}: expected shape (height, width), found {one.shape}")
        for number, defect in enumerate(of_image):
            name = f"defect {number} of image {index}"
            if not isinstance(defect, tuple | list) or len(defect) != 2 or not isinstance(defect[1], Real):
                raise PradotError(f"{name}: expected a mask and its saturation area in pixels, found {type(defect).__name__}")
            mask, saturation = binary(defect[0], f"mask of {name}"), defect[1]
            _check_shapes(one, mask, index)
            area = np.count_nonzero(mask)
            if not 0 < saturation <= area:
                raise PradotError(
                    f"{name}: expected a saturation area above 0 and at most the mask's {area} pixels, found {saturation}; "
                    "take min(area, saturation area), and leave out masks without a pixel"
                )
            is_defect = mask if is_defect is None else is_defect | mask
            checked.append((mask, saturation))
        yield CheckedImage(one, is_defect, checked)


def _check_shapes(one: np.ndarray, mask: np.ndarray, index: int) -> None:
    if one.ndim != 2 or one.shape != mask.shape:
        raise PradotError(
            f"image {index}: expected an anomaly map and a mask of one shape (height, width), "
            f"found {one.shape} and {mask.shape}"
        )


def binary(values: np.ndarray, name: str) -> np.ndarray:
    """Check that all values are 0 or 1, and give them as bool; `name` is what errors call them."""
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


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """Check that there are values and all are finite numbers, and give them in a type that keeps their order."""
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
