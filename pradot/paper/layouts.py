"""The folder layouts of the data sets: which files of a category are what.

Nothing is opened here but folder listings and the split file of VisA; every problem with a layout is an error that shows
the layout expected, and nothing is left out in silence.
"""

import csv
import os
from pathlib import Path, PurePath
from typing import NamedTuple

from pradot.errors import PradotError
from pradot.folders import describe_folder, visible
from pradot.images import IMAGE_SUFFIXES, find_images

MVTEC_AD_LAYOUT = """
Expected layout:
  ROOT/
    CATEGORY/                                such as bottle
      train/good/000.png ...                 normal images
      test/good/000.png ...                  normal images
      test/DEFECT/000.png ...                anomalous images, such as DEFECT = scratch
      ground_truth/DEFECT/000_mask.png ...   their masks (may be absent as a whole)"""

MVTEC_LOCO_LAYOUT = """
Expected layout:
  ROOT/
    CATEGORY/                                such as juice_bottle
      defects_config.json                    saturation of each kind of defect
      train/good/000.png ...                 normal images
      validation/good/000.png ...            normal images that choose the best epoch
      test/good/000.png ...                  normal images
      test/TYPE/000.png ...                  anomalous images, TYPE = logical_anomalies or structural_anomalies
      ground_truth/TYPE/000/000.png ...      their masks, one file a defect (may be absent as a whole)"""

VISA_LAYOUT = """
Expected layout, that of the archive:
  ROOT/
    split_csv/1cls.csv                       which image trains, which one tests, and its mask
    CATEGORY/                                such as candle
      Data/Images/Normal/0000.JPG ...        normal images
      Data/Images/Anomaly/000.JPG ...        anomalous images
      Data/Masks/Anomaly/000.png ...         their masks
or, rearranged:
  ROOT/
    CATEGORY/
      train/good/0000.JPG ...                normal images
      test/good/0000.JPG ...                 normal images
      test/bad/000.JPG ...                   anomalous images
      ground_truth/bad/000.png ...           their masks"""

FOLDER_LAYOUT = """
Expected layout, of which all but the training images may be absent:
  ROOT/
    train/good/000.png ...                   normal images (or in train/, or for training alone in ROOT itself)
    test/good/000.png ...                    normal images
    test/DEFECT/000.png ...                  anomalous images, such as DEFECT = scratch
    ground_truth/DEFECT/000_mask.png ...     their masks (or several of one image in DEFECT/000/)
or a text file with the path of a normal image on each line, relative to the file's own folder"""


class Sample(NamedTuple):
    """One test image."""

    path: Path
    defect: str  # the folder's name, in VisA "bad"; "good" when normal
    masks: tuple[Path, ...]  # one file or several, whose union is the anomalous area; empty when normal, or without masks

    @property
    def is_anomalous(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect != "good"


class Images(NamedTuple):
    """The files of a category."""

    train: list[Path]  # normal images, in natural order
    validation: list[Path]  # normal images held out by the data set itself; empty where it has none
    test: list[Sample]  # by defect, then in natural order
    truth: Path  # the folder of the masks, whether or not it exists
    notes: list[str]  # sentences on what was left out


def is_mvtec_ad(folder: Path) -> bool:
    """Whether a folder is a category in the layout of MVTec AD, also with names of one's own."""
    return (folder / "train" / "good").is_dir() and not is_mvtec_loco(folder)


def is_mvtec_loco(folder: Path) -> bool:
    """Whether a folder is a category in the layout of MVTec AD LOCO."""
    marks = (folder / "defects_config.json", folder / "test" / "logical_anomalies", folder / "test" / "structural_anomalies")
    return (folder / "train" / "good").is_dir() and any(mark.exists() for mark in marks)


def is_visa_archive(folder: Path) -> bool:
    """Whether a folder is a category of VisA as its archive has it."""
    return (folder / "Data" / "Images" / "Normal").is_dir()


def read_mvtec_ad(folder: Path, layout: str = MVTEC_AD_LAYOUT) -> Images:
    """Files of a category in the layout of MVTec AD."""
    if not (folder / "test").is_dir():
        raise PradotError(f"No folder test in {folder}: {describe_folder(folder)}.{layout}")
    return Images(find_images(folder / "train" / "good"), [], _test_samples(folder, layout), folder / "ground_truth", [])


def read_mvtec_loco(folder: Path) -> Images:
    """Files of a category in the layout of MVTec AD LOCO."""
    images = read_mvtec_ad(folder, MVTEC_LOCO_LAYOUT)
    try:
        return images._replace(validation=find_images(folder / "validation" / "good"))
    except PradotError as error:
        raise PradotError(f"{error}{MVTEC_LOCO_LAYOUT}") from error


def read_visa(folder: Path) -> Images:
    """Files of a category of VisA, as its archive has them or rearranged."""
    return _visa_archive(folder) if is_visa_archive(folder) else read_mvtec_ad(folder, VISA_LAYOUT)


def read_folder(folder: Path) -> Images:
    """Files of a user's own folder, in the fullest layout that it has, or of a text file that lists images."""
    truth = folder / "ground_truth"
    if folder.is_file():
        return Images(_listed_images(folder), [], [], folder.parent / "ground_truth", [])
    if not (folder / "train").is_dir():
        if (folder / "test").is_dir():
            raise PradotError(f"Nothing to learn from in {folder}: {describe_folder(folder)}.{FOLDER_LAYOUT}")
        try:
            return Images(find_images(folder), [], [], truth, [])
        except PradotError as error:
            raise PradotError(f"{error}{FOLDER_LAYOUT}") from error
    good = folder / "train" / "good"
    if good.is_dir():
        _refuse_loose_images(folder / "train", FOLDER_LAYOUT)
    train = find_images(good if good.is_dir() else folder / "train")
    return Images(train, [], _test_samples(folder, FOLDER_LAYOUT) if (folder / "test").is_dir() else [], truth, [])


def _test_samples(folder: Path, layout: str) -> list[Sample]:
    """Test samples with their masks, by defect, then in natural order."""
    _refuse_loose_images(folder / "test", layout)
    samples = []
    for defect in (path for path in visible(folder / "test") if path.is_dir()):
        truth = [] if defect.name == "good" else visible(folder / "ground_truth" / defect.name)
        truth_files = [path for path in truth if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]
        masks = {path.stem: (path,) for path in truth_files}
        _refuse_twins(truth_files, "masks", "one image")
        folders = {path.name: path for path in truth if path.is_dir()}  # of several masks, as in MVTec AD LOCO
        images = find_images(defect)
        if masks or folders:
            _refuse_twins(images, "images", "one mask")
        for path in images:
            found = masks.get(f"{path.stem}_mask", masks.get(path.stem, ()))
            if not found and path.stem in folders:
                found = tuple(mask for mask in visible(folders[path.stem]) if mask.suffix.lower() in IMAGE_SUFFIXES)
            samples.append(Sample(path, defect.name, found))
    if not samples:
        raise PradotError(f"No test images in {folder / 'test'}: {describe_folder(folder / 'test')}.{layout}")
    return samples


def _refuse_twins(files: list[Path], what: str, of: str) -> None:
    """Refuse files that differ in their ending alone where masks are told by name: it would be chance which is whose."""
    first = {}
    for path in files:
        if path.stem in first:
            raise PradotError(
                f"The {what} {first[path.stem]} and {path.name} both belong to {of} by their name: rename or remove one."
            )
        first[path.stem] = path


def _refuse_loose_images(folder: Path, layout: str) -> None:
    """Refuse images beside the labelled sub-folders, which would otherwise be left out in silence."""
    loose = [path.name for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]
    if loose:
        raise PradotError(
            f"{len(loose)} image(s) lie directly in {folder} ({', '.join(loose[:3])}{', ...' if len(loose) > 3 else ''}) "
            f"and so have no label: move them into one of its sub-folders.{layout}"
        )


def _listed_images(file: Path) -> list[Path]:
    """Images named by the lines of a text file; empty lines and lines starting with # are skipped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PradotError(
            f"{file} is no text file that lists images ({error}): give a folder, or a list.{FOLDER_LAYOUT}"
        ) from error
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    images = [file.parent / os.path.expanduser(name) for _, name in named]
    missing = [f"line {number}: {name}" for (number, name), path in zip(named, images, strict=True) if not path.is_file()]
    if missing:
        raise PradotError(
            f"{len(missing)} of the {len(images)} images listed in {file} are no files ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): paths are relative to {file.parent}."
        )
    if not images:
        raise PradotError(f"{file} lists no images.{FOLDER_LAYOUT}")
    if len(set(images)) < len(images):
        raise PradotError(f"{file} lists {len(images) - len(set(images))} images twice: list each one once.")
    return images


def _inside(name: str) -> str:
    """A path as a file of a data set may name it: of that data set."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} leads outside the data set")
    return name


def _visa_archive(folder: Path) -> Images:
    """The files of a category as ``split_csv/1cls.csv`` divides them."""
    split = folder.parent / "split_csv" / "1cls.csv"
    if not split.is_file():
        raise PradotError(
            f"No {split}, which says what trains and what tests: {describe_folder(folder.parent)}. "
            f"Copy it there from the archive.{VISA_LAYOUT}"
        )
    try:
        with split.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if row["object"] == folder.name]
        found = {"train": [], "test": []}
        for row in rows:
            defect = {"normal": "good", "anomaly": "bad"}[row["label"]]
            masks = (folder.parent / _inside(row["mask"]),) if defect == "bad" and row["mask"] else ()
            found[row["split"]].append(Sample(folder.parent / row["image"], defect, masks))
    except (KeyError, TypeError, csv.Error, ValueError) as error:  # TypeError: a line of too few entries
        raise PradotError(
            f"{split} is no split of VisA ({type(error).__name__}: {error}): expected the columns object, split (train or "
            "test), label (normal or anomaly), image and mask. Copy it from the archive again."
        ) from error
    anomalous = [sample.path.name for sample in found["train"] if sample.is_anomalous]
    if anomalous or not all(found.values()):
        what = f"trains on anomalous images ({anomalous[0]})" if anomalous else f"names no images of {folder.name} for both"
        raise PradotError(f"{split} {what}: copy it from the archive again.")
    order = {path: i for kind in ("Normal", "Anomaly") for i, path in enumerate(visible(folder / "Data" / "Images" / kind))}
    named = {sample.path for part in found.values() for sample in part}
    missing = sorted(str(path) for path in named - set(order))
    if missing:
        raise PradotError(
            f"{len(missing)} of the images that {split} names for {folder.name} are not there (such as {missing[0]}): "
            f"unpack the archive again.{VISA_LAYOUT}"
        )
    left = [path for path in order if path not in named and path.suffix.lower() in IMAGE_SUFFIXES]
    notes = [f"{len(left)} images of {folder.name} are not in split_csv/1cls.csv and are left out."] if left else []
    train = sorted((sample.path for sample in found["train"]), key=order.get)
    test = sorted(found["test"], key=lambda sample: (sample.defect, order[sample.path]))
    test = [s if all(mask.is_file() for mask in s.masks) else s._replace(masks=()) for s in test]
    return Images(train, [], test, folder / "Data" / "Masks", notes)
