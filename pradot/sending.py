"""One transport of a batch, and what it sends to each prototype: by the whole cost, or block by block."""

from typing import NamedTuple

import torch

from pradot.cost import CostScale
from pradot.streaming import sinkhorn_streamed
from pradot.transport import PrecisionError, sinkhorn


class Sent(NamedTuple):
    """What a transport with plan T sent from patches x at places p to each prototype."""

    features: torch.Tensor  # (m, channels), T^T x
    positions: torch.Tensor | None  # (m, 2), T^T p
    received: torch.Tensor | None  # (m,), T^T 1
    loss: float
    marginal_errors: list  # after each iteration, as far as the solver tells
    n_iter: int
    scale: CostScale  # largest costs of the batch
    dual: torch.Tensor | None = None  # (m,), where the next transport starts
    n_passes: float | None = None  # over all entries of the cost


def send_dense(M, scale, x, places, reg, *, n_iter, solver):
    """Transport by a fixed number of iterations over the whole cost.

    Parameters
    ----------
    M : Tensor of shape (n, m)
        Cost, see `pradot.cost.mix_costs`.
    scale : CostScale
        What its parts were divided by.
    x : Tensor of shape (n, channels)
        The patches' features.
    places : Tensor of shape (n, 2), optional
        Their positions, if these are sent too.
    reg, n_iter, solver
        See `pradot.transport.sinkhorn`.

    Returns
    -------
    Sent
        Without positions nothing is said of the received mass.
    """
    transport = sinkhorn(M, reg, n_iter=n_iter, solver=solver)
    positions = received = None
    if places is not None:
        positions, received = transport.push(places), transport.push(torch.ones_like(places[:, :1]))[:, 0]
    return Sent(
        transport.push(x),
        positions,
        received,
        transport.cost(M),
        transport.marginal_errors.tolist(),
        transport.n_iter,
        scale,
    )


def send_streamed(cost, x, reg, with_places, *, dual=None, largest=None, expected=2, **settings):
    """Transport block by block, from where the step before has ended.

    Parameters
    ----------
    cost : BlockCost
        Its scale is set here.
    x : Tensor of shape (height * width, batch, channels)
        The patches' features, see `pradot.block_cost.by_cell`.
    reg : float
        Weight of the entropy.
    with_places : bool
        Whether the patches' positions are sent too.
    dual, largest, expected : optional
        Of the step before: `Sent.dual`, `Sent.scale.feature`, `Sent.n_passes`.
    **settings
        See `pradot.streaming.sinkhorn_streamed`.

    Returns
    -------
    Sent
    """
    values = x
    if with_places:
        places = cost.grid[:, None].expand(-1, x.shape[1], -1)  # (height * width, batch, 2)
        values = torch.cat([x, places], 2)  # (height * width, batch, channels + 2)
    settings |= {"v": dual, "expected": expected}
    sent = None
    if largest is not None:
        # The largest feature cost of the step before: this one's is known only after the pass that needs it.
        cost.scale = CostScale(largest, cost.largest_space)
        try:
            sent = sinkhorn_streamed(cost, x, values, reg, **settings)
        except PrecisionError:  # this step's costs are many times larger
            pass
    if sent is None:
        cost.scale = cost.maxima(x)
        sent = sinkhorn_streamed(cost, x, values, reg, **settings)
    channels = x.shape[2]
    return Sent(
        sent.pushed[:, :channels],
        sent.pushed[:, channels:],
        sent.received,
        sent.loss,
        sent.marginal_errors,
        len(sent.marginal_errors),
        CostScale(sent.largest, cost.largest_space),
        sent.v,
        sent.n_passes,
    )
