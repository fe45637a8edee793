"""Metrics of whole runs: those of MVTec AD LOCO, and maps that are made whenever they are read."""

import json

import numpy as np
import pytest
import torch
from small_data import LOCO_CONFIG, write_category, write_encoder, write_loco_category, write_visa

from pradot import Branch, Encoder, PradotError, metrics
from pradot.maps import upsample_and_average
from pradot.paper import evaluation
from pradot.paper.datasets import LOCO_TYPES, load_category, read_defects, read_mask
from pradot.paper.evaluation import LOCO_METRICS, METRICS, OFFICIAL_SPRO, SPRO_LIMITS, Maps, evaluate
from pradot.paper.presets import get_preset
from pradot.paper.runs import read_branch_maps, run
from pradot.stopwatch import Stopwatch

SHAPE = (40, 56)

pytestmark = pytest.mark.usefixtures("few_prototypes")


def random_maps(n, seed=0):
    """Patch scores of two grids."""
    generator = torch.Generator().manual_seed(seed)
    grids = {Branch(2, 0.0): (8, 8), Branch(2, 0.3): (8, 8), Branch(3, 0.0): (4, 4)}
    return {branch: torch.rand(n, *grid, generator=generator) for branch, grid in grids.items()}


def results_of(data, branch_maps, size=None, shape=SHAPE):
    return evaluate(data, branch_maps, [shape] * len(data.test), size, Stopwatch({}))


@pytest.fixture
def loco(tmp_path):
    write_loco_category(tmp_path, n_good=4, n_bad=3)
    return load_category("mvtec_loco", tmp_path, "juice_bottle")


@pytest.mark.parametrize("size", [None, 32])
def test_au_spro_of_each_type_at_the_images_own_size_and_its_mean(loco, size):
    branch_maps = random_maps(len(loco.test))
    results, notes = results_of(loco, branch_maps, size)
    assert notes == [] and set(results["metrics"]) == {*METRICS, *LOCO_METRICS}
    maps = upsample_and_average(branch_maps, [SHAPE] * len(loco.test))
    for kind in LOCO_TYPES:
        chosen = [i for i, sample in enumerate(loco.test) if sample.defect in (kind, "good")]
        defects = [read_defects(loco, loco.test[i], SHAPE) for i in chosen]
        assert len(chosen) == 4 + 3 and [len(d) > 0 for d in defects].count(True) == 3
        for metric, limit in SPRO_LIMITS.items():
            expected = metrics.au_spro([maps[i] for i in chosen], defects, limit)
            assert results["by_defect"][kind][metric] == pytest.approx(expected)
    for metric in (*SPRO_LIMITS, *OFFICIAL_SPRO):
        values = [results["by_defect"][kind][metric] for kind in LOCO_TYPES]
        assert results["metrics"][metric] == pytest.approx(np.mean(values)) and len(set(values)) == 2
    aurocs = [results["by_defect"][kind]["image_auroc"] for kind in LOCO_TYPES]
    assert results["metrics"]["image_auroc_types"] == pytest.approx(np.mean(aurocs))
    assert results["metrics"]["image_auroc_types"] != pytest.approx(results["metrics"]["pixel_auroc"])


def test_the_papers_way_has_one_defect_an_image_at_224(loco):
    branch_maps = random_maps(len(loco.test))
    results, _ = results_of(loco, branch_maps)
    kind = "logical_anomalies"
    chosen = [i for i, sample in enumerate(loco.test) if sample.defect in (kind, "good")]
    maps = upsample_and_average(branch_maps, [(224, 224)] * len(loco.test))
    for merged in (False, True):
        defects = []
        for sample in (loco.test[i] for i in chosen):
            some = sample if merged else sample._replace(masks=sample.masks[:1])
            mask = read_mask(some, SHAPE, 224)
            defects.append([(mask, min(LOCO_CONFIG[0]["saturation_threshold"], mask.sum()))] if mask.any() else [])
        expected = metrics.au_spro([maps[i] for i in chosen], defects, 0.05)
        name = {False: "au_spro_05_224_first", True: "au_spro_05_224_merged"}[merged]
        assert results["by_defect"][kind][name] == pytest.approx(expected)


def test_maps_that_do_not_fit_are_made_anew_and_the_same(loco, monkeypatch):
    branch_maps = random_maps(len(loco.test))
    kept = Maps(branch_maps, [SHAPE] * len(loco.test))
    assert kept[3] is kept[3] and kept[-1] is kept[len(loco.test) - 1]
    expected = results_of(loco, branch_maps)
    monkeypatch.setattr(evaluation, "KEEP_BYTES", 4 * SHAPE[0] * SHAPE[1])
    made = Maps(branch_maps, [SHAPE] * len(loco.test))
    assert made[3] is not made[3] and len(list(made)) == len(made)
    np.testing.assert_array_equal(made[3], kept[3])
    assert results_of(loco, branch_maps) == expected


def test_a_grey_value_without_its_saturation_leaves_the_other_metrics(loco):
    config = loco.root / "defects_config.json"
    config.write_text(json.dumps(LOCO_CONFIG[:1]))  # none of 254
    results, notes = results_of(loco, random_maps(len(loco.test)))
    assert results["metrics"]["au_spro_05"] is None and results["metrics"]["au_pro_30"] is not None
    assert [note.split(":")[0] for note in notes] == [f"AU-sPRO of {kind} is absent" for kind in LOCO_TYPES]
    assert "no entry of pixel_value 254" in notes[0]
    config.write_text("[]")
    with pytest.raises(PradotError, match=r"defects_config\.json does not give"):  # found before any long work
        load_category("mvtec_loco", loco.root, "juice_bottle")


def test_loco_without_masks_has_image_metrics(tmp_path):
    folder = write_loco_category(tmp_path)
    for path in sorted((folder / "ground_truth").rglob("*.png")):
        path.unlink()
    data = load_category("mvtec_loco", tmp_path, "juice_bottle")
    results, _ = results_of(data, random_maps(len(data.test)))
    assert results["metrics"]["image_auroc_types"] is not None
    assert {results["metrics"][metric] for metric in SPRO_LIMITS} == {None}


def test_runs_of_each_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("PRADOT_DATA", str(tmp_path / "data"))
    write_loco_category(tmp_path / "data" / "mvtec_loco", n_train=3, n_validation=2)
    write_visa(tmp_path / "data" / "visa", ["candle"])
    folder = write_category(tmp_path, "own")
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted((folder / "train/good").iterdir())))
    encoder, preset = Encoder(write_encoder(tmp_path), image_size=64), get_preset("fast", max_steps=1, batch_size=2)

    record, path, _ = run("mvtec_loco", None, "juice_bottle", preset, encoder, out=tmp_path / "runs")
    assert record["counts"] == {"train": 3, "validation": 2, "test": 6, "test_anomalous": 4}
    assert record["image_shapes"] == {"40x56": 11} and json.loads(path.read_text()) == record
    maps = upsample_and_average(read_branch_maps(path), [SHAPE] * 6)
    assert [image["score"] for image in record["images"]] == pytest.approx([one.max() for one in maps])
    assert all(0 <= record["metrics"][metric] <= 1 for metric in LOCO_METRICS)
    config = tmp_path / "data/mvtec_loco/juice_bottle/defects_config.json"
    config.write_text(config.read_text().replace("0.5", "0.6"))
    assert run("mvtec_loco", None, "juice_bottle", preset, encoder, out=tmp_path / "runs")[1] != path  # other saturations

    record, _, _ = run("visa", None, "candle", preset, encoder, out=tmp_path / "runs")
    assert record["counts"] == {"train": 2, "validation": 1, "test": 4, "test_anomalous": 2}
    assert record["metrics"]["pixel_auroc"] is not None and set(record["metrics"]) == set(METRICS)
    assert {image["file"] for image in record["images"]} >= {"Data/Images/Anomaly/000.JPG", "Data/Images/Normal/0001.JPG"}

    record, _, _ = run("folder", tmp_path / "list.txt", "list", preset, encoder, out=tmp_path / "runs")
    assert record["counts"] == {"train": 5, "validation": 1, "test": 0, "test_anomalous": 0}
