"""Scores in units of how far normal patches lie from their prototype."""

import numpy as np
import pytest
import torch

from pradot import Pradot, PradotError, PrototypeLearner
from pradot.maps import image_score, smoothed, upsample_and_average
from pradot.paper.evaluation import score_images
from pradot.scoring import SPREAD_PRIOR

SETTINGS = {"branches": ((2, 0.0), (3, 0.3)), "n_prototypes": 1, "batch_size": 4, "max_steps": 3}


def maps(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {2: torch.rand(n, 4, 4, 5, generator=generator), 3: torch.rand(n, 2, 2, 7, generator=generator)}


def images(n, seed):
    return list(np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8))


def test_spread_by_hand():
    features = maps()[2]
    learner = PrototypeLearner(0.3, n_prototypes=2, batch_size=4, max_steps=3).fit(features)
    cost, index = learner.nearest(features, learner.scale_)
    spread = learner.spread(features)
    assert spread.shape == (32,)
    for j in range(32):
        own = cost[index == j]
        expected = (own.sum() + SPREAD_PRIOR * cost.mean()) / (len(own) + SPREAD_PRIOR) / cost.mean()
        assert spread[j].item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_costs_nothing_has_an_even_spread():
    features = torch.ones(3, 2, 2, 4)
    learner = PrototypeLearner(n_prototypes=1, batch_size=2, max_steps=0, start="images").fit(features)
    assert torch.isfinite(learner.spread(features)).all()


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_scores_are_divided_by_the_spread_to_the_power(power):
    features, test = maps(), maps(3, 1)
    plain, divided = (Pradot(spread_power=p, **SETTINGS).fit_features(features) for p in (0.0, power))
    assert plain.spreads_ == {} and len(divided.spreads_) == 2
    assert divided.model_bytes == plain.model_bytes + sum(s.nbytes for s in divided.spreads_.values())
    before, after = plain.branch_maps_of_features(test), divided.branch_maps_of_features(test)
    for branch, learner in divided.learners_.items():
        index = learner.nearest(test[branch.scale], learner.scale_).index
        torch.testing.assert_close(after[branch], before[branch] / divided.spreads_[branch][index] ** power)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_an_image_can_be_scored_by_a_map_of_its_own(tiny_encoder, power):
    train, test = images(6, 0), images(3, 1)
    plain, own = (Pradot(tiny_encoder, image_spread_power=p, top_part=0.1, **SETTINGS).fit(train) for p in (0.0, power))
    branch_maps, score_maps = own.branch_and_score_maps(test)
    for branch, cost in plain.branch_maps(test).items():
        assert torch.equal(branch_maps[branch], cost)  # the anomaly map is as it was
        learner, features = own.learners_[branch], tiny_encoder.features(test)
        spread = own.spreads_[branch][learner.nearest(features[branch.scale], learner.scale_).index]
        assert (spread < 1).any() and (spread > 1).any()
        torch.testing.assert_close(score_maps[branch], cost / spread.clamp(min=1) ** power)
    expected = [image_score(one, 0.1) for one in upsample_and_average(score_maps, [(20, 20)] * 3)]
    np.testing.assert_allclose(own.anomaly_scores(test, 20), expected, rtol=1e-6)
    np.testing.assert_array_equal(score_images(own, tiny_encoder.features(test), 20), own.anomaly_scores(test, 20))
    assert (own.anomaly_scores(test, 20) < plain.anomaly_scores(test, 20)).all()
    assert plain.spreads_ == {}


def test_without_it_there_is_one_map(tiny_encoder):
    detector = Pradot(tiny_encoder, spread_power=0.5, **SETTINGS).fit(images(6, 0))
    branch_maps, score_maps = detector.branch_and_score_maps(images(2, 1))
    assert branch_maps is score_maps


def test_it_is_measured_on_all_normal_images_however_they_are_held_out():
    features = maps(10)
    detector = Pradot(spread_power=1.0, **SETTINGS).fit_features(features)
    again = Pradot(spread_power=1.0, **SETTINGS).fit_features(*_halves(features, detector))
    for branch, spread in detector.spreads_.items():
        torch.testing.assert_close(again.spreads_[branch], spread)


def _halves(features, detector):
    train, held_out = detector._held_out(len(features[2]))
    return ({scale: part[chosen] for scale, part in features.items()} for chosen in (train, held_out))


@pytest.mark.parametrize("powers", [{"spread_power": 0.5}, {"image_spread_power": 0.5}])
def test_a_saved_model_scores_alike(tiny_encoder, tmp_path, powers):
    detector = Pradot(tiny_encoder, **powers, **SETTINGS).fit(images(6, 0))
    detector.save(tmp_path)
    again = Pradot.load(tmp_path, encoder=tiny_encoder)
    np.testing.assert_array_equal(again.anomaly_maps(images(2, 1), 32), detector.anomaly_maps(images(2, 1), 32))
    np.testing.assert_array_equal(again.anomaly_scores(images(2, 1), 32), detector.anomaly_scores(images(2, 1), 32))
    assert again.model_bytes == detector.model_bytes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"spread_power": 1.5}, "spread_power is 1.5"),
        ({"spread_power": 1, "assignment": "transport"}, "assignment 'nearest'"),
        ({"image_spread_power": 1, "assignment": "transport"}, "assignment 'nearest'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(PradotError, match=said):
        Pradot(**SETTINGS | settings).fit_features(maps())


def test_an_image_scores_what_the_top_of_its_map_scores_on_average():
    anomaly_map = np.random.default_rng(0).permutation(np.arange(200, dtype=np.float32)).reshape(10, 20)
    assert image_score(anomaly_map) == 199
    assert image_score(anomaly_map, 0.001) == 199  # one pixel at least
    assert image_score(anomaly_map, 0.02) == pytest.approx((199 + 198 + 197 + 196) / 4)
    assert image_score(anomaly_map, 1.0) == pytest.approx(99.5)


def test_a_detector_scores_by_its_part(tiny_encoder):
    detector = Pradot(tiny_encoder, top_part=0.1, **SETTINGS).fit(images(6, 0))
    maps = detector.anomaly_maps(images(2, 1), 20)
    expected = [np.sort(m.flatten())[-40:].mean() for m in maps]
    np.testing.assert_allclose(detector.anomaly_scores(images(2, 1), 20), expected, rtol=1e-6)
    with pytest.raises(PradotError, match="top_part is 2"):
        Pradot(top_part=2, **SETTINGS).fit_features({})


def test_prototypes_kept_in_half_the_bytes(tiny_encoder, tmp_path):
    whole, half = (Pradot(tiny_encoder, storage=s, **SETTINGS).fit(images(6, 0)) for s in ("float32", "float16"))
    n = sum(learner.prototypes_.numel() for learner in whole.learners_.values())
    assert whole.model_bytes - half.model_bytes == 2 * n
    for branch, learner in half.learners_.items():
        assert torch.equal(learner.prototypes_, whole.learners_[branch].prototypes_.half().float())
    maps = half.anomaly_maps(images(2, 1), 32)
    np.testing.assert_allclose(maps, whole.anomaly_maps(images(2, 1), 32), atol=2e-3)
    for storage, detector in (("float32", whole), ("float16", half)):
        detector.save(tmp_path / storage)
    size = lambda storage: (tmp_path / storage / "model.safetensors").stat().st_size  # noqa: E731
    assert size("float32") - size("float16") == pytest.approx(2 * n, abs=64)
    np.testing.assert_array_equal(Pradot.load(tmp_path / "float16", encoder=tiny_encoder).anomaly_maps(images(2, 1), 32), maps)
    with pytest.raises(PradotError, match="unknown storage 'int8': choose one of float32, float16"):
        Pradot(storage="int8").fit_features({})


def test_smoothing_keeps_constants_and_means_and_spreads_a_peak():
    peak = torch.zeros(1, 21, 11)
    peak[0, 10, 5] = 1.0
    assert smoothed(peak, 0.0) is peak
    soft = smoothed(peak, 0.1)  # 2.1 rows, 1.1 columns
    assert soft.sum().item() == pytest.approx(1.0, abs=1e-5)
    rows, columns = soft[0].sum(1), soft[0].sum(0)
    assert (rows * (torch.arange(21) - 10) ** 2).sum().sqrt().item() == pytest.approx(2.1, rel=0.05)
    assert (columns * (torch.arange(11) - 5) ** 2).sum().sqrt().item() == pytest.approx(1.1, rel=0.05)
    for shape in ((1, 1), (1, 7), (3, 2), (28, 28)):
        torch.testing.assert_close(smoothed(torch.ones(2, *shape), 0.3), torch.ones(2, *shape))


@pytest.mark.parametrize("name", ["spread_power", "image_spread_power"])
def test_a_power_that_came_after_the_fit_is_an_error(tmp_path, tiny_encoder, name):
    detector = Pradot(tiny_encoder, **SETTINGS).fit(images(6, 0))
    detector.set_params(**{name: 0.5})
    for use in (lambda: detector.anomaly_maps(images(1, 1)), lambda: detector.save(tmp_path)):
        with pytest.raises(PradotError, match=rf"^{name} is 0.5, but was 0 in the fit.*fit again"):
            use()
    assert not list(tmp_path.iterdir())
