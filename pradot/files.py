"""Files are written whole or not at all, and by one process at a time."""

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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

    Examples
    --------
    >>> with replacing("build/table.csv") as temporary:
    ...     temporary.write_text("category,auroc")
    """
    path = Path(path)
    with scratch(path) as folder:
        temporary = folder / f".{path.name}"  # hidden: who looks for files of its kind in all folders passes it by
        yield temporary
        # The contents reach the disk before the name does. The names need no fsync of their folder: file systems with a journal
        # keep their order, and one that a power cut takes back is of a file that is made again.
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)  # some libraries make private files; give the usual permissions back
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)


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
    for left in path.parent.glob(f".{glob.escape(path.stem)}-????????.partial"):
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
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", suffix=".partial", dir=path.parent))
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
    lock = path.with_name(f".{path.stem}.lock")
    while (handle := _lock(lock, waiting)) is None:
        waiting = None  # it is said once
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before it is let go: who waits for it sees that it is gone, and makes a new one
        os.close(handle)


def _lock(path, waiting):
    """Wait for the lock; its open file, or None if the one waited for is no longer that of this name."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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
