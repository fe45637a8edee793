"""Memory does not grow with the number of images: arrays of all of them in files, folders scored a few images at a time."""

import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from pradot import Pradot, memory
from pradot.cli import main
from pradot.embedding import embed
from pradot.images import find_images
from pradot.memory import ARRAYS, chosen, room
from pradot.paper import evaluation

SHORT = {"branches": [(2, 0.0), (3, 0.3)], "n_prototypes": 1, "max_steps": 3, "batch_size": 4, "solver": "streamed"}


def is_mapped(tensor):
    """Whether a tensor's memory belongs to a file, by the kernel's own account."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            if start <= tensor.data_ptr() < end:
                return line.split()[4] != "0"  # inode
    raise AssertionError("no such memory")


@pytest.mark.parametrize(("n_floats", "in_file"), [(1000, False), (1001, True)])
def test_an_array_of_more_than_its_part_of_the_memory_lies_in_a_file(tmp_path, n_floats, in_file):
    made = room((n_floats,), keep_gb=ARRAYS * 4000 / 1e9, folder=tmp_path / "made")
    assert is_mapped(made) == in_file
    made.fill_(2.5)
    assert made.shape == (n_floats,) and made.dtype == torch.float32 and made.sum() == 2.5 * n_floats
    assert (
        not list(tmp_path.rglob("*.*")) and list(tmp_path.iterdir()) == [tmp_path / "made"] * in_file
    )  # a file without a name


def test_rows_are_chosen_into_an_array_in_a_file(tmp_path):
    rows = torch.randn(6, 2, 3, dtype=torch.float64)
    found = chosen(rows, torch.tensor([4, 0, 4]), keep_gb=0, folder=tmp_path)
    assert is_mapped(found)
    torch.testing.assert_close(found, rows[[4, 0, 4]], rtol=0, atol=0)


def test_a_full_disk_means_memory(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory.os, "posix_fallocate", full)
    made = room((10,), keep_gb=0, folder=tmp_path)
    assert not is_mapped(made) and made.shape == (10,)


def test_a_folder_that_cannot_be_one_means_memory(tmp_path):
    (tmp_path / "file").write_text("")
    assert not is_mapped(room((10,), keep_gb=0, folder=tmp_path / "file"))


@pytest.mark.parametrize("embedding", ["scale", "joined"])
def test_fit_is_the_same_from_files(tiny_encoder, draw, tmp_path, monkeypatch, embedding):
    images, made = draw(9, 0), []
    in_memory = Pradot(tiny_encoder, embedding=embedding, spread_power=0.5, **SHORT).fit(images)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda original=tempfile.TemporaryFile, **k: made.append(k) or original(**k))
    # The entries of the plans that count fit no more either: the same numbers, by passes over everything.
    in_files = Pradot(tiny_encoder, embedding=embedding, spread_power=0.5, keep_gb=1e-9, **SHORT).fit(images)
    # Two feature maps, joined embeddings of two branches, the two parts of each branch.
    assert len(made) == 2 + 2 * (embedding == "joined") + 4
    np.testing.assert_allclose(in_files.anomaly_scores(images), in_memory.anomaly_scores(images), rtol=2e-2)
    kept = Pradot(tiny_encoder, embedding=embedding, spread_power=0.5, cache=tmp_path, keep_gb=1e-9, **SHORT).fit(images)
    np.testing.assert_array_equal(kept.anomaly_scores(images), in_files.anomaly_scores(images))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}  # nothing is left of the files without names


def test_joined_embeddings_are_the_same_in_files(tiny_encoder, draw):
    features = tiny_encoder.features(draw(5, 0))
    found = embed(features, 2, "joined", keep_gb=0)
    assert is_mapped(found)
    torch.testing.assert_close(found, embed(features, 2, "joined"), rtol=0, atol=0)


def test_no_more_images_than_a_part_are_held_while_a_folder_is_scored(tiny_encoder, draw, monkeypatch):
    detector = Pradot(tiny_encoder, **SHORT).fit(draw(6, 0))
    images = draw(5, 1)
    whole, maps = detector.anomaly_scores(images), detector.anomaly_maps(images)
    asked, features = [], tiny_encoder.features
    monkeypatch.setattr(tiny_encoder, "features", lambda images, **k: asked.append(len(images)) or features(images, **k))
    monkeypatch.setattr("pradot.detector._AT_ONCE", 2)
    np.testing.assert_allclose(detector.anomaly_scores(images), whole, rtol=1e-5)
    assert asked == [2, 2, 1]
    for found, expected in zip(detector.anomaly_maps(images), maps, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"image_spread_power": 1.0, "top_part": 0.02}])
def test_predict_holds_one_map_at_a_time(tiny_encoder, draw, tmp_path, monkeypatch, settings):
    """`predict` makes every map anew when it is read, so that a folder of any size can be scored."""
    folder = tmp_path / "new"
    folder.mkdir()
    for number, image in enumerate(draw(20, 2, shape=(40, 30))):
        Image.fromarray(image).save(folder / f"{number}.png")
    detector = Pradot(tiny_encoder, **SHORT, **settings).fit(draw(6, 0))
    monkeypatch.setattr(Pradot, "load", classmethod(lambda *_, **__: detector))
    made, upsample = [], evaluation.upsample_and_average
    monkeypatch.setattr(
        evaluation, "upsample_and_average", lambda maps, shapes: made.append(len(shapes)) or upsample(maps, shapes)
    )
    assert main(["predict", "--model", "any", "--images", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert set(made) == {1}  # never a list of several
    assert len(list((tmp_path / "out" / "heat_maps").iterdir())) == 20
    lines = (tmp_path / "out" / "scores.csv").read_text().splitlines()[1:]
    found = {line.split(",")[0]: float(line.split(",")[1]) for line in lines}
    paths = find_images(folder)
    np.testing.assert_allclose([found[path.name] for path in paths], detector.anomaly_scores(paths), atol=1e-6)
