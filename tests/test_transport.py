"""Transport: equality with POT, marginals, known plans, row blocks, and what is refused."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from small_problems import cluster_cost, l1, pot, uniform_cost

from pradot import PradotError, sinkhorn, transport

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-12)]  # largest L1 difference of plans


def weights(n, seed, dtype=torch.float64):
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    return (drawn / drawn.sum()).to(dtype)


# Equality with POT


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("cost", [uniform_cost, cluster_cost])
@pytest.mark.parametrize("n_iter", [1, 2, 3, 100])
def test_kernel_solver_makes_the_iterates_of_pot(cost, dtype, tolerance, n_iter):
    M = cost(dtype=dtype)
    plan, f, g = pot(M, 0.01, n_iter)
    result = sinkhorn(M, 0.01, n_iter=n_iter)
    assert result.n_iter == n_iter and result.plan.dtype == dtype
    assert l1(result.plan, plan) < tolerance
    torch.testing.assert_close(result.f, f, atol=tolerance, rtol=0)
    torch.testing.assert_close(result.g, g, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_iterates_of_any_weights(dtype, tolerance):
    M = cluster_cost(dtype=dtype)
    a, b = weights(len(M), 1, dtype), weights(M.shape[1], 2, dtype)
    plan, f, g = pot(M, 0.01, 40, a, b)
    result = sinkhorn(M, 0.01, a=a, b=b, n_iter=40)
    assert l1(result.plan, plan) < tolerance
    torch.testing.assert_close(result.f, f, atol=tolerance, rtol=0)
    torch.testing.assert_close(result.g, g, atol=tolerance, rtol=0)
    torch.testing.assert_close(result.plan.sum(1), a, rtol=1e-5, atol=0)


def test_pot_solver_is_pot():
    M = cluster_cost()
    plan, f, g = pot(M, 0.01, 7)
    result = sinkhorn(M, 0.01, n_iter=7, solver="pot")
    assert torch.equal(result.plan, plan) and torch.equal(result.f, f) and torch.equal(result.g, g)
    assert result.marginal_error == pytest.approx((plan.sum(0) - 1 / M.shape[1]).abs().sum().item(), abs=1e-15)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("solver", transport.SOLVERS)
def test_a_single_row_or_column_leaves_no_choice(shape, solver):
    plan = sinkhorn(uniform_cost(*shape), 0.1, solver=solver).plan
    torch.testing.assert_close(plan, torch.full(shape, 1 / max(shape), dtype=torch.float64))


def test_the_cost_is_not_touched_and_may_be_a_transposed_view():
    M = cluster_cost()
    kept = M.clone()
    turned = sinkhorn(M.T, 0.01, n_iter=5)
    assert torch.equal(M, kept)
    assert l1(turned.plan, sinkhorn(M.T.contiguous(), 0.01, n_iter=5).plan) < 1e-12


# Laws


@pytest.mark.parametrize("solver", transport.SOLVERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("n_iter", [1, 3])
def test_rows_hold_exactly_and_columns_as_recorded(solver, dtype, tolerance, n_iter):
    M = cluster_cost(dtype=dtype)
    result = sinkhorn(M, 0.01, n_iter=n_iter, solver=solver)
    torch.testing.assert_close(result.plan.sum(1), M.new_full((len(M),), 1 / len(M)), rtol=10 * tolerance, atol=0)
    error = (result.plan.sum(0) - 1 / M.shape[1]).abs().sum().item()
    assert result.marginal_error == pytest.approx(error, abs=tolerance)
    assert error > 1e-3  # far from convergence, so that the record means something


def test_marginal_errors_are_those_after_each_iteration():
    M = cluster_cost()
    errors = sinkhorn(M, 0.01, n_iter=12).marginal_errors
    assert errors.shape == (12,)
    for n_iter in (1, 2, 5, 12):
        error = (pot(M, 0.01, n_iter)[0].sum(0) - 1 / M.shape[1]).abs().sum()
        torch.testing.assert_close(errors[n_iter - 1], error)
    assert (errors.diff() <= 1e-12).all()  # Sinkhorn never moves away


def test_plan_is_what_the_duals_say():
    M = cluster_cost()
    result = sinkhorn(M, 0.01, n_iter=20)
    torch.testing.assert_close(result.plan, ((result.f[:, None] + result.g - M) / 0.01).exp(), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("solver", transport.SOLVERS)
def test_cost_and_push_are_sums_over_the_plan(solver):
    M = cluster_cost()
    x = uniform_cost(len(M), 4, seed=5)
    result = sinkhorn(M, 0.01, n_iter=20, solver=solver)
    assert result.cost(M) == pytest.approx((result.plan * M).sum().item(), rel=1e-12)
    torch.testing.assert_close(result.push(x), result.plan.T @ x, rtol=1e-12, atol=0)


def test_a_cheapest_permutation_is_found():
    generator = torch.Generator().manual_seed(4)
    permutation = torch.randperm(30, generator=generator)
    M = 0.5 + 0.5 * torch.rand(30, 30, generator=generator)
    M[torch.arange(30), permutation] = 0.1 * torch.rand(30, generator=generator)
    plan = sinkhorn(M, 0.01).plan
    assert torch.equal(plan.argmax(1), permutation)
    torch.testing.assert_close(plan[torch.arange(30), permutation], torch.full((30,), 1 / 30), rtol=1e-4, atol=0)


def test_small_reg_tends_to_exact_transport():
    M = uniform_cost(20, 20)
    exact = ot.emd2([], [], M.numpy())
    excess = [sinkhorn(M, reg, n_iter=3000).cost(M) - exact for reg in (0.1, 0.01, 0.001)]
    assert excess[0] > excess[1] > excess[2] > -1e-9
    assert excess[2] < 1e-3 * exact
    np.testing.assert_allclose(sinkhorn(M, 0.001, n_iter=3000).plan, ot.emd([], [], M.numpy()), atol=5e-3)


def test_large_reg_tends_to_independence():
    M = cluster_cost()
    a, b = weights(len(M), 1), weights(M.shape[1], 2)
    torch.testing.assert_close(sinkhorn(M, 1e4, a=a, b=b).plan, a[:, None] * b, rtol=1e-3, atol=0)


def test_more_iterations_come_nearer_to_the_marginals():
    M = cluster_cost()
    assert sinkhorn(M, 0.05, n_iter=500).marginal_error < 1e-3 * sinkhorn(M, 0.05, n_iter=2).marginal_error


# Row blocks


@pytest.mark.parametrize("rows", [1, 7, 299])
def test_row_blocks_change_nothing(monkeypatch, rows):
    M = cluster_cost()
    a, b = weights(len(M), 1), weights(M.shape[1], 2)
    whole = sinkhorn(M, 0.01, a=a, b=b, n_iter=20)
    cost = whole.cost(M)

    def blocks(array):
        return [slice(start, min(start + rows, len(array))) for start in range(0, len(array), rows)]

    monkeypatch.setattr(transport, "_blocks", blocks)
    result = sinkhorn(M, 0.01, a=a, b=b, n_iter=20)
    assert l1(result.plan, whole.plan) < 1e-12
    torch.testing.assert_close(result.marginal_errors, whole.marginal_errors, atol=1e-13, rtol=0)
    assert result.cost(M) == pytest.approx(cost, rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (1, 2**21), (2**12, 2**9 + 1)])
def test_blocks_are_every_row_once(shape):
    M = torch.empty(shape)
    slices = list(transport._blocks(M))
    assert [row for rows in slices for row in range(rows.start, rows.stop)] == list(range(shape[0]))
    assert len(slices) == {5: 1, 1: 1, 2**12: 3}[shape[0]]


def test_a_cost_of_several_real_blocks_equals_pot():
    M = cluster_cost(3000, 500, dtype=torch.float32)
    assert len(list(transport._blocks(M))) > 1
    assert l1(sinkhorn(M, 0.01, n_iter=4).plan, pot(M, 0.01, 4)[0]) < 1e-5


# What is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_an_error(bad):
    M = uniform_cost()
    M[3, 4] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        sinkhorn(M)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reg": 0}, "reg"),
        ({"reg": -0.01}, "reg"),
        ({"reg": math.nan}, "reg"),
        ({"reg": math.inf}, "reg"),
        ({"n_iter": 0}, "n_iter"),
        ({"solver": "sinkhorn"}, "kernel, pot"),
        ({"a": torch.full((120,), 1 / 119)}, "a has"),
        ({"a": torch.full((90,), 1 / 90)}, "a has shape"),
        ({"b": torch.full((90, 1), 1 / 90)}, "b has shape"),
        ({"b": torch.eye(90)[0]}, "positive"),
        ({"b": torch.full((90,), math.nan)}, "b has"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(PradotError, match=message):
        sinkhorn(uniform_cost(), **settings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_precisions_are_errors(dtype):
    with pytest.raises(PradotError, match="float32 or float64"):
        sinkhorn(torch.ones(3, 3, dtype=dtype), 10.0)


def test_pot_does_not_import_other_array_libraries(tmp_path):
    for library in ("jax", "cupy", "tensorflow"):
        (tmp_path / f"{library}.py").write_text(f"raise RuntimeError('{library} was imported')")
    code = "import torch; from pradot import sinkhorn; print(sinkhorn(torch.rand(3, 2), 0.1, solver='pot').plan.sum())"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POT_BACKEND")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("tensor(1"), done.stderr
