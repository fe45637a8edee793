"""Files are written whole or not at all, and by one process at a time."""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


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

    Examples
    --------
    >>> with replacing("build/table.csv") as temporary:
    ...     temporary.write_text("category,auroc")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".partial{path.suffix}", dir=path.parent)
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
    lock = path.with_name(f".{path.stem}.lock")
    with FileLock(lock):
        try:
            for partial in path.parent.glob(f".{glob.escape(path.stem)}-*.partial*"):
                partial.unlink(missing_ok=True)
            yield
        finally:
            lock.unlink(missing_ok=True)  # before it is released: who waits for it sees that it is gone, and makes a new one
