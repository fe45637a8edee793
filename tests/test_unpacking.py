"""Archives that are damaged or hostile."""

import io
import shutil
import tarfile
import zipfile

import pytest
from small_archives import names_in, pack
from small_data import write_category

from pradot import PradotError
from pradot.paper import unpacking
from pradot.paper.archives import add
from pradot.paper.unpacking import unpack


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


@pytest.mark.parametrize(
    ("field", "value", "said"), [("flag_bits", 1, "encrypted"), ("compress_type", 99, "Python cannot read")]
)
def test_zip_files_that_cannot_be_read_say_so(tmp_path, monkeypatch, field, value, said):
    packed = hostile_zip(tmp_path / "a.zip", "fine.png")
    monkeypatch.setattr(zipfile.ZipInfo, field, property(lambda _: value, lambda *_: None), raising=False)
    (tmp_path / "into").mkdir()
    with pytest.raises(PradotError, match=said):
        unpack(packed, tmp_path / "into")
