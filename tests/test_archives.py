"""Downloads from a server that cuts and corrupts, and archives that are damaged or hostile."""

import hashlib
import io
import re
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from small_data import write_category, write_loco_category, write_visa

from pradot import PradotError
from pradot.cli import main
from pradot.paper import archives, download, unpacking
from pradot.paper.archives import add, get
from pradot.paper.datasets import load_category
from pradot.paper.sources import SOURCES, Source
from pradot.paper.unpacking import unpack


class Server:
    """Serves bytes on 127.0.0.1, as told: in pieces, without ranges, changed, or something else."""

    def __init__(self):
        self.content, self.requests = b"", []
        self.at_once = None  # bytes of an answer before the connection is cut
        self.ranges, self.status, self.kind = True, 200, "application/octet-stream"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and outer.ranges else 0
                if first >= len(outer.content) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if first else outer.status)
                self.send_header("Content-Type", outer.kind)
                self.send_header("Content-Length", str(len(outer.content) - first))
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{len(outer.content) - 1}/{len(outer.content)}")
                self.end_headers()
                stop = None if outer.at_once is None else first + outer.at_once
                self.wfile.write(outer.content[first:stop])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def address(self, name):
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def pack(folder, archive):
    """A tar or zip file of what lies in a folder, without a folder around it."""
    if archive.suffix == ".zip":
        shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
        return archive
    with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return archive


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


def digest(content):
    return hashlib.sha256(content).hexdigest()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize("ending", [".tar.xz", ".tar", ".zip"])
@pytest.mark.parametrize("around", ["", "VisA_20220922", "some folder"])
def test_a_downloaded_archive_is_unpacked_and_known_by_what_it_holds(tmp_path, capsys, ending, around):
    write_visa(tmp_path / "made" / around, ["candle"])
    archive = pack(tmp_path / "made", tmp_path / f"visa{ending}")
    assert main(["data", "add", str(archive), "--root", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "is not that of an official archive" in printed and "candle" in printed and "3 (900)" in printed
    assert names_in(tmp_path / "data") == ["visa"] and archive.exists()
    assert len(load_category("visa", tmp_path / "data", "candle").test) == 4
    assert main(["data", "add", str(archive), "--root", str(tmp_path / "data")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_an_official_archive_is_known_by_its_checksum(loco, server, capsys):
    archive = loco.parent / "mine.tar.xz"
    archive.write_bytes(server.content)
    assert main(["data", "add", str(archive), "--root", str(loco)]) == 0
    assert "unpacked and verified" in capsys.readouterr().out


def test_an_archive_of_something_else_leaves_nothing(tmp_path):
    write_category(tmp_path / "made", "own")
    archive = pack(tmp_path / "made", tmp_path / "own.tar")
    with pytest.raises(PradotError, match=r"no published category of MVTec AD, MVTec AD LOCO, VisA .* folders \("):
        add(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []
    with pytest.raises(PradotError, match="No archive"):
        add(tmp_path / "nowhere.tar", tmp_path / "data")


@pytest.mark.parametrize("ending", [".tar.xz", ".tar", ".zip"])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "text"])
def test_a_damaged_archive_leaves_nothing(tmp_path, ending, damage):
    write_category(tmp_path / "made", "bottle")
    archive = pack(tmp_path / "made", tmp_path / f"a{ending}")
    content = archive.read_bytes()
    middle = len(content) // 2 - len(content) // 2 % 512
    if damage == "changed" and ending == ".tar":  # the header of some member
        middle = content.index(b"bottle/test/good/001.png")
    damaged = {
        "cut": content[: middle + 7],
        "changed": content[:middle] + bytes(b ^ 255 for b in content[middle : middle + 16]) + content[middle + 16 :],
        "empty": b"",
        "text": b"<html>not found</html>" * 99,
    }
    archive.write_bytes(damaged[damage])
    with pytest.raises(PradotError, match=r"a\.[a-z.]+ (cannot be unpacked|is neither)"):
        add(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []


@pytest.mark.parametrize("member", range(1, 4))
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, member):
    write_category(tmp_path / "made", "bottle")
    archive = pack(tmp_path / "made", tmp_path / "a.tar")
    with tarfile.open(archive) as tar:
        offset = tar.getmembers()[member].offset
    content = archive.read_bytes()
    for damaged in (content[:offset] + b"?" * 100 + content[offset + 100 :], content[:offset]):
        archive.write_bytes(damaged)
        with pytest.raises(PradotError, match=r"a\.tar cannot be unpacked .*damaged or cut"):
            add(archive, tmp_path / "data")
        assert names_in(tmp_path / "data") == []


def hostile_tar(path, name, kind=tarfile.REGTYPE, target=""):
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(b"evil"))
    return path


def hostile_zip(path, name, mode=0o100644):
    with zipfile.ZipFile(path, "w") as packed:
        info = zipfile.ZipInfo("x" * len(name))
        info.filename = name  # as it is, backslashes too
        info.external_attr = mode << 16
        packed.writestr(info, b"/etc/passwd")
    return path


OUTSIDE = ["../evil.txt", "bottle/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt"]


@pytest.mark.parametrize("make", [hostile_tar, hostile_zip])
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside_are_refused(tmp_path, make, name):
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    with pytest.raises(PradotError, match=r"not safe to unpack: .*evil\.txt' leads outside"):
        unpack(make(tmp_path / "a", name), into)
    assert names_in(into) == [] and names_in(tmp_path / "deep") == ["into"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "inside.png"])
def test_links_and_devices_are_refused(tmp_path, kind, target):
    (tmp_path / "into").mkdir()
    with pytest.raises(PradotError, match=r"not safe to unpack: 'link\.png' is a link or a device"):
        unpack(hostile_tar(tmp_path / "a.tar", "link.png", kind, target), tmp_path / "into")
    with pytest.raises(PradotError, match=r"not safe to unpack: 'link\.png' is a link or a device"):
        unpack(hostile_zip(tmp_path / "a.zip", "link.png", mode=0o120777), tmp_path / "into")
    assert names_in(tmp_path / "into") == []


@pytest.mark.parametrize("ending", [".tar.xz", ".zip"])
def test_what_unpacks_to_far_more_is_refused(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_EXTRA", 1000)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "zeros.png").write_bytes(bytes(2_000_000))
    (tmp_path / "into").mkdir()
    packed = shutil.make_archive(str(tmp_path / "bomb"), {".tar.xz": "xztar", ".zip": "zip"}[ending], tmp_path / "made")
    with pytest.raises(PradotError, match="unpacks to more than 0 MB"):
        unpack(tmp_path / packed, tmp_path / "into")
    assert names_in(tmp_path / "into") == []
    monkeypatch.setattr(unpacking, "MAX_EXTRA", 10_000_000)
    monkeypatch.setattr(unpacking, "MAX_FILES", 0)
    with pytest.raises(PradotError, match="more than 0 files"):
        unpack(tmp_path / packed, tmp_path / "into")


def test_what_is_found_and_what_is_wrong_with_it(tmp_path, capsys):
    bottle = write_category(tmp_path / "mvtec_ad", "bottle")
    loco = write_loco_category(tmp_path / "mvtec_loco")
    command = ["data", "--root", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| bottle     | 6 (209)    | 3 (20)" in printed and "1 of 15 categories" in printed
    assert "4 (335)    | 2 (54)" in printed and "1 of 5 categories" in printed
    assert f"VisA: not in {tmp_path}; python -m pradot data get visa" in printed and SOURCES["visa"].page in printed
    assert main([*command, "--names"]) == 0
    assert capsys.readouterr().out == "mvtec_ad\nmvtec_loco\n"

    (bottle / "train/good/002.png").write_bytes(b"")
    (bottle / "ground_truth/spot/000_mask.png").unlink()
    Image.new("L", (7, 9), 255).save(bottle / "ground_truth/spot/001_mask.png")
    Image.new("L", (48, 48)).save(bottle / "ground_truth/spot/002_mask.png")
    (loco / "defects_config.json").write_text("[]")
    shutil.rmtree(write_category(tmp_path / "mvtec_ad", "zipper") / "test")
    assert main([*command, "--quick"]) == 1  # opens nothing
    printed = capsys.readouterr()
    assert "bottle: 1 of 3 masks are missing (of spot/000.png)" in printed.out and "zipper: No folder test" in printed.out
    assert "2 problem(s)" in printed.err
    assert main(command) == 1
    printed = capsys.readouterr().out
    for said in (
        r"bottle: Cannot read the image .*002\.png: the file is empty",
        r"bottle: The mask .*001_mask\.png has 9 x 7 pixels",
        r"bottle: The mask .*002_mask\.png shows no defect",
        r"juice_bottle: .*defects_config\.json does not give",
        r"\| zipper +\| \? \(240\)",
    ):
        assert re.search(said, printed), said


@pytest.mark.parametrize(
    ("field", "value", "said"), [("flag_bits", 1, "encrypted"), ("compress_type", 99, "Python cannot read")]
)
def test_zip_files_that_cannot_be_read_say_so(tmp_path, monkeypatch, field, value, said):
    packed = hostile_zip(tmp_path / "a.zip", "fine.png")
    monkeypatch.setattr(zipfile.ZipInfo, field, property(lambda _: value, lambda *_: None), raising=False)
    (tmp_path / "into").mkdir()
    with pytest.raises(PradotError, match=said):
        unpack(packed, tmp_path / "into")
