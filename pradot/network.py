"""The network: one switch that forbids it, asked before anything connects.

PRADOT connects to other machines for three things alone: ImageNet weights of a timm backbone that were not downloaded before
(`pradot.weights`), a data set asked for by name (`pradot.paper.download`), a Dask scheduler asked for by address
(`pradot.paper.bench`).
"""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pradot.errors import PradotError

SWITCH = "PRADOT_OFFLINE"
"""Environment variable that forbids connections to other machines; ``0``, ``false``, ``no`` and ``off`` are as if unset."""
HUB_SWITCH = "HF_HUB_OFFLINE"
"""The Hugging Face hub's own one, which forbids downloads of weights."""


def forbidden(*others: str) -> str | None:
    """Say that the network is forbidden, by what, and how to allow it; None where it is allowed.

    Parameters
    ----------
    *others : str
        Environment variables that forbid it too, besides `SWITCH`.
    """
    for name in (SWITCH, *others):
        if os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
            return f"{name} forbids the network; to allow it, leave --offline away and unset {name}"
    return None


def check_allowed(what: str) -> None:
    """Refuse what needs the network where it is forbidden.

    Parameters
    ----------
    what : str
        What is wanted, such as ``"downloading VisA"``.

    Raises
    ------
    PradotError
        It says what was wanted and how to allow it.
    """
    reason = forbidden()
    if reason:
        raise PradotError(f"{what} is not done: {reason}")


@contextmanager
def offline(wanted: bool = True) -> Iterator[None]:
    """Forbid the network for the block, here and in the processes that it starts, if `wanted` or if `SWITCH` is set."""
    if not wanted and forbidden() is None:
        yield
        return
    before = {name: os.environ.get(name) for name in (SWITCH, HUB_SWITCH)}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_this_machine(address: str) -> bool:
    """Whether an address such as ``tcp://127.0.0.1:8786`` is this machine's loopback."""
    scheme, separator, rest = address.partition("://")
    if scheme == "inproc":  # Dask's name of this process
        return True
    try:
        host = urlsplit(f"//{rest if separator else address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
