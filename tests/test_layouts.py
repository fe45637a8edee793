"""The layouts of MVTec AD LOCO, VisA and own images, where data sets are found, and masks one by one."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_data import LOCO_CONFIG, write_category, write_loco_category, write_visa

from pradot.errors import PradotError
from pradot.paper.datasets import (
    Counts,
    find_datasets,
    find_root,
    list_categories,
    load_category,
    read_defects,
    read_mask,
)
from pradot.paper.masks import read_official_defects, read_saturations, saturation_area


def edit_config(folder, change):
    entries = json.loads((folder / "defects_config.json").read_text())
    change(entries)
    (folder / "defects_config.json").write_text(json.dumps(entries))


def test_loco(tmp_path):
    folder = write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, "juice_bottle")
    assert [len(part) for part in (category.train, category.validation, category.test)] == [4, 2, 6]
    assert category.validation[0] == folder / "validation" / "good" / "000.png"
    assert category.defects == ["logical_anomalies", "structural_anomalies"] and category.has_masks
    logical = category.test[2]
    assert logical.masks == tuple(folder / "ground_truth" / "logical_anomalies" / "000" / f"00{i}.png" for i in (0, 1))
    mask = read_mask(logical, (40, 56))
    assert mask[2:12, 3:13].all() and mask[20:26, 30:36].all() and mask.sum() == 10 * 10 + 6 * 6
    assert (
        folder / "defects_config.json" in category.files
        and len(category.files) == len(set(category.files)) == 4 + 2 + 6 + 6 + 1
    )
    (note,) = category.notes
    assert "4 + 2 + 2 + 4 training, validation, normal" in note and "335 + 54 + 94 + 236" in note


def test_loco_defects_have_their_saturation_areas(tmp_path):
    folder = write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, "juice_bottle")
    good, _, logical, _, structural, _ = category.test
    assert read_defects(category, good, (40, 56)) == []
    (missing, absolute), (scratch, relative) = read_defects(category, logical, (40, 56))
    assert (missing.sum(), absolute) == (100, 40) and (scratch.sum(), relative) == (36, 18)
    assert [area for _, area in read_defects(category, structural, (40, 56))] == [8]
    edit_config(folder, lambda entries: entries[0].update(saturation_threshold=300))
    assert read_defects(category, logical, (40, 56))[0][1] == 100  # never more than there is


@pytest.mark.parametrize(
    ("threshold", "relative", "area", "expected"), [(0.3, True, 11, 3), (9, False, 11, 9), (9, False, 5, 5)]
)
def test_saturation_areas(threshold, relative, area, expected):
    assert saturation_area((threshold, relative), area) == expected


def test_loco_defects_as_the_papers_code_has_them(tmp_path):
    write_loco_category(tmp_path, size=(112, 448))
    category = load_category("mvtec_loco", tmp_path, "juice_bottle")
    good, logical = category.test[0], category.test[2]
    assert read_official_defects(category, good, (112, 448), merged=True) == []
    ((first, area),) = read_official_defects(category, logical, (112, 448), merged=False)
    assert first.shape == (224, 224) and first.sum() == 20 * 5 and area == 40  # absolute, though of another size
    ((both, _),) = read_official_defects(category, logical, (112, 448), merged=True)
    assert both.sum() == 20 * 5 + 12 * 3
    edit_config(category.root, lambda entries: entries.pop(0))
    with pytest.raises(PradotError, match="no entry of pixel_value 255"):
        read_official_defects(category, logical, (112, 448), merged=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "defects_config.json").unlink(), r"defects_config\.json does not give .*No such file"),
        (lambda folder: (folder / "defects_config.json").write_text("[{"), r"defects_config\.json does not give"),
        (lambda folder: (folder / "defects_config.json").write_text("{}"), r"defects_config\.json does not give .*no entry"),
        (lambda folder: edit_config(folder, lambda e: e[0].pop("pixel_value")), r"defects_config\.json .*no 'pixel_value'"),
        (lambda folder: edit_config(folder, lambda e: e[0].update(saturation_threshold=0)), r"threshold of 0"),
        (lambda folder: edit_config(folder, lambda e: e.append(e[0])), r"two of one pixel_value"),
        (lambda folder: edit_config(folder, lambda e: e[0].update(pixel_value=9)), r"no entry of pixel_value 255.*000\.png"),
    ],
)
def test_what_is_wrong_with_the_saturations_is_said_in_one_line(tmp_path, change, said):
    folder = write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, "juice_bottle")
    change(folder)
    with pytest.raises(PradotError, match=said) as raised:
        read_defects(category, category.test[2], (40, 56))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("values", [[], [254, 255]])
def test_a_defects_mask_has_one_grey_value(tmp_path, values):
    write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, "juice_bottle")
    mask = np.zeros((40, 56), np.uint8)
    mask[0, : len(values)] = values
    Image.fromarray(mask).save(category.test[2].masks[1])
    with pytest.raises(PradotError, match=rf"001\.png has {len(values)} grey values"):
        read_defects(category, category.test[2], (40, 56))


def test_loco_needs_its_validation_images(tmp_path):
    shutil.rmtree(write_loco_category(tmp_path) / "validation")
    with pytest.raises(PradotError, match=r"No folder of images at .*validation/good(.|\n)*defects_config"):
        load_category("mvtec_loco", tmp_path, "juice_bottle")


def test_reading_saturations(tmp_path):
    (tmp_path / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    assert read_saturations(tmp_path / "defects_config.json") == {255: (40, False), 254: (0.5, True)}


def test_visa_as_in_the_archive(tmp_path):
    write_visa(tmp_path)
    assert list_categories("visa", tmp_path) == ["candle", "pcb1"] == list_categories("visa", tmp_path.parent / tmp_path.name)
    category = load_category("visa", tmp_path, "candle")
    assert [path.name for path in category.train] == ["0002.JPG", "0003.JPG", "0004.JPG"]
    assert [(sample.defect, sample.path.name) for sample in category.test] == [
        ("bad", "000.JPG"),
        ("bad", "001.JPG"),
        ("good", "0000.JPG"),
        ("good", "0001.JPG"),
    ]
    expected = np.zeros((24, 24), bool)
    expected[2:5, 3:9] = True
    for sample in category.test[:2]:  # of values 1 and 2
        np.testing.assert_array_equal(read_mask(sample, (24, 24)), expected)
    assert load_category("visa", tmp_path / "candle", "candle").test == category.test


def test_visa_rearranged_is_the_same(tmp_path):
    category = load_category("visa", write_visa(tmp_path / "archive"), "candle")
    root = tmp_path / "VisA_pytorch" / "1cls" / "candle"
    for path in category.train:
        (root / "train" / "good").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "train" / "good")
    for sample in category.test:
        for folder, path in [("test", sample.path), *(("ground_truth", mask) for mask in sample.masks)]:
            (root / folder / sample.defect).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / folder / sample.defect)
    assert find_root("visa", tmp_path) == root.parent
    other = load_category("visa", tmp_path, "candle")
    assert [path.name for path in other.train] == [path.name for path in category.train]
    assert [(s.defect, s.path.name) for s in other.test] == [(s.defect, s.path.name) for s in category.test]
    assert [m.name for s in other.test for m in s.masks] == ["000.png", "001.png"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda split: split.unlink(), r"No .*1cls\.csv, which says what trains"),
        (lambda split: split.write_text("a,b\n1,2\n"), r"1cls\.csv is no split of VisA \(KeyError: 'object'\)"),
        (
            lambda split: split.write_text(split.read_text().replace("normal", "fine")),
            r"is no split of VisA \(KeyError: 'fine'\)",
        ),
        (
            lambda split: split.write_text(split.read_text().replace("test", "train")),
            r"trains on anomalous images \(000\.JPG\)",
        ),
        (lambda split: split.write_text("object,split,label,image,mask\n"), r"names no images of candle"),
        (lambda split: split.write_text(split.read_text().replace("0001.JPG", "9999.JPG")), r"1 of the images .*9999\.JPG"),
    ],
)
def test_what_is_wrong_with_the_split_is_named(tmp_path, change, said):
    change(write_visa(tmp_path) / "split_csv" / "1cls.csv")
    with pytest.raises(PradotError, match=said):
        load_category("visa", tmp_path, "candle")


def test_visa_images_outside_the_split_and_masks_that_lack(tmp_path):
    write_visa(tmp_path)
    Image.new("RGB", (24, 24)).save(tmp_path / "candle/Data/Images/Normal/0005.JPG")
    notes = load_category("visa", tmp_path, "candle").notes
    assert notes[0] == "1 images of candle are not in split_csv/1cls.csv and are left out."
    mask = tmp_path / "candle/Data/Masks/Anomaly/001.png"
    mask.unlink()
    with pytest.raises(PradotError, match=r"1 of 2 anomalous images have no mask .*Anomaly/001\.JPG"):
        load_category("visa", tmp_path, "candle")


def test_a_list_of_files(tmp_path):
    folder = write_category(tmp_path, n_train=3)
    other = tmp_path / "lists" / "parts.txt"
    other.parent.mkdir()
    other.write_text(f"# normal\n{folder / 'train/good/002.png'}\n\n../part/train/good/000.png\n")
    assert list_categories("folder", other) == ["parts"]
    category = load_category("folder", other, "parts")
    assert [path.name for path in category.train] == ["002.png", "000.png"] and category.root == other.parent
    other.write_text("a.png\n../part/train/good/000.png\n")
    with pytest.raises(PradotError, match=r"1 of the 2 images listed in .*parts\.txt are no files \(line 1: a\.png\)"):
        load_category("folder", other, "parts")
    other.write_text("../part/train/good/000.png\n" * 2)
    with pytest.raises(PradotError, match="lists 1 images twice"):
        load_category("folder", other, "parts")
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PradotError, match="no text file"):
        load_category("folder", other, "parts")


def make_all(data):
    """One category of each data set, under folders called as usual."""
    write_category(data / "MVTec-AD", "bottle")
    write_loco_category(data / "mvtec_loco_anomaly_detection")
    write_visa(data / "VisA_20220922", ["candle"])
    write_category(data / "kolektor", "sdd")
    return data


EXPECTED = {"mvtec_ad": "MVTec-AD", "mvtec_loco": "mvtec_loco_anomaly_detection", "visa": "VisA_20220922"}


def test_data_sets_are_found_by_parameter_then_environment_then_in_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PradotError, match=rf"No category of VisA in {tmp_path}/data: it does not exist.*data get visa"):
        find_root("visa")
    here, there, named = (make_all(tmp_path / name) for name in ("data", "there", "named"))
    for parameter, environment, expected in [(None, "", here), (None, "there", there), (named, "there", named)]:
        monkeypatch.setenv("PRADOT_DATA", environment)
        for name, folder in EXPECTED.items():
            assert find_root(name, parameter) == expected / folder
            assert list_categories(name, find_root(name, parameter)) == list_categories(name, parameter)
        assert find_datasets(parameter) == {name: expected / folder for name, folder in EXPECTED.items()}
    monkeypatch.delenv("PRADOT_DATA")
    assert find_root("visa", project=tmp_path / "there" / "..") == here / "VisA_20220922"
    assert find_root("drawn") == here / "drawn" and find_root("drawn", "mine") == tmp_path / "mine"


def test_a_data_set_is_never_taken_for_another(tmp_path):
    make_all(tmp_path)
    for name, folder in EXPECTED.items():
        assert find_datasets(tmp_path / folder) == {name: tmp_path / folder}
        for other in set(EXPECTED) - {name}:
            with pytest.raises(PradotError, match="No category of"):
                find_root(other, tmp_path / folder)
    # Categories of one's own count where they were pointed at, not wherever something is looked for.
    assert find_root("mvtec_ad", tmp_path / "kolektor") == tmp_path / "kolektor"
    assert find_datasets(tmp_path / "kolektor") == {"mvtec_ad": tmp_path / "kolektor"}
    shutil.rmtree(tmp_path / "MVTec-AD")
    assert set(find_datasets(tmp_path)) == {"mvtec_loco", "visa"}


def test_counts_in_words():
    assert str(Counts(1, 0, 2, 3)) == "1 + 2 + 3" and str(Counts(1, 4, 2, 3)) == "1 + 4 + 2 + 3"
