"""Learning that goes on: parts make the steps of the whole, no image is kept, and saving in between changes nothing."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.base import clone
from small_problems import feature_maps, quick

from pradot import CostScale, Pradot, PradotError, PrototypeLearner
from pradot.scoring import SPREAD_PRIOR
from pradot.starts import start_prototypes

STREAMED = {"solver": "streamed", "tol": 0.05, "start": "spread", "n_prototypes": 2}
LIKE_BEST = {
    "branches": ((2, 0.3), (3, 0.0)),
    "spread_power": 0.5,
    "storage": "float16",
    "batch_size": 4,
    "ema": 0.8,
} | STREAMED


def images(n, seed):
    return list(np.random.default_rng(seed).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8))


def maps(n=8, seed=0):
    return {2: feature_maps(n, 5, 5, 6, seed), 3: feature_maps(n, 3, 3, 4, seed)}


def state(learner):
    return {
        name: getattr(learner, name, None) for name in ("prototypes_", "positions_", "scale_", "_dual", "_largest", "_n_passes")
    }


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def learned(detector):
    """All that a detector has learned, by name."""
    found = {"n_images": detector.n_images_}
    for branch, learner in detector.learners_.items():
        found |= {f"{branch} {name}": value for name, value in state(learner).items()}
        for kept in ("spreads_", "spread_counts_"):
            found[f"{branch} {kept}"] = getattr(detector, kept).get(branch)
    return found


# Steps


@pytest.mark.parametrize("settings", [{"n_prototypes": 2}, {"positions": "learned"}, STREAMED, STREAMED | {"start": "uniform"}])
def test_one_pass_makes_the_steps_of_a_fit_of_one_epoch(settings):
    features = feature_maps(9)
    fitted = quick(0.3, **settings | {"n_epochs": 1}).fit(features)
    generator = torch.Generator().manual_seed(0)
    start_prototypes(fitted.start, features, fitted.n_prototypes, generator)
    order = torch.randperm(9, generator=generator)  # as `fit` draws it
    partly = quick(0.3, **settings).partial_fit(features[order])
    for name in ("prototypes_", "positions_", "_dual", "n_steps_", "best_step_"):
        one, other = getattr(fitted, name), getattr(partly, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, name
    for name in ("loss", "marginal_error", "n_iter", "movement"):
        assert fitted.history_[name] == partly.history_[name] and len(partly.history_[name]) == 3
    assert partly.history_["validation_loss"] == []


@pytest.mark.parametrize("settings", [{"positions": "learned"}, STREAMED | {"start": "uniform"}])
def test_parts_of_whole_batches_are_the_whole(settings):
    features = feature_maps(12)
    whole, parts = quick(0.3, **settings).partial_fit(features), quick(0.3, **settings)
    for part in features.split([3, 6, 3]):
        assert parts.partial_fit(part) is parts
    assert equal(state(whole), state(parts)) and whole.history_ == parts.history_ and whole.n_steps_ == parts.n_steps_ == 4


def test_what_is_left_of_the_prototypes_depends_on_the_number_of_images_alone():
    """One cell, images that are all the same: the barycentres are known."""
    first, other = torch.tensor([1.0, 0.0, 2.0]).view(1, 1, 1, 3), torch.tensor([0.0, 3.0, 1.0]).view(1, 1, 1, 3)
    settings = {"n_prototypes": 1, "batch_size": 4, "ema": 0.6, "start": "images"}
    for parts in ([10], [1] * 10, [3, 7], [8, 2]):
        learner = PrototypeLearner(**settings).partial_fit(first)
        for n in parts:
            learner.partial_fit(other.expand(n, -1, -1, -1))
        torch.testing.assert_close(learner.prototypes_, (0.6**2.5 * first + (1 - 0.6**2.5) * other).view(1, 3))


def test_half_a_batch_moves_features_and_positions_by_half_a_step():
    features, settings = feature_maps(3), {"positions": "learned", "n_prototypes": 2}
    half = quick(0.3, ema=0.64, batch_size=6, **settings).partial_fit(features)
    whole = quick(0.3, ema=0.8, batch_size=3, **settings).partial_fit(features)
    torch.testing.assert_close(half.prototypes_, whole.prototypes_)
    torch.testing.assert_close(half.positions_, whole.positions_)


def test_the_scale_is_the_largest_cost_of_any_step(monkeypatch):
    seen, step = [], PrototypeLearner._step

    def seeing(self, features, share):
        seen.append(self.cost(features)[1])
        return step(self, features, share)

    monkeypatch.setattr(PrototypeLearner, "_step", seeing)
    strange = feature_maps(3)
    strange[0, 0, 0] = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0])
    learner = quick(0.3, positions="learned", ema=0.2)
    for part in (feature_maps(6), strange, feature_maps(6, seed=1)):
        learner.partial_fit(part)
    assert learner.scale_ == CostScale(*(max(costs) for costs in zip(*seen, strict=True)))
    assert learner.scale_.feature == seen[2].feature > seen[-1].feature


def test_a_fit_starts_anew_and_goes_on_from_what_it_kept():
    features, more = feature_maps(6), feature_maps(6, seed=1)
    fitted = quick(0.3, **STREAMED).fit(features)
    again = quick(0.3, **STREAMED).partial_fit(more).fit(features)
    assert equal(state(fitted), state(again)) and fitted.history_ == again.history_ and fitted.notes_ == again.notes_
    kept, scale = fitted.prototypes_, fitted.scale_
    fitted.partial_fit(more[:3])
    by_hand = quick(0.3, **STREAMED)  # without the dual of the fit's last step, which may not be that of its best
    by_hand.prototypes_, by_hand.positions_, by_hand.scale_, by_hand.grid_shape_ = kept, fitted.positions_, scale, (4, 4)
    assert equal(state(fitted), state(by_hand.partial_fit(more[:3])))
    assert equal(state(fitted), state(again.partial_fit(more[:3])))
    assert fitted.n_steps_ == 7 and by_hand.n_steps_ == 1 and len(fitted.history_["loss"]) == 7
    assert not hasattr(clone(fitted), "prototypes_")


@pytest.mark.parametrize("start", ["images", "spread", "kmeans", "kmeans_global"])
def test_one_image_is_enough_to_start(start):
    learner = quick(0.3, start=start, n_prototypes=3).partial_fit(feature_maps(1))
    assert learner.prototypes_.shape == (48, 5) and learner.prototypes_.isfinite().all() and learner.notes_ == []


def test_what_is_left_of_a_random_start_is_said():
    learner = quick(ema=0.9, batch_size=3).partial_fit(feature_maps(6)).partial_fit(feature_maps(6))
    assert learner.notes_ == ["prototypes start as random numbers, of which 81% is left after the first 6 images"]


def test_learning_goes_on_lowers_the_loss_and_follows_what_changes():
    learner = quick(0.3, **STREAMED | {"ema": 0.8})
    for seed in range(8):
        learner.partial_fit(feature_maps(6, seed=seed))
    later = feature_maps(6, seed=20) + torch.tensor([0.0, 0.4, 0.0, 0.0, 0.0])  # another light
    before = learner.nearest(later, learner.scale_).cost.mean()
    for seed in range(21, 27):
        learner.partial_fit(feature_maps(6, seed=seed) + torch.tensor([0.0, 0.4, 0.0, 0.0, 0.0]))
    assert learner.nearest(later, learner.scale_).cost.mean() < 0.3 * before


def held(estimator):
    """Bytes of all tensors that it holds, with what they are parts of."""
    found, seen, todo = {}, set(), [estimator]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            found[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        else:
            inside = list(thing.values()) if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else []
            todo += [*inside, *getattr(thing, "__dict__", {}).values()]
    return sum(found.values())


def test_nothing_of_the_images_is_kept():
    found = set()
    for parts in ([4, 4, 60, 1], [60, 1]):
        learner, detector = quick(0.3, **STREAMED), started_detector()
        for n in parts:
            learner.partial_fit(feature_maps(n))
            detector.partial_fit_features(maps(n))
            for one in detector.learners_.values():
                one._search = None  # made again when it is needed: it has room for one block of images
            found.add((held(learner), held(detector)))
    assert len(found) == 1


# What is refused


BAD = {
    "another shape": (lambda: feature_maps(3, 4, 5), r"\(4, 5, 5\) do not fit prototypes learned on \(4, 4, 5\)"),
    "no image": (lambda: feature_maps(0), "of at least one image"),
    "numbers of float64": (lambda: feature_maps(3).double(), "must be a tensor of torch.float32"),
    "NaN": (lambda: feature_maps(3) * float("nan"), "hold NaN or infinity"),
    "a late infinity": (lambda: torch.cat([feature_maps(8), feature_maps(1) * float("inf")]), "hold NaN or infinity"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("started", [False, True])
def test_bad_features_change_nothing(bad, started):
    if bad == "another shape" and not started:
        return
    make, said = BAD[bad]
    learner = quick(0.3, **STREAMED)
    if started:
        learner.partial_fit(feature_maps(4))
    before = dict(vars(learner))
    with pytest.raises(PradotError, match=said) as raised:
        learner.partial_fit(make())
    assert "\n" not in str(raised.value)
    assert vars(learner).keys() == before.keys() and all(value is before[name] for name, value in vars(learner).items())


def test_settings_out_of_range_change_nothing():
    learner, detector = quick().partial_fit(feature_maps(3)), started_detector().partial_fit_features(maps())
    before = learned(detector), state(learner)
    with pytest.raises(PradotError, match="ema is 1"):
        learner.set_params(ema=1).partial_fit(feature_maps(3))
    for learn, given in ((detector.partial_fit, []), (detector.partial_fit_features, maps())):
        with pytest.raises(PradotError, match="spread_power is 2"):
            detector.set_params(spread_power=2)
            learn(given)
    assert equal(learned(detector), before[0]) and equal(state(learner), before[1])


def test_a_call_that_is_stopped_changes_nothing(monkeypatch):
    detector = started_detector().partial_fit_features(maps())
    before, histories = learned(detector), [learner.history_["loss"].copy() for learner in detector.learners_.values()]
    step, steps = PrototypeLearner._step, []

    def stopped(self, *batch):
        steps.append(self)
        if len(steps) == 4:  # the last one of the last branch
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(PrototypeLearner, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        detector.partial_fit_features(maps(seed=1))
    assert equal(learned(detector), before)
    assert [learner.history_["loss"] for learner in detector.learners_.values()] == histories
    learner = next(iter(detector.learners_.values()))
    steps[:] = [None] * 2
    with pytest.raises(KeyboardInterrupt):
        learner.partial_fit(maps()[2])
    assert equal(learned(detector), before) and learner.history_["loss"] == histories[0]


# The detector


class NoEncoder:
    device = "cpu"
    features = None


def started_detector(**settings):
    return Pradot(NoEncoder(), **LIKE_BEST | settings)


def test_every_branch_learns_as_a_learner_of_its_own():
    detector = started_detector(storage="float32").partial_fit_features(maps()).partial_fit_features(maps(6, 1))
    for branch, learner in detector.learners_.items():
        alone = PrototypeLearner(branch.alpha, batch_size=4, ema=0.8, **STREAMED)
        alone.partial_fit(maps()[branch.scale]).partial_fit(maps(6, 1)[branch.scale])
        assert equal(state(learner), state(alone)) and learner.n_steps_ == 4
    assert detector.n_images_ == {"train": 14, "validation": 0} and detector.seconds_.keys() == detector.learners_.keys()


def test_spreads_of_one_call_are_those_of_the_learner_and_older_ones_count_less():
    detector = started_detector().partial_fit_features(maps())
    branch, learner = next(iter(detector.learners_.items()))
    assert torch.equal(detector.spreads_[branch], learner.spread(maps()[2]))
    total = [np.zeros(50), np.zeros(50)]
    for seed, n in enumerate([8, 6, 3]):
        if seed > 0:
            detector.partial_fit_features(maps(n, seed))
        learner = detector.learners_[branch]
        cost, index = (part.flatten().double().numpy() for part in learner.nearest(maps(n, seed)[2], learner.scale_))
        for j in range(50):
            own = cost[index == j]
            for kind, value in enumerate((own.sum() / cost.mean(), len(own))):
                total[kind][j] = 0.8 ** (n / 4) * total[kind][j] + value
    spread = (total[0] + SPREAD_PRIOR) / (total[1] + SPREAD_PRIOR)
    np.testing.assert_allclose(detector.spreads_[branch].numpy(), spread, rtol=1e-4)
    np.testing.assert_allclose(detector.spread_counts_[branch].numpy(), total[1], rtol=1e-5)


def test_spreads_of_a_fit_count_as_those_of_equal_numbers_of_patches():
    detector = started_detector(max_steps=2).fit_features(maps(10))
    assert detector.spread_counts_ == {}
    branch, old = next(iter(detector.spreads_.items()))
    detector.partial_fit_features(maps(4, 1))
    learner = detector.learners_[branch]
    cost, index = learner.nearest(maps(4, 1)[2], learner.scale_)
    own, n = (
        torch.zeros(50).index_add_(0, index.flatten(), cost.flatten() / cost.mean()),
        index.flatten().bincount(minlength=50),
    )
    before = 10 * 25 / 50  # patches of each of its 50 prototypes
    spread = (0.8 * (old * (before + 5) - 5) + own + 5) / (0.8 * before + n + 5)
    torch.testing.assert_close(detector.spreads_[branch], spread)
    assert (spread > 0).all() and detector.n_images_ == {"train": 12, "validation": 2}
    refitted = started_detector(max_steps=2).fit_features(maps(10))
    assert equal(learned(detector.fit_features(maps(10))), learned(refitted)) and detector.spread_counts_ == {}


def test_other_branches_are_refused_and_other_settings_count_from_then_on():
    detector = started_detector(spread_power=0.0).partial_fit_features(maps())
    before = learned(detector)
    detector.set_params(branches=((2, 0.6), (3, 0.0)))
    with pytest.raises(PradotError, match=r"branches are \[\(2, 0.6\), \(3, 0.0\)\], but those learned so far .*fit again"):
        detector.partial_fit([])
    assert equal(learned(detector), before)
    detector.set_params(branches=((3, 0.0), (2, 0.3)), batch_size=2, spread_power=0.5)
    detector.partial_fit_features(maps(4))
    assert [learner.n_steps_ for learner in detector.learners_.values()] == [4, 4]
    branch, learner = next(iter(detector.learners_.items()))
    assert branch.scale == 3 and torch.equal(detector.spreads_[branch], learner.spread(maps(4)[3]))


def test_images_that_cannot_be_read_change_nothing(tiny_encoder, tmp_path):
    detector = Pradot(tiny_encoder, **LIKE_BEST).partial_fit(images(5, 0))
    before = learned(detector)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(PradotError, match=r"cut\.png"):
        detector.partial_fit([*images(2, 1), tmp_path / "cut.png"])
    with pytest.raises(PradotError, match="no images"):
        detector.partial_fit([])
    assert equal(learned(detector), before)


# Saved models


@pytest.mark.parametrize("settings", [{}, {"solver": "kernel", "storage": "float32", "positions": "learned", "n_iter": 20}])
def test_saving_and_loading_in_between_changes_nothing(tiny_encoder, tmp_path, settings):
    through, saved = (Pradot(tiny_encoder, **LIKE_BEST | {"n_prototypes": 1} | settings) for _ in range(2))
    for number, n in enumerate((5, 4, 6)):
        through.partial_fit(images(n, number))
        saved.partial_fit(images(n, number)).save(tmp_path / str(number))
        saved = Pradot.load(tmp_path / str(number), encoder=tiny_encoder)
    one, other = learned(through), learned(saved)
    if settings:  # this solver always starts from nothing
        one, other = ({name: value for name, value in found.items() if " _" not in name} for found in (one, other))
    assert equal(one, other)
    assert np.array_equal(through.anomaly_maps(images(2, 9), 32), saved.anomaly_maps(images(2, 9), 32))
    saved.save(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "2" / "config.json").read_bytes()


def test_a_model_that_was_only_fitted_has_no_more_in_it_and_goes_on(tiny_encoder, tmp_path):
    fitted = Pradot(tiny_encoder, **LIKE_BEST | {"max_steps": 2}).fit(images(6, 0))
    fitted.save(tmp_path / "fitted")
    kinds = {name.split(".")[0] for name in load_file(tmp_path / "fitted" / "model.safetensors")}
    assert kinds == {"signature", "prototypes", "positions", "spread"}
    assert "transport" not in (tmp_path / "fitted" / "config.json").read_text()
    loaded = Pradot.load(tmp_path / "fitted", encoder=tiny_encoder).partial_fit(images(4, 1))
    assert equal(learned(loaded), learned(fitted.partial_fit(images(4, 1))))
    loaded.save(tmp_path / "went on")
    tensors = load_file(tmp_path / "went on" / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == kinds | {"dual", "spread_count"}
    m = sum(len(learner.prototypes_) for learner in loaded.learners_.values())
    more = sum(tensor.nbytes for name, tensor in tensors.items() if name.split(".")[0] not in kinds)
    assert more == 2 * 4 * m
