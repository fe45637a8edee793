"""Files are written whole or not at all, and by one process at a time; what else is asked of files and folders."""

import errno
import glob
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pradot.errors import PradotError

NAME_BYTES = 255  # of a file's name, on all usual file systems
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it takes the place of `path` in one step.

    Parameters
    ----------
    path : str or Path
        The file to write. Missing parent folders are made.

    Yields
    ------
    Path
        Where to write. If the block raises, `path` is left as it was and the temporary file is removed.

    Raises
    ------
    PradotError
        There is no room: the disk, the quota or the largest size of a file is reached.

    Examples
    --------
    >>> with replacing("build/table.csv") as temporary:
    ...     temporary.write_text("category,auroc")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{_stem(path)}-", suffix=f".partial{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)  # mkstemp makes private files; give the usual permissions back
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_ROOM:  # such an error names no file
            raise no_room(path, error.strerror) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Let one process or thread at a time make `path`; the others wait until it has, or is dead.

    Parameters
    ----------
    path : str or Path
        The file that the block may make. What a killed process left of it is removed. Missing parent folders are made.

    Examples
    --------
    >>> with alone("build/table.csv"):
    ...     if not Path("build/table.csv").exists():  # another process may just have made it
    ...         ...
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{_stem(path)}.lock")
    with FileLock(lock):
        try:
            for partial in path.parent.glob(f".{glob.escape(_stem(path))}-*.partial*"):
                partial.unlink(missing_ok=True)
            yield
        finally:
            lock.unlink(missing_ok=True)  # before it is released: who waits for it sees that it is gone, and makes a new one


def no_room(path: str | Path, why: str) -> PradotError:
    """The error that says that `path` found no room."""
    return PradotError(f"{path} cannot be written ({why}): make room there, or name another folder; what is finished stays")


def plain_file(path: str | Path) -> os.stat_result:
    """Size and times of a file that can be read to its end.

    Raises
    ------
    OSError
        There is none, or it is a folder, or a pipe, a socket or a device, reading which may never end.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", str(path))
    return found


def check_folder(folder: str | Path, what: str) -> None:
    """Say before long work what would keep its results from being written.

    Parameters
    ----------
    folder : str or Path
        Where they will be; made later if missing.
    what : str
        What they are, and the setting that names the folder, such as ``"run records (--out)"``.

    Raises
    ------
    PradotError
        Nothing can be written there.
    """
    nearest = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise PradotError(
            f"{folder} cannot be a folder of {what}: nothing can be written in {nearest} ({error.strerror}); name another"
        ) from error


def short_name(name: str, n_bytes: int = NAME_BYTES) -> str:
    """A name as it is if it takes at most `n_bytes`; else its beginning and a hash of it."""
    if len(os.fsencode(name)) <= n_bytes:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return name[: (n_bytes - len(digest) - 1) // 4] + f"-{digest}"  # a character takes at most 4 bytes


def _stem(path: Path) -> str:
    """What names of the files beside `path` begin with; leaves room for the rest of such a name."""
    return short_name(path.stem, 200)
