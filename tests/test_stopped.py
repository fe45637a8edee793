"""Ctrl-C and SIGTERM: one line, what is finished stays, and the same command goes on; also in downloads."""

import signal
import time
from pathlib import Path

import pytest
from commands import wait_for
from small_archives import Server, digest, pack
from small_data import write_loco_category
from work import assert_stopped, leftovers, start_again


@pytest.mark.parametrize(
    ("kind", "n_passes"),
    [
        ("run", 3),
        pytest.param("bench", 3, marks=pytest.mark.slow),
        pytest.param("bench --jobs 2", 5, marks=pytest.mark.slow),
        pytest.param("notebooks", 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["ctrl-c", "sigterm"],
)
def test_stopped_in_the_middle_and_started_again(kind, n_passes, number, status, undisturbed, log, tmp_path):
    """The encoder's first pass is a probe's; then come the features of a category's training and test images."""
    work, expected, _ = undisturbed(kind)
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.3"})
    wait_for(lambda: len(log()) >= n_passes)
    command.stop(number)
    assert_stopped(command, status)
    # Workers are killed by their parent: what they leave, the next start removes.
    assert "jobs" in kind or not any(".partial" in name for name in leftovers(tmp_path))
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*.json")}
    start_again(work, tmp_path, expected)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "bench --jobs 2", "notebooks"])
@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
def test_stopped_twice(kind, pause, undisturbed, log, tmp_path):
    """The second Ctrl-C does not wait for what the first one has begun."""
    work, expected, _ = undisturbed(kind)
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.3"})
    wait_for(lambda: len(log()) >= 3)
    command.stop()
    time.sleep(pause)
    if command.starter.living():
        command.stop()
    assert command.wait(60).status in (130, -signal.SIGINT), command.said
    assert "Traceback" not in command.said and command.said.count("pradot: stopped") <= 1, command.said
    wait_for(lambda: not command.starter.living(), 10)
    start_again(work, tmp_path, expected)


@pytest.mark.slow
def test_stopped_while_it_begins(starter, tmp_path):
    """From the first instant on, in the imports too, as `python -m pradot`."""
    for pause in (0.3, 1, 2, 4):
        command = starter.start(
            tmp_path,
            code="import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'pradot', 'doctor', '--root', '.'])",
            env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        time.sleep(pause)
        command.stop()
        assert command.wait(60).status in (130, -signal.SIGINT, 0), command.said
        assert "Traceback" not in command.said


@pytest.mark.slow
def test_a_prediction_is_stopped_and_leaves_nothing_half(starter, place, undisturbed, log, tmp_path):
    work, *_ = undisturbed("run")
    assert work.start(tmp_path).wait().status == 0
    model = ["--model", "models/own", "--encoder", work.encoder]
    arguments = ["predict", *model, "--images", place / "data" / "own" / "test" / "spot", "--out", "scores"]
    command = starter.start(tmp_path, *arguments, env={"PRADOT_TEST_SLOW": "0.5"})
    wait_for(lambda: len(log()) >= 2)
    command.stop()
    assert_stopped(command)
    assert not (tmp_path / "scores").exists()
    assert starter.run(tmp_path, *arguments).status == 0 and (tmp_path / "scores" / "scores.csv").exists()


SOURCE = """
from pradot.paper import download, sources
sources.SOURCES["mvtec_loco"] = sources.Source("page", "licence", "page", {address!r}, {sha256!r}, {size})
download.BLOCK, download.WAIT = 500, {wait}
"""


@pytest.fixture
def download(tmp_path):
    """A server of a small data set that cuts each answer, and the code that makes a command take it for the official one."""
    write_loco_category(tmp_path / "made")
    server = Server()
    server.content = pack(tmp_path / "made", tmp_path / "loco.tar").read_bytes()
    server.at_once = len(server.content) // 40
    about = {"address": server.address("loco.tar"), "sha256": digest(server.content), "size": len(server.content)}
    yield server, lambda wait: SOURCE.format(**about, wait=wait)
    server.http.shutdown()
    server.http.server_close()


GET = ["data", "get", "mvtec_loco", "--root", "data", "--accept-licence"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "sigkill"])
def test_a_download_is_stopped_and_goes_on(how, starter, download, tmp_path):
    server, first = download
    command = starter.start(tmp_path, *GET, first=first(0.1), env={"NO_PROXY": "127.0.0.1"})
    wait_for(lambda: len(server.requests) >= 5)
    if how == "ctrl-c":
        command.stop()
        assert_stopped(command)
    else:
        assert command.kill()
    kept = (tmp_path / "data" / "loco.tar.partial").stat().st_size
    n_before = len(server.requests)
    server.at_once = None
    assert starter.run(tmp_path, *GET, first=first(0), env={"NO_PROXY": "127.0.0.1"}).status == 0
    assert server.requests[n_before:] == [f"bytes={kept}-"] and kept > 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"]


@pytest.mark.slow
def test_two_downloads_at_once_are_one(starter, download, tmp_path):
    server, first = download
    commands = [starter.start(tmp_path, *GET, first=first(0.01), env={"NO_PROXY": "127.0.0.1"}) for _ in range(2)]
    for command in commands:
        assert command.wait().status == 0, command.said
    assert len(server.requests) == len(set(server.requests))  # no byte twice
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"]


@pytest.mark.slow
def test_what_a_killed_unpacking_left_is_removed(starter, download, tmp_path):
    server, first = download
    server.at_once = None
    die = "import os, tarfile; tarfile.TarFile.extract = lambda *_, **__: os.kill(os.getpid(), 9)"
    env = {"NO_PROXY": "127.0.0.1"}
    assert starter.run(tmp_path, *GET, first=first(0) + die, env=env).status == -signal.SIGKILL
    assert any("unpacking" in name for name in leftovers(tmp_path))
    assert starter.run(tmp_path, *GET, first=first(0), env=env).status == 0
    assert server.requests == [None]  # what was downloaded and checked is not downloaded again
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"] and leftovers(tmp_path) == []
