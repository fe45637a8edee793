"""Runs against the published numbers: what is right passes, what is wrong is named, what does not compare does not count."""

import json

import pytest
from test_tables import write_record

from pradot import PradotError
from pradot.cli import main
from pradot.paper.datasets import DATASETS, MVTEC_AD_COUNTS
from pradot.paper.evaluation import LOCO_METRICS, METRICS
from pradot.paper.identity import recorded_settings
from pradot.paper.presets import PRESETS
from pradot.paper.tables import CATEGORIES, published_table
from pradot.paper.verify import SHAPES, departures, tolerances, verify


def own_setting(folder, category, image=0.0, pixel=0.0, *, seed=0, **changes):
    """A record as the paper's own setting gives it; image and pixel AUROC are that many points from the paper's."""
    paper = published_table("mvtec_ad").loc[category]
    values = {"image_auroc": (paper["image_auroc"] + image) / 100, "pixel_auroc": (paper["pixel_auroc"] + pixel) / 100}
    train, _, normal, anomalous = MVTEC_AD_COUNTS[category]
    changes = {
        "metrics": dict.fromkeys(METRICS, 0.5) | values,
        "settings": recorded_settings(PRESETS["paper"]),
        "counts": {"train": train - 9, "validation": 9, "test": normal + anomalous, "test_anomalous": anomalous},
        "image_shapes": {SHAPES[category]: 300},
    } | changes
    return write_record(folder, category, None, seed=seed, **changes)


def test_every_published_number_has_a_tolerance_and_every_category_its_size():
    rules = tolerances()
    assert (rules["why"].str.len() > 10).all()
    for dataset in ("mvtec_ad", "mvtec_loco"):
        of_one = rules[rules["dataset"] == dataset]
        for metric in published_table(dataset):
            assert {"any", "mean"} <= set(of_one[of_one["metric"] == metric]["category"])
        assert set(CATEGORIES[dataset]) <= set(SHAPES)
    assert rules["tolerance"].dropna().between(0.1, 3).all()


def test_right_numbers_pass(tmp_path, capsys):
    own_setting(tmp_path, "bottle", pixel=0.4)
    own_setting(tmp_path, "capsule", image=-2, seed=0)
    own_setting(tmp_path, "capsule", image=+1, seed=1)  # the mean over seeds is compared
    assert main(["bench", "--verify", "--out", str(tmp_path)]) == 0
    assert "4 numbers within their tolerance, 0 off" in capsys.readouterr().out


@pytest.mark.parametrize(("image", "pixel", "n_off"), [(-1.6, 0, 1), (0, 0.6, 1), (-3, -3, 2), (1.5, -0.5, 0)])
def test_a_wrong_number_is_named_and_fails(tmp_path, capsys, image, pixel, n_off):
    own_setting(tmp_path, "capsule", image, pixel)
    own_setting(tmp_path, "bottle")
    assert main(["bench", "--verify", "--out", str(tmp_path)]) == (1 if n_off else 0)
    printed = capsys.readouterr().out
    assert printed.count("\noff: mvtec_ad capsule, ") == n_off and "off: mvtec_ad bottle" not in printed
    assert f"{4 - n_off} numbers within their tolerance, {n_off} off" in printed
    if image == -1.6:
        assert "off: mvtec_ad capsule, image_auroc: this run 91.8, paper 93.4 (tolerance 1.5)" in printed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "paper, shortened"}, "preset paper, shortened"),
        ({"label": "fast"}, "preset fast"),
        ({"settings": {**recorded_settings(PRESETS["paper"]), "reg": 0.1}}, "settings are not those of the preset paper: reg"),
        ({"evaluation_size": None}, "settings are not those of the preset paper: others"),
        (
            {"encoder": {"name": "resnet50+file", "weights_sha256": "ab", "weights_source": "file", "image_size": 224}},
            "encoder resnet50+file at 224 px",
        ),
        ({"image_shapes": {"512x512": 300}}, "images of 512x512 px, published are 1000x1000"),
        (
            {"counts": {"train": 5, "validation": 1, "test": 132, "test_anomalous": 109}},
            "not the published images: 6 for train",
        ),
    ],
    ids=["shortened", "preset", "settings", "evaluation", "encoder", "size", "counts"],
)
def test_what_is_not_the_papers_own_setting_does_not_count(tmp_path, change, said):
    right, wrong = own_setting(tmp_path / "right", "capsule"), own_setting(tmp_path / "wrong", "capsule", -50, -50, **change)
    assert departures(json.loads(right.read_text())) == [] and said in departures(json.loads(wrong.read_text()))[0]
    with pytest.raises(PradotError, match="nothing was compared") as error:
        verify(tmp_path / "wrong")
    assert said in str(error.value)
    own_setting(tmp_path, "bottle")
    right.unlink()
    table, others = verify(tmp_path)
    assert set(table["category"]) == {"bottle"} and set(table["verdict"]) == {"within"}
    assert len(others) == 1 and said in others[0]


def test_the_mean_is_of_the_categories_that_compare(tmp_path):
    for category in CATEGORIES["mvtec_ad"]:
        own_setting(tmp_path, category, image=-11.7 if category == "toothbrush" else -0.6 if category != "bottle" else 0)
    table, _ = verify(tmp_path)
    table = table.set_index(["category", "metric"])
    assert table.loc[("toothbrush", "image_auroc"), "verdict"] == "not comparable"
    mean = table.loc[("mean of 14", "image_auroc")]
    assert mean["difference"] == pytest.approx(-0.6 * 13 / 14) and mean["verdict"] == "OFF"  # each alone is within
    assert table.loc[("cable", "image_auroc"), "verdict"] == "within"
    (tmp_path / "zipper-paper-0.json").unlink()
    assert not verify(tmp_path)[0]["category"].str.startswith("mean").any()


def test_loco_is_compared_by_the_metrics_of_the_papers_code(tmp_path):
    metrics = dict.fromkeys([*METRICS, *LOCO_METRICS], 0.1) | {"image_auroc_types": 0.897, "au_spro_05_224_first": 0.689}
    train, validation, normal, anomalous = DATASETS["mvtec_loco"].counts["juice_bottle"]
    counts = {"train": train, "validation": validation, "test": normal + anomalous, "test_anomalous": anomalous}
    shapes, settings = {SHAPES["juice_bottle"]: 9}, recorded_settings(PRESETS["paper"])
    changes = {"metrics": metrics, "counts": counts, "image_shapes": shapes, "settings": settings}
    write_record(tmp_path, "juice_bottle", None, dataset="mvtec_loco", **changes)
    table, _ = verify(tmp_path, ["mvtec_loco"])
    assert table["verdict"].tolist() == ["within", "within"] and table["difference"].abs().max() < 1e-9
    with pytest.raises(PradotError, match="nothing was compared"):
        verify(tmp_path, ["mvtec_ad"])
