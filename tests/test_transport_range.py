"""Transport in float32: nothing is lost in silence where scalings go far."""

import math

import pytest
import torch
from small_problems import cluster_cost, l1, pot, uniform_cost

from pradot import PradotError, sinkhorn, transport


@pytest.fixture
def log_iterations(monkeypatch):
    """Counts the iterations made in the log domain: True for those that make a kernel again."""
    calls, original = [], transport._log_iteration

    def counting(*args, out=None):
        calls.append(out is not None)
        return original(*args, out=out)

    monkeypatch.setattr(transport, "_log_iteration", counting)
    return calls


@pytest.mark.parametrize("cost", [uniform_cost, cluster_cost])
@pytest.mark.parametrize("reg", [0.001, 0.003, 0.01, 0.1, 1.0])
def test_float32_gives_what_float64_gives(cost, reg):
    M = cost(dtype=torch.float32)
    plan, _, _ = pot(M.double(), reg, 100)
    result = sinkhorn(M, reg)
    assert l1(result.plan, plan) < 1e-6 + 4e-7 / reg  # exp(M / reg) hands on the rounding of M / reg
    assert result.plan.sum().item() == pytest.approx(1, abs=1e-5)
    for part in (result.plan, result.kernel, result.f, result.g, result.marginal_errors):
        assert torch.isfinite(part).all()


def steep_cost(dtype):
    """A narrow valley along the diagonal: mass has to be handed from neighbour to neighbour, and the duals go far."""
    x = torch.linspace(0, 1, 120, dtype=torch.float64)
    y = torch.linspace(0, 1, 60, dtype=torch.float64) ** 3
    return (x[:, None] - y).abs().to(dtype)


@pytest.mark.parametrize(("dtype", "reg", "tolerance"), [(torch.float32, 0.001, 5e-4), (torch.float64, 0.0002, 1e-10)])
def test_scalings_that_go_far_are_absorbed_again(log_iterations, dtype, reg, tolerance):
    M = steep_cost(dtype)
    plan, f, g = pot(M.double(), reg, 300)
    result = sinkhorn(M, reg, n_iter=300)
    assert log_iterations[0] is False and 0 < sum(log_iterations) < 100  # taken, and not at every iteration
    assert len(result.marginal_errors) == 300
    assert l1(result.plan, plan) < tolerance
    torch.testing.assert_close(result.f.double(), f, atol=tolerance, rtol=0)
    torch.testing.assert_close(result.g.double(), g, atol=tolerance, rtol=0)


def test_absorbing_at_every_iteration_changes_nothing(log_iterations, monkeypatch):
    M = cluster_cost()
    expected = sinkhorn(M, 0.01, n_iter=20)
    assert log_iterations == [False]
    monkeypatch.setattr(transport, "_within", lambda scaling, limit: False)
    result = sinkhorn(M, 0.01, n_iter=20)
    assert log_iterations[1:] == [False] + 19 * [True]
    assert l1(result.plan, expected.plan) < 1e-12
    torch.testing.assert_close(result.marginal_errors, expected.marginal_errors, atol=1e-12, rtol=0)
    torch.testing.assert_close(result.g, expected.g, atol=1e-12, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, 1e10])
def test_a_scaling_out_of_range_is_noticed(bad):
    scaling = torch.ones(5)
    assert transport._within(scaling, 20.0)
    scaling[3] = bad
    assert not transport._within(scaling, 20.0)


def test_reg_too_small_for_float32_is_an_error_and_float64_takes_it():
    M = uniform_cost(dtype=torch.float32)
    with pytest.raises(PradotError, match=r"too small.*float64"):
        sinkhorn(M, 1e-5)
    assert l1(sinkhorn(M.double(), 1e-5).plan, pot(M.double(), 1e-5, 100)[0]) < 1e-9
    with pytest.raises(PradotError, match="too small"):
        sinkhorn(1000 * M, 0.01)  # it is the ratio that counts


@pytest.mark.parametrize("left", ["rows", "columns"])
def test_rows_or_columns_that_leave_the_range_are_enough_to_absorb(log_iterations, monkeypatch, left):
    M = cluster_cost()
    expected = sinkhorn(M, 0.01, n_iter=5)
    within = lambda scaling, limit: len(scaling) != {"rows": len(M), "columns": M.shape[1]}[left]  # noqa: E731
    monkeypatch.setattr(transport, "_within", within)
    assert l1(sinkhorn(M, 0.01, n_iter=5).plan, expected.plan) < 1e-12
    assert log_iterations == [False, False, True, True, True, True]
