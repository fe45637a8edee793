"""The data sets: which images a category trains and tests on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pradot.errors import PradotError
from pradot.images import IMAGE_SUFFIXES
from pradot.paper.catalogue import (
    DATASETS,
    DOWNLOADED,
    Dataset,
    data_folder,
    find_categories,
    find_datasets,
    find_root,
    list_categories,
)
from pradot.paper.counts import MVTEC_AD_CATEGORIES, MVTEC_AD_COUNTS, Counts, count
from pradot.paper.layouts import Images, Sample
from pradot.paper.masks import read_defects, read_mask, read_saturations

__all__ = [
    "DATASETS",
    "DOWNLOADED",
    "LOCO_TYPES",
    "MVTEC_AD_CATEGORIES",
    "MVTEC_AD_COUNTS",
    "Category",
    "Counts",
    "Dataset",
    "Sample",
    "count",
    "data_folder",
    "find_categories",
    "find_datasets",
    "find_root",
    "list_categories",
    "load_category",
    "read_defects",
    "read_mask",
]

LOCO_TYPES = ("logical_anomalies", "structural_anomalies")
"""The two types of defects in MVTec AD LOCO, whose metrics are averaged."""


@dataclass(frozen=True)
class Category:
    """One category of a data set: what to learn from, what to test on."""

    dataset: str
    name: str
    root: Path  # the category's own folder
    train: tuple[Path, ...]  # normal images, in natural order; drawn ones may be defective, see `pradot.paper.training`
    validation: tuple[Path, ...]  # normal images to choose the best epoch; empty where the data set has none
    test: tuple[Sample, ...]  # by defect, then in natural order; may be empty
    notes: tuple[str, ...]  # sentences for the reader of a result, such as that masks are missing
    pool: tuple[tuple[Path, ...], ...] = ()  # all training and all test images, where these were drawn from them

    @property
    def has_masks(self) -> bool:
        """Whether there are anomalous test images and every one of them has a mask."""
        masks = [sample.masks for sample in self.test if sample.is_anomalous]
        return bool(masks) and () not in masks

    @property
    def labels(self) -> np.ndarray:
        """`(n_test,)`, int: 1 for anomalous test images, 0 for normal ones."""
        return np.array([sample.is_anomalous for sample in self.test], dtype=int)

    @property
    def defects(self) -> list[str]:
        """Sorted names of the defects, without "good"."""
        return sorted({sample.defect for sample in self.test if sample.is_anomalous})

    @property
    def files(self) -> list[Path]:
        """Every file that a result depends on."""
        config = self.root / "defects_config.json"
        masks = [mask for sample in self.test for mask in sample.masks]
        images = [*self.train, *self.validation, *(sample.path for sample in self.test)]
        return [*images, *masks, *([config] if self.dataset == "mvtec_loco" and masks else [])]


def load_category(dataset: str, root: str | Path | None, name: str) -> Category:
    """Collect the images, defects and masks of one category.

    Parameters
    ----------
    dataset, root
        As for `find_root`.
    name : str
        One of the names that `list_categories` gives.

    Returns
    -------
    Category
        A mask is `ground_truth/<defect>/<image's name>_mask.png`, or without `_mask`, or with another image ending, or
        the images in `ground_truth/<defect>/<image's name>/`; in VisA's archive what ``1cls.csv`` names.
        A category without any masks is complete but for its pixel metrics, and has a note saying so.

    Raises
    ------
    PradotError
        If the category or images of it are not found, if images lie where they have no label, or if some but not all
        anomalous images have masks (except for `folder`, where a note says so and `has_masks` is False), or if
        `defects_config.json` of MVTec AD LOCO does not give the saturations of its masks.
    """
    categories = find_categories(dataset, root)
    if name not in categories:
        raise PradotError(f"No category {name!r} of {dataset} in {root}; found there: {', '.join(categories)}.")
    spec, folder = DATASETS[dataset], categories[name]
    images = spec.read(folder)
    notes, counts, published = [*images.notes], count(images), spec.counts.get(name)
    if published not in (None, counts):
        kinds = "training, validation, normal" if published.validation else "training, normal"
        notes.append(
            f"{counts} {kinds} and anomalous test images, where the published {name} has {published}: "
            "results do not compare with the published ones."
        )
    if not images.test:
        notes.append("No test images: all metrics are absent.")
    elif 0 in counts[2:]:
        kind = "normal" if counts.normal == 0 else "anomalous"
        notes.append(f"No {kind} test images: metrics that need both are absent.")
    notes += _mask_notes(images, None if dataset == "folder" else spec.layout)
    if dataset == "mvtec_loco" and any(sample.masks for sample in images.test):
        read_saturations(folder / "defects_config.json")  # refused now, not after the long work
    root = folder.parent if folder.is_file() else folder
    return Category(dataset, name, root, tuple(images.train), tuple(images.validation), tuple(images.test), tuple(notes))


def _mask_notes(images: Images, layout: str | None) -> list[str]:
    """Say what masks are missing or doubtful; with a `layout`, some but not all missing is an error that shows it."""
    masks = {sample.path: sample.masks for sample in images.test if sample.is_anomalous}
    missing = [path for path, found in masks.items() if not found]
    if missing:
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in images.truth.rglob("*")):
            return ["No masks: pixel metrics are absent."]
        first = ", ".join(f"{path.parent.name}/{path.name}" for path in missing[:3])
        first += ", ..." if len(missing) > 3 else ""
        gap = f"{len(missing)} of {len(masks)} anomalous images have no mask of their name in {images.truth} ({first})"
        if layout is not None:
            raise PradotError(
                f"{gap}: pixel metrics would be wrong. Add the missing masks, or take the folder {images.truth.name} away "
                f"to go without any.{layout}"
            )
        return [f"{gap}: pixel metrics are absent."]
    lossy = sum(mask.suffix.lower() in (".jpg", ".jpeg") for found in masks.values() for mask in found)
    if lossy:
        return [f"{lossy} masks are JPEG files, whose compression leaves stray values above 0, which all count."]
    return []
