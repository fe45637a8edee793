"""A download that goes on where it was cut, and is verified."""

import logging
import os
import shutil
import time
from pathlib import Path

import pooch
import requests

from pradot.errors import PradotError
from pradot.files import scratch
from pradot.network import check_allowed
from pradot.paper.sources import Source, by_hand
from pradot.progress import progress_bar

N_TRIES = 5  # connections in a row that bring nothing new
WAIT = 1.0  # seconds before the second one; each further one waits as much longer
TIMEOUT = 60  # seconds without an answer
BLOCK = 1 << 16  # bytes at a time; of the last one before a cut nothing is kept


def download(dataset: str, source: Source, part: Path, progress: bool) -> None:
    """Make a file the whole and verified archive of a data set.

    Parameters
    ----------
    dataset : str
        Its name, for the progress bar and for errors.
    source : Source
        Where it comes from.
    part : Path
        The file. What an earlier call left of it is kept, and so is what this one leaves if it is cut.
    progress : bool
        Show a progress bar.

    Raises
    ------
    PradotError
        The network is forbidden, the download fails, or its checksum is not the known one (then the file is removed).
    """
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
