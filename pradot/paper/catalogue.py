"""The data sets known by name: their layouts, and where they and their categories are on disk."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pradot.errors import PradotError
from pradot.folders import describe_folder, visible
from pradot.paper.counts import MVTEC_AD_COUNTS, MVTEC_LOCO_COUNTS, VISA_COUNTS, Counts
from pradot.paper.drawn import CATEGORY, draw
from pradot.paper.layouts import (
    FOLDER_LAYOUT,
    MVTEC_AD_LAYOUT,
    MVTEC_LOCO_LAYOUT,
    VISA_LAYOUT,
    Images,
    is_mvtec_ad,
    is_mvtec_loco,
    is_visa_archive,
    read_folder,
    read_mvtec_ad,
    read_mvtec_loco,
    read_visa,
)


class Dataset(NamedTuple):
    """What is known of a data set."""

    title: str
    folders: tuple[str, ...]  # what the unpacked data set is usually called; case, "-", "_" and spaces do not matter
    counts: dict[str, Counts]  # of the published data set, in the published order
    layout: str  # for errors
    is_category: Callable[[Path], bool]
    read: Callable[[Path], Images]


DATASETS = {
    "mvtec_ad": Dataset(
        "MVTec AD",
        ("mvtec_ad", "mvtec_anomaly_detection", "mvtec"),
        MVTEC_AD_COUNTS,
        MVTEC_AD_LAYOUT,
        lambda folder: is_mvtec_ad(folder) and folder.name not in VISA_COUNTS,
        read_mvtec_ad,
    ),
    "mvtec_loco": Dataset(
        "MVTec AD LOCO",
        ("mvtec_loco", "mvtec_loco_anomaly_detection", "mvtec_ad_loco", "mvtec_loco_ad", "loco"),
        MVTEC_LOCO_COUNTS,
        MVTEC_LOCO_LAYOUT,
        is_mvtec_loco,
        read_mvtec_loco,
    ),
    "visa": Dataset(
        "VisA",
        ("visa", "VisA_20220922", "VisA_pytorch", "1cls"),  # the last one lies in the one before it
        VISA_COUNTS,
        VISA_LAYOUT,
        lambda folder: is_visa_archive(folder) or (is_mvtec_ad(folder) and folder.name not in MVTEC_AD_COUNTS),
        read_visa,
    ),
    "drawn": Dataset("the drawn set", ("drawn",), {}, MVTEC_AD_LAYOUT, is_mvtec_ad, read_mvtec_ad),
    "folder": Dataset("own images", (), {}, FOLDER_LAYOUT, Path.is_dir, read_folder),
}
"""The data sets known, by the name that the command line takes."""

DOWNLOADED = ("mvtec_ad", "mvtec_loco", "visa")
"""Those that have to be on disk."""


def find_root(dataset: str, root: str | Path | None = None, project: str | Path = ".") -> Path:
    """Find the folder of a data set.

    Parameters
    ----------
    dataset : str
        One of `DATASETS`.
    root : str or Path, optional
        Where to look. None: the folder that the environment variable ``PRADOT_DATA`` names, else ``data`` of `project`.
        What is looked for there is a folder of one of the usual names with categories in it, else categories (in a folder
        that was not asked for, one of a published name at least), else the folder is itself a category.
        `drawn` takes `root` as it is; without one it is drawn in ``data/drawn`` unless there is one in ``PRADOT_DATA``.
        `folder` needs a `root`, which it takes as it is.
    project : str or Path
        Folder that ``data`` lies in.

    Returns
    -------
    Path
        Absolute; the folder that holds the categories, or that of a single category.

    Raises
    ------
    PradotError
        If the data set is unknown, or nothing of it is there.
    """
    spec = _spec(dataset)
    if dataset == "folder" and not root:
        raise PradotError("--root is missing: the folder of your images, or a text file that lists them.")
    base = data_folder(root, project)
    if dataset == "drawn":
        there = base / "drawn"
        return base if root else there if is_mvtec_ad(there / CATEGORY) else _absolute(project) / "data" / "drawn"
    if dataset == "folder":
        if not base.exists():
            raise PradotError(f"No {base} for data set folder: {describe_folder(base)}.{spec.layout}")
        return base
    found = _search(spec, base, any_name=bool(root))
    if found is None:
        raise PradotError(
            f"No category of {spec.title} in {base}: {describe_folder(base)}. Name its folder (--root, or the environment "
            f"variable PRADOT_DATA), or get it: python -m pradot data get {dataset}{spec.layout}"
        )
    return found


def find_datasets(root: str | Path | None = None) -> dict[str, Path]:
    """Find which of the `DOWNLOADED` data sets are there.

    Parameters
    ----------
    root
        As for `find_root`.

    Returns
    -------
    dict of str to Path
        Names with the folders that hold their categories; a single unknown folder of categories counts as `mvtec_ad`.
    """
    base = data_folder(root)
    found = {name: _search(DATASETS[name], base, any_name=False) for name in DOWNLOADED}
    found = {name: path for name, path in found.items() if path is not None}
    if not found and root and (own := _search(DATASETS["mvtec_ad"], base, any_name=True)) is not None:
        return {"mvtec_ad": own}
    return found


def data_folder(root: str | Path | None = None, project: str | Path = ".") -> Path:
    """Folder in which data sets are looked for and put: `root`, else ``PRADOT_DATA``, else ``data`` of `project`."""
    return _absolute(root or os.environ.get("PRADOT_DATA") or Path(project) / "data")


def list_categories(dataset: str, root: str | Path | None = None) -> list[str]:
    """Name the categories found.

    Parameters
    ----------
    dataset, root
        As for `find_root`. `drawn` is drawn first if it is not there.

    Returns
    -------
    list of str
        At least one: those published in the published order, then others by name.

    Raises
    ------
    PradotError
        As for `find_root`.
    """
    return list(find_categories(dataset, root))


def find_categories(dataset: str, root: str | Path | None = None) -> dict[str, Path]:
    """Map category names to folders (to the list of images, when `root` of `folder` is one), in the order to run them."""
    spec = _spec(dataset)
    root = find_root(dataset, root)
    if dataset == "folder":
        name = root.stem if root.is_file() else root.name
        if name in ("", ".", ".."):  # records and models lie in folders of this name
            raise PradotError(f"{root} gives its category the name {name!r}, which no folder can have: rename it.")
        return {name: root}
    if dataset == "drawn":
        # `draw` keeps a current set and replaces an outdated one
        return {CATEGORY: root if root.name == CATEGORY and is_mvtec_ad(root) else draw(root) / CATEGORY}
    if spec.is_category(root):
        return {root.name: root}
    found = _categories(spec, root)
    return {name: found[name] for name in [*(name for name in spec.counts if name in found), *found]}


def _spec(dataset: str) -> Dataset:
    if dataset not in DATASETS:
        raise PradotError(f"Unknown data set {dataset!r}; known are {', '.join(DATASETS)}.")
    return DATASETS[dataset]


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))  # so that "." has a name too


def _search(spec: Dataset, base: Path, any_name: bool) -> Path | None:
    """The folder at or under `base` that holds categories, or is one; None if there is none."""
    usual = {_plain(name) for name in spec.folders}
    below = [path for path in visible(base) if path.is_dir() and _plain(path.name) in usual]
    deeper = [path for folder in below for path in visible(folder) if path.is_dir() and _plain(path.name) in usual]
    for folder in (*below, *deeper):
        if _categories(spec, folder):
            return folder
    found = _categories(spec, base)
    if found and (any_name or set(found) & set(spec.counts) or _plain(base.name) in usual):
        return base
    return base if spec.is_category(base) and (any_name or base.name in spec.counts) else None


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.casefold())


def _categories(spec: Dataset, folder: Path) -> dict[str, Path]:
    return {path.name: path for path in visible(folder) if spec.is_category(path)}
