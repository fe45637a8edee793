"""Scores: the nearest prototype of a patch, and what it pays when its image is transported."""

import math

import numpy as np
import pytest
import torch
from small_problems import numpy_plan, quick

from pradot import CostScale, PrototypeLearner, grid_positions, scoring, sending, sinkhorn

# Nearest


@pytest.fixture
def known():
    """A learner whose prototypes are six unit vectors on a 2 x 3 grid, not trained."""
    learner = PrototypeLearner(0.3)
    learner.grid_shape_ = (2, 3)
    learner.prototypes_ = torch.eye(6)
    learner.positions_ = grid_positions(2, 3)
    learner.scale_ = CostScale(1.0, math.sqrt(2))
    return learner


def test_a_patch_equal_to_the_prototype_of_its_place_costs_nothing(known):
    image = torch.eye(6).view(1, 2, 3, 6) * 7
    cost, index = known.nearest(image, known.scale_)
    assert cost.shape == index.shape == (1, 2, 3)
    assert index.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert cost.abs().max() < 1e-6


def test_a_patch_elsewhere_costs_its_way_or_its_difference(known):
    image = torch.eye(6)[[2, 1, 0, 3, 4, 5]].view(1, 2, 3, 6)  # the corners of the upper row exchanged
    cost, index = known.nearest(image, known.scale_)
    assert index[0, 0].tolist() == [2, 1, 0]
    way = 0.3 * 1 / math.sqrt(2)
    torch.testing.assert_close(cost[0], torch.tensor([[way, 0, way], [0, 0, 0]]), atol=1e-6, rtol=0)
    # With the way dear and features cheap, the place's own prototype is taken though it looks different.
    cost, index = known.nearest(image, CostScale(10.0, 0.1))
    assert index[0, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(cost[0, 0], torch.tensor([0.07, 0.0, 0.07]), atol=1e-6, rtol=0)


def test_image_scoring_divides_by_each_images_own_maxima(known):
    near = torch.ones(1, 2, 3, 6)  # 1 - 1 / sqrt(6) from every prototype
    far = torch.eye(6).view(1, 2, 3, 6)
    together = known.nearest(torch.cat([near, far]))
    torch.testing.assert_close(together.cost[:1], known.nearest(near).cost)
    torch.testing.assert_close(together.cost[1:], known.nearest(far).cost)
    torch.testing.assert_close(together.cost[0], torch.full((2, 3), 0.7))  # its largest feature cost, and no way to go
    fixed = known.nearest(torch.cat([near, far]), known.scale_)
    torch.testing.assert_close(fixed.cost[0], torch.full((2, 3), 0.7 * (1 - 6**-0.5)))


def test_prototypes_that_were_put_in_place_of_others_are_searched(known):
    image = torch.eye(6).view(1, 2, 3, 6)
    assert known.nearest(image, known.scale_).index.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    known.prototypes_, known.positions_ = known.prototypes_.flip(0), known.positions_.flip(0)
    assert known.nearest(image, known.scale_).index.flatten().tolist() == [5, 4, 3, 2, 1, 0]
    known.prototypes_ = known.prototypes_[[5, 1, 2, 3, 4, 0]]  # one of both alone
    known.positions_ = known.positions_ * 1
    assert known.nearest(image, known.scale_).index[0, 0, 0] != 5


@pytest.mark.parametrize("solver", ["kernel", "pot"])
def test_transport_is_by_the_solver_that_was_asked_for(features, monkeypatch, solver):
    asked = []
    for module in (sending, scoring):
        monkeypatch.setattr(module, "sinkhorn", lambda *a, **k: (asked.append(k["solver"]), sinkhorn(*a, **k))[1])
    learner = quick(0.3, solver=solver, max_steps=1).fit(features)
    n_asked = len(asked)
    learner.transported(features[:2])
    assert n_asked >= 2 and len(asked) == n_asked + 2 and set(asked) == {solver}


def test_scores_with_the_fixed_scale_do_not_depend_on_the_other_images(features):
    learner = quick(0.3).fit(features)
    strange = 5 * torch.rand(2, 4, 4, 5) - 2
    alone = learner.nearest(features[:2], learner.scale_)
    together = learner.nearest(torch.cat([strange, features[:2]]), learner.scale_)
    assert torch.equal(together.cost[2:], alone.cost) and torch.equal(together.index[2:], alone.index)


def test_nearest_is_the_row_minimum_of_the_cost(features):
    learner = quick(0.3, n_prototypes=2).fit(features)
    M, _ = learner.cost(features, learner.scale_)
    nearest = learner.nearest(features, learner.scale_)
    torch.testing.assert_close(nearest.cost, M.min(1).values.view(6, 4, 4))
    torch.testing.assert_close(M.gather(1, nearest.index.view(-1, 1)).view(6, 4, 4), nearest.cost)


# Transport at scoring


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_transported_patches_must_take_every_prototype(solver):
    """Two patches like the first of two prototypes: each sends half its mass to the other one, which is as far as can be."""
    learner = PrototypeLearner(0.0, solver=solver, tol=1e-5)
    learner.grid_shape_, learner.prototypes_, learner.positions_ = (1, 2), torch.eye(2), grid_positions(1, 2)
    same = torch.eye(2)[[0, 0]].view(1, 1, 2, 2)
    scale = CostScale(1.0, 1.0)
    assert learner.nearest(same, scale).cost.flatten().tolist() == [0, 0]
    torch.testing.assert_close(learner.transported(same, scale), torch.full((1, 1, 2), 0.5))
    # Where patches and prototypes pair off, nobody pays, in whatever order.
    pairs = torch.cat([torch.eye(2), torch.eye(2).flip(0)]).view(2, 1, 2, 2)
    torch.testing.assert_close(learner.transported(pairs, scale), torch.zeros(2, 1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_transported_cost_is_that_of_the_plan(known, solver):
    known.set_params(reg=0.1, n_iter=500, tol=1e-6, solver=solver)
    images = torch.rand(2, 2, 3, 6, generator=torch.Generator().manual_seed(0))
    M, _ = known.cost(images, known.scale_)
    plans = [numpy_plan(one.double().numpy(), 0.1, 500) for one in M.split(6)]
    expected = [(6 * T * one.numpy()).sum(1) for T, one in zip(plans, M.split(6), strict=True)]
    paid = known.transported(images, known.scale_)
    np.testing.assert_allclose(paid.flatten(1), expected, atol=1e-5)
    assert (paid >= known.nearest(images, known.scale_).cost - 1e-6).all()  # the nearest is the cheapest
