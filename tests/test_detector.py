"""The detector: scores of an image are its own, and maps have the asked-for size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from small_data import QUICK_FIT

from pradot import Branch, Pradot, PradotError
from pradot.branches import PAPER_BRANCHES
from pradot.maps import upsample_and_average


def spoiled(image):
    """The image with a black square right of the middle."""
    image = image.copy()
    image[24:40, 40:56] = 0
    return image


# Fit


def test_the_default_is_the_papers_four_branches(fitted):
    assert tuple(fitted.learners_) == PAPER_BRANCHES == ((2, 0.0), (2, 0.3), (3, 0.0), (3, 0.3))
    for branch, learner in fitted.learners_.items():
        assert learner.alpha == branch.alpha
        assert learner.grid_shape_ == {2: (8, 8), 3: (4, 4)}[branch.scale]
        assert learner.prototypes_.shape == {2: (64, 6), 3: (16, 10)}[branch.scale]
    assert fitted.n_images_ == {"train": 8, "validation": 2} and fitted.notes_ == []
    defaults = Pradot().get_params()
    assert {name: defaults[name] for name in ("n_prototypes", "reg", "n_iter", "ema", "n_epochs", "batch_size")} == {
        "n_prototypes": 16,
        "reg": 0.01,
        "n_iter": 100,
        "ema": 0.95,
        "n_epochs": 50,
        "batch_size": 64,
    }


@pytest.mark.parametrize(
    ("n_images", "fraction", "train", "validation"),
    [(10, 0.2, 8, 2), (60, 0.2, 48, 12), (4, 0.2, 3, 1), (2, 0.2, 1, 1), (1, 0.2, 1, 0), (10, 0, 10, 0), (3, 0.99, 1, 2)],
)
def test_part_of_the_images_is_held_out(tiny_encoder, n_images, fraction, train, validation):
    features = {3: torch.rand(n_images, 4, 4, 10, generator=torch.Generator().manual_seed(0))}
    settings = QUICK_FIT | {"n_epochs": 1, "n_iter": 2}
    detector = Pradot(tiny_encoder, branches=[(3, 0.3)], validation_fraction=fraction, **settings).fit_features(features)
    assert detector.n_images_ == {"train": train, "validation": validation}
    assert any("no validation images" in note for note in detector.notes_) == (validation == 0)
    assert any("fewer than a batch" in note for note in detector.notes_) == (train < 4)
    assert len(set(detector.notes_)) == len(detector.notes_)


def test_held_out_images_are_not_trained_on(tiny_encoder, monkeypatch):
    """Each image's features hold its number: what a learner gets as training and validation must part the whole."""
    features = {3: torch.arange(10.0).view(10, 1, 1, 1).expand(10, 4, 4, 10).contiguous() + 1}
    parts = []

    class Recorder:
        notes_ = ()

        def __init__(self, *args, **kwargs):
            pass

        def fit(self, kept, held_out):
            parts.append((kept[:, 0, 0, 0].tolist(), held_out[:, 0, 0, 0].tolist()))
            return self

    monkeypatch.setattr("pradot.detector.PrototypeLearner", Recorder)
    for seed in (0, 0, 1):
        Pradot(tiny_encoder, branches=[(3, 0.0), (3, 0.3)], random_state=seed).fit_features(features)
    assert all(sorted(kept + held_out) == list(range(1, 11)) and len(held_out) == 2 for kept, held_out in parts)
    assert parts[0] == parts[1] == parts[2]  # branches and runs of one seed share the split
    assert parts[0] != parts[4]


def test_validation_images_of_their_own_choose_the_epoch_and_all_others_train(tiny_encoder, draw):
    images, others = draw(4, seed=0), draw(3, seed=1)
    settings = {"branches": [(3, 0.3)], "n_prototypes": 1, "n_epochs": 2, "batch_size": 2, "n_iter": 5}
    detector = Pradot(tiny_encoder, **settings).fit(images, validation=others)
    assert detector.n_images_ == {"train": 4, "validation": 3} and detector.notes_ == []
    learner = detector.learners_[Branch(3, 0.3)]
    assert learner.n_steps_ == 2 * 2
    other = Pradot(tiny_encoder, **settings).fit(images, validation=draw(3, seed=2)).learners_[Branch(3, 0.3)]
    assert other.history_["loss"] == learner.history_["loss"]
    assert other.history_["validation_loss"] != learner.history_["validation_loss"]


def test_one_training_image_works(tiny_encoder, draw):
    detector = Pradot(tiny_encoder, ema=0.5, **QUICK_FIT).fit(draw(1, 0))
    assert detector.learners_[Branch(3, 0.0)].n_steps_ == 8
    good, bad = detector.anomaly_scores([draw(1, 3)[0], spoiled(draw(1, 3)[0])])
    assert bad > good


def test_same_seed_same_maps(tiny_encoder, fitted, draw):
    again = clone(fitted).fit(draw(10, 0))
    assert np.array_equal(again.anomaly_maps(draw(2, 1), 32), fitted.anomaly_maps(draw(2, 1), 32))
    other = Pradot(tiny_encoder, **QUICK_FIT, random_state=1).fit(draw(10, 0))
    assert not np.allclose(other.anomaly_maps(draw(2, 1), 32), fitted.anomaly_maps(draw(2, 1), 32), rtol=1e-4)


def test_a_spoiled_image_scores_higher_and_at_the_spoiled_place(tiny_encoder, draw):
    detector = Pradot(tiny_encoder, ema=0.5, **QUICK_FIT).fit(draw(10, 0))
    images = draw(4, 5)
    good, bad = detector.anomaly_scores(images), detector.anomaly_scores([spoiled(image) for image in images])
    assert bad.min() > good.max()
    for one in detector.anomaly_maps([spoiled(image) for image in images]):
        inside = one[24:40, 40:56].mean()
        assert inside > 1.5 * one[:, :32].mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branches": []}, "one or more different"),
        ({"branches": [(2, 0.0), (2, 0)]}, "one or more different"),
        ({"branches": [(2, 0.0), (4, 0.3)]}, r"scale \[4\].*gives \[2, 3\]"),
        ({"branches": [(2, 1.5)]}, "alpha"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"validation_fraction": -0.1}, "validation_fraction"),
        ({"validation_fraction": float("nan")}, "validation_fraction"),
        ({"scoring": "batch"}, "image, training"),
        ({"assignment": "softest"}, "nearest, transport"),
        ({"n_prototypes": 0.3}, "n_prototypes"),
        ({"solver": "emd"}, "kernel, pot"),
    ],
)
def test_settings_out_of_range_are_errors(tiny_encoder, draw, settings, message):
    with pytest.raises(PradotError, match=message):
        Pradot(tiny_encoder, **QUICK_FIT | settings).fit(draw(4, 0))


@pytest.mark.parametrize("call", ["fit", "branch_maps", "anomaly_maps", "anomaly_scores", "score_samples"])
@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_alone_is_no_list_of_images(fitted, call, kind):
    with pytest.raises(PradotError, match=r"not the one path my/folder.*find_images.*\[FILE\]"):
        getattr(fitted, call)(kind("my/folder"))


@pytest.mark.parametrize("call", ["anomaly_maps", "anomaly_scores", "score_samples", "branch_maps"])
def test_nothing_is_scored_before_fit(tiny_encoder, draw, call):
    with pytest.raises(NotFittedError):
        getattr(Pradot(tiny_encoder), call)(draw(1, 0))


# Scores


@pytest.mark.parametrize("scoring", ["training", "image"])
def test_scores_of_an_image_do_not_depend_on_the_other_images(fitted, draw, scoring):
    detector = clone(fitted).set_params(scoring=scoring)
    detector.learners_ = fitted.learners_
    images = [*draw(5, 1), np.zeros((64, 64, 3), np.uint8), spoiled(draw(1, 2)[0]), *draw(12, 3)]  # two passes of the encoder
    together = detector.anomaly_maps(images, 32)
    backwards = detector.anomaly_maps(images[::-1], 32)[::-1]
    np.testing.assert_allclose(backwards, together, atol=1e-6, rtol=0)
    for number in (0, 5, 6, 18):
        np.testing.assert_allclose(detector.anomaly_maps([images[number]], 32)[0], together[number], atol=1e-6, rtol=0)
    assert np.ptp(together.max((1, 2))) > 1e-3  # they do differ

    features = detector.encoder.features(images)  # with the same features: not the slightest difference
    maps = detector.branch_maps_of_features(features)
    alone = detector.branch_maps_of_features({scale: one[6:7] for scale, one in features.items()})
    assert all(torch.equal(alone[branch][0], maps[branch][6]) for branch in maps)


def test_the_two_scorings_differ_by_what_they_divide_by(fitted, draw):
    """With alpha 0 and one image, maps of the two scorings are proportional: training maximum to own maximum."""
    detector = clone(fitted).set_params(scoring="image")
    detector.learners_ = fitted.learners_
    images = draw(3, 4)
    features = fitted.encoder.features(images)
    for branch in (Branch(2, 0.0), Branch(3, 0.0)):
        learner = fitted.learners_[branch]
        own = torch.tensor([learner.cost(one[None])[1].feature for one in features[branch.scale]])
        by_training, by_image = fitted.branch_maps(images)[branch], detector.branch_maps(images)[branch]
        torch.testing.assert_close(by_image * own[:, None, None], by_training * learner.scale_.feature, atol=1e-6, rtol=1e-4)
        assert not torch.allclose(by_image, by_training)


@pytest.mark.parametrize("scoring", ["training", "image"])
def test_transport_at_scoring_makes_the_maps_of_what_patches_pay(fitted, draw, scoring):
    detector = clone(fitted).set_params(scoring=scoring, assignment="transport")
    detector.learners_ = fitted.learners_
    features = fitted.encoder.features(draw(2, 4))
    for branch, maps in detector.branch_maps_of_features(features).items():
        learner = fitted.learners_[branch]
        scale = learner.scale_ if scoring == "training" else None
        torch.testing.assert_close(maps, learner.transported(features[branch.scale], scale))
        assert (maps > learner.nearest(features[branch.scale], scale).cost - 1e-6).all()


def test_maps_are_the_branches_upsampled_with_aligned_corners_and_averaged(fitted, draw):
    images = draw(2, 1)
    maps = fitted.anomaly_maps(images, 48)
    assert isinstance(maps, np.ndarray) and maps.shape == (2, 48, 48) and maps.dtype == np.float32
    branches = fitted.branch_maps(images)
    expected = sum(
        torch.nn.functional.interpolate(branch[:, None], size=(48, 48), mode="bilinear", align_corners=True)[:, 0]
        for branch in branches.values()
    )
    np.testing.assert_allclose(maps, expected.numpy() / 4, atol=1e-6)
    corner = torch.stack([branch[:, -1, 0] for branch in branches.values()]).mean(0)
    np.testing.assert_allclose(maps[:, -1, 0], corner.numpy(), atol=1e-6)  # corners meet corners


def test_upsampling_of_a_known_map():
    maps = {Branch(2, 0.0): torch.tensor([[[0.0, 2.0], [4.0, 6.0]]]), Branch(3, 0.0): torch.tensor([[[2.0]]])}
    (average,) = upsample_and_average(maps, [(3, 5)])
    steps = np.array([[0, 0.5, 1, 1.5, 2], [2, 2.5, 3, 3.5, 4], [4, 4.5, 5, 5.5, 6]])
    np.testing.assert_allclose(average, (steps + 2) / 2)


def test_without_a_size_each_map_has_its_images_size(fitted, tmp_path, draw):
    shapes = [(64, 64), (40, 90), (100, 30)]
    images = [draw(1, number, shape)[0] for number, shape in enumerate(shapes)]
    turned = Image.fromarray(images[1])
    turned.getexif()[0x0112] = 6  # to be shown after a quarter turn
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    Image.fromarray(images[2]).save(tmp_path / "plain.png")
    given = [images[0], images[1], Image.fromarray(images[2]), tmp_path / "plain.png", str(tmp_path / "turned.jpg")]
    maps = fitted.anomaly_maps(given)
    assert isinstance(maps, list)
    assert [one.shape for one in maps] == [(64, 64), (40, 90), (100, 30), (100, 30), (90, 40)]
    assert all(one.dtype == np.float32 for one in maps)
    np.testing.assert_array_equal(maps[2], maps[3])
    assert fitted.anomaly_maps(given, 20).shape == (5, 20, 20)


def test_scores_are_the_maxima_and_scikit_learns_are_their_negatives(fitted, draw):
    images = [draw(1, 0, (50, 80))[0], *draw(2, 1)]
    for size in (None, 32):
        scores = fitted.anomaly_scores(images, size)
        assert scores.shape == (3,)
        assert scores.tolist() == [one.max() for one in fitted.anomaly_maps(images, size)]
        assert np.array_equal(fitted.score_samples(images, size), -scores)


def test_features_are_looked_up_again_when_there_is_a_cache(tiny_encoder, tmp_path, draw, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(paths, draw(5, 0), strict=True):
        Image.fromarray(image).save(path)
    detector = Pradot(tiny_encoder, branches=[(3, 0.3)], cache=tmp_path / "cache", **QUICK_FIT).fit(paths)
    monkeypatch.setattr(tiny_encoder.module, "forward", lambda x: pytest.fail("computed again"))
    assert len(detector.anomaly_maps(paths)) == 5 and len(detector.anomaly_maps(paths, 32)) == 5
    detector.fit(paths)
