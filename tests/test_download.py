"""Downloads from a server that cuts and corrupts."""

import re
import shutil

import pytest
from small_archives import Server, digest, names_in, pack
from small_data import write_loco_category

from pradot import PradotError
from pradot.cli import main
from pradot.paper import archives, download
from pradot.paper.archives import get
from pradot.paper.datasets import load_category
from pradot.paper.sources import SOURCES, Source


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def loco(tmp_path, server, monkeypatch):
    """MVTec AD LOCO, small, on the server in place of the real one."""
    write_loco_category(tmp_path / "made")
    server.content = pack(tmp_path / "made", tmp_path / "loco.tar.xz").read_bytes()
    source = Source(
        "the page", "the licence", "its page", server.address("loco.tar.xz"), digest(server.content), len(server.content)
    )
    monkeypatch.setitem(SOURCES, "mvtec_loco", source)
    return tmp_path / "data"


def test_download_verify_unpack_once(loco, server):
    assert get("mvtec_loco", loco, accept_licence=True) == loco / "mvtec_loco"
    assert names_in(loco) == ["mvtec_loco"] and len(load_category("mvtec_loco", loco, "juice_bottle").train) == 4
    assert get("mvtec_loco", loco) == loco / "mvtec_loco" and server.requests == [None]


def test_nothing_is_downloaded_before_the_licence_is_accepted(loco, server, capsys):
    assert main(["data", "get", "mvtec_loco", "--root", str(loco)]) == 1
    printed = capsys.readouterr()
    assert "the licence" in printed.out and "its page" in printed.out and "data add" in printed.out
    assert "--accept-licence" in printed.err and not server.requests and not loco.exists()
    assert main(["data", "get", "mvtec_loco", "--root", str(loco), "--accept-licence"]) == 0
    assert "juice_bottle | 4 (335) " in capsys.readouterr().out


def test_a_cut_download_goes_on_where_it_was(loco, server, monkeypatch):
    server.at_once = len(server.content) // 3 // 1000 * 1000 + 1000
    monkeypatch.setattr(download, "BLOCK", 1000)
    get("mvtec_loco", loco, accept_licence=True)
    third = server.at_once
    assert server.requests == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert names_in(loco) == ["mvtec_loco"]


def test_so_does_another_call(loco, server):
    server.at_once, whole = 0, server.content
    loco.mkdir()
    (loco / "loco.tar.xz.partial").write_bytes(whole[:100])
    with pytest.raises(PradotError, match=r"cannot download .*0\.0 MB are kept and the same command goes on(.|\n)*the page"):
        get("mvtec_loco", loco, accept_licence=True)
    assert len(server.requests) == download.N_TRIES and (loco / "loco.tar.xz.partial").read_bytes() == whole[:100]
    server.at_once = None
    get("mvtec_loco", loco, accept_licence=True)
    assert server.requests[-1] == "bytes=100-" and names_in(loco) == ["mvtec_loco"]


def test_a_part_that_is_the_whole_is_not_asked_for_again(loco, server):
    loco.mkdir()
    (loco / "loco.tar.xz.partial").write_bytes(server.content)
    get("mvtec_loco", loco, accept_licence=True)
    assert names_in(loco) == ["mvtec_loco"]


def test_a_server_without_ranges_sends_it_whole(loco, server):
    loco.mkdir()
    (loco / "loco.tar.xz.partial").write_bytes(b"something else")
    server.ranges = False
    get("mvtec_loco", loco, accept_licence=True)
    assert server.requests == ["bytes=14-"] and names_in(loco) == ["mvtec_loco"]


def test_corrupt_bytes_are_found_and_removed(loco, server):
    good = server.content
    server.content = good[:500] + bytes([good[500] ^ 1]) + good[501:]
    with pytest.raises(PradotError, match=rf"not the known archive: its sha256 does not start with {digest(good)[:8]}"):
        get("mvtec_loco", loco, accept_licence=True)
    assert names_in(loco) == []
    server.content = good
    assert get("mvtec_loco", loco, accept_licence=True).is_dir()


def test_what_is_no_archive_or_not_there_names_the_page(loco, server):
    server.kind = "text/html"
    with pytest.raises(PradotError, match=r"a web page came(.|\n)*the page"):
        get("mvtec_loco", loco, accept_licence=True)
    server.kind, server.status = "application/x-xz", 404
    with pytest.raises(PradotError, match=r"404(.|\n)*the page"):
        get("mvtec_loco", loco, accept_licence=True)
    assert len(server.requests) == 2 and names_in(loco) == []
    with pytest.raises(PradotError, match="these can be had: mvtec_ad, mvtec_loco, visa"):
        get("drawn", loco)


def test_no_download_without_the_space_for_it(loco, server, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(PradotError, match=r"0\.0 GB free.*make room"):
        get("mvtec_loco", loco, accept_licence=True)
    assert not server.requests


def test_what_is_known_of_the_sources():
    starts = {name: source.sha256[:8] for name, source in SOURCES.items()}
    assert starts["mvtec_ad"] == "cf4313b1" and starts["mvtec_loco"] == "9e7c84db"
    for source in SOURCES.values():
        assert (
            re.fullmatch("[0-9a-f]{64}", source.sha256) and source.address.startswith("https://") and "CC BY" in source.licence
        )


def test_an_official_archive_is_known_by_its_checksum(loco, server, capsys):
    archive = loco.parent / "mine.tar.xz"
    archive.write_bytes(server.content)
    assert main(["data", "add", str(archive), "--root", str(loco)]) == 0
    assert "unpacked and verified" in capsys.readouterr().out
