"""Archives that somebody has made to write elsewhere, or to fill memory and disk."""

import io
import os
import stat
import tarfile
import zipfile

import pytest
from hostile import files_in

from pradot import PradotError
from pradot.paper import unpacking
from pradot.paper.unpacking import unpack


def tar_of(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members:
            info = zipfile.ZipInfo("x" * len(name))
            info.filename = name  # as it is, backslashes too
            packed.writestr(info, content)
    return path


@pytest.fixture
def into(tmp_path):
    (tmp_path / "deep" / "into").mkdir(parents=True)
    return tmp_path / "deep" / "into"


OUTSIDE = [
    "C:evil",
    "C:\\evil",
    "c:/evil",
    "a/C:evil",
    "\\\\host\\share\\evil",
    "//host/evil",
    "a\\..\\..\\evil",
    "a/b.png:evil",
]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_of_other_systems_that_lead_outside_are_refused(into, make, name):
    with pytest.raises(PradotError, match=r"not safe to unpack: .* leads outside"):
        unpack(make(into.parent / "a", (name, b"evil")), into)
    assert files_in(into.parent) == ["a"]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("second", ["a/1.png", "./a/1.png", "a//1.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(into, make, second):
    with pytest.raises(PradotError, match="is in it twice"):
        unpack(make(into.parent / "archive", ("a/1.png", b"good"), (second, b"evil")), into)
    assert (into / "a" / "1.png").read_bytes() == b"good"


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_that_differ_in_case_stay_two_files_or_are_refused(into, make):
    archive = make(into.parent / "archive", ("a/x.png", b"good"), ("a/X.png", b"evil"))
    (into.parent / "Case").touch()
    if (into.parent / "case").exists():  # a file system where they are one
        with pytest.raises(PradotError, match="twice"):
            unpack(archive, into)
    else:
        unpack(archive, into)
        assert (into / "a" / "x.png").read_bytes() == b"good" and (into / "a" / "X.png").read_bytes() == b"evil"


def test_a_link_that_is_replaced_by_a_file_is_refused_at_the_link(into):
    (into.parent / "secret").write_text("mine")
    with tarfile.open(into.parent / "a.tar", "w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret"
        tar.addfile(link)
        info = tarfile.TarInfo("a")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(PradotError, match="link or a device"):
        unpack(into.parent / "a.tar", into)
    assert (into.parent / "secret").read_text() == "mine" and files_in(into) == []


def test_a_sparse_file_counts_with_all_its_holes(into):
    """A few hundred bytes that say they are a terabyte of zeros, as GNU tar writes them."""
    info = tarfile.TarInfo("holes.png")
    info.pax_headers = {"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}
    with tarfile.open(into.parent / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(PradotError, match="far more than images"):
        unpack(into.parent / "a.tar", into)
    assert files_in(into) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_long_name_that_would_fill_the_memory_is_refused(into, is_first):
    """What a tar header adds is read into memory at once: 200 MB of it compress to 30 kB."""
    first = [] if is_first else [("a.png", b"good")]
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    with tarfile.open(into.parent / "a.tar.xz", "w:xz", preset=0) as tar:
        for name, content in first:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(20):
            tar.fileobj.write(bytes(1 << 20))
    with pytest.raises(PradotError, match="not safe to unpack: a header of 200000000 bytes"):
        unpack(into.parent / "a.tar.xz", into)


@pytest.mark.parametrize("size", [-512, -(2**40)])
def test_a_negative_size_gives_no_credit(into, size):
    """A header may hold a negative number; in words (pax) or as bits."""
    in_words = tarfile.TarInfo("a.png")
    in_words.pax_headers = {"size": str(size)}
    as_bits = tarfile.TarInfo("a.png")
    for number, info in enumerate([in_words, as_bits]):
        with tarfile.open(into.parent / f"{number}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(info)
    raw = bytearray((into.parent / "1.tar").read_bytes())
    raw[124:136] = (size % (256**12)).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (into.parent / "1.tar").write_bytes(raw)
    for number in range(2):
        with pytest.raises(PradotError, match=r"a\.png' is of -|a header of -|cannot be unpacked"):
            unpack(into.parent / f"{number}.tar", into)
    assert files_in(into) == []


def test_zeros_after_the_end_are_not_read_for_ever(into, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_EXTRA", 1_000_000)
    with tarfile.open(into.parent / "a.tar.xz", "w:xz", preset=0) as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
        tar.fileobj.write(bytes(10_240))
        for _ in range(8):
            tar.fileobj.write(bytes(1 << 20))
    with pytest.raises(PradotError, match="far more than images"):
        unpack(into.parent / "a.tar.xz", into)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_file_in_the_place_of_a_folder_is_an_error(into, make):
    with pytest.raises(PradotError, match=r"archive (cannot be unpacked|is not safe)"):
        unpack(make(into.parent / "archive", ("a", b"file"), ("a/b.png", b"evil")), into)


def test_what_is_unpacked_can_run_and_bind_nobody(into):
    with tarfile.open(into.parent / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.mode, info.uid, info.gid = 0o7777, 12345, 12345
        tar.addfile(info, io.BytesIO())
    unpack(into.parent / "a.tar", into)
    found = (into / "a.png").stat()
    assert stat.S_IMODE(found.st_mode) & 0o7022 == 0 and found.st_uid == os.getuid()
