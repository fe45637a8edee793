"""The data sets: which images a category trains and tests on, their defects and their masks.

Nothing is read here but folder listings and masks; every problem with a layout is an error that shows the layout
expected, and nothing is left out in silence.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pradot.errors import PradotError
from pradot.images import IMAGE_SUFFIXES, describe_folder, find_images, read_image, visible
from pradot.paper.drawn import CATEGORY, draw

DATASETS = ("mvtec_ad", "drawn", "folder")
"""Names of the data sets known."""

# Training images, normal and anomalous test images of the published data set (Bergmann et al., CVPR 2019, table 1).
MVTEC_AD_COUNTS = {
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "leather": (245, 32, 92),
    "tile": (230, 33, 84),
    "wood": (247, 19, 60),
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "hazelnut": (391, 40, 70),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "zipper": (240, 32, 119),
}
MVTEC_AD_CATEGORIES = tuple(MVTEC_AD_COUNTS)
"""The fifteen categories in the published order: textures, then objects."""

_MVTEC_AD_FOLDERS = ("mvtec_ad", "mvtec_anomaly_detection")  # what the unpacked data set is usually called

_MVTEC_AD_LAYOUT = """
Expected layout:
  ROOT/
    CATEGORY/                                such as bottle
      train/good/000.png ...                 normal images
      test/good/000.png ...                  normal images
      test/DEFECT/000.png ...                anomalous images, such as DEFECT = scratch
      ground_truth/DEFECT/000_mask.png ...   their masks (may be absent as a whole)"""

_FOLDER_LAYOUT = """
Expected layout, of which all but the training images may be absent:
  ROOT/
    train/good/000.png ...                   normal images (or in train/, or for training alone in ROOT itself)
    test/good/000.png ...                    normal images
    test/DEFECT/000.png ...                  anomalous images, such as DEFECT = scratch
    ground_truth/DEFECT/000_mask.png ...     their masks"""


class Sample(NamedTuple):
    """One test image."""

    path: Path
    defect: str  # the folder's name; "good" when normal
    mask: Path | None  # None when normal, or when there is no mask

    @property
    def is_anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != "good"


@dataclass(frozen=True)
class Category:
    """One category of a data set: what to learn from, what to test on."""

    dataset: str
    name: str
    root: Path  # the category's own folder
    train: tuple[Path, ...]  # normal images, in natural order
    test: tuple[Sample, ...]  # by defect, then in natural order; may be empty
    notes: tuple[str, ...]  # sentences for the reader of a result, such as that masks are missing

    @property
    def has_masks(self) -> bool:
        """Whether there are anomalous test images and every one of them has its mask."""
        masks = [sample.mask for sample in self.test if sample.is_anomalous]
        return bool(masks) and None not in masks

    @property
    def labels(self) -> np.ndarray:
        """`(n_test,)`, int: 1 for anomalous test images, 0 for normal ones."""
        return np.array([sample.is_anomalous for sample in self.test], dtype=int)

    @property
    def defects(self) -> list[str]:
        """Sorted names of the defects, without "good"."""
        return sorted({sample.defect for sample in self.test if sample.is_anomalous})


def list_categories(dataset: str, root: str | Path) -> list[str]:
    """Name the categories found under a folder.

    Parameters
    ----------
    dataset : str
        One of `DATASETS`. `mvtec_ad`: every sub-folder with `train/good`, in the published order, then others by name.
        `drawn`: the drawn set, which is drawn under `root` first if it is not there. `folder`: `root` itself.
    root : str or Path
        Folder of the categories, or a single category's folder. For `mvtec_ad` also a folder that holds
        `mvtec_ad` or `mvtec_anomaly_detection`.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    PradotError
        If the data set is unknown or no category is found.
    """
    return list(_find_categories(dataset, root))


def load_category(dataset: str, root: str | Path, name: str) -> Category:
    """Collect the images, defects and masks of one category.

    Parameters
    ----------
    dataset, root
        As for `list_categories`.
    name : str
        One of the names that `list_categories` gives.

    Returns
    -------
    Category
        A mask is `ground_truth/<defect>/<image's name>_mask.png`, or without `_mask`, or with another image ending.
        A category without any masks is complete but for its pixel metrics, and has a note saying so.

    Raises
    ------
    PradotError
        If the category or images of it are not found, if images lie where they have no label, or if some but not all
        anomalous images have masks (except for `folder`, where a note says so and `has_masks` is False).
    """
    categories = _find_categories(dataset, root)
    if name not in categories:
        raise PradotError(f"No category {name!r} of {dataset} in {root}; found there: {', '.join(categories)}.")
    folder = categories[name]
    if dataset == "folder":
        train, test = _folder_images(folder)
    else:
        if not (folder / "test").is_dir():
            raise PradotError(f"No folder test in {folder}: {describe_folder(folder)}.{_MVTEC_AD_LAYOUT}")
        train, test = find_images(folder / "train" / "good"), _test_samples(folder, _MVTEC_AD_LAYOUT)

    notes = []
    n_good = sum(not sample.is_anomalous for sample in test)
    counts = (len(train), n_good, len(test) - n_good)
    if dataset == "mvtec_ad" and counts != MVTEC_AD_COUNTS.get(name, counts):
        found, published = (" + ".join(map(str, three)) for three in (counts, MVTEC_AD_COUNTS[name]))
        notes.append(
            f"{found} training, normal and anomalous test images, where the published {name} has {published}: "
            "results do not compare with the published ones."
        )
    if not test:
        notes.append("No test images: all metrics are absent.")
    elif 0 in counts[1:]:
        notes.append(f"No {'normal' if n_good == 0 else 'anomalous'} test images: metrics that need both are absent.")
    notes += _mask_notes(folder, test, refuse_gaps=dataset != "folder")
    return Category(dataset, name, folder, tuple(train), tuple(test), tuple(notes))


def read_mask(sample: Sample, shape: tuple[int, int], size: int | None = None) -> np.ndarray:
    """Read the mask of a test image.

    Parameters
    ----------
    sample : Sample
    shape : (int, int)
        Height and width of the sample's image, which its mask must have too.
    size : int, optional
        Side in pixels of the square to resize to, by nearest neighbour on tensors, as in the paper's evaluation at
        224 x 224: output pixel i takes input pixel floor(i * height / size). None keeps the image's size.

    Returns
    -------
    np.ndarray
        `(height, width)` or `(size, size)`, bool: True where anomalous, which is every value above 0. All False for
        a normal image.

    Raises
    ------
    PradotError
        If an anomalous sample has no mask, or the mask is unreadable or of another size than its image.
    """
    height, width = (int(length) for length in shape)
    if not sample.is_anomalous:
        return np.zeros((height, width) if size is None else (size, size), dtype=bool)
    if sample.mask is None:
        raise PradotError(f"No mask for {sample.path}: pixel metrics need one for every anomalous image.")
    mask = (read_image(sample.mask) > 0).any(axis=2)  # (height, width)
    if mask.shape != (height, width):
        raise PradotError(
            f"The mask {sample.mask} has {mask.shape[0]} x {mask.shape[1]} pixels (height x width), its image "
            f"{sample.path} {height} x {width}: give the mask the image's size."
        )
    if size is not None:
        tensor = torch.from_numpy(mask.astype(np.uint8))[None]  # (1, height, width)
        mask = F.resize(tensor, [size, size], interpolation=InterpolationMode.NEAREST)[0].numpy() > 0  # (size, size)
    return mask


def _find_categories(dataset: str, root: str | Path) -> dict[str, Path]:
    """Map category names to folders, in the order to run them."""
    if dataset not in DATASETS:
        raise PradotError(f"Unknown data set {dataset!r}; known are {', '.join(DATASETS)}.")
    root = Path(os.path.abspath(Path(root).expanduser()))  # so that "." has a name too
    if dataset == "drawn":
        return _drawn(root)
    if not root.is_dir():
        layout = _FOLDER_LAYOUT if dataset == "folder" else _MVTEC_AD_LAYOUT
        raise PradotError(f"No folder {root} for data set {dataset}: {describe_folder(root)}.{layout}")
    if dataset == "folder" or _is_category(root):
        return {root.name: root}
    for folder in (*(root / usual for usual in _MVTEC_AD_FOLDERS), root):
        found = {path.name: path for path in visible(folder) if _is_category(path)}
        if found:
            known = [name for name in MVTEC_AD_CATEGORIES if name in found]
            return {name: found[name] for name in [*known, *(name for name in found if name not in known)]}
    raise PradotError(f"No category (a folder with train/good) in {root}: {describe_folder(root)}.{_MVTEC_AD_LAYOUT}")


def _drawn(root: Path) -> dict[str, Path]:
    if root.name == CATEGORY and _is_category(root):
        return {CATEGORY: root}
    return {CATEGORY: draw(root) / CATEGORY}  # `draw` keeps a current set and replaces an outdated one


def _is_category(folder: Path) -> bool:
    return (folder / "train" / "good").is_dir()


def _folder_images(folder: Path) -> tuple[list[Path], list[Sample]]:
    """Training images and test samples of a user's own folder, in the fullest layout that it has."""
    if not (folder / "train").is_dir():
        if (folder / "test").is_dir():
            raise PradotError(f"Nothing to learn from in {folder}: {describe_folder(folder)}.{_FOLDER_LAYOUT}")
        try:
            return find_images(folder), []
        except PradotError as error:
            raise PradotError(f"{error}{_FOLDER_LAYOUT}") from error
    if _is_category(folder):
        _refuse_loose_images(folder / "train", _FOLDER_LAYOUT)
        train = find_images(folder / "train" / "good")
    else:
        train = find_images(folder / "train")
    return train, _test_samples(folder, _FOLDER_LAYOUT) if (folder / "test").is_dir() else []


def _test_samples(folder: Path, layout: str) -> list[Sample]:
    """Test samples with their masks, by defect, then in natural order."""
    _refuse_loose_images(folder / "test", layout)
    samples = []
    for defect in (path for path in visible(folder / "test") if path.is_dir()):
        masks = {}
        if defect.name != "good":
            candidates = visible(folder / "ground_truth" / defect.name)
            masks = {path.stem: path for path in candidates if path.suffix.lower() in IMAGE_SUFFIXES}
        for path in find_images(defect):
            samples.append(Sample(path, defect.name, masks.get(f"{path.stem}_mask", masks.get(path.stem))))
    if not samples:
        raise PradotError(f"No test images in {folder / 'test'}: {describe_folder(folder / 'test')}.{layout}")
    return samples


def _refuse_loose_images(folder: Path, layout: str) -> None:
    """Refuse images beside the labelled sub-folders, which would otherwise be left out in silence."""
    loose = [path.name for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]
    if loose:
        raise PradotError(
            f"{len(loose)} image(s) lie directly in {folder} ({', '.join(loose[:3])}{', ...' if len(loose) > 3 else ''}) "
            f"and so have no label: move them into one of its sub-folders.{layout}"
        )


def _mask_notes(folder: Path, test: list[Sample], refuse_gaps: bool) -> list[str]:
    """Say what masks are missing or doubtful; with `refuse_gaps`, some but not all missing is an error."""
    masks = {sample.path: sample.mask for sample in test if sample.is_anomalous}
    missing = [path for path, mask in masks.items() if mask is None]
    if missing:
        truth = folder / "ground_truth"
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in truth.rglob("*")):
            return ["No masks: pixel metrics are absent."]
        first = ", ".join(f"{path.parent.name}/{path.name}" for path in missing[:3])
        first += ", ..." if len(missing) > 3 else ""
        gap = f"{len(missing)} of {len(masks)} anomalous images have no mask of their name in {truth} ({first})"
        if refuse_gaps:
            raise PradotError(
                f"{gap}: pixel metrics would be wrong. Add the missing masks, or take the folder ground_truth away "
                f"to go without any.{_MVTEC_AD_LAYOUT}"
            )
        return [f"{gap}: pixel metrics are absent."]
    lossy = sum(mask.suffix.lower() in (".jpg", ".jpeg") for mask in masks.values())
    if lossy:
        return [f"{lossy} masks are JPEG files, whose compression leaves stray values above 0, which all count."]
    return []
