"""Laws of fits and scores on whatever numbers: ties, constants, zeros, extremes, shapes down to 1."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW, layouts, numbers

from pradot import PrototypeLearner


@st.composite
def feature_maps(draw):
    """(n_images, height, width, channels), n_images up to 4, all else from 1; some of extreme size."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)))
    return draw(numbers(*shape)) * draw(st.sampled_from([1.0, 1e-38, 1e-30, 1e30]))


def learner_of(draw, features, **settings):
    drawn = {
        "alpha": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "n_prototypes": draw(st.sampled_from([1, 2, 0.25])),
        "batch_size": len(features),
        "max_steps": draw(st.integers(0, 2)),
        "n_iter": 20,
        "start": draw(st.sampled_from(["uniform", "images", "spread"])),
        "solver": draw(st.sampled_from(["kernel", "streamed"])),
        "positions": draw(st.sampled_from(["fixed", "learned"])),
        "ema": 0.5,
        "reg": draw(st.sampled_from([0.001, 0.01, 0.1, 1.0])),
    }
    return PrototypeLearner(**drawn | settings).fit(features)


@FEW
@given(feature_maps(), st.data())
def test_a_fit_on_any_numbers_has_numbers_in_it_and_scores(features, data):
    learner = learner_of(data.draw, features)
    assert learner.prototypes_.isfinite().all() and learner.positions_.isfinite().all()
    assert learner.positions_.min() >= 0 and learner.positions_.max() <= 1 + 1e-6
    assert all(np.isfinite(values).all() for values in learner.history_.values())
    assert all(-1e-6 <= moved <= 2 + 1e-6 for moved in learner.history_["movement"])
    assert all(math.isfinite(largest) and largest >= 0 for largest in learner.scale_)
    for scale in (learner.scale_, None):
        nearest, paid = learner.nearest(features, scale), learner.transported(features, scale)
        assert nearest.cost.isfinite().all() and nearest.cost.min() >= 0 and paid.isfinite().all()
        assert (paid >= nearest.cost - 1e-5 * (1 + nearest.cost)).all()  # the nearest is the cheapest
        assert nearest.index.min() >= 0 and nearest.index.max() < len(learner.prototypes_)
    spread = learner.spread(features)
    assert spread.isfinite().all() and (spread > 0).all()


@FEW
@given(feature_maps(), st.data(), st.randoms(use_true_random=False))
def test_scores_depend_neither_on_order_nor_on_the_other_images(features, data, random):
    learner = learner_of(data.draw, features)
    order = random.sample(range(len(features)), len(features))
    whole = learner.nearest(features, learner.scale_).cost
    torch.testing.assert_close(learner.nearest(features[order], learner.scale_).cost, whole[order], rtol=1e-5, atol=1e-6)
    each = torch.cat([learner.nearest(one[None], learner.scale_).cost for one in features])
    torch.testing.assert_close(each, whole, rtol=1e-5, atol=1e-6)
    kept = data.draw(layouts(features))
    assert torch.equal(learner.nearest(kept, learner.scale_).cost, whole)


@FEW
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.sampled_from(["kernel", "streamed"]), st.data())
def test_the_order_of_training_images_counts_by_rounding_alone(seed, alpha, solver, data):
    features = torch.rand(4, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    settings = {"alpha": alpha, "solver": solver, "start": "uniform", "max_steps": 2, "reg": 0.1, "n_prototypes": 1}
    one = learner_of(data.draw, features, **settings)
    order = data.draw(st.permutations(range(4)))
    other = PrototypeLearner(**one.get_params()).fit(features[order])
    torch.testing.assert_close(other.prototypes_, one.prototypes_, rtol=1e-4, atol=1e-5)
    assert other.history_["loss"] == pytest.approx(one.history_["loss"], abs=1e-4)


@FEW
@given(st.integers(0, 10**6), st.data(), st.sampled_from([2.0**-110, 2.0**-20, 2.0**20, 2.0**110]))
def test_the_size_of_features_is_the_size_of_prototypes_and_no_more(seed, data, size):
    features = torch.rand(3, 2, 2, 4, generator=torch.Generator().manual_seed(seed))
    learner = learner_of(data.draw, features, start="images", reg=0.1)
    other = PrototypeLearner(**learner.get_params()).fit(size * features)
    torch.testing.assert_close(other.prototypes_ / size, learner.prototypes_, rtol=1e-4, atol=1e-5)
    assert other.history_["loss"] == pytest.approx(learner.history_["loss"], abs=1e-4)
    costs = [one.nearest(maps, one.scale_).cost for one, maps in ((learner, features), (other, size * features))]
    torch.testing.assert_close(costs[1], costs[0], rtol=1e-3, atol=1e-4)


@FEW
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]), st.floats(-1, 0), st.sampled_from(["fixed", "learned"]))
def test_the_fast_way_ends_where_the_faithful_one_ends(seed, alpha, power, positions):
    features = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    settings = {"n_prototypes": 1, "reg": 10**power, "batch_size": 3, "max_steps": 1, "ema": 0.5, "positions": positions}
    faithful = PrototypeLearner(alpha, solver="kernel", n_iter=100, **settings).fit(features)
    fast = PrototypeLearner(alpha, solver="streamed", n_iter=100, tol=1e-5, **settings).fit(features)
    torch.testing.assert_close(fast.prototypes_, faithful.prototypes_, atol=3e-4, rtol=0)
    torch.testing.assert_close(fast.positions_, faithful.positions_, atol=3e-4, rtol=0)
    assert fast.history_["loss"] == pytest.approx(faithful.history_["loss"], abs=3e-4)
    paid = [one.transported(features, faithful.scale_) for one in (faithful, fast)]
    torch.testing.assert_close(paid[1], paid[0], atol=3e-3, rtol=0)
