"""Runs that do not end are named while the others go on."""

import os
import signal

import pytest
from commands import wait_for
from work import assert_as_undisturbed, assert_stopped, start_again

from pradot.paper.watch import LATE_AFTER, LATE_FIRST, LATE_TIMES, Watch
from pradot.progress import progress_bar


def test_a_run_that_is_late_is_named_once_and_again_when_it_is_twice_as_late():
    with progress_bar(4, "bench", "run", show=False) as bar, Watch(bar) as watch:
        watch.begin("a")
        start = watch.begun["a"]
        assert list(watch.late(start + LATE_FIRST - 1)) == []  # none has ended: who knows how long one takes
        (line,) = watch.late(start + LATE_FIRST + 1)
        assert line.startswith(f"note: a: not ended after {LATE_FIRST + 1} s, none has ended so far.")
        assert "\n" not in line and "Ctrl-C" in line
        watch.begin("b")
        watch.end("b")
        assert watch.longest < 1 and list(watch.late(start + LATE_FIRST + 2)) == []  # said before
        (line,) = watch.late(start + 2 * LATE_FIRST + 3)
        assert "the longest so far took 0 s" in line
        watch.begin("c")
        now = watch.begun["c"]
        assert list(watch.late(now + LATE_AFTER - 1)) == []
        watch.longest = LATE_AFTER
        assert list(watch.late(now + LATE_TIMES * LATE_AFTER - 1)) == []
        assert len(list(watch.late(now + LATE_TIMES * LATE_AFTER + 1))) == 1
        for job in ("a", "c"):
            watch.end(job)
        assert list(watch.late(now + 1e9)) == []


@pytest.mark.slow
@pytest.mark.parametrize("then", ["goes on", "ctrl-c"])
def test_a_stuck_worker_is_noticed(then, undisturbed, log, tmp_path):
    """The others go on; it may go on too, and Ctrl-C ends it."""
    work, expected, _ = undisturbed("bench --jobs 2")
    soon = "import pradot.paper.watch as w; w.LATE_AFTER = 3; w.LATE_TIMES = 0; w.LATE_FIRST = 60"
    command = work.start(tmp_path, first=soon, env={"PRADOT_TEST_SLOW": "0.2"})
    worker = wait_for(lambda: len(log()) >= 5 and next((pid for pid in reversed(log()) if pid != command.pid), None))
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: "not ended after" in command.said)
    if then == "ctrl-c":
        command.stop()
        assert_stopped(command)
        start_again(work, tmp_path, expected)
    else:
        os.kill(worker, signal.SIGCONT)
        assert command.wait().status == 0, command.said
        assert_as_undisturbed(work, tmp_path, expected)
