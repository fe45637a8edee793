"""No room and no permission: the file is named, and no finished work is lost."""

import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from attempts import QUICK, attempt, run_folder
from small_data import write_category, write_encoder

from pradot import Pradot, PradotError
from pradot.files import alone, replacing, short_name
from pradot.paper.own import write_predictions
from pradot.sealed import save_sealed

pytestmark = pytest.mark.usefixtures("few_prototypes")


@contextmanager
def files_of_at_most(n_bytes):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_text(path):
    with replacing(path) as temporary:
        temporary.write_text("x" * 100_000)


def write_tensors(path):
    save_sealed({"a": torch.zeros(100_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_tensors])
def test_no_room_names_the_file_and_leaves_it_as_it_was(tmp_path, write):
    path = tmp_path / "x.safetensors"
    path.write_text("old")
    with (
        files_of_at_most(10_000),
        pytest.raises(PradotError, match=r"x\.safetensors cannot be written \(.*too large.*make room"),
    ):
        write(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_costs_no_finished_work(part, capsys):
    write_category(part.parent, part.name, n_train=3, n_good=6, n_bad=6)  # patch scores of more than a page
    disk = Path.cwd() / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets no small disk be made")
    try:
        status, _, error = run_folder(capsys, part, "--out", disk)
        assert status == 1 and str(disk) in error and "No space left on device" in error and "make room" in error
        assert not list(disk.rglob("*.json")) and not list(disk.rglob("*partial*"))
    finally:
        subprocess.run(["umount", disk], check=True)
    status, printed, _ = run_folder(capsys, part)
    assert status == 0 and "branches were learned before" in printed


def test_a_cache_without_room_costs_nothing_but_time(part, tiny_encoder, draw, tmp_path):
    cache, images = tmp_path / "cache", draw(3, 0)
    expected = Pradot(tiny_encoder, **QUICK).fit(images).anomaly_scores(images)
    with files_of_at_most(100), pytest.warns(UserWarning) as warned:
        found = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images).anomaly_scores(images)
    said = " ".join(str(one.message) for one in warned)
    assert "features are not kept" in said and "prototypes are not kept" in said and "make room" in said
    assert found.tolist() == expected.tolist() and not list(cache.iterdir())


@pytest.mark.parametrize("cache", ["file", "file/below", "/proc/nothing"])
def test_a_cache_that_is_no_folder_is_named(part, capsys, monkeypatch, cache):
    Path("file").write_text("mine")
    monkeypatch.setenv("PRADOT_CACHE", cache)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and cache in error and "PRADOT_CACHE" in error and "name another" in error


def test_outputs_that_cannot_be_written_are_named_before_the_work(part, capsys, monkeypatch, tiny_encoder, draw):
    Path("file").write_text("mine")
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save("model")
    monkeypatch.setattr(Pradot, "load", None)  # any work would fail
    monkeypatch.setattr("pradot.paper.speed.measure", None)
    images = part / "train" / "good"
    assert "(--out)" in attempt(capsys, "predict", "--model", "model", "--images", images, "--out", "file")[2]
    assert "is a folder: give the name of a file" in attempt(capsys, "speed", "--out", ".")[2]
    assert "(--out)" in attempt(capsys, "speed", "--out", "file/speed.json")[2]
    assert "file" in attempt(capsys, "notebooks", "00", "--out", "file")[2]
    assert Path("file").read_text() == "mine"


def test_images_that_cannot_be_scored_cost_no_score_of_others(part, capsys):
    good = part / "train" / "good"
    assert run_folder(capsys, good, "--save-model", "models")[0] == 0
    (good / "001.png").write_bytes(b"")
    predict = ["--images", good, "--out", "scores", "--encoder", write_encoder(Path.cwd())]
    status, printed, error = attempt(capsys, "predict", "--model", "models/good", *predict)
    assert status == 1 and "2 images scored" in printed and f"{good / '001.png'}: the file is empty" in error
    assert "1 of 3 images have no score" in error
    assert [line.split(",")[0] for line in Path("scores/scores.csv").read_text().splitlines()] == ["file", "000.png", "002.png"]


def test_names_too_long_for_what_stands_beside_them_are_shortened(tmp_path):
    assert short_name("a.json") == "a.json" and short_name("x" * 255) == "x" * 255
    long, other = "ü" * 120 + "a" * 15, "ü" * 120 + "b" * 15
    assert len(os.fsencode(short_name(long, 200))) <= 200 and short_name(long, 200) != short_name(other, 200)
    for name in (long, other):
        with alone(tmp_path / name), replacing(tmp_path / name) as temporary:
            temporary.write_text(name)
    assert sorted(os.listdir(tmp_path)) == [long, other] and (tmp_path / long).read_text() == long
    with replacing(tmp_path / long) as temporary, alone(tmp_path / other):  # who makes one does not remove the other half made
        temporary.write_text(long)
    write_predictions(tmp_path / "out", [Path("x" * 255), Path("x" * 254 + "y")], [np.eye(3), np.eye(3)])
    assert len(os.listdir(tmp_path / "out" / "heat_maps")) == 2
