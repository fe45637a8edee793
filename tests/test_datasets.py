import csv
import shutil
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from pradot.errors import PradotError
from pradot.images import read_image
from pradot.paper import drawn
from pradot.paper.datasets import (
    DATASETS,
    MVTEC_AD_CATEGORIES,
    MVTEC_AD_COUNTS,
    Sample,
    list_categories,
    load_category,
    read_mask,
)


def save(path, height=6, width=8, value=100, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), value).save(path)
    return path


def save_mask(path, height=6, width=8, value=255):
    """Anomalous in the rows 1 and 2 of the column 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[1:3, 3] = value
    Image.fromarray(mask).save(path)
    return path


def make_category(root):
    """Draw a small category in the MVTec AD layout: 12 training, 2 normal and 3 anomalous test images."""
    for i in range(12):
        save(root / "train" / "good" / f"{i}.png", value=i)
    for name in ["000.png", "001.png"]:
        save(root / "test" / "good" / name)
    for defect, names in {"scratch": ["000.png", "001.png"], "dent": ["000.png"]}.items():
        for name in names:
            save(root / "test" / defect / name)
            save_mask(root / "ground_truth" / defect / name.replace(".png", "_mask.png"))
    return root


def test_a_whole_category(tmp_path):
    root = make_category(tmp_path / "part")
    category = load_category("mvtec_ad", tmp_path, "part")
    assert (category.dataset, category.name, category.root) == ("mvtec_ad", "part", root)
    assert [path.name for path in category.train] == [f"{i}.png" for i in range(12)]
    assert [(sample.defect, sample.path.name) for sample in category.test] == [
        ("dent", "000.png"),
        ("good", "000.png"),
        ("good", "001.png"),
        ("scratch", "000.png"),
        ("scratch", "001.png"),
    ]
    assert category.test[4].masks == (root / "ground_truth" / "scratch" / "001_mask.png",)
    assert category.test[1].masks == () and category.validation == ()
    assert category.labels.tolist() == [1, 0, 0, 1, 1] and category.labels.dtype.kind == "i"
    assert category.defects == ["dent", "scratch"]
    assert category.has_masks and category.notes == ()


def test_categories_come_in_the_published_order_then_by_name(tmp_path):
    for name in ["own10", "own9", "zipper", "bottle", "carpet", ".hidden"]:
        make_category(tmp_path / name)
    save(tmp_path / "not_a_category" / "a.png")
    expected = ["carpet", "bottle", "zipper", "own9", "own10"]
    assert list_categories("mvtec_ad", tmp_path) == expected
    assert list_categories("mvtec_ad", tmp_path / "own9") == ["own9"]
    assert load_category("mvtec_ad", tmp_path / "own9", "own9").root == tmp_path / "own9"


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    make_category(tmp_path / "part")
    monkeypatch.chdir(tmp_path / "part")
    assert list_categories("mvtec_ad", ".") == ["part"] == list_categories("folder", ".")


@pytest.mark.parametrize("usual", ["mvtec_ad", "mvtec_anomaly_detection"])
def test_the_usual_folder_is_found_in_its_parent(tmp_path, usual):
    make_category(tmp_path / usual / "bottle")
    make_category(tmp_path / "something_else")
    assert list_categories("mvtec_ad", tmp_path) == ["bottle"]
    assert load_category("mvtec_ad", tmp_path, "bottle").root == tmp_path / usual / "bottle"


def test_published_categories_and_counts():
    with files("pradot.paper").joinpath("published.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == row["table"] == "mvtec_ad"]
    published = list(dict.fromkeys(row["category"] for row in rows if row["category"] != "mean"))
    assert list(MVTEC_AD_CATEGORIES) == published
    totals = np.sum(list(MVTEC_AD_COUNTS.values()), axis=0)
    assert totals.tolist() == [3629, 0, 467, 1258]  # of the whole data set
    totals = {name: np.sum(list(DATASETS[name].counts.values()), axis=0).tolist() for name in ("mvtec_loco", "visa")}
    assert totals == {"mvtec_loco": [1778, 305, 575, 561 + 432], "visa": [8659, 0, 962, 1200]}


def test_other_counts_than_the_published_ones_are_noted(tmp_path):
    make_category(tmp_path / "bottle")
    (note,) = load_category("mvtec_ad", tmp_path, "bottle").notes
    assert "12 + 2 + 3" in note and "209 + 20 + 63" in note
    assert load_category("folder", tmp_path / "bottle", "bottle").notes == ()


def test_images_of_any_ending_size_and_mode_find_their_masks(tmp_path):
    root = tmp_path / "part"
    for i, (mode, value) in enumerate([("L", 9), ("RGB", (1, 2, 3)), ("RGBA", (1, 2, 3, 4)), ("I;16", 70), ("1", 1)]):
        save(root / "train" / "good" / f"{i}.PNG", 5 + i, 9 - i, value, mode)
    for name, mask in [("a.JPG", "a_mask.png"), ("b.bmp", "b.PNG"), ("c.Tiff", "c_mask.BMP"), ("d.jpeg", "d.tif")]:
        save(root / "test" / "dent" / name)
        save_mask(root / "ground_truth" / "dent" / mask)
    category = load_category("mvtec_ad", tmp_path, "part")
    assert [mask.name for sample in category.test for mask in sample.masks] == ["a_mask.png", "b.PNG", "c_mask.BMP", "d.tif"]
    assert category.has_masks
    assert [read_image(path).shape for path in category.train] == [(5 + i, 9 - i, 3) for i in range(5)]
    assert category.notes == ("No normal test images: metrics that need both are absent.",)


def test_a_category_without_masks_is_noted(tmp_path):
    shutil.rmtree(make_category(tmp_path / "part") / "ground_truth")
    category = load_category("mvtec_ad", tmp_path / "part", "part")
    assert not category.has_masks
    assert category.notes == ("No masks: pixel metrics are absent.",)
    with pytest.raises(PradotError, match=r"No mask for .*dent.000\.png"):
        read_mask(category.test[0], (6, 8))


def test_some_missing_masks_are_an_error_but_a_note_in_a_folder(tmp_path):
    root = make_category(tmp_path / "part")
    (root / "ground_truth" / "scratch" / "001_mask.png").unlink()
    with pytest.raises(PradotError, match=r"1 of 3 anomalous images have no mask .*\(scratch/001\.png\)"):
        load_category("mvtec_ad", tmp_path, "part")
    category = load_category("folder", root, "part")
    assert not category.has_masks
    assert "1 of 3 anomalous" in category.notes[0] and "pixel metrics are absent" in category.notes[0]


def test_masks_of_wrong_names_are_not_taken_for_no_masks(tmp_path):
    root = make_category(tmp_path / "part")
    for path in list((root / "ground_truth").rglob("*_mask.png")):
        path.rename(path.with_name(path.name.replace("_mask", "-truth")))
    with pytest.raises(PradotError, match="3 of 3 anomalous images have no mask of their name"):
        load_category("mvtec_ad", tmp_path, "part")


def test_jpeg_masks_are_noted(tmp_path):
    save(tmp_path / "train" / "0.png")
    save(tmp_path / "test" / "dent" / "0.png")
    save_mask(tmp_path / "ground_truth" / "dent" / "0.jpg")
    assert any("JPEG" in note for note in load_category("folder", tmp_path, tmp_path.name).notes)


def test_mask_values(tmp_path):
    root = make_category(tmp_path / "part")
    save_mask(root / "ground_truth" / "scratch" / "000_mask.png", value=1)  # any value above 0 counts
    sixteen = np.zeros((6, 8), dtype=np.uint16)
    sixteen[0, 0] = 1
    Image.fromarray(sixteen).save(root / "ground_truth" / "scratch" / "001_mask.png")
    dent, good, _, scratch, other = load_category("mvtec_ad", tmp_path, "part").test
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:3, 3] = True
    for sample in (dent, scratch):
        mask = read_mask(sample, (6, 8))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(read_mask(other, (6, 8)), sixteen > 0)
    for size, shape in [(None, (6, 8)), (4, (4, 4))]:
        mask = read_mask(good, (6, 8), size)
        assert mask.shape == shape and mask.dtype == bool and not mask.any()


def test_masks_are_resized_by_torchvisions_nearest_neighbour_on_tensors(tmp_path):
    values = np.random.default_rng(0).random((30, 45)) > 0.5
    Image.fromarray(values).save(tmp_path / "mask.png")
    sample = Sample(tmp_path / "image.png", "dent", (tmp_path / "mask.png",))
    mask = read_mask(sample, (30, 45), size=7)
    np.testing.assert_array_equal(mask, values[np.arange(7) * 30 // 7][:, np.arange(7) * 45 // 7])
    resize = v2.Resize((7, 7), InterpolationMode.NEAREST)
    np.testing.assert_array_equal(mask, resize(torch.from_numpy(values)[None].float())[0].numpy() > 0)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path):
    sample = Sample(tmp_path / "a.png", "dent", (save_mask(tmp_path / "a_mask.png", 6, 8),))
    with pytest.raises(PradotError, match=r"a_mask\.png has 6 x 8 pixels .*a\.png 8 x 6"):
        read_mask(sample, (8, 6))


def test_an_unreadable_mask_is_named(tmp_path):
    (tmp_path / "a_mask.png").touch()
    with pytest.raises(PradotError, match=r"a_mask\.png: the file is empty"):
        read_mask(Sample(tmp_path / "a.png", "dent", (tmp_path / "a_mask.png",)), (6, 8))


def test_folder_in_its_shorter_layouts(tmp_path):
    plain = tmp_path / "plain"
    save(plain / "10.png")
    save(plain / "9.JPG", 20, 30)
    category = load_category("folder", plain, "plain")
    assert [path.name for path in category.train] == ["9.JPG", "10.png"]
    assert category.test == () and category.labels.shape == (0,) and not category.has_masks
    assert category.notes == ("No test images: all metrics are absent.",)

    train = tmp_path / "train_only"
    save(train / "train" / "0.png")
    assert load_category("folder", train, "train_only").train == (train / "train" / "0.png",)

    tested = tmp_path / "tested"
    save(tested / "train" / "0.png")
    save(tested / "test" / "good" / "1.png")
    save(tested / "test" / "bad" / "2.png")
    category = load_category("folder", tested, "tested")
    assert category.labels.tolist() == [1, 0] and category.defects == ["bad"]
    assert category.notes == ("No masks: pixel metrics are absent.",)
    assert list_categories("folder", tested) == ["tested"]


@pytest.mark.parametrize("dataset", ["mvtec_ad", "folder"])
def test_images_without_a_label_are_refused(tmp_path, dataset):
    root = make_category(tmp_path / "part")
    save(root / "test" / "loose.png")
    with pytest.raises(PradotError, match=r"1 image\(s\) lie directly in .*test \(loose\.png\)"):
        load_category(dataset, root, "part")


def test_unlabelled_training_images_are_refused(tmp_path):
    root = make_category(tmp_path / "part")
    save(root / "train" / "loose.PNG")
    with pytest.raises(PradotError, match=r"directly in .*train \(loose\.PNG\)"):
        load_category("folder", root, "part")


def test_wrong_roots_show_what_was_found_and_the_layout(tmp_path):
    with pytest.raises(
        PradotError, match=r"No category of MVTec AD in .* it holds nothing\. Name its folder .*\nExpected layout"
    ) as raised:
        list_categories("mvtec_ad", tmp_path)
    assert str(tmp_path) in str(raised.value) and "test/DEFECT/000.png" in str(raised.value)
    with pytest.raises(PradotError, match=r"No images in .* it holds nothing(.|\n)*Expected layout"):
        load_category("folder", tmp_path, tmp_path.name)
    with pytest.raises(PradotError, match=r"does not exist; the folder .* does"):
        list_categories("mvtec_ad", tmp_path / "absent")

    root = make_category(tmp_path / "part")
    with pytest.raises(PradotError, match=r"No category 'bottle' of mvtec_ad in .*; found there: part"):
        load_category("mvtec_ad", tmp_path, "bottle")
    with pytest.raises(PradotError, match=r"No category .* folders \(good\)"):
        list_categories("mvtec_ad", root / "train")
    shutil.rmtree(root / "train")
    with pytest.raises(PradotError, match=r"Nothing to learn from in .* folders \(ground_truth, test\)"):
        load_category("folder", root, "part")


def test_incomplete_categories_are_named(tmp_path):
    root = make_category(tmp_path / "part")
    (root / "test" / "stain").mkdir()
    with pytest.raises(PradotError, match=r"No images in .*stain"):
        load_category("mvtec_ad", tmp_path, "part")
    shutil.rmtree(root / "test")
    with pytest.raises(PradotError, match=r"No folder test in .* folders \(ground_truth, train\)"):
        load_category("mvtec_ad", tmp_path, "part")
    (root / "test").mkdir()
    with pytest.raises(PradotError, match="No test images in"):
        load_category("mvtec_ad", tmp_path, "part")
    shutil.rmtree(root / "train" / "good")
    (root / "train" / "good").mkdir()
    (root / "test").rmdir()
    with pytest.raises(PradotError, match=r"No images in .*good: it holds nothing"):
        load_category("folder", root, "part")


@pytest.mark.parametrize("call", [list_categories, lambda *a: load_category(*a, "part")])
def test_an_unknown_data_set_lists_those_known(tmp_path, call):
    with pytest.raises(PradotError, match="Unknown data set 'mvtec'; known are mvtec_ad, mvtec_loco, visa, drawn, folder"):
        call("mvtec", tmp_path)


def test_the_drawn_set_is_drawn_once_beside_whatever_is_there(tmp_path, monkeypatch):
    small = partial(drawn.draw, n_train=2, n_good=1, n_per_defect=1, size=64)
    monkeypatch.setattr("pradot.paper.catalogue.draw", small)
    make_category(tmp_path / "bottle")
    assert list_categories("drawn", tmp_path) == ["tray"]
    first = (tmp_path / "tray" / "train" / "good" / "000.png").stat().st_mtime_ns
    category = load_category("drawn", tmp_path, "tray")
    assert (tmp_path / "tray" / "train" / "good" / "000.png").stat().st_mtime_ns == first
    assert category.dataset == "drawn" and category.has_masks and category.notes == ()
    assert category.defects == sorted(drawn.STRUCTURAL + drawn.LOGICAL) and len(category.train) == 2
    assert load_category("drawn", tmp_path / "tray", "tray").root == tmp_path / "tray"
