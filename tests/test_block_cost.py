"""Block by block the same cost as with whole matrices."""

import math

import pytest
import torch
from small_problems import cut, drawn, problem

from pradot import block_cost, feature_cost
from pradot.block_cost import BlockCost, by_cell, has_bfloat16


def whole(cost, x):
    blocks = []
    for cells in cost.blocks(x.shape[1]):
        c_feat = cost.features(cost.operand(x[cells]).flatten(0, 1))  # (n_cells * batch, m)
        c_space = cost.space(cells).repeat_interleave(x.shape[1], 0)  # (n_cells * batch, m)
        blocks.append(cost.feature_weight * c_feat + cost.space_weight * c_space)
    return torch.cat(blocks)


def test_rows_go_cell_by_cell():
    features = drawn(3, 2, 4, 5)
    x = by_cell(features)
    assert x.shape == (8, 3, 5)
    assert torch.equal(x[6, 1], features[1, 1, 2])


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("step", [1, 3, 20])
def test_blocks_are_the_mixed_cost(monkeypatch, alpha, step, free):
    cut(monkeypatch, step)
    _, x, cost, M = problem(alpha, free=free)
    torch.testing.assert_close(whole(cost, x), M, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("batch", "m_per_cell"), [(1, 1), (2, 3), (7, 2)])
def test_blocks_are_every_cell_once_and_bounded(batch, m_per_cell):
    _, _, cost, _ = problem(0.3, batch=batch, shape=(40, 50), n=m_per_cell)
    slices = cost.blocks(batch)
    assert [cell for cells in slices for cell in range(cells.start, cells.stop)] == list(range(2000))
    assert all((cells.stop - cells.start) * batch * len(cost) <= 6 * 2**20 for cells in slices)


def test_reduced_precision_rounds_vectors_and_costs_but_no_cosines():
    x = drawn(300, 256, dtype=torch.float32) + 3 * drawn(300, 1, seed=1, dtype=torch.float32)
    z = x[:20] + 0.05 * drawn(20, 256, seed=2, dtype=torch.float32)
    exact = feature_cost(x, z)
    cost = BlockCost(z, torch.zeros(20, 2), (5, 4), 0.0, precision="reduced")
    rounded = cost.features(cost.operand(x))
    error, small = (rounded - exact).abs(), exact < 0.01
    assert 0 < error.max() and (error <= 2**-8 * exact + 2**-10).all()
    assert error[small].max() < 0.5 * ((1 - exact).bfloat16().float() - (1 - exact)).abs()[small].max()


def test_maxima_are_those_of_all_pairs(monkeypatch):
    cut(monkeypatch, 3)
    _, x, cost, _ = problem(0.3)
    found = cost.maxima(x)
    assert found.feature == pytest.approx(feature_cost(x.flatten(0, 1), cost.unit).max().item(), rel=1e-12)
    assert found.space == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    "flags, found", [("fma avx2", False), ("avx512f avx512_bf16", True), ("fp asimd bf16", True), (None, False)]
)
def test_bfloat16_where_the_processor_has_instructions_for_it(monkeypatch, flags, found):
    def read_text(path):
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError(path)
        return f"processor : 0\nflags : {flags}\n"

    monkeypatch.setattr(block_cost.Path, "read_text", read_text)
    assert has_bfloat16("cpu") is found
