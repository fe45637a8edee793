"""The search finds the cheapest prototype of every patch, without looking at all of them."""

import math

import pytest
import torch
from small_problems import SCALE, count_products, feature_maps, problem

from pradot import CostScale, block_cost, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.block_cost import by_cell
from pradot.search import NearestSearch


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (14, 3), (1, 1)])
@pytest.mark.parametrize("block", [1, 10**6])
def test_the_search_finds_the_minimum(monkeypatch, alpha, shape, free, block):
    monkeypatch.setattr(block_cost, "BLOCK", block)  # smaller than the problem: band by band
    features, _, cost, M = problem(alpha, shape=shape, free=free)
    found, index = NearestSearch(cost.unit, cost.positions, shape, alpha)(features, SCALE)
    expected = M.view(-1, 3, M.shape[1]).permute(1, 0, 2)  # (batch, height * width, m)
    torch.testing.assert_close(found.flatten(1), expected.amin(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(expected.gather(2, index.flatten(1)[..., None])[..., 0], expected.amin(2), atol=1e-12, rtol=0)


def test_the_search_skips_what_cannot_win(monkeypatch):
    shape = (14, 14)
    features = feature_maps(2, *shape)
    positions = grid_positions(*shape).repeat(2, 1)
    prototypes = feature_maps(2, *shape, seed=3).flatten(0, 2)
    pairs = count_products(monkeypatch)
    monkeypatch.setattr(block_cost, "BLOCK", 1000)
    NearestSearch(prototypes, positions, shape, 0.3)(features, CostScale(1.0, math.sqrt(2)))
    assert sum(pairs) < 0.5 * 2 * 196 * len(prototypes)


def test_places_with_different_numbers_of_prototypes_are_searched_too(monkeypatch):
    features, _, cost, M = problem(0.3)
    positions = cost.positions[torch.arange(60) // 7]  # seven at a place, and four at the last one
    c_space = spatial_cost(cost.grid, positions).repeat_interleave(3, 0)
    M = mix_costs(feature_cost(by_cell(features).flatten(0, 1), cost.unit), c_space, 0.3, SCALE)[0]
    for block in (1, 10**6):
        monkeypatch.setattr(block_cost, "BLOCK", block)
        found = NearestSearch(cost.unit, positions, (5, 4), 0.3)(features, SCALE)[0]
        expected = M.amin(1).view(20, 3).T  # (batch, height * width)
        torch.testing.assert_close(found.flatten(1), expected, atol=1e-12, rtol=0)


def test_a_search_in_reduced_precision_gives_exact_costs_of_nearly_the_cheapest():
    features, _, cost, M = problem(0.3, dtype=torch.float32)
    found, index = NearestSearch(cost.unit, cost.positions, (5, 4), 0.3, precision="reduced")(features, SCALE)
    expected = M.view(-1, 3, M.shape[1]).permute(1, 0, 2)  # (batch, height * width, m)
    torch.testing.assert_close(found.flatten(1), expected.gather(2, index.flatten(1)[..., None])[..., 0], atol=1e-6, rtol=0)
    assert (found.flatten(1) - expected.amin(2)).amax() < 0.01


def test_without_a_scale_each_call_takes_its_own_maxima():
    features, _, cost, _ = problem(0.3)
    search = NearestSearch(cost.unit, cost.positions, (5, 4), 0.3)
    own = cost.maxima(by_cell(features))
    torch.testing.assert_close(search(features)[0], search(features, own)[0])
