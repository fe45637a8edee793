"""Bad masks and saturations: named before the fit, or evaluated and said so."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from attempts import INF, NAN, records, run_folder
from PIL import Image
from small_data import write_encoder, write_loco_category
from small_runs import FAST

from pradot import Encoder, Pradot, PradotError
from pradot.encoder import make_encoder
from pradot.images import image_shape
from pradot.paper.datasets import load_category
from pradot.paper.evaluation import check_test
from pradot.paper.masks import read_saturations
from pradot.paper.runs import run

pytestmark = pytest.mark.usefixtures("few_prototypes")


def save_mask(path, pixels):
    Image.fromarray(pixels).save(path)


def full(value, size=48):
    return np.full((size, size), value, np.uint8)


BAD_MASKS = {
    "another size": (lambda path: save_mask(path, full(255, 20)), "20 x 20 pixels .* 48 x 48: give the mask the image's size"),
    "no image": (lambda path: path.write_bytes(b"x"), "no image format that is read"),
    "float to 200": (
        lambda path: (path.unlink(), save_mask(path.with_suffix(".tif"), np.full((48, 48), 200, np.float32))),
        "found 200 to 200",
    ),
}


@pytest.mark.parametrize("attack", BAD_MASKS)
def test_a_bad_mask_is_found_before_the_fit(part, capsys, monkeypatch, attack):
    spoil, said = BAD_MASKS[attack]
    spoil(part / "ground_truth" / "spot" / "001_mask.png")
    monkeypatch.setattr(Pradot, "fit_features", None)  # a fit would fail
    monkeypatch.setattr(Encoder, "features", None)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and "001_mask" in error
    with pytest.raises(PradotError, match=said):
        category = load_category("folder", part, "part")
        check_test(category, [image_shape(sample.path) for sample in category.test])


def test_a_bad_mask_of_loco_is_found_before_the_fit(tmp_path):
    folder = write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, folder.name)
    shapes = [image_shape(sample.path) for sample in category.test]
    assert check_test(category, shapes) == []
    save_mask(folder / "ground_truth" / "logical_anomalies" / "000" / "000.png", np.full((40, 56), 7, np.uint8))
    with pytest.raises(PradotError, match=r"no entry of pixel_value 7, the grey value of .*000\.png"):
        check_test(category, shapes)


def test_a_broken_test_image_is_found_before_the_fit(part, capsys, monkeypatch):
    path = part / "test" / "good" / "001.png"
    path.write_bytes(path.read_bytes()[:-400])  # its header is whole
    monkeypatch.setattr(Pradot, "fit_features", None)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and f"Cannot read the image {path}" in error
    with pytest.raises(PradotError, match="Cannot read the image"):  # nor does it take a cache
        run("folder", part, part.name, FAST, make_encoder(write_encoder(Path.cwd()), image_size=FAST.image_size))


@pytest.mark.parametrize(
    "masks, pixel_auroc, said",
    [
        ({"000": full(0), "001": full(0)}, None, "No mask shows a defect: pixel metrics are absent."),
        ({"000": full(0)}, ..., "The masks of 1 anomalous images show no defect (spot/000.png)"),
        ({"000": full(255), "001": full(255)}, ..., None),
        ({"000": np.stack([full(0), full(0), full(9)], 2)}, ..., None),
    ],
    ids=["all zero", "one zero", "all one", "colour"],
)
def test_masks_of_odd_content_are_evaluated_or_said_to_be_absent(part, capsys, masks, pixel_auroc, said):
    for name, mask in masks.items():
        save_mask(part / "ground_truth" / "spot" / f"{name}_mask.png", mask)
    status, printed, _ = run_folder(capsys, part)
    (record,) = records()
    assert status == 0 and record["metrics"]["image_auroc"] is not None
    assert record["metrics"]["pixel_auroc"] is None if pixel_auroc is None else 0 <= record["metrics"]["pixel_auroc"] <= 1
    assert (said is None) == (not any("show" in note for note in record["notes"]))
    assert said is None or said in printed


@pytest.mark.parametrize("folder, what", [("ground_truth/spot", "one image"), ("test/spot", "one mask")])
def test_names_that_differ_in_their_ending_alone_are_refused_where_masks_go_by_name(part, capsys, folder, what):
    path = sorted((part / folder).iterdir())[0]
    Image.open(path).save(path.with_suffix(".bmp"))
    status, _, error = run_folder(capsys, part)
    assert status == 1 and path.name in error and path.with_suffix(".bmp").name in error and f"both belong to {what}" in error
    shutil.rmtree(part / "ground_truth")  # without masks there is nothing to mix up
    assert len(load_category("folder", part, "part").test) >= 4


@pytest.mark.parametrize(
    "change",
    [
        {"saturation_threshold": NAN},
        {"saturation_threshold": INF},
        {"saturation_threshold": "40"},
        {"relative_saturation": "false"},
        {"pixel_value": 254.5},
        {"pixel_value": "255"},
    ],
    ids=str,
)
def test_saturations_of_wrong_types_are_refused(tmp_path, change):
    config = write_loco_category(tmp_path, n_train=1, n_validation=1, n_good=1, n_bad=1) / "defects_config.json"
    entries = json.loads(config.read_text())
    entries[0] |= change
    config.write_text(json.dumps(entries))
    with pytest.raises(PradotError, match=r"defects_config\.json does not give .*entry of pixel_value"):
        load_category("mvtec_loco", tmp_path, config.parent.name)
    config.write_text("[" * 100_000)
    with pytest.raises(PradotError, match=r"defects_config\.json does not give"):
        read_saturations(config)
