"""Runs and their records."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small_data import write_category, write_encoder

from pradot import Encoder, Pradot, PradotError
from pradot.branches import Branch
from pradot.maps import image_score, upsample_and_average
from pradot.metrics import auroc
from pradot.paper import identity, runs
from pradot.paper.datasets import load_category
from pradot.paper.evaluation import METRICS
from pradot.paper.identity import ADDED, recorded_settings
from pradot.paper.presets import PRESETS, QUIRKS, RIVALS, get_preset
from pradot.paper.records import read_record, read_records, slug
from pradot.paper.runs import read_branch_maps, run
from pradot.paper.tables import as_rows, conditions

PARTS = {"loading", "features", "fit", "scoring", "metrics"}

pytestmark = pytest.mark.usefixtures("few_prototypes")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(write_encoder(tmp_path_factory.mktemp("encoder")), image_size=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_category(root)
    write_category(root, "bare", masks=False)
    return root


@pytest.fixture(scope="module")
def preset(few_prototypes):
    return get_preset("fast", max_steps=2, batch_size=2)


def small(name, **shortened):
    """A preset or rival for the encoder, with one prototype per position."""
    preset = replace(get_preset(name, **shortened), image_size=64)
    return preset if name in RIVALS else replace(preset, n_prototypes=1, n_iter=2)


def test_record_says_everything_and_is_found_again(data, encoder, preset, tmp_path, monkeypatch):
    record, path, is_new = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert is_new
    assert json.loads(path.read_text()) == record == read_record(path)
    assert list(read_records(tmp_path)) == [path] == sorted(tmp_path.rglob("*.json"))
    assert set(record["metrics"]) == set(METRICS)
    assert all(0 <= value <= 1 for value in record["metrics"].values())
    assert set(record["seconds"]) == PARTS
    assert record["seconds"]["fit"] > 0 and record["peak_memory_gb"] > 0.01
    assert record["counts"] == {"train": 5, "validation": 1, "test": 6, "test_anomalous": 3}
    assert record["image_shapes"] == {"48x48": 12}
    assert record["encoder"]["weights_sha256"] == encoder.weights_sha256
    assert [branch["steps"] for branch in record["branches"]] == 4 * [2]
    assert record["label"] == "fast, shortened" and "fast_shortened" in path.name
    assert record["evaluation_size"] is None and record["versions"]["torch"]

    monkeypatch.setattr("pradot.paper.presets.Pradot", None)  # a second fit would fail
    again, same_path, is_new = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert not is_new and same_path == path and again == record


def test_metrics_are_those_of_the_scores_and_maps_in_the_record(data, encoder, preset, tmp_path):
    record, path, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    labels = np.array([image["defect"] != "good" for image in record["images"]])
    scores = np.array([image["score"] for image in record["images"]])
    assert record["metrics"]["image_auroc"] == pytest.approx(auroc(labels, scores))
    maps = upsample_and_average(read_branch_maps(path), [(48, 48)] * 6)
    assert scores == pytest.approx([anomaly_map.max() for anomaly_map in maps])
    assert record["by_defect"]["spot"] == pytest.approx(record["metrics"])  # the only kind of defect


@pytest.mark.parametrize("change", ["seed", "settings", "data", "encoder", "code"])
def test_another_setting_is_another_run(change, data, encoder, preset, tmp_path):
    _, path, _ = run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path / "runs")
    root, seed = data, 0
    if change == "seed":
        seed = 1
    elif change == "settings":
        preset = get_preset("fast", max_steps=1, batch_size=2)
    elif change == "data":
        root = tmp_path / "data"
        write_category(root, "bare", masks=False, seed=9)
    else:
        file = tmp_path / "tiny.py"
        spec = write_encoder(tmp_path)
        old, new = {"encoder": ("manual_seed(5)", "manual_seed(6)"), "code": ("fine = self", "fine = 0.9999 * self")}[change]
        file.write_text(file.read_text().replace(old, new))
        encoder = Encoder(spec, image_size=64)
    _, other, is_new = run("mvtec_ad", root, "bare", preset, encoder, seed=seed, out=tmp_path / "runs")
    assert is_new and other != path


@pytest.mark.parametrize("change", ["mean", "std", "layers", "forward"])
def test_the_same_weights_used_otherwise_are_another_run(change, data, preset, two_scales, tmp_path):
    class Straight(two_scales):
        def forward(self, x):
            fine = self.fine(x)  # no relu
            return [fine, self.coarse(fine)]

    Straight.__name__ = "TwoScales"
    module = {"layers": two_scales(padding=1), "forward": Straight()}.get(change, two_scales())
    normalisation = {change: (0.4, 0.4, 0.4)} if change in ("mean", "std") else {}
    encoders = [Encoder.from_module(two_scales(), "mine", image_size=64)]
    encoders.append(Encoder.from_module(module, "mine", image_size=64, **normalisation))
    assert encoders[0].weights_sha256 == encoders[1].weights_sha256
    paths = [run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path)[1] for encoder in encoders]
    assert paths[0] != paths[1]


def test_an_image_changed_within_its_size_is_other_data(data, encoder, preset, tmp_path):
    image = write_category(tmp_path / "data") / "train" / "good" / "000.png"
    sizes, paths = set(), set()
    for grey in (100, 101):
        Image.new("RGB", (48, 48), (grey, grey, grey)).save(image, compress_level=0)
        sizes.add(image.stat().st_size)
        paths.add(run("mvtec_ad", tmp_path / "data", "part", preset, encoder, out=tmp_path / "runs")[1])
    assert len(sizes) == 1 and len(paths) == 2


def test_a_finished_run_is_made_again_for_a_folder_that_does_not_hold_its_model(data, encoder, preset, tmp_path):
    def go(preset, model="model"):
        record, _, is_new = run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path / "runs", model=tmp_path / model)
        return is_new, Pradot.load(tmp_path / model, encoder=encoder).max_steps, record

    longer = get_preset("fast", max_steps=3, batch_size=2)
    assert go(preset)[:2] == (True, 2)
    assert go(preset)[:2] == (False, 2)
    assert go(longer)[:2] == (True, 3)  # its model takes the place of the other
    assert go(preset)[:2] == (True, 2)
    assert go(preset, "elsewhere")[:2] == (True, 2)
    (tmp_path / "model" / "model.safetensors").unlink()
    assert go(preset)[:2] == (True, 2)
    assert run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path / "runs")[0] == go(preset)[2]


def test_a_model_that_was_cut_between_its_files_is_saved_again(data, encoder, preset, tmp_path):
    """Its tensors are there, its settings are still those of another model: the record's hash alone would not tell."""
    longer = get_preset("fast", max_steps=3, batch_size=2)
    what = {"out": tmp_path / "runs", "model": tmp_path / "model"}
    run("mvtec_ad", data, "bare", longer, encoder, **what)
    other = (tmp_path / "model" / "config.json").read_text()
    run("mvtec_ad", data, "bare", preset, encoder, **what)
    (tmp_path / "model" / "config.json").write_text(other)
    assert run("mvtec_ad", data, "bare", preset, encoder, **what)[2]
    assert Pradot.load(tmp_path / "model", encoder=encoder).max_steps == 2


@pytest.mark.parametrize(
    ("out", "model", "said"),
    [
        ("file", None, r"run records \(--out\).*Not a directory"),
        ("file/runs", None, r"run records \(--out\).*Not a directory"),
        ("/proc/pradot", None, r"run records \(--out\).*nothing can be written in /"),
        ("runs", "file", r"the model \(--save-model\).*Not a directory"),
        ("runs", "runs/models", r"runs/models \(--save-model\) lies in the folder of run records"),
        ("runs", "runs", r"lies in the folder of run records"),
    ],
)
def test_folders_that_cannot_be_written_are_named_first(out, model, said, data, encoder, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(identity, "load_category", None)  # any work would fail
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PradotError, match=said):
        run("mvtec_ad", data, "bare", preset, encoder, out=out, model=model)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_json_is_no_record(data, encoder, preset, tmp_path):
    run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path / "runs", model=tmp_path / "model")
    with pytest.raises(PradotError, match=r"config\.json is not a whole run record: it has no label, dataset, .* Move it out"):
        read_records(tmp_path)


def test_same_seed_same_numbers(data, encoder, preset, tmp_path):
    first, path, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path / "a")
    second, other, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path / "b")
    assert first["images"] == second["images"] and first["metrics"] == second["metrics"]
    assert path.with_suffix(".safetensors").read_bytes() == other.with_suffix(".safetensors").read_bytes()


def test_what_stands_in_for_the_encoder_asked_for_is_noted(data, encoder, preset, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "notes", ["another stands in"])
    record, _, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert "another stands in" in record["notes"]


def test_without_masks_pixel_metrics_are_absent_and_said_so(data, encoder, preset, tmp_path):
    record, _, _ = run("mvtec_ad", data, "bare", preset, encoder, out=tmp_path)
    assert record["metrics"]["image_auroc"] is not None
    assert record["metrics"]["pixel_auroc"] is None and record["metrics"]["au_pro_30"] is None
    assert any("masks" in note for note in record["notes"])


def test_training_images_alone_give_a_model_and_no_metrics(data, encoder, preset, tmp_path):
    folder = data / "part" / "train" / "good"
    record, path, _ = run("folder", folder, "good", preset, encoder, out=tmp_path / "runs", model=tmp_path / "model")
    assert set(record["metrics"].values()) == {None} and record["images"] == []
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert not path.with_suffix(".safetensors").exists()


def test_small_set_is_said_so(data, encoder, tmp_path):
    record, _, _ = run("mvtec_ad", data, "part", get_preset("fast", max_steps=1), encoder, out=tmp_path)
    assert record["branches"][0]["steps"] == 1
    assert any("fewer than a batch" in note for note in record["notes"])


def test_damaged_record_is_made_again(data, encoder, preset, tmp_path):
    record, path, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(PradotError, match="not a whole run record"):
        read_record(path)
    again, _, is_new = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert is_new and again["images"] == record["images"]


def test_failed_run_leaves_nothing(data, encoder, preset, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_set_smaller_than_a_batch_is_told_in_the_record(data, encoder, tmp_path):
    preset = small("paper", max_steps=1)
    record, _, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert any("5 training images are fewer than a batch of 64" in note for note in record["notes"])
    assert [branch["steps"] for branch in record["branches"]] == 4 * [1]  # the official code would make none
    assert record["quirks"] == list(QUIRKS) and record["variant"] == ""


def test_a_run_without_steps_has_no_marginal_error(data, encoder, tmp_path):
    preset = replace(PRESETS["fast"], start="kmeans", max_steps=0, variant="k-means")
    record, path, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    assert [branch["marginal_error"] for branch in record["branches"]] == 4 * [None]
    assert record["label"] == "fast, k-means" and "fast_k_means" in path.name and record["metrics"]["image_auroc"] is not None


def test_paper_preset_evaluates_at_224(data, encoder, tmp_path):
    record, path, _ = run("mvtec_ad", data, "part", small("paper", max_steps=1, batch_size=1), encoder, out=tmp_path)
    maps = upsample_and_average(read_branch_maps(path), [(224, 224)] * 6)
    assert [image["score"] for image in record["images"]] == pytest.approx([anomaly_map.max() for anomaly_map in maps])
    assert record["evaluation_size"] == 224 and len(record["branches"]) == 4


def test_slug():
    assert slug("paper, shortened") == "paper_shortened"
    assert slug("load_resnet50v1.py:load") == "load_resnet50v1.py_load"


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_are_run_recorded_and_found_again(name, data, encoder, tmp_path):
    record, path, is_new = run("mvtec_ad", data, "part", small(name, max_steps=60), encoder, out=tmp_path)
    assert is_new and record["label"] == name and record["branches"] == [] and record["quirks"] == []
    assert record["counts"]["train"] == 6 and record["counts"]["validation"] == 0  # nothing is held out
    assert record["model_bytes"] > 0 and record["settings"]["method"] in ("PatchCore", "PaDiM")
    assert all(0 <= value <= 1 for value in record["metrics"].values())
    assert read_branch_maps(path)[Branch(2, 0.0)].shape[0] == 6
    assert not run("mvtec_ad", data, "part", small(name), encoder, out=tmp_path)[2]
    caption = conditions(as_rows([record]))
    assert name in caption and "steps" not in caption


def test_a_rival_is_not_saved_and_says_so_before_it_is_fitted(data, encoder, tmp_path):
    with pytest.raises(PradotError, match="padim is here to be compared with and cannot be saved"):
        run("mvtec_ad", data, "part", small("padim"), encoder, out=tmp_path / "runs", model=tmp_path / "model")
    assert not list(tmp_path.rglob("*.json"))


def test_a_rivals_record_says_what_changes_its_result():
    settings = recorded_settings(get_preset("padim"))
    assert settings == {"method": "PaDiM", "n_channels": 100, "epsilon": 0.01, "scale": 2, "smoothing": 4 / 224}
    assert recorded_settings(get_preset("patchcore-10")) != recorded_settings(get_preset("patchcore-10-position"))


def test_younger_settings_are_recorded_only_where_they_change_something():
    paper, best = (recorded_settings(get_preset(name)) for name in ("paper", "best"))
    assert ADDED.keys().isdisjoint(paper) and ADDED.keys() <= best.keys()
    assert ADDED == {name: getattr(get_preset("paper"), name) for name in ADDED}
    assert ADDED == {name: Pradot().get_params()[name] for name in ADDED}  # what a run without them is fitted with


def test_image_scores_of_best_are_those_of_its_second_map(data, encoder, tmp_path):
    preset = small("best")
    record, path, _ = run("mvtec_ad", data, "part", preset, encoder, out=tmp_path)
    scores = [image["score"] for image in record["images"]]
    category = load_category("mvtec_ad", data, "part")
    detector = preset.detector(encoder).fit(category.train)
    assert scores == pytest.approx(detector.anomaly_scores([sample.path for sample in category.test]))
    maps = upsample_and_average(read_branch_maps(path), [(48, 48)] * 6)
    assert scores != pytest.approx([image_score(anomaly_map, preset.top_part) for anomaly_map in maps])


def test_image_scores_of_patchcore_are_its_own(data, encoder, tmp_path):
    record, path, _ = run("mvtec_ad", data, "part", small("patchcore-10"), encoder, out=tmp_path)
    maps = upsample_and_average(read_branch_maps(path), [(48, 48)] * 6)
    scores = [image["score"] for image in record["images"]]
    assert scores != pytest.approx([anomaly_map.max() for anomaly_map in maps])
    labels = np.array([image["defect"] != "good" for image in record["images"]])
    assert record["metrics"]["image_auroc"] == pytest.approx(auroc(labels, np.array(scores)))
