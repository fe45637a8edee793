"""Times of the parts of a piece of work."""

import time


class Stopwatch:
    """Adds the time since the last lap to a named part.

    Parameters
    ----------
    seconds : dict of str to float
        Where the times are added up.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self._last = time.perf_counter()

    def lap(self, name):
        """Add the seconds since the last lap (or the start) to ``seconds[name]``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
