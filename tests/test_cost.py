"""Costs: numpy's values, the laws of a distance, and the two maxima of the mix."""

import math

import numpy as np
import pytest
import torch

from pradot import CostScale, PradotError, feature_cost, grid_positions, mix_costs, spatial_cost


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Features


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_feature_cost_is_one_minus_cosine(dtype, tolerance):
    x, z = random(7, 5, dtype=dtype) - 0.5, random(4, 5, seed=1, dtype=dtype) * 9
    a, b = x.double().numpy(), z.double().numpy()
    expected = 1 - a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    cost = feature_cost(x, z)
    assert cost.dtype == dtype
    np.testing.assert_allclose(cost.numpy(), expected, atol=tolerance, rtol=0)


def test_feature_cost_of_known_directions():
    x = torch.tensor([[3.0, 0.0]])
    z = torch.tensor([[0.1, 0.0], [0.0, 5.0], [-2.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(feature_cost(x, z), torch.tensor([[0.0, 1.0, 2.0, 1 - math.sqrt(0.5)]]))


def test_zero_vectors_are_at_distance_one_of_everything():
    x = torch.cat([torch.zeros(1, 3), random(2, 3).float()])
    cost = feature_cost(x, x)
    assert cost[0].tolist() == [1, 1, 1] and cost[:, 0].tolist() == [1, 1, 1]


def test_feature_cost_is_never_negative_and_does_not_touch_its_input():
    x = random(200, 64, dtype=torch.float32)
    kept = x.clone()
    cost = feature_cost(x, x)
    assert cost.min() >= 0 and cost.diagonal().max() < 1e-6
    assert torch.equal(x, kept)


# Positions


def test_grid_runs_from_corner_to_corner_row_by_row():
    grid = grid_positions(3, 5)
    assert grid.shape == (15, 2)
    assert grid[[0, 4, 10, 14]].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert grid[1].tolist() == [0, 0.25]  # the column changes first
    assert grid[7].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_is_made_where_and_as_it_is_asked_for(dtype):
    grid = grid_positions(3, 5, device="meta", dtype=dtype)
    assert grid.shape == (15, 2) and grid.device.type == "meta" and grid.dtype == dtype


def test_grid_of_a_single_cell_or_row():
    assert grid_positions(1, 1).tolist() == [[0, 0]]
    assert grid_positions(1, 3).tolist() == [[0, 0], [0, 0.5], [0, 1]]


def test_spatial_cost_is_the_euclidean_distance():
    p = grid_positions(4, 6, dtype=torch.float64)
    q = random(5, 2)
    expected = np.linalg.norm(p.numpy()[:, None] - q.numpy()[None], axis=2)
    np.testing.assert_allclose(spatial_cost(p, q).numpy(), expected, atol=1e-15)


def test_spatial_cost_is_a_distance_on_the_grid():
    grid = grid_positions(28, 28)
    cost = spatial_cost(grid, grid)
    assert torch.equal(cost, cost.T)
    assert (cost.diagonal() == 0).all()  # exactly, also in float32
    assert (cost + torch.eye(len(grid)) > 0).all()
    assert cost.max().item() == pytest.approx(math.sqrt(2), abs=1e-6)  # corner to corner


# Mix


@pytest.fixture
def costs():
    """Feature cost of 2 images of 6 cells to 4 prototypes, spatial cost of one grid."""
    return random(12, 4) * 1.7, random(6, 4, seed=1) * 1.3


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_mix_is_the_formula(costs, alpha):
    feature, space = (cost.numpy().copy() for cost in costs)
    M, scale = mix_costs(*costs, alpha)
    assert scale == (feature.max(), space.max())
    expected = (1 - alpha) * feature / feature.max() + alpha * np.tile(space, (2, 1)) / space.max()
    np.testing.assert_allclose(M.numpy(), expected, atol=1e-15)


def test_alpha_zero_forgets_space_and_alpha_one_forgets_features(costs):
    feature, space = costs
    M, _ = mix_costs(feature.clone(), space, 0.0)
    torch.testing.assert_close(M, feature / feature.max())
    M, _ = mix_costs(feature.clone(), space, 1.0)
    torch.testing.assert_close(M, (space / space.max()).repeat(2, 1))


def test_the_maximum_is_that_of_the_whole_batch(costs):
    feature, space = costs
    feature[:6] /= 10
    together, _ = mix_costs(feature.clone(), space, 0.3)
    alone, scale = mix_costs(feature[:6].clone(), space, 0.3)
    assert scale.feature == feature[:6].max()
    assert not torch.allclose(together[:6], alone)
    assert together.max() <= 1 and alone.max() <= 1


def test_a_given_scale_is_used_and_given_back(costs):
    feature, space = costs
    expected = 0.7 * feature / 3 + 0.3 * space.repeat(2, 1) / 5
    M, scale = mix_costs(feature, space, 0.3, CostScale(3.0, 5.0))
    torch.testing.assert_close(M, expected)
    assert scale == CostScale(3.0, 5.0)
    assert M is feature  # overwritten: at 28 x 28 there is no room for two


def test_a_given_scale_of_zero_divides_nothing(costs):
    feature, space = costs
    expected = 0.7 * feature + 0.3 * space.repeat(2, 1)
    M, scale = mix_costs(feature, space, 0.3, CostScale(0.0, 0.0))
    torch.testing.assert_close(M, expected)
    assert scale == (0, 0)


def test_costs_that_are_all_zero_stay_zero():
    M, scale = mix_costs(torch.zeros(3, 2), torch.zeros(3, 2), 0.5)
    assert scale == (0, 0)
    assert (M == 0).all()


@pytest.mark.parametrize("alpha", [-0.1, 1.01, math.nan, math.inf])
def test_alpha_outside_of_its_range_is_an_error(costs, alpha):
    with pytest.raises(PradotError, match="alpha"):
        mix_costs(*costs, alpha)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("scale", [None, CostScale(1.0, 1.0)])
def test_features_that_are_not_finite_are_an_error(bad, scale):
    x = random(6, 3)
    x[4, 1] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        mix_costs(feature_cost(x, random(4, 3)), random(6, 4), 0.3, scale)
