"""Costs, feature maps and learners so small that a step takes milliseconds, and plans made in other ways."""

import numpy as np
import ot
import torch

from pradot import CostScale, PrototypeLearner, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.block_cost import BlockCost, by_cell

# Costs, and plans by others' ways


def uniform_cost(n=120, m=90, seed=0, dtype=torch.float64):
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cluster_cost(n=300, m=80, seed=0, dtype=torch.float64):
    """As in training: embeddings in a few clusters of unequal size, prototypes elsewhere; largest cost 1."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    which = (torch.rand(n, generator=generator) ** 3 * 6).long()
    x = centres[which] + 0.02 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    z = 0.3 * torch.rand(m, 3, generator=generator, dtype=torch.float64)
    cost = torch.cdist(x, z)
    return (cost / cost.max()).to(dtype)


def pot(M, reg, n_iter, a=None, b=None):
    """Plan and duals (in units of the cost) of POT's solver in the log domain."""
    a = M.new_full((len(M),), 1 / len(M)) if a is None else a
    b = M.new_full((M.shape[1],), 1 / M.shape[1]) if b is None else b
    plan, log = ot.bregman.sinkhorn(a, b, M, reg, method="sinkhorn_log", numItermax=n_iter, stopThr=0, warn=False, log=True)
    return plan, reg * log["log_u"], reg * log["log_v"]


def l1(plan, other):
    return (plan.double() - other.double()).abs().sum().item()


def numpy_plan(M, reg, n_iter):
    """Sinkhorn's plain form in float64."""
    n, m = M.shape
    K = np.exp(-M / reg)
    u = np.ones(n)
    for _ in range(n_iter):
        v = 1 / m / (K.T @ u)
        u = 1 / n / (K @ v)
    return u[:, None] * K * v


# Costs by blocks


SCALE = CostScale(0.8, 1.2)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(alpha, *, batch=3, shape=(5, 4), n=3, channels=6, precision="full", dtype=torch.float64, free=False):
    """Feature maps, their cost by blocks, and the same cost as one matrix with rows in the order of the blocks."""
    features = drawn(batch, *shape, channels, dtype=dtype)
    positions = grid_positions(*shape, dtype=dtype).repeat(n, 1)  # (m, 2)
    if free:
        positions = drawn(len(positions), 2, seed=2, dtype=dtype)
    prototypes = drawn(len(positions), channels, seed=1, dtype=dtype)
    cost = BlockCost(prototypes, positions, shape, alpha, precision=precision)
    cost.scale = SCALE
    x = by_cell(features)  # (height * width, batch, channels)
    c_feat = feature_cost(x.flatten(0, 1), prototypes)
    c_space = spatial_cost(grid_positions(*shape, dtype=dtype), positions).repeat_interleave(batch, 0)
    return features, x, cost, mix_costs(c_feat, c_space, alpha, SCALE)[0]


def cut(monkeypatch, step):
    """Blocks of so many cells."""
    blocks = lambda self, *_: [slice(k, min(k + step, len(self.grid))) for k in range(0, len(self.grid), step)]  # noqa: E731
    monkeypatch.setattr(BlockCost, "blocks", blocks)


def count_products(monkeypatch):
    """A list to which every product that `BlockCost.features` makes adds its entries."""
    made, original = [], BlockCost.features

    def counted(self, x, columns=slice(None)):
        found = original(self, x, columns)
        made.append(found.numel())
        return found

    monkeypatch.setattr(BlockCost, "features", counted)
    return made


def local_problem(dtype=torch.float64, n=2, batch=6, far=0):
    """Images of one kind and prototypes that are such images: a plan of which few entries count; some prototypes far off."""
    places = drawn(9, 8, 12, seed=3, dtype=dtype) ** 4
    image = lambda seed: places + 0.03 * drawn(9, 8, 12, seed=seed, dtype=dtype)  # noqa: E731
    x = by_cell(torch.stack([image(seed) for seed in range(10, 10 + batch)]))  # (72, batch, 12)
    prototypes = torch.stack([image(seed) for seed in range(50, 50 + n)]).flatten(0, 2)  # (72 n, 12)
    prototypes[:far] += drawn(far, 12, seed=5, dtype=dtype)
    return x, BlockCost(prototypes, grid_positions(9, 8, dtype=dtype).repeat(n, 1), (9, 8), 0.3)


# Feature maps


def feature_maps(n=6, height=4, width=4, channels=5, seed=0):
    """Every place has its own mean features, so that position matters."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(height, width, channels, generator=torch.Generator().manual_seed(99)) ** 4
    return places + 0.05 * torch.rand(n, height, width, channels, generator=generator)


def quick(alpha=0.0, **settings):
    """A learner of a few steps."""
    return PrototypeLearner(alpha, **{"n_prototypes": 1, "n_epochs": 3, "batch_size": 3, "n_iter": 30} | settings)
