"""Killed at any moment, started again: no record lost or doubled, every file whole, same numbers.

`PRADOT_KILLS` is the number of seeded random moments at which each kind of work is killed in the slow tests (20).
"""

import os
import signal
import time

import numpy as np
import pytest
from commands import wait_for
from work import WORK, assert_as_undisturbed, contents, leftovers, start_again

N_KILLS = int(os.environ.get("PRADOT_KILLS", 20))

# Ends its process at the n-th file that takes its place, before or after it does.
AT_FILE = """
import os, signal
_replace, _count = os.replace, []
def replace_(*arguments, **settings):
    _count.append(1)
    if len(_count) == {n} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    _replace(*arguments, **settings)
    if len(_count) == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_
"""


def kill_at(moment, work, folder):
    """Start, kill after some seconds; whether it was running still, and for how many seconds it ran."""
    command = work.start(folder)
    start = time.monotonic()
    while command.is_running() and time.monotonic() < start + moment:
        time.sleep(0.005)
    seconds = time.monotonic() - start
    return command.kill(), seconds


def moments_of(kind, n):
    """Seeded random moments, one in each n-th part of the time, as parts of the whole."""
    rng = np.random.default_rng(list(kind.encode()))
    return (np.arange(n) + rng.random(n)) / n


def kill_and_start_again(kind, n, undisturbed, tmp_path):
    work, expected, seconds = undisturbed(kind)
    n_hit = n_files = n_half = n_empty = 0
    still = seconds  # that it takes: other work on the machine may have made the undisturbed one slow
    for number, part in enumerate(moments_of(kind, n)):
        folder = tmp_path / f"{number}"
        hit, ran = kill_at(part * still, work, folder)
        n_hit, still = n_hit + hit, still if hit else ran
        left = leftovers(folder) if folder.exists() else []
        n_half += any(".partial" in name for name in left)
        for path, _ in contents(folder, work.out).items():  # whole already
            n_files += not any(part.startswith(".") for part in path.relative_to(folder).parts)
        n_empty += start_again(work, folder, expected)
    n_records = sum(name.startswith("runs") and name.endswith(".json") for name in expected)
    print(
        f"\n{kind}: {seconds:.1f} s undisturbed; {n_hit} of {n} kills hit it, {n_half} in the middle of writing; {n_files} "
        f"files were whole then; started again {n} times: each time {len(expected)} files, {n_records} of them records, each "
        f"once and as undisturbed; left over: {n_empty} empty hidden files and folders"
    )
    assert n_hit > n / 2


def kill_at_each_file(kind, undisturbed, tmp_path, numbers=None):
    work, expected, _ = undisturbed(kind)
    n_kills = n_empty = 0
    for number in numbers or range(1, 1000):
        for after in (False, True):
            folder = tmp_path / f"file-{number}-{after}"
            status = work.start(folder, first=AT_FILE.format(n=number, after=after)).wait().status
            if status == 0 and numbers is None:
                assert n_kills >= 4
                print(
                    f"\n{kind}: killed before and after each of {number - 1} files takes its place; left over: {n_empty}, empty"
                )
                return
            assert status == -signal.SIGKILL
            n_kills += 1
            contents(folder, work.out)
            n_empty += start_again(work, folder, expected)


def test_killed_at_random_moments_and_started_again(undisturbed, tmp_path):
    kill_and_start_again("run", 3, undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORK)
def test_killed_at_many_random_moments_and_started_again(kind, undisturbed, tmp_path):
    kill_and_start_again(kind, N_KILLS, undisturbed, tmp_path)


def test_killed_at_a_file_and_started_again(undisturbed, tmp_path):
    kill_at_each_file("run", undisturbed, tmp_path, [7])  # the model: its tensors are there, its settings not


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "bench", "tables", "features"])
def test_killed_at_each_file_and_started_again(kind, undisturbed, tmp_path):
    kill_at_each_file(kind, undisturbed, tmp_path)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file(undisturbed, tmp_path):
    """Features: the library writes a file of its own beside the one that it is told to."""
    work, expected, _ = undisturbed("features")
    for number in range(5):
        folder = tmp_path / f"{number}"
        command = work.start(folder)
        wait_for(lambda: list(folder.glob("cache/.*.partial/.tmp*")), pause=0)  # noqa: B023
        assert command.kill() and any(".partial/.tmp" in name for name in leftovers(folder))
        assert start_again(work, folder, expected) == 0


@pytest.mark.slow
def test_a_killed_worker_of_two_loses_nothing(undisturbed, log, tmp_path):
    """As when memory runs out; the run in the other process is cut too, and both are made again."""
    work, expected, _ = undisturbed("bench --jobs 2")
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.2"})
    worker = wait_for(lambda: len(log()) >= 5 and next((pid for pid in reversed(log()) if pid != command.pid), None))
    os.kill(worker, signal.SIGKILL)
    assert command.wait().status == 0 and "a process was ended from outside" in command.said
    assert assert_as_undisturbed(work, tmp_path, expected) == 0
