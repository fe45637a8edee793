"""Getting the data sets: their licences, a download that resumes and is verified, putting archives in their place."""

import hashlib
import logging
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pooch
import requests

from pradot.errors import PradotError
from pradot.files import alone, scratch
from pradot.images import describe_folder, visible
from pradot.network import check_allowed
from pradot.paper.datasets import DATASETS, DOWNLOADED, data_folder, find_datasets
from pradot.paper.unpacking import unpack
from pradot.progress import progress_bar

N_TRIES = 5  # connections in a row that bring nothing new
WAIT = 1.0  # seconds before the second one; each further one waits as much longer
TIMEOUT = 60  # seconds without an answer
BLOCK = 1 << 16  # bytes at a time; of the last one before a cut nothing is kept


class Source(NamedTuple):
    """Where a data set comes from."""

    page: str  # the official one
    licence: str
    licence_page: str
    address: str  # of the archive
    sha256: str
    size: int  # bytes of the archive

    @property
    def file(self) -> str:
        """Name of the archive."""
        return self.address.rsplit("/", 1)[1]


# Addresses and checksums as the anomalib project has them on record; others report the same checksums.
SOURCES = {
    "mvtec_ad": Source(
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        "CC BY-NC-SA 4.0: with attribution, not for commercial use, changed versions under the same licence",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/"
        "mvtec_anomaly_detection.tar.xz",
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        5_264_982_680,
    ),
    "mvtec_loco": Source(
        "https://www.mvtec.com/company/research/datasets/mvtec-loco",
        "CC BY-NC-SA 4.0: with attribution, not for commercial use, changed versions under the same licence",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/430647091-1646842701/"
        "mvtec_loco_anomaly_detection.tar.xz",
        "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        6_126_996_224,
    ),
    "visa": Source(
        "https://github.com/amazon-science/spot-diff",
        "CC BY 4.0: with attribution",
        "https://creativecommons.org/licenses/by/4.0/",
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        1_929_840_640,
    ),
}


def describe_source(dataset: str, folder: Path) -> str:
    """Say what a download would be, its licence, and how to do it by hand."""
    source = _source(dataset)
    return (
        f"{DATASETS[dataset].title}: {source.size / 1e9:.1f} GB from {source.address}, into {folder / dataset}\n"
        f"licence: {source.licence}\n         {source.licence_page}\n{by_hand(dataset, folder)}"
    )


def by_hand(dataset: str, folder: Path) -> str:
    """How to get a data set without this program's download."""
    source = _source(dataset)
    return (
        f"by hand: get {source.file} at {source.page}, put it in {folder}, then: "
        f"python -m pradot data add {shlex.quote(str(folder / source.file))} --root {shlex.quote(str(folder))}"
    )


def get(dataset: str, root: str | Path | None = None, *, accept_licence: bool = False, progress: bool = False) -> Path:
    """Download, verify and unpack a data set, unless it is there.

    What was downloaded before the connection was cut, or the program stopped, is kept: the same call goes on from there.

    Parameters
    ----------
    dataset : str
        One of `pradot.paper.datasets.DOWNLOADED`.
    root : str or Path, optional
        Folder to put it in, see `pradot.paper.datasets.data_folder`. The archive is removed once it is unpacked.
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
    source, folder = _source(dataset), data_folder(root)
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
    if not archive.exists() or identify(archive, progress) != dataset:
        _download(dataset, source, part, progress)
        os.replace(part, archive)  # the checked file alone has the archive's name
    target = add(archive, folder, progress=progress, verified=dataset)
    archive.unlink()
    return target


def _download(dataset: str, source: Source, part: Path, progress: bool) -> None:
    """Make `part` the whole and verified archive, from what an earlier call left of it."""
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        with scratch(part) as folder:
            resuming = _Resuming(part, dataset, progress)
            pooch.retrieve(source.address, f"sha256:{source.sha256}", source.file, folder, downloader=resuming)
    except PradotError:  # refused: the network is forbidden
        raise
    except requests.RequestException as error:
        n_kept = part.stat().st_size if part.exists() else 0
        kept = f"; {n_kept / 1e6:.1f} MB are kept and the same command goes on from there" if n_kept else ""
        raise PradotError(f"cannot download {source.address} ({error}){kept}; {by_hand(dataset, part.parent)}") from error
    except ValueError as error:  # pooch's, of the checksum
        part.unlink()
        raise PradotError(
            f"what {source.address} gives is not the known archive: its sha256 does not start with {source.sha256[:8]}. The "
            f"download is removed; try once more, or {by_hand(dataset, part.parent)}"
        ) from error


def add(archive: str | Path, root: str | Path | None = None, *, progress: bool = False, verified: str | None = None) -> Path:
    """Unpack an archive of a data set that the user has downloaded.

    Parameters
    ----------
    archive : str or Path
        A tar file, compressed or not, or a zip file.
    root : str or Path, optional
        Folder to put the data set in, see `pradot.paper.datasets.data_folder`.
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
    name = verified or identify(archive, progress)
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


def identify(archive: Path, progress: bool = False) -> str | None:
    """The data set whose official archive a file is, by its sha256; None if it is none of them."""
    digest, size = hashlib.sha256(), archive.stat().st_size
    if size not in {source.size for source in SOURCES.values()}:
        return None
    with open(archive, "rb") as file, progress_bar(size, f"checking {archive.name}", "B", progress) as bar:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return next((name for name, source in SOURCES.items() if source.sha256 == digest.hexdigest()), None)


class _Resuming:
    """A downloader for pooch that goes on where an earlier one, of this call or of another, was cut."""

    def __init__(self, part: Path, title: str, progress: bool):
        self.part, self.title, self.progress = part, title, progress

    def __call__(self, url: str, output_file: str, _) -> None:
        check_allowed(f"downloading {url}")
        n_failed, last = 0, -1
        while True:
            try:
                self._fetch(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                have = self.part.stat().st_size if self.part.exists() else 0
                n_failed = n_failed + 1 if have <= last else 1
                last = have
                if n_failed >= N_TRIES:
                    raise
                time.sleep(WAIT * n_failed)
        # Another name of the same file, for pooch to check: whatever ends the process, the part stays.
        os.unlink(output_file)
        try:
            os.link(self.part, output_file)
        except OSError:  # some file systems know no second names
            shutil.copyfile(self.part, output_file)

    def _fetch(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # there is nothing after what we have
                return
            response.raise_for_status()
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise requests.RequestException("a web page came instead of the archive")
            # A server that knows no ranges sends the whole file again.
            goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if goes_on else 0
            total = have + int(response.headers.get("Content-Length", 0))
            with open(self.part, "ab" if goes_on else "wb") as file, progress_bar(total, self.title, "B", self.progress) as bar:
                bar.update(have)
                for block in response.iter_content(BLOCK):
                    file.write(block)
                    bar.update(len(block))
        if self.part.stat().st_size < total:
            raise requests.ConnectionError(f"{self.part.stat().st_size} of {total} bytes came")


def _source(dataset: str) -> Source:
    if dataset not in SOURCES:
        raise PradotError(f"nothing to download for {dataset!r}; these can be had: {', '.join(SOURCES)}")
    return SOURCES[dataset]


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
