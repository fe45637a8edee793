"""Arrays of all images at once, in memory while they are small and in a temporary file beyond that; the peak of memory."""

import contextlib
import os
import platform
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch

KEEP_GB = 1.0
"""Default of the settings called ``keep_gb``, in GB (1e9 bytes)."""

ARRAYS = 5  # of all images at once in a fit: two scales, what a branch sees of them, its part for steps, that for validation


def room(shape, keep_gb=KEEP_GB, folder=None, dtype=torch.float32):
    """Make an array to be filled.

    What lies in a file is brought to memory page by page as it is used, and the system takes that memory back when it is
    needed elsewhere. The file has no name, so that nothing is left of it, whatever ends the process.

    Parameters
    ----------
    shape : sequence of int
    keep_gb : float
        Memory for all such arrays of a fit, in GB (1e9 bytes): one of more than a fifth of it (`ARRAYS`) lies in a file.
    folder : str or Path, optional
        Where the file lies; made if missing. None: where the system keeps temporary files (``TMPDIR``).
    dtype : torch.dtype

    Returns
    -------
    Tensor
        On the CPU, its values arbitrary. Where there is no room for the file, it is in memory after all.
    """
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    if n_bytes <= keep_gb * 1e9 / ARRAYS:
        return torch.empty(*shape, dtype=dtype)
    try:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Reserved now: a disk that fills up later would end the process at the write that found no room.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=n_bytes)  # stays when the file is closed
    except OSError:
        return torch.empty(*shape, dtype=dtype)
    return torch.from_numpy(mapped).view(dtype).view(*shape)


def chosen(array, indices, keep_gb=KEEP_GB, folder=None):
    """``array[indices]`` along its first axis, in a `room` of its own.

    Parameters
    ----------
    array : Tensor of shape (n, ...)
        On the CPU.
    indices : Tensor of shape (k,), int64
    keep_gb, folder
        See `room`.

    Returns
    -------
    Tensor of shape (k, ...)
    """
    return torch.index_select(array, 0, indices, out=room((len(indices), *array.shape[1:]), keep_gb, folder, array.dtype))


def reset_peak_memory():
    """Forget the largest memory so far; see `peak_memory_gb`."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gb(device):
    """Largest memory since the reset in GB (1e9 bytes): of the device with CUDA, else resident memory of the process."""
    if str(device).startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e9
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e9
