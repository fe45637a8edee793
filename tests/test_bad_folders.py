"""Folders, names and lists of images as nobody expects them: named, or run and scored."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from attempts import attempt, records, run_folder
from small_data import write_category, write_encoder, write_visa

from pradot import Encoder, PradotError
from pradot.cli import main
from pradot.paper.datasets import list_categories, load_category
from pradot.paper.presets import get_preset
from pradot.paper.runs import run

pytestmark = pytest.mark.usefixtures("few_prototypes")


@pytest.mark.parametrize("missing, kind", [("good", "normal"), ("spot", "anomalous")])
def test_metrics_that_need_both_kinds_of_images_are_absent_and_said_so(part, capsys, missing, kind):
    shutil.rmtree(part / "test" / missing)
    status, printed, _ = run_folder(capsys, part)
    assert status == 0 and "no metrics" in printed and f"No {kind} test images: metrics that need both are absent." in printed
    assert set(records()[0]["metrics"].values()) == {None} and len(records()[0]["images"]) == 2


@pytest.mark.parametrize("name", ["größe ünder 日本", "[a-z]*?", "new\nline", "x" * 255, "-rf"])
def test_folders_of_odd_names_are_run_and_scored(here, capsys, name):
    folder = here / name
    write_category(here, name, n_train=2, n_good=1, n_bad=1)
    assert run_folder(capsys, folder, "--save-model", "models")[0] == 0
    assert [record["category"] for record in records()] == [name]
    images = folder / "test" / "spot"
    predict = ["--images", images, "--out", "scores", "--encoder", write_encoder(here)]
    assert attempt(capsys, "predict", "--model", Path("models") / name, *predict)[0] == 0


def test_file_names_that_are_no_text_or_too_long_are_scored(part, capsys):
    good = part / "train" / "good"
    for name in (b"caf\xe9.png", b'new\nline, "q".png', b"\x1b[31mred.png", b"x" * 251 + b".png"):
        shutil.copy(good / "000.png", os.fsencode(good) + b"/" + name)
    assert run_folder(capsys, good, "--save-model", "models")[0] == 0
    predict = ["--images", good, "--out", "scores", "--encoder", write_encoder(Path.cwd())]
    status, printed, _ = attempt(capsys, "predict", "--model", "models/good", *predict)
    assert status == 0 and "7 images scored" in printed and "\x1b" not in printed
    assert len(list(Path("scores/heat_maps").iterdir())) == 7
    table = Path("scores/scores.csv").read_text(encoding="utf-8")
    assert "caf\\udce9.png" in table and '"new\nline, ""q"".png"' in table and "x" * 251 in table
    os.truncate(os.fsencode(good) + b"/caf\xe9.png", 0)
    os.truncate(good / 'new\nline, "q".png', 0)
    assert "caf\\udce9.png" in run_folder(capsys, good)[2]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"~nobody_of_this_name/a.png\n", "line 1: ~nobody_of_this_name/a.png"),
        (b"a\0b.png\n", "line 1: a"),
        ("a.png\n".encode("utf-16"), "no text file that lists images"),
        (b"part\n", "line 1: part"),
        (b"/dev/zero\n", "line 1: /dev/zero"),
        (b"# nothing\n\n", "lists no images"),
        (b"x" * 5000, "File name too long"),
        (b"parts.txt\n", "Cannot read the image .*parts.txt"),
    ],
    ids=["home of nobody", "NUL", "UTF-16", "folder", "device", "comments", "long name", "no image"],
)
def test_a_bad_list_of_images_is_named(here, capsys, content, said):
    (here / "part").mkdir()
    (here / "parts.txt").write_bytes(content)
    capsys.readouterr()
    with pytest.raises((PradotError, OSError), match=said):
        run("folder", here / "parts.txt", "parts", get_preset("fast"), Encoder(write_encoder(here), image_size=64))
    assert main(["run", "--dataset", "folder", "--root", "parts.txt", "--encoder", write_encoder(here)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_list_of_dos_lines_is_read(part, capsys):
    Path("list.txt").write_bytes(b"\xef\xbb\xbfpart/train/good/000.png\r\npart/train/good/001.png\r\n")
    assert run_folder(capsys, "list.txt")[0] == 0


@pytest.mark.parametrize("command", [["run", "--dataset", "folder"], ["doctor"], ["data", "--quick"]])
def test_the_home_of_nobody_is_no_traceback(here, capsys, monkeypatch, command):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    status = main([*command, "--root", "~nobody_of_this_name/x"])
    assert status == (1 if command[0] == "run" else 0) and "Traceback" not in capsys.readouterr().err


def test_images_that_vanish_are_named(part, capsys, monkeypatch):
    gone = part / "train" / "good" / "001.png"
    monkeypatch.setattr("pradot.paper.runs.check_test", lambda *_: gone.unlink() or [])  # after the listing, before the reading
    status, _, error = run_folder(capsys, part)
    assert status == 1 and str(gone) in error and "take it out of the data" in error
    assert not list(Path("runs").rglob("*.json"))


def test_a_split_of_lines_cut_short_is_named(tmp_path):
    split = write_visa(tmp_path) / "split_csv" / "1cls.csv"
    split.write_text(split.read_text().rstrip("\n") + "\ncandle,test,normal\n")
    with pytest.raises(PradotError, match=r"1cls\.csv is no split of VisA"):
        load_category("visa", tmp_path, "candle")


def test_categories_that_come_one_by_one_are_put_together(here, capsys):
    archives = {}
    for name in ("bottle", "cable"):
        write_category(here / name, name, n_train=1, n_good=1, n_bad=1)
        (here / name / "licence.txt").write_text("a licence")
        archives[name] = here / f"{name}.tar"
        with tarfile.open(archives[name], "w") as tar:
            tar.add(here / name, ".")
        assert attempt(capsys, "data", "add", archives[name], "--root", "data")[0] == 0
    assert list_categories("mvtec_ad", "data") == ["bottle", "cable"]
    status, _, error = attempt(capsys, "data", "add", archives["cable"], "--root", "data")
    assert status == 1 and "data/mvtec_ad/cable is there already" in error
    assert list_categories("mvtec_ad", "data") == ["bottle", "cable"] and os.listdir("data") == ["mvtec_ad"]
