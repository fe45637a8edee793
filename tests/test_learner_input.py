"""Settings and feature maps that a learner refuses."""

import math

import pytest
import torch
from small_problems import quick

from pradot import PradotError, PrototypeLearner


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"n_prototypes": 0}, "n_prototypes"),
        ({"n_prototypes": -1}, "n_prototypes"),
        ({"n_prototypes": 1.5}, "n_prototypes"),
        ({"n_prototypes": 0.5}, "1/4, 1/9"),
        ({"n_prototypes": 0.3}, "1/4, 1/9"),
        ({"n_prototypes": math.inf}, "n_prototypes"),
        ({"n_prototypes": math.nan}, "n_prototypes"),
        ({"reg": 0}, "reg"),
        ({"reg": math.nan}, "reg"),
        ({"n_iter": 0}, "n_iter"),
        ({"ema": 1.0}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_steps": -1}, "max_steps"),
        ({"positions": "free"}, "fixed, learned"),
        ({"solver": "emd"}, "kernel, pot, streamed"),
        ({"start": "zeros"}, "uniform, images"),
        ({"precision": "half"}, "full, reduced"),
        ({"tol": 0}, "tol"),
        ({"tol": math.nan}, "tol"),
    ],
)
def test_settings_out_of_range_are_errors(features, settings, message):
    with pytest.raises(PradotError, match=message):
        quick(**settings).fit(features)


def test_the_least_of_every_setting_is_taken(features):
    least = {"alpha": 0, "n_prototypes": 1 / 4, "n_iter": 1, "ema": 0, "n_epochs": 1, "batch_size": 1, "max_steps": 0}
    PrototypeLearner(**least).check_settings()
    PrototypeLearner(**least | {"alpha": 1, "n_prototypes": 1, "max_steps": 1}).fit(features)


def test_features_that_do_not_fit_are_errors(features):
    for shape in [(0, 4, 4, 5), (4, 4, 5)]:
        with pytest.raises(PradotError, match="at least one image"):
            quick().fit(torch.rand(shape))
    with pytest.raises(PradotError, match="do not fit"):
        quick().fit(features, torch.rand(2, 3, 4, 5))
    learner = quick().fit(features)
    for shape in [(1, 4, 5, 5), (1, 4, 4, 6)]:
        with pytest.raises(PradotError, match="do not fit"):
            learner.nearest(torch.rand(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_errors(features, bad):
    broken = features.clone()
    broken[2, 1, 1, 1] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        quick().fit(broken)
    with pytest.raises(PradotError, match="NaN or infinity"):
        quick().fit(features, broken)
    learner = quick().fit(features)
    with pytest.raises(PradotError, match="NaN or infinity"):
        learner.nearest(broken, learner.scale_)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"n_epochs": None}, "n_epochs is None"),
        ({"max_steps": 0.5}, "max_steps is 0.5"),
        ({"n_iter": 1.5}, "n_iter is 1.5"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": 2**63}, "random_state is 9223372036854775808"),
        ({"random_state": None}, "random_state is None"),
        ({"keep_gb": -1.0}, "keep_gb is -1.0"),
        ({"keep_gb": math.nan}, "keep_gb is nan"),
        ({"n_prototypes": "4"}, "n_prototypes is '4'"),
        ({"tol": "x"}, "tol is 'x'"),
        ({"ema": None}, "ema is None"),
        ({"alpha": "0.3"}, "alpha is '0.3'"),
        ({"reg": "0.1"}, "reg is '0.1'"),
    ],
)
def test_settings_of_a_learner_that_are_no_numbers_are_refused(settings, said):
    with pytest.raises(PradotError, match=said):
        PrototypeLearner(**settings).fit(torch.rand(2, 2, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_features_of_another_type_are_refused_and_leave_the_learner_as_it_was(dtype):
    features = torch.rand(2, 2, 2, 3)
    learner = PrototypeLearner(0.3, n_prototypes=1, max_steps=1).fit(features)
    expected = learner.nearest(features, learner.scale_).cost
    for use in (learner.nearest, learner.transported, learner.cost, learner.spread, PrototypeLearner().fit):
        with pytest.raises(PradotError, match=rf"torch.float32, not {dtype}"):
            use(features.to(dtype))
    with pytest.raises(PradotError, match="not ndarray"):
        learner.nearest(features.numpy())
    assert torch.equal(learner.nearest(features, learner.scale_).cost, expected)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (2, 0, 2, 3), (2, 2, 2, 0), (2, 2, 3)])
def test_features_without_numbers_are_refused(shape):
    with pytest.raises(PradotError, match="of at least one image"):
        PrototypeLearner().fit(torch.rand(shape))
    learner = PrototypeLearner(n_prototypes=1, max_steps=0).fit(torch.rand(2, 2, 2, 3))
    for use in (learner.nearest, learner.transported, learner.cost):
        with pytest.raises(PradotError, match="of at least one image"):
            use(torch.rand(shape))
