"""Whole-file writes: all or nothing, and nothing left behind."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from pradot.files import alone, replacing


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


def test_the_place_of_a_killed_process_is_free_and_what_it_left_is_removed(tmp_path):
    path = tmp_path / "table.csv"
    code = f"""
import time
from pradot.files import alone, replacing
with alone({str(path)!r}), replacing({str(path)!r}) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (tmp_path / ".table.csv-mine.txt").write_text("of somebody else")
    assert len(os.listdir(tmp_path)) == 3
    with alone(path):
        assert sorted(os.listdir(tmp_path)) == [".table.csv-mine.txt", ".table.lock"]
    assert os.listdir(tmp_path) == [".table.csv-mine.txt"]
