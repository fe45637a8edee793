"""Devices to compute on, by their names."""

import torch

from pradot.errors import PradotError, first_line


def pick_device(name):
    """The device of a name; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    PradotError
        Nothing can be computed on the device named.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has one for each kind of device
        found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise PradotError(
            f"cannot compute on the device {name!r} ({first_line(error)}). Devices found: {found}; give one of them, or auto"
        ) from error
    return name
