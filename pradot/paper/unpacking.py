"""Unpacking archives of data sets: tar and zip files that anyone may have made."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pradot.errors import PradotError, printable
from pradot.progress import progress_bar

MAX_FILES = 200_000  # in an archive; the largest data set has 13,000
MAX_HEADER = 1_000_000  # bytes of a tar header's additions (long names); they are read into memory
MAX_RATIO, MAX_EXTRA = 20, 100_000_000  # unpacked bytes: ratio * archive's bytes + extra; images hardly shrink when packed


def unpack(archive: Path, folder: Path, progress: bool = False) -> None:
    """Unpack a tar or zip file into an empty folder, refusing what data sets have no use for.

    Raises
    ------
    PradotError
        If the archive is damaged, encrypted or neither tar nor zip; or if a name in it is absolute or leads outside, it holds
        links or devices, more than `MAX_FILES` files, or unpacks to more than `MAX_RATIO` times its size and `MAX_EXTRA`
        bytes, or more than the disk has. Nothing of a refused member is written; what came before it is the caller's to
        remove.
    """
    if not hasattr(tarfile, "data_filter"):
        raise PradotError("this Python cannot unpack tar files safely: update it (3.11.4 or later)")
    try:
        if _is_tar(archive):
            _unpack_tar(archive, folder, progress)
        elif zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder, progress)
        else:
            raise PradotError(f"{archive} is neither a tar nor a zip file, or is cut short: download it again.")
    except PradotError:
        raise
    except tarfile.FilterError as error:
        raise PradotError(f"{archive} is not safe to unpack: {error}") from error
    except NotImplementedError as error:
        raise PradotError(f"{archive} is packed in a way that Python cannot read ({error}): unpack it yourself.") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error, OSError, ValueError) as error:
        raise PradotError(f"{archive} cannot be unpacked ({type(error).__name__}: {error}): download it again.") from error


class _Member(tarfile.TarInfo):
    """A header that cannot be read is damage; `tarfile` takes it for the end, as if nothing were missing.

    Neither is one whose size would turn the reader back or fill the memory.
    """

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # zeros: the end indeed
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or cut: {error}") from error
        if member.size < 0 or (member.type in _ADDITIONS and member.size > MAX_HEADER):
            raise tarfile.FilterError(f"a header of {member.size} bytes")
        return member


_ADDITIONS = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}
"""Types of tar headers that say more of the next one."""


def _is_tar(archive: Path) -> bool:
    """As `tarfile.is_tarfile`, which would read a first header of any size."""
    try:
        with tarfile.open(archive, tarinfo=_Member):
            return True
    except tarfile.ReadError:
        return False


def _unpack_tar(archive: Path, folder: Path, progress: bool) -> None:
    budget = _Budget(archive, folder)
    with (
        open(archive, "rb") as packed,
        tarfile.open(fileobj=packed, tarinfo=_Member) as tar,
        progress_bar(archive.stat().st_size, f"unpacking {archive.name}", "B", progress) as bar,
    ):
        for member in tar:
            budget.allow_member(member.name, member.size, member.isdir(), member.isreg() or member.isdir())
            tar.extract(member, folder, filter="data")
            bar.update(packed.tell() - bar.n)
        while block := tar.fileobj.read(1 << 20):  # up to the end, where the checksums of a compressed file are
            budget.allow(len(block))


def _unpack_zip(archive: Path, folder: Path, progress: bool) -> None:
    budget = _Budget(archive, folder)
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        with progress_bar(sum(m.compress_size for m in members), f"unpacking {archive.name}", "B", progress) as bar:
            for member in members:
                if member.flag_bits & 1:
                    raise PradotError(f"{archive} is encrypted: unpack it yourself.")
                kind = stat.S_IFMT(member.external_attr >> 16)
                is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                budget.allow_member(member.filename, member.file_size, member.is_dir(), is_plain)
                packed.extract(member, folder)  # at most file_size bytes are read
                bar.update(member.compress_size)


class _Budget:
    """What an archive may still unpack."""

    def __init__(self, archive: Path, folder: Path):
        self.archive, self.folder = archive, folder
        self.n_files = MAX_FILES
        self.n_bytes = self.limit = MAX_RATIO * archive.stat().st_size + MAX_EXTRA
        self.free = shutil.disk_usage(folder).free

    def allow_member(self, name: str, size: int, is_folder: bool, is_plain: bool) -> None:
        path = PurePosixPath(name.replace("\\", "/"))
        self.n_files -= 1
        if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts):  # C:x is a drive, x:y a stream
            self._refuse(f"{name!r} leads outside the folder")
        if not is_plain:
            self._refuse(f"{name!r} is a link or a device")
        if size < 0:  # as a tar header may say in words
            self._refuse(f"{name!r} is of {size} bytes")
        if self.n_files < 0:
            self._refuse(f"it holds more than {MAX_FILES} files")
        # By asking the disk: what a name is equal to depends on its file system.
        if not is_folder and os.path.lexists(self.folder / path):
            self._refuse(f"{name!r} is in it twice (on some disks a and A are one name)")
        self.allow(size)

    def allow(self, size: int) -> None:
        self.n_bytes, self.free = self.n_bytes - size, self.free - size
        if self.n_bytes < 0:
            self._refuse(f"it unpacks to more than {self.limit / 1e6:.0f} MB, far more than images packed in such a file")
        if self.free < 0:
            raise PradotError(f"{self.archive} needs more than the disk has free: make room, or name another folder (--root).")

    def _refuse(self, problem: str):
        raise PradotError(f"{self.archive} is not safe to unpack: {printable(problem)}.")
