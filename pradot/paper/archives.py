"""Getting the data sets: by a download, or from an archive at hand, each into its place."""

import os
import shutil
from pathlib import Path

from pradot.errors import PradotError
from pradot.files import alone, scratch
from pradot.folders import describe_folder, visible
from pradot.paper.datasets import DATASETS, DOWNLOADED, data_folder, find_datasets
from pradot.paper.download import download
from pradot.paper.sources import Source, dataset_of, source_of
from pradot.paper.unpacking import unpack


def get(dataset: str, root: str | Path | None = None, *, accept_licence: bool = False, progress: bool = False) -> Path:
    """Download, verify and unpack a data set, unless it is there.

    What was downloaded before the connection was cut, or the program stopped, is kept: the same call goes on from there.

    Parameters
    ----------
    dataset : str
        One of `pradot.paper.catalogue.DOWNLOADED`.
    root : str or Path, optional
        Folder to put it in, see `pradot.paper.catalogue.data_folder`. The archive is removed once it is unpacked.
    accept_licence : bool
        Whether the user accepts the data set's licence; nothing is downloaded otherwise.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The folder of its categories.

    Raises
    ------
    PradotError
        If the licence is not accepted, the download fails, its checksum is not the known one, or the disk is too small.
    """
    source, folder = source_of(dataset), data_folder(root)
    if dataset in (found := find_datasets(folder)):
        return found[dataset]
    if not accept_licence:
        raise PradotError(f"read the licence at {source.licence_page}, then add --accept-licence to accept it and download")
    with alone(folder / source.file, waiting=f"{folder / dataset} is being made by another process: waiting for it"):
        if dataset in (found := find_datasets(folder)):
            return found[dataset]
        return _get(dataset, source, folder, progress)


def _get(dataset: str, source: Source, folder: Path, progress: bool) -> Path:
    archive, part = folder / source.file, folder / f"{source.file}.partial"
    missing = 0 if archive.exists() else source.size - (part.stat().st_size if part.exists() else 0)
    _check_space(folder, missing + source.size)
    if not archive.exists() or dataset_of(archive, progress) != dataset:
        download(dataset, source, part, progress)
        os.replace(part, archive)  # the checked file alone has the archive's name
    target = add(archive, folder, progress=progress, verified=dataset)
    archive.unlink()
    return target


def add(archive: str | Path, root: str | Path | None = None, *, progress: bool = False, verified: str | None = None) -> Path:
    """Unpack an archive of a data set that the user has downloaded.

    Parameters
    ----------
    archive : str or Path
        A tar file, compressed or not, or a zip file.
    root : str or Path, optional
        Folder to put the data set in, see `pradot.paper.catalogue.data_folder`.
    progress : bool
        Show progress bars.
    verified : str, optional
        The data set that the archive's checksum is known to be of.

    Returns
    -------
    Path
        The folder of its categories, ``<folder>/<name of the data set>``, made whole or not at all. If it is there, categories
        that it does not have yet are put into it, such as those of MVTec AD that came one by one; VisA comes whole.

    Raises
    ------
    PradotError
        If the archive cannot be read, is unsafe (see `unpack`) or holds no known data set, or if the data set or a category of
        it is there.
    """
    archive, folder = Path(archive).expanduser().absolute(), data_folder(root)
    if not archive.is_file():
        raise PradotError(f"No archive {archive}: {describe_folder(archive)}.")
    name = verified or dataset_of(archive, progress)
    if name is not None:
        _refuse_present(folder / name)
    _check_space(folder, archive.stat().st_size)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder / "unpacking") as temporary:
        top = temporary / "unpacked"
        top.mkdir()
        unpack(archive, top, progress)
        if len(inside := visible(top)) == 1 and inside[0].is_dir() and not _published(top):
            top = inside[0]  # one folder around everything
        found = {key: path for key, path in _published(top).items() if name in (None, key)}
        if len(found) != 1:
            titles = ", ".join(DATASETS[key].title for key in ([name] if name else DOWNLOADED))
            raise PradotError(
                f"{archive} has no published category of {titles} at its top level: {describe_folder(top)}. Own images need no "
                "archive: run --dataset folder --root FOLDER."
            )
        ((name, path),) = found.items()
        target = folder / name
        if not target.is_dir() or (path / "split_csv").exists():
            _refuse_present(target)
            path.rename(target)
        else:
            categories = [one for one in visible(path) if DATASETS[name].is_category(one)]
            for one in categories:
                _refuse_present(target / one.name)
            for one in categories:
                one.rename(target / one.name)
    return target


def _published(folder: Path) -> dict[str, Path]:
    """Data sets with a category of a published name in their folder."""
    found = find_datasets(folder)
    return {name: path for name, path in found.items() if any((path / c).is_dir() for c in DATASETS[name].counts)}


def _refuse_present(target: Path) -> None:
    if target.exists():
        raise PradotError(f"{target} is there already: look at it with `python -m pradot data`, or move it away first.")


def _check_space(folder: Path, needed: int) -> None:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if free < needed:
        raise PradotError(
            f"{nearest} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed: make room, or name another folder "
            "(--root)"
        )
