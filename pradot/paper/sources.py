"""Where the data sets come from: official pages, licences, archives and their checksums."""

import hashlib
import shlex
from pathlib import Path
from typing import NamedTuple

from pradot.errors import PradotError
from pradot.paper.datasets import DATASETS
from pradot.progress import progress_bar


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
    source = source_of(dataset)
    return (
        f"{DATASETS[dataset].title}: {source.size / 1e9:.1f} GB from {source.address}, into {folder / dataset}\n"
        f"licence: {source.licence}\n         {source.licence_page}\n{by_hand(dataset, folder)}"
    )


def by_hand(dataset: str, folder: Path) -> str:
    """How to get a data set without this program's download."""
    source = source_of(dataset)
    return (
        f"by hand: get {source.file} at {source.page}, put it in {folder}, then: "
        f"python -m pradot data add {shlex.quote(str(folder / source.file))} --root {shlex.quote(str(folder))}"
    )


def source_of(dataset: str) -> Source:
    """Where a data set comes from.

    Raises
    ------
    PradotError
        There is nothing to download.
    """
    if dataset not in SOURCES:
        raise PradotError(f"nothing to download for {dataset!r}; these can be had: {', '.join(SOURCES)}")
    return SOURCES[dataset]


def dataset_of(archive: Path, progress: bool = False) -> str | None:
    """The data set whose official archive a file is, by its sha256; None if it is none of them."""
    digest, size = hashlib.sha256(), archive.stat().st_size
    if size not in {source.size for source in SOURCES.values()}:
        return None
    with open(archive, "rb") as file, progress_bar(size, f"checking {archive.name}", "B", progress) as bar:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return next((name for name, source in SOURCES.items() if source.sha256 == digest.hexdigest()), None)
