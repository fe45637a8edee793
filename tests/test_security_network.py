"""The network: asked by nobody who did not want it, and by nobody where it is forbidden."""

import os
import socket
import sys
import time

import psutil
import pytest
from hostile import files_in, said_in_one_line
from small_data import write_category, write_encoder

from pradot import Encoder
from pradot.cli import main
from pradot.encoder import default_encoder
from pradot.network import HUB_SWITCH, SWITCH, forbidden, is_this_machine, offline
from pradot.paper import archives, download
from pradot.weights import weights_available

pytestmark = pytest.mark.usefixtures("few_prototypes", "no_switch")


@pytest.fixture
def connections(monkeypatch):
    """What was connected to or looked up; all of it fails."""
    asked = []

    def refuse(*words, **_):
        asked.append(words[-1] if len(words) < 3 else words[:2])
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    return asked


def test_commands_that_need_no_network_do_not_ask_for_it(here, connections, capsys):
    write_category(here / "mvtec_ad", "own", n_train=2, n_good=1, n_bad=1)
    encoder = ["--encoder", write_encoder(here), "--device", "cpu"]
    few = ["--preset", "fast", "--max-steps", "1", "--batch-size", "2"]
    of = ["--dataset", "mvtec_ad", "--root", "mvtec_ad"]
    images = ["--images", "mvtec_ad/own/test/good", "--out", "scores"]
    for command in (
        ["run", *of, *few, *encoder, "--save-model", "models"],
        ["predict", "--model", "models/own", *images, *encoder],
        ["bench", *of, *few, *encoder],
        ["tables", "--out", "tables"],
        ["data", "--root", "."],
        ["doctor", "--root", "."],
    ):
        assert main(command) == 0, capsys.readouterr().err
    assert Encoder("tf_efficientnet_lite0", scales=(1,), image_size=32).weights_source.startswith("package")
    assert connections == []
    assert "resnet50.a1_in1k: NOT available (not downloaded before" in capsys.readouterr().out


def test_the_test_above_would_see_a_connection(here, connections):
    assert weights_available("resnet50.a1_in1k")[0] is False and connections


@pytest.mark.parametrize("switch", [SWITCH, HUB_SWITCH, "--offline"])
def test_no_weights_are_asked_for_where_the_network_is_forbidden(here, connections, monkeypatch, capsys, switch):
    write_category(here, "own", n_train=2)
    run = [
        "run",
        "--dataset",
        "folder",
        "--root",
        "own",
        "--encoder",
        "resnet50.a1_in1k",
        "--preset",
        "fast",
        "--device",
        "cpu",
    ]
    if switch.startswith("--"):
        run.append(switch)
    else:
        monkeypatch.setenv(switch, "1")
    assert main(run) == 1
    said = said_in_one_line(capsys)
    name = SWITCH if switch == "--offline" else switch
    assert "weights of resnet50.a1_in1k cannot be had" in said and f"{name} forbids the network; to allow it" in said
    with offline(switch == "--offline"):
        encoder, note = default_encoder()
    assert encoder == "tf_efficientnet_lite0" and name in note
    assert connections == [] and (switch == SWITCH) == (SWITCH in os.environ)


@pytest.mark.parametrize("by", ["word", "environment"])
def test_no_data_are_downloaded_where_the_network_is_forbidden(here, connections, monkeypatch, capsys, by):
    monkeypatch.setattr(archives, "_check_space", lambda *_: None)
    get = ["data", "get", "visa", "--accept-licence", "--root", "data"]
    if by == "environment":
        monkeypatch.setenv(SWITCH, "yes")
    assert main(get + ["--offline"] * (by == "word")) == 1
    said = said_in_one_line(capsys)
    assert "downloading http" in said and f"{SWITCH} forbids the network" in said and connections == []
    assert files_in(here) == []
    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(download, "WAIT", 0)
    assert main(get) == 1 and connections  # and would be, where it is not


def test_the_switch_reaches_processes_that_are_started_and_no_further(here, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pradot.paper.tables.write_tables", lambda *_: seen.append((os.environ[SWITCH], os.environ[HUB_SWITCH])) or {}
    )
    assert main(["tables", "--offline"]) == 0
    assert seen == [("1", "1")] and SWITCH not in os.environ and HUB_SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "true")
    assert main(["tables"]) == 0 and seen[1:] == [("1", "1")] and os.environ[SWITCH] == "true"
    for off in ("", "0", "false", "no", "OFF"):
        monkeypatch.setenv(SWITCH, off)
        assert forbidden() is None


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        *(("tcp://127.0.0.1:8786", True), ("localhost:8786", True), ("tls://[::1]:8786", True), ("127.5.5.5:1", True)),
        *(("inproc://1", True), ("tcp://10.0.0.1:8786", False), ("tcp://127.0.0.1.evil.org:1", False), ("evil.org", False)),
        *(("tcp://127.0.0.1@evil.org:1", False), ("localhost.evil.org:1", False), ("", False), ("0.0.0.0:1", False)),
    ],
)
def test_addresses_of_this_machine(address, is_here):
    assert is_this_machine(address) is is_here


def test_no_scheduler_elsewhere_where_the_network_is_forbidden(here, connections, capsys):
    write_category(here, "own", n_train=2)
    run = [
        "bench",
        "--dataset",
        "folder",
        "--root",
        "own",
        "--encoder",
        write_encoder(here),
        "--device",
        "cpu",
        "--preset",
        "fast",
    ]
    assert main([*run, "--scheduler", "tcp://10.0.0.1:8786", "--offline"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"connecting to the Dask scheduler tcp://10.0.0.1:8786 is not done: {SWITCH} forbids" in said and connections == []


@pytest.mark.slow
def test_dasks_processes_as_the_readme_starts_them_listen_on_loopback_alone(tmp_path):
    """Without the words of `only`, a worker and both dashboards listen to the network; so they do with --no-dashboard."""
    dask, file = [sys.executable, "-m", "dask"], tmp_path / "scheduler.json"
    only = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    started = [psutil.Popen([*dask, "scheduler", *only, "--port", "0", "--scheduler-file", str(file)])]

    def listening(process):
        processes = [process, *process.children(recursive=True)]
        return {c.laddr for one in processes for c in one.net_connections() if c.status == psutil.CONN_LISTEN}

    def wait_for(is_so):
        end = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.2)

    try:
        wait_for(file.exists)
        worker = ["worker", "--scheduler-file", str(file), *only, "--nthreads", "1", "--local-directory", str(tmp_path)]
        started.append(psutil.Popen([*dask, *worker]))
        wait_for(lambda: len(listening(started[1])) >= 3)  # the nanny's, the worker's, its dashboard's
        found = [address.ip for process in started for address in listening(process)]
        assert len(found) >= 5 and set(found) == {"127.0.0.1"}
    finally:
        for process in reversed(started):
            for one in (*process.children(recursive=True), process):
                one.kill()
            process.wait()
