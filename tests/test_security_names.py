"""Names of images, folders and lists that somebody has chosen to do harm."""

import csv
import os

import numpy as np
import pytest
from hostile import XSS, files_in, said_in_one_line
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_data import write_category, write_encoder, write_visa

from pradot import PradotError
from pradot.cli import main
from pradot.names import file_cell, inert, shown
from pradot.paper.datasets import load_category
from pradot.paper.own import write_predictions

pytestmark = pytest.mark.usefixtures("few_prototypes", "no_switch")


NAMES = [
    "=1+1.png",
    "-x.png",
    "@a.png",
    "+1.png",
    "a\nb.png",
    "\x1b[2J.png",
    f"{XSS}.png",
    'a,b".png',
    "...png",
    "a;b $(x).png",
]


def test_heat_maps_and_scores_of_images_with_any_names(tmp_path):
    paths = [tmp_path / "in" / name for name in NAMES]
    try:
        raw = os.fsdecode(b"\xff.png")
        (tmp_path / raw).touch()
        paths.append(tmp_path / "in" / raw)
    except OSError:  # a file system whose names are UTF-8
        pass
    out = tmp_path / "out"
    write_predictions(out, paths, [np.ones((2, 2), np.float32)] * len(paths))
    assert files_in(out) == sorted(["scores.csv", *(f"heat_maps/{path.name}.png" for path in paths)])
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["file"] for row in csv.DictReader(file)]
    as_text = [path.name.encode("utf-8", "backslashreplace").decode() for path in paths]
    assert [os.path.normpath(cell) for cell in cells] == as_text
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_terminal_is_told_no_escape_sequences(here, capsys):
    (here / "in").mkdir()
    (here / "in" / "\x1b]0;owned\x07\x1b[2J.png").write_bytes(b"")
    assert main(["run", "--dataset", "folder", "--root", "in", "--encoder", write_encoder(here), "--preset", "fast"]) == 1
    said = said_in_one_line(capsys)
    assert "\x1b" not in said and "\\x1b[2J.png" in said
    assert shown("a\nb\t\x9b") == "a\nb\\t\\x9b"


@given(st.text())
def test_inert_text_has_no_signs_that_mean_something(text):
    said = inert(text)
    assert said.isprintable() and not set(said) & set('<>&|`$\\^~{}[]"\n') and said[:1] not in tuple("=+-@")
    said.encode()  # also what no file system should hold
    assert inert(said) == said
    assert os.path.normpath(file_cell("=x")) == "=x" and file_cell("x=") == "x="


@pytest.mark.parametrize("name", ["...txt", "..txt"])
def test_a_list_does_not_name_its_category_after_another_folder(here, capsys, name):
    write_category(here / "data", "own", n_train=2)
    (here / "lists").mkdir()
    (here / "lists" / name).write_text("../data/own/train/good/000.png\n../data/own/train/good/001.png\n")
    run = ["run", "--dataset", "folder", "--root", f"lists/{name}", "--encoder", write_encoder(here), "--preset", "fast"]
    assert main([*run, "--out", "deep/runs", "--save-model", "deep/models"]) == 1
    assert "rename it" in said_in_one_line(capsys) and not (here / "deep").exists()


def test_a_list_that_names_anothers_home_is_an_error(here, capsys):
    (here / "list.txt").write_text("~nobody-of-this-name/a.png\n")
    assert main(["run", "--dataset", "folder", "--root", "list.txt", "--encoder", write_encoder(here)]) == 1
    assert "line 1: ~nobody-of-this-name/a.png" in said_in_one_line(capsys)


@pytest.mark.parametrize("mask", ["../secret.png", "/secret.png", "candle/../../secret.png"])
def test_visas_table_names_no_masks_elsewhere(tmp_path, mask):
    root = write_visa(tmp_path / "visa", ("candle",))
    Image.new("L", (24, 24), 255).save(tmp_path / "secret.png")
    split = root / "split_csv" / "1cls.csv"
    split.write_text(
        split.read_text().replace(
            "candle/Data/Masks/Anomaly/000.png", mask.replace("/secret", f"{tmp_path}/secret") if mask[0] == "/" else mask
        )
    )
    with pytest.raises(PradotError, match="leads outside the data set"):
        load_category("visa", root, "candle")


def test_a_category_is_one_that_is_found(here, capsys):
    write_category(here / "data", "own", n_train=2)
    (here / "data" / "x").mkdir()
    for category in ("../data/own", "own/../own", "/etc", "..", ""):
        run = ["run", "--dataset", "mvtec_ad", "--root", "data", "--category", category, "--encoder", write_encoder(here)]
        assert main([*run, "--preset", "fast", "--save-model", "models"]) == 1
        assert "No category" in said_in_one_line(capsys)
    assert not (here / "runs").exists() and not (here / "models").exists()
