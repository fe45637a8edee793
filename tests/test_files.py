"""Whole-file writes: all or nothing, and nothing left behind."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from commands import wait_for

from pradot import files
from pradot.files import alone, replacing, scratch


def test_the_file_appears_only_at_the_end_and_alone(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent.parent == path.parent  # a rename across file systems would not be one step
        assert temporary.suffix == ".csv"  # writers choose a format by it
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]


def test_an_old_file_is_replaced_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old and longer")
    with open(path) as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old and longer"
        assert reader.read() == "old and longer"  # who had it open keeps the old one
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_leaves_all_as_it_was(tmp_path, error, existing):
    path = tmp_path / "table.csv"
    if existing:
        path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert os.listdir(tmp_path) == (["table.csv"] if existing else [])
    if existing:
        assert path.read_text() == "old"


def test_a_writer_may_put_a_new_file_in_place_of_the_temporary_one(tmp_path):
    with replacing(tmp_path / "x.txt") as temporary:
        other = tmp_path / "other"
        other.write_text("whole")
        os.replace(other, temporary)
    assert (tmp_path / "x.txt").read_text() == "whole"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_an_ordinary_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "x") as temporary:
            temporary.write_text("x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_a_folder_in_the_way_is_an_error_and_nothing_is_left(tmp_path):
    (tmp_path / "x" / "inside").mkdir(parents=True)
    with pytest.raises(OSError), replacing(tmp_path / "x") as temporary:
        temporary.write_text("x")
    assert os.listdir(tmp_path) == ["x"]


def test_one_at_a_time_and_nothing_is_left(tmp_path):
    path = tmp_path / "a" / "table.csv"
    inside, made = [], []

    def make():
        with alone(path):
            inside.append(len(inside) + 1)
            assert inside == [1]
            if not path.exists():
                made.append(threading.get_ident())
                path.write_text("made")
            inside.clear()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and not inside
    assert os.listdir(path.parent) == ["table.csv"]


def test_the_place_of_a_killed_process_is_free_and_what_it_left_is_removed(starter, tmp_path):
    path = tmp_path / "in" / "table.csv"
    path.parent.mkdir()
    code = f"""
import time
from pradot.files import alone, replacing
with alone({str(path)!r}), replacing({str(path)!r}) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
    command = starter.start(tmp_path, code=code)
    wait_for(lambda: command.said == "writing\n")
    assert command.kill()
    (path.parent / ".table.csv-mine.txt").write_text("of somebody else")
    assert len(os.listdir(path.parent)) == 3
    with alone(path), replacing(path) as temporary:
        assert sorted(os.listdir(path.parent)) == sorted([".table.csv-mine.txt", ".table.lock", temporary.parent.name])
        temporary.write_text("whole")
    assert sorted(os.listdir(path.parent)) == [".table.csv-mine.txt", "table.csv"]


@pytest.mark.slow
def test_what_a_library_writes_beside_a_killed_file_is_removed_too(tmp_path):
    """Safetensors writes a file of its own beside the one that it was told to write."""
    code = f"""
import os, signal
from pradot.files import replacing
with replacing({str(tmp_path / "x.safetensors")!r}) as temporary:
    (temporary.parent / ".tmp123456").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    with replacing(tmp_path / "x.safetensors") as temporary:
        temporary.write_bytes(b"whole")
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_two_writers_of_one_file_leave_each_other_alone(tmp_path):
    with replacing(tmp_path / "x.csv") as first:
        first.write_text("first")
        with replacing(tmp_path / "x.csv") as second:
            second.write_text("second")
            assert first.read_text() == "first"
        assert (tmp_path / "x.csv").read_text() == "second"
    assert (tmp_path / "x.csv").read_text() == "first" and os.listdir(tmp_path) == ["x.csv"]


def test_an_error_of_the_block_comes_out_as_it_is(tmp_path):
    """Even one that the folder's own making knows, and when the block has moved the folder."""
    with pytest.raises(FileNotFoundError, match="mine"), scratch(tmp_path / "a") as folder:
        os.replace(folder, tmp_path / "a")
        raise FileNotFoundError("mine")
    assert os.listdir(tmp_path) == ["a"]


WRITER = """
import os, random, sys, time
from pathlib import Path
from pradot.files import alone, replacing
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
end, place, rounds = time.monotonic() + seconds, folder / "place", 0
while time.monotonic() < end:
    with alone(folder / "count.txt"):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL))  # fails when two are here at once
        count = int((folder / "count.txt").read_text())
        with replacing(folder / "count.txt") as temporary:
            temporary.write_text(str(count + 1))
        os.unlink(place)
    with replacing(folder / "all.txt") as temporary:  # all at once
        temporary.write_text(str(os.getpid()) * 100)
    rounds += 1
print(rounds)
"""


@pytest.mark.slow
def test_many_processes_take_turns(tmp_path):
    (tmp_path / "count.txt").write_text("0")
    command = [sys.executable, "-c", WRITER, str(tmp_path), "20"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(16)]
    rounds = [int(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert int((tmp_path / "count.txt").read_text()) == sum(rounds) > 100
    whole = (tmp_path / "all.txt").read_text()
    assert whole == whole[: len(whole) // 100] * 100
    assert sorted(os.listdir(tmp_path)) == ["all.txt", "count.txt"]
    print(f"\n16 processes took {sum(rounds)} turns in 20 s, each alone; as many writes without a lock, each whole")


@pytest.mark.parametrize("error", [errno.ESTALE, errno.ENOENT])
def test_a_lock_that_another_machine_has_removed_is_taken_anew(tmp_path, monkeypatch, error):
    """On a network file system its name or its file is gone; the next one is taken."""
    lock, asked = fcntl.flock, []

    def flock(handle, how):
        asked.append(handle)
        if len(asked) == 1:
            raise OSError(error, os.strerror(error))
        lock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with alone(tmp_path / "x"):
        assert len(asked) == 2 and os.listdir(tmp_path) == [".x.lock"]
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_name_is_that_of_its_present_file(tmp_path, monkeypatch):
    """Between opening a lock file and locking it, who held it may remove it, and another process make a new one."""
    lock, taken = fcntl.flock, []

    def flock(handle, how):
        if not taken:
            os.unlink(tmp_path / ".x.lock")
            taken.append(os.open(tmp_path / ".x.lock", os.O_CREAT))
            lock(taken[0], fcntl.LOCK_EX)
            threading.Timer(0.3, os.close, taken).start()
            start.append(time.monotonic())
        lock(handle, how)

    start = []
    monkeypatch.setattr(files.fcntl, "flock", flock)
    with alone(tmp_path / "x"):
        assert time.monotonic() - start[0] > 0.25


def test_without_locks_nobody_waits_and_it_is_said(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="without locks"), alone(tmp_path / "x"), replacing(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["x"]


def test_who_waits_may_say_so_and_is_let_go_by_ctrl_c(tmp_path, capsys):
    with alone(tmp_path / "x"):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), alone(tmp_path / "x", waiting="another one is at it"):
            pass
        assert capsys.readouterr().out == "another one is at it\n"
    assert os.listdir(tmp_path) == []
