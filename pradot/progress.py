"""One kind of progress bar for terminals, live notebooks and notebooks that run unattended."""

import os
import sys
import threading

import tqdm
import tqdm.auto

# Bars are of one process each. A lock among processes would be a semaphore, whose helper process complains of it on stderr when
# this process, or a worker of it, is killed.
tqdm.tqdm.set_lock(threading.RLock())


def progress_bar(total, description, unit, show=True):
    """A tqdm bar that appears when the work takes over 2 seconds.

    In a notebook that runs unattended (``PRADOT_HEADLESS`` is set) it goes to the terminal that started the notebook, so that a
    long cell is no silent wait and the saved notebook stays free of it. Where there is no terminal a line is written at most
    every half minute.

    Parameters
    ----------
    total : int
        Number of `unit` to do.
    description, unit : str
        The unit ``"B"`` (bytes) is shown as kB, MB, GB.
    show : bool
        False: no bar.

    Returns
    -------
    tqdm.tqdm
        To be used in a ``with`` statement and told by ``update``.
    """
    settings = {"total": total, "desc": description, "unit": unit, "disable": not show, "delay": 2, "unit_scale": unit == "B"}
    headless = bool(os.environ.get("PRADOT_HEADLESS"))
    if "ipykernel" in sys.modules and not headless:
        return tqdm.auto.tqdm(**settings)  # a widget
    stream = sys.__stderr__ if headless else sys.stderr
    return tqdm.tqdm(**settings, file=stream, mininterval=0.2 if stream.isatty() else 30, leave=not stream.isatty())
