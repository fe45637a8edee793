"""Bounds of cosines: never below them, and the search finds with them what it finds without."""

import pytest
import torch
from small_problems import SCALE, count_products, drawn

from pradot import block_cost, feature_cost, grid_positions, mix_costs, search, spatial_cost
from pradot.block_cost import by_cell
from pradot.bounds import DIRECTIONS, CosineBounds
from pradot.cost import unit_vectors
from pradot.search import NearestSearch, cosines_of_pairs

CHANNELS = 4 * DIRECTIONS  # as few as are bounded


def images_of_a_kind(n, seed=0, dtype=torch.float32):
    """Feature maps (n, 6, 5, channels) that differ little from each other."""
    return drawn(6, 5, CHANNELS, seed=9, dtype=dtype) ** 6 + 0.1 * drawn(n, 6, 5, CHANNELS, seed=seed, dtype=dtype)


def unlike_each_other(n, seed=0, dtype=torch.float32):
    return drawn(n, 6, 5, CHANNELS, seed=seed, dtype=dtype)


@pytest.fixture
def whole_products(monkeypatch):
    """Entries of the products that were made of whole vectors; the smallest problem is bounded."""
    monkeypatch.setattr(block_cost, "BLOCK", 2000)
    monkeypatch.setattr(search, "_LEFT", 0.1)  # of 120 prototypes four share a place
    return count_products(monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_prototypes", [3, 400])
@pytest.mark.parametrize("drawn_ones", [images_of_a_kind, unlike_each_other])
def test_no_cosine_exceeds_its_bound(drawn_ones, n_prototypes, dtype):
    z = unit_vectors(drawn_ones(14, dtype=dtype).flatten(0, 2)[:n_prototypes])
    x = drawn_ones(3, seed=1, dtype=dtype).flatten(0, 2)
    x = torch.cat([x, z[:9], -z[:9], torch.zeros_like(z[:1]), z[:2] * 1e-30])  # (n, channels)
    bounds = CosineBounds(z)
    whole, parts = bounds.split(bounds.operand(x))
    torch.testing.assert_close(whole, unit_vectors(x))
    cosines = whole @ z.T
    assert (parts @ bounds.parts.T - cosines).min() > -1e-6
    if drawn_ones is images_of_a_kind and n_prototypes > DIRECTIONS:
        assert (parts @ bounds.parts.T - cosines)[:90].max() < 0.1  # and they tell something


def test_equal_prototypes_and_nan_have_bounds_too():
    z = unit_vectors(torch.ones(300, CHANNELS))
    bounds = CosineBounds(z)
    assert (bounds.parts @ bounds.parts.T >= 1 - 1e-6).all()
    assert CosineBounds(torch.full_like(z, torch.nan)).parts.isnan().any()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("drawn_ones", [images_of_a_kind, unlike_each_other])
def test_a_bounded_search_finds_the_minimum(whole_products, drawn_ones, free, alpha):
    features, prototypes = drawn_ones(3, seed=1), drawn_ones(4).flatten(0, 2)  # (3, 6, 5, channels), (120, channels)
    positions = drawn(120, 2, seed=2, dtype=torch.float32) if free else grid_positions(6, 5).repeat(4, 1)
    cost, index = NearestSearch(prototypes, positions, (6, 5), alpha)(features, SCALE)
    x, c_space = by_cell(features).flatten(0, 1), spatial_cost(grid_positions(6, 5), positions).repeat_interleave(3, 0)
    M = mix_costs(feature_cost(x, prototypes), c_space, alpha, SCALE)[0].view(30, 3, 120).permute(1, 0, 2)
    torch.testing.assert_close(cost.flatten(1), M.amin(2), atol=2e-6, rtol=0)
    torch.testing.assert_close(M.gather(2, index.flatten(1)[..., None])[..., 0], M.amin(2), atol=2e-6, rtol=0)
    if drawn_ones is images_of_a_kind and alpha < 1:
        assert sum(whole_products) == 0
    if drawn_ones is unlike_each_other and alpha == 0:
        assert sum(whole_products) == 3 * 30 * 120  # bounds tell nothing there: as without them


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_bounds_that_tell_nothing_are_given_up(whole_products, monkeypatch, alpha):
    asked, original = [], CosineBounds.split
    monkeypatch.setattr(CosineBounds, "split", lambda self, x: (asked.append(len(x)), original(self, x))[1])
    positions, alike, unlike = grid_positions(6, 5).repeat(4, 1), images_of_a_kind(1, seed=1), unlike_each_other(1, seed=1)

    def asks(find, features):
        """What it finds, and whether bounds were asked."""
        before = len(asked)
        return find(features, SCALE), len(asked) > before

    find = NearestSearch(unlike_each_other(4).flatten(0, 2), positions, (6, 5), alpha)
    (first, was_asked), (again, is_asked) = asks(find, unlike), asks(find, unlike)
    assert was_asked and not is_asked
    torch.testing.assert_close(again[0], first[0], atol=2e-6, rtol=0)
    assert (again[1] == first[1]).all()
    # One odd image among others changes nothing.
    find = NearestSearch(images_of_a_kind(4).flatten(0, 2), positions, (6, 5), alpha)
    for nearest in (search._NEAR, 0.0, search._NEAR):  # of the second image all pairs are taken for near ones
        monkeypatch.setattr(search, "_NEAR", nearest)
        assert asks(find, alike)[1]


@pytest.mark.parametrize("n_channels, precision", [(CHANNELS, "reduced"), (CHANNELS - 1, "full")])
def test_where_products_are_cheap_nothing_is_bounded(whole_products, n_channels, precision):
    features, prototypes = images_of_a_kind(1, seed=1), images_of_a_kind(4).flatten(0, 2)
    find = NearestSearch(prototypes[:, :n_channels], grid_positions(6, 5).repeat(4, 1), (6, 5), 0.0, precision=precision)
    find(features[..., :n_channels], SCALE)
    assert sum(whole_products) == 30 * 120


def test_products_of_some_pairs():
    x, z = drawn(7, 20), drawn(9, 20, seed=1)
    row, column = torch.tensor([0, 0, 2, 6, 6]), torch.tensor([3, 1, 8, 0, 3])
    torch.testing.assert_close(cosines_of_pairs(x, z, row, column), (x[row] * z[column]).sum(1))
    assert cosines_of_pairs(x, z, row[:0], column[:0]).shape == (0,)
