"""Files are written whole or not at all, and by one process at a time; what else is asked of files and folders."""

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pradot.errors import PradotError

NAME_BYTES = 255  # of a file's name, on all usual file systems
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.ENOENT, errno.ESTALE)  # what is said of a lock that another process has removed; ESTALE: on network file systems
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what a file system without locks says


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path; on a clean exit it takes the place of `path` in one step.

    Parameters
    ----------
    path : str or Path
        The file to write. Missing parent folders are made. What killed processes left in writing it is removed.

    Yields
    ------
    Path
        Where to write, in a folder of its own beside `path`. If the block raises, `path` is left as it was and the temporary
        file is removed.

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
    with scratch(path) as folder:
        temporary = folder / f".{_stem(path)}{path.suffix}"  # hidden: who looks for such files in all folders passes it by
        try:
            yield temporary
            # The contents reach the disk before the name does. The names need no fsync of their folder: file systems with a
            # journal keep their order, and one that a power cut takes back is of a file that is made again.
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            mask = os.umask(0)  # some libraries make private files; give the usual permissions back
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            os.replace(temporary, path)
        except OSError as error:
            if error.errno in NO_ROOM:  # such an error names no file
                raise no_room(path, error.strerror) from error
            raise


@contextmanager
def scratch(path: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `path` for the block; what lies in it then is removed.

    Parameters
    ----------
    path : str or Path
        The file or folder that is being made. Missing parent folders are made. Folders of earlier calls for it whose process
        was killed are removed, those of living processes are not: each holds a lock on its own, which ends with it.

    Examples
    --------
    >>> with scratch("data/tray") as folder:
    ...     (folder / "001.png").write_bytes(image)
    ...     os.replace(folder, "data/tray")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(_stem(path))}-????????.partial"):
        with suppress(OSError):  # of a living process, of another user, or removed at this moment
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(handle)
    folder, handle = _locked_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the block may have moved it
        os.close(handle)


def _locked_folder(path):
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{_stem(path)}-", suffix=".partial", dir=path.parent))
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # some file systems lock no folders: what is left there is removed by hand alone
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():  # else another process took it for one that was left, before it was locked
                return folder, handle
            os.close(handle)


@contextmanager
def alone(path: str | Path, waiting: str | None = None) -> Iterator[None]:
    """Let one process or thread at a time make `path`; the others wait until it has, or is dead.

    On a file system without locks nobody waits, with a warning: the same may be made twice, each time whole.

    Parameters
    ----------
    path : str or Path
        The file or folder that the block may make. Missing parent folders are made.
    waiting : str, optional
        A line to print when another one is at it.

    Examples
    --------
    >>> with alone("build/table.csv"):
    ...     if not Path("build/table.csv").exists():  # another process may just have made it
    ...         ...
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{_stem(path)}.lock")
    while (handle := _lock(lock, waiting)) is None:
        waiting = None  # it is said once
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before it is let go: who waits for it sees that it is gone, and makes a new one
        os.close(handle)


def _lock(path, waiting):
    """Wait for the lock; its open file, or None if the one waited for is no longer that of this name."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Who held it has removed its name, and another process may hold the new file of that name by now.
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except OSError as error:
        if error.errno in NO_LOCKS:
            warnings.warn(f"{path.parent} lies on a file system without locks: the same may be made twice", stacklevel=4)
            return handle
        if error.errno not in GONE:
            os.close(handle)
            raise
    except BaseException:  # Ctrl-C while it waits
        os.close(handle)
        raise
    os.close(handle)
    return None


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
