"""Laws of costs on whatever numbers: ties, constants, zeros, extremes, shapes down to 1. References are NumPy's, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import EXTREMES, SIZE, layouts, numbers

from pradot import CostScale, PradotError, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.block_cost import BlockCost
from pradot.cost import unit_vectors
from pradot.search import NearestSearch

ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-14, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def cosine_distance(x, z):
    """In float64, of vectors that are first divided by their largest entry; 1 for those of zeros."""
    x, z = (one.double().numpy() for one in (x, z))
    x, z = (one / np.maximum(np.abs(one).max(1, keepdims=True), 5e-324) for one in (x, z))
    x, z = (one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-9) for one in (x, z))
    return torch.from_numpy(1 - x @ z.T)


@given(st.data(), st.sampled_from(list(ROUNDING)), SIZE, SIZE, SIZE)
def test_feature_cost_is_the_cosine_distance_of_vectors_of_any_length(data, dtype, n, m, channels):
    x, z = (data.draw(numbers(rows, channels, dtype=torch.float64)) for rows in (n, m))
    lengths = EXTREMES if dtype != torch.float16 else [1e-7, 1e-4, 1.0, 1e4]
    x, z = (one * data.draw(st.sampled_from(lengths)) for one in (x, z))
    x, z = x.to(dtype), z.to(dtype)
    cost = feature_cost(data.draw(layouts(x)), data.draw(layouts(z)))
    assert cost.dtype == dtype and cost.shape == (n, m)
    assert cost.min() >= 0 and cost.max() <= 2 + ROUNDING[dtype]
    torch.testing.assert_close(cost.double(), cosine_distance(x, z), atol=ROUNDING[dtype], rtol=0)
    assert (cost[(x == 0).all(1)] == 1).all() and (cost[:, (z == 0).all(1)] == 1).all()


@given(st.data(), SIZE, SIZE, st.lists(st.sampled_from(EXTREMES[1:]), min_size=1, max_size=3))
def test_the_length_of_one_vector_changes_no_digit_of_the_others(data, n, channels, lengths):
    x = data.draw(numbers(n, channels))
    alone = unit_vectors(x)
    together = unit_vectors(torch.cat([x, *(length * x[:1] for length in lengths)])[:, None])[:, 0]
    assert torch.equal(together[:n], alone)
    torch.testing.assert_close(together[n:], alone[:1].expand(len(lengths), -1), rtol=1e-5, atol=1e-6)
    assert torch.allclose(alone.norm(dim=1)[(x != 0).any(1)], torch.ones(()))


@given(SIZE, SIZE, SIZE, SIZE)
def test_spatial_cost_is_a_distance(height, width, rows, columns):
    p, q = grid_positions(height, width), grid_positions(rows, columns)
    cost = spatial_cost(p, q)
    expected = np.linalg.norm(p.double().numpy()[:, None] - q.double().numpy(), axis=2)
    np.testing.assert_allclose(cost, expected, atol=1e-6)
    assert torch.equal(cost, spatial_cost(q, p).T) and cost.max() <= math.sqrt(2) + 1e-6
    assert (spatial_cost(p, p) <= cost[:, None, 0] + cost[None, :, 0] + 1e-6).all()  # no shorter way by q


@given(st.data(), st.integers(1, 3), SIZE, SIZE, st.floats(0, 1))
def test_mixed_costs_are_the_formula_between_0_and_1(data, batch, cells, m, alpha):
    c_feat, c_space = (data.draw(numbers(rows, m)).abs() for rows in (batch * cells, cells))
    M, scale = mix_costs(data.draw(layouts(c_feat.clone())), data.draw(layouts(c_space)), alpha)
    assert scale == (c_feat.max(), c_space.max())
    expected = (1 - alpha) * c_feat.double() / (scale.feature or 1)
    expected += alpha * c_space.double().repeat(batch, 1) / (scale.space or 1)
    torch.testing.assert_close(M.double(), expected, atol=1e-6, rtol=0)
    assert M.min() >= 0 and M.max() <= 1 + 1e-6


@given(st.data(), SIZE, st.integers(1, 200), st.sampled_from([torch.float32, torch.float64]))
def test_rounding_between_equal_embeddings_is_no_cost(data, n, channels, dtype):
    x = data.draw(numbers(1, channels, dtype=dtype)).repeat(n, 1)
    assume((x != 0).any())
    M, _ = mix_costs(feature_cost(x, 3 * x), torch.zeros(n, n), 0.0)
    assert M.max() < 1e-5  # not 1, as if it were the largest of costs
    cost = BlockCost(3 * x, torch.zeros(n, 2, dtype=dtype), (1, 1), 0.3)
    cost.scale = cost.maxima(x[None])
    assert 0 <= cost.scale.feature < 1e-5 and cost.feature_weight == 0.7


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_embeddings_that_are_no_floating_point_numbers_are_refused(dtype):
    with pytest.raises(PradotError, match=r"embeddings are of torch\.\w+; give floating-point numbers"):
        feature_cost(torch.ones(2, 3, dtype=dtype), torch.ones(2, 3))


@pytest.mark.parametrize("largest", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("which", ["feature", "space"])
def test_a_scale_that_is_none_is_refused(largest, which):
    scale = CostScale(1.0, 1.0)._replace(**{which: largest})
    with pytest.raises(PradotError, match="both maxima must be finite and not negative"):
        mix_costs(torch.rand(2, 3), torch.rand(2, 3), 0.3, scale)
    with pytest.raises(PradotError, match="both maxima must be finite and not negative"):
        NearestSearch(torch.rand(2, 3), torch.rand(2, 2), (1, 2), 0.3)(torch.rand(1, 1, 2, 3), scale)
    with pytest.raises(PradotError, match="spatial cost holds NaN or infinity"):
        mix_costs(torch.rand(2, 3), torch.full((2, 3), math.nan), 0.3)
