"""Training images drawn from a category: which ones, and that a run learns from these and is found again by them."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file
from small_data import write_category, write_loco_category
from small_runs import EXPERIMENTS

from pradot import PradotError
from pradot.paper.datasets import load_category
from pradot.paper.identity import identify
from pradot.paper.recorded import preset_of
from pradot.paper.records import read_record
from pradot.paper.repeat import repeat
from pradot.paper.runs import read_branch_maps, run
from pradot.paper.tables import benchmarks
from pradot.paper.training import ALL_NORMAL, TrainingSet, draw_training


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_category(tmp_path_factory.mktemp("data"), n_train=20, n_good=3, n_bad=5).parent


@pytest.fixture(scope="module")
def whole(root):
    return load_category("mvtec_ad", root, "part")


def experiment(training, name="fast"):
    return replace(EXPERIMENTS[name], training=training)


def test_all_normal_images_are_the_category_itself(whole):
    assert draw_training(whole, ALL_NORMAL, 3) is whole


def test_few_images_are_drawn_by_the_seed(whole):
    drawn = {(n, seed): draw_training(whole, TrainingSet(n), seed) for n in (1, 4, 16) for seed in range(5)}
    for (n, seed), data in drawn.items():
        assert len(data.train) == n and set(data.train) <= set(whole.train) and list(data.train) == sorted(data.train)
        assert data.test == whole.test
        assert data.notes == (*whole.notes, f"Trained on {n} of 20 normal images, drawn by the seed.")
        assert data == draw_training(whole, TrainingSet(n), seed)
        if n < 16:  # one more image is one more, not others
            assert set(data.train) < set(drawn[4 * n, seed].train)
    assert len({drawn[4, seed].train for seed in range(5)}) == 5
    assert draw_training(whole, TrainingSet(20), 0).train == whole.train


def test_every_image_is_drawn_as_often(whole):
    counts = dict.fromkeys(whole.train, 0)
    for seed in range(200):
        for path in draw_training(whole, TrainingSet(5), seed).train:
            counts[path] += 1
    # 50 expected; the standard deviation of a binomial with 200 draws of 1/4 is 6.
    assert all(abs(count - 50) < 4 * 6.2 for count in counts.values())


def test_few_images_are_all_that_is_normal_to_a_run(tmp_path):
    data = load_category("mvtec_loco", write_loco_category(tmp_path).parent, "juice_bottle")
    assert len(data.validation) == 2
    assert draw_training(data, TrainingSet(3), 0).validation == ()  # or a few-image run would learn from more
    assert draw_training(data, TrainingSet(contamination=0.2, held_out=0.2), 0).validation == data.validation


@pytest.mark.parametrize("seed", range(4))
def test_defective_images_are_moved_and_the_test_is_the_same_without_them(whole, seed):
    clean, some, dirty = (draw_training(whole, TrainingSet(None, share, 1 / 6), seed) for share in (0.0, 1 / 11, 1 / 6))
    gone = {sample.path for sample in whole.test} - {sample.path for sample in clean.test}
    assert clean.test == some.test == dirty.test and len(gone) == 4
    assert [sample for sample in whole.test if sample.path not in gone] == list(clean.test)  # in the same order
    assert all(path.parent.name == "spot" for path in gone)
    assert clean.train == whole.train
    assert set(dirty.train) - set(whole.train) == gone and dirty.train[:20] == whole.train
    assert set(some.train) - set(whole.train) < gone and len(some.train) == 22  # 2 of 22 are 1/11
    assert clean.labels.sum() == 1 and (clean.labels == 0).sum() == 3
    note = "4 of 5 defective test images, drawn by the seed, are left out of the test; 2 of them are training images."
    assert some.notes == (*whole.notes, note)


def test_other_seeds_move_other_images(whole):
    training = TrainingSet(contamination=0.1, held_out=0.1)
    assert len({draw_training(whole, training, seed).train for seed in range(10)}) > 3


def test_few_images_with_defects_among_them(whole):
    data = draw_training(whole, TrainingSet(10, 1 / 6, 0.25), 0)
    assert len(data.train) == 12 and data.labels.sum() == 2
    assert draw_training(whole, TrainingSet(10), 0).train == data.train[:10]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (TrainingSet(21), "21 training images are to be drawn, but there are 20 in .*part: draw fewer"),
        (TrainingSet(held_out=0.02), "share of 2 % defects beside 20 normal .* is no whole image: .*part would need 25 normal"),
        (TrainingSet(None, 0.02, 0.1), "share of 2 % defects beside 20 normal"),
        (TrainingSet(2, 0.2, 0.2), "share of 20 % defects beside 2 normal .* would need 3 normal"),
        (TrainingSet(held_out=0.2), "5 defective test images are to be left out of the test, but .*part has 5: 6 are needed"),
        (TrainingSet(held_out=0.5), "20 defective test images .* has 5: 21 are needed"),
    ],
)
def test_too_few_images_are_an_error(whole, training, said):
    with pytest.raises(PradotError, match=said):
        draw_training(whole, training, 0)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5])
def test_as_many_normal_images_as_an_error_asks_for_are_enough(whole, share):
    train = tuple(whole.root / f"{i}.png" for i in range(200))
    needed = next(n for n in range(1, 201) if round(share / (1 - share) * n))
    assert len(draw_training(replace(whole, train=train[:needed]), TrainingSet(None, share, share), 0).train) == needed + 1
    if needed > 1:
        with pytest.raises(PradotError, match=f"would need {needed} normal ones"):
            draw_training(replace(whole, train=train[: needed - 1]), TrainingSet(None, share, share), 0)


def test_without_defective_images_nothing_can_be_left_out(tmp_path):
    write_category(tmp_path, n_train=20, n_bad=0)
    data = load_category("folder", tmp_path / "part", "part")
    with pytest.raises(
        PradotError, match=r"1 defective test images are to be left out of the test, but .* has 0: 2 are needed"
    ):
        draw_training(data, TrainingSet(None, 0.05, 0.05), 0)
    assert len(draw_training(data, TrainingSet(3), 0).train) == 3


def test_a_list_of_images_is_drawn_from(whole, tmp_path):
    (tmp_path / "mine.txt").write_text("\n".join(map(str, whole.train)))
    data = load_category("folder", tmp_path / "mine.txt", "mine")
    assert len(draw_training(data, TrainingSet(3), 0).train) == 3


def test_pixel_metrics_do_not_appear_where_the_images_without_masks_are_left_out(tmp_path):
    write_category(tmp_path, n_train=20, n_bad=3)
    (tmp_path / "part" / "ground_truth" / "spot" / "001_mask.png").unlink()
    data = load_category("folder", tmp_path / "part", "part")
    drawn = [draw_training(data, TrainingSet(held_out=0.05), seed) for seed in range(20)]
    assert any("001.png" not in {s.path.name for s in one.test if s.is_anomalous} for one in drawn)
    assert not any(one.has_masks for one in drawn)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "4"])
def test_a_number_of_images_is_a_whole_one(n):
    with pytest.raises(PradotError, match="number of training images must be 1 or more, not"):
        TrainingSet(n)


@pytest.mark.parametrize("parts", [(-0.1, 0.1), (0.2, 0.1), (0.1, 0.6), (float("nan"), 0.1), (0.1, float("nan")), (0, "1")])
def test_parts_are_in_their_range(parts):
    with pytest.raises(PradotError, match="contamination must be from 0 to the share held out"):
        TrainingSet(None, *parts)


def test_equal_sets_are_recorded_alike_whatever_they_are_made_from(root, tiny_encoder, tmp_path):
    sets = [TrainingSet(4, 0, 0.25), TrainingSet(np.int64(4), np.float32(0), np.float64(0.25))]
    paths = {identify("mvtec_ad", root, "part", experiment(one), tiny_encoder, out=tmp_path)[2] for one in sets}
    assert len(paths) == 1 and sets[0] == sets[1]


@pytest.mark.parametrize(
    ("training", "label"),
    [
        (ALL_NORMAL, ""),
        (TrainingSet(1), "1 image"),
        (TrainingSet(16), "16 images"),
        (TrainingSet(None, 0.05, 0.1), "5 % defects"),
        (TrainingSet(4, 0.0, 0.1), "4 images, 0 % defects"),
    ],
)
def test_labels_tell_the_training_set(training, label):
    assert training.label == label
    expected = ", ".join(filter(None, ["padim", label]))
    assert replace(EXPERIMENTS["padim"], training=training).label == expected


@pytest.mark.parametrize("name", ["fast", "best", "patchcore-10", "padim"])
def test_a_run_learns_from_what_is_drawn_and_is_repeated(name, root, tiny_encoder, tmp_path):
    training = TrainingSet(10, 1 / 6, 0.25)
    record, path, is_new = run("mvtec_ad", root, "part", experiment(training, name), tiny_encoder, seed=3, out=tmp_path)
    assert is_new and record["training"] == {"n_images": 10, "contamination": 1 / 6, "held_out": 0.25}
    assert record["counts"]["train"] + record["counts"]["validation"] == 12 and record["counts"]["test_anomalous"] == 2
    assert any("Trained on 10 of 20 normal images" in note for note in record["notes"])
    assert record["label"] == f"{name}, 10 images, 16.6667 % defects" + ", shortened" * (name in ("fast", "best"))
    assert not run("mvtec_ad", root, "part", experiment(training, name), tiny_encoder, seed=3, out=tmp_path)[2]
    assert preset_of(record, path).training == training
    assert repeat(path, encoder=tiny_encoder).verdict == "equal"
    assert benchmarks(tmp_path) == {}  # no table takes it for the method itself


@pytest.mark.parametrize("training", [TrainingSet(4, 0.2, 0.2), TrainingSet(None, 0.1, 0.1), TrainingSet(3), ALL_NORMAL])
@pytest.mark.parametrize("cached", [False, True])
def test_scores_are_those_of_a_model_fitted_on_the_drawn_images(cached, training, root, whole, tiny_encoder, tmp_path):
    preset, cache = experiment(training), tmp_path / "cache" if cached else None
    for seed in (1, 2):
        _, path, _ = run("mvtec_ad", root, "part", preset, tiny_encoder, seed=seed, out=tmp_path / "runs", cache=cache)
        drawn = draw_training(whole, training, seed)
        detector = preset.detector(tiny_encoder, seed).fit(list(drawn.train))
        expected = detector.branch_maps([sample.path for sample in drawn.test])
        for branch, maps in read_branch_maps(path).items():
            np.testing.assert_allclose(maps, expected[branch], rtol=1e-4, atol=1e-6)
    if cached:  # of all training and all test images, once: no draw leaves a copy of its own
        kept = [load_file(file) for file in cache.glob("*.safetensors") if not file.name.startswith("prototypes")]
        assert sorted(len(maps["2"]) for maps in kept) == [8, 20]


def test_runs_of_other_training_images_have_other_records(root, tiny_encoder, tmp_path):
    sets = [ALL_NORMAL, TrainingSet(20), TrainingSet(4), TrainingSet(held_out=0.1), TrainingSet(None, 0.1, 0.1)]
    found = [identify("mvtec_ad", root, "part", experiment(one), tiny_encoder, out=tmp_path) for one in sets]
    assert len({path for _, _, path in found}) == len(sets)
    assert "training" not in found[0][1] and all("training" in identity for _, identity, _ in found[1:])  # as first records


@pytest.mark.parametrize(
    "training", [{"n_images": 0}, {"n_image": 4}, [4], 4, None, {"contamination": 0.5}, {"held_out": "0.5"}, {"n_images": 2.5}]
)
def test_a_record_of_an_odd_training_set_is_not_repeated(training, root, tiny_encoder, tmp_path):
    _, path, _ = run("mvtec_ad", root, "part", experiment(TrainingSet(4)), tiny_encoder, out=tmp_path)
    record = read_record(path) | {"training": training}
    with pytest.raises(PradotError, match=r"do not fit this version \(training: "):
        preset_of(record, path)


def test_validation_images_of_the_data_set_stay_what_they_are_beside_drawn_ones(tiny_encoder, tmp_path):
    root = write_loco_category(tmp_path / "data", n_bad=3).parent
    for training, n_validation in ((TrainingSet(None, 0.2, 0.2), 2), (TrainingSet(3), 1)):
        where = {"out": tmp_path / "runs", "cache": tmp_path / "cache"}
        record, _, _ = run("mvtec_loco", root, "juice_bottle", experiment(training), tiny_encoder, **where)
        assert record["counts"]["validation"] == n_validation  # the data set's own, or one of the three drawn
        assert record["counts"]["train"] == (5 if training.n_images is None else 2)
