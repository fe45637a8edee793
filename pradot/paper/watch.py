"""Whether long work goes on: the runs that have not ended for long are named."""

import threading
import time

import tqdm

LATE_AFTER, LATE_TIMES = 600, 5
"""A run is said to be late after so many seconds, and so many times the longest run so far."""
LATE_FIRST = 3600
"""Seconds until a run is said to be late when none has ended yet."""


class Watch:
    """Tells while jobs are done, in a thread, that they go on or not: the bar's time goes on, and who is late is named."""

    def __init__(self, bar):
        self.bar = bar
        self.bar.smoothing = 0  # the time left is that of the average run: with many at once, they end in bursts
        self.begun, self.told, self.longest = {}, {}, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        if not self.bar.disable:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()

    def begin(self, job):
        """A job's turn has come."""
        self.begun[job] = time.monotonic()

    def end(self, job):
        """A job has ended, well or not."""
        if job in self.begun:
            self.longest = max(self.longest or 0, time.monotonic() - self.begun.pop(job))

    def _watch(self):
        while not self.over.wait(2):
            for line in self.late(time.monotonic()):
                tqdm.tqdm.write(line)
            if self.bar.fp.isatty():
                self.bar.refresh()

    def late(self, now):
        """A line for each job that is late, and another one each time that it has taken twice as long."""
        limit = LATE_FIRST if self.longest is None else max(LATE_AFTER, LATE_TIMES * self.longest)
        for job, start in list(self.begun.items()):
            if now - start > max(limit, 2 * self.told.get(job, 0)):
                self.told[job] = now - start
                so_far = "none has ended so far" if self.longest is None else f"the longest so far took {self.longest:.0f} s"
                yield (
                    f"note: {job}: not ended after {now - start:.0f} s, {so_far}. It goes on; if its process is stuck, stop "
                    "with Ctrl-C and start again: what is finished stays"
                )
